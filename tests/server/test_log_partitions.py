"""Monthly partitions of the logs: made, filled, dumped, dropped.

In: rows of several months, in the default partition and in those of their months.  What is checked:
no row is lost or changed by making partitions and by a dump, the identity goes on, the logs refuse
changes, and an ordinary role may write them through the functions alone.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tinydancer.server import wait_for

LOGS = {"decision": ("decision_id", "decided_at"), "usage": ("usage_id", "recorded_at")}


@pytest.fixture
def filled(conn: Any) -> Any:
    """Both logs with rows of the last months and of long ago, all in the default partitions."""
    conn.execute("SELECT ruvector_register_agent('a', 'api', cost_per_call := 0.1)")
    for log, (_, stamp) in LOGS.items():
        conn.execute(
            f"INSERT INTO tinydancer.{log} (agent_name, {stamp}) "
            "SELECT 'a', now() - i * interval '9 days 07:00' FROM generate_series(0, 29) i "
            "UNION ALL SELECT 'old', '1999-12-31 23:59:59.999999+00' "
            "UNION ALL SELECT 'old', '2000-01-01 00:00+00' "
            "UNION ALL SELECT 'ancient', '0044-03-15 12:00:00+00 BC' "
            "UNION ALL SELECT 'far', '9999-12-31 12:00+00'"
        )
    return conn


def contents(conn: Any) -> dict[str, list[str]]:
    """Both logs, row for row."""
    return {
        log: [r[0] for r in conn.execute(f"SELECT t::text FROM tinydancer.{log} t ORDER BY 1")]
        for log in LOGS
    }


def where(conn: Any, log: str) -> dict[str, int]:
    """Rows in each partition."""
    return dict(
        conn.execute(f"SELECT tableoid::regclass::text, count(*) FROM tinydancer.{log} GROUP BY 1")
    )


def test_making_partitions_moves_the_rows_of_their_months(filled: Any) -> None:
    before = contents(filled)
    made = filled.execute("SELECT * FROM tinydancer.make_log_partitions('2 months')").fetchall()
    assert contents(filled) == before
    for log, (_, stamp) in LOGS.items():
        # What no partition can be named after stays, and nothing else.
        assert where(filled, log)[f"tinydancer.{log}_default"] == 1
        assert f"tinydancer.{log}_y1999m12" in where(filled, log)
        assert sum(rows for name, rows in made if name.startswith(log)) == len(before[log]) - 1
        assert (
            filled.execute(
                f"SELECT count(*) FROM tinydancer.{log} WHERE tableoid::regclass::text <> "
                f"to_char({stamp} AT TIME ZONE 'UTC', '\"tinydancer.{log}_y\"YYYY\"m\"MM') "
                "AND agent_name <> 'ancient'"
            ).fetchone()[0]
            == 0
        )
    # This month and the next two are there, so new rows go where they belong.
    filled.execute("SELECT ruvector_dispatch('anything')")
    assert where(filled, "decision")["tinydancer.decision_default"] == 1
    again = filled.execute("SELECT count(*) FROM tinydancer.make_log_partitions('2 months')")
    assert again.fetchone() == (0,)


def test_partitions_are_no_members_and_go_with_the_extension(filled: Any) -> None:
    filled.execute("SELECT * FROM tinydancer.make_log_partitions()")
    members = filled.execute(
        "SELECT count(*) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid "
        "WHERE d.deptype = 'e' AND c.relname ~ '_y[0-9]+m[0-9]+'"
    )
    assert members.fetchone() == (0,)
    filled.execute("DROP EXTENSION tinydancer")
    left = filled.execute("SELECT count(*) FROM pg_class WHERE relname ~ '_y[0-9]+m[0-9]+'")
    assert left.fetchone() == (0,)


@pytest.mark.parametrize("options", [(), ("--inserts",), ("--load-via-partition-root",)])
def test_dump_and_restore_keep_every_partition_row_for_row(
    filled: Any, db: Any, options: tuple[str, ...]
) -> None:
    filled.execute("SELECT ruvector_set_budget('agent', 'a', 'month', 100)")
    filled.execute("SELECT * FROM tinydancer.make_log_partitions()")
    filled.execute("SELECT ruvector_refresh_agent_stats()")
    dispatched = filled.execute("SELECT decision_id FROM ruvector_dispatch('anything')").fetchone()
    filled.execute("SELECT ruvector_record_usage('a', 0.25)")
    # And a month that is gone, whose sums are kept.
    filled.execute("SELECT * FROM tinydancer.drop_log_partitions('20 years')")
    before = contents(filled)
    analytics = "SELECT * FROM ruvector_routing_analytics(NULL, 'day')"
    state = "SELECT scope, name, period, spent_usd, reserved_usd FROM tinydancer.budget_state()"
    said = [filled.execute(q).fetchall() for q in (analytics, state)]
    places = [where(filled, log) for log in LOGS]

    copy = f"{db.name}_copy"
    dump = db.cluster.run("pg_dump", *options, dbname=db.name, stdout=subprocess.PIPE)
    assert dump.returncode == 0
    filled.execute(f"CREATE DATABASE {copy}")
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
            assert [where(conn, log) for log in LOGS] == places
            assert [conn.execute(q).fetchall() for q in (analytics, state)] == said
            # The identities go on where they were.
            for log, (identity, _) in LOGS.items():
                new = conn.execute(
                    f"INSERT INTO tinydancer.{log} (agent_name) VALUES ('a') RETURNING {identity}"
                ).fetchone()[0]
                last = filled.execute(f"SELECT max({identity}) FROM tinydancer.{log}").fetchone()[0]
                assert new == last + 1
            # The reservation is settled in the copy as it would have been.
            conn.execute(
                "SELECT ruvector_record_usage('a', 0.5, true, decision_id := %s)", dispatched
            )
            assert conn.execute(state).fetchall()[0][-1] == 0
            # The logs refuse changes there too, in every partition, and roll up exactly.
            for name in where(conn, "usage"):
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                    conn.execute(f"DELETE FROM {name}")
            now = conn.execute(analytics).fetchall()
            conn.execute("SELECT tinydancer.roll_up_usage()")
            assert conn.execute(analytics).fetchall() == now
            made = conn.execute("SELECT count(*) FROM tinydancer.make_log_partitions('5 months')")
            assert made.fetchone() == (4,)
    finally:
        filled.execute(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)")


def test_rows_written_while_a_partition_is_made_are_kept(session: Any, filled: Any) -> None:
    writer, maker = session(autocommit=False), session()
    writer.execute("INSERT INTO tinydancer.usage (agent_name) VALUES ('open')")
    done = threading.Thread(
        target=maker.execute, args=("SELECT * FROM tinydancer.make_log_partitions('0')",)
    )
    done.start()
    blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    wait_for(
        lambda: filled.execute(blocked, (maker.info.backend_pid,)).fetchone()[0],
        what="the wait for the writer",
    )
    writer.commit()
    done.join(60)
    assert not done.is_alive()
    assert where(filled, "usage")["tinydancer.usage_default"] == 1
    rows = "SELECT count(*) FROM tinydancer.usage WHERE agent_name = 'open'"
    assert filled.execute(rows).fetchone() == (1,)


def test_dropping_keeps_young_months_and_the_default(filled: Any) -> None:
    filled.execute("SELECT * FROM tinydancer.make_log_partitions()")
    sums = "SELECT * FROM ruvector_routing_analytics(NULL, 'agent')"
    before = filled.execute(sums).fetchall()
    dropped = filled.execute("SELECT * FROM tinydancer.drop_log_partitions('3 months')").fetchall()
    assert ("usage_y1999m12", 1) in dropped
    for log, (_, stamp) in LOGS.items():
        young = filled.execute(
            f"SELECT min({stamp}) >= date_trunc('month', now() - interval '4 months') "
            f"FROM tinydancer.{log} WHERE agent_name <> 'ancient'"
        )
        assert young.fetchone() == (True,)
        assert where(filled, log)[f"tinydancer.{log}_default"] == 1
    assert filled.execute(sums).fetchall() == before


@pytest.fixture
def router(conn: Any, db: Any) -> Iterator[Any]:
    """A connection of a role that may read the logs and call what writes them."""
    role = f"{db.name}_router"
    conn.execute(f"CREATE ROLE {role} LOGIN")
    conn.execute(f"GRANT USAGE ON SCHEMA tinydancer TO {role}")
    conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA tinydancer TO {role}")
    for function in ("ruvector_dispatch", "ruvector_record_usage"):
        conn.execute(
            sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(
                sql.Identifier(function), sql.Identifier(role)
            )
        )
    with db.connect() as connection:
        connection.execute(f"SET ROLE {role}")
        yield connection
    conn.execute(f"DROP OWNED BY {role}")
    conn.execute(f"DROP ROLE {role}")


def test_ordinary_role_writes_the_logs_through_the_functions_alone(
    filled: Any, router: Any
) -> None:
    filled.execute("SELECT * FROM tinydancer.make_log_partitions()")
    filled.execute("SELECT ruvector_set_budget('all', NULL, 'day', 0.3)")
    (decision,) = router.execute("SELECT decision_id FROM ruvector_dispatch('anything')").fetchone()
    router.execute("SELECT ruvector_record_usage('a', 0.1, true, decision_id := %s)", (decision,))
    assert router.execute("SELECT ruvector_check_budget('a', 0.2)").fetchone() == (True,)
    assert router.execute("SELECT ruvector_routing_stats() ->> 'total_agents'").fetchone() == ("1",)
    assert router.execute("SELECT count(*) > 0 FROM ruvector_routing_analytics()").fetchone()[0]
    for statement in (
        "INSERT INTO tinydancer.usage (agent_name) VALUES ('a')",
        "UPDATE tinydancer.usage SET cost_usd = 0",
        "DELETE FROM tinydancer.decision",
        "TRUNCATE tinydancer.decision",
        "UPDATE tinydancer.budget_counter SET spent_usd = 0",
        "DELETE FROM tinydancer.budget_reservation",
        "SELECT ruvector_set_budget('all', NULL, 'day', 1000)",
        "SELECT * FROM tinydancer.make_log_partitions()",
        "SELECT * FROM tinydancer.drop_log_partitions('0')",
        "SELECT tinydancer.recount_budgets()",
        "SELECT ruvector_refresh_agent_stats()",
        "SELECT tinydancer.lock_budgets()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            router.execute(statement)
