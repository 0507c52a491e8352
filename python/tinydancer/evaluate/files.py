"""Reads the files that ``tinydancer evaluate`` compares routers on.

JSON lines of labelled texts, JSON lines of outcomes and a JSON list of agents with prices come in;
checked tables come out, or an error that names the file and the line.  Used by
tinydancer.evaluate.intents and tinydancer.evaluate.llm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.errors import InvalidInputError
from tinydancer.train.outcomes import Outcomes, collect

__all__ = ["read_agents", "read_intents", "read_outcomes", "without_repeats"]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines with their line numbers; empty lines are skipped."""
    count = 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInputError(
                    f'file "{path}" has a line that is not JSON',
                    f"Line {number}, column {error.colno}: {error.msg}.",
                    "Write one JSON object on each line.",
                ) from None
            if not isinstance(row, dict):
                raise InvalidInputError(
                    f'file "{path}" has a line that is no JSON object',
                    f"Line {number} is {_kind(row)}.",
                    "Write one JSON object on each line.",
                )
            count += 1
            yield number, row
    if not count:
        raise InvalidInputError(
            f'file "{path}" has no rows', None, "Write one JSON object on each line."
        )


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", errors="strict")
    except OSError as error:
        raise InvalidInputError(f'could not read file "{path}"', f"{error.strerror}.") from None


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")


def _text(path: Path, number: int, row: dict[str, Any], key: str) -> str:
    if key not in row:
        raise InvalidInputError(
            f'file "{path}" has a row without "{key}"',
            f"Line {number} has {', '.join(row) or 'nothing'}.",
        )
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(
            f'file "{path}" has a row whose "{key}" is no text', f"Line {number}: {value!r}."
        )
    return value


def read_intents(path: Path) -> tuple[list[str], list[str]]:
    """Read ``{"text": ..., "label": ...}`` lines.

    Returns:
        Texts and labels.

    Raises:
        InvalidInputError: file or column missing, a line that is no JSON object, an empty text.
    """
    texts, labels = [], []
    for number, row in _lines(path):
        texts.append(_text(path, number, row, "text"))
        labels.append(_text(path, number, row, "label"))
    return texts, labels


def read_outcomes(path: Path) -> Outcomes:
    """Read ``{"request": ..., "quality": {agent: 0..1}}`` lines.

    Agents that a row does not name, or names with null or NaN, were not tried.

    Raises:
        InvalidInputError: file or column missing, a line that is no JSON object, an empty request,
            a quality outside of [0, 1].
    """
    requests: list[str] = []
    agents: list[str] = []
    values: list[float | None] = []
    for number, row in _lines(path):
        request = _text(path, number, row, "request")
        quality = row.get("quality")
        if not isinstance(quality, dict):
            raise InvalidInputError(
                f'file "{path}" has a row whose "quality" is no object',
                f"Line {number}: {quality!r}.",
                'Write {"request": "...", "quality": {"agent": 0.5}}.',
            )
        for agent, value in quality.items():
            # true and false are numbers here, text is not.
            if value is not None and not isinstance(value, (int, float)):
                raise InvalidInputError(
                    f'file "{path}" has a quality that is no number',
                    f'Line {number}, agent "{agent}": {value!r}.',
                )
            if value is not None and not math.isnan(value) and not 0 <= value <= 1:
                raise InvalidInputError(
                    "quality must be between 0 and 1",
                    f'File "{path}", line {number}, agent "{agent}": {value}.',
                    "Scale it: 0 is useless, 1 is as good as can be; null is unknown.",
                )
            requests.append(request)
            agents.append(agent)
            values.append(value)
    return collect(requests, agents, values)


_PRICES = ("cost_per_1k_input_tokens", "cost_per_1k_tokens", "cost_per_1k_output_tokens")


def read_agents(path: Path, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Read the price of a call to each agent.

    A list of objects, or an object whose "agents" is one.  The price of a call is
    ``cost_per_call``, or else the mean of what 1,000 tokens cost going in and coming out, or the
    one of the two that is there.

    Args:
        path: of the JSON file.
        names: whose prices are wanted.

    Returns:
        ``(len(names),)`` prices.

    Raises:
        InvalidInputError: file missing or no such list; an agent missing, or without a price.
    """
    with _opened(path) as file:
        try:
            loaded = json.load(file)
        except json.JSONDecodeError as error:
            raise InvalidInputError(
                f'file "{path}" is not JSON',
                f"Line {error.lineno}, column {error.colno}: {error.msg}.",
            ) from None
    rows = loaded.get("agents") if isinstance(loaded, dict) else loaded
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows
    ):
        raise InvalidInputError(
            f'file "{path}" is no list of agents',
            None,
            'Write [{"name": "...", "cost_per_1k_tokens": 0.001}, ...].',
        )
    by_name = {row["name"]: row for row in rows}
    prices = []
    for name in names:
        if name not in by_name:
            raise InvalidInputError(
                f'file "{path}" lacks agent "{name}"', "It is in the training file."
            )
        prices.append(_price(path, name, by_name[name]))
    return np.array(prices)


def _price(path: Path, name: str, row: dict[str, Any]) -> float:
    flat = row.get("cost_per_call")
    parts = [row[key] for key in _PRICES if row.get(key) is not None] if flat is None else [flat]
    if not parts:
        raise InvalidInputError(
            f'agent "{name}" has no price',
            f'File "{path}" has {", ".join(row)}.',
            "Give it cost_per_1k_tokens, cost_per_1k_input_tokens and "
            "cost_per_1k_output_tokens, or cost_per_call.",
        )
    for part in parts:
        if not isinstance(part, (int, float)) or not math.isfinite(part) or part < 0:
            raise InvalidInputError(
                f'the price of agent "{name}" is none', f'File "{path}" has {part!r}.'
            )
    return float(sum(parts) / len(parts))


def without_repeats(train: Sequence[str], test: Sequence[str]) -> tuple[npt.NDArray[np.bool_], int]:
    """Which test texts are not in the training file, and how many are."""
    seen = {text.strip() for text in train}
    fresh = np.array([text.strip() not in seen for text in test], dtype=bool)
    return fresh, int((~fresh).sum())
