"""Shapes of the random queries on route_results: joins, subqueries, sets.

In: a :class:`fdw_queries.Generator`.  Out: a query in its two forms.  Used by
test_fdw_differential.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fdw_queries import INPUTS, Generator, Query, Source

# Tables that may stand for each other: a heap, a view behind a barrier, partitions, row security.
TABLES = ("a", "a", "a", "barrier", "parts", "secured")

OUTPUT = "r.request, r.agent_name, round(r.expected_quality::numeric, 9), r.reasoning, r.pool"
WHOLE = "r::text"


# ---------------------------------------------------------------- shapes


def one_table(g: Generator) -> Query:
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    extra = g.rng.choice(("", " AND r.agent_name <> 'coder'", " AND a.id < 9"))
    output = g.rng.choice((OUTPUT, WHOLE))
    table = g.rng.choice(TABLES)
    return g.query(
        f"SELECT a.id, {output} FROM {table} a {kind} {{r}} ON {{on}}{extra}", g.ask(["a"])
    )


def two_tables(g: Generator) -> Query:
    link = g.rng.choice(("a.id = b.id", "a.body = b.body", "a.id + 1 = b.id"))
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    other = g.rng.choice(("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"))
    if "+" in link and other == "FULL JOIN":
        other = "LEFT JOIN"
    table = g.rng.choice(TABLES)
    return g.query(
        f"SELECT a.id, b.id, {OUTPUT} FROM {table} a {other} b ON {link} {kind} {{r}} ON {{on}}",
        g.ask(["a", "b"]),
    )


def comma_join(g: Generator) -> Query:
    """In the function's form the subquery is last; the foreign table may be anywhere."""
    source = g.ask(["a", "b"])
    link = g.rng.choice(("a.id = b.id", "a.body = b.body", "true"))
    tables = [f"{g.rng.choice(TABLES)} a", "b", "route_results r"]
    g.rng.shuffle(tables)
    query = g.query(f"SELECT a.id, b.id, {OUTPUT} FROM a, b, {{r}} WHERE {link} AND {{on}}", source)
    a = next(table for table in tables if table.endswith(" a"))
    query.foreign = query.foreign.replace("a, b, route_results r", ", ".join(tables), 1)
    query.function = query.function.replace("FROM a,", f"FROM {a},", 1)
    return query


def three_tables(g: Generator) -> Query:
    links = g.rng.choice(
        (
            "JOIN b ON b.id = a.id JOIN c ON c.pool = b.pool",
            "JOIN b ON b.id = a.id LEFT JOIN c ON c.body = a.body",
            "LEFT JOIN (b JOIN c ON b.target = c.target) ON b.id = a.id",
            "CROSS JOIN b LEFT JOIN c ON c.id = b.id",
        )
    )
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    return g.query(
        f"SELECT a.id, b.id, c.id, {OUTPUT} FROM {g.rng.choice(TABLES)} a {links} "
        f"{kind} {{r}} ON {{on}}",
        g.ask(["a", "b", "c"]),
    )


def in_the_middle(g: Generator) -> Query:
    """A further table is joined with what was decided, or with what was asked."""
    first = g.rng.choice(("JOIN", "LEFT JOIN"))
    second = g.rng.choice(("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"))
    source = g.ask(["a"])
    links = ["b.excluded[1] = r.agent_name", "b.id = a.id", "b.body = a.body"]
    # Beside a vector the other table would say which text it is of.
    if "embedding" not in source.values:
        links.append("b.body = r.request")
    link = g.rng.choice(links)
    where = g.rng.choice(("", "", " WHERE r.agent_name IS NULL", " WHERE b.id IS DISTINCT FROM 7"))
    return g.query(
        f"SELECT a.id, b.id, {OUTPUT} FROM a {first} {{r}} ON {{on}} {second} b ON {link}{where}",
        source,
    )


def delayed(g: Generator) -> Query:
    """Conditions that an outer join keeps above it."""
    source = g.ask(["a"])
    choices = [
        "r.agent_name IS NULL",
        "r.max_cost IS NULL",
        "coalesce(r.agent_name, 'none') <> 'coder'",
        "r.agent_name IS NULL OR r.similarity > 0.2",
        "a.body = 'tell me a joke'",
        "r IS NULL",
    ]
    # Beside a vector these would say which text it is of.
    if "embedding" not in source.values:
        choices += [
            "r.request IS NULL",
            "r.request = a.body OR r.request IS NULL",
            "r.request = 'tell me a joke'",
        ]
    where = g.rng.choice(choices)
    return g.query(
        f"SELECT a.id, {OUTPUT} FROM {g.rng.choice(TABLES)} a LEFT JOIN {{r}} ON {{on}} "
        f"WHERE {where}",
        source,
    )


def constants(g: Generator) -> Query:
    table = g.rng.choice(("route_results", "decided"))
    gate = g.rng.choice(("", "", " AND current_setting('server_version_num')::int > 0"))
    return g.query(f"SELECT {OUTPUT} FROM {{r}} WHERE {{on}}{gate}", g.ask([]), table=table)


def implied_constant(g: Generator) -> Query:
    """The request is known from what it is equal to."""
    literal = g.rng.choice(INPUTS["request"][0])
    source = g.ask(["a"])
    source.requests, source.clause = "", ""
    source.filters = []
    source.values["request"] = "a.body"
    source.values.pop("embedding", None)
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    also = g.rng.choice(("", " AND a.pool = 'east'", " AND a.cap = 1 AND a.target = 'cost'"))
    return g.query(
        f"SELECT a.id, {OUTPUT} FROM a {kind} {{r}} ON {{on}} WHERE a.body = {literal}{also}",
        source,
    )


def existence(g: Generator) -> Query:
    negation = g.rng.choice(("", "NOT "))
    wanted = g.rng.choice(("", " AND r.agent_name = 'translator'"))
    return g.query(
        f"SELECT a.id FROM {g.rng.choice(TABLES)} a "
        f"WHERE {negation}EXISTS (SELECT FROM {{r}} WHERE {{on}}{wanted})",
        g.ask(["a"]),
    )


def membership(g: Generator) -> Query:
    """IN and NOT IN a subquery that decides."""
    negation = g.rng.choice(("", "NOT "))
    left, column = g.rng.choice((("'translator'", "agent_name"), ("a.excluded[1]", "agent_name")))
    return g.query(
        f"SELECT a.id FROM a WHERE {left} {negation}IN (SELECT r.{column} FROM {{r}} WHERE {{on}})",
        g.ask(["a"]),
    )


def in_subquery(g: Generator) -> Query:
    """The requests come from a subquery, alone or together with a limit."""
    if g.rng.random() < 0.5:
        return Query(
            f"SELECT {OUTPUT} FROM route_results r WHERE r.request IN (SELECT body FROM a)",
            f"SELECT {OUTPUT} FROM (SELECT DISTINCT body FROM a) q (t), "
            f"{g.lateral(Source({'request': 'q.t'}), 'r')}",
        )
    name = g.rng.choice(("max_cost", "optimize_for", "pool"))
    column = g.rng.choice(INPUTS[name][1])
    return Query(
        f"SELECT {OUTPUT} FROM route_results r "
        f"WHERE (r.request, r.{name}) IN (SELECT body, {column} FROM a)",
        f"SELECT {OUTPUT} FROM (SELECT DISTINCT body, {column} FROM a) q (t, v), "
        f"{g.lateral(Source({'request': 'q.t', name: 'q.v'}), 'r')}",
    )


def scalar_subquery(g: Generator) -> Query:
    source = g.ask(["a"])
    return g.query(
        "SELECT a.id, (SELECT string_agg(r.agent_name, ',' ORDER BY r.agent_name) "
        "FROM {r} WHERE {on}) FROM a",
        source,
    )


def lateral_subquery(g: Generator) -> Query:
    """A subquery that cannot be pulled up, with references to outside."""
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    return g.query(
        f"SELECT a.id, x.* FROM {g.rng.choice(TABLES)} a {kind} LATERAL (SELECT {OUTPUT}, a.id + 1 "
        "FROM {r} WHERE {on} ORDER BY r.request, r.agent_name LIMIT 1) x ON true",
        g.ask(["a"]),
    )


def nested(g: Generator) -> Query:
    """A join below an outer join, whose columns are computed."""
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    return g.query(
        f"SELECT b.id, x.id, x.who, x.p FROM b LEFT JOIN (SELECT a.id, coalesce(r.agent_name, '-') "
        f"AS who, r.pool || '' AS p FROM a {kind} {{r}} ON {{on}}) x ON x.id = b.id",
        g.ask(["a"]),
    )


def routed_twice(g: Generator) -> Query:
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    return g.query(
        f"SELECT a.id, r.agent_name, s.agent_name FROM a {kind} {{r}} ON {{on}} "
        "LEFT JOIN {s} ON {s_on}",
        g.ask(["a"]),
        g.ask(["a"]),
    )


def chained(g: Generator) -> Query:
    """The second decision is about what the first one answered, or was asked."""
    kind = g.rng.choice(("JOIN", "LEFT JOIN"))
    first = g.ask(["a"])
    requests = ["r.agent_name", "r.reasoning"]
    # Two tables that only have each other to tell them an input would both wait for it.
    if first.requests or "request" in first.values:
        requests.append("r.request")
    second = Source({"request": g.rng.choice(requests)})
    if g.rng.random() < 0.5:
        pools = ["a.pool", "'east'", *(["r.pool"] if "pool" in first.values else [])]
        second.values["pool"] = g.rng.choice(pools)
    return g.query(
        f"SELECT a.id, r.agent_name, s.agent_name FROM a JOIN {{r}} ON {{on}} "
        f"{kind} {{s}} ON {{s_on}}",
        first,
        second,
    )


def aggregated(g: Generator) -> Query:
    grouping = g.rng.choice(
        (
            "GROUP BY GROUPING SETS ((r.agent_name), (a.target), ())",
            "GROUP BY ROLLUP (r.agent_name, a.target)",
            "GROUP BY r.agent_name, a.target HAVING count(*) > 1",
        )
    )
    return g.query(
        f"SELECT r.agent_name, a.target, count(*), min(r.request) FROM a LEFT JOIN {{r}} "
        f"ON {{on}} {grouping}",
        g.ask(["a"]),
    )


def windowed(g: Generator) -> Query:
    return g.query(
        f"SELECT a.id, {OUTPUT}, count(*) OVER (PARTITION BY r.agent_name), "
        "sum(a.id) OVER (ORDER BY a.id) FROM a JOIN {r} ON {on}",
        g.ask(["a"]),
    )


def appended(g: Generator) -> Query:
    """Logs one after another."""
    return g.query(
        f"SELECT a.id, {OUTPUT} FROM (SELECT * FROM a UNION ALL SELECT * FROM b) a "
        "LEFT JOIN {r} ON {on}",
        g.ask(["a"]),
    )


def recursive(g: Generator) -> Query:
    """A path of rows, each of which is decided."""
    return g.query(
        "WITH RECURSIVE w AS (SELECT * FROM a WHERE id = 1 UNION ALL "
        "SELECT n.* FROM w JOIN a n ON n.id = w.id + 1) "
        f"SELECT w.id, {OUTPUT} FROM w JOIN {{r}} ON {{on}}",
        g.ask(["w"]),
    )


def common_table(g: Generator) -> Query:
    kind = g.rng.choice(("MATERIALIZED", "NOT MATERIALIZED"))
    return g.query(
        f"WITH w AS {kind} (SELECT a.*, {OUTPUT.replace('r.pool', 'r.max_cost')} "
        "FROM a JOIN {r} ON {on}) SELECT * FROM w x LEFT JOIN w y ON x.id = y.id + 1".replace(
            "SELECT *", "SELECT x.id, y.id, x.agent_name, y.agent_name"
        ),
        g.ask(["a"]),
    )


def set_operation(g: Generator) -> Query:
    operation = g.rng.choice(("UNION", "UNION ALL", "EXCEPT", "INTERSECT"))
    return g.query(
        f"SELECT {OUTPUT} FROM a JOIN {{r}} ON {{on}} {operation} "
        "SELECT s.request, s.agent_name, round(s.expected_quality::numeric, 9), s.reasoning, "
        "s.pool FROM b JOIN {s} ON {s_on}",
        g.ask(["a"]),
        g.ask(["b"]),
    )


SHAPES: tuple[Callable[[Generator], Query], ...] = (
    one_table,
    one_table,
    two_tables,
    two_tables,
    comma_join,
    comma_join,
    three_tables,
    three_tables,
    in_the_middle,
    delayed,
    constants,
    constants,
    implied_constant,
    existence,
    membership,
    in_subquery,
    scalar_subquery,
    lateral_subquery,
    nested,
    routed_twice,
    chained,
    aggregated,
    windowed,
    appended,
    recursive,
    common_table,
    set_operation,
)


def generate(rng: random.Random) -> Query:
    """One query of a random shape."""
    return rng.choice(SHAPES)(Generator(rng))
