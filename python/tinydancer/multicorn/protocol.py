"""What Multicorn2 defines: its own classes inside of a server that has it, else the same in small.

In: nothing.  Out: the base class of wrappers, what they are given and give back, and how errors
reach the client.  Used by the other files of this package and by the tests.

The package named ``multicorn`` in the package registries is another project, so what is imported is
looked at before it is used.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import psycopg

from tinydancer.errors import ForeignTableError, NonFiniteError, TinyDancerError

__all__ = [
    "ColumnDefinition",
    "ForeignDataWrapper",
    "Qual",
    "SortKey",
    "TableDefinition",
    "in_server",
    "reported",
    "reported_rows",
]

Method = TypeVar("Method", bound=Callable[..., Any])


def _multicorn() -> ModuleType | None:
    """The module of Multicorn, None where there is none or another of that name."""
    try:
        found = importlib.import_module("multicorn")
    except ImportError:
        return None
    parts = ("ForeignDataWrapper", "ColumnDefinition", "TableDefinition", "Qual", "SortKey")
    return found if all(hasattr(found, part) for part in parts) else None


class _ForeignDataWrapper:
    """The base class, as far as wrappers that only read need it."""

    _startup_cost = 20

    def __init__(self, fdw_options: dict[str, str], fdw_columns: dict[str, Any]) -> None:
        pass

    def begin(self, serializable: int) -> None:
        """Do something when a transaction begins."""

    def commit(self) -> None:
        """Do something when it commits."""

    def rollback(self) -> None:
        """Do something when it rolls back."""

    def end_scan(self) -> None:
        """Do something after a scan."""


class _ColumnDefinition:
    """A column of a foreign table."""

    def __init__(
        self,
        column_name: str,
        type_oid: int = 0,
        typmod: int = 0,
        type_name: str = "",
        base_type_name: str = "",
        options: dict[str, str] | None = None,
    ) -> None:
        self.column_name = column_name
        self.type_oid = type_oid
        self.typmod = typmod
        self.type_name = type_name
        self.base_type_name = base_type_name
        self.options = options or {}


class _TableDefinition:
    """A foreign table that IMPORT FOREIGN SCHEMA makes."""

    def __init__(
        self,
        table_name: str,
        schema: str | None = None,
        columns: list[Any] | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.table_name = table_name
        self.columns = columns or []
        self.options = options or {}


class _Qual:
    """A clause: field, operator, value; of a list, operator is a pair with True for ANY."""

    def __init__(self, field_name: str, operator: str | tuple[str, bool], value: Any) -> None:
        self.field_name = field_name
        self.operator = operator
        self.value = value

    @property
    def is_list_operator(self) -> bool:
        """Whether the value is a list."""
        return isinstance(self.operator, tuple)


_SortKey = namedtuple("_SortKey", ["attname", "attnum", "is_reversed", "nulls_first", "collate"])

_found = _multicorn()
ForeignDataWrapper: Any = getattr(_found, "ForeignDataWrapper", _ForeignDataWrapper)
ColumnDefinition: Any = getattr(_found, "ColumnDefinition", _ColumnDefinition)
TableDefinition: Any = getattr(_found, "TableDefinition", _TableDefinition)
Qual: Any = getattr(_found, "Qual", _Qual)
SortKey: Any = getattr(_found, "SortKey", _SortKey)


def _reporter() -> Callable[..., None] | None:
    """Multicorn's way to raise an error with DETAIL and HINT; only a server's process has it."""
    if _found is None:
        return None
    try:
        importlib.import_module("multicorn._utils")
        report: Callable[..., None] = importlib.import_module("multicorn.utils").log_to_postgres
    except (ImportError, AttributeError):
        return None
    return report


_report = _reporter()


def in_server() -> bool:
    """Whether this process is a backend that runs Multicorn."""
    return _report is not None


# Where the same error advises something else in SQL than in Python.
_WORDS = {
    "None or infinity": "NULL or 'Infinity'",
    "None or minus infinity": "NULL or '-Infinity'",
    "None": "NULL",
    "Policies passed to Router make targets": "A row in tinydancer.policy makes a target",
    "Encoder.embed()": "ruvector_embed()",
}
# Python names the element, which the server does not.
_NOT_FINITE = (
    "Every element must be a finite number whose square can be summed.",
    "Check where the vector comes from, or pass a text and let the server embed it.",
)
_PYTHON = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, _WORDS)) + r")(?!\w)")


def _in_sql(hint: str | None) -> str | None:
    """A hint as the Postgres module gives it."""
    return None if hint is None else _PYTHON.sub(lambda found: _WORDS[found[0]], hint)


def _raise(error: Exception) -> NoReturn:
    """Raise what the client is to read, worded as the Postgres module words it."""
    if isinstance(error, psycopg.Error):
        # What psql would have said; never the connection string.
        diag = error.diag
        error = ForeignTableError(
            error.sqlstate or "HV000",
            diag.message_primary or "could not read the registry",
            diag.message_detail or (None if diag.message_primary else str(error).strip()),
            diag.message_hint,
        )
    assert isinstance(error, TinyDancerError)
    error.hint = _in_sql(error.hint)
    if isinstance(error, NonFiniteError):
        error.detail, error.hint = _NOT_FINITE
    if _report is not None:
        # Multicorn gives every error the SQLSTATE XX000.
        _report(error.message, logging.ERROR, hint=error.hint, detail=error.detail)
    raise error from None


def reported(method: Method) -> Method:
    """Decorate a method that Multicorn calls: its errors reach the client whole."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except (TinyDancerError, psycopg.Error) as error:
            _raise(error)

    return call  # type: ignore[return-value]


def reported_rows(rows: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows; errors on the way reach the client whole."""
    try:
        yield from rows
    except (TinyDancerError, psycopg.Error) as error:
        _raise(error)
