"""Analytics over the usage log are exact at every moment, whatever arrives late.

In: random usage, written by several sessions while others roll up.  What is compared: analytics
with the plain aggregate of the log, in one statement and so in one snapshot.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

from tinydancer.server import wait_for

# group_by and what it means in terms of the log.
GROUPS = {
    "agent": "u.agent_name",
    "agent_type": "a.type",
    "pool": "a.pool",
    "route": "d.route_name",
    "target": "d.optimize_for",
    "hour": "to_char(date_trunc('hour', u.recorded_at, z), 'YYYY-MM-DD HH24:MI')",
    "day": "to_char(date_trunc('day', u.recorded_at, z), 'YYYY-MM-DD')",
}
COMPARE = """
WITH settings AS (SELECT tinydancer.time_zone() AS z),
plain AS (
    SELECT {key} AS key, count(*) AS n, sum(u.cost_usd) AS cost, avg(u.latency_ms) AS ms,
           avg(u.success::integer)::float8 AS rate
    FROM settings, tinydancer.usage u
    LEFT JOIN tinydancer.decision d ON d.decision_id = u.decision_id
    LEFT JOIN tinydancer.agent a ON a.name = u.agent_name
    WHERE u.recorded_at >= now() - %(range)s::interval
    GROUP BY 1)
SELECT p.n, r.total_requests, p.cost, r.total_cost, p.ms, r.avg_latency_ms, p.rate, r.success_rate
FROM plain p
FULL JOIN ruvector_routing_analytics(%(range)s::interval, %(group)s) r
    ON coalesce(r.agent, '') = coalesce(p.key, '')
"""
LIVE = (
    "SELECT count(*) FROM tinydancer.usage u, tinydancer.usage_rollup_state s "
    "WHERE u.xid >= s.horizon"
)


def same(a: float | None, b: float | None) -> bool:
    """Equal, but for the order in which floats were added."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-9)


def assert_exact(conn: Any, span: str) -> int:
    """Analytics of the span equal the plain aggregate, by everything; returns how many groups."""
    groups = 0
    for group, key in GROUPS.items():
        sql = COMPARE.format(key=key)
        for row in conn.execute(sql, {"range": span, "group": group}).fetchall():
            for plain, rolled in zip(row[::2], row[1::2], strict=True):
                assert same(plain, rolled), (span, group, row)
            groups += 1
    return groups


def roll_up_everything(conn: Any) -> None:
    """Roll up until nothing is live; a transaction of another database may hold a run back."""

    def done() -> bool:
        conn.execute("SELECT ruvector_refresh_agent_stats()")
        return bool(conn.execute(LIVE).fetchone()[0] == 0)

    wait_for(done, what="the roll-up of every row")


@pytest.fixture
def logged(conn: Any, rng: Any) -> Any:
    """Agents, decisions and 4,000 usage rows of the last 40 days with figures missing."""
    for name, kind, pool in (("a", "llm", "x"), ("b", "api", "x"), ("c", "tool", None)):
        conn.execute(
            "SELECT ruvector_register_agent(%s, %s, ARRAY['code'], pool := %s)", (name, kind, pool)
        )
    conn.execute("INSERT INTO tinydancer.route (name) VALUES ('r'), ('s')")
    conn.execute(
        "INSERT INTO tinydancer.decision (decided_at, agent_name, route_name, optimize_for) "
        "SELECT now() - i * interval '97 minutes', 'a', (ARRAY['r', 's', NULL])[1 + i % 3], "
        "(ARRAY['cost', 'quality'])[1 + i % 2] FROM generate_series(0, 599) i"
    )
    insert(conn, rng, 4000)
    return conn


def insert(conn: Any, rng: np.random.Generator, rows: int, days: float = 40) -> None:
    """Random usage of the last days."""
    values = [
        (
            float(rng.uniform(0, days * 86400)),
            str(rng.choice(["a", "b", "c", "gone"])),
            int(rng.integers(1, 601)) if rng.random() < 0.5 else None,
            float(rng.exponential(0.01)) if rng.random() < 0.9 else None,
            float(rng.exponential(900)) if rng.random() < 0.9 else None,
            bool(rng.random() < 0.8) if rng.random() < 0.9 else None,
            float(rng.random()) if rng.random() < 0.3 else None,
        )
        for _ in range(rows)
    ]
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO tinydancer.usage (recorded_at, agent_name, decision_id, cost_usd, "
            "latency_ms, success, quality) "
            "VALUES (now() - %s * interval '1 second', %s, %s, %s, %s, %s, %s)",
            values,
        )


SPANS = ("3 days 04:05:06.789", "7 days", "1 month", "100 years")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_analytics_equal_the_plain_aggregate(logged: Any, rng: Any, zone: str) -> None:
    logged.execute("SELECT tinydancer.set_time_zone(%s)", (zone,))
    # So that to_char() in the plain aggregate prints the same zone.
    logged.execute("SELECT set_config('timezone', %s, false)", (zone,))
    for step in (
        lambda: None,
        lambda: roll_up_everything(logged),
        lambda: insert(logged, rng, 300),
    ):
        step()
        for span in SPANS:
            assert assert_exact(logged, span) > 20
    logged.execute("SELECT * FROM tinydancer.make_log_partitions()")
    roll_up_everything(logged)
    for span in SPANS:
        assert_exact(logged, span)


def test_row_of_an_open_transaction_is_neither_lost_nor_doubled(session: Any, logged: Any) -> None:
    count = "SELECT total_requests FROM ruvector_routing_analytics(NULL) WHERE agent = 'late'"
    late, other = session(autocommit=False), session()
    late.execute(
        "INSERT INTO tinydancer.usage (agent_name, recorded_at) VALUES ('late', '2024-01-01')"
    )
    late.execute("SAVEPOINT s")
    late.execute(
        "INSERT INTO tinydancer.usage (agent_name, recorded_at) VALUES ('late', '2024-01-01')"
    )
    # Committed after the late rows were written, rolled up before they are committed.
    other.execute(
        "INSERT INTO tinydancer.usage (agent_name, recorded_at) VALUES ('late', '2024-01-01')"
    )
    logged.execute("SELECT tinydancer.roll_up_usage()")
    assert logged.execute(count).fetchone() == (1,)
    late.commit()
    assert logged.execute(count).fetchone() == (3,)
    roll_up_everything(logged)
    assert logged.execute(count).fetchone() == (3,)


def test_rollup_of_a_prepared_transaction_waits_for_its_end(session: Any, logged: Any) -> None:
    count = "SELECT total_requests FROM ruvector_routing_analytics(NULL) WHERE agent = 'later'"
    late = session(autocommit=False)
    late.execute("INSERT INTO tinydancer.usage (agent_name) VALUES ('later')")
    late.execute("PREPARE TRANSACTION 'rollup_later'")
    late.rollback()
    logged.execute("SELECT tinydancer.roll_up_usage()")
    assert logged.execute(count).fetchone() is None
    logged.execute("COMMIT PREPARED 'rollup_later'")
    assert logged.execute(count).fetchone() == (1,)
    roll_up_everything(logged)
    assert logged.execute(count).fetchone() == (1,)


def test_analytics_are_exact_while_sessions_write_late_rows_and_roll_up(
    session: Any, logged: Any, rng: Any
) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Any, *args: Any) -> None:
        try:
            while not stop.is_set():
                work(*args)
        except BaseException as error:
            failures.append(error)
            stop.set()

    def write(conn: Any, numbers: np.random.Generator) -> None:
        insert(conn, numbers, int(numbers.integers(1, 20)))
        if numbers.random() < 0.5:
            conn.execute("SAVEPOINT s")
            insert(conn, numbers, 5)
            conn.execute("ROLLBACK TO s" if numbers.random() < 0.5 else "RELEASE s")
        stop.wait(float(numbers.uniform(0, 0.02)))
        if numbers.random() < 0.7:
            conn.commit()
        else:
            conn.rollback()

    def roll_up(conn: Any) -> None:
        conn.execute("SELECT ruvector_refresh_agent_stats()")

    threads = [
        threading.Thread(target=guarded, args=(write, session(autocommit=False), numbers))
        for numbers in rng.spawn(4)
    ]
    threads += [threading.Thread(target=guarded, args=(roll_up, session())) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            for span in ("7 days", "100 years"):
                assert_exact(logged, span)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures
    assert logged.execute("SELECT count(*) FROM tinydancer.usage_rollup").fetchone()[0] > 0
    for span in SPANS:
        assert_exact(logged, span)
    # And the registry has the same counts.
    roll_up_everything(logged)
    assert (
        logged.execute(
            "SELECT count(*) FROM tinydancer.agent a WHERE a.total_requests <> "
            "(SELECT count(*) FROM tinydancer.usage u WHERE u.agent_name = a.name)"
        ).fetchone()[0]
        == 0
    )


def test_million_rows_are_answered_from_the_rollup(logged: Any) -> None:
    logged.execute(
        "INSERT INTO tinydancer.usage (recorded_at, agent_name, cost_usd, latency_ms, success) "
        "SELECT now() - i * interval '2.5 seconds', (ARRAY['a', 'b', 'c'])[1 + i % 3], 0.001, 250, "
        "i % 10 > 0 FROM generate_series(1, 1000000) i"
    )
    roll_up_everything(logged)
    logged.execute("VACUUM ANALYZE tinydancer.usage")
    # Late, and new: few rows are live.
    logged.execute(
        "INSERT INTO tinydancer.usage (recorded_at, agent_name, cost_usd) "
        "SELECT now() - i * interval '1 day', 'a', 1 FROM generate_series(0, 20) i"
    )
    horizon = logged.execute("SELECT horizon::text FROM tinydancer.usage_rollup_state").fetchone()
    plan = "\n".join(
        row[0]
        for row in logged.execute(
            "EXPLAIN SELECT count(*) FROM tinydancer.usage u "
            f"WHERE u.recorded_at >= now() - interval '20 days' AND u.xid >= '{horizon[0]}'"
        )
    )
    assert "xid_idx" in plan, plan
    scanned = (
        "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname = %s"
    )
    # What this session counted before is not of this transaction.
    logged.execute("SELECT pg_stat_force_next_flush()")
    with logged.transaction():
        rows = logged.execute(
            "SELECT sum(total_requests) FROM ruvector_routing_analytics('20 days', 'day')"
        ).fetchone()
        assert logged.execute(scanned, ("usage_default",)).fetchone()[0] < 100_000
    plain = logged.execute(
        "SELECT count(*) FROM tinydancer.usage WHERE recorded_at >= now() - interval '20 days'"
    ).fetchone()
    assert rows[0] == pytest.approx(plain[0], abs=1)
    assert_exact(logged, "20 days")


def test_rows_that_bring_a_transaction_id_are_counted_once(logged: Any, db: Any) -> None:
    count = "SELECT total_requests FROM ruvector_routing_analytics(NULL) WHERE agent = 'old'"
    insert_old = "INSERT INTO tinydancer.usage (agent_name, xid) VALUES ('old', '3')"
    # Before the first roll-up a row keeps its id, as in a restore.
    logged.execute(insert_old)
    assert logged.execute("SELECT count(*) FROM tinydancer.usage WHERE xid = '3'").fetchone() == (
        1,
    )
    roll_up_everything(logged)
    assert logged.execute(count).fetchone() == (1,)
    # Afterwards it would have been passed.
    logged.execute(insert_old)
    assert logged.execute(count).fetchone() == (2,)
    # An id of the future, of another cluster, would be live for ever.
    logged.execute("INSERT INTO tinydancer.usage (agent_name, xid) VALUES ('old', '9000000000')")
    logged.execute("INSERT INTO tinydancer.usage (agent_name, xid) VALUES ('old', NULL)")
    assert logged.execute(count).fetchone() == (4,)
    roll_up_everything(logged)
    assert logged.execute(count).fetchone() == (4,)


def test_restore_in_progress_and_rollup_exclude_each_other(session: Any, logged: Any) -> None:
    count = "SELECT total_requests FROM ruvector_routing_analytics(NULL) WHERE agent = 'old'"
    restoring, other = session(autocommit=False), session()
    restoring.execute("INSERT INTO tinydancer.usage (agent_name, xid) VALUES ('old', '3')")
    done = threading.Thread(target=other.execute, args=("SELECT tinydancer.roll_up_usage()",))
    done.start()
    blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    wait_for(
        lambda: logged.execute(blocked, (other.info.backend_pid,)).fetchone()[0],
        what="the roll-up's wait",
    )
    restoring.commit()
    done.join(30)
    assert not done.is_alive()
    assert logged.execute(count).fetchone() == (1,)
    roll_up_everything(logged)
    assert logged.execute(count).fetchone() == (1,)
