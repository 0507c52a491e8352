"""Budgets hold however many sessions dispatch at once, and nobody waits for good.

In: many sessions that dispatch and record at the same time.  What is checked: not one dollar more
than the limit is reserved, no deadlock, a rollback gives back what it reserved, and without a
budget nobody waits for anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tinydancer.server import wait_for

SESSIONS = 20
DISPATCH = "SELECT agent_name FROM ruvector_dispatch(%s, 'quality')"
COUNTERS = (
    "SELECT scope, name, period, limit_usd, reserved_usd, spent_usd FROM tinydancer.budget_state() "
    "ORDER BY 1, 2, 3"
)


@pytest.fixture
def spending(conn: Any) -> Any:
    """``conn``, with agents that cost 0.10 and 0.03 USD a call, and one of another kind."""
    for name, pool, cost, quality in (("best", "a", 0.1, 0.9), ("second", "b", 0.03, 0.8)):
        conn.execute(
            "SELECT ruvector_register_agent(%s, 'api', ARRAY['translation'], cost_per_call := %s, "
            "quality_score := %s, pool := %s, avg_latency_ms := 10)",
            (name, cost, quality, pool),
        )
    return conn


def together(session: Any, work: Callable[[Any, int], None], sessions: int = SESSIONS) -> list[str]:
    """Run ``work(connection, number)`` in sessions that start at once; the errors' SQLSTATEs."""
    barrier = threading.Barrier(sessions)
    errors: list[str] = []

    def run(connection: Any, number: int) -> None:
        barrier.wait(30)
        try:
            work(connection, number)
        except psycopg.Error as error:
            errors.append(error.sqlstate or type(error).__name__)

    threads = [threading.Thread(target=run, args=(session(), number)) for number in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return errors


def agrees_with_the_logs(conn: Any) -> None:
    """The counters are what counting the logs again gives."""
    before = conn.execute(COUNTERS).fetchall()
    conn.execute("SELECT tinydancer.recount_budgets()")
    assert conn.execute(COUNTERS).fetchall() == before


def test_twenty_sessions_never_overspend_one_budget(session: Any, spending: Any) -> None:
    spending.execute("SELECT ruvector_set_budget('all', NULL, 'day', 1.2)")
    spending.execute("SELECT ruvector_set_budget('agent', 'best', 'month', 0.75)")

    def work(connection: Any, number: int) -> None:
        for _ in range(3):
            connection.execute(DISPATCH, (f"translate page {number}",))

    errors = together(session, work)
    # best: 7 times 0.1; second: 16 times 0.03 out of the 0.5 that are left.
    chosen = dict(
        spending.execute("SELECT agent_name, count(*) FROM tinydancer.decision GROUP BY 1")
    )
    assert chosen == {"best": 7, "second": 16}
    assert set(errors) == {"53400"}
    for _, _, _, limit, reserved, spent in spending.execute(COUNTERS).fetchall():
        assert reserved + spent <= limit
    agrees_with_the_logs(spending)


def test_last_dollar_is_taken_once(session: Any, spending: Any) -> None:
    spending.execute("SELECT ruvector_set_budget('all', NULL, 'day', 0.03)")
    errors = together(session, lambda c, n: c.execute(DISPATCH, (f"translate page {n}",)))
    assert errors == ["53400"] * (SESSIONS - 1)
    assert spending.execute("SELECT count(*) FROM tinydancer.decision").fetchone() == (1,)


def test_repeatable_read_does_not_overspend_either(session: Any, spending: Any) -> None:
    spending.execute("SELECT ruvector_set_budget('all', NULL, 'day', 0.2)")

    def work(connection: Any, number: int) -> None:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute(DISPATCH, (f"translate page {number}",))

    errors = together(session, work)
    # Who waited for another may not go on from its old snapshot, and may try again.
    assert set(errors) <= {"40001", "53400"}
    (spent,) = spending.execute(
        "SELECT sum(estimated_cost::numeric) FROM tinydancer.decision"
    ).fetchone()
    assert 0 < spent <= 0.2
    agrees_with_the_logs(spending)


def test_transactions_of_many_dispatches_in_any_order_never_deadlock(
    session: Any, spending: Any, rng: Any
) -> None:
    for scope, name in (("agent", "best"), ("agent", "second"), ("pool", "a"), ("pool", "b")):
        for period in ("day", "week", "month"):
            spending.execute("SELECT ruvector_set_budget(%s, %s, %s, 1000)", (scope, name, period))
    orders = [rng.permutation(8).tolist() for _ in range(SESSIONS)]

    def work(connection: Any, number: int) -> None:
        for _ in range(3):
            with connection.transaction():
                for step in orders[number]:
                    only = ("best", "second")[step % 2]
                    connection.execute(
                        "SELECT ruvector_dispatch(%s, excluded_agents := ARRAY[%s])",
                        (f"translate {step}", only),
                    )
                    connection.execute("SELECT ruvector_record_usage(%s, 0.01, true)", (only,))

    assert together(session, work) == []
    assert spending.execute("SELECT count(*) FROM tinydancer.decision").fetchone() == (
        SESSIONS * 3 * 8,
    )
    agrees_with_the_logs(spending)


def test_rollback_gives_the_reservation_back(session: Any, spending: Any) -> None:
    spending.execute("SELECT ruvector_set_budget('all', NULL, 'day', 0.1)")
    first, second = session(autocommit=False), session()
    assert first.execute(DISPATCH, ("translate this",)).fetchone() == ("best",)
    answer: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answer.append(second.execute(DISPATCH, ("translate that",)).fetchone())
    )
    waiting.start()
    blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    pid = second.info.backend_pid
    wait_for(lambda: spending.execute(blocked, (pid,)).fetchone()[0], what="the wait for the turn")
    first.rollback()
    waiting.join(30)
    assert answer == [("best",)]
    agrees_with_the_logs(spending)


def test_concurrent_records_of_one_decision_settle_it_once(session: Any, spending: Any) -> None:
    spending.execute("SELECT ruvector_set_budget('all', NULL, 'day', 100)")
    (decision,) = spending.execute(
        "SELECT decision_id FROM ruvector_dispatch('translate this', 'quality')"
    ).fetchone()
    errors = together(
        session,
        lambda c, n: c.execute(
            "SELECT ruvector_record_usage('best', 0.05, true, decision_id := %s)", (decision,)
        ),
    )
    assert errors == []
    ((_, _, _, _, reserved, spent),) = spending.execute(COUNTERS).fetchall()
    assert reserved == 0
    assert float(spent) == pytest.approx(0.05 * SESSIONS)
    agrees_with_the_logs(spending)


def test_dispatch_without_a_budget_blocks_nobody(session: Any, spending: Any) -> None:
    open_one, other = session(autocommit=False), session()
    other.execute("SET lock_timeout = '5s'")
    for request in ("translate this", "translate that"):
        open_one.execute(DISPATCH, (request,))
        open_one.execute("SELECT ruvector_record_usage('best', 0.1)")
    # While that transaction is open, everything else goes on, and so does setting a budget.
    other.execute(DISPATCH, ("translate this",))
    other.execute("SELECT ruvector_record_usage('best', 0.1)")
    other.execute("SELECT ruvector_refresh_agent_stats()")
    other.execute("SELECT ruvector_set_budget('all', NULL, 'day', 1)")
    other.execute(DISPATCH, ("translate this",))
    # What it holds are table locks that only changes of the tables' definition wait for.
    held = other.execute(
        "SELECT DISTINCT mode FROM pg_locks WHERE pid = %s AND relation IS NOT NULL",
        (open_one.info.backend_pid,),
    ).fetchall()
    assert {mode for (mode,) in held} <= {"AccessShareLock", "RowExclusiveLock"}
    open_one.commit()


def test_reader_of_budgets_waits_for_nobody(session: Any, spending: Any) -> None:
    spending.execute("SELECT ruvector_set_budget('all', NULL, 'day', 0.15)")
    writer, reader = session(autocommit=False), session()
    reader.execute("SET lock_timeout = '5s'")
    writer.execute(DISPATCH, ("translate this",))
    check = "SELECT ruvector_check_budget('best', 0.1)"
    assert reader.execute(check).fetchone() == (True,)
    writer.commit()
    assert reader.execute(check).fetchone() == (False,)


def test_budgets_set_at_once_are_all_there(session: Any, spending: Any) -> None:
    periods = ("day", "week", "month")
    errors = together(
        session,
        lambda c, n: c.execute(
            "SELECT ruvector_set_budget('agent', 'best', %s, %s)", (periods[n % 3], n + 1)
        ),
    )
    assert errors == []
    assert spending.execute("SELECT count(*) FROM tinydancer.budget_counter").fetchone() == (3,)
    assert spending.execute("SELECT count(*) FROM tinydancer.budget_lock").fetchone() == (1,)
