"""A streaming standby decides with the encoder that its primary switched to.

In: a primary and a hot standby of it, each with its own folder of encoder files.  What is checked:
what the standby says of a file that only the primary has, and that it follows every switch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tinydancer import encoder_file
from tinydancer.server import temporary_cluster, wait_for

SMALL = "small-1.tdenc"
ROUTE = "SELECT agent_name FROM route_results WHERE request = 'translate this'"
BY_VECTOR = "SELECT agent_name FROM ruvector_route(NULL, embedding := %s::real[])"


@pytest.fixture
def standby(db: Any) -> Iterator[Any]:
    """A running hot standby of the test cluster."""
    with temporary_cluster(db.cluster.installation) as other:
        settings = (other.data / "tinydancer.conf").read_text()
        other.stop()
        shutil.rmtree(other.data)
        db.cluster.run(
            "pg_basebackup", "-D", other.data, "-R", "-c", "fast", check=True, capture_output=True
        )
        # A standby may not have fewer of these than its primary.
        settings += "max_connections = 60\nmax_prepared_transactions = 4\n"
        (other.data / "tinydancer.conf").write_text(settings)
        if other.account is not None:
            for folder, _, files in os.walk(other.data):
                for name in (".", *files):
                    os.chown(Path(folder) / name, other.account.uid, other.account.gid)
        other.start()
        yield other


def test_standby_follows_switches_and_names_the_file_that_it_lacks(
    db: Any, standby: Any, small_encoder: bytes
) -> None:
    mine = Path(db.cluster.home) / "encoders" / SMALL
    theirs = Path(standby.home) / "encoders" / SMALL
    encoder_file.write_file(mine, small_encoder)
    try:
        with db.connect() as primary, standby.connect(db.name, autocommit=True) as conn:

            def active() -> str | None:
                row = conn.execute(
                    "SELECT value FROM tinydancer.setting WHERE name = 'encoder'"
                ).fetchone()
                return None if row is None else str(row[0])

            primary.execute(
                "SELECT ruvector_register_agent('a', 'api', description := 'translate texts')"
            )
            wait_for(lambda: conn.execute(ROUTE).fetchone() == ("a",), what="the agent")
            primary.execute("CALL tinydancer.use_encoder('small-1')")
            vector = primary.execute("SELECT ruvector_embed('translate this')").fetchone()[0]
            wait_for(lambda: active() == "small-1", what="the switch")

            with pytest.raises(psycopg.errors.UndefinedFile) as caught:
                conn.execute(ROUTE)
            assert str(theirs) in caught.value.diag.message_detail
            assert "tinydancer encoder build small-1" in caught.value.diag.message_hint
            assert conn.execute(BY_VECTOR, (vector,)).fetchone() == ("a",)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                conn.execute("CALL tinydancer.use_encoder('static')")

            encoder_file.write_file(theirs, small_encoder)
            assert conn.execute(ROUTE).fetchone() == ("a",)
            assert conn.execute("SELECT ruvector_embed('translate this')").fetchone() == (vector,)

            primary.execute("CALL tinydancer.use_encoder('static')")
            wait_for(lambda: active() == "static-1", what="the switch back")
            assert conn.execute(ROUTE).fetchone() == ("a",)
            assert conn.execute("SELECT id FROM tinydancer.active_encoder()").fetchone() == (
                "static-1",
            )
    finally:
        mine.unlink()


def test_standby_routes_and_follows_the_registry(db: Any, standby: Any) -> None:
    """Every form of reading, by what the write-ahead log brings."""
    join = (
        "SELECT l.id, r.agent_name FROM log l LEFT JOIN route_results r ON r.request = l.body "
        "AND r.pool = l.pool ORDER BY 1"
    )
    with db.connect() as primary, standby.connect(db.name, autocommit=True) as conn:
        primary.execute("CREATE TABLE log (id integer, body text, pool text)")
        primary.execute(
            "INSERT INTO log VALUES (1, 'translate', 'x'), (2, 'sum', 'y'), (3, NULL, 'x')"
        )
        primary.execute(
            "SELECT ruvector_register_agent('a', 'api', description := 't', pool := 'x')"
        )
        primary.execute("SELECT ruvector_create_route('r', 'd', utterances := ARRAY['translate'])")
        wait_for(lambda: conn.execute(ROUTE).fetchone() == ("a",), what="the agent")
        assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        assert conn.execute(join).fetchall() == [(1, "a"), (2, None), (3, None)]
        assert conn.execute("SELECT agent_name FROM ruvector_route('sum')").fetchone() == ("a",)
        assert conn.execute("SELECT rank FROM ruvector_explain_route('sum')").fetchone() == (1,)

        # A prepared statement, and a cursor that keeps the registry it began with.
        conn.execute(
            "PREPARE decide(text) AS SELECT agent_name FROM route_results WHERE request = $1"
        )
        assert conn.execute("EXECUTE decide('sum')").fetchone() == ("a",)
        conn.execute("BEGIN")
        conn.execute(f"DECLARE forward CURSOR FOR {join}")
        assert conn.execute("FETCH 1 FROM forward").fetchall() == [(1, "a")]
        primary.execute(
            "SELECT ruvector_register_agent('b', 'api', description := 's', pool := 'y')"
        )
        primary.execute("SELECT ruvector_set_agent_active('a', false)")
        wait_for(lambda: conn.execute(ROUTE).fetchone() == ("b",), what="the other agent")
        assert conn.execute("FETCH ALL FROM forward").fetchall() == [(2, None), (3, None)]
        conn.execute("COMMIT")
        assert conn.execute(join).fetchall() == [(1, None), (2, "b"), (3, None)]
        assert conn.execute("EXECUTE decide('sum')").fetchone() == ("b",)

        # One that is rolled back there never happens here.
        with primary.transaction(force_rollback=True):
            primary.execute("DELETE FROM tinydancer.agent")
        primary.execute("UPDATE log SET pool = 'y' WHERE id = 3")
        wait_for(
            lambda: conn.execute("SELECT pool FROM log WHERE id = 3").fetchone() == ("y",),
            what="the end of the write-ahead log",
        )
        assert conn.execute("EXECUTE decide('sum')").fetchone() == ("b",)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM ruvector_dispatch('translate this')",
        "SELECT ruvector_register_agent('c', 'api')",
        "INSERT INTO tinydancer.agent (name, type) VALUES ('c', 'api')",
    ],
)
def test_standby_writes_nothing(db: Any, standby: Any, statement: str) -> None:
    with db.connect() as primary, standby.connect(db.name, autocommit=True) as conn:
        primary.execute("SELECT ruvector_register_agent('a', 'api', description := 'translate')")
        wait_for(lambda: conn.execute(ROUTE).fetchone() == ("a",), what="the agent")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
            conn.execute(statement)
        assert caught.value.sqlstate == "25006"
        if "dispatch" in statement:
            assert "ruvector_route" in (caught.value.diag.message_hint or "")
        # And goes on deciding.
        assert conn.execute(ROUTE).fetchone() == ("a",)


def test_base_backup_has_no_copy_of_an_encoder(db: Any, standby: Any) -> None:
    """The standby makes its own, of the file that it has."""
    with db.connect() as primary:
        primary.execute("SELECT ruvector_embed('x', 'static')")
    temporary = "base/pgsql_tmp"
    assert list((db.cluster.data / temporary).glob("*_tinydancer_*"))
    assert not list((standby.data / temporary).glob("*_tinydancer_*"))
    with standby.connect(db.name, autocommit=True) as conn:
        conn.execute("SELECT ruvector_embed('x', 'static')")
    assert len(list((standby.data / temporary).glob("*_tinydancer_*"))) == 1
    standby.restart()
    assert not list((standby.data / temporary).glob("*_tinydancer_*"))
