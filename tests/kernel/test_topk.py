"""The nearest rows by cosine: against an exhaustive sort, with ties and edges."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import topk_cosine

from tinydancer import _kernels
from tinydancer.errors import NonFiniteError, ShapeError

LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]


def unit_rows(rng: np.random.Generator, n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.zeros((n, dim), dtype=np.int8)
    scales = np.zeros(n, dtype=np.float32)
    for i in range(n):
        vector = _kernels.normalise(rng.normal(size=dim).astype(np.float32))
        rows[i], scales[i] = _kernels.quantise(vector)
    return rows, scales


def unit(rng: np.random.Generator, dim: int) -> np.ndarray:
    return _kernels.normalise(rng.normal(size=dim).astype(np.float32))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n, dim", [(1, 1), (7, 16), (100, 33), (1000, 384)])
def test_topk_of_random_rows_equals_an_exhaustive_sort(
    rng: np.random.Generator, n: int, dim: int, level: str
) -> None:
    rows, scales = unit_rows(rng, n, dim)
    query = unit(rng, dim)
    for k in (1, 2, 5, n - 1, n, n + 3):
        if k < 0:
            continue
        index, score = _kernels.topk_cosine(query, rows, scales, k, level=level)
        want_index, want_score = topk_cosine(query, rows, scales, k)
        assert index.tolist() == want_index.tolist()
        assert score.tobytes() == want_score.tobytes()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n, dim", [(1, 1), (7, 16), (16, 5), (100, 33), (160, 31), (1000, 384)])
def test_topk_of_packed_rows_has_the_bits_of_unpacked_ones(
    rng: np.random.Generator, n: int, dim: int, level: str
) -> None:
    rows, scales = unit_rows(rng, n, dim)
    nearest = _kernels.Nearest(rows, scales, level=level)
    assert nearest.sketch_size == 0
    for query in (unit(rng, dim), np.zeros(dim, dtype=np.float32)):
        for k in (0, 1, 2, 5, n, n + 3):
            index, score, is_exact = nearest.search(query, k)
            want_index, want_score = _kernels.topk_cosine(query, rows, scales, k, level=level)
            assert is_exact
            assert index.tolist() == want_index.tolist()
            assert score.tobytes() == want_score.tobytes()


def test_topk_of_packed_extremes_is_exact(rng: np.random.Generator) -> None:
    # The greatest products there are, of both signs, at dimensions that fill no block.
    dim = 4099
    rows = np.full((19, dim), 127, dtype=np.int8)
    rows[1::2] = -127
    scales = rng.uniform(0.5, 1, 19).astype(np.float32) / np.float32(127 * 64)
    scales[4] = np.nan
    query = _kernels.normalise(np.ones(dim, dtype=np.float32))
    for level in LEVELS:
        index, score, _ = _kernels.Nearest(rows, scales, level=level).search(query, 19)
        want_index, want_score = _kernels.topk_cosine(query, rows, scales, 19, level="portable")
        assert index.tolist() == want_index.tolist()
        assert score.tobytes() == want_score.tobytes()


def test_topk_of_equal_rows_orders_them_by_number(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 4, 32)
    # Twelve rows of four kinds: three of each are equal to the bit.
    rows, scales = np.tile(rows, (3, 1)), np.tile(scales, 3)
    for k in range(13):
        index, score = _kernels.topk_cosine(unit(rng, 32), rows, scales, k)
        keys = [(-cosine, number) for cosine, number in zip(score, index, strict=True)]
        assert keys == sorted(keys)
        assert len(index) == k
        # Among equals the lower numbers must be the ones that were kept.
        for number in index.tolist():
            assert all(lower in index for lower in range(number % 4, number, 4))


def test_topk_near_float64_cosine_loses_at_most_the_quantising_error(
    rng: np.random.Generator,
) -> None:
    dim = 384
    vectors = np.stack([unit(rng, dim) for _ in range(200)])
    packed = [_kernels.quantise(vector) for vector in vectors]
    rows = np.stack([q for q, _ in packed])
    scales = np.array([scale for _, scale in packed], dtype=np.float32)
    query = unit(rng, dim)
    index, score = _kernels.topk_cosine(query, rows, scales, 200)
    exact = vectors.astype(np.float64) @ query.astype(np.float64)
    # Each element of query and row is off by half a step at most; random signs make it far less.
    assert np.abs(score - exact[index]).max() < 0.005


def test_topk_of_itself_is_first_and_at_most_one(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 50, 64)
    query = np.ascontiguousarray(_kernels.normalise(rows[17] * scales[17]))
    index, score = _kernels.topk_cosine(query, rows, scales, 1)
    assert index.tolist() == [17]
    assert 0.999 < score[0] <= 1.0


def test_topk_of_a_scale_that_is_no_number_is_farthest(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 40, 16)
    scales[7] = np.nan
    query = unit(rng, 16)
    for k in (1, 3, 40):
        index, score = _kernels.topk_cosine(query, rows, scales, k)
        assert (7 in index.tolist()) == (k == 40)
        assert not np.isnan(score).any()


def test_topk_of_a_zero_query_or_row_has_cosine_zero(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 5, 16)
    index, score = _kernels.topk_cosine(np.zeros(16, dtype=np.float32), rows, scales, 5)
    assert index.tolist() == [0, 1, 2, 3, 4]
    assert not score.any()
    rows[2], scales[2] = 0, 0.0
    index, score = _kernels.topk_cosine(unit(rng, 16), rows, scales, 5)
    assert score[index.tolist().index(2)] == 0.0


def test_topk_of_no_rows_or_no_neighbours_is_empty(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 3, 8)
    assert _kernels.topk_cosine(unit(rng, 8), rows, scales, 0)[0].shape == (0,)
    index, score = _kernels.topk_cosine(unit(rng, 8), rows[:0], scales[:0], 4)
    assert index.shape == score.shape == (0,)


def test_topk_of_contradicting_shapes_is_refused(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 3, 8)
    with pytest.raises(ShapeError, match="different vector dimensions 8 and 9"):
        _kernels.topk_cosine(unit(rng, 9), rows, scales, 1)
    with pytest.raises(ShapeError, match="different numbers of rows and scales 3 and 2"):
        _kernels.topk_cosine(unit(rng, 8), rows, scales[:2], 1)
    with pytest.raises(ShapeError, match="number of neighbours is negative"):
        _kernels.topk_cosine(unit(rng, 8), rows, scales, -1)
    with pytest.raises(ShapeError, match="rows has the wrong shape or element type"):
        _kernels.topk_cosine(unit(rng, 4), rows[:, ::2], scales, 1)
    with pytest.raises(ShapeError, match="dimensions do not fit together"):
        empty = np.zeros(0, dtype=np.float32)
        _kernels.topk_cosine(empty, np.zeros((3, 0), dtype=np.int8), scales, 1)


def test_topk_of_a_query_with_nan_is_refused(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 3, 8)
    query = unit(rng, 8)
    query[5] = np.nan
    with pytest.raises(NonFiniteError, match="vector contains NaN or infinity"):
        _kernels.topk_cosine(query, rows, scales, 1)


def test_topk_with_scales_of_nan_ranks_those_rows_last(rng: np.random.Generator) -> None:
    rows, scales = unit_rows(rng, 6, 16)
    scales[3] = np.nan
    index, score = _kernels.topk_cosine(unit(rng, 16), rows, scales, 6)
    assert index[-1] == 3 and score[-1] == -1.0
