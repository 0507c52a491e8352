"""Requests of four kinds and three agents with different strengths, for tests of learning.

A seed and a number come in, rows as tests/evaluate and tests/server want them come out.  "small" is
cheap and good at arithmetic, "large" is dear and good at nearly everything, "poet" writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FRAMES = {
    "sum": "what is {a} plus {b} times {c}",
    "poem": "write a poem about {x} and {y} in the style of {z}",
    "law": "summarise the contract between {x} and {y} and list the risks of clause {a}",
    "code": "fix the bug in this function that sorts {x} by {y} in {z} and test it",
}
WORDS = ["rivers", "bread", "winter", "ships", "letters", "gardens", "trains", "music", "bees"]
AGENTS = [
    {"name": "small", "cost_per_1k_input_tokens": 0.0001, "cost_per_1k_output_tokens": 0.0003},
    {"name": "large", "cost_per_1k_input_tokens": 0.003, "cost_per_1k_output_tokens": 0.005},
    {"name": "poet", "cost_per_1k_tokens": 0.001},
]
CHANCE = {
    "sum": {"small": 0.9, "large": 0.92, "poet": 0.1},
    "poem": {"small": 0.2, "large": 0.5, "poet": 0.95},
    "law": {"small": 0.2, "large": 0.9, "poet": 0.3},
    "code": {"small": 0.35, "large": 0.9, "poet": 0.05},
}


def requests(n: int, seed: int) -> list[tuple[str, str]]:
    """Different texts with their kinds."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < n:
        kind = list(FRAMES)[rng.integers(len(FRAMES))]
        x, y, z = rng.choice(WORDS, 3, replace=False)
        a, b, c = rng.integers(2, 100, 3)
        found[FRAMES[kind].format(x=x, y=y, z=z, a=a, b=b, c=c)] = kind
    return list(found.items())


def outcomes(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows of an outcome file: every agent answered every request."""
    rng = np.random.default_rng([seed, 1])
    return [
        {
            "request": text,
            "quality": {
                name: float(rng.random() < chance) for name, chance in CHANCE[kind].items()
            },
        }
        for text, kind in requests(n, seed)
    ]


def labels(rows: list[dict[str, Any]]) -> tuple[list[str], list[str], list[float | None]]:
    """Requests, agents and qualities, as ``train_quality`` takes them."""
    flat = [(row["request"], a, q) for row in rows for a, q in row["quality"].items()]
    return [one[0] for one in flat], [one[1] for one in flat], [one[2] for one in flat]
