"""The FastGRNN cell for training: states forward, gradients backward.

Parameters are a dict of arrays, a batch of vectors or of sequences comes in, the final states come
out, and their gradient is carried back to every parameter.  Kusupati et al. 2018, equation 3; what
is served is the kernel's td_fastgrnn.c.  Used by tinydancer.train.network.

    w, u        [n_hidden][n_in], [n_hidden][n_hidden]; gate, with ``tied`` the candidate too
    w_h, u_h    the candidate's own, when not tied
    b_z, b_h    [n_hidden]
    zeta, nu    [1]; their sigmoids stand in the formula

With a rank, w is w_left [n_hidden][rank] times w_right [rank][n_in], and so on.  A cell that takes
one step from the zero state has no u: it would be multiplied by zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.train.numeric import Array, sigmoid

__all__ = ["Cell", "Parameters", "backward", "forward", "initial", "matrix"]

Parameters = dict[str, Array]


@dataclass(frozen=True)
class Cell:
    """The shape of a cell.

    Attributes:
        n_in: length of an input vector.
        n_hidden: length of the state.
        tied: gate and candidate share w and u.
        rank_w: of w and w_h; 0: full matrices.
        rank_u: of u and u_h; 0: full matrices.
        recurrent: reads sequences; False: one step from the zero state.
    """

    n_in: int
    n_hidden: int
    tied: bool = True
    rank_w: int = 0
    rank_u: int = 0
    recurrent: bool = False

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Name of each matrix to its height, width and rank."""
        found = {"w": (self.n_hidden, self.n_in, self.rank_w)}
        if self.recurrent:
            found["u"] = (self.n_hidden, self.n_hidden, self.rank_u)
        if not self.tied:
            found |= {f"{name}_h": shape for name, shape in list(found.items())}
        return found


def initial(cell: Cell, rng: np.random.Generator, dtype: npt.DTypeLike = np.float32) -> Parameters:
    """Random parameters: products with a unit vector have variance 1, states are kept at first.

    Args:
        cell: the shape.
        rng: of the seed.
        dtype: float32 to train, float64 to check gradients.

    Returns:
        Name to array.
    """
    made: dict[str, Any] = {}
    for name, (height, width, rank) in cell.matrices().items():
        # A state is as long as the square root of its size at most, an input has length 1.
        scale = 1.0 if name.startswith("w") else 1 / np.sqrt(cell.n_hidden)
        if rank:
            made[f"{name}_left"] = rng.standard_normal((height, rank)) * scale / np.sqrt(rank)
            made[f"{name}_right"] = rng.standard_normal((rank, width))
        else:
            made[name] = rng.standard_normal((height, width)) * scale
    made["b_z"] = np.ones(cell.n_hidden) if cell.recurrent else np.zeros(cell.n_hidden)
    made["b_h"] = np.zeros(cell.n_hidden)
    # The paper's starting point: zeta near 1, nu near 0.
    made["zeta"], made["nu"] = np.array([3.0]), np.array([-3.0])
    return {name: np.asarray(value, dtype) for name, value in made.items()}


def matrix(parameters: Parameters, name: str) -> Array:
    """A matrix, multiplied out of its factors when it has a rank."""
    if name in parameters:
        return parameters[name]
    product: Array = parameters[f"{name}_left"] @ parameters[f"{name}_right"]
    return product


@dataclass
class Trace:
    """What a forward pass leaves for the backward pass; lists have an entry for each step."""

    x: Array
    present: list[Array | None]
    before: list[Array]
    gate: list[Array]
    candidate: list[Array]


def _apply(parameters: Parameters, name: str, x: Array) -> Array:
    if name in parameters:
        return x @ parameters[name].T
    return (x @ parameters[f"{name}_right"].T) @ parameters[f"{name}_left"].T


def forward(
    cell: Cell, parameters: Parameters, x: Array, lengths: npt.NDArray[np.int64] | None = None
) -> tuple[Array, Trace]:
    """Final states from the zero state.

    Args:
        cell: the shape.
        parameters: of ``initial``.
        x: ``(n, n_in)``, or ``(n, n_steps, n_in)`` for a recurrent cell.
        lengths: ``(n,)`` how many steps of each row count; None: all.

    Returns:
        ``(n, n_hidden)`` states, and the trace for ``backward``.
    """
    steps = x.shape[1] if cell.recurrent else 1
    h = np.zeros((len(x), cell.n_hidden), x.dtype)
    zeta, nu = sigmoid(parameters["zeta"]), sigmoid(parameters["nu"])
    trace = Trace(x, [], [], [], [])
    for t in range(steps):
        now = x[:, t] if cell.recurrent else x
        for_gate = _apply(parameters, "w", now)
        for_candidate = for_gate if cell.tied else _apply(parameters, "w_h", now)
        if cell.recurrent:
            state = _apply(parameters, "u", h)
            for_gate = for_gate + state
            for_candidate = for_candidate + (state if cell.tied else _apply(parameters, "u_h", h))
        z = sigmoid(for_gate + parameters["b_z"])
        c = np.tanh(for_candidate + parameters["b_h"])
        after = (zeta * (1 - z) + nu) * c + z * h
        present = None if lengths is None else (lengths > t)[:, None]
        trace.present.append(present)
        trace.before.append(h)
        trace.gate.append(z)
        trace.candidate.append(c)
        h = after if present is None else np.where(present, after, h)
    return h, trace


def _back(parameters: Parameters, grads: Parameters, name: str, delta: Array, x: Array) -> Array:
    """Add the gradient of a matrix for ``delta``, that of matrix times x; returns that of x."""
    if name in parameters:
        _add(grads, name, delta.T @ x)
        return delta @ parameters[name]
    left, right = parameters[f"{name}_left"], parameters[f"{name}_right"]
    _add(grads, f"{name}_left", delta.T @ (x @ right.T))
    inner = delta @ left
    _add(grads, f"{name}_right", inner.T @ x)
    return inner @ right


def _add(grads: Parameters, name: str, value: Array) -> None:
    grads[name] = grads[name] + value if name in grads else value


def backward(cell: Cell, parameters: Parameters, trace: Trace, grad_h: Array) -> Parameters:
    """The gradient of every parameter.

    Args:
        cell: the shape.
        parameters: as they were in ``forward``.
        trace: of ``forward``.
        grad_h: ``(n, n_hidden)`` gradient of the final states.

    Returns:
        Name to array, with the names and shapes of ``parameters``.
    """
    zeta, nu = sigmoid(parameters["zeta"]), sigmoid(parameters["nu"])
    grads: Parameters = {}
    for t in range(len(trace.gate) - 1, -1, -1):
        h, z, c, present = trace.before[t], trace.gate[t], trace.candidate[t], trace.present[t]
        here = grad_h if present is None else np.where(present, grad_h, 0)
        kept = 0 if present is None else np.where(present, 0, grad_h)
        _add(grads, "zeta", (here * (1 - z) * c).sum().reshape(1) * zeta * (1 - zeta))
        _add(grads, "nu", (here * c).sum().reshape(1) * nu * (1 - nu))
        grad_gate = here * (h - zeta * c) * z * (1 - z)
        grad_candidate = here * (zeta * (1 - z) + nu) * (1 - c * c)
        _add(grads, "b_z", grad_gate.sum(axis=0))
        _add(grads, "b_h", grad_candidate.sum(axis=0))
        now = trace.x[:, t] if cell.recurrent else trace.x
        previous = here * z + kept
        if cell.tied:
            both = grad_gate + grad_candidate
            _back(parameters, grads, "w", both, now)
            if cell.recurrent:
                previous = previous + _back(parameters, grads, "u", both, h)
        else:
            _back(parameters, grads, "w", grad_gate, now)
            _back(parameters, grads, "w_h", grad_candidate, now)
            if cell.recurrent:
                previous = previous + _back(parameters, grads, "u", grad_gate, h)
                previous = previous + _back(parameters, grads, "u_h", grad_candidate, h)
        grad_h = previous
    return grads
