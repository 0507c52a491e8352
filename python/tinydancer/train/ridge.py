"""Kernel ridge regression of several outputs, each known for some of the rows.

A kernel matrix and outcomes come in, dual coefficients come out: the prediction for a row with
kernel values ``k`` is ``k @ coefficients``.  When every outcome is known, one Cholesky factor
serves all outputs.  When some are missing, what the outputs have in common is learned first, from
all rows, and then what is particular to each output, from the rows where it is known.  Used by
tinydancer.train.quality.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydancer.train.numeric import Array

__all__ = ["landmark_coefficients", "ridge_coefficients"]


def _solve(kernel: Array, targets: Array, strength: float | Array) -> Array:
    """``(kernel + diag(strength))^-1 targets``, in the kernel's precision; the kernel is kept."""
    from scipy.linalg import cho_factor, cho_solve

    system = kernel.copy()
    system[np.diag_indices(len(system))] += np.asarray(strength, kernel.dtype)
    factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    solved: Array = cho_solve(factor, targets.astype(kernel.dtype), check_finite=False)
    return solved


def _common(residual: Array, known: Array) -> tuple[Array, Array, Array]:
    """Rows with an outcome, the mean residual of each, and how many outcomes it is a mean of."""
    count = known.sum(axis=1)
    rows = np.flatnonzero(count)
    total = np.where(known, residual, 0).sum(axis=1)
    return rows, total[rows] / count[rows], count[rows]


def ridge_coefficients(kernel: Array, residual: Array, strength: float) -> Array:
    """Dual coefficients, at O(n^3).

    Args:
        kernel: ``(n, n)``.
        residual: ``(n, n_out)`` outcomes less what is to be predicted without the kernel; NaN:
            unknown.
        strength: what is added to the diagonal, greater than 0.

    Returns:
        ``(n, n_out)``; 0 where a row says nothing about an output.
    """
    known = ~np.isnan(residual)
    if known.all():
        return _solve(kernel, residual, strength)
    result = np.zeros(residual.shape, kernel.dtype)
    left = residual.copy()
    if residual.shape[1] > 1:
        rows, mean, count = _common(residual, known)
        # A mean of several outcomes is that much more certain.
        part = _solve(kernel[np.ix_(rows, rows)], mean[:, None], strength / count)
        result[rows] += part
        left -= kernel[:, rows] @ part
    for j in range(residual.shape[1]):
        rows = np.flatnonzero(known[:, j])
        if len(rows):
            result[rows, j] += _solve(kernel[np.ix_(rows, rows)], left[rows, j : j + 1], strength)[
                :, 0
            ]
    return result


def landmark_coefficients(cross: Array, landmarks: Any, residual: Array, strength: float) -> Array:
    """Coefficients of some of the rows alone: the Nystroem form, at O(n m^2) for m landmarks.

    Args:
        cross: ``(n, m)`` kernel of the rows with the landmarks.
        landmarks: ``(m,)`` their numbers among the rows.
        residual: ``(n, n_out)``; NaN: unknown.
        strength: greater than 0.

    Returns:
        ``(m, n_out)`` coefficients of the landmarks.
    """
    known = ~np.isnan(residual)
    own = cross[landmarks]
    # Landmarks may nearly repeat each other.
    jitter = 1e-4 * float(np.trace(own)) / len(own)

    def fit(rows: Array, target: Array, weight: Array) -> Array:
        part = cross[rows]
        weighted = part * weight[:, None].astype(cross.dtype)
        system = part.T @ weighted + strength * own
        return _solve(system, weighted.T @ target.astype(cross.dtype), jitter)

    if known.all():
        return fit(np.arange(len(cross)), residual, np.ones(len(cross)))
    result = np.zeros((len(own), residual.shape[1]), cross.dtype)
    left = residual.copy()
    if residual.shape[1] > 1:
        rows, mean, count = _common(residual, known)
        part = fit(rows, mean[:, None], count)
        result += part
        left -= cross @ part
    for j in range(residual.shape[1]):
        rows = np.flatnonzero(known[:, j])
        if len(rows):
            result[:, j] += fit(rows, left[rows, j : j + 1], np.ones(len(rows)))[:, 0]
    return result
