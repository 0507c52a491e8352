"""Files of labelled requests: what is read, and in which words the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydancer.errors import InvalidInputError
from tinydancer.evaluate.files import read_agents, read_intents, read_outcomes, without_repeats


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def test_outcomes_are_a_table_with_nan_where_nobody_knows(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "f.jsonl",
        {"request": "one", "quality": {"b": 1, "a": 0.5}},
        "",
        '{"request": "two", "quality": {"a": NaN, "b": null}}',
        {"request": "three", "quality": {"b": True}},
        {"request": "one", "quality": {"a": 1.0}},
    )
    found = read_outcomes(path)
    assert found.requests == ["one", "three"]
    assert found.agents == ["a", "b"]
    np.testing.assert_array_equal(found.quality, [[0.75, 1.0], [np.nan, 1.0]])
    assert (found.left_out, found.repeated) == (2, 1)
    assert found.support.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("row", "sentence", "detail"),
    [
        ("{", "has a line that is not JSON", "Line 2, column"),
        ("[1]", "has a line that is no JSON object", "Line 2 is a list"),
        ('{"quality": {}}', 'has a row without "request"', "Line 2 has quality"),
        ('{"request": " ", "quality": {}}', 'whose "request" is no text', "Line 2"),
        ('{"request": "r"}', 'whose "quality" is no object', "Line 2: None"),
        ('{"request": "r", "quality": {"a": "x"}}', "has a quality that is no number", "Line 2"),
        ('{"request": "r", "quality": {"a": 1.5}}', "quality must be between 0 and 1", "line 2"),
        ('{"request": "r", "quality": {"a": -1}}', "quality must be between 0 and 1", "line 2"),
        ('{"request": "r", "quality": {"a": Infinity}}', "quality must be between", "line 2"),
    ],
)
def test_line_that_is_no_outcome_is_named(
    tmp_path: Path, row: str, sentence: str, detail: str
) -> None:
    path = lines(tmp_path / "f.jsonl", {"request": "one", "quality": {"a": 1}}, row)
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        read_outcomes(path)
    assert detail in str(caught.value.detail)


def test_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="could not read file"):
        read_intents(tmp_path / "nowhere.jsonl")
    with pytest.raises(InvalidInputError, match="has no rows"):
        read_intents(lines(tmp_path / "empty.jsonl", ""))
    with pytest.raises(InvalidInputError, match='has a row without "label"'):
        read_intents(lines(tmp_path / "f.jsonl", {"text": "hello"}))


def test_price_of_a_call_is_the_mean_of_both_directions(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    agents = [
        {"name": "a", "cost_per_1k_input_tokens": 0.1, "cost_per_1k_output_tokens": 0.3},
        {"name": "b", "cost_per_1k_tokens": 0.4},
        {"name": "c", "cost_per_call": 0.05, "cost_per_1k_tokens": 9},
        {"name": "d", "cost_per_1k_output_tokens": None},
        {"name": "e", "cost_per_call": -1},
    ]
    path.write_text(json.dumps({"agents": agents}))
    assert read_agents(path, ["c", "a", "b"]).tolist() == pytest.approx([0.05, 0.2, 0.4])
    with pytest.raises(InvalidInputError, match='agent "d" has no price'):
        read_agents(path, ["d"])
    with pytest.raises(InvalidInputError, match='the price of agent "e" is none'):
        read_agents(path, ["e"])
    with pytest.raises(InvalidInputError, match='lacks agent "f"'):
        read_agents(path, ["f"])


def test_agents_file_that_is_no_list_of_agents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    path.write_text('{"a": 1}')
    with pytest.raises(InvalidInputError, match="is no list of agents"):
        read_agents(path, ["a"])
    path.write_text("[")
    with pytest.raises(InvalidInputError, match="is not JSON"):
        read_agents(path, ["a"])


def test_repeats_are_found_whatever_blanks_surround_them() -> None:
    fresh, repeated = without_repeats(["a", "b "], [" a", "c", "b"])
    assert fresh.tolist() == [False, True, False]
    assert repeated == 2
