"""How many requests a second tinydancer etl routes, as multiples of what else could be done.

Starts a throw-away server, registers the demo's agents, and makes requests of the demo's log, each
text once.  Two baselines on the same rows: reading them alone, and the join with ``route_results``
that writes the same decisions into a table.  NumPy multiplies the
same vectors and phrases, without limits, costs or words.

Times are processor time of Python and of the server together: a rate is what one core does,
whatever else runs on it.  Every round runs each step once, so that drift of the machine hits all of
them; figures are medians of the rounds, with the quartiles of the ratio.

At last semantic routes: how long the matches of a set of 60,000 utterances take with faiss, as a
multiple of scoring every route.

    .venv/bin/python bench/etl.py [--pg 18] [--rounds 5] [--requests 100000] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before NumPy and faiss count the processors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import psycopg
import pyarrow as pa

from tinydancer import Route, RouteMatcher, Router, cli
from tinydancer.etl import MatchDecider, route_table
from tinydancer.etl.columns import MATCH_INPUTS, resolve
from tinydancer.etl.source import BATCH_ROWS
from tinydancer.server import temporary_cluster

DEMO = Path(cli.__file__).parent / "demo"
JOIN = "route_results, join"
BASES = ("reading alone", JOIN)
MANY_ROUTES = 1000


def processor() -> str:
    """The processor's name, where the kernel tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def cpu_of(pid: int) -> float:
    """Seconds that a server has computed: the postmaster, what it waited for, what still runs."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(path.parent.name) == pid:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == pid:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def bodies(n: int) -> list[str]:
    log = [json.loads(line)["body"] for line in (DEMO / "request_log.jsonl").open()]
    return [f"{log[i % len(log)]} {i}" for i in range(n)]


def prepare(conn: psycopg.Connection[Any], texts: list[str], vectors: Any) -> None:
    """Agents, and a table of requests with their vectors."""
    for agent in json.loads((DEMO / "agents.json").read_text()):
        conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
    conn.execute("CREATE TABLE asked (id bigint PRIMARY KEY, body text, e real[])")
    with conn.cursor().copy("COPY asked FROM STDIN") as copy:
        for i, text in enumerate(texts):
            copy.write_row((i, text, vectors[i].tolist()))
    conn.execute("VACUUM ANALYZE asked")


def etl(folder: Path, *arguments: str) -> None:
    """The command, into an output that is removed afterwards."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(sys.stderr):
        if cli.main(["etl", *arguments, "--quiet"]) != 0:
            raise SystemExit("tinydancer etl failed")
    for path in folder.iterdir():
        path.unlink()


def numpy_route(router: Router, vectors: Any) -> Any:
    """The best agent by fit times quality, of vectors in blocks."""
    registry = router._registry
    rows, scales = registry.arrays[2:]
    phrases = rows.astype(np.float32) * scales[:, np.newaxis]
    first = registry.agents["first_phrase"].astype(np.int64)
    quality = registry.agents["quality_score"] * registry.agents["success_rate"]
    mu, s = router.encoder.fit_mu, router.encoder.fit_s
    best = []
    for at in range(0, len(vectors), BATCH_ROWS):
        cosine = np.maximum.reduceat(vectors[at : at + BATCH_ROWS] @ phrases.T, first, axis=1)
        best.append((quality / (1.0 + np.exp((mu - cosine.astype(np.float64)) / s))).argmax(axis=1))
    return np.concatenate(best)


def steps(
    dsn: str, conn: psycopg.Connection[Any], router: Router, texts: list[str], folder: Path
) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    vectors = router.encoder.embed(texts)
    with_texts = pa.table({"id": range(len(texts)), "request": texts})
    flat = pa.array(vectors.ravel())
    with_vectors = pa.table(
        {
            "id": range(len(texts)),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, router.encoder.dim),
        }
    )
    # Once more each, so that texts repeat as those of a log do.
    repeated = pa.table({"id": range(len(texts)), "request": texts[: len(texts) // 10] * 10})

    def read() -> None:
        with psycopg.connect(dsn) as reader, reader.cursor(name="c", binary=True) as cursor:
            cursor.execute("SELECT id, body FROM asked ORDER BY id")
            while cursor.fetchmany(BATCH_ROWS):
                pass

    def join() -> None:
        conn.execute(
            "CREATE TEMP TABLE decided AS SELECT l.id, r.agent_name, r.confidence, "
            "r.estimated_cost, r.estimated_latency_ms, r.expected_quality, r.similarity "
            "FROM asked l JOIN route_results r ON r.request = l.body"
        )
        conn.execute("DROP TABLE decided")

    def into(name: str, query: str, *more: str) -> Callable[[], None]:
        return lambda: etl(
            folder, "route", "--dsn", dsn, "--query", query, "--out", str(folder / name), *more
        )

    def into_table() -> None:
        etl(folder, "route", "--dsn", dsn, "--query", TEXTS, "--out", "table:decided")
        conn.execute("DROP TABLE decided")

    return {
        "reading alone": read,
        JOIN: join,
        "ruvector_batch_route": lambda: conn.execute(
            "SELECT count(*) FROM ruvector_batch_route(ARRAY(SELECT body FROM asked ORDER BY id))"
        ),
        "etl, texts to Parquet": into("d.parquet", TEXTS),
        "etl, with reasoning": into("d.parquet", TEXTS, "--reasoning"),
        "etl, texts to CSV": into("d.csv", TEXTS),
        "etl, texts to a table": into_table,
        "etl, vectors to Parquet": into("d.parquet", "SELECT id, e AS embedding FROM asked"),
        "route_table, texts": lambda: route_table(with_texts, router),
        "route_table, 1 of 10 different": lambda: route_table(repeated, router),
        "route_table, vectors": lambda: route_table(with_vectors, router),
        "Encoder.embed": lambda: router.encoder.embed(texts),
        "NumPy, vectors": lambda: numpy_route(router, vectors),
    }


TEXTS = "SELECT id, body FROM asked"


def measure(
    todo: dict[str, Callable[[], Any]], rounds: int, n: int, server: int
) -> dict[str, dict[str, float]]:
    """Rates, and ratios of time to the join."""
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    ours: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(rounds + 1):
        for name, step in todo.items():
            start, there = time.process_time(), cpu_of(server)
            step()
            ours[name].append(time.process_time() - start)
            # Until the postmaster has waited for what has ended.
            time.sleep(0.1)
            seconds[name].append(ours[name][-1] + cpu_of(server) - there)
    result = {}
    for name, values in seconds.items():
        # The first round warms the caches.
        ratios = [v / base for v, base in zip(values[1:], seconds[JOIN][1:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        reading = [v / base for v, base in zip(values[1:], seconds[BASES[0]][1:], strict=True)]
        result[name] = {
            "requests_per_second": n / statistics.median(values[1:]),
            "requests_per_second_of_python": n / max(statistics.median(ours[name][1:]), 1e-9),
            "times_join": middle,
            "times_join_q1": low,
            "times_join_q3": high,
            "times_reading": statistics.median(reading),
        }
    return result


def measure_routes(rounds: int) -> dict[str, float]:
    """Matches of 60,000 utterances with faiss, and with every route scored."""
    log = bodies(MANY_ROUTES * 60 + 4096)
    routes = [
        Route(f"r{i:04}", utterances=log[i : MANY_ROUTES * 60 : MANY_ROUTES])
        for i in range(MANY_ROUTES)
    ]
    matcher = RouteMatcher(routes)
    table = pa.table({"request": [f"please {text}" for text in log[-4096:]]})
    roles = resolve(table.schema.names, inputs=MATCH_INPUTS, needs_key=False)
    batch = table.to_batches()[0]
    quick, slow = MatchDecider(matcher), MatchDecider(matcher, many=10**9)
    if not quick.block(batch, roles).equals(slow.block(batch.slice(0), roles)):
        raise SystemExit("faiss changes a match")
    ratios, seconds = [], []
    for _ in range(rounds):
        times = []
        for decider in (quick, slow):
            start = time.process_time()
            decider.block(batch, roles)
            times.append(time.process_time() - start)
        ratios.append(times[0] / times[1])
        seconds.append(times[0])
    return {
        "requests_per_second": 4096 / statistics.median(seconds),
        "times_all_routes": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "scored_against_all": quick.n_whole / (rounds + 1) / 4096,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    router = Router.demo()
    texts = bodies(args.requests)
    folder = Path(tempfile.mkdtemp(prefix="tinydancer-etl-"))
    try:
        with (
            temporary_cluster(args.pg, extension=True) as cluster,
            psycopg.connect(cluster.uri(), autocommit=True) as conn,
        ):
            # Workers would get the join a greater part of the one processor.
            conn.execute("SET max_parallel_workers_per_gather = 0")
            prepare(conn, texts, router.encoder.embed(texts))
            pid = int((cluster.data / "postmaster.pid").read_text().split()[0])
            result = measure(
                steps(cluster.uri(), conn, router, texts, folder), args.rounds, args.requests, pid
            )
            version = conn.info.server_version // 10000
    finally:
        shutil.rmtree(folder)
    matches = measure_routes(args.rounds)

    if args.json:
        facts = {"pg": version, "requests": args.requests, "steps": result, "matches": matches}
        print(json.dumps(facts))
        return 0
    print(f"Postgres {version}, one processor, {args.requests:,} requests, {processor()}")
    print(
        f"{'step':32} {'requests/s':>11} {'in Python':>11} {'x join':>7}  {'quartiles':14} "
        f"{'x reading':>9}"
    )
    for name, r in result.items():
        spread = f"{r['times_join_q1']:.2f} .. {r['times_join_q3']:.2f}"
        print(
            f"{name:32} {r['requests_per_second']:11,.0f} "
            f"{min(r['requests_per_second_of_python'], 1e8):11,.0f} {r['times_join']:7.2f}  "
            f"{spread:14} "
            f"{r['times_reading']:9.2f}"
        )
    print(
        f"{MANY_ROUTES:,} routes of 60 utterances with faiss: "
        f"{matches['requests_per_second']:,.0f} requests/s, {matches['times_all_routes']:.2f} x "
        f"the time of scoring all routes ({matches['least']:.2f} .. {matches['most']:.2f}); "
        f"{matches['scored_against_all']:.1%} of requests needed that"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
