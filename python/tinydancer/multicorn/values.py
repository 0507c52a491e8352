"""Values between Multicorn and Python: what a type of Postgres looks like on either side.

In: what Multicorn hands over.  Out: what Router and RouteMatcher take, and what Multicorn turns
back into a row.  Called by columns.py and foreign_table.py.

Multicorn gives text and integer their Python types, arrays as flat lists, and everything else,
double precision too, as the text that psql would print.  Options are always text.  On the way back
it prints a value and reads the print, so an array goes back as its literal: as a list it would lose
NULLs, and in a table made with LIKE it would not be read at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format

from tinydancer.errors import ForeignTableError

__all__ = ["PARSERS", "WIDTHS", "echo"]

_INVALID_TEXT = "22P02"
_OUT_OF_RANGE = "22003"
_NULL_ELEMENT = "22004"

# Python also takes digits with underscores and other scripts' digits.
_NUMBER = re.compile(
    r"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf(inity)?|nan)\s*",
    re.ASCII | re.IGNORECASE,
)
_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)


def _invalid(kind: str, value: Any) -> ForeignTableError:
    return ForeignTableError(_INVALID_TEXT, f'invalid input syntax for type {kind}: "{value}"')


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _invalid("text", value)
    return value


def _float(name: str, value: Any) -> float:
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        raise _invalid("double precision", value)
    result = float(value)
    if math.isinf(result) and "inf" not in value.lower():
        raise ForeignTableError(
            _OUT_OF_RANGE, f'"{value}" is out of range for type double precision'
        )
    return result


def _integer(name: str, value: Any) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value) is not None:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _invalid("integer", value)
    if not -(2**31) <= value < 2**31:
        raise ForeignTableError(_OUT_OF_RANGE, f'value "{value}" is out of range for type integer')
    return value


def _list(name: str, value: Any) -> list[Any]:
    """A list, or the literal of one as options have it."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str):
        raise _invalid("text[]", value)
    try:
        loader = Transformer().get_loader(psycopg.adapters.types["text"].array_oid, Format.TEXT)
        found = loader.load(value.strip().encode())
    except psycopg.DataError:
        raise ForeignTableError(_INVALID_TEXT, f'malformed array literal: "{value}"') from None
    assert isinstance(found, list)
    return found


def _texts(name: str, value: Any) -> list[str | None]:
    found = _list(name, value)
    for element in found:
        if element is not None and not isinstance(element, str):
            raise _invalid("text", element)
    return found


def _all_texts(name: str, value: Any) -> list[str | None]:
    """Texts of which none may be NULL."""
    found = _texts(name, value)
    for number, element in enumerate(found, start=1):
        if element is None:
            raise ForeignTableError(
                _NULL_ELEMENT,
                f"{name} must not contain NULL",
                f"Element {number} is NULL.",
                "Use array_remove(..., NULL).",
            )
    return found


def _names(name: str, value: Any) -> list[str]:
    """Names of which NULL is none."""
    return [element for element in _texts(name, value) if element is not None]


def _vector(name: str, value: Any) -> list[float]:
    found = _list(name, value)
    if any(element is None for element in found):
        raise ForeignTableError(
            _NULL_ELEMENT,
            "vector must not contain NULL",
            "Every element must be a finite number.",
            "Check where the vector comes from, or pass a text and let the server embed it.",
        )
    return [_float(name, element) for element in found]


# By the type of a column, as format_type() writes it: how a value is read ...
PARSERS: Mapping[str, Callable[[str, Any], Any]] = {
    "text": _text,
    "double precision": _float,
    "integer": _integer,
    # What a text means as a time depends on the server, which is asked.
    "timestamp with time zone": _text,
    "text[]": _names,
    "text[] without NULL": _all_texts,
    "real[]": _vector,
}

# ... and its bytes in a row, for the planner.
WIDTHS: Mapping[str, int] = {
    "text": 32,
    "double precision": 8,
    "integer": 4,
    "boolean": 1,
    "timestamp with time zone": 8,
    "text[]": 64,
    "real[]": 512,
}


def echo(value: Any) -> Any:
    """What an input column shows for the value that was used, as Multicorn can take it."""
    if not isinstance(value, (list, tuple)):
        return value
    # Elements that came as numbers are printed as they came, so that the clause finds them equal.
    texts = [None if element is None else str(element) for element in value]
    literal = Transformer().get_dumper(texts, PyFormat.TEXT).dump(texts)
    assert literal is not None
    return bytes(literal).decode()
