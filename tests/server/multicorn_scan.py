"""The part that Multicorn2 plays, for tests: it makes wrappers, passes clauses, checks rows again.

In: a wrapper class, options, clauses.  Out: rows as a query would return them.  Read by the tests
of the Multicorn door.  What is passed has the form that Multicorn2's C code gives it: double
precision as psql prints it, arrays as flat lists, NULL and IS NULL alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinydancer.errors import TinyDancerError
from tinydancer.multicorn.protocol import ColumnDefinition, Qual

TYPES = {
    "double precision": "float8",
    "timestamp with time zone": "timestamptz",
    "integer": "int4",
}


@dataclass(frozen=True)
class Clause:
    """One clause on an input column.

    Attributes:
        column: its name.
        value: the SQL literal it is compared with, None for NULL.
        form: "=" with a constant, "$" with a parameter, "any" or "is null".
    """

    column: str
    value: Any
    form: str = "="


def table(wrapper: Any, dsn: str, columns: Iterable[str] = (), **options: str) -> Any:
    """A wrapper as Multicorn makes it for a foreign table with some columns, or all."""
    types = wrapper.kind.types
    definitions = {
        name: ColumnDefinition(name, type_name=types[name], base_type_name=types[name])
        for name in (columns or types)
    }
    return wrapper({"dsn": dsn, **options}, definitions)


def printed(value: Any) -> Any:
    """A value as Multicorn hands it over, made of one as psycopg does."""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        words = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
        return words.get(str(value), str(value))
    if isinstance(value, list):
        return [printed(element) for element in value]
    return value


def quals(clauses: Iterable[Clause]) -> list[Any]:
    """The clauses as Multicorn passes them; a constant "= NULL" is never run."""
    found = []
    for clause in clauses:
        operator = ("=", True) if clause.form == "any" else "="
        value = None if clause.form == "is null" else printed(clause.value)
        found.append(Qual(clause.column, operator, value))
    return found


def where(clauses: Sequence[Clause], types: Mapping[str, str]) -> tuple[str, list[Any]]:
    """The clauses as SQL, and its parameters."""
    parts = []
    parameters: list[Any] = []
    for clause in clauses:
        kind = TYPES.get(types[clause.column], types[clause.column])
        if clause.form == "is null":
            parts.append(f"{clause.column} IS NULL")
            continue
        parameters.append(clause.value)
        if clause.form == "any":
            parts.append(f"{clause.column} = ANY (%s::{kind}[])")
        else:
            parts.append(f"{clause.column} = %s::{kind}")
    return " AND ".join(parts), parameters


def read_back(conn: Any, row: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """A row as Postgres reads it: each value is printed and read by its type."""
    names = [name for name in row if row[name] is not None]
    if not names:
        return dict(row)
    casts = ", ".join(f"%s::text::{TYPES.get(types[name], types[name])}" for name in names)
    found = conn.execute(f"SELECT {casts}", [str(row[name]) for name in names]).fetchone()
    return {**row, **dict(zip(names, found, strict=True))}


def rows(conn: Any, foreign: Any, clauses: Sequence[Clause], columns: Iterable[str]) -> list[Any]:
    """What a query with these clauses returns: the wrapper's rows for which they are true."""
    columns = list(columns)
    types = foreign.kind.types
    found = []
    foreign.begin(0)
    try:
        for made in foreign.execute(quals(clauses), set(columns)):
            row = read_back(conn, made, types)
            if all(_is_true(conn, clause, row, types) for clause in clauses):
                found.append(tuple(row[name] for name in columns))
    except TinyDancerError:
        foreign.rollback()
        raise
    foreign.end_scan()
    foreign.commit()
    return found


def _is_true(conn: Any, clause: Clause, row: Mapping[str, Any], types: Mapping[str, str]) -> bool:
    value = row[clause.column]
    if clause.form == "is null":
        return value is None
    if clause.value is None or value is None:
        return False
    if clause.form == "any":
        return value in clause.value
    kind = TYPES.get(types[clause.column], types[clause.column])
    (equal,) = conn.execute(f"SELECT %s::{kind} = %s::{kind}", (value, clause.value)).fetchone()
    return bool(equal)
