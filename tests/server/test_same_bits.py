"""The same inputs give the same bits offline and in SQL.

In: 1,000 texts of many kinds.  What is compared: vectors, decisions, every part of every score, and
the reasoning, between the Python shell and the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydancer import Encoder, Router

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "python" / "tinydancer" / "demo"
OBJECTIVES = ("balanced", "cost", "latency", "quality", "quality_per_dollar")
EXPLAINED = (
    "agent_name, rank, eligible, rejected_by, score, similarity, closest_phrase, fit, quality, "
    "expected_quality, estimated_cost, cost_utility, estimated_latency_ms, latency_utility, "
    "reasoning"
)


def texts() -> Iterator[str]:
    """Requests of the demo, pieces and mixtures of them, and odd characters."""
    rng = np.random.default_rng(7)
    log = (DEMO / "request_log.jsonl").read_text().splitlines()
    bodies = [json.loads(line)["body"] for line in log]
    words = " ".join(bodies).split()
    odd = [
        "naïve café",
        "東京の天気",
        "Привет, мир",
        "🎉 party",
        "a\u0301\u0327b",
        "ﬁne ｗｉｄｅ",
        "x" * 300,
        "1,234.56 €",
    ]
    yield from bodies
    yield from odd
    for _ in range(1000):
        chosen = rng.choice(words, size=int(rng.integers(1, 60)))
        yield " ".join([*chosen, str(rng.choice(odd))])


@pytest.fixture(scope="module")
def thousand() -> list[str]:
    return [text for text, _ in zip(texts(), range(1000), strict=False)]


def test_embeddings_have_the_same_bits(conn: Any, thousand: list[str]) -> None:
    rows = conn.execute(
        "SELECT ruvector_embed(t) FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n",
        (thousand,),
    ).fetchall()
    in_sql = np.array([row[0] for row in rows], dtype=np.float32)
    offline = Encoder.load("static").embed(thousand)
    assert in_sql.tobytes() == offline.tobytes()


@pytest.mark.parametrize("optimize_for", OBJECTIVES)
def test_decisions_have_the_same_bits(
    registry: Any, thousand: list[str], optimize_for: str
) -> None:
    router = Router.from_json(DEMO / "agents.json")
    rows = registry.execute(
        "SELECT r.agent_name, r.confidence, r.estimated_cost, r.estimated_latency_ms, "
        "r.expected_quality, r.similarity, r.reasoning "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n) "
        "LEFT JOIN route_results r ON r.request = u.t AND r.optimize_for = %s ORDER BY n",
        (thousand, optimize_for),
    ).fetchall()
    for text, row in zip(thousand, rows, strict=True):
        decision = router.route(text, optimize_for=optimize_for)
        assert decision is not None
        assert row == (
            decision.agent_name,
            decision.confidence,
            decision.estimated_cost,
            decision.estimated_latency_ms,
            decision.expected_quality,
            decision.similarity,
            decision.reasoning,
        )


def test_every_part_of_every_score_has_the_same_bits(registry: Any, thousand: list[str]) -> None:
    router = Router.from_json(DEMO / "agents.json")
    limits: dict[str, Any] = {
        "optimize_for": "quality",
        "max_cost": 0.01,
        "max_latency_ms": 5000.0,
        "min_quality": 0.6,
        "excluded_agents": ["no such agent"],
        "min_expected_quality": 0.05,
    }
    named = ", ".join(f"{name} := %({name})s" for name in limits)
    for text in thousand[::20]:
        rows = registry.execute(
            f"SELECT {EXPLAINED} FROM ruvector_explain_route(%(request)s, {named})",
            {"request": text, **limits},
        ).fetchall()
        explained = router.explain(text, **limits)
        names = EXPLAINED.split(", ")
        assert [dict(zip(names, row, strict=True)) for row in rows] == [
            {name: getattr(one, name) for name in names} for one in explained
        ]
