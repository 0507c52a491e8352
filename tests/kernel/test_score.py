"""Scoring of agents: the kernel against the oracle and against decisions worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from oracle import score

from tinydancer import _kernels
from tinydancer.errors import (
    DimensionError,
    InvalidAgentError,
    InvalidInputError,
    NonFiniteError,
    ShapeError,
)

DIM = 32
LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]
COSTS = ("cost_per_1k_tokens", "cost_per_1k_output_tokens", "cost_per_call", "cost_per_second")
OBJECTIVES: dict[str, dict[str, Any]] = {
    "cost": {"cost_weight": 1.0},
    "latency": {"latency_weight": 1.0},
    "quality": {"quality_weight": 1.0},
    "balanced": {"cost_weight": 0.3, "latency_weight": 0.3, "quality_weight": 0.4},
    "quality_per_dollar": {"quality_weight": 1.0, "per_dollar": True},
    "fit": {"fit_weight": 1.0},
}


def agent(**figures: Any) -> dict[str, Any]:
    return {
        "expected_output_tokens": 0.0,
        "quality_score": 0.5,
        "success_rate": 1.0,
        "active": True,
        "capabilities": [],
        "phrases": [],
        **figures,
    }


def pack(agents: list[dict[str, Any]], level: str | None = None) -> _kernels.Registry:
    packed = np.zeros(len(agents), dtype=_kernels.AGENT_DTYPE)
    capabilities: list[int] = []
    vectors: list[np.ndarray] = []
    names: list[str] = []
    for row, one in zip(packed, agents, strict=True):
        for name in (*COSTS, "avg_latency_ms"):
            value = one.get(name)
            row[name] = math.nan if value is None else value
        for name in ("expected_output_tokens", "quality_score", "success_rate", "active"):
            row[name] = one[name]
        row["pool"] = _kernels.NONE if one.get("pool") is None else one["pool"]
        row["first_capability"], row["n_capabilities"] = len(capabilities), len(one["capabilities"])
        capabilities += sorted(one["capabilities"])
        row["first_phrase"], row["n_phrases"] = len(vectors), len(one["phrases"])
        vectors += one["phrases"]
        names += [f"phrase {i + 1}" for i in range(len(one["phrases"]))]
    quantised = [_kernels.quantise(vector) for vector in vectors]
    rows = np.array([q for q, _ in quantised], dtype=np.int8).reshape(-1, DIM)
    scales = [scale for _, scale in quantised]
    return _kernels.Registry(
        packed, np.array(capabilities, np.uint32), rows, scales, names, level=level
    )


def unit(rng: np.random.Generator) -> np.ndarray:
    return _kernels.normalise(rng.normal(size=DIM).astype(np.float32))


def at_cosine(query: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """A unit vector at a given cosine from a unit query."""
    other = unit(rng)
    other = _kernels.normalise((other - np.dot(other, query) * query).astype(np.float32))
    return (cosine * query + math.sqrt(1 - cosine**2) * other).astype(np.float32)


def random_agents(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    def maybe(value: float) -> float | None:
        return None if rng.random() < 0.35 else float(value)

    return [
        agent(
            cost_per_1k_tokens=maybe(rng.exponential(0.01)),
            cost_per_1k_output_tokens=maybe(rng.exponential(0.01)),
            cost_per_call=maybe(rng.exponential(0.01)),
            cost_per_second=maybe(rng.exponential(0.01)),
            expected_output_tokens=float(rng.integers(0, 500)),
            avg_latency_ms=maybe(rng.exponential(1000)),
            quality_score=float(rng.random()),
            success_rate=float(rng.random()),
            active=bool(rng.random() < 0.9),
            pool=int(rng.integers(3)) if rng.random() < 0.7 else None,
            capabilities=sorted(rng.choice(6, rng.integers(0, 5), replace=False).tolist()),
            phrases=[unit(rng) for _ in range(rng.integers(0, 5))],
        )
        for _ in range(n)
    ]


def similarities(agents: list[dict[str, Any]], query: np.ndarray) -> list[float]:
    """Cosines of the quantised vectors, in exact arithmetic; 0 without phrases."""
    q, q_scale = _kernels.quantise(query)
    result = []
    for one in agents:
        cosines = []
        for vector in one["phrases"]:
            r, r_scale = _kernels.quantise(vector)
            cosines.append(int(q.astype(int) @ r.astype(int)) * q_scale * r_scale)
        result.append(min(1.0, max(-1.0, max(cosines, default=0.0))))
    return result


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_scores_of_random_registries_equal_the_oracle(
    rng: np.random.Generator, objective: str
) -> None:
    weights = dict(OBJECTIVES[objective])
    per_dollar = weights.pop("per_dollar", False)
    for round_ in range(20):
        agents = random_agents(rng, 25)
        query = unit(rng)
        limits: dict[str, Any] = {}
        if round_ % 2:
            limits = {
                "max_cost": float(rng.exponential(0.03)),
                "budget_remaining": float(rng.exponential(0.05)),
                "max_latency_ms": float(rng.exponential(2000)),
                "min_quality": float(rng.random() / 3),
                "min_expected_quality": float(rng.random() / 5),
                "required": rng.choice(6, rng.integers(0, 3), replace=False).tolist(),
                "excluded": rng.choice(25, 3).tolist(),
                "pool": int(rng.integers(3)) if round_ % 4 == 1 else None,
            }
        shared = {
            "mu": 0.3,
            "s": 0.06,
            "per_dollar": per_dollar,
            "input_tokens": float(rng.integers(0, 900)),
            "cost_scale": 0.002,
            "latency_scale": 700.0,
            **limits,
        }
        got = pack(agents).score(query, **weights, **shared)
        want = score(agents, similarities(agents, query), weights, **shared)
        for row, one in zip(got.candidates, want, strict=True):
            names = {
                name
                for bit, name in enumerate(_kernels.LIMIT_NAMES)
                if row["rejected_by"] >> bit & 1
            }
            assert names == one.rejected_by
            assert row["fit"] == pytest.approx(one.fit, rel=1e-5)
            for name, value in (("cost", one.cost), ("latency", one.latency)):
                if value is None:
                    assert math.isnan(row[name])
                else:
                    assert row[name] == pytest.approx(value, rel=1e-12)
            assert row["cost_utility"] == pytest.approx(one.cost_utility, rel=1e-12)
            assert row["latency_utility"] == pytest.approx(one.latency_utility, rel=1e-12)
            assert row["score"] == pytest.approx(one.score, rel=1e-5)
        assert got.n_eligible == sum(not one.rejected_by for one in want)


def test_candidates_have_the_same_bits_at_every_level(rng: np.random.Generator) -> None:
    # Agents of no phrase, and of more than are compared at a time.
    agents = random_agents(rng, 30)
    agents[4]["phrases"] = [unit(rng) for _ in range(150)]
    query = unit(rng)
    want = None
    for level in LEVELS:
        got = pack(agents, level).score(query, mu=0.3, s=0.1, quality_weight=1.0).candidates
        want = got if want is None else want
        assert got.tobytes() == want.tobytes(), level


@pytest.mark.parametrize("dim", [1, 3, 8, 64, 100, 128, 384])
def test_products_of_several_requests_have_the_bits_of_each_alone(
    rng: np.random.Generator, dim: int
) -> None:
    rows = rng.integers(-128, 128, (83, dim)).astype(np.int8)
    scales = rng.random(83).astype(np.float32)
    requests = rng.standard_normal((21, dim)).astype(np.float32)
    requests[5] = 0.0
    operands = [_kernels.quantise(request) for request in requests]
    want = np.stack(
        [
            (rows.astype(np.int64) @ q.astype(np.int64)).astype(np.float32)
            * (np.float32(scale) * scales)
            for q, scale in operands
        ]
    )
    for level in LEVELS:
        for n_phrases in (0, 1, 16, 83):
            registry = _kernels.Registry(
                np.zeros(0, dtype=_kernels.AGENT_DTYPE),
                [],
                rows[:n_phrases],
                scales[:n_phrases],
                [""] * n_phrases,
                level=level,
            )
            for n in (0, 1, 16, 21):
                got = registry.products(requests[:n])
                assert got.tobytes() == want[:n, :n_phrases].tobytes(), (level, n_phrases, n)


def test_products_of_other_vectors_are_refused(rng: np.random.Generator) -> None:
    registry = pack(random_agents(rng, 4))
    with pytest.raises(ShapeError, match="rows of the registry's dimension"):
        registry.products(np.zeros((2, registry.dim + 1), dtype=np.float32))
    with pytest.raises(NonFiniteError):
        registry.products(np.full((2, registry.dim), np.nan, dtype=np.float32))


def decisions(
    registry: _kernels.Registry, queries: np.ndarray, weights: list[float], limits: list[float]
) -> dict[str, Any]:
    """What route_block() says, which looks for the best agent alone."""
    return _kernels.route_block(
        registry,
        None,
        vectors=(queries, np.ones(len(queries), dtype=np.uint8)),
        mu=0.3,
        s=0.06,
        limits=np.array([limits]),
        objective=np.zeros(1, dtype=np.uint32),
        objectives=["any"],
        weights=np.array([weights]),
        pool=np.full(1, -1, dtype=np.int64),
        reasoning=True,
    )


@pytest.mark.parametrize("n_agents", [0, 1, 7, 25, 64, 200])
@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_decision_alone_is_the_best_of_all_candidates(
    rng: np.random.Generator, n_agents: int, known: float
) -> None:
    agents = random_agents(rng, n_agents)
    for one in agents:
        # Unknown figures count as the greatest known one: none, some or all may be unknown.
        if rng.random() >= known:
            one["cost_per_1k_tokens"] = one["cost_per_1k_output_tokens"] = None
            one["cost_per_call"] = one["cost_per_second"] = None
        if rng.random() >= known:
            one["avg_latency_ms"] = None
    # Ties: equals in everything but price, or in all.
    for i in range(0, n_agents - 1, 5):
        agents[i + 1] = dict(agents[i], cost_per_call=agents[i]["cost_per_call"])
    queries = np.stack([unit(rng) for _ in range(40)])
    unlimited = [np.inf, np.inf, np.inf, -np.inf, -np.inf]
    for weights in ([0.3, 0.3, 0.4, 0.0, 0.0], [0, 0, 0, 0, 0], [1, 0, 0, 0.2, 1]):
        for limits in (unlimited, [0.05, np.inf, 2500.0, 0.2, 0.05]):
            for level in LEVELS:
                registry = pack(agents, level)
                found = decisions(registry, queries, list(map(float, weights)), limits)
                ends, sentences = found["reasoning"]
                for i, query in enumerate(queries):
                    scores = registry.score(
                        query,
                        mu=0.3,
                        s=0.06,
                        **dict(zip(_kernels.BLOCK_WEIGHTS[:4], weights[:4], strict=True)),
                        per_dollar=bool(weights[4]),
                        **dict(zip(_kernels.BLOCK_LIMITS, limits, strict=True)),
                    )
                    sentence = bytes(sentences[ends[i] : ends[i + 1]]).decode()
                    if scores.best is None:
                        assert found["agent"][i] == _kernels.NONE
                        assert sentence == ""
                        continue
                    best = scores.candidates[scores.best]
                    assert found["agent"][i] == scores.best
                    for name in ("similarity", "expected_quality", "cost", "latency"):
                        assert found[name][i].tobytes() == best[name].tobytes()
                    assert sentence == scores.reason(scores.best, "any", 1)


@pytest.mark.parametrize("s", [1e-9, 1e-3, 0.06, 1e3, 1e300])
def test_fit_is_the_logistic_of_the_margin(rng: np.random.Generator, s: float) -> None:
    agents = random_agents(rng, 60)
    for level in LEVELS:
        got = pack(agents, level).score(unit(rng), mu=0.1, s=s).candidates
        x = (got["similarity"].astype(np.float64) - 0.1) / s
        with np.errstate(over="ignore"):
            want = 1.0 / (1.0 + np.exp(-x))
        np.testing.assert_allclose(got["fit"], want, rtol=1e-14, atol=0)
        assert (got["fit"][x < -709.79] == 0.0).all()


def test_best_and_order_of_random_registries_follow_score_cost_and_number(
    rng: np.random.Generator,
) -> None:
    for _ in range(20):
        # Few distinct figures, so that there are many ties.
        agents = [
            agent(
                cost_per_call=[None, 0.0, 0.01][int(rng.integers(3))],
                quality_score=[0.4, 0.8][int(rng.integers(2))],
                active=bool(rng.random() < 0.8),
            )
            for _ in range(30)
        ]
        scores = pack(agents).score(unit(rng), mu=0.3, s=0.1, quality_weight=1.0)

        def key(number: int, rows: np.ndarray = scores.candidates) -> tuple[Any, ...]:
            row = rows[number]
            cost = math.inf if math.isnan(row["cost"]) else row["cost"]
            return (row["rejected_by"] != 0, -row["score"], cost, number)

        assert scores.order.tolist() == sorted(range(30), key=key)
        assert scores.best == scores.order[0]


def test_estimated_cost_adds_every_kind_that_is_set(rng: np.random.Generator) -> None:
    agents = [
        agent(cost_per_1k_tokens=2.0, expected_output_tokens=300.0),
        agent(cost_per_1k_tokens=2.0, cost_per_1k_output_tokens=8.0, expected_output_tokens=300.0),
        agent(cost_per_1k_output_tokens=8.0, expected_output_tokens=300.0),
        agent(cost_per_call=0.5),
        agent(cost_per_second=0.25, avg_latency_ms=2000.0),
        agent(cost_per_1k_tokens=1.0, cost_per_call=0.5, cost_per_second=1.0, avg_latency_ms=100.0),
        agent(cost_per_call=0.0),
        agent(),
        agent(cost_per_call=1.0, cost_per_second=0.5),
    ]
    rows = pack(agents).score(unit(rng), mu=0.3, s=0.1, input_tokens=500.0).candidates
    want = [1.6, 3.4, 2.4, 0.5, 0.5, 1.1, 0.0, math.nan, math.nan]
    assert rows["cost"].tolist() == pytest.approx(want, nan_ok=True)


def test_limits_on_cost_compare_this_request_not_a_price(rng: np.random.Generator) -> None:
    # 0.5 USD per 1k tokens is over a cap of 0.1 as a price, but 100 tokens cost 0.05.
    registry = pack([agent(cost_per_1k_tokens=0.5), agent(cost_per_call=0.2), agent()])
    scores = registry.score(unit(rng), mu=0.3, s=0.1, input_tokens=100.0, max_cost=0.1)
    assert (scores.candidates["rejected_by"] == 0).tolist() == [True, False, False]
    scores = registry.score(unit(rng), mu=0.3, s=0.1, input_tokens=100.0, budget_remaining=0.2)
    assert (scores.candidates["rejected_by"] == 0).tolist() == [True, True, False]
    assert scores.candidates["cost"][0] == pytest.approx(0.05)


def test_unknown_cost_is_scored_as_the_dearest_eligible_one(rng: np.random.Generator) -> None:
    agents = [
        agent(cost_per_call=0.004),
        agent(),
        agent(cost_per_call=9.0, active=False),
        agent(cost_per_call=0.001),
    ]
    scores = pack(agents).score(unit(rng), mu=0.3, s=0.1, cost_weight=1.0)
    utilities = scores.candidates["cost_utility"]
    assert utilities[1] == utilities[0] == pytest.approx(0.2)
    # Equal scores: the known cost goes first.
    assert scores.order.tolist() == [3, 0, 1, 2]


def test_similarity_is_the_greatest_over_the_phrases(rng: np.random.Generator) -> None:
    query = unit(rng)
    phrases = [at_cosine(query, cosine, rng) for cosine in (0.1, 0.7, -0.4)]
    agents = [agent(phrases=phrases), agent(phrases=[phrases[2]]), agent()]
    scores = pack(agents).score(query, mu=0.3, s=0.1, quality_weight=1.0)
    rows = scores.candidates
    assert rows["similarity"].tolist() == pytest.approx([0.7, -0.4, 0.0], abs=0.02)
    assert rows["phrase"].tolist() == [1, 3, _kernels.NONE]
    assert rows["fit"][2] == pytest.approx(1 / (1 + math.exp(3)))


def test_equal_phrases_report_the_first(rng: np.random.Generator) -> None:
    query, phrase = unit(rng), unit(rng)
    scores = pack([agent(phrases=[phrase, phrase])]).score(query, mu=0.3, s=0.1)
    assert scores.candidates["phrase"].tolist() == [0]


def test_missing_capability_of_nobody_rejects_all(rng: np.random.Generator) -> None:
    registry = pack([agent(capabilities=[0, 2]), agent(capabilities=[0])])
    scores = registry.score(unit(rng), mu=0.3, s=0.1, required=[2, 0])
    assert scores.candidates["missing"].tolist() == [0, 1]
    assert scores.best == 0
    scores = registry.score(unit(rng), mu=0.3, s=0.1, required=[0, _kernels.NONE])
    assert scores.best is None and scores.n_eligible == 0


def test_pool_of_nobody_rejects_agents_without_a_pool_too(rng: np.random.Generator) -> None:
    registry = pack([agent(pool=0), agent()])
    assert registry.score(unit(rng), mu=0.3, s=0.1, pool=0).best == 0
    assert registry.score(unit(rng), mu=0.3, s=0.1, pool=_kernels.NONE).best is None


def test_registry_without_agents_has_no_decision(rng: np.random.Generator) -> None:
    scores = pack([]).score(unit(rng), mu=0.3, s=0.1)
    assert scores.best is None
    assert scores.candidates.shape == scores.order.shape == (0,)


def test_reason_of_a_choice_and_of_a_rejection_has_the_numbers(rng: np.random.Generator) -> None:
    query = unit(rng)
    agents = [
        agent(phrases=[at_cosine(query, 0.9, rng)], cost_per_call=0.002, avg_latency_ms=120.0),
        agent(cost_per_call=0.05),
    ]
    scores = pack(agents).score(query, mu=0.3, s=0.1, quality_weight=1.0, max_cost=0.01)
    chosen = scores.reason(0, "quality", 1, (900, 512, 500))
    assert chosen.startswith('closest to "phrase 1" (similarity 0.')
    assert "0.002 USD, 120 ms; the only eligible agent for quality" in chosen
    assert chosen.endswith("request truncated: 512 of 900 word pieces read")
    assert scores.reason(1, "quality", 0) == (
        "rejected: estimated cost 0.05 USD is over max_cost 0.01 by 0.04"
    )
    with pytest.raises(IndexError, match="no agent has number 2"):
        scores.reason(2, "quality", 1)


def test_invalid_request_is_refused(rng: np.random.Generator) -> None:
    registry = pack([agent(phrases=[unit(rng)])])
    with pytest.raises(DimensionError, match="embedding has the wrong number of dimensions"):
        registry.score(np.zeros(DIM + 1, dtype=np.float32), mu=0.3, s=0.1)
    bad = np.zeros(DIM, dtype=np.float32)
    bad[3] = np.inf
    with pytest.raises(NonFiniteError, match="vector contains NaN or infinity"):
        registry.score(bad, mu=0.3, s=0.1)
    for name in ("s", "cost_scale", "latency_scale"):
        values = {"mu": 0.3, "s": 0.1, name: 0.0}
        with pytest.raises(InvalidInputError, match=f"{name} must be positive"):
            registry.score(unit(rng), **values)


def test_registry_that_points_outside_is_refused(rng: np.random.Generator) -> None:
    good = np.zeros(2, dtype=_kernels.AGENT_DTYPE)
    rows, scales = np.zeros((3, DIM), dtype=np.int8), np.ones(3, dtype=np.float32)
    names = ["a", "b", "c"]

    def registry(**changes: Any) -> _kernels.Registry:
        agents = good.copy()
        for name, value in changes.items():
            agents[name][1] = value
        return _kernels.Registry(agents, [0, 1], rows, scales, names)

    assert registry(first_phrase=1, n_phrases=2).n_phrases == 3
    for changes in (
        {"first_phrase": 2, "n_phrases": 2},
        {"first_phrase": 2**32 - 1, "n_phrases": 2**32 - 1},
        {"first_capability": 3},
        {"n_capabilities": 3},
    ):
        with pytest.raises(ShapeError, match="an agent points outside of the registry"):
            registry(**changes)
    with pytest.raises(InvalidAgentError, match="quality_score of an agent is not a finite number"):
        registry(quality_score=math.nan)
    with pytest.raises(
        ShapeError, match="different numbers of rows, scales and phrases 3, 2 and 3"
    ):
        _kernels.Registry(good, [], rows, scales[:2], names)
    with pytest.raises(ShapeError, match="agents has the wrong shape or element type"):
        _kernels.Registry(np.zeros(2), [], rows, scales, names)


def test_candidates_and_order_of_scores_are_read_only(rng: np.random.Generator) -> None:
    scores = pack([agent()]).score(unit(rng), mu=0.3, s=0.1)
    with pytest.raises(ValueError, match="read-only"):
        scores.candidates["score"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        scores.order[0] = 1


def test_scores_outlive_what_they_were_made_of(rng: np.random.Generator) -> None:
    query = unit(rng)
    registry = pack([agent(phrases=[unit(rng)])])
    scores = registry.score(query, mu=0.3, s=0.1, required=[_kernels.NONE])
    before = scores.reason(0, "cost", 0)
    query[:] = 0
    del registry, query
    assert scores.reason(0, "cost", 0) == before == "rejected: lacks 1 of 1 required_capabilities"
