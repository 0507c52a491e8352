"""Statements as a role, in transactions that are rolled back.  Used by the tests of access."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

LEVELS = ("viewer", "router", "operator")
DENIED = "42501"


@contextmanager
def acting(conn: Any, role: str | None) -> Iterator[None]:
    """A transaction as ``role`` that is rolled back."""
    conn.execute("BEGIN")
    try:
        if role is not None:
            conn.execute(f"SET LOCAL SESSION AUTHORIZATION {role}")
        yield
    finally:
        conn.execute("ROLLBACK")


def state(conn: Any, role: str | None, *statements: str) -> str | None:
    """The SQLSTATE that ``role`` gets, None when everything works."""
    with acting(conn, role):
        try:
            for statement in statements:
                conn.execute(statement)
        except psycopg.Error as error:
            return error.sqlstate
    return None
