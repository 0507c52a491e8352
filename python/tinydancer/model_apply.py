"""What a model says, in readable NumPy: the oracle of kernels/src/td_model.c.

A ``ModelSpec``, vectors and word-piece ids come in, probabilities come out.  Training uses it to
see what a model will say before it is written; tests compare the kernel with it.  It never runs
while routing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.model_file import (
    WORDS_BIGRAMS,
    WORDS_LENGTH,
    WORDS_UNIGRAMS,
    FastGrnn,
    Knn,
    Linear,
    Member,
    ModelSpec,
    Projection,
    Rbf,
    Words,
    quantise,
)

__all__ = ["apply_model", "features_of_ids", "link_scores", "project"]

MAX_PIECES = 512
_MASK = (1 << 64) - 1

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]


def _bucket(x: int, n_buckets: int) -> int:
    """Finaliser of splitmix64 (Steele, Lea and Flood 2014), cut to the buckets."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return (x ^ (x >> 31)) & (n_buckets - 1)


def features_of_ids(ids: Sequence[int], n_buckets: int, features: int) -> dict[int, float]:
    """The hashed features of word pieces: bucket to square root of its count.

    Args:
        ids: of the pieces, in text order; the first MAX_PIECES are read.
        n_buckets: a power of two.
        features: sum of WORDS_UNIGRAMS, WORDS_BIGRAMS, WORDS_LENGTH.
    """
    ids = [int(i) for i in ids[:MAX_PIECES]]
    hashed: list[int] = []
    if features & WORDS_UNIGRAMS:
        hashed += [i + 1 for i in ids]
    if features & WORDS_BIGRAMS:
        hashed += [(a + 1) << 32 | (b + 1) for a, b in itertools.pairwise(ids)]
    if features & WORDS_LENGTH and ids:
        high = len(ids).bit_length() - 1
        below = len(ids) >> (high - 1) & 1 if high else 0
        hashed.append(1 << 63 | (2 * high + below))
    counts: dict[int, int] = {}
    for x in hashed:
        bucket = _bucket(x, n_buckets)
        counts[bucket] = counts.get(bucket, 0) + 1
    return {bucket: float(np.sqrt(np.float32(n))) for bucket, n in sorted(counts.items())}


def project(p: Projection, vectors: Array, ids: Sequence[Sequence[int] | None] | None) -> F64:
    """Vectors with the words of their texts beside them.

    Args:
        p: whose columns they are.
        vectors: ``(n, dim)``.
        ids: word-piece ids of each text; None: no text.

    Returns:
        ``(n, dim + rank) float64``.
    """
    table = np.asarray(p.table, np.float64)
    wide = np.zeros((len(vectors), vectors.shape[1] + table.shape[1]))
    for i, x in enumerate(np.asarray(vectors, np.float64)):
        own = None if ids is None else ids[i]
        found = features_of_ids(() if own is None else own, len(table), p.features)
        columns = np.array(list(found.values())) @ table[list(found)] if found else table[0] * 0
        length = float(np.sqrt((columns * columns).sum()))
        whole = np.sqrt(1 + p.share**2)
        if length > 0:
            wide[i] = np.append(x, p.share / length * columns) / whole
        else:
            wide[i, : len(x)] = x * whole
    return wide


def _sigmoid(x: F64) -> F64:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))))


def _product(matrix: Array | tuple[Array, Array] | None, x: F64, int8: bool) -> F64:
    """``matrix @ x``; with int8 weights the kernel quantises what they are applied to."""
    if matrix is None:
        return np.zeros(len(x))
    if isinstance(matrix, tuple):
        return _product(matrix[0], _product(matrix[1], x, int8), int8)
    if int8:
        values, scales = quantise(x[None])
        x = values[0].astype(np.float64) * float(scales[0])
    return np.asarray(np.asarray(matrix, np.float64) @ x)


def _hidden(m: FastGrnn, x: F64) -> F64:
    """The hidden state after the inputs ``(steps, dim)``, from zeros."""
    w_h, u_h = (m.w, m.u) if m.w_h is None else (m.w_h, m.u_h)
    h = np.zeros(len(m.b_z))
    for step in x:
        z = _sigmoid(_product(m.w, step, m.int8) + _product(m.u, h, m.int8) + m.b_z)
        candidate = np.tanh(_product(w_h, step, m.int8) + _product(u_h, h, m.int8) + m.b_h)
        h = (m.zeta * (1 - z) + m.nu) * candidate + z * h
    return h


def _knn(spec: ModelSpec, m: Knn, cosine: F64) -> F64:
    # Stable: of equals the earlier row is nearer.
    nearest = np.argsort(-cosine, kind="stable")[: m.k]
    weight = np.exp((cosine[nearest] - 1) / m.temperature)[:, None]
    values = np.asarray(m.values, np.float64)[nearest]
    known = ~np.isnan(values)
    total = m.pseudo * np.asarray(spec.prior) + (weight * np.where(known, values, 0)).sum(axis=0)
    count = m.pseudo + (weight * known).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.where(count > 0, count, 1), spec.prior))


def _words(m: Words, ids: Sequence[int]) -> F64:
    found = features_of_ids(ids, len(m.idf), m.features)
    buckets = list(found)
    x = np.array([found[b] for b in buckets]) * np.asarray(m.idf, np.float64)[buckets]
    length = np.sqrt((x * x).sum())
    scores = x @ np.asarray(m.table, np.float64)[buckets]
    return np.asarray(np.asarray(m.bias, np.float64) + (scores / length if length > 0 else scores))


def _reads_text(m: Member) -> bool:
    return isinstance(m, Words) or (isinstance(m, FastGrnn) and m.steps > 0)


def _scores(
    spec: ModelSpec, m: Member, x: F64, cosine: F64, ids: Sequence[int] | None, table: Array | None
) -> F64:
    if isinstance(m, Linear):
        return np.asarray(_product(m.matrix, x, m.int8) + m.bias)
    if isinstance(m, FastGrnn):
        steps = x[None]
        if m.steps > 0:
            assert ids is not None and table is not None
            known = [i for i in ids[:MAX_PIECES] if table[i].any()][: m.steps]
            steps = table[known].astype(np.float64) * m.token_scale
        return np.asarray(_product(m.head, _hidden(m, steps), m.int8) + m.head_bias)
    if isinstance(m, Knn):
        return _knn(spec, m, cosine)
    if isinstance(m, Rbf):
        # Quantising can carry a cosine a little past 1.
        kernel = np.exp(-m.gamma * np.maximum(2 - 2 * cosine, 0))
        return np.asarray(m.bias + kernel @ np.asarray(m.coefficients, np.float64))
    assert ids is not None
    return _words(m, ids)


def _calibrate_top(p: F64, x: Array, y: Array) -> F64:
    top = int(p.argmax())
    rest = 1 - p[top]
    if rest <= 0:
        return p
    second = np.delete(p, top).max(initial=0.0)
    # A little above the second, so that rounding to float makes no tie of the two.
    raised = max(float(np.interp(p[top], x, y)), 1.000001 * second / (rest + second))
    result = p * ((1 - raised) / rest)
    result[top] = raised
    return result


def link_scores(spec: ModelSpec, total: F64) -> F64:
    """Probabilities of weighted sums: link and calibration.

    Args:
        spec: whose link and curves count.
        total: ``(n, n_out)``.

    Returns:
        ``(n, n_out) float64``.
    """
    if spec.link == "softmax":
        e = np.exp(total - total.max(axis=1, keepdims=True))
        p: F64 = e / e.sum(axis=1, keepdims=True)
        if spec.curve_x is not None and spec.curve_y is not None:
            p = np.stack([_calibrate_top(row, spec.curve_x[0], spec.curve_y[0]) for row in p])
        return p
    p = _sigmoid(total) if spec.link == "sigmoid" else total
    p = np.clip(p, 0, 1)
    if spec.curve_x is not None and spec.curve_y is not None:
        for j in range(spec.n_out):
            curve = 0 if len(spec.curve_x) == 1 else j
            p[:, j] = np.interp(p[:, j], spec.curve_x[curve], spec.curve_y[curve])
    return p


def apply_model(
    spec: ModelSpec,
    vectors: Array,
    ids: Sequence[Sequence[int] | None] | None = None,
    table: Array | None = None,
) -> F64:
    """The probability of each output, as the kernel computes it but for rounding.

    Args:
        spec: the model.
        vectors: ``(n, dim)``.
        ids: word-piece ids of each text; None: only vectors are known.
        table: ``(vocab_size, dim)`` vectors of the pieces, for members that read sequences.

    Returns:
        ``(n, n_out) float64``.
    """
    x = np.asarray(vectors, np.float64)
    if spec.projection is not None:
        x = project(spec.projection, x, ids)
    cosines = np.zeros((len(x), 0))
    if spec.rows is not None:
        rows, scales = quantise(spec.rows)
        queries, query_scales = quantise(x)
        dots = queries.astype(np.float64) @ rows.astype(np.float64).T
        cosines = dots * query_scales[:, None] * scales
    total = np.zeros((len(x), spec.n_out))
    for i in range(len(x)):
        own = None if ids is None else ids[i]
        used = [m for m in spec.members if own is not None or not _reads_text(m)]
        for m in used:
            total[i] += np.asarray(m.weight) * _scores(spec, m, x[i], cosines[i], own, table)
        if len(used) < len(spec.members) and spec.link == "identity":
            every = np.sum([m.weight for m in spec.members], axis=0)
            present = np.sum([m.weight for m in used], axis=0) if used else np.zeros(spec.n_out)
            share = total[i] * (every / np.where(present > 0, present, 1))
            total[i] = np.where(present > 0, share, spec.prior)
    return link_scores(spec, total)
