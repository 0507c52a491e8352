"""UPDATE ... FROM route_results stores the decision of the text that the row has in the end.

In: two sessions, one of which changes a request while the other waits to store its decision.
Postgres then checks the waiting session's row again (EvalPlanQual) with the new text.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tinydancer.server import wait_for

UPDATE = (
    "UPDATE log l SET chosen = r.agent_name, cost = r.max_cost "
    "FROM route_results r WHERE r.request = l.body AND r.max_cost = l.cap"
)


@pytest.fixture
def log(conn: Any) -> Any:
    """Two agents and one request in table ``log``."""
    for name, description in (("translator", "translate texts"), ("coder", "debug programs")):
        conn.execute(
            "SELECT ruvector_register_agent(%s, 'api', description := %s, cost_per_call := 0.01)",
            (name, description),
        )
    conn.execute("CREATE TABLE log (id int, body text, cap float8, chosen text, cost float8)")
    conn.execute("INSERT INTO log VALUES (1, 'translate this text', 1)")
    return conn


def update_while_other_changes(session: Any, log: Any, change: str, update: str = UPDATE) -> None:
    """Run an UPDATE in a session that has to wait for ``change`` of another to commit."""
    writer, waiting = session(autocommit=False), session()
    writer.execute(change)
    done = threading.Thread(target=waiting.execute, args=(update,))
    done.start()
    pid = waiting.info.backend_pid
    blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    wait_for(lambda: log.execute(blocked, (pid,)).fetchone()[0], what="the lock wait")
    writer.commit()
    done.join(30)
    assert not done.is_alive()


def stored(log: Any) -> Any:
    return log.execute("SELECT chosen, cost FROM log").fetchone()


def test_changed_request_stores_the_decision_of_the_new_text(session: Any, log: Any) -> None:
    update_while_other_changes(session, log, "UPDATE log SET body = 'debug this program'")
    assert stored(log) == ("coder", 1.0)


def test_changed_limit_is_the_limit_that_counts(session: Any, log: Any) -> None:
    update_while_other_changes(session, log, "UPDATE log SET cap = 0.5")
    assert stored(log) == ("translator", 0.5)


def test_limit_that_now_rejects_every_agent_stores_nothing(session: Any, log: Any) -> None:
    update_while_other_changes(session, log, "UPDATE log SET cap = 0.001")
    assert stored(log) == (None, None)


def test_request_that_became_null_stores_nothing(session: Any, log: Any) -> None:
    update_while_other_changes(session, log, "UPDATE log SET body = NULL")
    assert stored(log) == (None, None)


def test_unrelated_change_stores_the_decision(session: Any, log: Any) -> None:
    update_while_other_changes(session, log, "UPDATE log SET id = 2")
    assert stored(log) == ("translator", 1.0)


# ---------------------------------------------------------------- an array of requests

BY_ARRAY = (
    "UPDATE log l SET chosen = r.agent_name, cost = r.max_cost FROM route_results r "
    "WHERE r.request = ANY (ARRAY[l.body, 'translate ' || l.id]) AND r.max_cost = l.cap "
    "AND r.request = l.body"
)


def test_array_that_still_has_the_request_takes_the_new_limit(session: Any, log: Any) -> None:
    update_while_other_changes(session, log, "UPDATE log SET cap = 0.5, id = 7", BY_ARRAY)
    assert stored(log) == ("translator", 0.5)


def test_array_that_lost_the_request_stores_nothing(session: Any, log: Any) -> None:
    by_element = BY_ARRAY.replace("AND r.request = l.body", "")
    log.execute("UPDATE log SET body = 'debug this program', id = NULL")
    update_while_other_changes(session, log, "UPDATE log SET body = 'translate this'", by_element)
    assert stored(log) == (None, None)


def test_array_that_keeps_the_request_among_others_stores_its_decision(
    session: Any, log: Any
) -> None:
    by_element = BY_ARRAY.replace("AND r.request = l.body", "")
    log.execute("UPDATE log SET body = 'debug this program', id = NULL")
    update_while_other_changes(session, log, "UPDATE log SET id = 1, cap = 0.25", by_element)
    assert stored(log) == ("coder", 0.25)


# ---------------------------------------------------------------- other ways to write


MERGE = (
    "MERGE INTO log l USING route_results r ON r.request = l.body AND r.max_cost = l.cap "
    "WHEN MATCHED THEN UPDATE SET chosen = r.agent_name, cost = r.max_cost"
)


def test_merge_stores_no_decision_of_an_old_text(session: Any, log: Any) -> None:
    """MERGE never takes another source row than the one that it waited with."""
    change = "UPDATE log SET body = 'debug this program'"
    update_while_other_changes(session, log, change, MERGE)
    assert stored(log) == (None, None)


def test_merge_stores_the_decision_after_an_unrelated_change(session: Any, log: Any) -> None:
    update_while_other_changes(session, log, "UPDATE log SET id = 2", MERGE)
    assert stored(log) == ("translator", 1.0)


def test_locked_row_is_decided_by_its_new_text(session: Any, log: Any) -> None:
    lock = (
        "CREATE TABLE seen AS SELECT r.agent_name FROM log l "
        "JOIN route_results r ON r.request = l.body FOR UPDATE OF l"
    )
    change = "UPDATE log SET body = 'debug this program'"
    update_while_other_changes(session, log, change, lock)
    assert log.execute("SELECT agent_name FROM seen").fetchall() == [("coder",)]


def test_two_decisions_of_one_row_are_both_those_of_the_new_text(session: Any, log: Any) -> None:
    twice = (
        "UPDATE log l SET chosen = r.agent_name || s.agent_name FROM route_results r, "
        "route_results s WHERE r.request = l.body AND s.request = l.body AND s.max_cost = l.cap"
    )
    change = "UPDATE log SET body = 'debug this program'"
    update_while_other_changes(session, log, change, twice)
    assert stored(log) == ("codercoder", None)


# ---------------------------------------------------------------- tables of several rows a request


@pytest.fixture
def imported(log: Any) -> Any:
    """``log``, with the other foreign tables and a third agent, and a route for each agent."""
    log.execute("CREATE SCHEMA td; IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td")
    log.execute("SELECT ruvector_register_agent('anyone', 'human', description := 'anything')")
    for name, utterances in (
        ("languages", ["translate this text", "in french, please"]),
        ("faults", ["debug this program", "my program crashes"]),
    ):
        log.execute("SELECT ruvector_create_route(%s, utterances := %s)", (name, utterances))
    return log


TO_DEBUG = "UPDATE log SET body = 'debug this program'"


def test_best_candidate_is_that_of_the_new_text(session: Any, imported: Any) -> None:
    update_while_other_changes(
        session,
        imported,
        TO_DEBUG,
        "UPDATE log l SET chosen = c.agent_name, cost = c.rank FROM td.route_candidates c "
        "WHERE c.request = l.body AND c.rank = 1",
    )
    assert stored(imported) == ("coder", 1.0)


def test_best_match_is_that_of_the_new_text(session: Any, imported: Any) -> None:
    update_while_other_changes(
        session,
        imported,
        TO_DEBUG,
        "UPDATE log l SET chosen = m.route_name, cost = m.rank FROM td.semantic_matches m "
        "WHERE m.request = l.body AND m.top_k = 1",
    )
    assert stored(imported) == ("faults", 1.0)


def test_candidate_by_name_has_the_rank_of_the_new_text(session: Any, imported: Any) -> None:
    update_while_other_changes(
        session,
        imported,
        TO_DEBUG,
        "UPDATE log l SET cost = c.rank FROM td.route_candidates c "
        "WHERE c.request = l.body AND c.agent_name = 'translator'",
    )
    new = imported.execute(
        "SELECT rank FROM ruvector_explain_route('debug this program') "
        "WHERE agent_name = 'translator'"
    ).fetchone()
    old = imported.execute(
        "SELECT rank FROM ruvector_explain_route('translate this text') "
        "WHERE agent_name = 'translator'"
    ).fetchone()
    assert new != old
    assert stored(imported)[1] == new[0]


def test_every_candidate_of_a_locked_row_is_that_of_the_new_text(
    session: Any, imported: Any
) -> None:
    update_while_other_changes(
        session,
        imported,
        TO_DEBUG,
        "CREATE TABLE seen AS SELECT c.agent_name, c.rank, c.score FROM log l "
        "JOIN td.route_candidates c ON c.request = l.body FOR UPDATE OF l",
    )
    seen = "SELECT * FROM seen"
    expected = "SELECT agent_name, rank, score FROM ruvector_explain_route('debug this program')"
    (rows,) = imported.execute(f"SELECT count(*) FROM ({seen}) s").fetchone()
    assert rows == 3
    assert imported.execute(f"{seen} EXCEPT {expected}").fetchall() == []


def test_candidate_that_became_ineligible_is_dropped(session: Any, imported: Any) -> None:
    update_while_other_changes(
        session,
        imported,
        "UPDATE log SET cap = 0.001",
        "UPDATE log l SET chosen = c.agent_name FROM td.route_candidates c "
        "WHERE c.request = l.body AND c.max_cost = l.cap AND c.eligible",
    )
    assert stored(imported) == (None, None)
