"""Sessions keep what they read of a foreign table's definition until somebody changes it.

In: changes of options and columns, by the session itself and by another, committed and rolled back,
also while a cursor is open.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest


@pytest.fixture
def own(conn: Any) -> Any:
    """Two agents in different pools, and a foreign table with one of the pools."""
    for name, pool in (("a", "east"), ("b", "west")):
        conn.execute(
            "SELECT ruvector_register_agent(%s, 'api', description := 'x', pool := %s)",
            (name, pool),
        )
    conn.execute(
        "CREATE FOREIGN TABLE own (request text, agent_name text, pool text) "
        "SERVER tinydancer OPTIONS (pool 'east')"
    )
    return conn


QUERY = "SELECT agent_name FROM own WHERE request = 'x'"


def test_change_of_options_counts_in_every_session_when_committed(session: Any, own: Any) -> None:
    other = session(autocommit=False)
    assert own.execute(QUERY).fetchone() == ("a",)
    assert other.execute(QUERY).fetchone() == ("a",)
    other.commit()
    with own.transaction():
        own.execute("ALTER FOREIGN TABLE own OPTIONS (SET pool 'west')")
        assert own.execute(QUERY).fetchone() == ("b",)
    assert other.execute(QUERY).fetchone() == ("b",)
    other.commit()
    with own.transaction(force_rollback=True):
        own.execute("ALTER FOREIGN TABLE own OPTIONS (DROP pool)")
        assert own.execute(QUERY + " AND pool = 'east'").fetchone() == ("a",)
    assert own.execute(QUERY).fetchone() == ("b",)


def test_columns_may_come_and_go(own: Any) -> None:
    assert own.execute("SELECT * FROM own WHERE request = 'x'").fetchone() == ("x", "a", "east")
    own.execute("ALTER FOREIGN TABLE own DROP COLUMN agent_name")
    assert own.execute("SELECT * FROM own WHERE request = 'x'").fetchone() == ("x", "east")
    own.execute("ALTER FOREIGN TABLE own ADD COLUMN agent_name text")
    assert own.execute("SELECT * FROM own WHERE request = 'x'").fetchone() == ("x", "east", "a")
    own.execute("ALTER FOREIGN TABLE own RENAME COLUMN pool TO optimize_for")
    assert own.execute("SELECT optimize_for FROM own WHERE request = 'x'").fetchone() == (
        "balanced",
    )
    own.execute("ALTER FOREIGN TABLE own ADD COLUMN colour text")
    for _ in range(2):
        with pytest.raises(psycopg.errors.FdwInvalidColumnName):
            own.execute(QUERY)
    own.execute("ALTER FOREIGN TABLE own DROP COLUMN colour")
    assert own.execute(QUERY).fetchone() == ("a",)


def test_open_cursor_keeps_the_definition_that_it_began_with(session: Any, own: Any) -> None:
    """What is invalid is freed when its last scan is over, not before."""
    own.execute("BEGIN")
    own.execute(
        "DECLARE c CURSOR FOR SELECT l.i, o.agent_name, o.pool FROM generate_series(1, 50) l (i) "
        "JOIN own o ON o.request = 'request ' || l.i"
    )
    assert own.execute("FETCH 1 FROM c").fetchall() == [(1, "a", "east")]
    # Every definition of the session, as after many changes of the catalog.
    session().execute("ALTER FOREIGN TABLE route_results RENAME TO renamed")
    for _ in range(3):
        own.execute("CREATE FOREIGN TABLE another () SERVER tinydancer")
        own.execute("DROP FOREIGN TABLE another")
    assert own.execute("SELECT count(*) FROM renamed WHERE request = 'x'").fetchone() == (1,)
    assert own.execute("FETCH ALL FROM c").fetchall() == [(i, "a", "east") for i in range(2, 51)]
    own.execute("COMMIT")


def test_definitions_that_changed_are_freed(own: Any) -> None:
    size = "SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'tinydancer foreign table'"
    own.execute(QUERY)
    before = own.execute(size).fetchone()
    for i in range(50):
        own.execute(f"ALTER FOREIGN TABLE own OPTIONS (SET pool '{('east', 'west')[i % 2]}')")
        assert own.execute(QUERY).fetchone() == (("a", "b")[i % 2],)
    assert own.execute(size).fetchone() == before
