"""Many sessions that decide at once, and what they do to each other.

Starts a throw-away server with the demo's agents and lets pgbench run prepared statements from 1,
2, 8 and 64 clients: SELECT 1, a decision by route_results, and that while one agent is updated ten
times a second.  The three take turns, round after round; a figure is the median of the rounds'
ratios to SELECT 1 with as many clients.  At last 64 clients run once more while the server's locks,
what its sessions wait for and their private memory are looked at.

    .venv/bin/python bench/concurrency.py [--pg 18] [--rounds 9] [--clients 1 2 8 64] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
from figures import ROOT, Figure, add_option, compared, processor, write
from join import anonymous_kb

from tinydancer.server import Server, temporary_cluster

AGENTS = ROOT / "python" / "tinydancer" / "demo" / "agents.json"
REQUEST = "Write a Python function that parses a CSV file and returns the totals"
ONE, ROUTING, UPDATED = "SELECT 1", "routing", "routing, an agent updated 10 times a second"
STATEMENTS = {
    ONE: "SELECT 1;",
    ROUTING: "SELECT agent_name FROM route_results WHERE request = :request;",
    UPDATED: "SELECT agent_name FROM route_results WHERE request = :request;",
}
TRANSACTIONS = 12_000  # of all clients in one round
UPDATES_A_SECOND = 10
WATCH_SECONDS = 3


def pgbench(cluster: Server, folder: Path, name: str, clients: int, *amount: str) -> list[str]:
    """The command: prepared statements, as many threads as processors at most."""
    script = folder / f"{list(STATEMENTS).index(name)}.sql"
    script.write_text(STATEMENTS[name] + "\n")
    threads = min(clients, len(os.sched_getaffinity(0)))
    return [
        *(str(cluster.bindir / "pgbench"), "--no-vacuum", "-M", "prepared"),
        *("-c", str(clients), "-j", str(threads), "-f", str(script), "-D", f"request={REQUEST}"),
        *amount,
    ]


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


def run_once(cluster: Server, folder: Path, name: str, clients: int) -> tuple[float, list[float]]:
    """Microseconds from one answer to the next, of all clients; and of each transaction."""
    prefix = folder / "log"
    amount = ("-t", str(TRANSACTIONS // clients), "-l", "--log-prefix", str(prefix))
    with updates(cluster, name == UPDATED):
        done = subprocess.run(
            pgbench(cluster, folder, name, clients, *amount),
            env=cluster.environment(),
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    (tps,) = (float(x.split()[2]) for x in done.stdout.splitlines() if x.startswith("tps = "))
    latencies = []
    for log in folder.glob("log.*"):
        latencies += [float(line.split()[2]) for line in log.read_text().splitlines()]
        log.unlink()
    return 1e6 / tps, latencies


def measure(cluster: Server, folder: Path, clients: int, rounds: int) -> list[Figure]:
    """Every statement with so many clients."""
    apart: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    each: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(rounds + 1):
        for name in STATEMENTS:
            taken, latencies = run_once(cluster, folder, name, clients)
            if number > 0:  # the first round warms up
                apart[name].append(taken)
                each[name] += latencies
    result = []
    for name in (ROUTING, UPDATED):
        baseline = (f"SELECT 1, clients: {clients}", apart[ONE])
        one = compared(
            "concurrency", f"{name}, clients: {clients}", apart[name], "us", baseline, ">= 0.45"
        )
        one.value, one.unit = 1e6 / one.value, "tps"
        result.append(one)
    for name in STATEMENTS:
        hundredths = statistics.quantiles(each[name], n=100)
        for part in (50, 99):
            what = f"{name}, clients: {clients}, p{part}"
            result.append(Figure("concurrency", what, hundredths[part - 1] / 1e3, "ms"))
    return result


def watch(cluster: Server, folder: Path, clients: int) -> list[Figure]:
    """Locks that sessions wait for and their memory, while all of them work."""
    memory: dict[str, float] = {}
    waits: Counter[str] = Counter()
    samples = ungranted = 0
    for name in (ONE, UPDATED):
        command = pgbench(cluster, folder, name, clients, "-T", str(WATCH_SECONDS))
        with (
            updates(cluster, name == UPDATED),
            cluster.connect(autocommit=True) as conn,
            subprocess.Popen(
                command,
                env=cluster.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as program,
        ):
            pids: list[int] = []
            while program.poll() is None:
                rows = conn.execute(
                    "SELECT pid, state, wait_event_type FROM pg_stat_activity "
                    "WHERE application_name = 'pgbench'"
                ).fetchall()
                if len(rows) == clients:
                    pids = [pid for pid, _, _ in rows]
                    with contextlib.suppress(OSError, RuntimeError):
                        memory[name] = statistics.median(map(anonymous_kb, pids)) / 1024
                if name == UPDATED:
                    samples += len(rows)
                    waits.update(kind for _, state, kind in rows if state == "active")
                    row = conn.execute(
                        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                        "WHERE NOT l.granted AND a.application_name = 'pgbench'"
                    ).fetchone()
                    assert row is not None
                    ungranted += row[0]
                time.sleep(0.02)
        if program.returncode != 0:
            raise RuntimeError(f"pgbench ended with {program.returncode}")
    if samples == 0:
        raise RuntimeError("no session was seen at work")
    at = f"{clients} clients, an agent updated"
    more = memory[UPDATED] - memory[ONE]
    return [
        Figure("concurrency", f"sessions looked at, {at}", samples, "times"),
        Figure("concurrency", f"locks waited for, {at}", ungranted, "times", goal="<= 0"),
        Figure(
            "concurrency", f"active, waiting for a Lock, {at}", waits["Lock"], "times", goal="<= 0"
        ),
        Figure("concurrency", f"active, waiting for an LWLock, {at}", waits["LWLock"], "times"),
        Figure("concurrency", "private memory above SELECT 1's", more, "MB", goal="<= 0.5"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 8, 64])
    add_option(parser)
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error("a median of fewer than 9 rounds says little")

    collected: list[Figure] = []
    settings = {"max_connections": max(args.clients) + 20}
    with (
        temporary_cluster(args.pg, settings, extension=True) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        if not (cluster.bindir / "pgbench").exists():
            print(f"skipped: Postgres {args.pg} has no pgbench")
            return 0
        with psycopg.connect(cluster.uri(), autocommit=True) as conn:
            for agent in json.loads(AGENTS.read_text()):
                conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
            conn.execute("VACUUM ANALYZE")
        processors = len(os.sched_getaffinity(0))
        print(f"Postgres {args.pg}, pgbench, {processors} processors, {processor()}")
        print(f"{'':62} {'':14} {'x SELECT 1':>10} {'spread':>7}")
        for clients in args.clients:
            for one in measure(cluster, Path(folder), clients, args.rounds):
                collected.append(one)
                ratio = "" if one.ratio is None else f"{one.ratio:10.2f} {one.spread:7.2f}"
                print(f"{one.name:62} {one.value:9.2f} {one.unit:4} {ratio}", flush=True)
        for one in watch(cluster, Path(folder), max(args.clients)):
            collected.append(one)
            print(f"{one.name:62} {one.value:9.2f} {one.unit}")
    write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
