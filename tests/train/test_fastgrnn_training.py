"""Training of FastGRNN: the forward pass is the oracle's, gradients are finite differences'.

Every parameter of every variant is checked in float64; fits are seeded, equal to the byte, and
learn what a linear map cannot.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import oracle
import pytest
import scipy.sparse

from tinydancer.errors import InvalidInputError, ShapeError
from tinydancer.train import cell as cells
from tinydancer.train import fit_fastgrnn, network
from tinydancer.train.cell import Cell
from tinydancer.train.fit import Settings
from tinydancer.train.network import HEADS, Inputs, Network

VARIANTS = [
    Cell(5, 4, tied, rank_w, rank_u, recurrent)
    for tied, (rank_w, rank_u), recurrent in itertools.product(
        (True, False), ((0, 0), (2, 0), (0, 2), (3, 2)), (False, True)
    )
    if recurrent or not rank_u
]


def named(cell: Cell) -> str:
    steps = "sequence" if cell.recurrent else "step"
    return f"{steps}-{'tied' if cell.tied else 'untied'}-{cell.rank_w}-{cell.rank_u}"


def rows_for(cell: Cell, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    if cell.recurrent:
        return rng.standard_normal((n, 6, cell.n_in)), rng.integers(0, 7, n)
    return rng.standard_normal((n, cell.n_in)), None


@pytest.mark.parametrize("cell", VARIANTS, ids=named)
def test_forward_of_training_is_that_of_the_oracle(cell: Cell, rng: np.random.Generator) -> None:
    p = cells.initial(cell, rng, np.float64)
    x, lengths = rows_for(cell, 7, rng)
    h, _ = cells.forward(cell, p, x, lengths)
    none = np.zeros((4, 4))
    own = {"W_h": cells.matrix(p, "w_h")} if not cell.tied else {}
    if not cell.tied:
        own["U_h"] = cells.matrix(p, "u_h") if cell.recurrent else none
    one = oracle.Cell(
        cells.matrix(p, "w"),
        cells.matrix(p, "u") if cell.recurrent else none,
        p["b_z"],
        p["b_h"],
        float(oracle.sigmoid(p["zeta"])[0]),
        float(oracle.sigmoid(p["nu"])[0]),
        **own,
    )
    for i in range(7):
        steps = x[i, : lengths[i]] if cell.recurrent else x[i : i + 1]
        np.testing.assert_allclose(h[i], one.forward(steps, np.zeros(4)), rtol=1e-12, atol=1e-12)


def differences(net: Network, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Central differences of the loss by every parameter."""
    found, step = {}, 1e-6
    for name, value in net.parameters.items():
        grad = np.zeros_like(value)
        for at in np.ndindex(value.shape):
            before = value[at]
            sides = []
            for side in (step, -step):
                value[at] = before + side
                sides.append(net.gradient(*args, **kwargs)[0])
            value[at] = before
            grad[at] = (sides[0] - sides[1]) / (2 * step)
        found[name] = grad
    return found


def check(net: Network, *args: Any, **kwargs: Any) -> None:
    _, grads = net.gradient(*args, **kwargs)
    assert grads.keys() == net.parameters.keys()
    for name, want in differences(net, *args, **kwargs).items():
        np.testing.assert_allclose(grads[name], want, rtol=1e-5, atol=1e-8, err_msg=name)
        assert np.abs(want).max() > 0, f"{name} has no part in the loss"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", VARIANTS, ids=named)
def test_gradient_of_every_parameter_is_the_finite_difference(
    cell: Cell, head: str, rng: np.random.Generator
) -> None:
    n, n_out = 6, 3
    net = Network(cell, head, n_out, rng, dtype=np.float64)
    x, lengths = rows_for(cell, n, rng)
    if head == "softmax":
        targets = rng.dirichlet(np.ones(n_out), n)
        mask = rng.random(n)
    else:
        targets = rng.random((n, n_out))
        mask = (rng.random((n, n_out)) < 0.6).astype(float)
        mask[0] = 1
        targets[mask == 0] = np.nan
    check(net, Inputs(x, lengths), targets, mask)


@pytest.mark.parametrize("head", HEADS)
def test_gradient_of_wide_members_and_dropout_is_the_finite_difference(
    head: str, rng: np.random.Generator
) -> None:
    n, n_out, dim = 6, 3, 5
    net = Network(Cell(dim, 4), head, n_out, rng, linear=dim, words=7, dtype=np.float64)
    for name in ("linear", "words", "b"):
        net.parameters[name] += rng.standard_normal(net.parameters[name].shape)
    words = scipy.sparse.random(n, 7, 0.6, "csr", rng=rng)
    targets = rng.dirichlet(np.ones(n_out), n)
    keep = rng.random((n, 4)) * 2
    check(net, Inputs(rng.standard_normal((n, dim)), None, words), targets, keep=keep, alone=0.3)


def test_row_of_unknown_targets_changes_nothing(rng: np.random.Generator) -> None:
    net = Network(Cell(5, 4), "quality", 3, rng, dtype=np.float64)
    x, targets = rng.standard_normal((6, 5)), rng.random((6, 3))
    mask = np.ones((6, 3))
    mask[5] = 0
    loss, grads = net.gradient(Inputs(x), targets, mask)
    fewer, fewer_grads = net.gradient(Inputs(x[:5]), targets[:5], mask[:5])
    assert math.isclose(loss, fewer, rel_tol=1e-12)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, fewer_grads[name], rtol=1e-9, atol=1e-12)


def exclusive_or(n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Unit vectors whose category is no linear function of them."""
    x = rng.standard_normal((n, 6)).astype(np.float32)
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(np.int64)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_cell_learns_what_a_linear_map_cannot(optimiser: str, rng: np.random.Generator) -> None:
    x, y = exclusive_or(1500, rng)
    new_x, new_y = exclusive_or(500, rng)
    settings = Settings(optimiser=optimiser, epochs=120, patience=40, decay=1e-4)
    right = {}
    for hidden in (0, 16):
        one = fit_fastgrnn(x, y, hidden=hidden, linear=not hidden, settings=settings)
        right[hidden] = (one.scores(Inputs(new_x)).argmax(1) == new_y).mean()
    assert right[0] < 0.65
    assert right[16] > 0.85


def test_recurrent_cell_learns_the_order_of_its_inputs(rng: np.random.Generator) -> None:
    # Which of two marks comes first: a sum of the vectors cannot know.
    n, steps = 800, 5
    x = 0.1 * rng.standard_normal((n, steps, 4)).astype(np.float32)
    first, second = np.sort(np.argsort(rng.random((n, steps)))[:, :2], axis=1).T
    y = rng.integers(0, 2, n)
    x[np.arange(n), first, y] += 1
    x[np.arange(n), second, 1 - y] += 1
    settings = Settings(epochs=60, patience=60, batch=64)
    one = fit_fastgrnn(x[:600], y[:600], hidden=12, tied=False, settings=settings)
    assert (one.scores(Inputs(x[600:])).argmax(1) == y[600:]).mean() > 0.9


def test_masked_quality_head_learns_from_one_outcome_a_row(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2000, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    truth = np.stack([x[:, 0] > 0, x[:, 1] > 0, x[:, 0] < 0], axis=1).astype(float)
    targets = np.full(truth.shape, np.nan)
    seen = rng.integers(0, 3, 2000)
    targets[np.arange(2000), seen] = truth[np.arange(2000), seen]
    one = fit_fastgrnn(x[:1500], targets[:1500], head="quality", hidden=16)
    p = one.probabilities(Inputs(x[1500:]))
    assert ((p > 0.5) == (truth[1500:] > 0.5)).mean() > 0.9


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_two_fits_with_one_seed_have_equal_bytes(optimiser: str, rng: np.random.Generator) -> None:
    x, y = exclusive_or(400, rng)
    words = scipy.sparse.random(400, 50, 0.1, "csr", np.float32, rng=rng)
    settings = Settings(
        optimiser=optimiser, epochs=8, dropout=0.2, word_dropout=0.2, mixup=0.2, alone=0.3
    )

    def fitted(seed: int) -> dict[str, bytes]:
        one = fit_fastgrnn(x, y, words=words, hidden=8, settings=settings, seed=seed)
        return {name: value.tobytes() for name, value in one.network.parameters.items()}

    assert fitted(3) == fitted(3)
    assert fitted(3) != fitted(4)


def test_early_stopping_keeps_the_best_epoch(rng: np.random.Generator) -> None:
    # Labels without sense can only be learned by heart.
    x = rng.standard_normal((300, 20)).astype(np.float32)
    y = rng.integers(0, 2, 300)
    settings = Settings(epochs=200, patience=5, decay=0.0)
    one = fit_fastgrnn(x, y, hidden=32, settings=settings)
    losses = [loss for _, _, loss, _ in one.curve]
    assert len(losses) < 200
    assert one.best_epoch == 1 + int(np.argmin(losses)) == len(losses) - 5
    rows = np.flatnonzero(_held_out(300, settings))
    loss, _ = network.loss_of("softmax", one.scores(Inputs(x[rows])), np.eye(2)[y[rows]])
    assert math.isclose(loss, min(losses), rel_tol=1e-5)


def _held_out(n: int, settings: Settings) -> Any:
    rng = np.random.default_rng([0, 1])
    held_out = np.zeros(n, bool)
    held_out[rng.permutation(n)[: round(settings.validation * n)]] = True
    return held_out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"head": "regression"}, InvalidInputError, 'unknown head "regression"'),
        ({"hidden": 0}, InvalidInputError, "a network needs a member"),
        ({"targets": np.zeros(3, int)}, ShapeError, "same number of rows"),
        ({"head": "quality"}, ShapeError, "a column for each output"),
        ({"mask": np.ones((4, 2))}, ShapeError, "the mask has another shape"),
        ({"x": np.zeros((4, 2, 3)), "linear": True}, InvalidInputError, "not a sequence"),
    ],
)
def test_contradictory_arguments_of_a_fit_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"x": np.zeros((4, 3)), "targets": np.array([0, 1, 0, 1])} | arguments
    with pytest.raises(error, match=message):
        fit_fastgrnn(**given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "sgd"}, 'unknown optimiser "sgd"'),
        ({"dropout": 1.0}, "dropout must be at least 0"),
        ({"epochs": 0}, "epochs must be positive"),
    ],
)
def test_impossible_setting_of_a_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Settings(**settings)
