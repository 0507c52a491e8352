"""How long one decision takes, as a multiple of a prepared ``SELECT 1`` on the same connection.

Starts a throw-away server, registers the demo's agents and times prepared statements with libpq's
own call (no Python per row).  Every round runs each statement once, so that drift of the machine
hits all of them; the figure is the median of the rounds' ratios, with the quartiles.

    .venv/bin/python bench/decision.py [--pg 18] [--rounds 15] [--calls 2000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import figures
import psycopg
from figures import processor
from psycopg import pq

from tinydancer.server import temporary_cluster

AGENTS = Path(__file__).parents[1] / "python" / "tinydancer" / "demo" / "agents.json"
REQUEST = "Write a Python function that parses a CSV file and returns the totals"

STATEMENTS = {
    "SELECT 1": ("SELECT 1", []),
    "route_results": ("SELECT agent_name FROM route_results WHERE request = $1", [REQUEST]),
    "route_results, all columns": ("SELECT * FROM route_results WHERE request = $1", [REQUEST]),
    "ruvector_route": ("SELECT agent_name FROM ruvector_route($1)", [REQUEST]),
    "route_results, embedding": (
        "SELECT agent_name FROM route_results WHERE embedding = $1::real[]",
        None,  # filled with the request's vector
    ),
    "ruvector_classify_request, embedding": (
        "SELECT ruvector_classify_request(embedding := $1::real[])",
        None,
    ),
    "ruvector_embed": ("SELECT ruvector_embed($1)", [REQUEST]),
}
GOALS = {"route_results": "<= 2.2", "ruvector_route": "<= 2.3"}


def timed(call: Callable[[], None], calls: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def prepared(
    conn: psycopg.Connection, name: str, sql: str, values: list[str]
) -> Callable[[], None]:
    """A function that runs a prepared statement once."""
    pgconn = conn.pgconn
    statement = name.encode()
    result = pgconn.prepare(statement, sql.encode())
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise RuntimeError(result.error_message.decode())
    parameters = [v.encode() for v in values]

    def call() -> None:
        result = pgconn.exec_prepared(statement, parameters)
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise RuntimeError(result.error_message.decode())

    return call


def measure(conn: psycopg.Connection, rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Median microseconds and ratio to ``SELECT 1`` of every statement."""
    row = conn.execute("SELECT ruvector_embed(%s)::text", [REQUEST]).fetchone()
    assert row is not None
    runs = {
        name: prepared(conn, name, sql, [row[0]] if values is None else values)
        for name, (sql, values) in STATEMENTS.items()
    }
    for call in runs.values():
        timed(call, 50)  # past the custom plans, caches warm
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, call in runs.items():
            seconds[name].append(timed(call, calls))
    result = {}
    for name, values in seconds.items():
        ratios = [v / base for v, base in zip(values, seconds["SELECT 1"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        result[name] = {
            "microseconds": statistics.median(values) * 1e6,
            "ratio": middle,
            "ratio_q1": low,
            "ratio_q3": high,
        }
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2000)
    figures.add_option(parser)
    args = parser.parse_args()

    # Client and server on one processor: the server inherits it.  On two, the time to wake the
    # other one is several times that of the query, and the ratio says little.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    with (
        temporary_cluster(args.pg, extension=True) as cluster,
        psycopg.connect(cluster.uri(), autocommit=True) as conn,
    ):
        for agent in json.loads(AGENTS.read_text()):
            conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
        n_agents = conn.execute("SELECT count(*) FROM tinydancer.agent").fetchone()[0]
        result = measure(conn, args.rounds, args.calls)
        version = conn.info.server_version // 10000

    print(f"Postgres {version}, unix socket, one processor, {n_agents} agents, {processor()}")
    print(f"{'prepared statement':36} {'us':>8} {'x SELECT 1':>11}  quartiles")
    for name, r in result.items():
        print(
            f"{name:36} {r['microseconds']:8.1f} {r['ratio']:11.2f}"
            f"  {r['ratio_q1']:.2f} .. {r['ratio_q3']:.2f}"
        )
    names = {name: name for name in STATEMENTS if name != "SELECT 1"}
    figures.write(
        args.json,
        figures.from_ratios(
            "decision", names, result, "us", "microseconds", "prepared SELECT 1", GOALS, floor=True
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
