"""A trainable sum of members: FastGRNN, a linear map of the vector, weights of words.

Vectors (or sequences) and word features come in; scores, the loss of a head and the gradient of
every parameter come out.  All members add to the same scores, so they learn jointly ("wide and
deep").  Used by tinydancer.train.fit.

Heads:

    softmax   one category a row; targets [n][n_out] are distributions
    labels    any number of labels a row; targets 0 to 1, each by itself
    quality   one outcome in [0, 1] for each agent, most of them unknown; the same loss as labels
    value     the same, with a linear output and squared error

Where the mask is 0 a target is unknown and has no part in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.train import cell as cells
from tinydancer.train.cell import Cell, Parameters
from tinydancer.train.numeric import Array, log_softmax, sigmoid, softmax, softplus

__all__ = ["HEADS", "Inputs", "Network", "loss_of", "probabilities"]

HEADS = ("softmax", "labels", "quality", "value")


@dataclass
class Inputs:
    """Rows to learn from or to apply a network to.

    Attributes:
        x: ``(n, dim)`` vectors, or ``(n, n_steps, dim)`` for a sequence.
        lengths: ``(n,)`` steps that count; None: all.
        words: ``(n, n_features)`` SciPy CSR matrix; None: without words.
    """

    x: Array
    lengths: npt.NDArray[np.int64] | None = None
    words: Any = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: npt.NDArray[Any]) -> Inputs:
        """Some of the rows."""
        return Inputs(
            self.x[rows],
            None if self.lengths is None else self.lengths[rows],
            None if self.words is None else self.words[rows],
        )


def probabilities(head: str, scores: Array) -> Array:
    """What scores mean: a distribution, probabilities, or (head value) themselves."""
    if head == "softmax":
        return softmax(scores)
    return scores if head == "value" else sigmoid(scores)


def loss_of(
    head: str, scores: Array, targets: Array, mask: Array | None = None
) -> tuple[float, Array]:
    """The mean loss over what is known, and its gradient.

    Args:
        head: one of HEADS.
        scores: ``(n, n_out)``.
        targets: ``(n, n_out)``.
        mask: weights of 0 or more: ``(n,)`` for softmax, else ``(n, n_out)``; None: all 1.

    Returns:
        The loss (cross-entropy in nats, or half the squared error), and ``(n, n_out)``.
    """
    if head == "softmax":
        weight = np.ones(len(scores), scores.dtype) if mask is None else mask
        total = max(float(weight.sum()), 1e-12)
        each = -(targets * log_softmax(scores)).sum(axis=1)
        grad = (softmax(scores) * targets.sum(axis=1, keepdims=True) - targets) * weight[:, None]
        return float((each * weight).sum()) / total, grad / total
    weight = np.ones(scores.shape, scores.dtype) if mask is None else mask
    total = max(float(weight.sum()), 1e-12)
    # Unknown targets may be NaN.
    known = np.where(weight > 0, targets, 0)
    if head == "value":
        each, grad = (scores - known) ** 2 / 2, scores - known
    else:
        each, grad = softplus(scores) - known * scores, sigmoid(scores) - known
    return float((each * weight).sum()) / total, grad * weight / total


class Network:
    """The members and their parameters.

    Attributes:
        cell: the FastGRNN; None: without one.
        head: one of HEADS.
        n_out: number of outputs.
        parameters: name to array; see tinydancer.train.cell, and ``o`` [n_out][n_hidden],
            ``linear`` [n_out][dim], ``words`` [n_features][n_out], ``b`` [n_out].
    """

    def __init__(
        self,
        cell: Cell | None,
        head: str,
        n_out: int,
        rng: np.random.Generator,
        *,
        linear: int = 0,
        words: int = 0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.cell, self.head, self.n_out = cell, head, n_out
        self.parameters: Parameters = {}
        if cell is not None:
            self.parameters |= cells.initial(cell, rng, dtype)
            o = rng.standard_normal((n_out, cell.n_hidden)) / np.sqrt(cell.n_hidden)
            self.parameters["o"] = o.astype(dtype)
        if linear:
            self.parameters["linear"] = np.zeros((n_out, linear), dtype)
        if words:
            self.parameters["words"] = np.zeros((words, n_out), dtype)
        self.parameters["b"] = np.zeros(n_out, dtype)

    def _states(self, inputs: Inputs) -> tuple[Array, cells.Trace] | None:
        if self.cell is None:
            return None
        return cells.forward(self.cell, self.parameters, inputs.x, inputs.lengths)

    def scores(self, inputs: Inputs) -> Array:
        """Sums of the members ``(n, n_out)``."""
        return self._with_words(inputs, self._deep(inputs, self._states(inputs), None))

    def _deep(
        self, inputs: Inputs, states: tuple[Array, cells.Trace] | None, keep: Array | None
    ) -> Array:
        """Scores of all members but the words."""
        p = self.parameters
        total = np.broadcast_to(p["b"], (len(inputs), self.n_out))
        if states is not None:
            total = total + (states[0] if keep is None else states[0] * keep) @ p["o"].T
        if "linear" in p:
            total = total + inputs.x @ p["linear"].T
        return np.asarray(total)

    def _with_words(self, inputs: Inputs, deep: Array) -> Array:
        if "words" not in self.parameters or inputs.words is None:
            return deep
        return np.asarray(deep + inputs.words @ self.parameters["words"])

    def gradient(
        self,
        inputs: Inputs,
        targets: Array,
        mask: Array | None = None,
        *,
        keep: Array | None = None,
        alone: float = 0.0,
    ) -> tuple[float, Parameters]:
        """Loss of the head, and the gradient of every parameter.

        Args:
            inputs: n rows.
            targets: ``(n, n_out)``.
            mask: see ``loss_of``.
            keep: ``(n, n_hidden)`` factors of the states (dropout); None: all 1.
            alone: share, 0 to 1, of the loss of the scores without words: what is served when only
                a vector is known.

        Returns:
            The loss, and name to array.
        """
        p = self.parameters
        states = self._states(inputs)
        deep = self._deep(inputs, states, keep)
        loss, delta = loss_of(self.head, self._with_words(inputs, deep), targets, mask)
        grads: Parameters = {}
        if "words" in p:
            if alone:
                lone_loss, lone_delta = loss_of(self.head, deep, targets, mask)
                loss = (1 - alone) * loss + alone * lone_loss
                delta = (1 - alone) * delta
                grads["words"] = inputs.words.T @ delta
                delta = delta + alone * lone_delta
            else:
                grads["words"] = inputs.words.T @ delta
        grads["b"] = delta.sum(axis=0)
        if states is not None and self.cell is not None:
            h, trace = states
            grads["o"] = delta.T @ (h if keep is None else h * keep)
            grad_h = delta @ p["o"]
            if keep is not None:
                grad_h = grad_h * keep
            grads |= cells.backward(self.cell, p, trace, grad_h)
        if "linear" in p:
            grads["linear"] = delta.T @ inputs.x
        return loss, grads
