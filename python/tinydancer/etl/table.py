"""Decisions to a table of a database, each exactly once.

Arrow tables come in, rows come out of ``COPY``.  Rows and the note of how far the run has come are
committed together, so whatever ends a run, the next one continues where the table ends.  Until it
is whole the table is called ``NAME_partial``, and the note is the one row of ``NAME_progress``; the
last transaction renames the one and drops the other.  The counterpart of ``tinydancer.etl.target``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv
from psycopg import sql

from tinydancer.errors import InvalidInputError
from tinydancer.etl.source import Place
from tinydancer.etl.target import OutputError, check_job

__all__ = ["TableTarget"]

_TYPES: Mapping[pa.DataType, str] = {
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.large_string(): "text",
}


class TableTarget:
    """A table that the run makes.

    Args:
        conn: of its own, in autocommit.
        name: "table" or "schema.table".
        restart: forget what a cut run has done.

    Raises:
        InvalidInputError: for a name that is none.
        OutputError: if the table is there already, or another run writes it.
        psycopg.Error: if the server refuses.
    """

    def __init__(self, conn: psycopg.Connection[Any], name: str, *, restart: bool = False) -> None:
        self.name = name
        self._conn = conn
        parts = name.split(".")
        if not 1 <= len(parts) <= 2 or not all(parts):
            raise InvalidInputError(
                f'"{name}" names no table', None, "Write table:NAME or table:SCHEMA.NAME."
            )
        self._parts = parts
        self._whole = self._named("")
        self._partial = self._named("_partial")
        self._progress = self._named("_progress")
        self._state: dict[str, Any] | None = None
        self._key: str | None = None
        row = conn.execute(
            "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))",
            (f"tinydancer etl {name}",),
        ).fetchone()
        assert row is not None
        if not row[0]:
            raise OutputError(
                f'another run writes "{name}"',
                "It holds the lock of this name.",
                "Wait for it to end, or name another table.",
            )
        if self._exists(self._whole):
            raise OutputError(
                f'output "{name}" exists already',
                "It is whole: no run leaves half a table under this name.",
                "Drop it, or name another table.",
            )
        there = [self._exists(one) for one in (self._partial, self._progress)]
        if there[0] != there[1]:
            taken = self._partial if there[0] else self._progress
            raise OutputError(
                f"table {taken.as_string(conn)} exists already",
                "While it is written, the output takes this name, and it is not one of a cut run.",
                "Rename it, or name another table.",
            )
        if restart and there[0]:
            with conn.transaction():
                for one in (self._partial, self._progress):
                    conn.execute(sql.SQL("DROP TABLE {}").format(one))
        elif there[0]:
            found = conn.execute(sql.SQL("SELECT state FROM {}").format(self._progress)).fetchone()
            self._state = None if found is None else dict(found[0])

    def _named(self, ending: str) -> sql.Identifier:
        return sql.Identifier(*self._parts[:-1], self._parts[-1] + ending)

    def _exists(self, name: sql.Identifier) -> bool:
        row = self._conn.execute(
            "SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (name.as_string(self._conn),)
        ).fetchone()
        return row is not None and bool(row[0])

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The job of the run that was cut, None: there was none."""
        return None if self._state is None else self._state["job"]

    def resume(self, job: Mapping[str, Any], registry: str, any_registry: bool) -> Place | None:
        """Take up a cut run, or begin one.

        Raises:
            JobChangedError: if the cut run was another one.
        """
        if self._state is None:
            self._begin = {"job": dict(job), "rows": 0, "last_key": None, "registry": registry}
            return None
        same = self._state["registry"] == registry
        check_job(self.name, self._state["job"], json.loads(json.dumps(job)), same, any_registry)
        self._state["registry"] = registry
        return self._state["rows"], self._state["last_key"]

    def _create(self, schema: pa.Schema) -> None:
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_TYPES[field.type]))
            for field in schema
        ]
        # Several matches of one request have its key in common.
        key = sql.Identifier(schema.names[0])
        if "rank" not in schema.names:
            columns.append(
                sql.SQL("CONSTRAINT {} PRIMARY KEY ({})").format(
                    sql.Identifier(self._parts[-1] + "_pkey"), key
                )
            )
        self._conn.execute(
            sql.SQL("CREATE TABLE {} ({})").format(self._partial, sql.SQL(", ").join(columns))
        )
        self._conn.execute(sql.SQL("CREATE TABLE {} (state jsonb NOT NULL)").format(self._progress))
        self._conn.execute(
            sql.SQL("INSERT INTO {} VALUES (%s)").format(self._progress),
            (json.dumps(self._begin),),
        )
        self._state = self._begin

    def write(self, rows: pa.Table, place: Place) -> None:
        """Keep rows, in one transaction with how far the run has come.

        Raises:
            psycopg.Error: if the server refuses or the connection is cut; what was committed stays.
        """
        if rows.schema.field(0).type not in _TYPES:
            raise InvalidInputError(
                f'key "{rows.schema.names[0]}" is of a type that no table has',
                f"It has {rows.schema.field(0).type}.",
                "Take a signed integer or a text as key.",
            )
        content = io.BytesIO()
        pyarrow.csv.write_csv(rows, content, pyarrow.csv.WriteOptions(include_header=False))
        with self._conn.transaction():
            if self._state is None:
                self._create(rows.schema)
            assert self._state is not None
            after = {**self._state, "rows": place[0], "last_key": place[1]}
            copy = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(self._partial)
            with self._conn.cursor().copy(copy) as writer:
                writer.write(content.getbuffer())
            self._conn.execute(
                sql.SQL("UPDATE {} SET state = %s").format(self._progress), (json.dumps(after),)
            )
        self._state = after

    def finish(self, schema: pa.Schema) -> None:
        """Give the table its name.

        Raises:
            psycopg.Error: if the server refuses; the run can be continued.
        """
        with self._conn.transaction():
            if self._state is None:
                self._create(schema)
            self._conn.execute(
                sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                    self._partial, sql.Identifier(self._parts[-1])
                )
            )
            self._conn.execute(sql.SQL("DROP TABLE {}").format(self._progress))
        self._state = None

    def close(self) -> None:
        """Close the connection; its lock goes with it."""
        self._conn.close()
