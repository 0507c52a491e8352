"""Figures of routers: cost-quality curves and their area, share of the gap recovered, intervals.

Decisions and outcomes come in, numbers come out.  Used by tinydancer.evaluate.llm and by
bench/quality.py.

Vocabulary
    curve    the mean cost and mean quality of a router's decisions, one point for each weight of
             cost against quality
    area     of RouterBench (Hu et al. 2024, "AIQ"): the mean height of the curve's non-decreasing
             convex hull between the cheapest and the dearest price
    APGR     of RouteLLM (Ong et al. 2024): the mean share of the gap between a weak and a strong
             agent that is recovered, over all shares of calls to the strong one
    CPT(x)   of RouteLLM: the share of calls to the strong agent, in per cent, at which x per cent
             of the gap are recovered
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Curve",
    "apgr",
    "area",
    "argmax",
    "call_share",
    "curve_of",
    "hull",
    "resampled_areas",
]

Array = npt.NDArray[np.float64]

# Weights of cost, for prices as shares of the dearest: from one that breaks ties only to one
# that buys quality for nothing.
_WEIGHTS = np.concatenate([[0.0], np.logspace(-3, 1.5, 91)])


def _under(y: Array, x: Array) -> float:
    """The area under straight lines between points."""
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def argmax(value: Array, price: Array) -> npt.NDArray[np.int64]:
    """The best agent of each request; of equals the cheaper one, then the first.

    Args:
        value: ``(n, n_agents)``.
        price: ``(n_agents,)``.

    Returns:
        ``(n,)`` numbers of agents.
    """
    order = np.argsort(price, kind="stable")
    best: npt.NDArray[np.int64] = order[value[:, order].argmax(axis=1)]
    return best


@dataclass(frozen=True)
class Curve:
    """What a router does at each weight of cost; the first point ignores cost.

    Attributes:
        cost: ``(n_points, n)`` price of the agent chosen for each request.
        quality: ``(n_points, n)`` what came of it.
    """

    cost: Array
    quality: Array

    @property
    def points(self) -> Array:
        """``(n_points, 2)`` mean cost and mean quality."""
        return np.column_stack([self.cost.mean(axis=1), self.quality.mean(axis=1)])


def curve_of(predicted: Array, outcome: Array, price: Array) -> Curve:
    """Decide at every weight of cost, down to the cheapest agent for everything.

    Args:
        predicted: ``(n, n_agents)`` qualities that the router expects.
        outcome: ``(n, n_agents)`` qualities that came.
        price: ``(n_agents,)`` of a call.
    """
    share = price / price.max() if price.max() > 0 else price
    rows = np.arange(len(outcome))
    chosen = [argmax(predicted - weight * share, price) for weight in _WEIGHTS]
    chosen.append(np.full(len(outcome), argmax(np.zeros((1, len(price))), price)[0]))
    distinct: list[npt.NDArray[np.int64]] = []
    for one in chosen:
        if not distinct or not np.array_equal(one, distinct[-1]):
            distinct.append(one)
    return Curve(
        np.stack([price[one] for one in distinct]),
        np.stack([outcome[rows, one] for one in distinct]),
    )


def hull(points: Array) -> Array:
    """The corners of the non-decreasing convex hull over points, by cost.

    Args:
        points: ``(n, 2)`` cost and quality.

    Returns:
        ``(k, 2)``, both columns increasing; mixing two routers at random reaches all between.
    """
    corners: list[tuple[float, float]] = []
    for x, y in points[np.lexsort((-points[:, 1], points[:, 0]))].tolist():
        if corners and y <= corners[-1][1]:
            continue
        while len(corners) >= 2:
            (ax, ay), (bx, by) = corners[-2:]
            if (by - ay) * (x - ax) > (y - ay) * (bx - ax):
                break
            corners.pop()
        corners.append((x, y))
    return np.array(corners)


def area(points: Array, least: float, most: float) -> float:
    """The mean height of the hull between two prices.

    Args:
        points: ``(n, 2)`` cost and quality.
        least: the cheapest price.
        most: the dearest one; equal to ``least``, the best quality is the result.
    """
    corners = hull(points)
    x = np.concatenate([corners[:, 0], [max(most, corners[-1, 0])]])
    y = np.concatenate([corners[:, 1], [corners[-1, 1]]])
    if most <= least:
        return float(y[-1])
    # Before the first corner nothing worse than it can be bought.
    at = np.concatenate([[least], x[(x > least) & (x < most)], [most]])
    return _under(np.interp(at, x, y), at) / (most - least)


def resampled_areas(
    curves: dict[str, Curve], least: float, most: float, times: int, seed: int
) -> dict[str, Array]:
    """The area of each router over the same random draws of requests.

    Args:
        curves: by router, all on the same requests.
        least: the cheapest price.
        most: the dearest one.
        times: how many draws, each of as many requests as there are.
        seed: of the draws.

    Returns:
        ``(times,)`` areas by router; their differences are paired.
    """
    n = next(iter(curves.values())).cost.shape[1]
    rng = np.random.default_rng(seed)
    result: dict[str, list[float]] = {name: [] for name in curves}
    for _ in range(times):
        count = np.bincount(rng.integers(n, size=n), minlength=n) / n
        for name, curve in curves.items():
            points = np.column_stack([curve.cost @ count, curve.quality @ count])
            result[name].append(area(points, least, most))
    return {name: np.array(values) for name, values in result.items()}


# ---------------------------------------------------------------- two agents


def _recovered(preference: Array, gain: Array) -> Array:
    """Share of the gap recovered when the first 0 .. n requests by preference go to the strong."""
    order = np.argsort(-preference, kind="stable")
    result: Array = np.concatenate([[0.0], np.cumsum(gain[order])]) / gain.sum()
    return result


def apgr(preference: Array, weak: Array, strong: Array) -> float | None:
    """Average performance gap recovered.

    Args:
        preference: ``(n,)`` how much the router wants the strong agent for each request.
        weak: ``(n,)`` outcomes of the weak agent.
        strong: ``(n,)`` outcomes of the strong one.

    Returns:
        0.5 for a random router, 1 for the strong agent's quality at no calls; None without a gap.
    """
    gain = strong - weak
    if gain.sum() <= 0:
        return None
    recovered = _recovered(preference, gain)
    return _under(recovered, np.linspace(0, 1, len(recovered)))


def call_share(preference: Array, weak: Array, strong: Array, wanted: float) -> float | None:
    """The least share of calls to the strong agent that recovers a share of the gap.

    Args:
        preference: as for ``apgr``.
        weak: as for ``apgr``.
        strong: as for ``apgr``.
        wanted: share of the gap, in [0, 1].

    Returns:
        In per cent; None without a gap.
    """
    gain = strong - weak
    if gain.sum() <= 0:
        return None
    recovered = _recovered(preference, gain)
    at = int(np.argmax(recovered >= wanted - 1e-12))
    if at == 0:
        return 0.0
    before, after = recovered[at - 1], recovered[at]
    return float(100 * (at - 1 + (wanted - before) / (after - before)) / len(gain))
