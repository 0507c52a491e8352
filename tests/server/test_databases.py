"""Databases of another encoding, and the extension in another schema.

In: databases that are not UTF-8.  What is compared: the decision, with a UTF-8 database's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from tinydancer import Encoder

DESCRIPTION = "café, crème brûlée and other déssert recipes"
REQUEST = "how do I make crème brûlée at the café"


@pytest.fixture
def create(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Make a database with the extension; ``create("LATIN1")`` gives a connection."""
    made: list[str] = []
    opened: list[Any] = []

    def one(encoding: str) -> Any:
        name = f"td_{encoding.lower()}"
        with cluster.connect(autocommit=True) as conn:
            conn.execute(
                f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 "
                "LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        made.append(name)
        cluster.create_extension(name)
        opened.append(cluster.connect(name, autocommit=True, client_encoding="UTF8"))
        return opened[-1]

    yield one
    for conn in opened:
        conn.close()
    with cluster.connect(autocommit=True) as conn:
        for name in made:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def decide(conn: Any) -> Any:
    conn.execute(
        "SELECT ruvector_register_agent('cuisinière', 'human', description := %s, pool := 'été')",
        (DESCRIPTION,),
    )
    row = conn.execute(
        "SELECT agent_name, similarity, reasoning FROM route_results "
        "WHERE request = %s AND pool = 'été'",
        (REQUEST,),
    ).fetchone()
    assert row is not None
    return row


def test_latin1_database_decides_as_a_utf8_one(conn: Any, create: Callable[..., Any]) -> None:
    expected = decide(conn)
    assert expected[0] == "cuisinière"
    assert "crème brûlée" in expected[2]
    assert decide(create("LATIN1")) == expected


def test_latin1_database_embeds_the_same_bits(create: Callable[..., Any]) -> None:
    conn = create("LATIN1")
    (vector,) = conn.execute("SELECT ruvector_embed(%s)", (REQUEST,)).fetchone()
    assert np.float32(vector).tobytes() == Encoder.load("static").embed([REQUEST]).tobytes()


def test_sql_ascii_database_refuses_what_is_not_utf8(create: Callable[..., Any]) -> None:
    conn = create("SQL_ASCII")
    conn.execute("SELECT ruvector_register_agent('a', 'api', description := 'translate')")
    assert conn.execute("SELECT agent_name FROM ruvector_route('translate this')").fetchone()
    for function in ("ruvector_embed", "ruvector_route"):
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            conn.execute(f"SELECT * FROM {function}(E'caf\\xe9')")


def test_extension_in_another_schema_works_with_any_search_path(empty_db: Any) -> None:
    with empty_db.connect() as conn:
        conn.execute("CREATE SCHEMA routing")
        conn.execute("CREATE EXTENSION tinydancer SCHEMA routing")
        conn.execute("SET search_path = pg_temp")
        conn.execute(
            """SELECT routing.ruvector_register_agent_full(
                '{"name": "a", "agent_type": "api", "description": "translate texts"}')"""
        )
        row = conn.execute(
            "SELECT r.agent_name, f.agent_name FROM routing.route_results r, "
            "routing.ruvector_route('translate') f WHERE r.request = 'translate'"
        ).fetchone()
        assert row == ("a", "a")
