"""One budget for many requests: against all plans, or the bound of a linear program.

In: random choices, built as the registry builds them or with many ties.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tinydancer import _kernels
from tinydancer.errors import ShapeError

GOALS = ("least_cost", "most_quality")
Choices = npt.NDArray[Any]


def group_of(costs: Any, qualities: Any, hull_only: bool = False) -> Choices:
    """The choices that td_choice_frontier() keeps, in readable NumPy."""
    rows = sorted(zip(costs, [-q for q in qualities], range(len(costs)), strict=True))
    kept: list[tuple[float, float, int]] = []
    for cost, minus, agent in rows:
        if not kept or -minus > kept[-1][1]:
            kept.append((cost, -minus, agent))
    if hull_only:
        hull: list[tuple[float, float, int]] = []
        for row in kept:
            while len(hull) >= 2 and gain(hull[-1], row) >= gain(hull[-2], hull[-1]):
                hull.pop()
            hull.append(row)
        kept = hull
    out = np.zeros(len(kept), dtype=_kernels.CHOICE_DTYPE)
    for choice, (cost, quality, agent) in zip(out, kept, strict=True):
        choice["cost"], choice["quality"], choice["agent"] = cost, quality, agent
        choice["is_known"] = 1
    return out


def gain(a: tuple[float, float, int], b: tuple[float, float, int]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def random_groups(rng: Any, n: int, n_agents: int, ties: bool = False) -> list[Choices]:
    if ties:
        return [
            group_of(rng.integers(1, 5, n_agents) / 1000, rng.integers(1, 6, n_agents) / 10)
            for _ in range(n)
        ]
    return [
        group_of(10 ** rng.uniform(-5, -2, n_agents), rng.uniform(0, 1, n_agents)) for _ in range(n)
    ]


def packed(groups: list[Choices]) -> tuple[Any, Choices]:
    first = np.cumsum([0, *(len(g) for g in groups)]).astype(np.uint32)
    return first, np.concatenate(groups)


def sums(groups: list[Choices], group: Any, level: Any) -> tuple[float, float]:
    cost = quality = 0.0
    for g, i in zip(group, level, strict=True):
        cost += float(groups[g]["cost"][i])
        quality += float(groups[g]["quality"][i])
    return cost, quality


def optimum(groups: list[Choices], group: Any, goal: str, limit: float) -> float | None:
    """The best of all plans."""
    best = None
    for level in itertools.product(*(range(len(groups[g])) for g in group)):
        cost, quality = sums(groups, group, level)
        if goal == "least_cost" and quality / len(group) >= limit - 1e-12:
            best = cost if best is None else min(best, cost)
        if goal == "most_quality" and cost <= limit * (1 + 1e-12):
            best = quality if best is None else max(best, quality)
    return best


def random_limit(rng: Any, groups: list[Choices], group: Any, goal: str) -> float:
    low = sums(groups, group, [0] * len(group))
    high = sums(groups, group, [len(groups[g]) - 1 for g in group])
    at = float(rng.uniform(-0.1, 1.1))
    if goal == "least_cost":
        return (low[1] + at * (high[1] - low[1])) / len(group)
    return low[0] + at * (high[0] - low[0])


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("ties", [False, True], ids=["random", "ties"])
def test_plan_of_few_requests_is_the_best_of_all_plans(rng: Any, goal: str, ties: bool) -> None:
    feasible = 0
    for _ in range(150):
        groups = random_groups(rng, int(rng.integers(1, 5)), int(rng.integers(1, 6)), ties)
        # Some requests come twice.
        group = np.concatenate(
            [np.arange(len(groups)), rng.integers(0, len(groups), int(rng.integers(0, 3)))]
        ).astype(np.uint32)
        limit = random_limit(rng, groups, group, goal)
        level, plan = _kernels.solve_plan(*packed(groups), group, goal, limit)
        best = optimum(groups, group, goal, limit)
        assert plan.is_feasible == (best is not None)
        cost, quality = sums(groups, group, level)
        assert (plan.cost, plan.quality) == (cost, quality)
        if best is not None:
            feasible += 1
            assert plan.is_exact
            got = cost if goal == "least_cost" else quality
            assert math.isclose(got, best, rel_tol=1e-9)
    assert feasible > 50


def relaxation(groups: list[Choices], group: Any, goal: str, limit: float) -> float:
    """The bound that SciPy's solver of linear programs finds over all choices."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    costs = np.concatenate([groups[g]["cost"] for g in group])
    qualities = np.concatenate([groups[g]["quality"] for g in group])
    item = np.repeat(np.arange(len(group)), [len(groups[g]) for g in group])
    one_each = csr_matrix((np.ones(len(item)), (item, np.arange(len(item)))))
    if goal == "least_cost":
        objective, row, bound = costs, -qualities, -limit * len(group)
    else:
        objective, row, bound = -qualities, costs, limit
    done = linprog(
        objective, A_ub=row[None, :], b_ub=[bound], A_eq=one_each, b_eq=np.ones(len(group))
    )
    assert done.status == 0, done.message
    return float(done.fun if goal == "least_cost" else -done.fun)


@pytest.mark.parametrize("hull_only", [False, True], ids=["all", "hull"])
@pytest.mark.parametrize("goal", GOALS)
def test_plan_of_many_requests_is_within_one_request_of_the_bound(
    rng: Any, goal: str, hull_only: bool
) -> None:
    for n in (30, 200, 2000):
        groups = random_groups(rng, n, 6)
        if hull_only:
            groups = [group_of(g["cost"], g["quality"], hull_only=True) for g in groups]
        group = np.concatenate([np.arange(n), rng.integers(0, n, n // 3)]).astype(np.uint32)
        low = sums(groups, group, [0] * len(group))
        high = sums(groups, group, [len(groups[g]) - 1 for g in group])
        at = float(rng.uniform(0.1, 0.9))
        limit = (
            (low[1] + at * (high[1] - low[1])) / len(group)
            if goal == "least_cost"
            else low[0] + at * (high[0] - low[0])
        )
        level, plan = _kernels.solve_plan(*packed(groups), group, goal, limit)
        assert plan.is_feasible
        bound = relaxation(groups, group, goal, limit)
        assert math.isclose(plan.bound, bound, rel_tol=1e-6)
        cost, quality = sums(groups, group, level)
        if goal == "least_cost":
            assert quality / len(group) >= limit - 1e-12
            one = max(float(g["cost"][-1] - g["cost"][0]) for g in groups)
            assert bound * (1 - 1e-6) <= cost <= bound + one
        else:
            assert cost <= limit * (1 + 1e-12)
            one = max(float(g["quality"][-1] - g["quality"][0]) for g in groups)
            assert bound * (1 + 1e-6) >= quality >= bound - one


@pytest.mark.parametrize("goal", GOALS)
def test_plan_of_equal_requests_gives_the_better_choice_to_the_first(goal: str) -> None:
    groups = [group_of([0.001, 0.003], [0.4, 0.6]) for _ in range(40)]
    group = np.arange(40, dtype=np.uint32)
    limit = 0.45 if goal == "least_cost" else 40 * 0.001 + 10 * 0.002
    level, _ = _kernels.solve_plan(*packed(groups), group, goal, limit)
    assert level.tolist() == [1] * 10 + [0] * 30
    # The same text ten times is no different from ten texts.
    one, _ = _kernels.solve_plan(*packed(groups[:1]), np.zeros(40, np.uint32), goal, limit)
    assert one.tolist() == level.tolist()


@pytest.mark.parametrize("n", [3, 30])
def test_plan_within_a_cap_that_doubles_miss_by_rounding_takes_all(n: int) -> None:
    # 0.1 + 0.1 + 0.1 > 0.3 in doubles.
    groups = [group_of([0.01, 0.1], [0.5, 0.9]) for _ in range(n)]
    level, plan = _kernels.solve_plan(
        *packed(groups), np.arange(n, dtype=np.uint32), "most_quality", n / 10
    )
    assert plan.is_feasible
    assert level.tolist() == [1] * n


@pytest.mark.parametrize("n", [5, 40])
def test_plan_that_nothing_reaches_says_what_is_reachable(rng: Any, n: int) -> None:
    groups = random_groups(rng, n, 4)
    group = np.arange(n, dtype=np.uint32)
    low = sums(groups, group, [0] * n)
    high = sums(groups, group, [len(g) - 1 for g in groups])
    level, plan = _kernels.solve_plan(*packed(groups), group, "least_cost", high[1] / n + 0.01)
    assert not plan.is_feasible
    assert plan.reachable == high[1] / n
    assert level.tolist() == [len(g) - 1 for g in groups]
    level, plan = _kernels.solve_plan(*packed(groups), group, "most_quality", low[0] * 0.99)
    assert not plan.is_feasible
    assert plan.reachable == low[0]
    assert level.tolist() == [0] * n
    for goal, limit in (("least_cost", high[1] / n), ("most_quality", low[0])):
        _, plan = _kernels.solve_plan(*packed(groups), group, goal, limit)
        assert plan.is_feasible


@pytest.mark.parametrize("n", [6, 60])
def test_plan_never_costs_more_than_the_fallback_whose_quality_it_reaches(rng: Any, n: int) -> None:
    below = 0
    for _ in range(30):
        groups = random_groups(rng, n, 5)
        group = np.arange(n, dtype=np.uint32)
        picks = [int(rng.integers(0, len(g))) for g in groups]
        fallback = np.array([g[i] for g, i in zip(groups, picks, strict=True)])
        cost, quality = sums(groups, group, picks)
        _, plan = _kernels.solve_plan(
            *packed(groups), group, "least_cost", math.nan, fallback=fallback
        )
        assert plan.is_feasible
        assert plan.limit == quality / n
        assert plan.cost <= cost
        assert plan.quality / n >= plan.limit - 1e-12
        below += plan.cost < cost
    assert below > 15


def test_plan_is_the_fallback_where_rounding_one_request_costs_more() -> None:
    # Only the hull is known, and the fallback lies inside of it: just enough, and cheaper.
    groups = [group_of([0.0, 1.0], [0.0, 1.0]) for _ in range(30)]
    fallback = np.concatenate([group_of([0.04], [0.01]) for _ in range(30)])
    level, plan = _kernels.solve_plan(
        *packed(groups), np.arange(30, dtype=np.uint32), "least_cost", math.nan, fallback=fallback
    )
    assert plan.cost == 1.0
    assert level.tolist().count(1) == 1
    assert math.isclose(plan.bound, 0.3)
    cheaper = np.concatenate([group_of([0.02], [0.01]) for _ in range(30)])
    level, plan = _kernels.solve_plan(
        *packed(groups), np.arange(30, dtype=np.uint32), "least_cost", math.nan, fallback=cheaper
    )
    assert math.isclose(plan.cost, 0.6)
    assert set(level.tolist()) == {_kernels.NONE}


def test_budget_divided_over_kinds_is_the_bound_rounded_to_whole_requests(rng: Any) -> None:
    for _ in range(60):
        n = int(rng.integers(1, 6))
        groups = random_groups(rng, n, 4)
        count = rng.integers(1, 2000, n).astype(float)
        low = sum(c * g["cost"][0] for c, g in zip(count, groups, strict=True))
        high = sum(c * g["cost"][-1] for c, g in zip(count, groups, strict=True))
        budget = float(rng.uniform(low, 1.2 * high))
        allotted, plan = _kernels.divide_budget(*packed(groups), count, budget, 4)
        assert plan.is_feasible
        assert allotted["cost"].sum() <= budget * (1 + 1e-12)
        assert math.isclose(allotted["requests"].sum(), count.sum())
        assert np.array_equal(allotted["requests"], np.floor(allotted["requests"]))
        assert math.isclose(allotted["quality"].sum(), plan.quality)
        # A kind that comes 1,000 times is 1,000 requests.
        group = np.repeat(np.arange(n), count.astype(int)).astype(np.uint32)
        _, single = _kernels.solve_plan(*packed(groups), group, "most_quality", budget)
        one = max(float(g["quality"][-1] - g["quality"][0]) for g in groups)
        assert single.bound + 1e-6 >= plan.quality >= single.bound - one
    _, plan = _kernels.divide_budget(*packed(groups), count, 0.5 * low, 4)
    assert not plan.is_feasible
    assert math.isclose(plan.reachable, low)


def test_choices_of_scored_agents_are_those_that_nothing_beats(rng: Any) -> None:
    for _ in range(100):
        n = int(rng.integers(0, 12))
        scores = scored(rng, n)
        c = scores.candidates
        eligible = c["rejected_by"] == 0
        known = eligible & ~np.isnan(c["cost"])
        dearest = c["cost"][known].max() if known.any() else 0.0
        for hull_only, needs_cost in itertools.product((False, True), repeat=2):
            kept, fallback = scores.choices(hull_only, needs_cost)
            use = np.flatnonzero(known if needs_cost else eligible)
            cost = np.where(np.isnan(c["cost"][use]), dearest, c["cost"][use])
            wanted = group_of(cost.tolist(), c["expected_quality"][use].tolist(), hull_only)
            assert kept["cost"].tolist() == wanted["cost"].tolist()
            assert kept["quality"].tolist() == wanted["quality"].tolist()
            assert kept["agent"].tolist() == use[wanted["agent"]].tolist()
            assert kept["similarity"].tolist() == c["similarity"][kept["agent"]].tolist()
            assert (kept["is_known"] == ~np.isnan(c["cost"][kept["agent"]])).all()
            if len(use):
                # The best of those that may be taken.
                preferred = use[np.argmax(c["score"][use])] if needs_cost else scores.best
                assert c["score"][fallback["agent"]] == c["score"][preferred]
                assert fallback["quality"] == c["expected_quality"][fallback["agent"]]
                assert fallback["is_known"] or not needs_cost


def registry(rng: Any, n: int, dim: int = 8) -> _kernels.Registry:
    agents = np.zeros(n, dtype=_kernels.AGENT_DTYPE)
    for name in ("cost_per_1k_tokens", "cost_per_1k_output_tokens", "cost_per_second"):
        agents[name] = math.nan
    agents["cost_per_call"] = np.where(rng.random(n) < 0.2, math.nan, rng.integers(0, 6, n) / 100)
    agents["avg_latency_ms"] = rng.integers(1, 2000, n)
    agents["quality_score"] = rng.integers(1, 11, n) / 10
    agents["success_rate"] = 1.0
    agents["active"] = rng.random(n) < 0.8
    agents["pool"] = _kernels.NONE
    agents["first_phrase"] = np.arange(n)
    agents["n_phrases"] = 1
    rows = rng.integers(-127, 128, (max(n, 1), dim), dtype=np.int8)
    scales = np.full(max(n, 1), 1 / 400, dtype=np.float32)
    return _kernels.Registry(agents, (), rows, scales, ["phrase"] * max(n, 1))


def scored(rng: Any, n: int) -> _kernels.Scores:
    vector = _kernels.normalise(rng.normal(size=8).astype(np.float32))
    return registry(rng, n).score(vector, mu=0.3, s=0.1, quality_weight=1.0)


def test_prior_choices_are_active_agents_of_known_cost_at_their_quality(rng: Any) -> None:
    for _ in range(30):
        many = registry(rng, int(rng.integers(0, 10)))
        a = many.agents
        kept = many.prior(100.0, 1000.0)
        use = np.flatnonzero(
            (a["active"] == 1) & ~np.isnan(a["cost_per_call"]) & (a["avg_latency_ms"] <= 1000.0)
        )
        wanted = group_of(a["cost_per_call"][use].tolist(), a["quality_score"][use].tolist())
        assert kept["cost"].tolist() == wanted["cost"].tolist()
        assert kept["agent"].tolist() == use[wanted["agent"]].tolist()


def test_plan_arrays_that_contradict_each_other_raise() -> None:
    choices = group_of([0.1, 0.2], [0.1, 0.2])
    for first, group in (
        ([0], [0]),
        ([0, 1], [0]),
        ([1, 2], [0]),
        ([0, 0, 2], [0]),
        ([0, 2], [1]),
        ([0, 3], [0]),
    ):
        with pytest.raises(ShapeError):
            _kernels.solve_plan(first, choices, group, "least_cost", 0.1)
    with pytest.raises(ShapeError):
        _kernels.solve_plan([0, 2], choices, [0], "least_cost", math.nan)
    level, plan = _kernels.solve_plan([0, 2], choices, [], "least_cost", 0.1)
    assert level.tolist() == []
    assert plan.is_feasible
