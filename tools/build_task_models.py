#!/usr/bin/env python3
"""Trains the task models that ship: kind of task and capabilities, for each shipped encoder.

The requests of task_examples.py come in; python/tinydancer/models/KIND.ENCODER.tdmodel come out,
and their figures on the held-out requests, measured by the kernel, in docs/classification.md.
Called by hand after the examples, an encoder or the training have changed.

    build_task_models.py            train all of them, write files and figures: some minutes
    build_task_models.py --check    verify that files, examples and figures belong together

The same examples give the same bytes on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import task_examples
from task_examples import CAPABILITIES, CATEGORIES, Request

from tinydancer import _kernels
from tinydancer.encoder import SHIPPED_IDS, Encoder
from tinydancer.errors import EncoderNotFoundError
from tinydancer.model_file import (
    WORDS_BIGRAMS,
    WORDS_LENGTH,
    WORDS_UNIGRAMS,
    Member,
    ModelSpec,
    Rbf,
    Words,
    quantise,
    write_model,
)

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "python/tinydancer/models"
PAGE = ROOT / "docs/classification.md"
KINDS = ("classifier", "capabilities")
MAX_BYTES = 300_000

SEED = 0
FOLDS = 5
# Hashed words; with the landmarks they fill the file.
BUCKETS = 8192
LANDMARK_BYTES = 138_000
# Of the distance to a landmark; of its axes, as a share of the greatest; of the loss without words.
GAMMA = 1.0
SMALLEST_AXIS = 1e-4
ALONE = 0.3
FEATURES = WORDS_UNIGRAMS | WORDS_BIGRAMS | WORDS_LENGTH

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def model_path(kind: str, encoder_id: str) -> Path:
    """Where the file of a model lies."""
    return MODELS / f"{kind}.{encoder_id}.tdmodel"


def names_of(kind: str) -> list[str]:
    """The outputs of a model, in the order of their bytes."""
    return sorted(CATEGORIES if kind == "classifier" else CAPABILITIES)


def targets_of(kind: str, requests: Sequence[Request]) -> Any:
    """``(n, n_out)`` float32: 1 for each category or capability of a request."""
    names = names_of(kind)
    labels = [(one.category,) if kind == "classifier" else one.capabilities for one in requests]
    return np.array([[name in own for name in names] for own in labels], np.float32)


# ---------------------------------------------------------------- training


def train(kind: str, encoder: Encoder, requests: Sequence[Request]) -> bytes:
    """The file of a calibrated model, fitted to all requests.

    Folds are by group: the scores that it is calibrated with are of phrasings it has not seen.
    """
    from tinydancer.train import calibrate, learner, numeric
    from tinydancer.train.words import WordWeights, count_words

    texts = [one.text for one in requests]
    targets = targets_of(kind, requests)
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(one.group or one.text, len(numbers)) for one in requests]
    vectors = encoder.embed(texts)
    counts = count_words(encoder, texts, BUCKETS, FEATURES)
    words = WordWeights.learn(counts, features=FEATURES)
    features = words.apply(counts)
    fit: Any = _Bends if kind == "classifier" else _Linear
    shape = _landmarks(vectors) if kind == "classifier" else None

    # What is spread over the folds: the category, or the rarest capability of a request.
    strata = np.where(targets > 0, targets.sum(axis=0), np.inf).argmin(axis=1)
    fold = learner.spread(np.array(groups), strata, FOLDS, np.random.default_rng(SEED))
    scores = np.empty(targets.shape)
    with numeric.one_thread():
        for number in range(FOLDS):
            at, out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            fitted = fit(vectors[at], features[at], targets[at], shape)
            scores[out] = fitted.scores(vectors[out], features[out])
        final = fit(vectors, features, targets, shape)
    factor, shift, curve = 1.0, 0.0, None
    if kind == "classifier":
        labels = targets.argmax(axis=1)
        factor = 1 / calibrate.temperature(scores, labels)
        p = numeric.softmax(scores * factor)
        right = (p.argmax(axis=1) == labels).astype(np.float64)
        curve = calibrate.best_curve(p.max(axis=1), right, SEED)
        print(f"{kind}, {encoder.id}: {right.mean():.3f} of examples right out of fold")
    else:
        factor, shift = calibrate.affine(scores, targets)
    support = targets.sum(axis=0)
    return write_model(
        ModelSpec(
            kind,
            names_of(kind),
            encoder.id,
            int(encoder.checksum, 16),
            encoder.dim,
            "softmax" if kind == "classifier" else "sigmoid",
            support / len(requests),
            support.astype(np.uint32),
            final.members(words, factor, shift),
            None if shape is None else shape,
            None if curve is None else curve[0][None],
            None if curve is None else curve[1][None],
        )
    )


def _landmarks(vectors: Any) -> Any:
    """Centres of the examples, as many as the file has room for, as the file will hold them."""
    from sklearn.cluster import MiniBatchKMeans

    # A row of int8 with its scale, and a float for each category.
    count = LANDMARK_BYTES // (vectors.shape[1] + 4 + 4 * len(CATEGORIES))
    centres = MiniBatchKMeans(count, random_state=SEED, n_init=1, batch_size=1024).fit(vectors)
    unit = centres.cluster_centers_
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    values, scales = quantise(unit)
    return values * scales[:, None]


class _Bends:
    """Softmax regression on words and on how near a request is to landmarks."""

    def __init__(self, vectors: Any, features: Any, targets: Any, landmarks: Any) -> None:
        from scipy.sparse import csr_matrix, hstack, vstack
        from sklearn.linear_model import LogisticRegression

        self.landmarks = landmarks
        # Coordinates in which all directions of the landmarks' space weigh the same.  The least of
        # them are left out: what int8 rounds would be made large by them.
        size, axes = np.linalg.eigh(self._near(landmarks))
        kept = size > SMALLEST_AXIS * size.max()
        self.basis = axes[:, kept] / np.sqrt(size[kept])
        near = csr_matrix(self._near(vectors) @ self.basis)
        # Each row once more without its words: where only a vector is given, that must do.
        rows = vstack([hstack([near, features]), hstack([near, features * 0])]).tocsr()
        labels = np.tile(targets.argmax(axis=1), 2)
        weight = np.repeat([1.0, ALONE], len(targets))
        fitted = LogisticRegression(C=6.0, max_iter=200, tol=1e-3).fit(rows, labels, weight)
        axes_kept = self.basis.shape[1]
        self.coefficients = self.basis @ fitted.coef_[:, :axes_kept].T
        self.table = fitted.coef_[:, axes_kept:].T
        self.bias = fitted.intercept_

    def _near(self, vectors: Any) -> Any:
        length = (self.landmarks**2).sum(axis=1)[None] + (vectors**2).sum(axis=1)[:, None]
        return np.exp(-GAMMA * np.maximum(length - 2 * vectors @ self.landmarks.T, 0))

    def scores(self, vectors: Any, features: Any) -> Any:
        return self._near(vectors) @ self.coefficients + features @ self.table + self.bias

    def members(self, words: Any, factor: float, shift: float) -> list[Member]:
        n_out = len(self.bias)
        weight = np.full(n_out, factor, np.float32)
        table = np.zeros((BUCKETS, n_out), np.float32)
        table[words.buckets] = self.table
        bias = (self.bias + shift / factor).astype(np.float32)
        return [
            Rbf(weight, self.coefficients.astype(np.float32), bias, GAMMA, int8=False),
            Words(weight, table, np.zeros(n_out, np.float32), words.idf, FEATURES),
        ]


class _Linear:
    """A linear map of the vector and words, a yes or no for each capability."""

    def __init__(self, vectors: Any, features: Any, targets: Any, _: Any) -> None:
        from tinydancer.train.fit import Settings, fit_fastgrnn

        self.fitted = fit_fastgrnn(
            vectors, targets, head="labels", hidden=0, linear=True, words=features,
            settings=Settings(epochs=72, rate=0.03, alone=ALONE, validation=0), seed=SEED,
        )  # fmt: skip

    def scores(self, vectors: Any, features: Any) -> Any:
        from tinydancer.train.network import Inputs

        return self.fitted.scores(Inputs(vectors, None, features))

    def members(self, words: Any, factor: float, shift: float) -> list[Member]:
        bias = self.fitted.network.parameters["b"]
        self.fitted.network.parameters["b"] = (bias + shift / factor).astype(bias.dtype)
        return self.fitted.members(
            factor, int8=True, idf=words.idf, buckets=words.buckets, features=FEATURES
        )


# ---------------------------------------------------------------- figures


@dataclass(frozen=True)
class Figures:
    """What the kernel says of the held-out requests with a model; ``kind`` is the model's."""

    kind: str
    encoder_id: str
    size: int
    truth: Any
    p: Any

    def calibration_error(self) -> float:
        """Of the top category, or of every capability of every request."""
        from tinydancer.train.measure import calibration_error

        if self.kind == "classifier":
            return calibration_error(self.p.max(axis=1), self.right())
        return calibration_error(self.p.ravel(), self.truth.ravel())

    def right(self) -> Any:
        """``(n,)`` 1 where the top category is that of the request."""
        return (self.p.argmax(axis=1) == self.truth.argmax(axis=1)).astype(np.float64)

    def f1(self) -> float:
        """F1 of all capabilities at probability 0.5."""
        from tinydancer.train.measure import micro_f1

        return micro_f1(self.p >= 0.5, self.truth > 0.5)

    def interval(self) -> list[float]:
        """The 95 % interval of accuracy or F1, over the requests."""
        from tinydancer.train.measure import interval, micro_f1

        if self.kind == "classifier":
            right = self.right()
            return interval(lambda i: float(right[i].mean()), len(right), SEED)
        p, truth = self.p >= 0.5, self.truth > 0.5
        return interval(lambda i: micro_f1(p[i], truth[i]), len(p), SEED)


def measure(kind: str, encoder: Encoder, held_out: Sequence[Request]) -> Figures:
    """Figures of a committed file.

    Raises:
        SystemExit: if the file is missing, too large or not of this encoder and these labels.
    """
    path = model_path(kind, encoder.id)
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run {Path(__file__).name}")
    model = _kernels.Model(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{path} has {size} bytes and may have {MAX_BYTES}")
    if (model.task, model.encoder_id, model.encoder_checksum, list(model.names)) != (
        *(kind, encoder.id, encoder.checksum, names_of(kind)),
    ):
        raise SystemExit(f"{path} is of another encoder or has other labels")
    texts = [one.text for one in held_out]
    p = model.apply(encoder.embed(texts), texts, encoder).astype(np.float64)
    return Figures(kind, encoder.id, size, targets_of(kind, held_out), p)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:" for _ in head[1:]]], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_category(figures: Sequence[Figures]) -> str:
    rows = []
    names = names_of("classifier")
    for name in CATEGORIES:
        own = figures[0].truth.argmax(axis=1) == names.index(name)
        shares = [f"{100 * one.right()[own].mean():.0f} %" for one in figures]
        rows.append([name, str(int(own.sum())), *shares])
    return _table(["category", "requests", *[one.encoder_id for one in figures]], rows)


def _by_capability(figures: Sequence[Figures]) -> str:
    from tinydancer.train.measure import micro_f1

    rows = []
    names = names_of("capabilities")
    for name in CAPABILITIES:
        j = [names.index(name)]
        shown = [f"{micro_f1(one.p[:, j] >= 0.5, one.truth[:, j] > 0.5):.2f}" for one in figures]
        rows.append([name, str(int(figures[0].truth[:, j].sum())), *shown])
    return _table(["capability", "requests", *[one.encoder_id for one in figures]], rows)


def _confusions(one: Figures) -> str:
    names = names_of("classifier")
    truth, said = one.truth.argmax(axis=1), one.p.argmax(axis=1)
    pairs = Counter(
        (names[a], names[b]) for a, b in zip(truth, said, strict=True) if a != b
    ).most_common()
    shown = [f"{a} taken for {b} ({count})" for (a, b), count in pairs if count >= 2]
    return f"- `{one.encoder_id}`: " + ", ".join(shown) + "."


def digest() -> str:
    """Checksum of the requests, so that a change of them is noticed."""
    both = task_examples.EXAMPLES.read_bytes() + task_examples.HELD_OUT.read_bytes()
    return hashlib.sha256(both).hexdigest()


def block(figures: Sequence[Figures]) -> str:
    """The generated part of the page."""
    examples = task_examples.read(task_examples.EXAMPLES)
    tasks = [one for one in figures if one.kind == "classifier"]
    labels = [one for one in figures if one.kind == "capabilities"]
    rows = []
    for one in figures:
        low, high = one.interval()
        value = f"{100 * one.right().mean():.1f} %" if one in tasks else f"{one.f1():.3f}"
        span = f"{100 * low:.0f}-{100 * high:.0f} %" if one in tasks else f"{low:.2f}-{high:.2f}"
        rows.append(
            [
                f"{one.kind}, `{one.encoder_id}`",
                f"{'accuracy' if one in tasks else 'F1'} {value}",
                span,
                f"{one.calibration_error():.3f}",
                f"{one.size / 1000:.0f} kB",
            ]
        )
    head = ["model", "held out", "95 % interval", "calibration error", "file"]
    parts = [
        f"{len(examples)} examples, {len(tasks[0].truth)} held-out requests; sha256 of both files "
        f"`{digest()[:16]}`.",
        _table(head, rows),
        "Accuracy by category:",
        _by_category(tasks),
        "What is taken for something else, two times or more:",
        "\n".join(_confusions(one) for one in tasks),
        "F1 by capability, at probability 0.5:",
        _by_capability(labels),
    ]
    return "\n\n".join([BEGIN, *parts, END])


# ---------------------------------------------------------------- command line


def _encoders() -> list[Encoder]:
    try:
        return [Encoder.load(encoder_id) for encoder_id in SHIPPED_IDS]
    except EncoderNotFoundError as error:
        raise SystemExit(f"{error}: every shipped encoder is needed") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="verify the files, change nothing")
    options = parser.parse_args(arguments)
    encoders = _encoders()
    if not options.check:
        MODELS.mkdir(exist_ok=True)
        requests = task_examples.read(task_examples.EXAMPLES)
        for encoder in encoders:
            for kind in KINDS:
                model_path(kind, encoder.id).write_bytes(train(kind, encoder, requests))
    held_out = task_examples.read(task_examples.HELD_OUT)
    figures = [measure(kind, encoder, held_out) for kind in KINDS for encoder in encoders]
    page = PAGE.read_text("utf-8")
    made = re.sub(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block(figures), page, flags=re.DOTALL
    )
    if not options.check:
        PAGE.write_text(made, "utf-8")
    elif made != page:
        raise SystemExit(f"{PAGE} has other figures than the files: run {Path(__file__).name}")
    for one in figures:
        value = one.right().mean() if one.kind == "classifier" else one.f1()
        print(f"{one.kind}, {one.encoder_id}: {value:.3f} held out, {one.size} bytes")


if __name__ == "__main__":
    sys.exit(main())
