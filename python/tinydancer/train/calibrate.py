"""Calibration: what makes 0.8 mean that eight of ten are right.

Out-of-fold scores and outcomes come in; a temperature, an affine map or a curve of knots comes out,
which the model file holds and the kernel applies.  Used by the trainers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tinydancer.train.numeric import Array, log_softmax, sigmoid, softplus

__all__ = ["Curve", "affine", "best_curve", "temperature"]

# Knots of a curve: x increasing, y in [0, 1] and not decreasing.
Curve = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
KNOTS = 33
_EDGE = 1e-6


def temperature(scores: Array, labels: npt.NDArray[np.int64]) -> float:
    """What the scores of a softmax are to be divided by (Guo et al. 2017).

    Args:
        scores: ``(n, n_out)`` out of fold.
        labels: ``(n,)`` true categories.

    Returns:
        The temperature with the least cross-entropy, between 0.02 and 50.
    """
    from scipy.optimize import minimize_scalar

    # As in Platt's targets: without an error among n rows, the next one may still be wrong.
    doubt = 1 / (len(labels) + 2)
    targets = np.full(scores.shape, doubt / scores.shape[1])
    targets[np.arange(len(labels)), labels] += 1 - doubt

    def loss(log_t: float) -> float:
        logs = log_softmax(scores.astype(np.float64) / np.exp(log_t))
        return float(-(targets * logs).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.02), np.log(50)), method="bounded")
    return float(np.exp(found.x))


def affine(scores: Array, outcome: Array, weight: Array | None = None) -> tuple[float, float]:
    """Platt's a and b: sigmoid(a score + b) is the probability of the outcome.

    Args:
        scores: of any shape, out of fold.
        outcome: of the same shape, in [0, 1].
        weight: of the same shape; 0: unknown.

    Returns:
        a, at least 0.001, and b.
    """
    from scipy.optimize import minimize

    s, y = scores.ravel().astype(np.float64), outcome.ravel().astype(np.float64)
    w = np.ones(len(s)) if weight is None else weight.ravel().astype(np.float64)
    # Unknown outcomes may be NaN.  Platt's prior keeps a perfect separation finite.
    y = np.where(w > 0, y, 0)
    ones = float((w * y).sum())
    zeros = float((w * (1 - y)).sum())
    y = y * (ones + 1) / (ones + 2) + (1 - y) / (zeros + 2)

    def loss(v: Array) -> tuple[float, Array]:
        t = v[0] * s + v[1]
        delta = (sigmoid(t) - y) * w / w.sum()
        grad = np.array([(delta * s).sum(), delta.sum()])
        return float(((softplus(t) - y * t) * w).sum() / w.sum()), grad

    bounds = [(1e-3, None), (None, None)]
    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    return float(found.x[0]), float(found.x[1])


def platt_curve(p: Array, outcome: Array) -> Curve:
    """A logistic curve of the log odds, as knots."""
    p = np.clip(p.astype(np.float64), _EDGE, 1 - _EDGE)
    a, b = affine(np.log(p / (1 - p)), outcome)
    x = np.linspace(0, 1, KNOTS)
    inner = np.clip(x, _EDGE, 1 - _EDGE)
    return x.astype(np.float32), sigmoid(a * np.log(inner / (1 - inner)) + b).astype(np.float32)


def isotonic_curve(p: Array, outcome: Array) -> Curve:
    """The rising curve with the least squared error, as knots at quantiles of p."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, outcome)
    x = np.unique(np.quantile(p, np.linspace(0, 1, KNOTS)).astype(np.float32))
    if len(x) < 2:
        x = np.array([0, 1], np.float32)
    # The mean round each knot: a step at the knot itself would be all or nothing.
    fine = np.interp(x, *_smoothed(p, fitted.predict(p)))
    return x, np.maximum.accumulate(fine.clip(0, 1)).astype(np.float32)


def _smoothed(p: Array, y: Array) -> tuple[Array, Array]:
    """Means of x and y over groups of equal size, for interpolation."""
    order = np.argsort(p, kind="stable")
    groups = np.array_split(order, min(KNOTS, len(order)))
    x = np.array([p[g].mean() for g in groups])
    means = np.array([y[g].mean() for g in groups])
    x, first = np.unique(x, return_index=True)
    return x, means[first]


def apply_curve(curve: Curve | None, p: Array) -> Array:
    """Piecewise linear between the knots, flat outside."""
    return p if curve is None else np.interp(p, curve[0], curve[1])


def best_curve(p: Array, outcome: Array, seed: int) -> Curve | None:
    """None, a logistic or an isotonic curve: what has the least squared error on other rows.

    Args:
        p: ``(n,)`` probabilities out of fold.
        outcome: ``(n,)`` in [0, 1].
        seed: of the halves that judge each other.

    Returns:
        The curve fitted to all rows.
    """
    makers: list[Callable[[Array, Array], Curve]] = [platt_curve]
    if len(p) >= 1000:
        makers.append(isotonic_curve)
    if len(p) < 20:
        return None
    half = np.random.default_rng([seed, 2]).permutation(len(p)) % 2 == 0
    best, chosen = float(((p - outcome) ** 2).mean()), None
    for make in makers:
        error = 0.0
        for side in (half, ~half):
            curve = make(p[side], outcome[side])
            error += float(((apply_curve(curve, p[~side]) - outcome[~side]) ** 2).sum())
        if error / len(p) < best:
            best, chosen = error / len(p), make
    return None if chosen is None else chosen(p, outcome)
