"""Fitting a network: Adam or L-BFGS, early stopping on rows held out, the same bits every time.

Rows and settings come in, fitted parameters and the curve of training come out.  Random numbers
come from the seed alone and BLAS runs on one thread, so that two runs on one machine give equal
bytes.  Called by the trainers of this package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinydancer.errors import InvalidInputError, ShapeError
from tinydancer.train import numeric
from tinydancer.train.cell import Cell, Parameters
from tinydancer.train.network import HEADS, Inputs, Network, loss_of, probabilities
from tinydancer.train.numeric import Array
from tinydancer.train.progress import Progress

if TYPE_CHECKING:
    from tinydancer.model_file import Member

__all__ = ["Fitted", "Settings", "fit_fastgrnn", "fit_network"]

# Never decayed: they only shift.
_BIASES = {"b", "b_z", "b_h", "zeta", "nu"}


@dataclass(frozen=True)
class Settings:
    """How a network is fitted.

    Attributes:
        epochs: at most so many passes over the rows (iterations of L-BFGS).
        patience: stop after so many epochs without a lower validation loss.
        batch: rows of a step of Adam.
        rate: learning rate of Adam at the start; it falls to 0 along a cosine.
        decay: weight decay of the matrices.
        word_decay: of the weights of words.
        word_rate: learning rate of the weights of words, as a multiple of ``rate``.
        dropout: share of the state that is left out in a step of Adam.
        word_dropout: share of the words that is left out.
        mixup: greatest share of another row that is mixed into a row; 0: none.
        alone: share of the loss of the scores without words.
        optimiser: adam or lbfgs; the latter knows neither dropout nor mixup.
        validation: share of the rows held out for early stopping; 0: none, all epochs are run.
    """

    epochs: int = 60
    patience: int = 8
    batch: int = 256
    rate: float = 0.01
    decay: float = 1e-3
    word_decay: float = 1e-3
    word_rate: float = 1.0
    dropout: float = 0.0
    word_dropout: float = 0.0
    mixup: float = 0.0
    alone: float = 0.0
    optimiser: str = "adam"
    validation: float = 0.1

    def __post_init__(self) -> None:
        if self.optimiser not in ("adam", "lbfgs"):
            raise InvalidInputError(
                f'unknown optimiser "{self.optimiser}"', None, "Use adam or lbfgs."
            )
        for name in ("dropout", "word_dropout", "mixup", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInputError(
                    f"{name} must be at least 0 and less than 1", f"It is {getattr(self, name)}."
                )
        for name in ("epochs", "patience", "batch"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be positive", f"It is {getattr(self, name)}.")


@dataclass
class Fitted:
    """A fitted network.

    Attributes:
        network: with the parameters of the best epoch.
        curve: ``[(epoch, training loss, validation loss, validation metric), ...]``; the last two
            are NaN without validation rows.  The metric is the accuracy, and for the heads quality
            and value the mean squared error.
        best_epoch: whose parameters they are, from 1.
    """

    network: Network
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)
    best_epoch: int = 0

    def scores(self, inputs: Inputs) -> Array:
        """Sums of the members, ``(n, n_out)``."""
        with numeric.one_thread():
            return self.network.scores(inputs)

    def probabilities(self, inputs: Inputs) -> Array:
        """What the scores mean under the head, ``(n, n_out)``."""
        return probabilities(self.network.head, self.scores(inputs))

    def members(
        self,
        weight: Array | float = 1.0,
        *,
        int8: bool = False,
        idf: Array | None = None,
        buckets: npt.NDArray[np.int64] | None = None,
        features: int = 3,
        steps: int = 0,
        token_scale: float = 1.0,
    ) -> list[Member]:
        """The network as members of a model file.

        Args:
            weight: ``(n_out,)`` or a number, what the scores are multiplied by.
            int8: write matrices as int8.
            idf: ``(n_buckets,)`` of the words; needed when the network has words.
            buckets: ``(n_features,)`` the bucket of each feature; None: they are the same.
            features: kinds of words, as in ``model_file.Words``.
            steps: most token vectors of a sequence.
            token_scale: what token vectors were multiplied by.

        Returns:
            FastGrnn, Linear and Words, as far as the network has them.
        """
        from tinydancer.model_file import FastGrnn, Linear, Words

        p, cell = self.network.parameters, self.network.cell
        weights = np.broadcast_to(np.asarray(weight, np.float32), self.network.n_out).copy()
        nothing = np.zeros(self.network.n_out, np.float32)
        bias = p["b"]
        made: list[Member] = []
        if cell is not None:
            parts = {name: _parts(p, name) for name in cell.matrices()}
            made.append(
                FastGrnn(
                    weights, parts["w"], p["b_z"], p["b_h"],
                    float(numeric.sigmoid(p["zeta"])[0]), float(numeric.sigmoid(p["nu"])[0]),
                    p["o"], bias, parts.get("u"), parts.get("w_h"), parts.get("u_h"),
                    int8, steps, token_scale,
                )
            )  # fmt: skip
            bias = nothing
        if "linear" in p:
            made.append(Linear(weights, p["linear"], bias, int8))
            bias = nothing
        if "words" in p:
            if idf is None:
                raise InvalidInputError("weights of words need the idf of their buckets")
            table = p["words"]
            if buckets is not None:
                table = np.zeros((len(idf), self.network.n_out), np.float32)
                table[buckets] = p["words"]
            made.append(Words(weights, table, bias, idf, features))
        return made


def _parts(parameters: Parameters, name: str) -> Any:
    if name in parameters:
        return parameters[name]
    return parameters[f"{name}_left"], parameters[f"{name}_right"]


class _Rows:
    """Targets and mask of the rows, in the network's precision."""

    def __init__(self, inputs: Inputs, targets: Array, mask: Array | None) -> None:
        self.inputs, self.targets, self.mask = inputs, targets, mask

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: npt.NDArray[Any]) -> _Rows:
        mask = None if self.mask is None else self.mask[rows]
        return _Rows(self.inputs.take(rows), self.targets[rows], mask)


def _metric(head: str, scores: Array, rows: _Rows) -> float:
    p = probabilities(head, scores)
    if head == "softmax":
        right = p.argmax(axis=1) == rows.targets.argmax(axis=1)
        return float(np.average(right, weights=rows.mask))
    weight = np.ones(p.shape) if rows.mask is None else rows.mask
    known = np.where(weight > 0, rows.targets, 0)
    each = (p >= 0.5) == (known >= 0.5) if head == "labels" else (p - known) ** 2
    return float((each * weight).sum() / max(float(weight.sum()), 1e-12))


class _Adam:
    """Adam with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019)."""

    def __init__(self, parameters: Parameters, settings: Settings, steps: int) -> None:
        self.parameters, self.settings, self.steps, self.t = parameters, settings, steps, 0
        self.mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, grads: Parameters) -> None:
        self.t += 1
        # Warm-up over the first twentieth, then a cosine down to 0.
        done = self.t / self.steps
        rate = self.settings.rate * min(1.0, done * 20) * (1 + math.cos(math.pi * done)) / 2
        for name, grad in grads.items():
            p, mean, square = self.parameters[name], self.mean[name], self.square[name]
            mean *= 0.9
            mean += 0.1 * grad
            square *= 0.999
            square += 0.001 * grad * grad
            own = rate * self.settings.word_rate if name == "words" else rate
            decay = self.settings.word_decay if name == "words" else self.settings.decay
            if decay and name not in _BIASES:
                p *= 1 - own * decay
            root = np.sqrt(square / (1 - 0.999**self.t))
            root += 1e-8
            np.divide(mean, root, out=root)
            root *= own / (1 - 0.9**self.t)
            p -= root


def _batch(rows: _Rows, network: Network, settings: Settings, rng: np.random.Generator) -> Any:
    """Rows as a step of Adam sees them: mixed, words and states dropped."""
    inputs, targets, mask = rows.inputs, rows.targets, rows.mask
    dtype = inputs.x.dtype
    if settings.mixup and network.cell is not None and not network.cell.recurrent:
        other = rng.permutation(len(rows))
        share = (rng.random((len(rows), 1)) * settings.mixup).astype(dtype)
        inputs = replace(inputs, x=(1 - share) * inputs.x + share * inputs.x[other])
        if inputs.words is not None:
            import scipy.sparse

            keep, take = scipy.sparse.diags(1 - share[:, 0]), scipy.sparse.diags(share[:, 0])
            inputs = replace(inputs, words=(keep @ inputs.words + take @ inputs.words[other]))
        targets = (1 - share) * targets + share * targets[other]
    if settings.word_dropout and inputs.words is not None:
        words = inputs.words.tocsr(copy=True)
        stays = rng.random(len(words.data)) >= settings.word_dropout
        words.data *= stays.astype(dtype) / dtype.type(1 - settings.word_dropout)
        inputs = replace(inputs, words=words)
    keep_h = None
    if settings.dropout and network.cell is not None:
        stays = rng.random((len(rows), network.cell.n_hidden)) >= settings.dropout
        keep_h = stays.astype(dtype) / dtype.type(1 - settings.dropout)
    return inputs, targets, mask, keep_h


class _Best:
    """The parameters with the lowest validation loss so far, and when to stop."""

    def __init__(self, network: Network, held_out: _Rows | None, settings: Settings) -> None:
        self.network, self.held_out, self.settings = network, held_out, settings
        self.curve: list[tuple[int, float, float, float]] = []
        self.loss, self.epoch = math.inf, 0
        self.parameters: Parameters = {}

    def saw(self, training_loss: float) -> bool:
        """Note an epoch; False: enough."""
        epoch = len(self.curve) + 1
        if self.held_out is None:
            self.curve.append((epoch, training_loss, math.nan, math.nan))
            return True
        scores = self.network.scores(self.held_out.inputs)
        loss, _ = loss_of(self.network.head, scores, self.held_out.targets, self.held_out.mask)
        metric = _metric(self.network.head, scores, self.held_out)
        self.curve.append((epoch, training_loss, loss, metric))
        if loss < self.loss or not self.parameters:
            self.loss, self.epoch = loss, epoch
            self.parameters = {k: v.copy() for k, v in self.network.parameters.items()}
        return epoch - self.epoch < self.settings.patience

    def fitted(self) -> Fitted:
        if self.parameters:
            self.network.parameters = self.parameters
        return Fitted(self.network, self.curve, self.epoch or len(self.curve))


def _adam(
    rows: _Rows, best: _Best, settings: Settings, rng: np.random.Generator, progress: Progress
) -> None:
    network = best.network
    steps = math.ceil(len(rows) / settings.batch)
    adam = _Adam(network.parameters, settings, settings.epochs * steps)
    for _ in range(settings.epochs):
        order, total = rng.permutation(len(rows)), 0.0
        for at in range(0, len(rows), settings.batch):
            part = rows.take(order[at : at + settings.batch])
            inputs, targets, mask, keep = _batch(part, network, settings, rng)
            loss, grads = network.gradient(inputs, targets, mask, keep=keep, alone=settings.alone)
            adam.step(grads)
            total += loss * len(part)
        goes_on = best.saw(total / len(rows))
        _, loss, _, metric = best.curve[-1]
        progress.step(loss, None if math.isnan(metric) else metric, len(rows))
        if not goes_on:
            return


def _lbfgs(rows: _Rows, best: _Best, settings: Settings, progress: Progress) -> None:
    from scipy.optimize import minimize

    network = best.network
    names = sorted(network.parameters)
    shapes = {name: network.parameters[name].shape for name in names}
    sizes = [network.parameters[name].size for name in names]
    dtype = network.parameters["b"].dtype
    last = math.nan

    def put(flat: Array) -> None:
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        for name, part in zip(names, parts, strict=True):
            network.parameters[name] = part.reshape(shapes[name]).astype(dtype)

    def value(flat: Array) -> tuple[float, Array]:
        nonlocal last
        put(flat)
        loss, grads = network.gradient(rows.inputs, rows.targets, rows.mask, alone=settings.alone)
        for name in names:
            decay = settings.word_decay if name == "words" else settings.decay
            if name not in _BIASES:
                p = network.parameters[name]
                loss += decay * float((p * p).sum()) / 2
                grads[name] = grads[name] + decay * p
        last = loss
        gradient = np.concatenate([grads[name].ravel() for name in names])
        return loss, gradient.astype(np.float64)

    def after(flat: Array) -> None:
        put(flat)
        goes_on = best.saw(last)
        metric = best.curve[-1][3]
        progress.step(last, None if math.isnan(metric) else metric, len(rows))
        if not goes_on:
            raise StopIteration

    start = np.concatenate([network.parameters[name].ravel() for name in names])
    options = {"maxiter": settings.epochs, "maxcor": 10}
    result = minimize(
        value, start.astype(np.float64), jac=True, method="L-BFGS-B", callback=after,
        options=options,
    )  # fmt: skip
    put(result.x)


def fit_network(
    network: Network,
    inputs: Inputs,
    targets: Array,
    mask: Array | None = None,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    held_out: npt.NDArray[np.bool_] | None = None,
    progress: Progress | None = None,
    stage: str = "network",
) -> Fitted:
    """Fit the parameters of a network.

    Args:
        network: with initial parameters; they are changed.
        inputs: n rows.
        targets: ``(n, n_out)``.
        mask: see tinydancer.train.network; None: everything is known.
        settings: how.
        seed: of the order of rows, of dropout and mixup.
        held_out: ``(n,)`` rows for early stopping; None: a random share, ``settings.validation``.
        progress: listener.
        stage: its name for this fit.

    Returns:
        The network with the parameters of the epoch with the lowest validation loss.
    """
    settings = settings or Settings()
    progress = progress or Progress()
    dtype = network.parameters["b"].dtype
    rng = np.random.default_rng([seed, 1])
    rows = _Rows(inputs, targets.astype(dtype), None if mask is None else mask.astype(dtype))
    if held_out is None and settings.validation > 0:
        held_out = np.zeros(len(rows), bool)
        count = round(settings.validation * len(rows))
        held_out[rng.permutation(len(rows))[:count]] = True
    with numeric.one_thread():
        learned, watched = rows, None
        if held_out is not None and held_out.any() and not held_out.all():
            learned = rows.take(np.flatnonzero(~held_out))
            watched = rows.take(np.flatnonzero(held_out))
        best = _Best(network, watched, settings)
        progress.start(stage, settings.epochs)
        if settings.optimiser == "adam":
            _adam(learned, best, settings, rng, progress)
        else:
            _lbfgs(learned, best, settings, progress)
        return best.fitted()


def fit_fastgrnn(
    x: Array,
    targets: Array,
    mask: Array | None = None,
    head: str = "softmax",
    hidden: int = 64,
    *,
    lengths: npt.NDArray[np.int64] | None = None,
    words: Any = None,
    linear: bool = False,
    tied: bool = True,
    rank_w: int = 0,
    rank_u: int = 0,
    settings: Settings | None = None,
    seed: int = 0,
    held_out: npt.NDArray[np.bool_] | None = None,
    dtype: npt.DTypeLike = np.float32,
    progress: Progress | None = None,
    stage: str = "FastGRNN",
) -> Fitted:
    """Fit a FastGRNN, alone or with a linear map and weights of words beside it.

    Args:
        x: ``(n, dim)`` sentence vectors for one step, ``(n, n_steps, dim)`` for sequences.
        targets: ``(n, n_out)``; for softmax also ``(n,)`` numbers of categories.  NaN in a masked
            head means unknown.
        mask: ``(n, n_out)``, for softmax ``(n,)``: weights; 0: unknown.  None: all 1.
        head: softmax, labels, quality or value; see tinydancer.train.network.
        hidden: size of the state; 0: no FastGRNN, linear or words alone.
        lengths: ``(n,)`` steps of each sequence.
        words: ``(n, n_features)`` CSR; None: none.
        linear: add a linear map of the vector.
        tied: gate and candidate share their matrices.
        rank_w: of the input matrix; 0: full.
        rank_u: of the recurrent matrix; 0: full.
        settings: how to fit.
        seed: of every random number.
        held_out: ``(n,)`` rows for early stopping; None: a random share.
        dtype: float32, or float64.
        progress: listener.
        stage: its name for this fit.

    Returns:
        The fitted network and its curve.

    Raises:
        InvalidInputError: an unknown head; no member at all.
        ShapeError: arrays that contradict each other.
    """
    if head not in HEADS:
        raise InvalidInputError(f'unknown head "{head}"', None, f"Use {', '.join(HEADS)}.")
    if not hidden and not linear and words is None:
        raise InvalidInputError("a network needs a member", "hidden is 0, linear is false.")
    if x.ndim not in (2, 3) or len(x) != len(targets) or len(x) == 0:
        raise ShapeError(
            "vectors and targets must have the same number of rows",
            f"Their shapes are {x.shape} and {targets.shape}.",
        )
    if targets.ndim == 1:
        if head != "softmax":
            raise ShapeError("targets must have a column for each output", f"{targets.shape}.")
        targets = np.eye(int(targets.max()) + 1)[targets]
    if mask is None and head != "softmax" and np.isnan(targets).any():
        mask = ~np.isnan(targets)
    shape = (len(x),) if head == "softmax" else targets.shape
    if mask is not None and mask.shape != shape:
        raise ShapeError("the mask has another shape than the targets", f"{mask.shape}, {shape}.")
    dim = x.shape[-1]
    recurrent = x.ndim == 3
    if recurrent and linear:
        raise InvalidInputError("a linear map reads one vector, not a sequence")
    cell = Cell(dim, hidden, tied, rank_w, rank_u, recurrent) if hidden else None
    network = Network(
        cell,
        head,
        targets.shape[1],
        np.random.default_rng([seed, 0]),
        linear=dim if linear else 0,
        words=words.shape[1] if words is not None else 0,
        dtype=dtype,
    )
    inputs = Inputs(x.astype(dtype), lengths, None if words is None else words.astype(dtype))
    return fit_network(
        network, inputs, targets, mask, settings, seed=seed, held_out=held_out,
        progress=progress, stage=stage,
    )  # fmt: skip
