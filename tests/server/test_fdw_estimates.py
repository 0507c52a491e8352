"""The planner's estimates for joins with route_results, which has no statistics of its own.

In: logs of 100, 10,000 and 1,000,000 requests.  What is checked: estimated rows are within a factor
of two of the real ones, which the log itself tells, and the plans that follow from that: Memoize
for requests that repeat, workers for a large log.
"""

from __future__ import annotations

from typing import Any

import pytest

AGENTS = """
SELECT ruvector_register_agent('translator', 'api', cost_per_call := 0, quality_score := 0.9,
    description := 'translates texts', pool := 'east');
SELECT ruvector_register_agent('coder', 'llm', cost_per_call := 0, quality_score := 0.9,
    description := 'debugs programs', pool := 'west');
"""
# Rows, different requests, different limits; NULL in one of ten limits.
SIZES = ((100, 7, 3), (100, 90, 40), (10_000, 500, 4), (10_000, 10_000, 900), (1_000_000, 800, 5))

KNOWN = "body IS NOT NULL"
LIMITED = f"{KNOWN} AND cap IS NOT NULL"
# A query, and the condition or the query that tells its number of rows.
QUERIES = {
    "inner": ("FROM log l JOIN route_results r ON r.request = l.body", KNOWN),
    "two inputs": (
        "FROM log l JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap",
        LIMITED,
    ),
    "three inputs": (
        "FROM log l JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap "
        "AND r.min_quality = l.floor",
        LIMITED,
    ),
    "left": ("FROM log l LEFT JOIN route_results r ON r.request = l.body", "true"),
    "left, two inputs": (
        "FROM log l LEFT JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap",
        "true",
    ),
    "constant request": (
        "FROM log l JOIN route_results r ON r.request = 'translate' AND r.max_cost = l.cap",
        "cap IS NOT NULL",
    ),
    "exists": (
        "FROM log l WHERE EXISTS (SELECT FROM route_results r WHERE r.request = l.body)",
        KNOWN,
    ),
    "exists, two inputs": (
        "FROM log l WHERE EXISTS (SELECT FROM route_results r "
        "WHERE r.request = l.body AND r.max_cost = l.cap)",
        LIMITED,
    ),
    "with the registry": (
        "FROM log l JOIN route_results r ON r.request = l.body "
        "JOIN tinydancer.agent a ON a.name = r.agent_name",
        KNOWN,
    ),
    "in a subquery": (
        "FROM route_results r WHERE r.request IN (SELECT body FROM log)",
        "SELECT count(DISTINCT body) FROM log",
    ),
    "twice": (
        "FROM log l JOIN route_results r ON r.request = l.body "
        "JOIN route_results s ON s.request = l.body AND s.max_cost = l.cap",
        LIMITED,
    ),
    "filtered log": (
        "FROM log l JOIN route_results r ON r.request = l.body WHERE l.half",
        f"{KNOWN} AND half",
    ),
}


def make_log(conn: Any, rows: int, requests: int, limits: int) -> None:
    conn.execute("DROP TABLE IF EXISTS log")
    conn.execute(
        "CREATE UNLOGGED TABLE log AS SELECT i AS id, 'request ' || i %% %s AS body, "
        "CASE WHEN i %% 10 > 0 THEN 1 + i %% %s END::float8 AS cap, 0.5::float8 AS floor, "
        "i %% 2 = 0 AS half FROM generate_series(1, %s) i",
        (requests, limits, rows),
    )
    conn.execute("ANALYZE log, tinydancer.agent")


def plan(conn: Any, query: str) -> dict[str, Any]:
    return dict(conn.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchone()[0][0]["Plan"])


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(below for child in node.get("Plans", []) for below in nodes(child))]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "-".join(map(str, size)))
def test_estimates_are_within_a_factor_of_two(conn: Any, size: tuple[int, int, int]) -> None:
    conn.execute(AGENTS)
    make_log(conn, *size)
    for name, (query, told) in QUERIES.items():
        if not told.startswith("SELECT"):
            told = f"SELECT count(*) FROM log WHERE {told}"
        rows = conn.execute(told).fetchone()[0]
        if size[0] <= 100:
            assert conn.execute(f"SELECT count(*) {query}").fetchone()[0] == rows, name
        estimated = plan(conn, f"SELECT 1 {query}")["Plan Rows"]
        assert rows / 2 <= estimated <= rows * 2, f"{name}: {estimated} instead of {rows}"


def test_groups_of_decisions_are_few(conn: Any) -> None:
    conn.execute(AGENTS)
    make_log(conn, 10_000, 500, 4)
    query = "SELECT r.agent_name FROM log l JOIN route_results r ON r.request = l.body"
    assert plan(conn, f"{query} GROUP BY r.agent_name")["Plan Rows"] <= 20
    filtered = plan(conn, f"{query} WHERE r.agent_name = 'coder'")["Plan Rows"]
    # One of the two agents.
    assert 2500 <= filtered <= 10_000


def test_list_of_requests_has_its_length(conn: Any) -> None:
    conn.execute(AGENTS)
    query = "SELECT 1 FROM route_results WHERE request"
    assert plan(conn, f"{query} = 'a'")["Plan Rows"] == 1
    assert plan(conn, f"{query} IN ('a', 'b', 'c')")["Plan Rows"] == 3
    assert plan(conn, f"{query} = 'a' OR request = 'b'")["Plan Rows"] == 2
    conn.execute(
        "CREATE TABLE lists AS SELECT ARRAY['a', 'b'] AS texts FROM generate_series(1, 50)"
    )
    conn.execute("ANALYZE lists")
    joined = "SELECT 1 FROM lists l JOIN route_results r ON r.request = ANY (l.texts)"
    assert 50 <= plan(conn, joined)["Plan Rows"] <= 1000


def test_repeated_requests_are_remembered(conn: Any) -> None:
    conn.execute(AGENTS)
    make_log(conn, 10_000, 500, 4)
    query = "SELECT r.agent_name FROM log l JOIN route_results r ON r.request = l.body"
    row = conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").fetchone()
    found = {node["Node Type"]: node for node in nodes(row[0][0]["Plan"])}
    assert found["Memoize"]["Cache Misses"] == 500
    assert found["Memoize"]["Cache Hits"] == 9500
    assert found["Foreign Scan"]["Requests Routed"] == 500


def test_large_log_is_decided_by_workers(conn: Any) -> None:
    """With the same rows as without them, each request once."""
    conn.execute(AGENTS)
    make_log(conn, 10_000, 10_000, 4)
    query = (
        "SELECT count(*), count(DISTINCT l.id), md5(string_agg(r.agent_name || r.reasoning, ',' "
        "ORDER BY l.id)) FROM log l JOIN route_results r ON r.request = l.body "
        "AND r.max_cost = l.cap"
    )
    serial = conn.execute(query).fetchone()
    assert serial[:2] == (9000, 9000)
    for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        conn.execute(f"SET {name} = 0")
    conn.execute("ALTER TABLE log SET (parallel_workers = 2)")
    found = {node["Node Type"]: node for node in nodes(plan(conn, query))}
    gather = found.get("Gather") or found["Gather Merge"]
    assert gather["Workers Planned"] == 2
    assert found["Foreign Scan"]["Parallel Aware"] is False
    assert conn.execute(query).fetchone() == serial
    # What the registry is in this transaction, workers see too.
    with conn.transaction(force_rollback=True):
        conn.execute("DELETE FROM tinydancer.agent WHERE name = 'coder'")
        conn.execute("SET LOCAL parallel_leader_participation = off")
        assert conn.execute(
            "SELECT DISTINCT r.agent_name FROM log l JOIN route_results r ON r.request = l.body"
        ).fetchall() == [("translator",)]
