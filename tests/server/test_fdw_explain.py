"""EXPLAIN of the foreign tables: well-formed in every format, and it works nothing out.

In: plain statements, and prepared ones under a generic plan.  What is compared: the session's
counters of inputs evaluated, texts embedded and requests scored, before and after.
"""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

SETUP = """
SELECT ruvector_register_agent('coder', 'llm', ARRAY['debugging'], cost_per_1k_tokens := 0.002,
    avg_latency_ms := 1500, quality_score := 0.9, examples := ARRAY['debug my program']);
SELECT ruvector_create_route('faults', 'Programs that do not work', target_agent := 'coder',
    utterances := ARRAY['my program crashes', 'the test fails']);
CREATE TABLE log AS SELECT id, 'debug program ' || id AS body, 0.1 * id AS cap
    FROM generate_series(1, 3) id;
CREATE SCHEMA td;
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td;
ANALYZE log;
"""
# request_classes answers where a classifier is active: test_request_classes.py.
TABLES = ("route_results", "route_candidates", "semantic_matches")
EXPLAINED = (*TABLES, "request_classes")
# A request by constant, by functions that could be evaluated early, by joins, and by none.
QUERIES = (
    "SELECT * FROM td.{} WHERE request = 'debug this'",
    "SELECT * FROM td.{} WHERE request IN ('debug this', 'debug that')",
    "SELECT * FROM td.{} WHERE embedding = ruvector_embed('debug this')",
    "SELECT * FROM td.{} t JOIN log l ON t.embedding = ruvector_embed('debug ' || l.body)",
    "SELECT * FROM td.{} t WHERE request = (SELECT body FROM log WHERE id = 1)",
    "SELECT * FROM log l, LATERAL (SELECT * FROM td.{} t WHERE t.request = l.body LIMIT 1) t",
    "SELECT * FROM log l LEFT JOIN td.{} t ON t.request = l.body",
    "UPDATE log l SET body = t.request FROM td.{} t WHERE t.request = l.body",
    "SELECT * FROM td.{}",
)
# With parameters; the second is what a crash of another wrapper is known for.
PREPARED = (
    ("text", "SELECT * FROM td.{} WHERE request = $1", "'debug this'"),
    ("text[]", "SELECT * FROM td.{} WHERE request = ANY ($1)", "'{debug this,debug that,NULL}'"),
    ("text[]", "SELECT * FROM td.{} WHERE request = ANY ($1)", "NULL"),
    ("real[]", "SELECT * FROM td.{} WHERE embedding = $1", "ruvector_embed('debug this')"),
)
ONLY_OF_ROUTES = "SELECT * FROM td.{} t JOIN log l ON t.request = l.body AND t.max_cost = l.cap"


@pytest.fixture
def explained(conn: Any) -> Any:
    conn.execute(SETUP)
    return conn


def activity(conn: Any) -> tuple[int, ...]:
    return tuple(conn.execute("SELECT * FROM tinydancer.session_activity()").fetchone())


def queries() -> list[str]:
    joined = [ONLY_OF_ROUTES.format(table) for table in TABLES[:2]]
    return [query.format(table) for query in QUERIES for table in EXPLAINED] + joined


@pytest.mark.parametrize("options", ["", "(VERBOSE)", "(VERBOSE, FORMAT JSON)", "(GENERIC_PLAN)"])
def test_explain_alone_works_nothing_out(explained: Any, options: str) -> None:
    if "GENERIC" in options and explained.info.server_version < 160000:
        pytest.skip("EXPLAIN (GENERIC_PLAN) is of Postgres 16 and later")
    before = activity(explained)
    for query in queries():
        assert explained.execute(f"EXPLAIN {options} {query}").fetchall()
    if "GENERIC" in options:
        for _, query, _ in PREPARED:
            for table in EXPLAINED:
                assert explained.execute(f"EXPLAIN {options} {query.format(table)}").fetchall()
    assert activity(explained) == before


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_explain_execute_evaluates_no_input(explained: Any, mode: str) -> None:
    explained.execute(f"SET plan_cache_mode = {mode}")
    for number, (kind, query, argument) in enumerate(PREPARED):
        for table in TABLES:
            name = f"p{number}_{table}"
            explained.execute(f"PREPARE {name} ({kind}) AS {query.format(table)}")
            # The server evaluates the arguments of EXECUTE, whatever the query does with them.
            value = explained.execute(f"SELECT ({argument})::{kind}::text").fetchone()[0]
            literal = "NULL" if value is None else f"'{value}'"
            before = activity(explained)
            explained.execute(f"EXPLAIN (VERBOSE) EXECUTE {name} ({literal})").fetchall()
            assert activity(explained) == before
            explained.execute(f"EXECUTE {name} ({literal})").fetchall()
            assert activity(explained) != before


def test_execution_is_counted(explained: Any) -> None:
    for table, scored in zip(TABLES, (2, 2, 3), strict=True):
        before = activity(explained)
        explained.execute(f"SELECT * FROM td.{table} WHERE request IN ('a b', 'c d')").fetchall()
        after = activity(explained)
        # Evaluated once, embedded and scored twice; counters are in the order of the function.
        gained = [now - then for now, then in zip(after, before, strict=True)]
        assert (gained[0], gained[1], gained[scored]) == (1, 2, 2)


def find(plan: dict[str, Any]) -> dict[str, Any] | None:
    """The node of the foreign scan."""
    if plan["Node Type"] == "Foreign Scan":
        return plan
    found = (find(child) for child in plan.get("Plans", []))
    return next((node for node in found if node is not None), None)


def test_explain_in_json_has_the_facts(explained: Any) -> None:
    query = ONLY_OF_ROUTES.format("route_candidates") + " AND t.optimize_for = 'cost'"
    rows = explained.execute(f"EXPLAIN (VERBOSE, ANALYZE, FORMAT JSON) {query}").fetchone()[0]
    plan = rows if isinstance(rows, list) else json.loads(rows)
    node = find(plan[0]["Plan"])
    assert node is not None
    assert node["Request Kind"] == "text"
    assert set(node["Inputs"]) == {"request", "max_cost", "optimize_for"}
    assert node["Objective"] == "'cost'::text"
    assert node["Limits"] == ["max_cost = l.cap"]
    assert node["Encoder"] == "static-1"
    assert node["Model"] == "none"
    assert node["Requests Routed"] == 3
    assert node["Agents Scored"] == 3


def test_explain_in_every_format_is_well_formed(explained: Any) -> None:
    for query in queries():
        explained.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {query}").fetchone()
        text = explained.execute(f"EXPLAIN (VERBOSE, FORMAT XML) {query}").fetchone()[0]
        ElementTree.fromstring(text)
        text = explained.execute(f"EXPLAIN (VERBOSE, FORMAT YAML) {query}").fetchone()[0]
        # Each line is a key with its value, or an element of a list.
        for line in text.splitlines():
            assert line.strip().startswith("- ") or ": " in line or line.endswith(":"), line


def test_explain_without_a_request_says_so(explained: Any) -> None:
    for table in EXPLAINED:
        plan = explained.execute(f"EXPLAIN SELECT * FROM td.{table}").fetchall()
        assert any("Request: none: fails when it is run" in row[0] for row in plan)
