"""Columns and options of the foreign tables, the same as those of the Postgres module.

In: the definition of a foreign table as Multicorn hands it over.  Out: a checked Definition, or the
error that the module raises.  Called by tables.py.  See ``fdw/td_fdw_options.c``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinydancer.errors import ForeignTableError
from tinydancer.multicorn.values import PARSERS, WIDTHS

__all__ = [
    "CONNECTION_OPTIONS",
    "ROUTE_INPUTS",
    "Definition",
    "Input",
    "TableKind",
    "closest",
]

_INVALID_OPTION = "HV00D"
_INVALID_COLUMN = "HV007"
_INVALID_TYPE = "HV004"

# Of the server or the user mapping; the others are of the table.
CONNECTION_OPTIONS = ("dsn", "user", "password")


@dataclass(frozen=True)
class Input:
    """A column that says what to decide, or how.

    Attributes:
        type: as format_type() writes it.
        preset: the value where none is given, as an option has it; None: none.
        is_option: whether OPTIONS may give a default.
        parse: which of ``PARSERS`` reads it; None: that of the type.
    """

    type: str
    preset: str | None = None
    is_option: bool = False
    parse: str | None = None

    def read(self, name: str, value: Any) -> Any:
        """A value as Router and RouteMatcher take it."""
        return PARSERS[self.parse or self.type](name, value)


@dataclass(frozen=True)
class TableKind:
    """What a kind of table takes and answers.

    Attributes:
        name: of the table of the Postgres module that it is.
        wrapper: the class, as a server's option names it.
        inputs: by name; the first is the request.
        outputs: types by name.
    """

    name: str
    wrapper: str
    inputs: Mapping[str, Input]
    outputs: Mapping[str, str]

    @property
    def types(self) -> dict[str, str]:
        """Every column and its type: the request, what is answered, and the other inputs."""
        inputs = {name: one.type for name, one in self.inputs.items()}
        return {"request": inputs.pop("request"), **self.outputs, **inputs}

    @property
    def options(self) -> list[str]:
        """The inputs that OPTIONS may give a default."""
        return [name for name, one in self.inputs.items() if one.is_option]


# What ruvector_route() and ruvector_explain_route() take.
ROUTE_INPUTS: Mapping[str, Input] = {
    "request": Input("text"),
    # Named, since an input column echoes what was used.
    "optimize_for": Input("text", "balanced", is_option=True),
    "required_capabilities": Input("text[]", is_option=True, parse="text[] without NULL"),
    "max_cost": Input("double precision", is_option=True),
    "max_latency_ms": Input("double precision", is_option=True),
    "min_quality": Input("double precision", is_option=True),
    "excluded_agents": Input("text[]", is_option=True),
    "budget_remaining": Input("double precision", is_option=True),
    "embedding": Input("real[]"),
    "pool": Input("text", is_option=True),
    "min_expected_quality": Input("double precision", is_option=True),
}


def closest(name: str, known: Iterable[str]) -> str | None:
    """The name that was perhaps meant."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None


def check_options(kind: TableKind, options: Iterable[str]) -> None:
    """Refuse an option that nobody knows."""
    known = [*CONNECTION_OPTIONS, *kind.options]
    for name in options:
        # Multicorn's own.
        if name in known or name == "wrapper":
            continue
        meant = closest(name, known)
        raise ForeignTableError(
            _INVALID_OPTION,
            f'invalid option "{name}"',
            f"Options of a table {kind.name} are {', '.join(known)}.",
            f'Perhaps you meant the option "{meant}".'
            if meant
            else "Limits of one query are set by equality: WHERE max_cost = 0.01.",
        )


def _check_columns(kind: TableKind, columns: Mapping[str, Any]) -> None:
    known = kind.types
    for name, column in columns.items():
        if name not in known:
            meant = closest(name, known)
            raise ForeignTableError(
                _INVALID_COLUMN,
                f'foreign table "{kind.name}" has an unknown column "{name}"',
                f"Its columns have the names that those of {kind.name} have.",
                f'Perhaps you meant "{meant}".'
                if meant
                else f"Use IMPORT FOREIGN SCHEMA tinydancer LIMIT TO ({kind.name}) "
                "FROM SERVER ... INTO ...",
            )
        found = getattr(column, "base_type_name", "")
        if found and found != known[name]:
            raise ForeignTableError(
                _INVALID_TYPE,
                f'column "{name}" of foreign table "{kind.name}" has the wrong type',
                f"It is {found} and must be {known[name]}.",
                "Cast in the query or in a view over the foreign table.",
            )


@dataclass(frozen=True)
class Definition:
    """A foreign table as it was made.

    Attributes:
        kind: of which kind it is.
        columns: the names of its columns.
        given: inputs as they are where no clause says, as Multicorn wrote them.
        values: the same, read.
    """

    kind: TableKind
    columns: tuple[str, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, kind: TableKind, options: Mapping[str, str], columns: Mapping[str, Any]
    ) -> Definition:
        """Check options and columns.

        Raises:
            ForeignTableError: as the Postgres module does.
        """
        check_options(kind, options)
        _check_columns(kind, columns)
        given = {
            name: options.get(name, one.preset) if one.is_option else one.preset
            for name, one in kind.inputs.items()
        }
        values = {
            name: None if value is None else kind.inputs[name].read(name, value)
            for name, value in given.items()
        }
        return cls(kind, tuple(columns), given, values)

    def width(self, columns: Iterable[str]) -> int:
        """Bytes of a row with these columns, for the planner."""
        types = self.kind.types
        return sum(WIDTHS[types[name]] for name in columns if name in types) or 1
