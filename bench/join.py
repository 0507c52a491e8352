"""What the foreign table costs: one decision, a join, duplicates, cancelling, memory.

Starts a throw-away server with the demo's agents, and measures each figure as a ratio to a baseline
of the same run:

    one decision           prepared, to a prepared SELECT 1; the vector is a binary parameter, as a
                           driver sends it, since reading 128 numbers from text takes longer
    join of 100,000 texts  one core, all different, to the same join with bench/trivial_fdw, which
                           only returns its request
    join with duplicates   500 different texts, to itself with enable_memoize off
    cancelling a join      milliseconds from the request to cancel to its answer
    first statement        milliseconds of a new session
    private memory         of a session that has decided, with 1,000 agents and 1,000 routes,
                           above one that has run SELECT 1

Statements take turns, so that drift of the machine hits all of them; the figures are medians with
the quartiles of rounds.

    .venv/bin/python bench/join.py [--pg 18] [--rounds 9] [--rows 100000] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import figures
import psycopg
from figures import Figure, processor
from psycopg import pq

from tinydancer.encoder_file import write_file
from tinydancer.server import Server, temporary_cluster

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "python" / "tinydancer" / "demo"
REQUEST = "Write a Python function that parses a CSV file and returns the totals"
WORDS = "the quick brown fox jumps over lazy dogs while considering quarterly results " * 3
CALLS = 1000  # of a prepared statement in one round
FLOAT4, FLOAT4_ARRAY, TEXT = 700, 1021, 25  # type oids


def build_trivial(cluster: Server) -> Path:
    """Build the trivial wrapper for this server; the path of its library, without the suffix."""
    folder = Path(tempfile.mkdtemp(prefix="trivial_fdw_", dir=cluster.home))
    folder.chmod(0o755)
    makefile = ROOT / "bench" / "trivial_fdw" / "Makefile"
    pg_config = f"PG_CONFIG={cluster.installation.pg_config}"
    subprocess.run(
        ["make", "-s", "-f", makefile, pg_config], cwd=folder, check=True, stdout=sys.stderr
    )
    return folder / "trivial_fdw"


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "q1": low, "q3": high}


# ---------------------------------------------------------------- one decision


def float4_array(values: Sequence[float]) -> bytes:
    """A real[] as a driver sends it in binary."""
    head = struct.pack("!iiIii", 1, 0, FLOAT4, len(values), 1)
    return head + b"".join(struct.pack("!if", 4, value) for value in values)


def prepared(
    conn: psycopg.Connection[Any], name: str, sql: str, types: list[int], values: list[bytes]
) -> Callable[[], None]:
    """A function that runs a prepared statement once, all in binary."""
    pgconn = conn.pgconn
    result = pgconn.prepare(name.encode(), sql.encode(), types)
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise RuntimeError(result.error_message.decode())
    formats = [1] * len(values)

    def call() -> None:
        result = pgconn.exec_prepared(name.encode(), values, formats, 1)
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise RuntimeError(result.error_message.decode())

    return call


def measure_decisions(conn: psycopg.Connection[Any], rounds: int) -> dict[str, Any]:
    """Ratios of prepared statements to SELECT 1."""
    row = conn.execute("SELECT ruvector_embed(%s)", [REQUEST]).fetchone()
    assert row is not None
    by_text = "SELECT agent_name FROM route_results WHERE request = $1"
    by_vector = "SELECT agent_name FROM route_results WHERE embedding = $1"
    classes = "SELECT ruvector_classify_request(embedding := $1)"
    rows = "SELECT category, probability FROM bench.request_classes WHERE embedding = $1"
    conn.execute("CREATE SCHEMA IF NOT EXISTS bench")
    conn.execute("DROP FOREIGN TABLE IF EXISTS bench.request_classes")
    conn.execute(
        "IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (request_classes) "
        "FROM SERVER tinydancer INTO bench"
    )
    c_function = "SELECT trivial_fdw_handler() IS NULL"
    wrapper = "SELECT request FROM trivial WHERE request = $1"
    text, vector = REQUEST.encode(), float4_array(row[0])
    runs = {
        "SELECT 1": prepared(conn, "one", "SELECT 1", [], []),
        "a trivial C function": prepared(conn, "c_function", c_function, [], []),
        "a trivial wrapper": prepared(conn, "wrapper", wrapper, [TEXT], [text]),
        "route_results, text": prepared(conn, "by_text", by_text, [TEXT], [text]),
        "route_results, vector": prepared(conn, "by_vector", by_vector, [FLOAT4_ARRAY], [vector]),
        "classification, vector": prepared(conn, "classes", classes, [FLOAT4_ARRAY], [vector]),
        "request_classes, vector": prepared(conn, "rows", rows, [FLOAT4_ARRAY], [vector]),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, call in runs.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            if number > 0:  # the first round warms up
                taken[name].append((time.perf_counter() - start) / CALLS)
    base = taken["SELECT 1"]
    return {
        name: quartiles([one / other for one, other in zip(values, base, strict=True)])
        | {"microseconds": statistics.median(values) * 1e6}
        for name, values in taken.items()
    }


# ---------------------------------------------------------------- joins


def make_logs(conn: psycopg.Connection[Any], rows: int) -> None:
    """A log of different texts and one of 500 texts."""
    log = [json.loads(line)["body"] for line in (DEMO / "request_log.jsonl").open()]
    conn.execute("CREATE UNLOGGED TABLE asked (n integer, body text)")
    with conn.cursor().copy("COPY asked FROM STDIN") as copy:
        for n in range(rows):
            copy.write_row((n, f"{log[n % len(log)]} {n}"))
    conn.execute(
        "CREATE UNLOGGED TABLE repeated AS SELECT n, (SELECT body FROM asked WHERE n = 0) "
        "|| n %% 500 AS body FROM asked".replace("%%", "%")
    )
    conn.execute("ANALYZE asked, repeated")


def seconds(conn: psycopg.Connection[Any], sql: str) -> float:
    """Time of a statement."""
    start = time.perf_counter()
    conn.execute(sql, prepare=False)  # a plan that is kept would outlive a change of settings
    return time.perf_counter() - start


JOIN = "SELECT count(r.request) FROM {log} l JOIN {table} r ON r.request = l.body"


def measure_joins(conn: psycopg.Connection[Any], rounds: int) -> dict[str, Any]:
    """Ratios of joins to the trivial wrapper's, and of Memoize to none."""
    conn.execute("SET max_parallel_workers_per_gather = 0")
    statements = {
        "trivial": ("off", JOIN.format(log="asked", table="trivial")),
        "decided": ("off", JOIN.format(log="asked", table="route_results")),
        "remembered": ("on", JOIN.format(log="repeated", table="route_results")),
        "each again": ("off", JOIN.format(log="repeated", table="route_results")),
    }
    taken: dict[str, list[float]] = {name: [] for name in statements}
    for number in range(rounds + 1):
        for name, (memoize, sql) in statements.items():
            conn.execute(f"SET enable_memoize = {memoize}")
            value = seconds(conn, sql)
            if number > 0:
                taken[name].append(value)

    def ratios(one: str, other: str) -> dict[str, float]:
        return quartiles([a / b for a, b in zip(taken[one], taken[other], strict=True)])

    conn.execute("RESET enable_memoize")
    return {
        "join": ratios("decided", "trivial") | {"seconds": statistics.median(taken["decided"])},
        "without Memoize": ratios("each again", "remembered"),
    }


def measure_cancelling(cluster: Server, rounds: int) -> dict[str, float]:
    """Milliseconds until a join in full run has answered that it was cancelled."""
    taken = []
    long = f"SELECT count(r.agent_name) FROM (SELECT '{WORDS}' || generate_series(1, 100000000) "
    long += "AS body OFFSET 0) l JOIN route_results r ON r.request = l.body"
    with psycopg.connect(cluster.uri(), autocommit=True) as conn:
        conn.execute("SELECT agent_name FROM route_results WHERE request = 'x'")
        for _ in range(rounds):
            answered: list[float] = []

            def run(answered: list[float] = answered) -> None:
                with contextlib.suppress(psycopg.errors.QueryCanceled):
                    conn.execute(long)
                answered.append(time.perf_counter())

            thread = threading.Thread(target=run)
            thread.start()
            time.sleep(0.2)
            start = time.perf_counter()
            conn.cancel_safe()
            thread.join()
            taken.append((answered[0] - start) * 1e3)
    return quartiles(taken) | {"most": max(taken)}


# ---------------------------------------------------------------- sessions


def anonymous_kb(pid: int) -> int:
    """Kilobytes of a process that it shares with nobody and no file."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise RuntimeError("the system does not tell the memory of a process")


def cpu_ms(pid: int) -> float:
    """Milliseconds that a process has run on a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def measure_sessions(uri: str, rounds: int) -> dict[str, Any]:
    """First statements of new sessions, and the memory that they keep above SELECT 1."""
    statements = {
        "SELECT 1": "SELECT 1",
        "route_results": f"SELECT agent_name FROM route_results WHERE request = '{REQUEST}'",
    }
    first: list[float] = []
    worked: list[float] = []
    memory: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(rounds):
        for name, sql in statements.items():
            with psycopg.connect(uri, autocommit=True) as conn:
                pid = conn.info.backend_pid
                cpu = cpu_ms(pid)
                start = time.perf_counter()
                conn.pgconn.exec_(sql.encode())
                if name == "route_results":
                    first.append((time.perf_counter() - start) * 1e3)
                    worked.append(cpu_ms(pid) - cpu)
                memory[name].append(anonymous_kb(pid))
    differences = [
        (one - other) / 1024
        for one, other in zip(memory["route_results"], memory["SELECT 1"], strict=True)
    ]
    return {
        "first_ms": quartiles(first),
        "first_cpu_ms": quartiles(worked),
        "memory_mb": quartiles(differences),
    }


# ---------------------------------------------------------------- all of it


def register(conn: psycopg.Connection[Any], agents: int, routes: int) -> None:
    """A registry of this size, with one description an agent and one utterance a route."""
    conn.execute(
        "SELECT ruvector_register_agent('agent ' || i, 'api', ARRAY['capability ' || i], "
        "cost_per_call := 0.001, description := 'does task ' || i) FROM generate_series(1, %s) i",
        [agents],
    )
    conn.execute(
        "SELECT ruvector_create_route('route ' || i, 'task ' || i, utterances := "
        "ARRAY['please do task ' || i]) FROM generate_series(1, %s) i",
        [routes],
    )


def measure(cluster: Server, rounds: int, rows: int) -> dict[str, Any]:
    """Every figure, on one cluster."""
    result: dict[str, Any] = {"pg": cluster.installation.version, "cpu": processor()}
    library = build_trivial(cluster)
    with psycopg.connect(cluster.uri(), autocommit=True) as conn:
        conn.execute(
            f"CREATE FUNCTION trivial_fdw_handler() RETURNS fdw_handler LANGUAGE c AS '{library}'"
        )
        conn.execute("CREATE FOREIGN DATA WRAPPER trivial_fdw HANDLER trivial_fdw_handler")
        conn.execute("CREATE SERVER trivial FOREIGN DATA WRAPPER trivial_fdw")
        conn.execute("CREATE FOREIGN TABLE trivial (request text) SERVER trivial")
        for agent in json.loads((DEMO / "agents.json").read_text()):
            conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
        conn.execute("ANALYZE tinydancer.agent")
        make_logs(conn, rows)
        result["decision"] = measure_decisions(conn, rounds)
        result["joins"] = measure_joins(conn, rounds)
    sessions = measure_sessions(cluster.uri(), max(rounds, 21))
    result |= {name: sessions[name] for name in ("first_ms", "first_cpu_ms")}
    result["cancel_ms"] = {"static": measure_cancelling(cluster, rounds)}
    built = sorted((ROOT / "build" / "encoders").glob("minilm*.tdenc"))
    for path in built:
        write_file(Path(cluster.home) / "encoders" / path.name, path.read_bytes())
        with psycopg.connect(cluster.uri(), autocommit=True) as conn:
            conn.execute("CALL tinydancer.use_encoder('minilm')")
        result["cancel_ms"]["minilm"] = measure_cancelling(cluster, rounds)
    with psycopg.connect(cluster.uri(), autocommit=True) as conn:
        if built:
            conn.execute("CALL tinydancer.use_encoder('static')")
        register(conn, 1000, 1000)
    result["memory_mb"] = measure_sessions(cluster.uri(), rounds)["memory_mb"]
    return result


def show(name: str, figure: dict[str, float], unit: str, goal: str) -> None:
    """One line."""
    print(
        f"{name:44} {figure['median']:8.2f} {unit:12} {figure['q1']:8.2f} .. {figure['q3']:.2f}"
        f"   {goal}"
    )


def collected(result: dict[str, Any], rows: int) -> list[Figure]:
    """The figures in the form that make bench collects."""

    def line(name: str, figure: dict[str, float], unit: str, goal: str = "") -> Figure:
        return Figure("join", name, figure["median"], unit, goal=goal)

    def ratio(
        name: str, figure: dict[str, float], value: tuple[str, str], baseline: str, goal: str = ""
    ) -> Figure:
        key, unit = value
        apart = figure["q3"] - figure["q1"]
        ours = figure[key], unit
        return Figure("join", name, *ours, baseline, figure["median"], apart, goal, floor=True)

    decision, joins = result["decision"], result["joins"]
    us, s, one = ("microseconds", "us"), ("seconds", "s"), "prepared SELECT 1"
    return [
        *(ratio(name, decision[name], us, one) for name in decision if "trivial" in name),
        ratio("route_results, text", decision["route_results, text"], us, one, "<= 2.2"),
        ratio("route_results, binary vector", decision["route_results, vector"], us, one, "<= 1.4"),
        ratio(
            "ruvector_classify_request, binary vector",
            decision["classification, vector"],
            us,
            one,
            "<= 1.7",
        ),
        ratio(
            "request_classes, binary vector",
            decision["request_classes, vector"],
            us,
            one,
            "<= 1.7",
        ),
        figures.against_plan(
            "join",
            "ruvector_classify_request, binary vector",
            decision["classification, vector"]["microseconds"],
            "us",
            120,
        ),
        ratio(f"join of {rows:,} texts", joins["join"], s, "join with a trivial wrapper"),
        *(
            line(f"cancelling a join, {encoder}", figure, "ms")
            for encoder, figure in result["cancel_ms"].items()
        ),
        line("memory, 1,000 agents and routes", result["memory_mb"], "MB", "<= 0.5"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=100_000, help="requests of a join")
    figures.add_option(parser)
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error("a median of fewer than 9 rounds says little")

    # Client and server on one processor: waking the other one costs several times a query.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with temporary_cluster(args.pg, {"jit": "off"}, extension=True) as cluster:
        result = measure(cluster, args.rounds, args.rows)
    print(
        f"Postgres {result['pg']}, unix socket, one processor, {args.rounds} rounds, "
        f"{result['cpu']}\n"
        f"{'':44} {'median':>8} {'':12} quartiles"
    )
    decision, joins = result["decision"], result["joins"]
    show("prepared, text", decision["route_results, text"], "x SELECT 1", "goal 2.2")
    show("prepared, vector", decision["route_results, vector"], "x SELECT 1", "goal 1.4")
    show("classified, vector", decision["classification, vector"], "x SELECT 1", "goal 1.7")
    show(f"join of {args.rows} different texts", joins["join"], "x trivial", "goal 40")
    show("500 texts, without Memoize", joins["without Memoize"], "x with it", "goal 5 or more")
    show("first statement of a session", result["first_ms"], "ms", "goal 1.5")
    show("the server's processor time for it", result["first_cpu_ms"], "ms", "")
    for encoder, figure in result["cancel_ms"].items():
        show(f"cancelling a join, {encoder}", figure, "ms", "goal 50")
    show("memory, 1,000 agents and routes", result["memory_mb"], "MB", "goal 0.5")
    figures.write(args.json, collected(result, args.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
