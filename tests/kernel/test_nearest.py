"""The nearest of very many rows: against comparing all, whether or not the sketch can serve."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import topk_cosine

from tinydancer import _kernels
from tinydancer.errors import InvalidInputError, NonFiniteError, ShapeError

LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]


def random_rows(rng: np.random.Generator, n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a length near 1, and their scales."""
    rows = rng.integers(-127, 128, (n, dim)).astype(np.int8)
    lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
    return rows, (1 / np.maximum(lengths, 1)).astype(np.float32)


def near(rng: np.random.Generator, row: np.ndarray, noise: float) -> np.ndarray:
    """A unit vector near a row."""
    moved = row + noise * np.linalg.norm(row) / np.sqrt(len(row)) * rng.normal(size=len(row))
    return _kernels.normalise(moved.astype(np.float32))


# Dimensions on both sides of a word of 64 signs; rows on both sides of a group of 8.
@pytest.mark.parametrize("n, dim", [(20000, 384), (9001, 129), (30007, 128), (12345, 200)])
def test_search_near_a_row_finds_it_without_comparing_all(
    rng: np.random.Generator, n: int, dim: int
) -> None:
    rows, scales = random_rows(rng, n, dim)
    nearest = _kernels.Nearest(rows, scales)
    assert nearest.sketch_size == (n + 7) // 8 * ((dim + 63) // 64) * 64
    for number in [*rng.integers(n, size=20).tolist(), 0, n - 1]:
        query = near(rng, rows[number], 0.3)
        index, score, is_exact = nearest.search(query, 1)
        want_index, want_score = topk_cosine(query, rows, scales, 1)
        assert not is_exact
        assert index.tolist() == want_index.tolist() == [number]
        assert score.tobytes() == want_score.tobytes()


@pytest.mark.parametrize("n, dim", [(1, 1), (7, 16), (100, 33), (5000, 70)])
def test_search_of_far_rows_compares_all(rng: np.random.Generator, n: int, dim: int) -> None:
    rows, scales = random_rows(rng, n, dim)
    nearest = _kernels.Nearest(rows, scales)
    for k in (1, 3, n, n + 3):
        query = _kernels.normalise(rng.normal(size=dim).astype(np.float32))
        index, score, is_exact = nearest.search(query, k)
        want_index, want_score = topk_cosine(query, rows, scales, k)
        # Few dimensions say little: all rows were compared, or the answer is the same.
        assert index.tolist() == want_index.tolist()
        assert score.tobytes() == want_score.tobytes()
        if k > 1 and n > 3:
            assert is_exact


def test_search_has_the_same_answer_at_every_level(rng: np.random.Generator) -> None:
    for dim in (64, 129, 384):
        rows, scales = random_rows(rng, 9003, dim)
        queries = [near(rng, rows[i], noise) for i, noise in enumerate((0.1, 0.5, 0.9, 1.5, 4))]
        want = None
        for level in LEVELS:
            nearest = _kernels.Nearest(rows, scales, level=level)
            got = []
            for query in queries:
                index, score, is_exact = nearest.search(query, 2)
                got.append((index.tolist(), score.tobytes(), is_exact))
            want = got if want is None else want
            assert got == want, level


def test_search_of_clustered_rows_agrees_with_comparing_all(rng: np.random.Generator) -> None:
    dim, n = 256, 30000
    middles = rng.normal(size=(300, dim))
    # Elements of unequal weight, as encoders make them: without a rotation the signs would mislead.
    weight = np.linspace(0.2, 3, dim)
    points = middles[rng.integers(300, size=n)] + 0.7 * rng.normal(size=(n, dim))
    rows = np.zeros((n, dim), dtype=np.int8)
    scales = np.zeros(n, dtype=np.float32)
    for i, point in enumerate(points * weight):
        rows[i], scales[i] = _kernels.quantise(_kernels.normalise(point.astype(np.float32)))
    nearest = _kernels.Nearest(rows, scales)
    n_same = n_sketched = 0
    for middle in middles[:100]:
        query = (middle + 0.5 * rng.normal(size=dim)) * weight
        query = _kernels.normalise(query.astype(np.float32))
        index, _, is_exact = nearest.search(query, 1)
        n_same += index[0] == _kernels.topk_cosine(query, rows, scales, 1)[0][0]
        n_sketched += not is_exact
    assert n_sketched >= 90
    assert n_same >= 97


def test_search_among_equal_rows_compares_all_and_orders_by_number(
    rng: np.random.Generator,
) -> None:
    rows, scales = random_rows(rng, 1, 64)
    rows, scales = np.repeat(rows, 9000, axis=0), np.repeat(scales, 9000)
    index, score, is_exact = _kernels.Nearest(rows, scales).search(near(rng, rows[0], 0.1), 3)
    assert is_exact
    assert index.tolist() == [0, 1, 2]
    assert len(set(score.tolist())) == 1


def test_search_of_a_zero_query_or_of_no_rows(rng: np.random.Generator) -> None:
    rows, scales = random_rows(rng, 9000, 64)
    nearest = _kernels.Nearest(rows, scales)
    index, score, is_exact = nearest.search(np.zeros(64, np.float32), 3)
    assert (index.tolist(), score.tolist(), is_exact) == ([0, 1, 2], [0, 0, 0], True)
    assert nearest.search(np.zeros(64, np.float32), 0)[0].shape == (0,)
    empty = _kernels.Nearest(rows[:0], scales[:0])
    assert empty.search(np.zeros(64, np.float32), 3)[0].shape == (0,)


def test_rows_changed_after_construction_do_not_matter(rng: np.random.Generator) -> None:
    rows, scales = random_rows(rng, 9000, 64)
    query = near(rng, rows[5], 0.1)
    nearest = _kernels.Nearest(rows, scales)
    rows[:] = 0
    assert nearest.search(query, 1)[0].tolist() == [5]


def test_wrong_arrays_are_refused(rng: np.random.Generator) -> None:
    rows, scales = random_rows(rng, 3, 8)
    nearest = _kernels.Nearest(rows, scales)
    with pytest.raises(ShapeError, match="different vector dimensions 8 and 9"):
        nearest.search(np.zeros(9, np.float32), 1)
    with pytest.raises(ShapeError, match="number of neighbours is negative"):
        nearest.search(np.zeros(8, np.float32), -1)
    with pytest.raises(NonFiniteError):
        nearest.search(np.full(8, np.nan, np.float32), 1)
    with pytest.raises(ShapeError, match="different numbers of rows and scales 3 and 2"):
        _kernels.Nearest(rows, scales[:2])
    with pytest.raises(ShapeError, match="rows have an impossible dimension"):
        _kernels.Nearest(rows[:, :0].copy(), scales)
    with pytest.raises(InvalidInputError, match='unknown kernel level "sse9"'):
        _kernels.Nearest(rows, scales, level="sse9")
