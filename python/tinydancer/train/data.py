"""Labelled rows for training, from a file of JSON lines or a query, with their checks.

A path or a connection and a query come in, texts and labels come out, or an error that says which
row is wrong and how to write it.  Called by the command line.

    task          JSON object of a line                                   columns of a query
    classifier    {"request": text, "category": text}                     text, text
    capabilities  {"request": text, "capabilities": [text, ...]}          text, text[] or text
    quality       {"request": text, "quality": {agent: number}}, or       text, text, number
                  {"request": text, "agent": text, "quality": number}
    routes        {"request": text, "route": text}                        text, text

"text" may stand for request, and "label" for category and route.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydancer.errors import TrainingDataError

if TYPE_CHECKING:
    import psycopg

__all__ = ["TASKS", "Labelled", "normalised", "read_file", "read_query"]

TASKS = ("classifier", "capabilities", "quality", "routes")
_SHAPES = {
    "classifier": (2, "request text, category text", '{"request": "...", "category": "..."}'),
    "capabilities": (
        2,
        "request text, capabilities text[]",
        '{"request": "...", "capabilities": ["..."]}',
    ),
    "quality": (
        3,
        "request text, agent_name text, quality number",
        '{"request": "...", "quality": {"agent": 0.5}}',
    ),
    "routes": (2, "request text, route_name text", '{"request": "...", "route": "..."}'),
}


@dataclass
class Labelled:
    """Rows to learn from.

    Attributes:
        task: one of TASKS.
        requests: ``(n,)`` texts, not blank.
        labels: ``(n,)`` categories, route names or agent names; lists of capabilities.
        quality: ``(n,)`` for the task quality: of that agent's answer; None: unknown.
        source: what they were read from, for messages and the model's row.
    """

    task: str
    source: str
    requests: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    quality: list[float | None] = field(default_factory=list)


def normalised(text: str) -> str:
    """A text as far as two rows can be told apart: without case and runs of white space."""
    return " ".join(text.casefold().split())


class _Rows:
    """Collects checked rows; ``where`` names a row in messages."""

    def __init__(self, task: str, source: str) -> None:
        self.task, self.found = task, Labelled(task, source)
        _, self.columns, self.line = _SHAPES[task]

    def wrong(self, message: str, where: str, value: Any) -> TrainingDataError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return TrainingDataError(
            message,
            f"{where[:1].upper()}{where[1:]} has {shown}.",
            f"Columns of a query are: {self.columns}.  A line of a file is: {self.line}.",
        )

    def add(self, where: str, request: Any, label: Any, quality: Any = None) -> None:
        if not isinstance(request, str) or not request.strip():
            raise self.wrong("a request to learn from is missing or empty", where, request)
        if self.task == "capabilities":
            label = [label] if isinstance(label, str) else label
            if not isinstance(label, list) or not all(
                isinstance(one, str) and one.strip() for one in label
            ):
                raise self.wrong("capabilities must be a list of texts", where, label)
        elif not isinstance(label, str) or not label.strip():
            raise self.wrong("a label is missing or is no text", where, label)
        if self.task == "quality":
            self.found.quality.append(self._figure(where, quality))
        self.found.requests.append(request)
        self.found.labels.append(label)

    def _figure(self, where: str, quality: Any) -> float | None:
        if quality is None:
            return None
        if isinstance(quality, bool) or not isinstance(quality, int | float | Decimal):
            raise self.wrong("quality must be a number", where, quality)
        value = float(quality)
        if math.isnan(value):
            return None
        if not 0 <= value <= 1:
            raise self.wrong("quality must be between 0 and 1", where, value)
        return value

    def done(self) -> Labelled:
        if not self.found.requests:
            raise TrainingDataError(
                "there are no rows to learn from",
                f"{self.found.source} gave none.",
                f"Columns of a query are: {self.columns}.  A line of a file is: {self.line}.",
            )
        return self.found


def _of_line(rows: _Rows, where: str, line: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    request = line.get("request", line.get("text"))
    if rows.task == "capabilities":
        yield request, line.get("capabilities"), None
    elif rows.task == "quality":
        quality = line.get("quality")
        if isinstance(quality, dict):
            yield from ((request, agent, value) for agent, value in quality.items())
        else:
            yield request, line.get("agent", line.get("agent_name")), quality
    else:
        names = ("category",) if rows.task == "classifier" else ("route", "route_name")
        yield request, next((line[n] for n in names if n in line), line.get("label")), None


def read_file(path: Path, task: str) -> Labelled:
    """Read a file with a JSON object on each line.

    Args:
        path: of the file; blank lines are passed over.
        task: one of TASKS.

    Returns:
        At least one row.

    Raises:
        TrainingDataError: a line that is no such object, with its number.
        OSError: the file cannot be read.
    """
    rows = _Rows(task, f'file "{path}"')
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if not raw.strip():
                continue
            where = f'line {number} of "{path}"'
            try:
                line = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                raise TrainingDataError(
                    f"{where} is no JSON", f"It says: {error}.", f"A line is: {rows.line}."
                ) from None
            if not isinstance(line, dict):
                raise rows.wrong("a line must be a JSON object", where, line)
            for request, label, quality in _of_line(rows, where, line):
                rows.add(where, request, label, quality)
    return rows.done()


def read_query(conn: psycopg.Connection[Any], query: str, task: str) -> Labelled:
    """Run a query and read its rows.

    Args:
        conn: runs it in a read-only transaction, which is rolled back.
        query: one SELECT.
        task: one of TASKS.

    Returns:
        At least one row.

    Raises:
        TrainingDataError: columns of another number or type, or no rows.
        psycopg.Error: the query fails.
    """
    rows = _Rows(task, "the query")
    if not query.strip().rstrip(";").strip():
        raise TrainingDataError(
            "the query is empty", None, f"Write a SELECT with the columns {rows.columns}."
        )
    count = _SHAPES[task][0]
    conn.execute("SET TRANSACTION READ ONLY")
    try:
        # A cursor without parameters: a % in the query is a %.
        cursor = conn.execute(query.encode())
        shape = cursor.description
        if shape is None or len(shape) != count:
            given = "none" if shape is None else str(len(shape))
            raise TrainingDataError(
                "the query returns the wrong columns",
                f"It has {given}, and training the {task} model takes {count}."
                if task != "routes"
                else f"It has {given}, and training routes takes {count}.",
                f"Select these columns, in this order: {rows.columns}.",
            )
        for number, row in enumerate(cursor, 1):
            rows.add(f"row {number} of the query", *row)
    finally:
        conn.rollback()
    return rows.done()


def distinct_names(labels: Sequence[str], what: str = "categories") -> list[str]:
    """The different labels, in the order of their bytes.

    Raises:
        TrainingDataError: two that differ by case or outer blanks alone.
    """
    names = sorted(set(labels), key=str.encode)
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(normalised(name), name)
        if other != name:
            raise TrainingDataError(
                f"two {what} differ by case or blanks alone",
                f'They are "{other}" and "{name}".',
                "Use one spelling; lower(btrim(category)) in a query makes it so.",
            )
    return names
