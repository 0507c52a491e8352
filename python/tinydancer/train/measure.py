"""Figures of held-out rows: accuracy and its interval, calibration error, area under the curve.

Predictions and outcomes come in, numbers come out.  Intervals are bootstrap intervals: rows are
drawn with replacement, which assumes nothing about the figure.  Used by trainers and report.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tinydancer.train.numeric import Array

__all__ = [
    "auroc",
    "calibration_error",
    "centroid_categories",
    "interval",
    "micro_f1",
    "reliability",
]

DRAWS = 1000
BINS = 15


def interval(
    figure: Callable[[npt.NDArray[np.int64]], float], n: int, seed: int, draws: int = DRAWS
) -> list[float]:
    """The 95 % bootstrap interval of a figure.

    Args:
        figure: of the numbers of rows that were drawn.
        n: number of rows.
        seed: of the draws.
        draws: how many.

    Returns:
        Its lower and upper end.
    """
    rng = np.random.default_rng([seed, 95])
    values = [figure(rng.integers(0, n, n)) for _ in range(draws)]
    return [float(v) for v in np.quantile(values, [0.025, 0.975])]


def reliability(confidence: Array, outcome: Array, bins: int = BINS) -> Array:
    """What was predicted and what came of it, by bins of equal width.

    Args:
        confidence: ``(n,)`` in [0, 1].
        outcome: ``(n,)`` in [0, 1].
        bins: how many.

    Returns:
        ``(bins, 3)``: number of rows, mean confidence, mean outcome; NaN for a bin without rows.
    """
    number = np.minimum((np.asarray(confidence) * bins).astype(np.int64), bins - 1)
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(number, v, bins) / count for v in (confidence, outcome)]
    return np.column_stack([count, *means])


def calibration_error(confidence: Array, outcome: Array, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence and outcome are apart, by bins.

    Args:
        confidence: ``(n,)`` in [0, 1].
        outcome: ``(n,)`` in [0, 1].
        bins: how many.

    Returns:
        The mean absolute difference, weighted by the rows of each bin.
    """
    table = reliability(confidence, outcome, bins)
    used = table[table[:, 0] > 0]
    return float((used[:, 0] * np.abs(used[:, 1] - used[:, 2])).sum() / len(confidence))


def auroc(inside: Array, outside: Array) -> float:
    """Probability that a row from inside scores higher than one from outside; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([inside, outside]))[: len(inside)]
    n = len(inside)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(outside)))


def micro_f1(predicted: Array, truth: Array) -> float:
    """F1 of all labels together: 2 TP / (2 TP + FP + FN); 1 when there is nothing to find.

    Args:
        predicted: ``(n, n_out)`` of bool.
        truth: ``(n, n_out)`` of bool.
    """
    both, either = int((predicted & truth).sum()), int(predicted.sum() + truth.sum())
    return 2 * both / either if either else 1.0


def centroid_categories(
    vectors: Array, labels: npt.NDArray[np.int64], new: Array, n_out: int
) -> npt.NDArray[np.int64]:
    """The category whose mean vector is nearest: what can be had without training.

    Args:
        vectors: ``(n, dim)`` of the training rows.
        labels: ``(n,)`` their categories.
        new: ``(m, dim)``.
        n_out: number of categories.

    Returns:
        ``(m,)`` categories.
    """
    means = np.zeros((n_out, vectors.shape[1]))
    np.add.at(means, labels, vectors)
    length = np.linalg.norm(means, axis=1, keepdims=True)
    nearest: npt.NDArray[np.int64] = (new @ (means / np.where(length > 0, length, 1)).T).argmax(1)
    return nearest
