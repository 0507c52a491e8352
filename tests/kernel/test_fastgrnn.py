"""The FastGRNN cell against the float64 oracle, in every variant, and its entry points against each
other bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from oracle import Cell

from tinydancer import _kernels
from tinydancer.errors import InvalidInputError, NonFiniteError, ShapeError

# Greatest distance of a state from the float64 oracle, with weights drawn so that the gates'
# inputs have a standard deviation near 1 (greatest of 30 seeds: 6.2e-7 and 0.036).
F32_BOUND = 2e-6
INT8_BOUND = 0.06

LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]

SHAPES = [
    (1, 1, 0, 0),
    (5, 3, 0, 0),
    (5, 3, 2, 1),
    (33, 17, 4, 0),
    (384, 64, 0, 5),
    (768, 64, 0, 0),
]
VARIANTS = [
    pytest.param(shape, tied, id=f"{'x'.join(map(str, shape))}-{'tied' if tied else 'untied'}")
    for shape, tied in itertools.product(SHAPES, (True, False))
]


def matrix(rng: np.random.Generator, n_out: int, n_in: int, rank: int) -> Any:
    def full(rows: int, columns: int) -> np.ndarray:
        return (rng.normal(size=(rows, columns)) / np.sqrt(columns)).astype(np.float32)

    return full(n_out, n_in) if rank == 0 else (full(n_out, rank), full(rank, n_in))


def make(rng: np.random.Generator, shape: tuple[int, int, int, int], tied: bool) -> dict[str, Any]:
    n_in, n_hidden, rank_w, rank_u = shape
    parameters = {
        "W": matrix(rng, n_hidden, n_in, rank_w),
        "U": matrix(rng, n_hidden, n_hidden, rank_u),
        "b_z": rng.normal(size=n_hidden).astype(np.float32),
        "b_h": rng.normal(size=n_hidden).astype(np.float32),
        "zeta": 0.875,
        "nu": 0.0625,
    }
    if not tied:
        parameters["W_h"] = matrix(rng, n_hidden, n_in, rank_w)
        parameters["U_h"] = matrix(rng, n_hidden, n_hidden, rank_u)
    return parameters


def inputs(rng: np.random.Generator, n: int, n_in: int) -> np.ndarray:
    return rng.normal(size=(n, n_in)).astype(np.float32)


@pytest.mark.parametrize("shape, tied", VARIANTS)
@pytest.mark.parametrize("int8, bound", [(False, F32_BOUND), (True, INT8_BOUND)])
def test_step_of_any_variant_is_near_the_oracle(
    rng: np.random.Generator,
    shape: tuple[int, int, int, int],
    tied: bool,
    int8: bool,
    bound: float,
) -> None:
    parameters = make(rng, shape, tied)
    cell, oracle = _kernels.FastGRNN(**parameters, int8=int8), Cell(**parameters)
    assert (cell.n_in, cell.n_hidden, cell.rank_w, cell.rank_u) == shape
    assert (cell.tied, cell.int8) == (tied, int8)
    for x in inputs(rng, 5, shape[0]):
        h = rng.uniform(-1, 1, shape[1]).astype(np.float32)
        assert np.abs(cell.step(x, h) - oracle.step(x, h)).max() < bound


@pytest.mark.parametrize("shape, tied", VARIANTS)
def test_forward_of_a_sequence_stays_near_the_oracle(
    rng: np.random.Generator, shape: tuple[int, int, int, int], tied: bool
) -> None:
    parameters = make(rng, shape, tied)
    x = inputs(rng, 40, shape[0])
    want = Cell(**parameters).forward(x, np.zeros(shape[1]))
    got = _kernels.FastGRNN(**parameters).forward(x)
    assert np.abs(got - want).max() < F32_BOUND


@pytest.mark.parametrize("shape, tied", VARIANTS)
@pytest.mark.parametrize("int8", [False, True])
def test_entry_points_of_one_cell_give_the_same_bits(
    rng: np.random.Generator, shape: tuple[int, int, int, int], tied: bool, int8: bool
) -> None:
    cell = _kernels.FastGRNN(**make(rng, shape, tied), int8=int8)
    n_in, n_hidden = shape[:2]
    x = inputs(rng, 7, n_in)
    zeros = np.zeros(n_hidden, dtype=np.float32)

    singles = np.stack([cell.forward_single(row) for row in x])
    assert np.stack([cell.step(row, zeros) for row in x]).tobytes() == singles.tobytes()
    assert cell.forward_batch(x).tobytes() == singles.tobytes()
    assert cell.forward(x[:1]).tobytes() == singles[0].tobytes()

    h = rng.uniform(-1, 1, n_hidden).astype(np.float32)
    stepped = h
    for row in x:
        stepped = cell.step(row, stepped)
    assert cell.forward(x, h).tobytes() == stepped.tobytes()
    # In two parts, as a stream arrives.
    assert cell.forward(x[3:], cell.forward(x[:3], h)).tobytes() == stepped.tobytes()


@pytest.mark.parametrize("shape, tied", VARIANTS)
@pytest.mark.parametrize("int8", [False, True])
def test_levels_give_the_same_bits(
    rng: np.random.Generator, shape: tuple[int, int, int, int], tied: bool, int8: bool
) -> None:
    parameters = make(rng, shape, tied)
    x = inputs(rng, 4, shape[0])
    h = rng.uniform(-1, 1, shape[1]).astype(np.float32)
    # Rows that saturate the gates, and one of zeros.
    x[1] *= 1e4
    x[2] = 0
    want = None
    for level in LEVELS:
        cell = _kernels.FastGRNN(**parameters, int8=int8, level=level)
        assert cell.level == level
        got = cell.forward_batch(x).tobytes() + cell.forward(x, h).tobytes()
        want = got if want is None else want
        assert got == want, level


def test_level_is_named_by_the_environment_unless_given(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = make(rng, (5, 3, 0, 0), True)
    assert _kernels.FastGRNN(**parameters).level == _kernels.BEST_LEVEL
    monkeypatch.setenv("TINYDANCER_KERNEL_LEVEL", "portable")
    assert _kernels.FastGRNN(**parameters).level == "portable"
    assert _kernels.FastGRNN(**parameters, level=LEVELS[-1]).level == LEVELS[-1]
    with pytest.raises(InvalidInputError, match='unknown kernel level "sse9"'):
        _kernels.FastGRNN(**parameters, level="sse9")


def test_tied_cell_equals_an_untied_one_with_the_same_matrices_twice(
    rng: np.random.Generator,
) -> None:
    parameters = make(rng, (20, 12, 3, 0), True)
    x, h = inputs(rng, 1, 20)[0], rng.uniform(-1, 1, 12).astype(np.float32)
    for int8 in (False, True):
        tied = _kernels.FastGRNN(**parameters, int8=int8)
        untied = _kernels.FastGRNN(
            **parameters, W_h=parameters["W"], U_h=parameters["U"], int8=int8
        )
        assert tied.step(x, h).tobytes() == untied.step(x, h).tobytes()


def test_int8_cell_with_exact_weights_and_inputs_equals_float(rng: np.random.Generator) -> None:
    # Whole numbers with 127 in every row and vector: quantising changes nothing.
    parameters = make(rng, (9, 6, 0, 0), False)
    for name in ("W", "U", "W_h", "U_h"):
        values = rng.integers(-126, 127, parameters[name].shape)
        values[:, 0] = 127
        parameters[name] = (values / 2**10).astype(np.float32)
    x = rng.integers(-126, 127, 9).astype(np.float32) / 2**7
    x[0] = 127 / 2**7
    h = rng.integers(-126, 127, 6).astype(np.float32) / 2**7
    h[0] = 127 / 2**7
    got = _kernels.FastGRNN(**parameters, int8=True).step(x, h)
    assert np.abs(got - Cell(**parameters).step(x, h)).max() < F32_BOUND


def test_forward_of_no_steps_returns_the_state_unchanged(rng: np.random.Generator) -> None:
    cell = _kernels.FastGRNN(**make(rng, (4, 3, 0, 0), True))
    none = np.zeros((0, 4), dtype=np.float32)
    h = rng.uniform(-1, 1, 3).astype(np.float32)
    assert cell.forward(none, h).tobytes() == h.tobytes()
    assert not cell.forward(none).any()
    assert cell.forward_batch(none).shape == (0, 3)


def test_inputs_and_state_of_any_call_are_unchanged(rng: np.random.Generator) -> None:
    cell = _kernels.FastGRNN(**make(rng, (4, 3, 2, 1), False), int8=True)
    x, h = inputs(rng, 6, 4), rng.uniform(-1, 1, 3).astype(np.float32)
    before = x.tobytes(), h.tobytes()
    cell.step(x[0], h)
    cell.forward(x, h)
    cell.forward_single(x[0])
    cell.forward_batch(x)
    bad = h.copy()
    bad[1] = np.nan
    with pytest.raises(NonFiniteError):
        cell.step(x[0], bad)
    assert (x.tobytes(), h.tobytes()) == before


def test_extreme_gates_keep_or_replace_the_state(rng: np.random.Generator) -> None:
    parameters = make(rng, (4, 3, 0, 0), True)
    x, h = inputs(rng, 1, 4)[0], rng.uniform(-1, 1, 3).astype(np.float32)
    parameters.update(b_z=np.full(3, 1e4, dtype=np.float32), zeta=1.0, nu=0.0)
    assert (_kernels.FastGRNN(**parameters).step(x, h) == h).all()
    parameters.update(b_z=np.full(3, -1e4, dtype=np.float32))
    want = Cell(**parameters).step(x, h)
    assert np.abs(_kernels.FastGRNN(**parameters).step(x, h) - want).max() < F32_BOUND


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_input_state_or_result_is_refused(rng: np.random.Generator, value: float) -> None:
    parameters = make(rng, (20, 12, 0, 0), False)
    cell = _kernels.FastGRNN(**parameters)
    x, h = inputs(rng, 3, 20), np.zeros(12, dtype=np.float32)
    bad = x.copy()
    bad[2, 19] = value
    for call in (
        lambda: cell.step(bad[2], h),
        lambda: cell.forward(bad, h),
        lambda: cell.forward_single(bad[2]),
        lambda: cell.forward_batch(bad),
        lambda: cell.step(x[0], np.full(12, value, dtype=np.float32)),
    ):
        with pytest.raises(NonFiniteError, match="vector contains NaN or infinity"):
            call()
    # Finite weights whose products overflow both ways: infinity minus infinity.
    parameters["W_h"] = np.full((12, 20), 3e38, dtype=np.float32)
    huge = np.where(np.arange(20) % 2, -3e38, 3e38).astype(np.float32)
    with pytest.raises(NonFiniteError):
        _kernels.FastGRNN(**parameters).forward_single(huge)


def test_contradicting_parameters_are_refused_with_the_numbers(rng: np.random.Generator) -> None:
    good = make(rng, (5, 3, 2, 1), False)

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(ShapeError) as caught:
            _kernels.FastGRNN(**{**good, **changes})
        assert message in str(caught.value)

    refused("Expected 3x3, got 4x4", U=np.ones((4, 4)))
    refused("Expected 3x5, got 3x6", W_h=np.ones((3, 6)))
    refused("The first has 2 columns, the second 3 rows", W=(np.ones((3, 2)), np.ones((3, 5))))
    refused("Expected 2, got 3", W=(np.ones((3, 2)),) * 3)
    refused("W and U have 2 and 1, W_h and U_h 0 and 1", W_h=np.ones((3, 5)))
    refused("one matrix of the candidate is missing", U_h=None)
    refused("different vector dimensions 4 and 3", b_z=np.ones(4))
    refused("Expected 1, got 2", b_h=np.ones((3, 1)))
    refused("zeta is outside of 0 to 1\nDETAIL:  It is 1.5.", zeta=1.5)
    refused("nu is outside of 0 to 1", nu=-0.1)
    refused("nu is outside of 0 to 1", nu=float("nan"))
    # A rank above a side of the matrix is no low rank.
    refused("dimensions do not fit together", U=(np.ones((3, 4)), np.ones((4, 3))),
            U_h=(np.ones((3, 4)), np.ones((4, 3))))  # fmt: skip
    with pytest.raises(NonFiniteError, match="W contains NaN or infinity"):
        _kernels.FastGRNN(**{**good, "W": np.full((3, 5), np.inf)})


def test_arrays_of_other_shapes_are_refused(rng: np.random.Generator) -> None:
    cell = _kernels.FastGRNN(**make(rng, (5, 3, 0, 0), True))
    x, h = np.zeros(5, dtype=np.float32), np.zeros(3, dtype=np.float32)
    with pytest.raises(ShapeError, match="different vector dimensions 4 and 5"):
        cell.step(x[:4].copy(), h)
    with pytest.raises(ShapeError, match="different vector dimensions 2 and 3"):
        cell.step(x, h[:2].copy())
    with pytest.raises(ShapeError, match="got float64 5"):
        cell.forward_single(x.astype(np.float64))
    with pytest.raises(ShapeError, match="got float32 5"):
        cell.forward_batch(x)


def test_parameters_changed_after_construction_do_not_matter(rng: np.random.Generator) -> None:
    parameters = make(rng, (5, 3, 0, 0), True)
    cell = _kernels.FastGRNN(**parameters)
    x = inputs(rng, 1, 5)[0]
    before = cell.forward_single(x).tobytes()
    parameters["W"][:] = 0
    parameters["b_z"][:] = 9
    assert cell.forward_single(x).tobytes() == before
