"""Time and memory against the size of the registry.

Starts a throw-away server and makes registries of 10, 100, 1,000, 10,000 and 100,000 agents and as
many routes.  For each: what a prepared decision and a prepared match take, as multiples of SELECT 1
in turns with them; what the first decision after a change takes, which reads the registry anew; the
private memory of a session above one that has run SELECT 1; and what registering took.  The
greatest growth from one size to the next, ten times as large, is a figure: more than ten is worse
than linear.  bench/growth_log.py does the same for rows of the log.

    .venv/bin/python bench/growth.py [--pg 18] [--rounds 9] [--sizes 10 100 ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

import psycopg
from decision import REQUEST, prepared, timed
from draw_growth import draw, show, steepest
from figures import ROOT, Figure, add_option, compared, processor, write
from join import anonymous_kb, register

from tinydancer.server import temporary_cluster

SIZES = (10, 100, 1_000, 10_000, 100_000)
SECONDS_A_TURN = 0.02
STATEMENTS = {
    "decision": ("SELECT agent_name FROM route_results WHERE request = $1", [REQUEST]),
    "match": ("SELECT route_name FROM ruvector_semantic_route($1, 1)", [REQUEST]),
}


def grow(conn: psycopg.Connection[Any], size: int) -> float:
    """A registry of this size and nothing else; seconds that registering took."""
    conn.execute("SELECT ruvector_clear_agents()")
    conn.execute("DELETE FROM tinydancer.route")
    start = time.perf_counter()
    register(conn, size, size)
    taken = time.perf_counter() - start
    conn.execute("VACUUM ANALYZE")
    return taken


def memory_mb(uri: str) -> float:
    """Private memory of a session that has decided and matched, above one that has not."""
    kept = []
    # The first session after VACUUM writes the file of relation descriptors, and keeps more memory.
    with psycopg.connect(uri) as conn:
        conn.execute("SELECT 1")
    for statements in (["SELECT 1"], [sql for sql, _ in STATEMENTS.values()]):
        with psycopg.connect(uri, autocommit=True) as conn:
            for sql in statements:
                conn.execute(sql.replace("$1", f"'{REQUEST}'"))  # type: ignore[arg-type]
            kept.append(anonymous_kb(conn.info.backend_pid) / 1024)
    return kept[1] - kept[0]


def measure(uri: str, size: int, rounds: int) -> list[Figure]:
    """The figures of one size."""
    with psycopg.connect(uri, autocommit=True) as conn:
        conn.execute("SET client_min_messages = warning")
        registering = grow(conn, size)
        runs = {"SELECT 1": prepared(conn, "one", "SELECT 1", [])}
        runs |= {name: prepared(conn, name, *given) for name, given in STATEMENTS.items()}
        calls = {}
        for name, call in runs.items():
            timed(call, 10)
            calls[name] = max(3, int(SECONDS_A_TURN / timed(call, 3)))
        taken: dict[str, list[float]] = {name: [] for name in runs}
        anew = []
        for _ in range(rounds):
            for name, call in runs.items():
                taken[name].append(timed(call, calls[name]) * 1e6)
        for _ in range(rounds):
            conn.execute(
                "UPDATE tinydancer.agent SET cost_per_call = cost_per_call WHERE name = 'agent 1'"
            )
            anew.append(timed(runs["decision"], 1) * 1e3)
    result = []
    for name in STATEMENTS:
        goal = "<= 2.5" if (name, size) == ("decision", 1000) else ""
        what = f"{name}, {size:,} agents and routes"
        baseline = ("prepared SELECT 1", taken["SELECT 1"])
        one = compared("growth", what, taken[name], "us", baseline, goal, floor=True)
        one.series, one.size = name, size
        result.append(one)
    goal = "<= 5" if size == 1000 else ""
    for series, value, unit, wanted in (
        ("first decision after a change", statistics.median(anew), "ms", goal),
        ("private memory of a session", memory_mb(uri), "MB", ""),
        ("registering", registering, "s", ""),
    ):
        what = f"{series}, {size:,} agents and routes"
        result.append(Figure("growth", what, value, unit, goal=wanted, series=series, size=size))
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    add_option(parser)
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error("a median of fewer than 9 rounds says little")

    # Client and server on one processor: waking the other one costs several times a query.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    collected: list[Figure] = []
    with temporary_cluster(args.pg, {"max_wal_size": "4GB"}, extension=True) as cluster:
        for size in sorted(args.sizes):
            collected += measure(cluster.uri(), size, args.rounds)
    print(f"Postgres {args.pg}, one processor, {args.rounds} rounds, {processor()}")
    show(collected)
    collected += steepest("growth", collected)
    draw(collected, ROOT / "build" / "growth.png")
    print("drawn: build/growth.png")
    write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
