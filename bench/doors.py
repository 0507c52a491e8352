"""What each door costs for a query and for a row of a join, as a multiple of the Postgres module.

Starts a throw-away server, registers the demo's agents and asks for decisions through each door:
the foreign table and the function of the module, Router without a server, and the wrapper of the
Multicorn door, driven here as Multicorn2 drives it: with its look for changes, without the backend
round it.  Where the server has Multicorn2 installed, queries through it are measured too, with the
first query of a session and the private memory of its backend.  Every round runs each door once, so
that drift of the machine hits all of them; the figure is the median of the rounds' ratios, with the
quartiles.

    .venv/bin/python bench/doors.py [--pg 18] [--rounds 61] [--calls 20] [--rows 500] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq

from tinydancer import Encoder, Router
from tinydancer.multicorn import RouteResults
from tinydancer.multicorn.protocol import ColumnDefinition, Qual
from tinydancer.server import temporary_cluster

DEMO = Path(__file__).parents[1] / "python" / "tinydancer" / "demo"
REQUEST = "Write a Python function that parses a CSV file and returns the totals"

BASE = "route_results"
FUNCTION = "ruvector_route"
BATCH = "ruvector_batch_route"
OFFLINE = "Router, no server"
WRAPPER = "Multicorn wrapper, driven alone"
MULTICORN = "Multicorn2 in the server"
NARROW = "the same, table of two columns"

Call = Callable[[], None]


def processor() -> str:
    """The processor's name, where the kernel tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def prepare(conn: psycopg.Connection, rows: int, dsn: str) -> bool:
    """Agents and a table of requests; whether the server has Multicorn2, with our table in it."""
    for agent in json.loads((DEMO / "agents.json").read_text()):
        conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
    log = [json.loads(line)["body"] for line in (DEMO / "request_log.jsonl").open()]
    conn.execute("CREATE TABLE asked (n integer, body text)")
    with conn.cursor().copy("COPY asked FROM STDIN") as copy:
        for n in range(rows):
            copy.write_row((n, f"{log[n % len(log)]} ({n})"))
    conn.execute("VACUUM ANALYZE asked")
    name = "SELECT FROM pg_available_extensions WHERE name = 'multicorn'"
    if not conn.execute(name).fetchall():
        return False
    conn.execute("CREATE EXTENSION multicorn")
    conn.execute(
        "CREATE SERVER doors FOREIGN DATA WRAPPER multicorn OPTIONS "
        f"(wrapper 'tinydancer.multicorn.RouteResults', dsn $dsn${dsn}$dsn$)"
    )
    conn.execute("CREATE SCHEMA doors")
    conn.execute("IMPORT FOREIGN SCHEMA tinydancer FROM SERVER doors INTO doors")
    # Multicorn plans a scan for each set of limits that a join might give.
    conn.execute("CREATE FOREIGN TABLE doors.narrow (request text, agent_name text) SERVER doors")
    # The estimates of its joins are so high that everything would be compiled first.
    conn.execute("SET jit = off")
    return True


def statement(conn: psycopg.Connection, name: str, sql: str, values: list[str]) -> Call:
    """A function that runs a prepared statement once."""
    pgconn = conn.pgconn
    result = pgconn.prepare(name.encode(), sql.encode())
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise RuntimeError(result.error_message.decode())
    parameters = [value.encode() for value in values]

    def call() -> None:
        result = pgconn.exec_prepared(name.encode(), parameters)
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise RuntimeError(result.error_message.decode())

    return call


def wrapper(dsn: str) -> Any:
    """The wrapper of a foreign table with all columns."""
    columns = {
        name: ColumnDefinition(name, type_name=kind, base_type_name=kind)
        for name, kind in RouteResults.kind.types.items()
    }
    return RouteResults({"dsn": dsn}, columns)


def queries(conn: psycopg.Connection, dsn: str, has_multicorn: bool) -> dict[str, Call]:
    """One query through each door."""
    router = Router.from_json(DEMO / "agents.json", Encoder.load("static"))
    foreign = wrapper(dsn)

    def drive() -> None:
        for _ in foreign.execute([Qual("request", "=", REQUEST)], {"agent_name", "request"}):
            pass
        foreign.end_scan()

    sql = "SELECT agent_name FROM {} WHERE request = $1"
    runs = {
        "SELECT 1": statement(conn, "one", "SELECT 1", []),
        BASE: statement(conn, "table", sql.format("route_results"), [REQUEST]),
        FUNCTION: statement(
            conn, "function", "SELECT agent_name FROM ruvector_route($1)", [REQUEST]
        ),
        OFFLINE: lambda: (router.route(REQUEST), None)[1],
        WRAPPER: drive,
    }
    if has_multicorn:
        runs[MULTICORN] = statement(conn, "multicorn", sql.format("doors.route_results"), [REQUEST])
        runs[NARROW] = statement(conn, "narrow", sql.format("doors.narrow"), [REQUEST])
    return runs


def joins(conn: psycopg.Connection, dsn: str, has_multicorn: bool) -> dict[str, Call]:
    """All rows of the table of requests through each door."""
    bodies = [row[0] for row in conn.execute("SELECT body FROM asked ORDER BY n")]
    router = Router.from_json(DEMO / "agents.json", Encoder.load("static"))
    foreign = wrapper(dsn)

    def drive() -> None:
        for body in bodies:
            # The iterator of the row before is gone, as when Multicorn starts a scan again.
            for _ in foreign.execute([Qual("request", "=", body)], {"agent_name", "request"}):
                pass
        foreign.end_scan()

    def offline() -> None:
        for body in bodies:
            router.route(body)

    sql = "SELECT count(r.agent_name) FROM asked JOIN {} r ON r.request = asked.body"
    lateral = "SELECT count(r.agent_name) FROM asked, ruvector_route(asked.body) r"
    listed = "(SELECT array_agg(body) FROM asked)"
    batch = f"SELECT count(r.agent_name) FROM ruvector_batch_route({listed}) r"
    runs = {
        BASE: statement(conn, "table join", sql.format("route_results"), []),
        FUNCTION: statement(conn, "function join", lateral, []),
        BATCH: statement(conn, "batch", batch, []),
        OFFLINE: offline,
        WRAPPER: drive,
    }
    if has_multicorn:
        runs[MULTICORN] = statement(conn, "multicorn join", sql.format("doors.route_results"), [])
        runs[NARROW] = statement(conn, "narrow join", sql.format("doors.narrow"), [])
    return runs


def measure(
    runs: dict[str, Call], rounds: int, calls: int, each: int
) -> dict[str, dict[str, float]]:
    """Median microseconds of each of ``each`` rows of a call, and the ratio to the module."""
    for call in runs.values():
        for _ in range(max(10 // each, 1)):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, call in runs.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            seconds[name].append((time.perf_counter() - start) / calls / each)
    result = {}
    for name, values in seconds.items():
        ratios = [v / base for v, base in zip(values, seconds[BASE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        result[name] = {
            "microseconds": statistics.median(values) * 1e6,
            "ratio": middle,
            "ratio_q1": low,
            "ratio_q3": high,
        }
    return result


def private_mb(pid: int) -> float:
    """Megabytes of a process that it shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def first(uri: str, table: str) -> tuple[float, float]:
    """Milliseconds of a session's first query, and the megabytes that it took."""
    with psycopg.connect(uri, autocommit=True) as conn:
        conn.pgconn.exec_(b"SELECT 1")
        pid = conn.info.backend_pid
        before = private_mb(pid)
        start = time.perf_counter()
        conn.pgconn.exec_(f"SELECT agent_name FROM {table} WHERE request = '{REQUEST}'".encode())
        return (time.perf_counter() - start) * 1e3, private_mb(pid) - before


def firsts(uri: str, sessions: int) -> dict[str, dict[str, float]]:
    """Medians of new sessions, which take turns."""
    tables = {BASE: "route_results", MULTICORN: "doors.route_results"}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in tables}
    for _ in range(sessions):
        for name, table in tables.items():
            found[name].append(first(uri, table))
    return {
        name: {
            "milliseconds": statistics.median(ms for ms, _ in values),
            "megabytes": statistics.median(mb for _, mb in values),
        }
        for name, values in found.items()
    }


def show(title: str, result: dict[str, dict[str, float]]) -> None:
    """A table of one measurement."""
    print(f"{title:32} {'us':>8} {'x module':>9}  quartiles")
    for name, r in result.items():
        print(
            f"{name:32} {r['microseconds']:8.1f} {r['ratio']:9.2f}"
            f"  {r['ratio_q1']:.2f} .. {r['ratio_q3']:.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=61)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    # Client and server on one processor: the server inherits it.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    with (
        temporary_cluster(args.pg, extension=True) as cluster,
        psycopg.connect(cluster.uri(), autocommit=True) as conn,
    ):
        dsn = cluster.conninfo()
        has_multicorn = prepare(conn, args.rows, dsn)
        result = {
            "query": measure(queries(conn, dsn, has_multicorn), args.rounds, args.calls, 1),
            "row": measure(joins(conn, dsn, has_multicorn), args.rounds, 1, args.rows),
        }
        if has_multicorn:
            result["first"] = firsts(cluster.uri(), 15)
        version = conn.info.server_version // 10000

    if args.json:
        print(json.dumps({"pg": version, "rows": args.rows, **result}))
        return 0
    print(f"Postgres {version}, unix socket, one processor, {processor()}")
    show("a query", result["query"])
    show(f"a row of {args.rows}", result["row"])
    for name, r in result.get("first", {}).items():
        print(f"first query, {name}: {r['milliseconds']:.1f} ms, {r['megabytes']:.1f} MB")
    if not has_multicorn:
        print("Multicorn2 is not installed in this server: it was left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
