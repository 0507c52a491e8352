"""A matrix times a vector: against NumPy, and every level against exact sums, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import matvec_i8

from tinydancer import _kernels
from tinydancer.errors import InvalidInputError, NonFiniteError, ShapeError

LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]
# Lengths on both sides of 16, 32 and 64 elements; rows on both sides of 4, 8, 16 and 64.
DIMS = [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 384, 768, 1000]
ROWS = [1, 2, 3, 5, 7, 8, 9, 15, 17, 21, 63, 64, 65, 130]


def rows_f32(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.normal(size=(n, dim)).astype(np.float32)


def rows_i8(rng: np.random.Generator, n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    # -128 too: quantising does not make it, but a file may hold it.
    rows = rng.integers(-128, 128, (n, dim)).astype(np.int8)
    return rows, rng.uniform(1e-4, 1e-2, n).astype(np.float32)


def vector(rng: np.random.Generator, dim: int) -> np.ndarray:
    return rng.normal(size=dim).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dim", DIMS)
def test_float_product_has_the_bits_of_single_dot_products(
    rng: np.random.Generator, dim: int, level: str
) -> None:
    for n in ROWS:
        matrix, x = rows_f32(rng, n, dim), vector(rng, dim)
        got = _kernels.matvec(matrix, x, level=level)
        want = np.array([_kernels.dot(row, x) for row in matrix], dtype=np.float32)
        assert got.tobytes() == want.tobytes(), n
        exact = matrix.astype(np.float64) @ x
        assert (
            np.abs(got - exact).max() < 1e-5 * (1 + np.abs(matrix).astype(float) @ np.abs(x)).max()
        )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dim", DIMS)
def test_int8_product_has_the_bits_of_exact_sums(
    rng: np.random.Generator, dim: int, level: str
) -> None:
    for n in ROWS:
        (matrix, scales), x = rows_i8(rng, n, dim), vector(rng, dim)
        got = _kernels.matvec(matrix, x, scales, level=level)
        assert got.tobytes() == matvec_i8(matrix, scales, x).tobytes(), n


@pytest.mark.parametrize("level", LEVELS)
def test_int8_product_of_extreme_rows_does_not_saturate(level: str) -> None:
    # All products of one sign and of greatest magnitude, at the greatest length.
    for dim in (64, 131072):
        matrix = np.stack([np.full(dim, value, dtype=np.int8) for value in (-128, 127, -127, 0, 1)])
        scales = np.ones(5, dtype=np.float32)
        for sign in (1, -1):
            x = np.full(dim, sign * 127, dtype=np.float32)
            got = _kernels.matvec(matrix, x, scales, level=level)
            assert got.tobytes() == matvec_i8(matrix, scales, x).tobytes()


@pytest.mark.parametrize("level", LEVELS)
def test_product_of_special_vectors_has_the_same_bits_at_every_level(
    rng: np.random.Generator, level: str
) -> None:
    matrix, scales = rows_i8(rng, 9, 70)
    tiny = np.zeros(70, dtype=np.float32)
    tiny[3] = 1e-45
    for x in (np.zeros(70, np.float32), tiny, -tiny, vector(rng, 70) * np.float32(1e-40),
              vector(rng, 70) * np.float32(1e37)):  # fmt: skip
        got = _kernels.matvec(matrix, x, scales, level=level)
        assert got.tobytes() == matvec_i8(matrix, scales, x).tobytes()
        floats = rows_f32(rng, 9, 70) * np.float32(1e-3)
        want = _kernels.matvec(floats, x, level="portable")
        assert _kernels.matvec(floats, x, level=level).tobytes() == want.tobytes()


@pytest.mark.parametrize("level", LEVELS)
def test_product_of_unaligned_arrays_is_that_of_aligned_ones(
    rng: np.random.Generator, level: str
) -> None:
    matrix, x = rows_f32(rng, 5, 33), vector(rng, 33)
    (bytes_, scales) = rows_i8(rng, 5, 33)
    want = _kernels.matvec(matrix, x, level=level), _kernels.matvec(bytes_, x, scales, level=level)
    for offset in (1, 2, 3):
        room = np.zeros(matrix.size + 16, dtype=np.float32)
        moved = room[offset : offset + matrix.size].reshape(matrix.shape)
        moved[:] = matrix
        byte_room = np.zeros(bytes_.size + 64, dtype=np.int8)
        moved_bytes = byte_room[offset : offset + bytes_.size].reshape(bytes_.shape)
        moved_bytes[:] = bytes_
        moved_x = np.zeros(33 + offset, dtype=np.float32)[offset:]
        moved_x[:] = x
        assert _kernels.matvec(moved, moved_x, level=level).tobytes() == want[0].tobytes()
        got = _kernels.matvec(moved_bytes, moved_x, scales, level=level)
        assert got.tobytes() == want[1].tobytes()


def test_product_without_rows_is_empty(rng: np.random.Generator) -> None:
    x = vector(rng, 8)
    assert _kernels.matvec(np.zeros((0, 8), np.float32), x).shape == (0,)
    none = np.zeros((0, 8), np.int8)
    assert _kernels.matvec(none, x, np.zeros(0, np.float32)).shape == (0,)


def test_product_of_wrong_arrays_is_refused(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, x = rows_f32(rng, 3, 8), vector(rng, 8)
    bytes_, scales = rows_i8(rng, 3, 8)
    with pytest.raises(ShapeError, match="different vector dimensions 8 and 7"):
        _kernels.matvec(matrix, x[:7].copy())
    with pytest.raises(ShapeError, match="different vector dimensions 8 and 7"):
        _kernels.matvec(bytes_, x[:7].copy(), scales)
    with pytest.raises(ShapeError, match="different numbers of rows and scales 3 and 2"):
        _kernels.matvec(bytes_, x, scales[:2].copy())
    with pytest.raises(ShapeError, match="matrix has the wrong shape or element type"):
        _kernels.matvec(bytes_, x)
    with pytest.raises(ShapeError, match="1 to 131072 are possible"):
        _kernels.matvec(np.zeros((3, 0), np.float32), np.zeros(0, np.float32))
    bad = x.copy()
    bad[7] = np.inf
    for call in (
        lambda: _kernels.matvec(matrix, bad),
        lambda: _kernels.matvec(bytes_, bad, scales),
    ):
        with pytest.raises(NonFiniteError):
            call()
    with pytest.raises(InvalidInputError, match='unknown kernel level "sse9"'):
        _kernels.matvec(matrix, x, level="sse9")
    monkeypatch.setenv("TINYDANCER_KERNEL_LEVEL", "mmx")
    with pytest.raises(InvalidInputError, match='unknown kernel level "mmx"'):
        _kernels.matvec(matrix, x)
