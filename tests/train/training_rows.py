"""Labelled requests for the tests of training, made of a grammar: separable, but not trivially.

``requests(n, rng)`` gives texts with a category and capabilities; ``noisy`` labels a share of them
at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CATEGORIES = {
    "code": ["debug the {} program", "why does my {} script crash", "refactor this {} module"],
    "travel": ["book a flight to {}", "find a hotel near {}", "plan a trip through {}"],
    "cooking": ["a recipe for {} soup", "how to bake {} bread", "how long to boil {}"],
    "health": ["is {} good for my heart", "medicine against {}", "symptoms of {} fever"],
}
FILLERS = [
    "python",
    "java",
    "rust",
    "paris",
    "rome",
    "berlin",
    "potato",
    "onion",
    "rye",
    "rice",
    "asthma",
    "malaria",
    "winter",
    "summer",
    "cheap",
    "quick",
    "modern",
    "old",
    "small",
    "large",
    "simple",
    "strange",
    "favourite",
    "second",
]
ADDED = {"translation": "and translate it into French", "summary": "and summarise the answer"}


def requests(
    n: int, rng: np.random.Generator, noise: float = 0.0
) -> tuple[list[str], list[str], list[list[str]]]:
    """n different texts, the category of each, and the capabilities that each needs."""
    texts: dict[str, tuple[str, list[str]]] = {}
    names = list(CATEGORIES)
    while len(texts) < n:
        name = names[int(rng.integers(len(names)))]
        words = " ".join(rng.choice(FILLERS, 2))
        text = str(rng.choice(CATEGORIES[name])).format(words)
        needs = [name]
        for capability, words in ADDED.items():
            if rng.random() < 0.3:
                text, needs = f"{text} {words}", [*needs, capability]
        if rng.random() < noise:
            name = names[int(rng.integers(len(names)))]
        texts.setdefault(text, (name, needs))
    return list(texts), [a for a, _ in texts.values()], [b for _, b in texts.values()]


def accuracy(said: Sequence[str], truth: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(said, truth, strict=True)]))
