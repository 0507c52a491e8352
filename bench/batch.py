"""How long 100,000 requests take when they are decided together, as a multiple of each alone.

Starts a throw-away server, registers the demo's agents, and decides for requests made of the demo's
log.  The baseline is a join of the same texts with ``route_results``.  Every round runs each
statement once, so that drift of the machine hits all of them; the figure is the median of the
rounds' ratios, with the quartiles.  The floor is the list itself, unnested.

    .venv/bin/python bench/batch.py [--pg 18] [--rounds 9] [--requests 100000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import figures
import psycopg
from figures import Figure, compared, processor

from tinydancer.server import temporary_cluster

DEMO = Path(__file__).parents[1] / "python" / "tinydancer" / "demo"

BASE, FLOOR = "route_results, join", "the list unnested"
STATEMENTS = {
    BASE: "SELECT count(r) FROM asked JOIN route_results r ON r.request = asked.body",
    "each alone": "SELECT count(*) FROM ruvector_batch_route(%(bodies)s::text[])",
    "each alone, 1 of 10 different": (
        "SELECT count(*) FROM ruvector_batch_route(%(repeated)s::text[])"
    ),
    "total_cost": "SELECT count(*) FROM ruvector_batch_route(%(bodies)s::text[], 'total_cost')",
    "total_cost, max_total_cost": (
        "SELECT count(*) FROM ruvector_batch_route(%(bodies)s::text[], max_total_cost := %(cap)s)"
    ),
    FLOOR: "SELECT count(*) FROM (SELECT unnest(bodies) FROM lists) u",
    "ruvector_optimize_budget": "SELECT count(*) FROM ruvector_optimize_budget(%(cap)s)",
}


def prepare(conn: psycopg.Connection, requests: int) -> None:
    """Agents, a table of requests, lists of them in settings, and a log."""
    for agent in json.loads((DEMO / "agents.json").read_text()):
        conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
    log = [json.loads(line)["body"] for line in (DEMO / "request_log.jsonl").open()]
    conn.execute("CREATE TABLE asked (n integer, body text)")
    with conn.cursor().copy("COPY asked FROM STDIN") as copy:
        for n in range(requests):
            copy.write_row((n, f"{log[n % len(log)]} {n}"))
    conn.execute("ANALYZE asked")
    conn.execute("CREATE TABLE lists AS SELECT array_agg(body ORDER BY n) AS bodies FROM asked")
    conn.execute("ALTER TABLE lists ADD repeated text[]")
    conn.execute(
        "UPDATE lists SET repeated = (SELECT array_agg(a.body) "
        f"FROM asked a, generate_series(1, 10) WHERE a.n < {requests // 10})"
    )
    conn.execute(
        "INSERT INTO tinydancer.decision (request, agent_name) SELECT body, 'logged' FROM asked"
    )


def measure(
    conn: psycopg.Connection, rounds: int
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Median seconds and ratio to the join of every statement; and the seconds of each round."""
    row = conn.execute(
        "SELECT 1.5 * sum(estimated_cost) "
        "FROM lists, ruvector_batch_route(bodies, 'total_cost', min_quality := 0)"
    ).fetchone()
    assert row is not None
    # The lists are read from a table: sending them is not what is measured.
    places = {"bodies": "(SELECT bodies FROM lists)", "repeated": "(SELECT repeated FROM lists)"}
    places["cap"] = repr(max(row[0], 1e-6))
    seconds: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(rounds + 1):
        for name, statement in STATEMENTS.items():
            for key, value in places.items():
                statement = statement.replace(f"%({key})s", value)
            start = time.perf_counter()
            conn.execute(statement)
            seconds[name].append(time.perf_counter() - start)
    result = {}
    for name, values in seconds.items():
        # The first round warms the caches.
        ratios = [v / base for v, base in zip(values[1:], seconds[BASE][1:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        result[name] = {
            "seconds": statistics.median(values[1:]),
            "ratio": middle,
            "ratio_q1": low,
            "ratio_q3": high,
        }
    return result, {name: values[1:] for name, values in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=100_000)
    figures.add_option(parser)
    args = parser.parse_args()

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with (
        temporary_cluster(args.pg, extension=True) as cluster,
        psycopg.connect(cluster.uri(), autocommit=True) as conn,
    ):
        # The log is larger than the sample: the planner says so each time.
        conn.execute("SET client_min_messages = warning")
        # Workers would get the join a greater part of the one processor.
        conn.execute("SET max_parallel_workers_per_gather = 0")
        prepare(conn, args.requests)
        result, seconds = measure(conn, args.rounds)
        version = conn.info.server_version // 10000

    print(f"Postgres {version}, one processor, {args.requests:,} requests, {processor()}")
    print(f"{'statement':32} {'s':>7} {'x join':>7}  quartiles")
    for name, r in result.items():
        print(
            f"{name:32} {r['seconds']:7.3f} {r['ratio']:7.2f}"
            f"  {r['ratio_q1']:.2f} .. {r['ratio_q3']:.2f}"
        )
    title = f"{args.requests:,} requests, "
    names = {name: title + name for name in STATEMENTS if name not in (BASE, FLOOR)}
    collected = figures.from_ratios("batch", names, result, "s", "seconds", BASE)
    for one in collected:
        one.drawn = False
    floor = (FLOOR, seconds[FLOOR])
    for name, what, goal in ((BASE, BASE, "<= 0.9"), ("each alone", "one call", "<= 0.5")):
        one = Figure("batch", title + what, result[name]["seconds"], "s")
        one.goal = goal if args.requests == 100_000 else ""
        collected.append(one)
        collected.append(compared("batch", title + what, seconds[name], "s", floor, floor=True))
    figures.write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
