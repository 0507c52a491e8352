"""Many sessions that decide at once, and what they do to each other.

Starts a throw-away server with the demo's agents and keeps 1, 2, 8, 64 and 256 clients of pgbench
busy with four workloads (bench/load.py):

    SELECT 1   prepared, what everything is compared with
    routing    a decision by route_results
    updated    the same, while another session updates an agent ten times a second
    mixed      of a hundred statements 90 decide, 9 dispatch (ruvector_dispatch decides, logs and
               reserves the cost), 1 updates an agent, after which every session reads the registry
               anew

They take turns, round after round, with sessions that stay open; a figure is the median of the
rounds' ratios to SELECT 1 with as many clients.  Latencies are pgbench's, which reads its clock
once for all answers that wait: with more clients than processors the shortest ones show as 0.

After the rounds updated and mixed work on while the server's locks and what its sessions wait for
are looked at, and the private memory of every session.

    .venv/bin/python bench/concurrency.py [--pg 18] [--rounds 9] [--clients 1 2 8 64 256]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
from figures import ROOT, Figure, add_option, compared, processor, write
from join import anonymous_kb
from load import Load

from tinydancer.server import Server, temporary_cluster

AGENTS = ROOT / "python" / "tinydancer" / "demo" / "agents.json"
REQUEST = "Write a Python function that parses a CSV file and returns the totals"
DECIDE = f"SELECT agent_name FROM route_results WHERE request = '{REQUEST}';"
DISPATCH = f"SELECT agent_name FROM ruvector_dispatch('{REQUEST}');"
# pgbench's variable is random: not all wait for the row of one agent.
CHANGE = (
    "\\set n random(0, 13)\n"
    "UPDATE tinydancer.agent SET cost_per_call = cost_per_call WHERE name = "
    "(SELECT name FROM tinydancer.agent ORDER BY name OFFSET :n LIMIT 1);"
)
ONE, ROUTING, UPDATED, MIXED = "SELECT 1", "routing", "updated", "mixed"
WORKLOADS = {
    ONE: {"SELECT 1;": 1},
    ROUTING: {DECIDE: 1},
    UPDATED: {DECIDE: 1},
    MIXED: {DECIDE: 90, DISPATCH: 9, CHANGE: 1},
}
PARTS = ("decisions", "dispatches", "changes")  # of mixed
NAMES = {
    ROUTING: "routing",
    UPDATED: "routing, an agent updated 10 times a second",
    MIXED: "90 % routing, 9 % dispatch, 1 % registry changes",
}
UPDATES_A_SECOND = 10
TURN_SECONDS = 0.25
WATCH_SECONDS = 1.0


@contextlib.contextmanager
def updates(cluster: Server, wanted: bool) -> Iterator[None]:
    """While the block runs, another session updates one agent; nothing when not wanted."""
    if not wanted:
        yield
        return
    done = threading.Event()

    def run() -> None:
        with cluster.connect(autocommit=True) as conn:
            while not done.wait(1 / UPDATES_A_SECOND):
                conn.execute(
                    "UPDATE tinydancer.agent SET cost_per_call = cost_per_call "
                    "WHERE name = (SELECT min(name) FROM tinydancer.agent)"
                )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def watch(cluster: Server, load: Load, seen: Counter[str]) -> None:
    """Count what the deciding sessions of a load wait for while all of them work."""
    deciding = (
        "SELECT (pid, query_start)::text, pid, wait_event_type FROM pg_stat_activity "
        "WHERE pid = ANY(%s) AND query LIKE '%%FROM route_results%%'"
    )
    with (
        updates(cluster, load.name == UPDATED),
        load.running(),
        cluster.connect(autocommit=True) as conn,
    ):
        end = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < end:
            before = conn.execute(deciding, [load.pids]).fetchall()
            locks = conn.execute("SELECT pid FROM pg_locks WHERE NOT granted").fetchall()
            after = conn.execute(deciding, [load.pids]).fetchall()
            # The views are read one after the other: what waits is still at the same statement.
            same = {statement for statement, _, _ in after}
            waits = [(pid, kind) for statement, pid, kind in before if statement in same]
            seen["sessions"] += len(before)
            seen["ungranted"] += sum((pid,) in locks for pid, _ in waits)
            seen.update(kind for _, kind in waits if kind in ("Lock", "LWLock"))
            time.sleep(0.005)


def memory_mb(load: Load) -> float:
    """Private memory of a session."""
    return statistics.median(map(anonymous_kb, load.pids)) / 1024


def measure(
    cluster: Server, clients: int, rounds: int, seen: Counter[str]
) -> tuple[list[Figure], list[str]]:
    """Every workload with so many clients: the figures, and a row of the table each."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        loads: dict[str, Load] = {}
        for name, statements in WORKLOADS.items():
            loads[name] = Load(cluster, Path(folder), name, statements, clients)
            stack.callback(loads[name].kill)
        for _ in range(rounds):
            for name, load in loads.items():
                with updates(cluster, name == UPDATED):
                    load.turn(TURN_SECONDS)
        for name in (UPDATED, MIXED):
            watch(cluster, loads[name], seen)
        memory = {name: memory_mb(load) for name, load in loads.items()}
        ended = {name: load.end() for name, load in loads.items()}

    figures, table = [], []
    apart = {name: [1e6 / rate for rate in rates] for name, (rates, _) in ended.items()}
    for name, (rates, each) in ended.items():

        def add(
            series: str, what: str, value: float, unit: str, goal: str = "", load: str = name
        ) -> None:
            series = f"{load}, {series}"
            one = Figure("concurrency", what, value, unit, goal=goal, series=series, size=clients)
            figures.append(one)

        percentiles = {"": np.percentile(each[:, 0], [50, 99]) / 1e3}
        ratio = ""
        if name != ONE:
            what = f"{NAMES[name]}, clients: {clients}"
            goal = ">= 0.45" if name == ROUTING and clients == 64 else ""
            # Throughput by throughput of SELECT 1, so that the goal is one of at least.
            baseline = (f"SELECT 1, clients: {clients}", apart[ONE])
            one = compared("concurrency", what, apart[name], "us", baseline, goal or ">=", True)
            one.goal, one.value, one.unit = goal, statistics.median(rates), "tps"
            one.series, one.size = f"{name}, rate", clients
            figures.append(one)
            ratio = f"{one.ratio:5.2f} {one.spread:5.2f}"
            more = memory[name] - memory[ONE]
            goal = "<= 0.5" if name == ROUTING and clients == 64 else ""
            add("memory", f"private memory above SELECT 1's, {what}", more, "MB", goal)
        else:
            add("rate", f"{name}, clients: {clients}", statistics.median(rates), "tps")
        if name == MIXED:
            for number, part in enumerate(PARTS):
                chosen = each[each[:, 1] == number, 0]
                if len(chosen):
                    percentiles[part] = np.percentile(chosen, [50, 99]) / 1e3
        for part, pair in percentiles.items():
            what = ", ".join(filter(None, (NAMES.get(name, name), part)))
            for percent, value in zip((50, 99), pair, strict=True):
                said = f"{what}, clients: {clients}, p{percent}"
                add(", ".join(filter(None, (part, f"p{percent}"))), said, float(value), "ms")
            head = f"{clients:7} {name:10} {part:10}"
            rate = "" if part else f"{statistics.median(rates):9,.0f} {ratio:11}"
            table.append(
                f"{head} {rate:21} {pair[0]:8.3f} {pair[1]:8.3f}"
                + ("" if part else f" {memory[name]:8.2f}")
            )
    return figures, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 8, 64, 256])
    add_option(parser)
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error("a median of fewer than 9 rounds says little")

    collected: list[Figure] = []
    # All workloads' sessions stay open.
    settings = {"max_connections": max(args.clients) * len(WORKLOADS) + 20}
    with temporary_cluster(args.pg, settings, extension=True) as cluster:
        if not (cluster.bindir / "pgbench").exists():
            print(f"skipped: Postgres {args.pg} has no pgbench")
            return 0
        with psycopg.connect(cluster.uri(), autocommit=True) as conn:
            for agent in json.loads(AGENTS.read_text()):
                conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
            conn.execute("VACUUM ANALYZE")
        processors = len(os.sched_getaffinity(0))
        print(f"Postgres {args.pg}, pgbench, {processors} processors, {processor()}")
        print("clients workload              a second   ratio spread   p50 ms   p99 ms       MB")
        seen: Counter[str] = Counter()
        for clients in args.clients:
            figures, table = measure(cluster, clients, args.rounds, seen)
            collected += figures
            print("\n".join(table), flush=True)
    if seen["sessions"] == 0:
        raise RuntimeError("no session was seen at work")
    for name, key, goal in (
        ("deciding sessions looked at", "sessions", ""),
        ("deciding sessions with a lock not granted", "ungranted", "<= 0"),
        ("deciding sessions that waited for a Lock", "Lock", "<= 0"),
        ("deciding sessions that waited for an LWLock", "LWLock", ""),
    ):
        collected.append(Figure("concurrency", name, seen[key], "times", goal=goal))
        print(f"{name}: {seen[key]}")
    write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
