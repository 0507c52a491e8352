"""Many requests offline: what Router.route_batch() adds to the kernel's plans."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from tinydancer import Agent, Policy, Router
from tinydancer.errors import (
    EmptyRequestError,
    InfeasiblePlanError,
    InvalidInputError,
    UnknownObjectiveError,
)
from tinydancer.route_batch import BatchDecision

REQUESTS = [
    "Translate this letter into French",
    "What is 17 percent of 2,400?",
    None,
    "Write a Python function that parses a CSV file",
    "Translate this letter into French",
    "Is this contract enforceable?",
]


@pytest.fixture(scope="module")
def router() -> Router:
    return Router.demo()


def cost(decisions: list[BatchDecision]) -> float:
    return sum(d.estimated_cost or 0.0 for d in decisions)


def mean(decisions: list[BatchDecision]) -> float:
    return sum(d.expected_quality for d in decisions) / len(decisions)


@pytest.mark.parametrize("optimize_for", ["balanced", "cost", "quality", None])
def test_route_batch_of_each_alone_is_route_of_each(
    router: Router, optimize_for: str | None
) -> None:
    decisions = router.route_batch(REQUESTS, optimize_for, min_quality=0.7, max_latency_ms=5000)
    assert [d.request_index for d in decisions] == [1, 2, 4, 5, 6]
    for d in decisions:
        single = router.route(d.request, optimize_for, min_quality=0.7, max_latency_ms=5000)
        assert single is not None
        assert all(getattr(d, name) == value for name, value in vars(single).items())


def every_plan(router: Router, texts: list[str]) -> list[tuple[float, float]]:
    """Cost and mean quality of all plans of agents of known cost."""
    options: list[Any] = [
        [
            (e.estimated_cost, e.expected_quality)
            for e in router.explain(text)
            if e.estimated_cost is not None
        ]
        for text in texts
    ]
    return [
        (sum(c for c, _ in plan), sum(q for _, q in plan) / len(plan))
        for plan in itertools.product(*options)
    ]


def test_route_batch_total_cost_is_the_best_of_all_plans(router: Router) -> None:
    texts = [text for text in REQUESTS if text is not None][:3]
    plans = every_plan(router, texts)
    for wanted in (0.1, 0.3, 0.5, 0.6):
        found = router.route_batch(texts, "total_cost", min_quality=wanted)
        best = min(c for c, q in plans if q >= wanted)
        assert mean(found) >= wanted - 1e-12
        assert math.isclose(cost(found), best, rel_tol=1e-9, abs_tol=1e-12)
    for cap in (0.0005, 0.002, 0.01):
        found = router.route_batch(texts, max_total_cost=cap)
        best = max(q for c, q in plans if c <= cap)
        assert cost(found) <= cap * (1 + 1e-12)
        assert math.isclose(mean(found), best, rel_tol=1e-9)


def test_route_batch_total_cost_is_no_worse_than_balanced(router: Router) -> None:
    texts = [f"{text} {i}" for i in range(20) for text in REQUESTS if text is not None]
    balanced = router.route_batch(texts)
    found = router.route_batch(texts, "total_cost")
    assert cost(found) <= cost(balanced)
    assert mean(found) >= mean(balanced) - 1e-12


def test_route_batch_that_cannot_keep_its_limits_says_what_is_reachable(router: Router) -> None:
    with pytest.raises(InfeasiblePlanError, match="no plan reaches") as caught:
        router.route_batch(REQUESTS, "total_cost", min_quality=1.0)
    assert "on average; requests: 5." in str(caught.value.detail)
    with pytest.raises(InfeasiblePlanError, match="no plan stays within budget_remaining -1"):
        router.route_batch(REQUESTS, "total_cost", budget_remaining=-1.0)
    with pytest.raises(InfeasiblePlanError, match="no plan reaches"):
        router.route_batch(REQUESTS, max_total_cost=0.01, min_quality=0.99)
    paid = Router([Agent("paid", "llm", "letters", cost_per_call=0.5)])
    with pytest.raises(InfeasiblePlanError, match=r"within max_total_cost 0\.9") as c:
        paid.route_batch(["a letter", "a letter"], max_total_cost=0.9)
    assert c.value.detail == "The cheapest agents for the 2 requests cost 1 USD together."
    assert len(paid.route_batch(["a letter", "a letter"], max_total_cost=1.0)) == 2


def test_route_batch_of_nothing_is_empty(router: Router) -> None:
    assert router.route_batch([]) == []
    assert router.route_batch([None], "total_cost") == []
    assert router.route_batch(["x"], "total_cost", pool="none", min_quality=1.0) == []
    assert router.route_batch(["x"], pool="none") == []


def test_route_batch_of_what_is_none_says_so(router: Router) -> None:
    with pytest.raises(EmptyRequestError):
        router.route_batch(["x", " "])
    with pytest.raises(UnknownObjectiveError, match='"total_cots"'):
        router.route_batch(["x"], "total_cots")
    with pytest.raises(UnknownObjectiveError):
        router.route_batch(["x"], "best")
    with pytest.raises(InvalidInputError, match="max_total_cost needs the optimization target"):
        router.route_batch(["x"], "cost", max_total_cost=1.0)
    for value in (-1.0, math.nan):
        with pytest.raises(InvalidInputError, match="max_total_cost must not be"):
            router.route_batch(["x"], max_total_cost=value)
    for value in (-0.1, 1.5, math.nan, math.inf):
        with pytest.raises(InvalidInputError, match="min_quality must be between 0 and 1"):
            router.route_batch(["x"], "total_cost", min_quality=value)
    with pytest.raises(InvalidInputError, match="budget_remaining must not be NaN"):
        router.route_batch(["x"], "total_cost", budget_remaining=math.nan)
    # A target of one's own may have a name like it.
    own = Router(router.agents, router.encoder, {"local_cost": Policy(cost_weight=1.0)})
    assert len(own.route_batch(["x"], "local_cost")) == 1
