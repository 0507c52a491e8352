"""exp, sigmoid and tanh of the kernel against longdouble NumPy, in units of the last place."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import sigmoid, ulp_error

from tinydancer import _kernels

# Every so-many-th float from 0 to the greatest: all exponents, a different set for each seed.
STRIDE = 9973


def every_magnitude(rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(STRIDE))
    return np.arange(start, 0x7F800000, STRIDE, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize(
    "low, high", [(-1.0, 1.0), (-30.0, 30.0), (-745.0, 709.7), (-745.2, -708.0)]
)
def test_exp_in_range_is_within_one_ulp(rng: np.random.Generator, low: float, high: float) -> None:
    x = rng.uniform(low, high, 100_000)
    assert ulp_error(_kernels.exp(x), np.exp(x.astype(np.longdouble))) < 1.0


def test_exp_at_the_edges_overflows_underflows_and_keeps_nan() -> None:
    x = np.array([0.0, -0.0, 709.782712893384, 709.7828, np.inf, -745.1332, -745.1333, -np.inf])
    want = [1.0, 1.0, np.exp(709.782712893384), np.inf, np.inf, 5e-324, 0.0, 0.0]
    got = _kernels.exp(x)
    # The third is within an ulp of the greatest double; libm may round it either way.
    assert got[2] == pytest.approx(want[2], rel=1e-15)
    got[2] = want[2]
    assert got.tolist() == want
    assert np.isnan(_kernels.exp(np.array([np.nan]))).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_sigmoid_of_every_magnitude_is_within_three_ulp(
    rng: np.random.Generator, sign: int
) -> None:
    x = np.ascontiguousarray(every_magnitude(rng) * np.float32(sign))
    assert ulp_error(_kernels.sigmoid(x), sigmoid(x.astype(np.longdouble))) < 3.0


@pytest.mark.parametrize("sign", [1, -1])
def test_tanh_of_every_magnitude_is_within_two_ulp(rng: np.random.Generator, sign: int) -> None:
    x = np.ascontiguousarray(every_magnitude(rng) * np.float32(sign))
    assert ulp_error(_kernels.tanh(x), np.tanh(x.astype(np.longdouble))) < 2.0


def test_activations_of_a_typical_range_are_within_their_bounds(rng: np.random.Generator) -> None:
    x = rng.normal(0.0, 3.0, 500_000).astype(np.float32)
    assert ulp_error(_kernels.sigmoid(x), sigmoid(x.astype(np.longdouble))) < 3.0
    assert ulp_error(_kernels.tanh(x), np.tanh(x.astype(np.longdouble))) < 2.0


def test_activations_of_infinity_nan_and_zero_are_exact() -> None:
    x = np.array([np.inf, -np.inf, 0.0, -0.0], dtype=np.float32)
    assert _kernels.sigmoid(x).tolist() == [1.0, 0.0, 0.5, 0.5]
    assert _kernels.tanh(x).tolist() == [1.0, -1.0, 0.0, -0.0]
    assert np.signbit(_kernels.tanh(x)).tolist() == [False, True, False, True]
    nan = np.array([np.nan, -np.nan], dtype=np.float32)
    assert np.isnan(_kernels.sigmoid(nan)).all()
    assert np.isnan(_kernels.tanh(nan)).all()


def test_tanh_of_opposite_inputs_is_odd(rng: np.random.Generator) -> None:
    x = rng.normal(0.0, 2.0, 10_000).astype(np.float32)
    assert (_kernels.tanh(-x) == -_kernels.tanh(x)).all()


@pytest.mark.parametrize("function", [_kernels.sigmoid, _kernels.tanh])
def test_activation_of_a_slice_equals_that_of_the_whole(
    rng: np.random.Generator, function: object
) -> None:
    # The vectorised body and the scalar tail must do the same operations.
    x = rng.normal(0.0, 4.0, 67).astype(np.float32)
    whole = function(x)  # type: ignore[operator]
    for n in range(67):
        assert function(x[:n].copy()).tobytes() == whole[:n].tobytes()  # type: ignore[operator]
