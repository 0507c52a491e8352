"""How long analytics over a million usage rows take, and what a dispatch costs.

Starts a throw-away server, fills the usage log and times ``ruvector_routing_analytics`` by every
group before the first roll-up (every row is live), after it, and with a thousand late rows.  Then
it times ``ruvector_dispatch`` and ``ruvector_record_usage`` as multiples of a prepared
``ruvector_route`` on the same connection, without and with budgets.

    .venv/bin/python bench/analytics.py [--pg 18] [--rows 1000000] [--calls 500] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from tinydancer.server import temporary_cluster

AGENTS = Path(__file__).parents[1] / "python" / "tinydancer" / "demo" / "agents.json"
GROUPS = ("agent", "agent_type", "pool", "route", "target", "hour", "day")
REQUEST = "Write a Python function that parses a CSV file and returns the totals"
# Some 30 days with 20 agents; every row names a decision, which route and target come from.
FILL = (
    "INSERT INTO tinydancer.decision (decided_at, agent_name, route_name, optimize_for) "
    "SELECT now() - i * interval '2.5 seconds', 'agent-' || i %% 20, 'route-' || i %% 7, "
    "(ARRAY['cost', 'balanced'])[1 + i %% 2] FROM generate_series(1, %(rows)s) i",
    "INSERT INTO tinydancer.usage (recorded_at, agent_name, decision_id, cost_usd, latency_ms, "
    "success, quality) SELECT now() - i * interval '2.5 seconds', 'agent-' || i %% 20, i, "
    "random() * 0.01, random() * 2000, random() < 0.9, CASE WHEN i %% 3 = 0 THEN random() END "
    "FROM generate_series(1, %(rows)s) i",
)


def seconds(conn: psycopg.Connection, query: str, values: tuple[Any, ...] = ()) -> float:
    """The best of three runs."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        conn.execute(query, values).fetchall()
        times.append(time.perf_counter() - start)
    return min(times)


def analytics(conn: psycopg.Connection) -> dict[str, float]:
    query = "SELECT * FROM ruvector_routing_analytics('20 days', %s)"
    return {group: seconds(conn, query, (group,)) for group in GROUPS}


def microseconds(conn: psycopg.Connection, query: str, calls: int) -> float:
    """Median of the calls, each a transaction of its own without waiting for the disk."""
    conn.execute("SET synchronous_commit = off")
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        conn.execute(query, prepare=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    route = f"SELECT * FROM ruvector_route('{REQUEST}')"
    dispatch = f"SELECT * FROM ruvector_dispatch('{REQUEST}')"
    record = "SELECT ruvector_record_usage('fast-llm', 0.001, true, 250, decision_id := 1)"
    result: dict[str, Any] = {"rows": args.rows}
    with (
        temporary_cluster(args.pg, extension=True) as cluster,
        psycopg.connect(cluster.uri(), autocommit=True) as conn,
    ):
        for agent in json.loads(AGENTS.read_text()):
            conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
        name = conn.execute(f"SELECT agent_name FROM ({dispatch}) d").fetchone()
        assert name is not None
        record = record.replace("fast-llm", name[0])
        calls = result["microseconds"] = {"ruvector_route": microseconds(conn, route, args.calls)}
        calls["dispatch, no budget"] = microseconds(conn, dispatch, args.calls)
        calls["record_usage, no budget"] = microseconds(conn, record, args.calls)
        conn.execute("SELECT ruvector_set_budget('all', NULL, 'month', 1e6)")
        conn.execute("SELECT ruvector_set_budget('agent', %s, 'day', 1e6)", name)
        calls["dispatch, two budgets"] = microseconds(conn, dispatch, args.calls)
        calls["record_usage, two budgets"] = microseconds(conn, record, args.calls)

        for command in FILL:
            conn.execute(command, {"rows": args.rows})
        conn.execute("VACUUM ANALYZE tinydancer.usage")
        conn.execute("VACUUM ANALYZE tinydancer.decision")
        result["never rolled up"] = analytics(conn)
        start = time.perf_counter()
        conn.execute("SELECT ruvector_refresh_agent_stats()")
        result["refresh"] = time.perf_counter() - start
        result["rolled up"] = analytics(conn)
        conn.execute(FILL[1], {"rows": 1000})
        result["rolled up, 1000 late rows"] = analytics(conn)
        start = time.perf_counter()
        conn.execute("SELECT ruvector_refresh_agent_stats()")
        result["refresh of 1000 rows"] = time.perf_counter() - start

    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{args.rows} usage rows; ms by group_by: {', '.join(GROUPS)}")
    for what in ("never rolled up", "rolled up", "rolled up, 1000 late rows"):
        print(f"{what:28} " + " ".join(f"{result[what][group] * 1e3:7.1f}" for group in GROUPS))
    for what in ("refresh", "refresh of 1000 rows"):
        print(f"{what:28} {result[what] * 1e3:7.1f} ms")
    for what, value in calls.items():
        print(f"{what:28} {value:7.0f} us, {value / calls['ruvector_route']:.1f} x ruvector_route")
    return 0


if __name__ == "__main__":
    sys.exit(main())
