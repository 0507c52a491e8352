"""Requests that the shipped task models are trained on and judged by: enough of them, and apart.

In: tools/task_examples.py and its data, the committed encoder.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinydancer import Encoder

TOOLS = Path(__file__).resolve().parents[2] / "tools"

# Of examples in a category, without those that share their phrasing; of held-out requests; of
# examples that need a capability.
MINIMUM, MINIMUM_HELD_OUT, MINIMUM_OF_CAPABILITY = 120, 20, 60
# Cosine of two requests that say the same.
SAME = 0.97


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    """tools/task_examples.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("task_examples", TOOLS / "task_examples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_task_examples_are_enough_of_every_category(tasks: ModuleType) -> None:
    single = Counter(one.category for one in tasks.read(tasks.EXAMPLES) if not one.group)
    held_out = Counter(one.category for one in tasks.read(tasks.HELD_OUT))
    assert set(single) == set(held_out) == set(tasks.CATEGORIES)
    assert len(tasks.CATEGORIES) >= 14
    assert min(single.values()) >= MINIMUM, single
    assert min(held_out.values()) >= MINIMUM_HELD_OUT, held_out


def test_task_examples_need_every_capability(tasks: ModuleType) -> None:
    needed = Counter(name for one in tasks.read(tasks.EXAMPLES) for name in one.capabilities)
    assert set(needed) == set(tasks.CAPABILITIES)
    assert min(needed.values()) >= MINIMUM_OF_CAPABILITY, needed
    held_out = {name for one in tasks.read(tasks.HELD_OUT) for name in one.capabilities}
    assert held_out == set(tasks.CAPABILITIES)


def test_task_examples_are_texts_that_people_type(tasks: ModuleType) -> None:
    for one in tasks.read(tasks.EXAMPLES) + tasks.read(tasks.HELD_OUT):
        assert one.text == one.text.strip() != ""
        assert unicodedata.is_normalized("NFC", one.text), one.text
        assert all(char in "\n\t" or unicodedata.category(char)[0] != "C" for char in one.text)


def test_task_examples_occur_once(tasks: ModuleType) -> None:
    every = tasks.read(tasks.EXAMPLES) + tasks.read(tasks.HELD_OUT)
    counts = Counter(tasks.plain(one.text) for one in every)
    assert not [text for text, count in counts.items() if count > 1]


def test_held_out_requests_are_no_variants_of_examples(tasks: ModuleType) -> None:
    examples, held_out = tasks.read(tasks.EXAMPLES), tasks.read(tasks.HELD_OUT)
    encoder = Encoder.load("static")
    cosines = (
        encoder.embed([one.text for one in held_out])
        @ encoder.embed([one.text for one in examples]).T
    )
    near = [(held_out[i].text, examples[j].text) for i, j in np.argwhere(cosines > SAME)]
    assert not near


def test_group_of_examples_is_of_one_category(tasks: ModuleType) -> None:
    pairs = {(one.group, one.category) for one in tasks.read(tasks.EXAMPLES) if one.group}
    assert max(Counter(group for group, _ in pairs).values()) == 1
    assert not any(one.group for one in tasks.read(tasks.HELD_OUT))


@pytest.mark.parametrize(
    "change",
    [
        {"category": "cooking"},
        {"capabilities": ["maths"]},
        {"capabilities": ["code", "flying"]},
        {"capabilities": ["code", "code"]},
        {"label": "code"},
    ],
)
def test_read_of_wrong_labels_names_the_line(
    tasks: ModuleType, tmp_path: Path, change: dict[str, object]
) -> None:
    right = {"text": "sort a list", "category": "code", "capabilities": ["code"]}
    path = tmp_path / "examples.jsonl"
    path.write_text(json.dumps(right) + "\n" + json.dumps({**right, **change}) + "\n", "utf-8")
    with pytest.raises(ValueError, match=r"examples\.jsonl, line 2: "):
        tasks.read(path)
