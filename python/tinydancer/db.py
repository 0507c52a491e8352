"""Small helpers round psycopg: what every script that talks to the extension writes anyway.

In: a connection string or a psycopg connection.  Out: psycopg objects, and Postgres errors in the
three parts that both shells use.  Called by server.py, the command line and the tests.
"""

from __future__ import annotations

from typing import Any

import psycopg

EXTENSION = "tinydancer"


def connect(conninfo: str, **kwargs: Any) -> psycopg.Connection[Any]:
    """Connect and make sure that the extension is there.

    Args:
        conninfo: libpq keywords or a URI.
        kwargs: psycopg's own (autocommit, row_factory ...).

    Raises:
        psycopg.OperationalError: the server cannot be reached.
        LookupError: the database lacks the extension.
    """
    conn = psycopg.connect(conninfo, **kwargs)
    if extension_version(conn) is None:
        name = conn.info.dbname
        conn.close()
        raise LookupError(f'database "{name}" lacks the extension "{EXTENSION}"')
    return conn


def extension_version(conn: psycopg.Connection[Any]) -> str | None:
    """The version of the extension in this database, None when it is not there."""
    row = conn.execute(
        "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = %s", (EXTENSION,)
    ).fetchone()
    if not conn.autocommit and conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
        conn.rollback()
    return None if row is None else str(row[0])


def create_extension(conn: psycopg.Connection[Any], schema: str | None = None) -> None:
    """CREATE EXTENSION IF NOT EXISTS, with what it depends on, silently when it is there."""
    target = psycopg.sql.SQL("CREATE EXTENSION {}").format(psycopg.sql.Identifier(EXTENSION))
    if schema is not None:
        target += psycopg.sql.SQL(" SCHEMA {}").format(psycopg.sql.Identifier(schema))
    target += psycopg.sql.SQL(" CASCADE")
    if extension_version(conn) is None:
        conn.execute(target)


def error_parts(error: psycopg.Error) -> tuple[str, str | None, str | None]:
    """Primary sentence, detail and hint of an error, as the server or libpq said it."""
    diag = error.diag
    if diag.message_primary:
        return diag.message_primary, diag.message_detail, diag.message_hint
    return str(error).strip() or type(error).__name__, None, None
