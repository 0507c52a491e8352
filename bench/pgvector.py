"""Many requests decided for by a join, against pgvector's way to find each one's nearest agent.

Starts a throw-away server with pgvector, a table of requests as text and as vectors of the static
encoder, and the vectors of the agents as pgvector stores them: one for each capability, description
and example, as the registry has them.  Every round runs

    route_results        a join on the text: the request is embedded, every agent is scored by fit,
                         cost, latency and quality, the best one that the limits allow is returned
    route_results, stored vectors
                         the same on the stored vectors
    LATERAL, all compared
                         for each request SELECT agent FROM vectors ORDER BY vector <=> request's
                         LIMIT 1, without an index: the vectors are compared one by one
    LATERAL, HNSW        the same with an hnsw index of pgvector's default parameters

pgvector's do less: the request is a vector already, and the agent is only the nearest.  Figures
are microseconds a request on one processor, without parallel workers; each statement takes as many
requests as keep a round short, and a ratio is that of the times per request.

    .venv/bin/python bench/pgvector.py [--pg 18] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

import psycopg
from figures import Figure, add_option, compared, processor, write
from join import DEMO, register

from tinydancer.server import temporary_cluster

ROWS = 100_000
SECONDS_A_STATEMENT = 0.4
# The demo's are the ones of the other joins, and of the goal.
DEMO_AGENTS, MANY_AGENTS = 14, 1_000
JOIN = (
    "SELECT count(r.agent_name) FROM (SELECT * FROM asked WHERE n < {rows}) q "
    "JOIN route_results r ON r.{by}"
)
LATERAL = (
    "SELECT count(a.agent_name) FROM (SELECT * FROM asked WHERE n < {rows}) q "
    "CROSS JOIN LATERAL (SELECT agent_name FROM compared ORDER BY vector <=> q.vector LIMIT 1) a"
)
TEXT, STORED = "route_results", "route_results, stored vectors"
ALL, GRAPH = "LATERAL, all compared", "LATERAL, HNSW"
STATEMENTS = {
    TEXT: JOIN.replace("{by}", "request = q.body"),
    STORED: JOIN.replace("{by}", "embedding = q.embedding"),
    ALL: LATERAL.replace("compared", "plain"),
    GRAPH: LATERAL.replace("compared", "indexed"),
}


def ask(conn: psycopg.Connection[Any]) -> None:
    """The requests: the demo's log, each text once."""
    log = [json.loads(line)["body"] for line in (DEMO / "request_log.jsonl").open()]
    conn.execute("CREATE UNLOGGED TABLE texts (n integer, body text)")
    with conn.cursor().copy("COPY texts FROM STDIN") as copy:
        for n in range(ROWS):
            copy.write_row((n, f"{log[n % len(log)]} {n}"))
    conn.execute(
        "CREATE UNLOGGED TABLE asked AS SELECT n, body, e AS embedding, e::vector AS vector "
        "FROM texts, LATERAL (SELECT ruvector_embed(body) AS e OFFSET 0) x ORDER BY n"
    )
    conn.execute("CREATE INDEX ON asked (n)")
    conn.execute("VACUUM ANALYZE asked")


def store_vectors(conn: psycopg.Connection[Any]) -> int:
    """The registry's vectors for pgvector, without and with an index; how many there are."""
    conn.execute("DROP TABLE IF EXISTS plain, indexed")
    conn.execute(
        "CREATE TABLE plain AS SELECT agent_name, ruvector_embed(phrase)::vector(128) AS vector "
        "FROM tinydancer.agent_phrase WHERE phrase <> ''"
    )
    conn.execute("CREATE TABLE indexed AS SELECT * FROM plain")
    conn.execute("CREATE INDEX ON indexed USING hnsw (vector vector_cosine_ops)")
    conn.execute("VACUUM ANALYZE plain, indexed")
    row = conn.execute("SELECT count(*) FROM plain").fetchone()
    assert row is not None
    return int(row[0])


def timed(conn: psycopg.Connection[Any], statement: str, rows: int) -> float:
    """Microseconds a request."""
    # The planner takes the index of few vectors for slower than comparing all.
    conn.execute(f"SET enable_sort = {'off' if 'indexed' in statement else 'on'}")
    start = time.perf_counter()
    row = conn.execute(statement.format(rows=rows), prepare=False).fetchone()
    taken = time.perf_counter() - start
    if row != (rows,):
        raise RuntimeError(f"{row} of {rows} requests were answered")
    return taken / rows * 1e6


def measure(
    conn: psycopg.Connection[Any], agents: int, rounds: int
) -> tuple[list[Figure], list[str]]:
    """Figures, and lines to print, for the registry that is there."""
    vectors = store_vectors(conn)
    rows = {}
    for name, statement in STATEMENTS.items():
        timed(conn, statement, 100)
        share = SECONDS_A_STATEMENT / (timed(conn, statement, 500) / 1e6)
        rows[name] = max(500, min(ROWS, int(share)))
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(rounds):
        for name, statement in STATEMENTS.items():
            taken[name].append(timed(conn, statement, rows[name]))
    size = f"{agents:,} agents ({vectors:,} vectors)"
    figures = []
    for ours, title in ((TEXT, "join with text"), (STORED, "join with stored vectors")):
        for theirs in (ALL, GRAPH):
            goal = ">= 30" if (ours, theirs, agents) == (TEXT, ALL, DEMO_AGENTS) else ""
            baseline = (f"pgvector {theirs}", taken[theirs])
            one = compared("pgvector", f"{title}, {size}", taken[ours], "us", baseline, goal)
            figures.append(one)
    lines = [
        f"{size:32} {name:30} {rows[name]:8,} {statistics.median(values):9.2f}"
        f" {statistics.median(values) / statistics.median(taken[TEXT]):9.2f}"
        for name, values in taken.items()
    ]
    return figures, lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18 or 16")
    parser.add_argument("--rounds", type=int, default=9)
    add_option(parser)
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error("a median of fewer than 9 rounds says little")

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    collected: list[Figure] = []
    with (
        temporary_cluster(args.pg, {"jit": "off"}, extension=True) as cluster,
        cluster.connect(autocommit=True) as conn,
    ):
        try:
            conn.execute("CREATE EXTENSION vector")
        except psycopg.errors.FeatureNotSupported:
            print(f"skipped: Postgres {args.pg} has no pgvector")
            return 0
        row = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        (version,) = row.fetchone() or ("",)
        conn.execute("SET client_min_messages = warning")
        conn.execute("SET max_parallel_workers_per_gather = 0")
        print(f"Postgres {args.pg}, pgvector {version}, one processor, {processor()}")
        print(f"{'':32} {'':30} {'requests':>8} {'us each':>9} {'x text':>9}")
        ask(conn)
        demo = json.loads((DEMO / "agents.json").read_text())[:DEMO_AGENTS]
        for agent in demo:
            conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
        for agents in (DEMO_AGENTS, MANY_AGENTS):
            if agents == MANY_AGENTS:
                conn.execute("SELECT ruvector_clear_agents()")
                register(conn, agents, 0)
            conn.execute("VACUUM ANALYZE tinydancer.agent, tinydancer.agent_phrase")
            figures, lines = measure(conn, agents, args.rounds)
            collected += figures
            print("\n".join(lines), flush=True)
    write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
