"""Which column of a table is what: key, request, embedding, limits.

A schema comes in as names, the roles of its columns come out.  Used for queries, files and tables
of Python alike, so that a column means the same wherever it comes from.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinydancer.errors import InvalidInputError

__all__ = ["INPUTS", "MATCH_INPUTS", "Roles", "resolve", "wrong_type"]

# Inputs that a column may give for each request, and the kind of their values; names are those of
# route_results.
INPUTS: Mapping[str, str] = {
    "embedding": "vector",
    "optimize_for": "text",
    "required_capabilities": "texts",
    "max_cost": "number",
    "max_latency_ms": "number",
    "min_quality": "number",
    "excluded_agents": "texts",
    "budget_remaining": "number",
    "pool": "text",
    "min_expected_quality": "number",
}
# And those of semantic routes.
MATCH_INPUTS: Mapping[str, str] = {"embedding": "vector"}

_KINDS = {
    "text": "a text",
    "texts": "a list of texts",
    "number": "a number",
    "vector": "a list of floats",
    "key": "an integer, a text or a uuid",
}

DEFAULT_REQUEST = "request"


@dataclass(frozen=True)
class Roles:
    """What the columns of a source are.

    Attributes:
        key: names a row in source and output; None: a table of Python without one.
        request: the text; None: only ``embedding`` counts.
        inputs: the others that count, by their names in ``INPUTS``.
    """

    key: str | None
    request: str | None
    inputs: Sequence[str]

    @property
    def columns(self) -> list[str]:
        """All columns that count, the key first."""
        named = [name for name in (self.key, self.request) if name is not None]
        return [*named, *self.inputs]


def wrong_type(name: str, given: str, kind: str) -> InvalidInputError:
    """The error for a column whose values are of another kind than its role wants."""
    casts = {
        "text": f"{name}::text",
        "texts": f"{name}::text[]",
        "number": f"{name}::float8",
        "vector": f"{name}::real[]",
        "key": f"{name}::text",
    }
    return InvalidInputError(
        f'column "{name}" has the wrong type',
        f"It has {given}; it should be {_KINDS[kind]}.",
        f"In a query, cast it: {casts[kind]}.",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _must_exist(name: str, names: Sequence[str], option: str) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1)
    raise InvalidInputError(
        f'column "{name}" does not exist',
        f"The columns are {_listed(names)}.",
        f'Perhaps you meant "{close[0]}".' if close else f"Name the right one with {option}.",
    )


def _check_spelling(name: str, inputs: Mapping[str, str]) -> None:
    """A limit that is misspelt would silently be none."""
    close = difflib.get_close_matches(name, list(inputs), n=1, cutoff=0.85)
    if close and name not in inputs:
        raise InvalidInputError(
            f'column "{name}" is not an input',
            f"Inputs are {', '.join(inputs)}.",
            f'Perhaps you meant "{close[0]}".',
        )


def resolve(
    names: Sequence[str],
    *,
    key: str | None = None,
    request: str | None = None,
    inputs: Mapping[str, str] = INPUTS,
    needs_key: bool = True,
    is_query: bool = False,
) -> Roles:
    """Say what each column is.

    The key is the first column that is nothing else.  The request is the column "request"; in a
    query, whose columns are all meant, else the one that is left.

    Args:
        names: of the columns.
        key: the key, if it is said.
        request: the column of texts, if it is said.
        inputs: inputs there are, ``INPUTS`` or ``MATCH_INPUTS``.
        needs_key: whether there must be one.
        is_query: whether columns that are nothing are a mistake.

    Raises:
        InvalidInputError: for a column that is not there, misspelt, or left over.
    """
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(
                f'column "{name}" is there twice',
                f"The columns are {_listed(names)}.",
                "Give every column a name of its own.",
            )
    for said, option in ((key, "--key"), (request, "--request")):
        if said is not None:
            _must_exist(said, names, option)
    used = [name for name in inputs if name in names and name not in (key, request)]
    if request is None and DEFAULT_REQUEST in names and key != DEFAULT_REQUEST:
        request = DEFAULT_REQUEST
    rest = [name for name in names if name not in used and name not in (key, request)]
    if key is None and rest and (needs_key or names[0] == rest[0]):
        key = rest.pop(0)
    if request is None and rest and is_query:
        request = rest.pop(0)
    for name in rest:
        _check_spelling(name, inputs)
    if (needs_key and key is None) or (request is None and "embedding" not in used):
        wanted = "a key and a request" if needs_key else "a request"
        raise InvalidInputError(
            f"there must be {wanted}",
            f"The columns are {_listed(names)}." if names else "There is no column.",
            "Write SELECT id, body FROM ..."
            if is_query
            else "Name the column of texts with --request, and that of keys with --key.",
        )
    if rest and is_query:
        raise InvalidInputError(
            f'column "{rest[0]}" is not an input',
            f"Besides key and request, inputs are {', '.join(inputs)}.",
            "Leave it out, and join on the key later.",
        )
    return Roles(key, request, used)
