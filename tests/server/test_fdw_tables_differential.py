"""Generated queries on the foreign tables of several rows a request, against their functions.

In: random inputs, constant, joined and listed, with filters on the rank, orders, limits and random
planner settings.  What is compared: the rows of the foreign table, in their order where the query
asks for one, with those of ruvector_explain_route() and ruvector_semantic_route().
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

QUERIES = 600

REQUESTS = (
    "translate this text into french",
    "debug my python program",
    "what is seven times eight",
    "tell me a joke",
    "Übersetze das bitte",
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
SELECT ruvector_create_route('languages', 'Texts in another language', target_agent := 'translator',
    utterances := ARRAY['translate this text', 'in french, please']);
SELECT ruvector_create_route('faults', 'Programs that do not work', target_agent := 'coder',
    utterances := ARRAY['debug this function', 'my program crashes']);
SELECT ruvector_create_route('numbers', 'Sums', utterances := ARRAY['what is two times two'],
    priority := 3, time_start := '08:00', time_end := '18:00');
SELECT ruvector_create_route('anything', 'Small talk', utterances := ARRAY['tell me something'],
    user_tiers := ARRAY['gold', 'silver']);
CREATE SCHEMA td;
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td;
CREATE TABLE a AS SELECT id, r.body, r.body::varchar(40) AS vbody,
    ruvector_embed(r.body) AS vector,
    (ARRAY['cost', 'quality', NULL, 'balanced'])[1 + id % 4] AS target,
    (ARRAY[0.001, 1, NULL, 'Infinity', 0])[1 + id % 5]::float8 AS cap,
    (ARRAY[0.1, 0.6, NULL])[1 + id % 3]::float8 AS floor,
    CASE id % 2 WHEN 0 THEN ARRAY['translator'] END AS excluded,
    (ARRAY['east', 'west', NULL])[1 + id % 3] AS pool,
    (ARRAY['gold', 'bronze', NULL])[1 + id % 3] AS tier,
    (ARRAY[1, 2, 9, NULL])[1 + id % 4] AS k,
    (ARRAY[3, 2])[1 + id % 2]::bigint AS k8,
    '2024-03-01 00:00+00'::timestamptz + id * interval '3 hours' AS moment
FROM generate_series(1, 12) id,
     LATERAL (SELECT (ARRAY[{TEXTS}, NULL])[1 + id % 6] AS body) r;
CREATE INDEX ON a (id);
ANALYZE a;
SET TimeZone = 'UTC';
"""
SETTINGS = (
    "enable_nestloop",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_memoize",
    "enable_material",
    "enable_sort",
)


@dataclass(frozen=True)
class Table:
    """A foreign table and its function.

    Attributes:
        inputs: for each input column its type, literals, and columns of table ``a``.
        arguments: the function's names of inputs that have another there.
        outputs: columns that are compared.
    """

    name: str
    function: str
    inputs: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]
    arguments: dict[str, str]
    outputs: str


REQUEST = ("text", tuple(f"'{text}'" for text in REQUESTS), ("body", "vbody"))
VECTOR = ("real[]", tuple(f"ruvector_embed('{text}')" for text in REQUESTS), ("vector",))
TABLES = (
    Table(
        "td.route_candidates",
        "ruvector_explain_route",
        {
            "request": REQUEST,
            "embedding": VECTOR,
            "optimize_for": ("text", ("'cost'", "'quality'"), ("target",)),
            "max_cost": ("float8", ("0.001", "1", "'Infinity'"), ("cap",)),
            "max_latency_ms": ("float8", ("100", "2000"), ("cap",)),
            "excluded_agents": ("text[]", ("ARRAY['coder']",), ("excluded",)),
            "pool": ("text", ("'east'",), ("pool",)),
            "min_expected_quality": ("float8", ("0.1",), ("floor",)),
        },
        {},
        "r.agent_name, r.rank, r.eligible, r.rejected_by, r.score, r.closest_phrase, r.reasoning",
    ),
    Table(
        "td.semantic_matches",
        "ruvector_semantic_route",
        {
            "request": REQUEST,
            "embedding": VECTOR,
            "top_k": ("integer", ("1", "2", "10"), ("k", "k8")),
            "user_tier": ("text", ("'gold'", "'bronze'"), ("tier",)),
            "at": ("timestamptz", ("'2024-03-01 12:00+00'", "'2024-03-01 04:00+00'"), ("moment",)),
        },
        {"request": "query"},
        "r.route_name, r.rank, r.similarity, r.target_agent, r.confidence",
    ),
)


@dataclass
class Query:
    """One query in its two forms; its rows have an order or they have none."""

    foreign: str
    function: str
    ordered: bool = False
    settings: list[str] = field(default_factory=list)


def chosen(rng: random.Random, table: Table, joined: bool) -> dict[str, str]:
    """An expression for each input that the query sets."""
    kinds = rng.choice((["request"], ["request"], ["embedding"], ["request", "embedding"]))
    others = [name for name in table.inputs if name not in ("request", "embedding")]
    names = [*kinds, *rng.sample(others, k=rng.choice((0, 1, 1, 2, 3)))]
    found = {}
    for name in names:
        _, literals, columns = table.inputs[name]
        found[name] = (
            f"a.{rng.choice(columns)}" if joined and rng.random() < 0.7 else rng.choice(literals)
        )
        if rng.random() < 0.04:
            found[name] = f"NULL::{table.inputs[name][0]}"
    return found


def conditions(rng: random.Random, inputs: dict[str, str]) -> str:
    clauses = [
        f"r.{name} = {source}" if rng.random() < 0.7 else f"{source} = r.{name}"
        for name, source in inputs.items()
    ]
    rng.shuffle(clauses)
    return " AND ".join(clauses)


def called(table: Table, inputs: dict[str, str]) -> str:
    """The rows of the function with their number; none where an input is NULL."""
    given = {"request": "NULL", **inputs}
    arguments = ", ".join(
        f"{table.arguments.get(name, name)} := ({source})::{table.inputs[name][0]}"
        for name, source in given.items()
    )
    known = " AND ".join(f"({source}) IS NOT NULL" for source in inputs.values())
    number = ", f.ordinality::int AS rank" if "rank" not in EXPLAINED[table.function] else ""
    return (
        f"(SELECT f.*{number} FROM {table.function}({arguments}) WITH ORDINALITY f WHERE {known})"
    )


EXPLAINED = {"ruvector_explain_route": "rank", "ruvector_semantic_route": ""}
FILTERS = (
    *("", "", ""),
    *(" AND r.rank = 1", " AND r.rank <= 2", " AND 3 > r.rank", " AND r.rank IS NULL"),
    *(" AND r.rank < 1", " AND r.rank = 2::bigint", " AND r.rank > 1", " AND r.rank IN (1, 3)"),
    *(" AND r.rank <= (SELECT 2)", " AND r.rank <= NULL::integer", " AND r.similarity > 0.2"),
)


def constants(rng: random.Random, table: Table) -> Query:
    inputs = chosen(rng, table, joined=False)
    extra = rng.choice(FILTERS)
    return Query(
        f"SELECT {table.outputs} FROM {table.name} r WHERE {conditions(rng, inputs)}{extra}",
        f"SELECT {table.outputs} FROM {called(table, inputs)} r WHERE true{extra}",
    )


def in_order(rng: random.Random, table: Table) -> Query:
    inputs = chosen(rng, table, joined=False)
    extra = rng.choice(FILTERS)
    key = "agent_name" if "agent_name" in table.outputs else "route_name"
    order = rng.choice(("r.rank", "r.rank DESC", "r.rank NULLS FIRST", "r.similarity DESC"))
    if "eligible" in table.outputs:
        order = rng.choice((order, "r.eligible DESC, r.rank", "r.eligible, r.rank"))
    tail = f" ORDER BY {order}, r.{key} LIMIT {rng.choice(('1', '2', '3', 'ALL'))}"
    return Query(
        f"SELECT {table.outputs} FROM {table.name} r WHERE {conditions(rng, inputs)}{extra}{tail}",
        f"SELECT {table.outputs} FROM {called(table, inputs)} r WHERE true{extra}{tail}",
        ordered=True,
    )


def joined(rng: random.Random, table: Table) -> Query:
    inputs = chosen(rng, table, joined=True)
    kind = rng.choice(("JOIN", "LEFT JOIN"))
    extra = rng.choice((*FILTERS, " AND r.rank <= a.k", " AND a.k8 > r.rank", " AND a.id < 9"))
    return Query(
        f"SELECT a.id, {table.outputs} FROM a {kind} {table.name} r "
        f"ON {conditions(rng, inputs)}{extra}",
        f"SELECT a.id, {table.outputs} FROM a {kind} LATERAL {called(table, inputs)} r "
        f"ON true{extra}",
    )


def best_of_each(rng: random.Random, table: Table) -> Query:
    inputs = chosen(rng, table, joined=True)
    limit = rng.choice((1, 2, 3))
    # The function's rows are in this order already, those without a rank by name.
    order = "r.rank" if limit == 1 or "eligible" not in table.outputs else "r.rank, r.agent_name"
    where = " AND r.eligible" if "eligible" in table.outputs else ""
    tail = f"{where} ORDER BY {order} LIMIT {limit}"
    return Query(
        f"SELECT a.id, {table.outputs} FROM a, LATERAL (SELECT * FROM {table.name} r "
        f"WHERE {conditions(rng, inputs)}{tail}) r",
        f"SELECT a.id, {table.outputs} FROM a, LATERAL (SELECT * FROM {called(table, inputs)} r "
        f"WHERE true{tail}) r",
    )


def list_of_requests(rng: random.Random, table: Table) -> Query:
    inputs = chosen(rng, table, joined=False)
    inputs.pop("request", None)
    inputs.pop("embedding", None)
    listed = ", ".join([*rng.choices(REQUEST[1], k=3), *rng.choice(((), ("NULL",)))])
    rest = f" AND {conditions(rng, inputs)}" if inputs else ""
    extra = rng.choice(FILTERS)
    function = called(table, {**inputs, "request": "q.t"})
    return Query(
        f"SELECT r.request, {table.outputs} FROM {table.name} r "
        f"WHERE r.request IN ({listed}){rest}{extra} ORDER BY r.rank",
        f"SELECT q.t, {table.outputs} "
        f"FROM (SELECT DISTINCT unnest(ARRAY[{listed}]::text[])) q (t), "
        f"LATERAL {function} r WHERE true{extra}",
    )


def existence(rng: random.Random, table: Table) -> Query:
    inputs = chosen(rng, table, joined=True)
    negation = rng.choice(("", "NOT "))
    extra = rng.choice(FILTERS)
    return Query(
        f"SELECT a.id FROM a WHERE {negation}EXISTS "
        f"(SELECT FROM {table.name} r WHERE {conditions(rng, inputs)}{extra})",
        f"SELECT a.id FROM a WHERE {negation}EXISTS "
        f"(SELECT FROM {called(table, inputs)} r WHERE true{extra})",
    )


SHAPES: tuple[Callable[[random.Random, Table], Query], ...] = (
    constants,
    in_order,
    joined,
    joined,
    best_of_each,
    list_of_requests,
    existence,
)


def rows(conn: Any, sql: str, ordered: bool) -> list[str]:
    found = [str(row) for row in conn.execute(sql)]
    return found if ordered else sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_generated_queries_give_the_rows_of_the_function(
    conn: Any, request: pytest.FixtureRequest, table: Table
) -> None:
    conn.execute(SETUP)
    rng = random.Random(request.config.getoption("--seed"))
    with_rows = 0
    for number in range(QUERIES):
        query = rng.choice(SHAPES)(rng, table)
        query.settings = [name for name in SETTINGS if rng.random() < 0.15]
        with conn.transaction(force_rollback=True):
            expected = rows(conn, query.function, query.ordered)
            for name in query.settings:
                conn.execute(f"SET LOCAL {name} = off")
            try:
                if rng.random() < 0.3:
                    conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                    conn.execute(f"PREPARE generated AS {query.foreign}")
                    found = rows(conn, "EXECUTE generated", query.ordered)
                    conn.execute("DEALLOCATE generated")
                else:
                    found = rows(conn, query.foreign, query.ordered)
            except psycopg.Error as error:
                pytest.fail(f"query {number}: {error}\n{query.foreign}\nset off: {query.settings}")
            assert found == expected, f"query {number}: {query.foreign}\n{query.settings}"
        with_rows += bool(expected)
    # Otherwise the comparison would say little.
    assert with_rows > QUERIES / 3
