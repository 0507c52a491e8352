"""Small numerical helpers of training: one thread, stable functions, split of rows.

Arrays in, arrays out; used by every module of this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "folds", "log_softmax", "one_thread", "sigmoid", "softmax", "softplus"]

Array = npt.NDArray[Any]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use one thread: how a sum is split among threads changes its last bits."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, in the precision of ``x``."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def log_softmax(x: Array) -> Array:
    """Logarithms of the softmax of each row."""
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(x: Array) -> Array:
    """Softmax of each row."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def folds(
    n: int, k: int, rng: np.random.Generator, strata: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """The fold, 0 to k - 1, of each of n rows.

    Args:
        n: number of rows.
        k: number of folds.
        rng: of the seed.
        strata: ``(n,)``; rows of each stratum are spread over the folds as evenly as can be.

    Returns:
        ``(n,)`` numbers of folds.
    """
    order = rng.permutation(n)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(n, np.int64)
    fold[order] = np.arange(n) % k
    return fold
