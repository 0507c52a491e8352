"""Generated queries on route_results against ruvector_route() called row by row.

In: random join shapes, subsets of input columns, NULLs, types and planner settings.  What is
compared: the rows of the foreign table, whatever plan it got, with the rows of the function.  A
column set by equality with NULL gives no row, where NULL as an argument means no limit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

QUERIES = 2000

REQUESTS = (
    "translate this text into french",
    "debug my python program",
    "what is seven times eight",
    "tell me a joke",
    "Übersetze das bitte",
)
# Input column: values to choose from as SQL literals, and the columns of the tables that hold them.
INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "request": (tuple(f"'{text}'" for text in REQUESTS), ("body", "vbody", "nbody")),
    "optimize_for": (("'cost'", "'quality'", "'balanced'", "'latency'"), ("target",)),
    "max_cost": (("0.001", "1", "'Infinity'", "0"), ("cap", "cap4")),
    "max_latency_ms": (("100", "2000"), ("lat",)),
    "min_quality": (("0.5", "0.9"), ("floor",)),
    "required_capabilities": (("ARRAY['coding']", "'{}'::text[]"), ("caps",)),
    "excluded_agents": (("ARRAY['translator']", "ARRAY['nobody']"), ("excluded",)),
    "budget_remaining": (("0.01", "5"), ("cap",)),
    "pool": (("'east'", "'west'"), ("pool",)),
    "min_expected_quality": (("0.1", "0.6"), ("floor",)),
}
SETTINGS = (
    "enable_nestloop",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_memoize",
    "enable_material",
    "enable_seqscan",
)
TEXTS = ", ".join(f"'{text}'" for text in REQUESTS)
SETUP = f"""
SELECT ruvector_register_agent('translator', 'api', ARRAY['translation'], cost_per_call := 0.0005,
    avg_latency_ms := 150, quality_score := 0.9, description := 'translates texts', pool := 'east');
SELECT ruvector_register_agent('coder', 'llm', ARRAY['coding'], cost_per_1k_tokens := 0.01,
    avg_latency_ms := 1500, quality_score := 0.95, description := 'debugs programs',
    pool := 'west');
SELECT ruvector_register_agent('sums', 'tool', ARRAY['arithmetic'], cost_per_call := 0,
    avg_latency_ms := 5, quality_score := 0.6, description := 'calculates', pool := 'east');
SELECT ruvector_register_agent('anyone', 'human', avg_latency_ms := 60000, quality_score := 0.8,
    description := 'answers anything');
CREATE TABLE a AS SELECT id, r.body, r.body::varchar(40) AS vbody, r.body::name AS nbody,
    (ARRAY['cost', 'quality', NULL, 'balanced'])[1 + id % 4] AS target,
    (ARRAY[0.001, 1, NULL, 'Infinity', 0])[1 + id % 5]::float8 AS cap,
    (ARRAY[0.5, 1, NULL])[1 + id % 3]::float4 AS cap4,
    (ARRAY[100, 2000, NULL])[1 + id % 3]::float8 AS lat,
    (ARRAY[0.1, 0.6, NULL])[1 + id % 3]::float8 AS floor,
    CASE id % 3 WHEN 0 THEN ARRAY['Coding'] WHEN 1 THEN '{{}}'::text[] END AS caps,
    CASE id % 2 WHEN 0 THEN ARRAY['translator'] END AS excluded,
    (ARRAY['east', 'west', NULL])[1 + id % 3] AS pool
FROM generate_series(1, 12) id,
     LATERAL (SELECT (ARRAY[{TEXTS}, NULL])[1 + id % 6] AS body) r;
CREATE TABLE b AS SELECT * FROM a WHERE id > 4;
CREATE INDEX ON b (id);
ANALYZE a, b;
"""


@dataclass
class Query:
    """One query in its two forms."""

    foreign: str
    function: str
    settings: list[str] = field(default_factory=list)


def sources(rng: random.Random, tables: list[str]) -> dict[str, str]:
    """An expression for each input that the query sets; always one for the request."""
    others = rng.sample(list(INPUTS)[1:], k=rng.choice((0, 0, 1, 1, 2, 3, 4)))
    chosen = {}
    for name in ["request", *others]:
        literals, columns = INPUTS[name]
        kind = rng.random()
        if kind < 0.25 or not tables:
            chosen[name] = rng.choice(literals)
            if rng.random() < 0.1:
                chosen[name] = "NULL"
        else:
            column = f"{rng.choice(tables)}.{rng.choice(columns)}"
            chosen[name] = column
            if kind > 0.9 and name == "request" and not column.endswith("nbody"):
                chosen[name] = f"({column} || '')"
            elif kind > 0.9 and name in ("max_cost", "budget_remaining"):
                chosen[name] = f"coalesce({column}, 'Infinity')"
    return chosen


TYPES = {"optimize_for": "text", "request": "text", "pool": "text"}
TYPES |= {"required_capabilities": "text[]", "excluded_agents": "text[]"}


def conditions(rng: random.Random, inputs: dict[str, str], alias: str = "r") -> str:
    """The equalities, in any order and either way round."""
    clauses = []
    for name, source in inputs.items():
        value = f"{source}::{TYPES.get(name, 'float8')}" if source == "NULL" else source
        column = f"{alias}.{name}"
        left, right = (column, value) if rng.random() < 0.7 else (value, column)
        clauses.append(f"{left} = {right}")
    rng.shuffle(clauses)
    return " AND ".join(clauses)


def lateral(inputs: dict[str, str], alias: str = "r") -> str:
    """The same decision by the function, with no row where an input is NULL."""
    arguments = ", ".join(
        f"{name} := ({source})::{TYPES.get(name, 'float8')}" for name, source in inputs.items()
    )
    known = " AND ".join(f"({source}) IS NOT NULL" for source in inputs.values())
    return f"LATERAL (SELECT * FROM ruvector_route({arguments}) WHERE {known}) {alias}"


OUTPUT = "r.agent_name, round(r.expected_quality::numeric, 9), r.reasoning"


def one_table(rng: random.Random) -> Query:
    inputs = sources(rng, ["a"])
    kind = rng.choice(("JOIN", "LEFT JOIN"))
    extra = rng.choice(
        ("", " AND r.agent_name <> 'coder'", " AND r.similarity > 0.2", " AND a.id < 9")
    )
    return Query(
        f"SELECT a.id, {OUTPUT} FROM a {kind} route_results r ON {conditions(rng, inputs)}{extra}",
        f"SELECT a.id, {OUTPUT} FROM a {kind} {lateral(inputs)} ON true{extra}",
    )


def two_tables(rng: random.Random) -> Query:
    inputs = sources(rng, ["a", "b"])
    link = rng.choice(("a.id = b.id", "a.body = b.body", "a.id + 1 = b.id"))
    kind = rng.choice(("JOIN", "LEFT JOIN"))
    other = rng.choice(("JOIN", "LEFT JOIN"))
    return Query(
        f"SELECT a.id, b.id, {OUTPUT} FROM a {other} b ON {link} "
        f"{kind} route_results r ON {conditions(rng, inputs)}",
        f"SELECT a.id, b.id, {OUTPUT} FROM a {other} b ON {link} {kind} {lateral(inputs)} ON true",
    )


def comma_join(rng: random.Random) -> Query:
    inputs = sources(rng, ["a", "b"])
    link = rng.choice(("a.id = b.id", "a.body = b.body"))
    tables = ["a", "b", "route_results r"]
    rng.shuffle(tables)
    return Query(
        f"SELECT a.id, b.id, {OUTPUT} FROM {', '.join(tables)} "
        f"WHERE {link} AND {conditions(rng, inputs)}",
        f"SELECT a.id, b.id, {OUTPUT} FROM a, b, {lateral(inputs)} WHERE {link}",
    )


def constants(rng: random.Random) -> Query:
    inputs = sources(rng, [])
    return Query(
        f"SELECT {OUTPUT} FROM route_results r WHERE {conditions(rng, inputs)}",
        f"SELECT {OUTPUT} FROM {lateral(inputs)}",
    )


def existence(rng: random.Random) -> Query:
    inputs = sources(rng, ["a"])
    negation = rng.choice(("", "NOT "))
    wanted = rng.choice(("", " AND r.agent_name = 'translator'"))
    return Query(
        f"SELECT a.id FROM a WHERE {negation}EXISTS (SELECT FROM route_results r "
        f"WHERE {conditions(rng, inputs)}{wanted})",
        f"SELECT a.id FROM a WHERE {negation}EXISTS "
        f"(SELECT FROM {lateral(inputs)} WHERE true{wanted})",
    )


def list_of_requests(rng: random.Random) -> Query:
    inputs = sources(rng, [])
    del inputs["request"]
    chosen = [*rng.choices(INPUTS["request"][0], k=rng.randint(1, 4)), *rng.choice(((), ("NULL",)))]
    rest = f" AND {conditions(rng, inputs)}" if inputs else ""
    listed = ", ".join(chosen)
    clause = rng.choice((f"r.request IN ({listed})", f"r.request = ANY (ARRAY[{listed}])"))
    inputs["request"] = "q.t"
    return Query(
        f"SELECT r.request, {OUTPUT} FROM route_results r WHERE {clause}{rest}",
        f"SELECT q.t, {OUTPUT} FROM (SELECT DISTINCT unnest(ARRAY[{listed}]::text[])) q (t), "
        f"{lateral(inputs)}",
    )


def alternatives(rng: random.Random) -> Query:
    texts = rng.choices(INPUTS["request"][0], k=2)
    first, second = rng.choice((texts, ["a.body", "b.body"], ["a.body", texts[0]]))
    return Query(
        f"SELECT a.id, b.id, {OUTPUT} FROM a JOIN b ON a.id = b.id "
        f"LEFT JOIN route_results r ON r.request = {first} OR r.request = {second}",
        f"SELECT a.id, b.id, {OUTPUT} FROM a JOIN b ON a.id = b.id LEFT JOIN LATERAL (SELECT f.* "
        f"FROM (SELECT DISTINCT unnest(ARRAY[{first}, {second}])) q (t), "
        "ruvector_route(q.t) f) r ON true",
    )


def in_subquery(rng: random.Random) -> Query:
    return Query(
        f"SELECT r.request, {OUTPUT} FROM route_results r WHERE r.request IN (SELECT body FROM a)",
        f"SELECT q.t, {OUTPUT} FROM (SELECT DISTINCT body FROM a) q (t), "
        f"{lateral({'request': 'q.t'})}",
    )


def scalar_subquery(rng: random.Random) -> Query:
    inputs = sources(rng, ["a"])
    return Query(
        f"SELECT a.id, (SELECT r.agent_name FROM route_results r "
        f"WHERE {conditions(rng, inputs)}) FROM a",
        f"SELECT a.id, (SELECT r.agent_name FROM {lateral(inputs)}) FROM a",
    )


def routed_twice(rng: random.Random) -> Query:
    first, second = sources(rng, ["a"]), sources(rng, ["a"])
    again = conditions(rng, second, "s")
    return Query(
        f"SELECT a.id, r.agent_name, s.agent_name FROM a "
        f"JOIN route_results r ON {conditions(rng, first)} LEFT JOIN route_results s ON {again}",
        f"SELECT a.id, r.agent_name, s.agent_name FROM a JOIN {lateral(first)} ON true "
        f"LEFT JOIN {lateral(second, 's')} ON true",
    )


SHAPES: tuple[Callable[[random.Random], Query], ...] = (
    one_table,
    one_table,
    two_tables,
    two_tables,
    comma_join,
    comma_join,
    constants,
    existence,
    list_of_requests,
    alternatives,
    in_subquery,
    scalar_subquery,
    routed_twice,
)


def rows(conn: Any, sql: str) -> list[str]:
    return sorted(str(row) for row in conn.execute(sql))


@pytest.mark.slow
def test_generated_queries_give_the_rows_of_the_function(
    conn: Any, request: pytest.FixtureRequest
) -> None:
    conn.execute(SETUP)
    rng = random.Random(request.config.getoption("--seed"))
    with_rows = 0
    for number in range(QUERIES):
        query = rng.choice(SHAPES)(rng)
        query.settings = [name for name in SETTINGS if rng.random() < 0.15]
        with conn.transaction(force_rollback=True):
            expected = rows(conn, query.function)
            for name in query.settings:
                conn.execute(f"SET LOCAL {name} = off")
            if rng.random() < 0.2:
                conn.execute("SET LOCAL join_collapse_limit = 1")
            try:
                if rng.random() < 0.3:
                    conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                    conn.execute(f"PREPARE generated AS {query.foreign}")
                    found = rows(conn, "EXECUTE generated")
                    conn.execute("DEALLOCATE generated")
                else:
                    found = rows(conn, query.foreign)
            except psycopg.Error as error:
                pytest.fail(f"query {number}: {error}\n{query.foreign}\nset off: {query.settings}")
            if found != expected:
                plan = "\n".join(
                    row[0] for row in conn.execute(f"EXPLAIN (VERBOSE) {query.foreign}")
                )
                pytest.fail(
                    f"query {number}: {query.foreign}\nset off: {query.settings}\n"
                    f"only the foreign table: {sorted(set(found) - set(expected))[:5]}\n"
                    f"only the function: {sorted(set(expected) - set(found))[:5]}\n{plan}"
                )
        with_rows += bool(expected)
    # Otherwise the comparison would say little.
    assert with_rows > QUERIES / 3
