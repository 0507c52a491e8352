"""What the first statement of a new session costs, as a multiple of a trivial first statement.

Starts a throw-away server, registers the demo's agents with each encoder whose file is there, and
times one statement in each of many new connections: the module is loaded, the encoder mapped and
the registry read.  Statements take turns, so that drift of the machine hits all of them; files are
in the page cache, as on a server that is in use.  What is collected are multiples of the first call
of a C function that does nothing, in a library of its own (bench/trivial_fdw).

    .venv/bin/python bench/cold_start.py [--pg 18] [--connections 31] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import figures
import psycopg
from figures import Figure, compared
from join import build_trivial

from tinydancer.encoder_file import write_file
from tinydancer.server import temporary_cluster

ROOT = Path(__file__).parents[1]
AGENTS = ROOT / "python" / "tinydancer" / "demo" / "agents.json"
REQUEST = "Write a Python function that parses a CSV file and returns the totals"
TRIVIAL = "SELECT 1"
TRIVIAL_C = "a trivial C function"

STATEMENTS = {
    TRIVIAL: TRIVIAL,
    TRIVIAL_C: "SELECT trivial_fdw_handler() IS NULL",
    "a registry table": "SELECT count(*) FROM tinydancer.agent",
    "module alone": "SELECT ruvector_cosine_similarity('{1,0}', '{1,0}')",
    "ruvector_embed": f"SELECT ruvector_embed('{REQUEST}')",
    "ruvector_route": f"SELECT agent_name FROM ruvector_route('{REQUEST}')",
    "route_results": f"SELECT agent_name FROM route_results WHERE request = '{REQUEST}'",
}
COLLECTED = {"module alone": "", "ruvector_route": "<= 2", "route_results": "<= 2"}


def cpu_ms(pid: int) -> float:
    """Milliseconds that a process has run on a processor, NaN where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
    except OSError:
        return float("nan")


def first_and_second(uri: str, sql: str) -> tuple[float, float, float]:
    """Milliseconds of a statement in a new connection, of its server's work, and of the next."""
    with psycopg.connect(uri, autocommit=True) as conn:
        pid = conn.info.backend_pid
        worked = cpu_ms(pid)
        start = time.perf_counter()
        conn.pgconn.exec_(sql.encode())
        first = time.perf_counter() - start
        worked = cpu_ms(pid) - worked
        start = time.perf_counter()
        conn.pgconn.exec_(sql.encode())
        return first * 1e3, worked, (time.perf_counter() - start) * 1e3


def measure(
    uri: str, connections: int
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Medians over new connections for every statement, and each first time, in ms."""
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in STATEMENTS}
    for sql in STATEMENTS.values():
        first_and_second(uri, sql)
    for _ in range(connections):
        for name, sql in STATEMENTS.items():
            taken[name].append(first_and_second(uri, sql))
    base = statistics.median(first for first, _, _ in taken[TRIVIAL])
    result = {}
    for name, times in taken.items():
        first, worked, second = (sorted(column) for column in zip(*times, strict=True))
        low, middle, high = statistics.quantiles(first, n=4)
        result[name] = {
            "first_ms": middle,
            "first_q1": low,
            "first_q3": high,
            "server_cpu_ms": statistics.median(worked),
            "second_ms": statistics.median(second),
            "ratio": middle / base,
        }
    return result, {name: [first for first, _, _ in times] for name, times in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--connections", type=int, default=31, help="new connections a statement")
    figures.add_option(parser)
    args = parser.parse_args()
    if args.connections < 9:
        parser.error("a median of fewer than 9 connections says little")

    # Client and server on one processor: waking the other one costs several times a query.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    results: dict[str, Any] = {}
    collected: list[Figure] = []
    with temporary_cluster(args.pg, extension=True) as cluster:
        folder = Path(cluster.home) / "encoders"
        # Encoders that were built for this checkout; the shipped one is there.
        for built in sorted((ROOT / "build" / "encoders").glob("*.tdenc")):
            if not (folder / built.name).exists():
                write_file(folder / built.name, built.read_bytes())
        library = build_trivial(cluster)
        with psycopg.connect(cluster.uri(), autocommit=True) as conn:
            conn.execute(
                "CREATE FUNCTION trivial_fdw_handler() RETURNS fdw_handler "
                f"LANGUAGE c AS '{library}'"
            )
            for agent in json.loads(AGENTS.read_text()):
                conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
        for path in sorted(folder.glob("*.tdenc")):
            with psycopg.connect(cluster.uri(), autocommit=True) as conn:
                conn.execute("CALL tinydancer.use_encoder(%s)", [path.stem])
            results[path.stem], first = measure(cluster.uri(), args.connections)
            for name, goal in COLLECTED.items():
                what = f"first call of a session, {path.stem}: {name}"
                baseline = (TRIVIAL_C, first[TRIVIAL_C])
                one = compared("cold_start", what, first[name], "ms", baseline, goal, floor=True)
                collected.append(one)
        version = cluster.installation.version

    print(f"Postgres {version}, unix socket, one processor, {args.connections} new connections")
    for encoder, statements in results.items():
        head = ("first ms", "x SELECT 1", "quartiles", "server CPU ms", "again ms")
        print(f"\n{encoder:20}", "{:>9} {:>11}  {:14} {:>13} {:>9}".format(*head))
        for name, r in statements.items():
            print(
                f"{name:20} {r['first_ms']:9.2f} {r['ratio']:11.1f}"
                f"  {r['first_q1']:5.2f} .. {r['first_q3']:5.2f}"
                f" {r['server_cpu_ms']:13.2f} {r['second_ms']:9.3f}"
            )
    figures.write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
