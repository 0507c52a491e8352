"""The registry that a session routes with is the one that its transaction may see.

In: several sessions on one database.  What is checked: who sees a change, from when on, and what
does not cause the registry to be read again.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

REQUEST = "translate this sentence into french"
ROUTE = "SELECT agent_name FROM route_results WHERE request = %s"
COUNT = "SELECT count(*) FROM ruvector_explain_route(%s)"


def register(conn: Any, name: str, description: str = "translate texts", **figures: float) -> None:
    """One agent, by the public function."""
    quality = figures.get("quality_score", 0.5)
    conn.execute(
        "SELECT ruvector_register_agent(name := %s, agent_type := 'api', description := %s, "
        "cost_per_call := 0, avg_latency_ms := 10, quality_score := %s)",
        (name, description, quality),
    )


def agents(conn: Any) -> int:
    """How many agents this session's next decision would see."""
    return int(conn.execute(COUNT, (REQUEST,)).fetchone()[0])


def routed(conn: Any) -> str | None:
    row = conn.execute(ROUTE, (REQUEST,)).fetchone()
    return row[0] if row else None


def builds(conn: Any) -> int:
    return int(conn.execute("SELECT tinydancer.registry_builds()").fetchone()[0])


def test_other_session_sees_agent_at_commit_and_not_before(session: Any) -> None:
    writer, reader = session(autocommit=False), session()
    register(writer, "a")
    assert agents(reader) == 0
    assert routed(reader) is None
    writer.commit()
    assert agents(reader) == 1
    assert routed(reader) == "a"


def test_prepared_statement_in_open_transaction_sees_commit(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    register(writer, "a", quality_score=0.5)
    reader.prepare_threshold = 0
    # Past the five custom plans, so that a cached generic plan is what must notice.
    for _ in range(7):
        assert reader.execute(ROUTE, (REQUEST,), prepare=True).fetchone() == ("a",)
    register(writer, "b", quality_score=0.9)
    assert reader.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert reader.execute(ROUTE, (REQUEST,), prepare=True).fetchone() == ("b",)


def test_rollback_leaves_nothing(session: Any) -> None:
    writer, reader = session(autocommit=False), session()
    register(writer, "a")
    writer.commit()
    register(writer, "b", quality_score=0.9)
    assert routed(writer) == "b"
    writer.rollback()
    assert routed(writer) == "a"
    assert routed(reader) == "a"


def test_rollback_to_savepoint_leaves_nothing(session: Any) -> None:
    writer = session(autocommit=False)
    register(writer, "a")
    writer.execute("SAVEPOINT s")
    register(writer, "b", quality_score=0.9)
    assert routed(writer) == "b"
    writer.execute("ROLLBACK TO s")
    assert routed(writer) == "a"
    writer.commit()
    assert routed(writer) == "a"


@pytest.mark.parametrize("error", ["SELECT 1/0", "SELECT * FROM ruvector_route('')"])
def test_own_changes_are_gone_after_an_error(session: Any, error: str) -> None:
    writer = session(autocommit=False)
    register(writer, "a")
    writer.commit()
    register(writer, "b", quality_score=0.9)
    assert routed(writer) == "b"
    with pytest.raises(psycopg.Error):
        writer.execute(error)
    writer.rollback()
    assert routed(writer) == "a"


def test_own_uncommitted_changes_are_seen_by_oneself(session: Any) -> None:
    writer, reader = session(autocommit=False), session()
    register(writer, "a")
    assert routed(writer) == "a"
    writer.execute("UPDATE tinydancer.agent SET active = false WHERE name = 'a'")
    assert routed(writer) is None
    writer.execute("UPDATE tinydancer.agent SET active = true WHERE name = 'a'")
    writer.execute("DELETE FROM tinydancer.agent")
    assert agents(writer) == 0
    assert agents(reader) == 0


def test_direct_update_of_a_text_is_not_answered_with_the_old_vector(session: Any) -> None:
    conn = session()
    register(conn, "a", "weather forecasts for a city")
    register(conn, "b", "repair of bicycles")
    question = ("will it rain in oslo tomorrow",)
    assert conn.execute(ROUTE, question).fetchone() == ("a",)
    conn.execute("UPDATE tinydancer.agent SET description = 'repair of cars' WHERE name = 'a'")
    conn.execute(
        "UPDATE tinydancer.agent SET description = 'weather: rain, wind and sun' WHERE name = 'b'"
    )
    assert conn.execute(ROUTE, question).fetchone() == ("b",)


def test_repeatable_read_neither_sees_the_future_nor_is_stale_afterwards(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    register(writer, "a")
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    assert routed(reader) == "a"
    register(writer, "b", quality_score=0.9)
    assert routed(reader) == "a"
    assert agents(reader) == 1
    reader.commit()
    assert routed(reader) == "b"
    reader.commit()


def test_repeatable_read_that_reads_the_registry_late_sees_its_own_snapshot(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    register(writer, "a")
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    reader.execute("SELECT 1")  # takes the snapshot; the registry is not read yet
    register(writer, "b", quality_score=0.9)
    assert routed(reader) == "a"
    reader.rollback()
    assert routed(reader) == "b"


def test_cursor_sees_one_registry_from_first_row_to_last(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    register(writer, "a")
    reader.execute(
        "CREATE TEMP TABLE log AS SELECT %s || i AS body FROM generate_series(1, 50) i", (REQUEST,)
    )
    reader.execute("SET LOCAL cursor_tuple_fraction = 1")
    for source in (
        "FROM log JOIN route_results r ON r.request = log.body",
        "FROM log, LATERAL ruvector_route(log.body) r",
    ):
        with reader.cursor(name="c") as cursor:
            cursor.itersize = 1
            cursor.execute("SELECT r.agent_name " + source)
            rows = [cursor.fetchone()[0]]
            register(writer, "b", quality_score=0.9)
            rows += [row[0] for row in cursor]
        assert rows == ["a"] * 50
        assert routed(reader) == "b"
        writer.execute("SELECT ruvector_remove_agent('b')")


def test_one_statement_with_two_scans_sees_one_registry(session: Any) -> None:
    conn = session()
    register(conn, "a")
    row = conn.execute(
        "SELECT x.agent_name, y.agent_name FROM route_results x, ruvector_route(%s) y "
        "WHERE x.request = %s",
        (REQUEST, REQUEST),
    ).fetchone()
    assert row == ("a", "a")


def test_vacuum_and_analyze_do_not_read_the_registry_again(session: Any) -> None:
    conn, other = session(), session()
    register(conn, "a")
    assert routed(conn) == "a"
    before = builds(conn)
    for command in ("VACUUM", "ANALYZE", "VACUUM FULL"):
        other.execute(f"{command} tinydancer.agent")
        other.execute(f"{command} tinydancer.agent_phrase")
    assert routed(conn) == "a"
    assert builds(conn) == before
    # And a change does, once.
    other.execute("UPDATE tinydancer.agent SET quality_score = 0.6")
    assert routed(conn) == "a"
    assert routed(conn) == "a"
    assert builds(conn) == before + 1


def test_truncate_is_seen_by_other_sessions(session: Any) -> None:
    writer, reader = session(), session()
    register(writer, "a")
    assert routed(reader) == "a"
    writer.execute("TRUNCATE tinydancer.agent CASCADE")
    assert routed(reader) is None


def test_policy_change_is_seen_by_other_sessions(session: Any) -> None:
    writer, reader = session(), session()
    for name, cost, quality in (("cheap", 0.0, 0.5), ("good", 0.5, 1.0)):
        writer.execute(
            "SELECT ruvector_register_agent(name := %s, agent_type := 'api', "
            "description := 'translate', cost_per_call := %s, avg_latency_ms := 10, "
            "quality_score := %s)",
            (name, cost, quality),
        )
    query = "SELECT agent_name FROM ruvector_route(%s, optimize_for := 'mine')"
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        reader.execute(query, (REQUEST,))
    writer.execute("INSERT INTO tinydancer.policy (name, cost_weight) VALUES ('mine', 1)")
    assert reader.execute(query, (REQUEST,)).fetchone() == ("cheap",)
    writer.execute(
        "UPDATE tinydancer.policy SET cost_weight = 0, quality_weight = 1 WHERE name = 'mine'"
    )
    assert reader.execute(query, (REQUEST,)).fetchone() == ("good",)


def test_drop_and_create_extension_in_one_session_routes_again(session: Any) -> None:
    conn, other = session(), session()
    register(conn, "a")
    assert routed(conn) == "a"
    assert routed(other) == "a"
    conn.execute("DROP EXTENSION tinydancer CASCADE")
    conn.execute("CREATE EXTENSION tinydancer")
    assert routed(conn) is None
    assert routed(other) is None
    register(conn, "b")
    assert routed(conn) == "b"
    assert routed(other) == "b"


def test_parallel_workers_see_the_leaders_registry(session: Any) -> None:
    conn = session()
    register(conn, "a")
    register(conn, "b", "write code")
    conn.execute(
        "CREATE TABLE log AS SELECT i AS id, "
        "CASE i % 2 WHEN 0 THEN 'translate line ' ELSE 'debug module ' END || i AS body "
        "FROM generate_series(1, 20000) i"
    )
    conn.execute("ANALYZE log")
    query = (
        "SELECT r.agent_name, count(*) FROM log JOIN route_results r ON r.request = log.body "
        "GROUP BY 1 ORDER BY 1"
    )
    serial = conn.execute(query).fetchall()
    for setting in (
        "parallel_setup_cost = 0",
        "parallel_tuple_cost = 0",
        "min_parallel_table_scan_size = 0",
        "max_parallel_workers_per_gather = 2",
    ):
        conn.execute(f"SET {setting}")
    plan = "\n".join(row[0] for row in conn.execute("EXPLAIN " + query))
    assert "Gather" in plan, plan
    assert conn.execute(query).fetchall() == serial
    assert routed(conn) == "a"


def test_registrations_in_a_row_do_not_read_the_registry(session: Any) -> None:
    """Each changes the registry, so reading it in each would take quadratic time."""
    conn = session()
    before = builds(conn)
    for i in range(20):
        register(conn, f"agent {i}")
    assert builds(conn) == before
    assert agents(conn) == 20
    assert builds(conn) == before + 1


def test_prepared_transaction_is_nobodys_until_it_is_committed(session: Any) -> None:
    writer = session(autocommit=False)
    register(writer, "a")
    writer.commit()
    register(writer, "b", quality_score=0.9)
    assert routed(writer) == "b"
    writer.execute("PREPARE TRANSACTION 'later'")
    writer.rollback()
    writer.autocommit = True
    assert routed(writer) == "a"
    writer.execute("COMMIT PREPARED 'later'")
    assert routed(writer) == "b"
