"""What the kernel must compute about semantic routes, in readable NumPy: for test_routes.py.

Vectors come in as the kernel has them, quantised; answers are float64.  Leave-one-out is done by
leaving out: everything is computed again without the utterance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from oracle import quantise

Array = npt.NDArray[Any]

GAMMA, LAMBDA = 3.0, 0.1
MAX_PRODUCTS, EXACT, SAMPLED = 1 << 20, 2048, 1024
POOLED = 30


@dataclass
class Registry:
    """Utterances x (n, dim) with their routes y (n,); bad and bad_y: negative examples."""

    x: Array
    y: Array
    bad: Array
    bad_y: Array
    n_routes: int


# ---------------------------------------------------------------- scores


def nearest_cosines(registry: Registry, query: Array, route: int) -> Array:
    """Cosines with a route's utterances, greatest first."""
    cosines = registry.x[registry.y == route] @ query
    return np.sort(np.clip(cosines, -1, 1))[::-1]


def centroid(registry: Registry, route: int) -> Array:
    total = registry.x[registry.y == route].sum(axis=0)
    length = np.linalg.norm(total)
    return total if length == 0 else total / length


def landmarks(registry: Registry) -> Array:
    """Numbers of the utterances that requests are compared with."""
    n = len(registry.x)
    most = MAX_PRODUCTS // (registry.x.shape[1] + registry.n_routes)
    m = n if n <= min(EXACT, most) else min(n, SAMPLED, most)
    return np.arange(m) * n // m


def kernel(a: Array, b: Array) -> Array:
    return np.exp(-GAMMA * (1 - np.clip(a @ b.T, -1, 1)))


def ridge_weights(registry: Registry) -> Array:
    """(n_routes, landmarks): the dual solution when all are landmarks, else the primal one."""
    targets = np.eye(registry.n_routes)[registry.y]
    chosen = landmarks(registry)
    features = kernel(registry.x, registry.x[chosen])
    if len(chosen) == len(registry.x):
        return np.linalg.solve(features + LAMBDA * np.eye(len(chosen)), targets).T
    gram = features.T @ features + LAMBDA * np.eye(len(chosen))
    return np.linalg.solve(gram, features.T @ targets).T


def raw_scores(registry: Registry, query: Array, scorer: str) -> Array:
    """Scores before negative examples; -inf for a route without utterances."""
    counts = np.bincount(registry.y, minlength=registry.n_routes)
    if scorer == "ridge":
        chosen = registry.x[landmarks(registry)]
        scores = kernel(query[None, :], chosen)[0] @ ridge_weights(registry).T
        return np.where(counts > 0, scores, -np.inf)
    scores = np.full(registry.n_routes, -np.inf)
    for route in np.flatnonzero(counts):
        cosines = nearest_cosines(registry, query, route)
        if scorer == "centroid":
            rows, scale = quantise(centroid(registry, route).astype(np.float32))
            scores[route] = np.clip(rows.astype(np.float64) * scale @ query, -1, 1)
        else:
            scores[route] = cosines[: 3 if scorer == "top3" else 1].mean()
    return scores


def less_negatives(registry: Registry, query: Array, scores: Array) -> Array:
    """What negative examples take away."""
    result = scores.copy()
    for route in range(registry.n_routes):
        negatives = registry.bad[registry.bad_y == route]
        if len(negatives) == 0 or not np.isfinite(scores[route]):
            continue
        n = float(np.clip(negatives @ query, -1, 1).max())
        p = nearest_cosines(registry, query, route)[0]
        if 1 - n < (1 - p) / 2:
            result[route] = -np.inf
        elif n > p:
            result[route] -= n - p
    return result


def scores(registry: Registry, query: Array, scorer: str) -> Array:
    return less_negatives(registry, query, raw_scores(registry, query, scorer))


# ---------------------------------------------------------------- the best


def select(
    scored: Array, k: int, priority: Array, threshold: Array, open_: Array, near: float
) -> list[int]:
    """The best k: near-ties by priority, each started by the best of what is left."""
    left = [
        i
        for i in range(len(scored))
        if open_[i] and np.isfinite(scored[i]) and scored[i] >= threshold[i]
    ]
    left.sort(key=lambda i: (-scored[i], i))
    order: list[int] = []
    while left:
        limit = np.float32(scored[left[0]]) - np.float32(near)
        tie = [i for i in left if scored[i] >= limit]
        left = left[len(tie) :]
        order += sorted(tie, key=lambda i: (-priority[i], -scored[i], i))
    return order[:k]


# ---------------------------------------------------------------- leave-one-out


def without(registry: Registry, row: int) -> Registry:
    keep = np.arange(len(registry.x)) != row
    return replace(registry, x=registry.x[keep], y=registry.y[keep])


@dataclass
class Outcomes:
    """Scores (q, n_routes) of utterances that have others in their route, their routes (q,), and
    which utterances they are (q,).
    """

    rows: Array
    owners: Array
    number: Array


def left_out(registry: Registry, scorer: str, hat: bool = False) -> Outcomes:
    """Everything computed again without each utterance.

    hat: the regression's by the hat matrix, with the landmarks as they are.
    """
    counts = np.bincount(registry.y, minlength=registry.n_routes)
    rows, owners = [], []
    if hat:
        chosen = registry.x[landmarks(registry)]
        features = kernel(registry.x, chosen)
        inverse = np.linalg.inv(features.T @ features + LAMBDA * np.eye(len(chosen)))
        fitted = features @ ridge_weights(registry).T
    for i in np.flatnonzero(counts[registry.y] >= 2):
        if hat:
            h = features[i] @ inverse @ features[i]
            own = np.eye(registry.n_routes)[registry.y[i]]
            plain = np.where(counts > 0, (fitted[i] - h * own) / (1 - h), -np.inf)
            rows.append(less_negatives(without(registry, i), registry.x[i], plain))
        else:
            rows.append(scores(without(registry, i), registry.x[i], scorer))
        owners.append(registry.y[i])
    # Two utterances that are nearest to each other have one score, whatever the order of the sums.
    number = np.flatnonzero(counts[registry.y] >= 2)
    return Outcomes(np.round(rows, 6), np.array(owners), number)


def accuracy(outcomes: Outcomes) -> float:
    rows, owners = outcomes.rows, outcomes.owners
    return float((rows.argmax(axis=1) == owners).mean())


def fit_logistic(x: Array, right: Array) -> tuple[float, float]:
    """mu and s of Platt's fit, by Newton's method with halved steps."""
    n_right, n_wrong = right.sum(), (~right).sum()
    target = np.where(right, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    mean, spread = x.mean(), x.std()
    design = np.stack([(x - mean) / spread, np.ones(len(x))], axis=1)

    def loss(w: Array) -> float:
        z = design @ w
        return float(np.sum(np.logaddexp(0, z) - target * z))

    w = np.zeros(2)
    for _ in range(200):
        p = 1 / (1 + np.exp(-design @ w))
        gradient = design.T @ (p - target)
        step = np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]), gradient)
        factor = 1.0
        while loss(w - factor * step) > loss(w) and factor > 1e-9:
            factor /= 2
        w = w - factor * step
        if np.abs(step).max() < 1e-12:
            break
    return float(mean - w[1] * spread / w[0]), float(spread / w[0])


def confidence(outcomes: Outcomes) -> tuple[float, float]:
    """Constants mu and s from which of the best routes were right.

    Where that says nothing: from the own routes of every other utterance, and the best wrong ones
    of the others.
    """
    rows, owners = outcomes.rows, outcomes.owners
    best = rows.argmax(axis=1)
    right = best == owners
    if right.sum() >= 5 and (~right).sum() >= 5:
        mu, s = fit_logistic(rows.max(axis=1), right)
        if s > 0:
            return mu, s
    own = outcomes.number % 2 == 0
    others = rows.copy()
    others[np.arange(len(rows)), owners] = -np.inf
    scored = np.where(own, rows[np.arange(len(rows)), owners], others.max(axis=1))
    return fit_logistic(scored[np.isfinite(scored)], own[np.isfinite(scored)])


# ---------------------------------------------------------------- thresholds


def answers(outcomes: Outcomes, threshold: Array) -> tuple[Array, Array]:
    """The route that each utterance is given (-1: none) and its score there."""
    rows = outcomes.rows
    passed = np.where(rows >= threshold, rows, -np.inf)
    given = np.where(np.isfinite(passed.max(axis=1)), passed.argmax(axis=1), -1)
    return given, passed.max(axis=1)


def for_precision(outcomes: Outcomes, wanted: float) -> Array:
    """Thresholds that rise until each route's precision, pooled with all, is what is wanted."""
    rows, owners = outcomes.rows, outcomes.owners
    n_routes = rows.shape[1]
    threshold = np.full(n_routes, -np.inf)
    while True:
        given, score = answers(outcomes, threshold)
        order = [q for q in np.lexsort((np.arange(len(rows)), -score)) if given[q] >= 0]
        right = given == owners
        n_given, n_right = np.zeros(n_routes), np.zeros(n_routes)
        least: dict[int, float] = {}
        pooled, all_right = np.inf, 0
        for place, q in enumerate(order, start=1):
            r = given[q]
            n_given[r] += 1
            n_right[r] += right[q]
            all_right += right[q]
            share = all_right / place
            if share >= wanted:
                pooled = score[q]
            if n_given[r] == 1:
                least[r] = score[q] + 2.0**-16
            if n_right[r] + POOLED * share >= wanted * (n_given[r] + POOLED):
                least[r] = score[q]
        new = np.array([least.get(r, pooled) for r in range(n_routes)])
        rises = np.isfinite(new) & (new > threshold)
        if not rises.any():
            return threshold
        threshold = np.where(rises, new, threshold)


def for_coverage(outcomes: Outcomes, wanted: float, counts: Array) -> Array:
    """The greatest thresholds at which each route is given that share of its utterances."""
    rows, owners = outcomes.rows, outcomes.owners
    given, score = answers(outcomes, np.full(rows.shape[1], -np.inf))
    result = np.full(rows.shape[1], -np.inf)
    for r in range(rows.shape[1]):
        own = np.sort(score[(given == r) & (owners == r)])[::-1]
        needed = int(np.ceil(wanted * counts[r] - 1e-9))
        if needed == 0:
            result[r] = 1.0
        elif needed <= len(own):
            result[r] = own[needed - 1]
    return result


def describe(outcomes: Outcomes, threshold: Array, counts: Array) -> list[dict[str, Any]]:
    """Precision, coverage and confusion of each route; None where there is nothing to say."""
    rows, owners = outcomes.rows, outcomes.owners
    given, _ = answers(outcomes, threshold)
    best = rows.argmax(axis=1)
    result = []
    for r in range(rows.shape[1]):
        right = ((given == r) & (owners == r)).sum()
        lost = np.bincount(best[(owners == r) & (best != r)], minlength=rows.shape[1])
        result.append(
            {
                "precision": right / (given == r).sum() if (given == r).any() else None,
                "coverage": right / counts[r] if counts[r] >= 2 else None,
                "confused_with": int(lost.argmax()) if lost.any() else None,
                "confusion": lost.max() / counts[r] if counts[r] else 0.0,
            }
        )
    return result
