"""The grammar of requests, of which the static encoder's training texts are made.

In: tools/request_grammar.py and its data.  No network, no training.
"""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    """tools/encoder_corpus.py, which imports its neighbours by name."""
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location("corpus", TOOLS / "encoder_corpus.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


@pytest.fixture
def words(corpus: ModuleType) -> dict[str, list[str]]:
    """One word for each hole that is filled from WordNet, and the corpus's own lists."""
    names = ("n", "verb", "adj", *corpus.NOUN_TOPICS)
    return {
        **{name: [f"some{name}"] for name in names},
        **{k: v.split() for k, v in corpus.WORDS.items()},
    }


def test_each_line_of_the_grammar_can_be_filled(
    corpus: ModuleType, words: dict[str, list[str]], rng: object
) -> None:
    grammar = corpus.request_grammar.read_grammar()
    lists = {**words, **grammar}
    draw = random.Random(int(rng.integers(2**31)))  # type: ignore[attr-defined]
    inner = corpus.request_grammar.AROUND
    assert set(inner) <= set(grammar) and set(inner.values()) <= set(grammar)
    for name, lines in grammar.items():
        for line in lines:
            assert line.count("(") == line.count(")"), f"{name}: {line}"
            assert set(re.findall(r"{(\w+)}", line)) <= set(lists), f"{name}: {line}"
            text = corpus.request_grammar.fill(line, lists, draw)
            assert text and not re.search(r"[(){}|]|  ", text), f"{line} became {text}"


def test_each_frame_has_the_hole_it_is_put_round(corpus: ModuleType) -> None:
    grammar = corpus.request_grammar.read_grammar()
    for inner, around in corpus.request_grammar.AROUND.items():
        assert all(f"{{{inner}}}" in frame for frame in grammar[around])


def test_requests_of_a_seed_are_the_same_every_time(
    corpus: ModuleType, words: dict[str, list[str]]
) -> None:
    first, again, other = (
        list(corpus.request_grammar.requests(words, 1, seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(set(first)) > 1000


def test_texts_that_an_encoder_is_judged_by_are_known(corpus: ModuleType) -> None:
    root = TOOLS.parent
    kept_back = corpus.test_texts(Path("nowhere"), root)
    for row in corpus.read_jsonl(root / "tests/golden/encoder_pairs.jsonl"):
        assert corpus.plain(row["anchor"]) in kept_back
    for row in corpus.read_jsonl(root / "tests/golden/demo_routes.jsonl"):
        assert corpus.plain(row["request"].upper() + " !") in kept_back
