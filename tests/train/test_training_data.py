"""Files of labelled rows: what they may hold, and which line is named when they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinydancer.errors import TrainingDataError
from tinydancer.train import data


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "rows.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", "utf-8")
    return path


def test_lines_of_each_task_are_read(tmp_path: Path) -> None:
    one = data.read_file(
        written(tmp_path, {"text": "a", "label": "x"}, "", {"request": "b", "category": "y"}),
        "classifier",
    )
    assert (one.requests, one.labels) == (["a", "b"], ["x", "y"])
    one = data.read_file(written(tmp_path, {"request": "a", "route": "x"}), "routes")
    assert one.labels == ["x"]
    one = data.read_file(
        written(tmp_path, {"request": "a", "capabilities": ["x", "y"]}), "capabilities"
    )
    assert one.labels == [["x", "y"]]
    one = data.read_file(
        written(
            tmp_path,
            {"request": "a", "quality": {"p": 0.5, "q": None}},
            {"request": "b", "agent": "p", "quality": 1},
            '{"request": "c", "agent": "p", "quality": NaN}',
        ),
        "quality",
    )
    assert one.requests == ["a", "a", "b", "c"]
    assert one.labels == ["p", "q", "p", "p"]
    assert one.quality == [0.5, None, 1.0, None]


GOOD = {"request": "a", "category": "x"}


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("classifier", '{"request": "a", ', 'line 2 of ".*rows.jsonl" is no JSON'),
        ("classifier", "[" * 100_000, 'line 2 of ".*rows.jsonl" is no JSON'),
        ("classifier", [1, 2], "a line must be a JSON object"),
        ("classifier", {"category": "x"}, "a request to learn from is missing or empty"),
        ("classifier", {"request": "  ", "category": "x"}, "a request to learn from is missing"),
        ("classifier", {"request": "a", "category": None}, "a label is missing or is no text"),
        ("classifier", '{"request": "a", "category": NaN}', "a label is missing or is no text"),
        ("capabilities", {"request": "a", "capabilities": [1]}, "must be a list of texts"),
        ("quality", {"request": "a", "quality": {"p": "good"}}, "quality must be a number"),
        ("quality", {"request": "a", "quality": {"p": 1.5}}, "quality must be between 0 and 1"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, task: str, line: Any, message: str) -> None:
    first = {"classifier": GOOD, "capabilities": {"request": "a", "capabilities": []}}.get(
        task, {"request": "a", "quality": {"p": 1}}
    )
    with pytest.raises(TrainingDataError, match=message) as caught:
        data.read_file(written(tmp_path, first, line), task)
    assert "line 2 of" in str(caught.value).lower()
    assert caught.value.hint


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"request": "\xff", "category": "x"}\n')
    with pytest.raises(TrainingDataError, match="line 1 of"):
        data.read_file(path, "classifier")


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="there are no rows to learn from"):
        data.read_file(written(tmp_path, ""), "classifier")
