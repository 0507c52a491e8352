"""Time and memory against the size of the registry and of the log.

Starts a throw-away server and makes registries of 10, 100, 1,000 and 10,000 agents and as many
routes: what a prepared decision and a prepared match take, as multiples of SELECT 1 in turns with
them; what the first decision after a change takes, which reads the registry anew; and the private
memory of a session above one that has run SELECT 1.  Then analytics by agent over 1,000 to
1,000,000 rows of usage, never rolled up.  Prints a table and draws build/growth.png; the greatest
growth from one size to the next, ten times as large, is a figure: more than ten is worse than
linear.

    .venv/bin/python bench/growth.py [--pg 18] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from typing import Any

import psycopg
from analytics import FILL
from decision import REQUEST, prepared, timed
from figures import ROOT, Figure, add_option, compared, processor, write
from join import anonymous_kb, register

from tinydancer.server import temporary_cluster

SIZES = (10, 100, 1_000, 10_000)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
CALLS = 100
STATEMENTS = {
    "decision": ("SELECT agent_name FROM route_results WHERE request = $1", [REQUEST]),
    "match": ("SELECT route_name FROM ruvector_semantic_route($1, 1)", [REQUEST]),
}
Series = dict[str, dict[int, float]]


def grow(conn: psycopg.Connection[Any], size: int) -> None:
    """A registry of this size and nothing else."""
    conn.execute("SELECT ruvector_clear_agents()")
    conn.execute("DELETE FROM tinydancer.route")
    register(conn, size, size)
    conn.execute("VACUUM ANALYZE")


def memory_mb(uri: str) -> float:
    """Private memory of a session that has decided and matched, above one that has not."""
    kept = []
    for statements in (["SELECT 1"], [sql for sql, _ in STATEMENTS.values()]):
        with psycopg.connect(uri, autocommit=True) as conn:
            for sql in statements:
                conn.execute(sql.replace("$1", f"'{REQUEST}'"))  # type: ignore[arg-type]
            kept.append(anonymous_kb(conn.info.backend_pid) / 1024)
    return kept[1] - kept[0]


def measure_registry(uri: str, size: int, rounds: int, series: Series) -> list[Figure]:
    """One size: figures of the statements, and points of the series."""
    with psycopg.connect(uri, autocommit=True) as conn:
        conn.execute("SET client_min_messages = warning")
        grow(conn, size)
        runs = {"SELECT 1": prepared(conn, "one", "SELECT 1", [])}
        runs |= {name: prepared(conn, name, *given) for name, given in STATEMENTS.items()}
        taken: dict[str, list[float]] = {name: [] for name in runs}
        anew = []
        for number in range(rounds + 1):
            for name, call in runs.items():
                value = timed(call, CALLS) * 1e6
                if number > 0:  # the first round warms up
                    taken[name].append(value)
        for _ in range(rounds):
            conn.execute(
                "UPDATE tinydancer.agent SET cost_per_call = cost_per_call WHERE name = 'agent 1'"
            )
            anew.append(timed(runs["decision"], 1) * 1e3)
    series["read anew, ms"][size] = statistics.median(anew)
    series["memory, MB"][size] = memory_mb(uri)
    result = []
    for name in STATEMENTS:
        series[f"{name}, us"][size] = statistics.median(taken[name])
        goal = "<= 2.5" if (name, size) == ("decision", 1000) else ""
        what = f"{name}, {size:,} agents and routes"
        baseline = ("prepared SELECT 1", taken["SELECT 1"])
        result.append(compared("growth", what, taken[name], "us", baseline, goal))
    return result


def measure_log(conn: psycopg.Connection[Any], rounds: int) -> dict[int, float]:
    """Milliseconds of analytics by agent over ever more rows."""
    result: dict[int, float] = {}
    there = 0
    for rows in ROWS:
        for command in FILL:
            conn.execute(command, {"rows": rows - there})
        there = rows
        conn.execute("VACUUM ANALYZE tinydancer.usage")
        taken = []
        for _ in range(rounds):
            start = time.perf_counter()
            conn.execute("SELECT * FROM ruvector_routing_analytics('40 days', 'agent')").fetchall()
            taken.append((time.perf_counter() - start) * 1e3)
        result[rows] = statistics.median(taken)
    return result


def draw(series: Series) -> None:
    """One small picture a series, logarithmic both ways, with a line that grows linearly."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    picture, places = plt.subplots(1, len(series), figsize=(3.6 * len(series), 3.6))
    for (name, points), axes in zip(series.items(), places, strict=True):
        sizes, values = list(points), list(points.values())
        axes.loglog(sizes, values, marker="o", label="measured")
        linear = [values[-1] * size / sizes[-1] for size in sizes]
        axes.loglog(sizes, linear, linestyle=":", color="grey", label="linear")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("rows" if max(sizes) > max(SIZES) else "agents and routes")
        axes.grid(color="#e4e4e4")
    places[0].legend(frameon=False)
    picture.tight_layout()
    picture.savefig(ROOT / "build" / "growth.png", dpi=110)
    plt.close(picture)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=9)
    add_option(parser)
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error("a median of fewer than 9 rounds says little")

    # Client and server on one processor: waking the other one costs several times a query.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    names = [*(f"{name}, us" for name in STATEMENTS), "read anew, ms", "memory, MB"]
    series: Series = {name: {} for name in names}
    collected: list[Figure] = []
    with temporary_cluster(args.pg, extension=True) as cluster:
        for size in SIZES:
            collected += measure_registry(cluster.uri(), size, args.rounds, series)
        with psycopg.connect(cluster.uri(), autocommit=True) as conn:
            series["analytics, ms"] = measure_log(conn, args.rounds)
    print(f"Postgres {args.pg}, one processor, {args.rounds} rounds, {processor()}")
    for name, points in series.items():
        said = "  ".join(f"{size:,}: {value:,.2f}" for size, value in points.items())
        steps = [b / a for a, b in itertools.pairwise(points.values()) if a > 0]
        print(f"{name:16} {said}")
        what = f"{name.partition(',')[0]}, ten times the size"
        collected.append(Figure("growth", what, max(steps), "times", goal="<= 10"))
        unit = name.rpartition(" ")[2]
        collected += [
            Figure("growth", f"{name.partition(',')[0]} at {size:,}", value, unit)
            for size, value in points.items()
            if unit != "us"
        ]
    draw(series)
    print("drawn: build/growth.png")
    write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
