"""What the foreign tables of the Multicorn door have in common: planning, scans, definitions.

In: what Multicorn2 passes to a wrapper's methods.  Out: rows, estimates and lines of plans.
tables.py says what each table answers; called by Multicorn2, and by tests that speak its protocol.

Multicorn checks every clause again on the rows that it gets, so an input column echoes the value
that was used, as it came.  It gives the clauses "= NULL" and "IS NULL" the same form: both are
answered as "no limit", and its check then drops the rows of the first.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinydancer.errors import ForeignTableError
from tinydancer.multicorn.clauses import (
    WHAT_IS_ASKED,
    check_limits,
    distinct,
    listed,
    supplied,
)
from tinydancer.multicorn.columns import Definition, TableKind, check_options
from tinydancer.multicorn.protocol import (
    ColumnDefinition,
    ForeignDataWrapper,
    TableDefinition,
    reported,
    reported_rows,
)
from tinydancer.multicorn.source import Source, conninfo_of, source
from tinydancer.multicorn.values import echo

__all__ = ["ForeignTable", "Inputs"]

_NO_REQUEST = "HV00L"
_SCHEMA_NOT_FOUND = "HV00Q"
_TABLE_NOT_FOUND = "HV00R"

_SCHEMA = "tinydancer"
# A scan without a request fails when it is run.  The planner must prefer any other, and Multicorn
# has no other way to say so than rows.
_ROWS_OF_FAILURE = 10**15

# A join that gives an input must not be left to compare it with the echo of another value, so the
# scan that takes more inputs is made the cheaper one: by so many rows for each.
_ROWS_FOR_LEAVING_OUT = 1000

# Multicorn plans each set of columns that a join may give, so there may not be too many of them.
_MAX_JOINED_LIMITS = 2
_FEW_LIMITS = 4


@dataclass(frozen=True)
class Inputs:
    """What a scan is asked.

    Attributes:
        requests: the different texts; None: the embedding alone says.
        values: the other inputs, read.
        given: inputs as they came, for the echo.
    """

    requests: Sequence[str] | None
    values: Mapping[str, Any]
    given: Mapping[str, Any]


class ForeignTable(ForeignDataWrapper):
    """What the foreign tables have in common."""

    kind: TableKind
    # Outputs by which the rows of one request are ordered: whether from great to small.
    order: Mapping[str, bool] = {}

    @reported
    def __init__(self, fdw_options: Mapping[str, str], fdw_columns: Mapping[str, Any]) -> None:
        super().__init__(fdw_options, fdw_columns)
        self._definition = Definition.of(self.kind, fdw_options, fdw_columns)
        self._source: Source = source(conninfo_of(fdw_options))
        self._pinned: Any = None
        self._rows: weakref.ref[Iterator[Any]] | None = None

    # -- what a kind of table fills in

    def _snapshot(self) -> Any:
        """What answers, as new as the last commit."""
        raise NotImplementedError

    def _answer(self, snapshot: Any, request: str | None, inputs: Inputs) -> Iterable[Any]:
        """The answers to one request: objects with the outputs as attributes."""
        raise NotImplementedError

    def _rows_of_request(self) -> int:
        """How many rows a request has, for the planner."""
        raise NotImplementedError

    # -- planning

    @reported
    def get_rel_size(self, quals: Sequence[Any], columns: Iterable[str]) -> tuple[int, int]:
        """Estimate rows and bytes of a row; only clauses with constants are known by then."""
        # A new statement is planned.
        self._pinned = None
        width = self._definition.width(columns)
        found = supplied(self.kind, quals)
        if not any(name in found for name in WHAT_IS_ASKED):
            return _ROWS_OF_FAILURE, width
        n = len(distinct(found["request"])) if "request" in found else 1
        return max(n, 1) * self._rows_of_request(), width

    def get_path_keys(self) -> list[tuple[tuple[str, ...], int]]:
        """Say which columns a join may give, and how many rows that makes."""
        columns = self._definition.columns
        limits = [one for one in columns if one in self.kind.inputs and one not in WHAT_IS_ASKED]
        most = len(limits) if len(limits) <= _FEW_LIMITS else _MAX_JOINED_LIMITS
        asked = [one for one in WHAT_IS_ASKED if one in columns]
        return [
            ((name, *chosen), self._rows_of_request() + _ROWS_FOR_LEAVING_OUT * left_out)
            for left_out in range(len(limits) - most, len(limits) + 1)
            for chosen in itertools.combinations(limits, len(limits) - left_out)
            for name in asked
        ]

    def can_sort(self, sortkeys: Sequence[Any]) -> list[Any]:
        """Say which keys, from the first on, rows can come ordered by."""

        def can(key: Any) -> bool:
            reverse = self.order.get(key.attname)
            # Only a rank may be NULL, and those come last.
            return reverse == key.is_reversed and (reverse or not key.nulls_first)

        return list(itertools.takewhile(can, sortkeys))

    def can_limit(self, limit: int | None, offset: int | None) -> bool:
        """Say whether LIMIT may be left to us; Multicorn asks only where there is no WHERE."""
        return limit is not None

    @reported
    def explain(
        self,
        quals: Sequence[Any],
        columns: Iterable[str],
        sortkeys: Sequence[Any] | None = None,
        verbose: bool = False,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[str]:
        """Lines for EXPLAIN; the values of parameters are not known and nothing is decided."""
        found = supplied(self.kind, quals)
        if not any(name in found for name in WHAT_IS_ASKED):
            return ["Request: none: fails when it is run"]
        return [f"Inputs: {', '.join(found)}"] if verbose else []

    # -- running

    @reported
    def execute(
        self,
        quals: Sequence[Any],
        columns: Iterable[str],
        sortkeys: Sequence[Any] | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Answer the requests that the clauses name.

        Args:
            quals: clauses of the query on this table, constants and parameters evaluated.
            columns: which the query reads.
            sortkeys: those of ``can_sort`` that the plan relies on.
            limit: rows at most, None: all.
            offset: rows to leave out.

        Returns:
            Rows by column name.

        Raises:
            TinyDancerError: as the Postgres module does; inside of a server Multicorn's own, with
                the same sentences.
        """
        rows: Iterator[dict[str, Any]] = iter(())
        if limit != 0:
            inputs = self._inputs(quals)
            wanted = {*columns, *(qual.field_name for qual in quals)}
            rows = self._answers(self._current(), inputs, wanted, sortkeys or ())
            if limit is not None or offset:
                end = None if limit is None else limit + (offset or 0)
                rows = itertools.islice(rows, offset or 0, end)
        running = reported_rows(rows)
        self._rows = weakref.ref(running)
        return running

    def _current(self) -> Any:
        """The snapshot of this scan.

        A rescan, whose rows before are gone, sees what the scan saw; another scan, of a second
        statement while a cursor is open, sees what is committed by now.
        """
        if self._pinned is None or (self._rows is not None and self._rows() is not None):
            self._pinned = self._snapshot()
        return self._pinned

    def end_scan(self) -> None:
        """Forget the snapshot: the next scan is of another statement."""
        self._pinned = None

    def begin(self, serializable: int) -> None:
        """Forget the snapshot: another transaction begins."""
        self._pinned = None

    # After an error no scan ends.
    def rollback(self) -> None:
        """Forget the snapshot."""
        self._pinned = None

    def sub_rollback(self, level: int) -> None:
        """Forget the snapshot."""
        self._pinned = None

    def _inputs(self, quals: Sequence[Any]) -> Inputs:
        found = supplied(self.kind, quals)
        check_limits(self.kind, quals, found)
        if not any(name in found for name in WHAT_IS_ASKED):
            raise ForeignTableError(
                _NO_REQUEST,
                f'"{self.kind.name}" needs a request to route',
                "The foreign table makes a decision for each request that the query names; it "
                "stores none.",
                "Add WHERE request = '...' or join on it. A FULL or RIGHT JOIN cannot pass "
                "requests to it: use an inner or LEFT JOIN from the table of requests.",
            )
        given = {**self._definition.given, **found}
        values = dict(self._definition.values)
        for name, value in found.items():
            if name != "request":
                values[name] = None if value is None else self.kind.inputs[name].read(name, value)
        values.pop("request", None)
        requests: Sequence[str] | None = None
        if given["request"] is not None:
            read = self.kind.inputs["request"].read
            requests = [read("request", text) for text in distinct(given["request"])]
        elif values["embedding"] is None or "request" in listed(quals):
            # "= NULL" is true of no row.
            requests = []
        return Inputs(requests, values, given)

    def _answers(
        self, snapshot: Any, inputs: Inputs, wanted: set[str], sortkeys: Sequence[Any]
    ) -> Iterator[dict[str, Any]]:
        rows = (
            (answer, self._row(answer, request, inputs, wanted))
            for request in ((None,) if inputs.requests is None else inputs.requests)
            for answer in self._answer(snapshot, request, inputs)
        )
        if not sortkeys:
            return (row for _, row in rows)
        ordered = list(rows)
        for key in reversed(sortkeys):
            ordered.sort(key=lambda one: _nulls_last(one[0], key.attname), reverse=key.is_reversed)
        return (row for _, row in ordered)

    def _row(
        self, answer: Any, request: str | None, inputs: Inputs, wanted: set[str]
    ) -> dict[str, Any]:
        row = {}
        for name in wanted:
            if name == "request":
                row[name] = request
            elif name in self.kind.inputs:
                row[name] = echo(inputs.given[name])
            else:
                row[name] = getattr(answer, name)
        return row

    # -- IMPORT FOREIGN SCHEMA

    @classmethod
    @reported
    def import_schema(
        cls,
        schema: str,
        srv_options: Mapping[str, str],
        options: Mapping[str, str],
        restriction_type: str | None,
        restricts: Sequence[str] | None,
    ) -> list[Any]:
        """Make the definition of the table; a server of Multicorn has one.

        Raises:
            ForeignTableError: for another schema or table, or an unknown option.
        """
        kind = cls.kind
        if schema != _SCHEMA:
            raise ForeignTableError(
                _SCHEMA_NOT_FOUND,
                f'remote schema "{schema}" does not exist',
                f'There is one schema, "{_SCHEMA}".',
                f"Write IMPORT FOREIGN SCHEMA {_SCHEMA} FROM SERVER ... INTO ...",
            )
        for name in restricts or ():
            if name == kind.name:
                continue
            other = next(
                (one.kind for one in ForeignTable.__subclasses__() if one.kind.name == name), None
            )
            raise ForeignTableError(
                _TABLE_NOT_FOUND,
                f'remote table "{name}" does not exist',
                f'A server with wrapper {kind.wrapper} has one table, "{kind.name}".',
                f"A server with wrapper {other.wrapper} has it."
                if other
                else "Leave LIMIT TO and EXCEPT out.",
            )
        check_options(kind, options)
        if restriction_type == "except" and kind.name in (restricts or ()):
            return []
        columns = [
            ColumnDefinition(name, type_name=type, base_type_name=type)
            for name, type in kind.types.items()
        ]
        return [TableDefinition(kind.name, columns=columns, options=dict(options))]


def _nulls_last(answer: Any, name: str) -> tuple[bool, Any]:
    value = getattr(answer, name)
    return value is None, 0 if value is None else value
