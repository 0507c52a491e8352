"""A dump and a restore keep registry, settings and decisions row for row.

In: a database with the demo's registry and rows in every table that a user can fill.  Out: the same
rows, and the same decisions, in a new database.
"""

from __future__ import annotations

import subprocess
from typing import Any

TABLES = (
    "agent",
    "agent_phrase",
    "route",
    "route_utterance",
    "route_scorer",
    "policy",
    "model",
    "setting",
    "decision",
    "usage",
    "budget",
)
REQUESTS = (
    "Translate this sentence into French",
    "Write a Python function that parses a date",
    "Will it rain tomorrow in Oslo?",
)


def fill(conn: Any) -> None:
    """A row in every table that the registry did not fill."""
    conn.execute(
        "INSERT INTO tinydancer.policy (name, cost_weight, quality_weight) VALUES ('mine', 1, 2)"
    )
    conn.execute("UPDATE tinydancer.policy SET cost_weight = 0.9 WHERE name = 'balanced'")
    conn.execute("INSERT INTO tinydancer.route (name, target_agent) VALUES ('r', 'x')")
    conn.execute(
        "INSERT INTO tinydancer.route_utterance (route_name, position, utterance) "
        "VALUES ('r', 1, 'hi')"
    )
    conn.execute(
        "INSERT INTO tinydancer.route_scorer (encoder, scorer, confidence_mu, confidence_s, "
        "fingerprint, weights) VALUES ('static-1', 'ridge', 0.1, 0.2, 'ff', '\\x00ff')"
    )
    conn.execute(
        "INSERT INTO tinydancer.decision (request, agent_name, decided_at) "
        "SELECT 'q' || i, 'a', '2026-01-15'::timestamptz + i * interval '1 day' "
        "FROM generate_series(1, 60) i"
    )
    conn.execute(
        "INSERT INTO tinydancer.usage (agent_name, cost_usd, success) VALUES ('a', 0.25, true)"
    )
    conn.execute(
        "INSERT INTO tinydancer.budget (scope, name, period, limit_usd) "
        "VALUES ('agent', 'a', 'day', 5)"
    )
    conn.execute(
        "INSERT INTO tinydancer.model (kind, version, encoder, bytes, checksum) "
        "VALUES ('quality', 1, 'static-1', 'x', 'y')"
    )


def contents(conn: Any) -> dict[str, list[str]]:
    return {
        table: [
            row[0] for row in conn.execute(f"SELECT t::text FROM tinydancer.{table} t ORDER BY 1")
        ]
        for table in TABLES
    }


def decisions(conn: Any) -> list[Any]:
    return conn.execute(
        "SELECT q, r.* FROM unnest(%s::text[]) q, LATERAL ruvector_explain_route(q) r "
        "ORDER BY q, r.agent_name",
        (list(REQUESTS),),
    ).fetchall()


def test_dump_and_restore_keep_every_row_and_every_decision(registry: Any, db: Any) -> None:
    fill(registry)
    before, decided = contents(registry), decisions(registry)
    assert all(before.values())

    copy = f"{db.name}_copy"
    dump = db.cluster.run("pg_dump", "--no-owner", dbname=db.name, stdout=subprocess.PIPE)
    assert dump.returncode == 0
    registry.execute(f"CREATE DATABASE {copy}")
    try:
        restored = db.cluster.run(
            "psql",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            dbname=copy,
            input=dump.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert restored.returncode == 0, restored.stdout
        with db.cluster.connect(copy, autocommit=True) as conn:
            assert contents(conn) == before
            assert decisions(conn) == decided
            # The identity goes on where it was, and the log takes rows.
            last = conn.execute("SELECT max(decision_id) FROM tinydancer.decision").fetchone()[0]
            new = conn.execute(
                "INSERT INTO tinydancer.decision (agent_name) VALUES ('a') RETURNING decision_id"
            ).fetchone()[0]
            assert new == last + 1
            # A registration after the restore works on the restored rows.
            conn.execute(
                "SELECT ruvector_register_agent('late', 'api', description := 'translate')"
            )
    finally:
        registry.execute(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)")


def test_dump_carries_no_builtin_row(registry: Any, db: Any) -> None:
    dump = db.cluster.run("pg_dump", "--data-only", dbname=db.name, stdout=subprocess.PIPE).stdout
    block = dump.split("COPY tinydancer.policy ")[1].split("\\.")[0]
    assert "balanced" not in block
