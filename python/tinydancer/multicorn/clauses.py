"""Clauses on a foreign table: which inputs they say.

In: Multicorn's quals.  Out: inputs by name, or the error that the Postgres module raises.  Called
by foreign_table.py.

A clause that is not here, such as an OR, Multicorn does not show to a wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinydancer.errors import ForeignTableError
from tinydancer.multicorn.columns import TableKind

__all__ = ["WHAT_IS_ASKED", "check_limits", "distinct", "listed", "supplied"]

WHAT_IS_ASKED = ("request", "embedding")

_FEATURE_NOT_SUPPORTED = "0A000"


def _is_any(qual: Any) -> bool:
    """Whether a clause says "= ANY (list)", as IN does."""
    return bool(qual.is_list_operator and qual.operator[0] == "=" and qual.operator[1])


def supplied(kind: TableKind, quals: Sequence[Any]) -> dict[str, Any]:
    """The inputs that clauses say, as they came; the first clause on a column counts."""
    found: dict[str, Any] = {}
    for qual in quals:
        name = qual.field_name
        if name not in kind.inputs or name in found:
            continue
        if qual.operator == "=" or (name == "request" and _is_any(qual)):
            found[name] = qual.value
    return found


def listed(quals: Sequence[Any]) -> set[str]:
    """The columns that are compared with a list."""
    return {qual.field_name for qual in quals if _is_any(qual)}


def check_limits(kind: TableKind, quals: Sequence[Any], found: Mapping[str, Any]) -> None:
    """Refuse a limit that is compared by anything but equality: it would compare the echo."""
    for qual in quals:
        name = qual.field_name
        if name not in kind.inputs or name in found or name in WHAT_IS_ASKED:
            continue
        raise ForeignTableError(
            _FEATURE_NOT_SUPPORTED,
            f'input column "{name}" can only be set by equality',
            "The column says what a decision is made with; it holds no values to search.",
            f"Write {name} = value, or {name} IS NULL to give none.",
        )


def distinct(request: Any) -> list[str]:
    """The different texts, in their order, NULLs left out."""
    if not isinstance(request, (list, tuple)):
        return [] if request is None else [request]
    return list(dict.fromkeys(text for text in request if text is not None))
