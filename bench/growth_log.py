"""What analytics take against the number of rows in the usage log.

Starts a throw-away server and fills the log of usage with 1,000 to 10,000,000 rows, by INSERT ...
SELECT through the table's own triggers and indexes, on every processor; that is not what is
measured, but how long it took is printed.  For each size: ruvector_refresh_agent_stats(), which
rolls up what is new; analytics by agent over the roll-up; the same as if nothing had been rolled
up, in turns with the plain aggregate over the same rows that one would write oneself.  The greatest
growth from one size to the next, ten times as large, is a figure: more than ten is worse than
linear.

    .venv/bin/python bench/growth_log.py [--pg 18] [--rounds 9] [--rows 1000 10000 ...]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from draw_growth import draw, show, steepest
from figures import ROOT, Figure, add_option, compared, processor, write

from tinydancer.server import Server, temporary_cluster

ROWS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
# From so many rows on reading them all takes seconds, and fewer rounds say as much.
LONG_ROWS, LONG_ROUNDS = 5_000_000, 5
# 20 agents; 10 million rows are 29 days.
FILL = (
    "INSERT INTO tinydancer.usage "
    "(recorded_at, agent_name, cost_usd, latency_ms, success, quality) "
    "SELECT now() - i * interval '0.25 seconds', 'agent-' || i %% 20, random() * 0.01, "
    "random() * 2000, random() < 0.9, CASE WHEN i %% 3 = 0 THEN random() END "
    "FROM generate_series(%(first)s::integer, %(last)s) i"
)
ANALYTICS = "SELECT * FROM ruvector_routing_analytics('40 days', 'agent')"
PLAIN = (
    "SELECT agent_name, count(*), sum(cost_usd), avg(latency_ms), "
    "count(*) FILTER (WHERE success)::float8 / count(success) FROM tinydancer.usage "
    "WHERE recorded_at >= now() - interval '40 days' GROUP BY 1 ORDER BY 2 DESC, 1"
)


def fill(cluster: Server, there: int, rows: int) -> None:
    """Bring the log to so many rows; a session on every processor."""
    parts = len(os.sched_getaffinity(0)) if rows - there > 100_000 else 1
    edges = [there + (rows - there) * part // parts for part in range(parts + 1)]

    def run(part: int) -> None:
        with cluster.connect(autocommit=True) as conn:
            conn.execute(FILL, {"first": edges[part] + 1, "last": edges[part + 1]})

    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(run, range(parts)))


def milliseconds(conn: psycopg.Connection[Any], sql: str) -> float:
    start = time.perf_counter()
    conn.execute(sql).fetchall()
    return (time.perf_counter() - start) * 1e3


@contextlib.contextmanager
def not_rolled_up(conn: psycopg.Connection[Any]) -> Any:
    """While the block runs this session sees a log that was never rolled up."""
    with conn.transaction(force_rollback=True):
        conn.execute("DELETE FROM tinydancer.usage_rollup_state")
        yield


def measure(cluster: Server, there: int, rows: int, rounds: int) -> list[Figure]:
    """The figures of one size."""
    start = time.perf_counter()
    fill(cluster, there, rows)
    filling = time.perf_counter() - start
    with cluster.connect(autocommit=True) as conn:
        conn.execute("SET max_parallel_workers_per_gather = 0")
        conn.execute("ANALYZE tinydancer.usage")
        refreshing = milliseconds(conn, "SELECT ruvector_refresh_agent_stats()")
        conn.execute("VACUUM ANALYZE tinydancer.usage_rollup")
        rolled = [milliseconds(conn, ANALYTICS) for _ in range(rounds)]
        live, plain = [], []
        with not_rolled_up(conn):
            for _ in range(rounds if rows < LONG_ROWS else min(rounds, LONG_ROUNDS)):
                live.append(milliseconds(conn, ANALYTICS))
                plain.append(milliseconds(conn, PLAIN))
    print(f"{rows:,} rows: {filling:.1f} s to fill in {rows - there:,}", flush=True)
    at = f"{rows:,} rows of usage"
    one = compared(
        "growth_log", f"analytics, never rolled up, {at}", live, "ms",
        ("the plain aggregate", plain), floor=True,
    )  # fmt: skip
    one.series, one.size = "analytics, never rolled up", rows
    result = [one]
    for series, value, unit in (
        ("analytics, rolled up", statistics.median(rolled), "ms"),
        ("rolling up the new rows", refreshing, "ms"),
    ):
        what = f"{series}, {at}"
        result.append(Figure("growth_log", what, value, unit, series=series, size=rows))
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    add_option(parser)
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error("a median of fewer than 9 rounds says little")

    collected: list[Figure] = []
    # Of a machine with some memory; else the log is read from files again and again.
    settings = {"max_wal_size": "16GB", "shared_buffers": "2GB", "jit": "off"}
    print(f"Postgres {args.pg}, no parallel workers, {args.rounds} rounds, {processor()}")
    with temporary_cluster(args.pg, settings, extension=True) as cluster:
        there = 0
        for rows in sorted(args.rows):
            collected += measure(cluster, there, rows, args.rounds)
            there = rows
    show(collected)
    collected += steepest("growth_log", collected)
    draw(collected, ROOT / "build" / "growth.png")
    print("drawn: build/growth.png")
    write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
