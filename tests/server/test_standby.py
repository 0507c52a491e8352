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
