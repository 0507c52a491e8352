"""Requests made up from a grammar, so that an encoder is trained on how people ask for things.

tools/data/request_grammar.txt and words for its holes come in, any number of short texts comes out:
wishes, wanted facts, questions and statements, each in one of the ways such a thing is said.  The
file's head tells its notation.  Called by encoder_corpus.py alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

GRAMMAR = Path(__file__).resolve().parent / "data/request_grammar.txt"

# What is said, and the list of what may be said round it.
AROUND = {"do": "wish", "fact": "know", "question": "ask", "statement": "note"}

CHOICE = re.compile(r"\(([^()]*)\)")
HOLE = re.compile(r"{(\w+)}")

Lists = Mapping[str, Sequence[str]]


def read_grammar(path: Path = GRAMMAR) -> dict[str, list[str]]:
    """The lists of the grammar by name."""
    lists: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("= "):
            lists[line[2:]] = []
        elif line and not line.startswith("#"):
            lists[list(lists)[-1]].append(line)
    return lists


def fill(text: str, lists: Lists, rng: random.Random) -> str:
    """``text`` with a choice made at every ``(a|b)``, innermost first, and at every ``{hole}``."""
    while choice := CHOICE.search(text) or HOLE.search(text):
        options = choice[1].split("|") if choice.re is CHOICE else lists[choice[1]]
        text = text[: choice.start()] + rng.choice(options) + text[choice.end() :]
    return re.sub(r"\s+", " ", text).strip()


def requests(words: Lists, per_choice: int, seed: int) -> Iterator[str]:
    """Texts of the grammar: of every line ``per_choice`` for each choice it leaves, and two more.

    Args:
        words: for the holes that the grammar has no list for.
        per_choice: a ``{hole}`` counts as two choices.
        seed: of all that is drawn.
    """
    rng = random.Random(seed)
    grammar = read_grammar()
    lists = {**words, **grammar}
    for inner, around in AROUND.items():
        for line in grammar[inner]:
            choices = len(CHOICE.findall(line)) + 2 * len(HOLE.findall(line))
            for _ in range(per_choice * (2 + choices)):
                frame = rng.choice(grammar[around])
                yield fill(frame.replace(f"{{{inner}}}", line), lists, rng)
