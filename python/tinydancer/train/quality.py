"""Quality models: how good each agent's answer to a request will be.

Labels (request, agent, quality) come in, of any subset of the agents for each request; a model
file comes out.  Experts (tinydancer.train.experts) are weighted and calibrated on predictions for
requests that they did not learn from.  Called by ``tinydancer train quality`` and by
``tinydancer evaluate llm``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydancer.encoder import Encoder
from tinydancer.errors import InvalidInputError, ShapeError
from tinydancer.model_file import ModelSpec, write_model
from tinydancer.train import numeric
from tinydancer.train.experts import EXPERTS, Experts, Problem
from tinydancer.train.measure import calibration_error
from tinydancer.train.numeric import Array
from tinydancer.train.outcomes import Outcomes, collect
from tinydancer.train.progress import Progress
from tinydancer.train.reliability import apply_curve, rising_curve
from tinydancer.train.result import ReportData, TrainedModel
from tinydancer.train.words import WordColumns, WordWeights, count_words

__all__ = ["FOLDS", "base_rates", "fit_quality", "stack", "train_quality"]

FOLDS = 5
BUCKETS = 1 << 15
# Word pieces, pairs of them, and how many there are.
FEATURES = 7
# Columns of words beside the vector, found by cross-validation; see docs/evaluation.md.  Fewer
# requests than that many times ROWS_A_COLUMN do not say so many directions.
COLUMNS = 64
ROWS_A_COLUMN = 8
SHARE = 1.0
# How many labels of the average agent are added to each agent's own.
PRIOR_LABELS = 10.0
# Distance from equal weights, in units of the experts' mean square: weights that are free to
# follow the folds cost accuracy; see docs/evaluation.md.
STACK_SHRINKAGE = 2.0
RESAMPLES = 1000


def base_rates(quality: Array) -> Array:
    """The mean quality of each agent, shrunk to that of all where there are few labels.

    Args:
        quality: ``(n, n_agents)``; NaN: unknown.

    Returns:
        ``(n_agents,)`` in (0, 1).
    """
    known = ~np.isnan(quality)
    count = known.sum(axis=0)
    total = np.where(known, quality, 0).sum(axis=0)
    every = (total.sum() + 0.5) / (count.sum() + 1)
    rates: Array = (total + PRIOR_LABELS * every) / (count + PRIOR_LABELS)
    return rates


def stack(predictions: Array, prior: Array, quality: Array) -> Array:
    """Weights of experts by non-negative ridge regression towards equal weights.

    Args:
        predictions: ``(n_experts, n, n_agents)`` for requests that were not learned from.
        prior: ``(n, n_agents)`` base rates, as these predictions had them.
        quality: ``(n, n_agents)``; NaN: unknown.

    Returns:
        ``(n_experts,)``, 0 or more, with sum 1.
    """
    from scipy.optimize import nnls

    known = ~np.isnan(quality)
    design = np.stack([(one - prior)[known] for one in predictions], axis=1)
    target = (quality - prior)[known]
    count = design.shape[1]
    pull = np.sqrt(STACK_SHRINKAGE * np.square(design).sum() / count)
    weights, _ = nnls(
        np.vstack([design, pull * np.eye(count)]),
        np.concatenate([target, np.full(count, pull / count)]),
    )
    total = weights.sum()
    result: Array = weights / total if total > 0 else np.full(count, 1 / count)
    return result


@dataclass(frozen=True)
class _Reading:
    """What experts read of a request, learned from training requests."""

    words: WordWeights
    columns: WordColumns | None

    @classmethod
    def learn(cls, counts: Any, seed: int) -> _Reading:
        weights = WordWeights.learn(counts, features=FEATURES)
        rank = min(COLUMNS, -(-counts.shape[0] // ROWS_A_COLUMN))
        return cls(weights, WordColumns.learn(weights.apply(counts), weights, rank, SHARE, seed))

    def apply(self, x: Array, counts: Any) -> tuple[Array, Any]:
        """``(n, width)`` vectors and ``(n, n_features)`` words of requests."""
        wide = x if self.columns is None else self.columns.apply(x, counts)
        return wide, self.words.apply(counts)

    def problem(self, x: Array, counts: Any, quality: Array, prior: Array) -> Problem:
        wide, words = self.apply(x, counts)
        # Stored rows have unit length, without known words too.
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        wide = (wide / np.where(length > 0, length, 1)).astype(np.float32)
        return Problem(wide, words, quality, prior)


@dataclass
class _OutOfFold:
    """Predictions for every request by experts that did not see it."""

    fold: Array
    prior: Array
    experts: Array


def _out_of_fold(
    x: Array, counts: Any, quality: Array, seed: int, progress: Progress
) -> _OutOfFold:
    fold = numeric.folds(len(x), FOLDS, np.random.default_rng([seed, 0]))
    prior = np.empty(quality.shape)
    experts = np.empty((len(EXPERTS), *quality.shape))
    for number in range(FOLDS):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        reading = _Reading.learn(counts[train], seed)
        rates = base_rates(quality[train])
        problem = reading.problem(x[train], counts[train], quality[train], rates)
        fitted = Experts.fit(problem, seed, progress, f"fold {number + 1} of {FOLDS}")
        predicted = fitted.predict(*reading.apply(x[test], counts[test]))
        prior[test] = rates
        experts[:, test] = np.stack([predicted[name] for name in EXPERTS])
    return _OutOfFold(fold, prior, experts)


def _calibrated(said: Array, known: Array, quality: Array, fold: Array) -> Array:
    """Predictions calibrated by a curve of the other folds, for an honest calibration error."""
    result = np.empty(said.shape)
    for number in range(FOLDS):
        other = known & (fold != number)[:, None]
        curve = rising_curve(said[other], quality[other])
        result[fold == number] = apply_curve(curve, said[fold == number])
    return result


def _explained(said: Array, prior: Array, quality: Array, seed: int) -> tuple[float, list[float]]:
    """Share of the squared error of base rates that predictions save, with its 95 % interval."""
    known = ~np.isnan(quality)
    # By request: outcomes of one request are not independent.
    ours = np.where(known, (quality - said) ** 2, 0).sum(axis=1)
    base = np.where(known, (quality - prior) ** 2, 0).sum(axis=1)
    rng = np.random.default_rng([seed, 3])
    draws = []
    for _ in range(RESAMPLES):
        rows = rng.integers(len(ours), size=len(ours))
        draws.append(1 - ours[rows].sum() / max(base[rows].sum(), 1e-12))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(1 - ours.sum() / max(base.sum(), 1e-12)), [float(low), float(high)]


def _check(outcomes: Outcomes) -> None:
    n = len(outcomes.requests)
    if n < 2 * FOLDS:
        raise InvalidInputError(
            "too few requests to learn from",
            f"There are {n} with a known quality; {FOLDS} folds need at least {2 * FOLDS}.",
            "Log more outcomes with ruvector_record_usage(..., quality := ...).",
        )
    known = outcomes.quality[outcomes.known]
    if known.min() == known.max():
        raise InvalidInputError(
            "every known quality is the same",
            f"All {len(known)} are {known[0]:g}: there is nothing to tell apart.",
            "Log outcomes that went well and outcomes that did not.",
        )


def fit_quality(
    outcomes: Outcomes,
    encoder: Encoder,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    vectors: Array | None = None,
    threads: int = 1,
) -> TrainedModel:
    """Train a quality model from a table of outcomes.

    Args:
        outcomes: who answered what how well.
        encoder: whose vectors and word pieces the model reads.
        seed: of every random number; the same seed gives the same bytes on one machine.
        progress: listener.
        vectors: ``(n, dim)`` of the requests, where they are known already.
        threads: for embedding; the result does not depend on it.

    Returns:
        The model and what was measured out of fold.

    Raises:
        InvalidInputError: too few requests, or nothing to tell apart.
        ShapeError: vectors that do not fit the requests.
    """
    _check(outcomes)
    progress = progress or Progress()
    quality, n = outcomes.quality, len(outcomes.requests)
    if vectors is None:
        progress.start("embedding", 1)
        vectors = encoder.embed(outcomes.requests, threads=threads)
        progress.step(rows=n)
    x = np.ascontiguousarray(vectors, np.float32)
    if x.shape != (n, encoder.dim):
        raise ShapeError("vectors do not fit the requests", f"{x.shape} and {(n, encoder.dim)}.")
    counts = count_words(encoder, outcomes.requests, BUCKETS, FEATURES)
    with numeric.one_thread():
        out = _out_of_fold(x, counts, quality, seed, progress)
        weight = stack(out.experts, out.prior, quality)
        said = np.tensordot(weight, out.experts, 1).clip(0, 1)
        known = outcomes.known
        curve = rising_curve(said[known], quality[known])
        reading = _Reading.learn(counts, seed)
        prior = base_rates(quality)
        problem = reading.problem(x, counts, quality, prior)
        experts = Experts.fit(problem, seed, progress, "all requests")
        by_name = dict(zip(EXPERTS, weight.tolist(), strict=True))
        words = reading.words
        members = experts.members(by_name, words.idf, words.buckets, FEATURES)
    spec = ModelSpec(
        task="quality",
        names=outcomes.agents,
        encoder_id=encoder.id,
        encoder_checksum=int(encoder.checksum, 16),
        dim=encoder.dim,
        link="identity",
        prior=prior,
        support=outcomes.support,
        members=members,
        rows=problem.x,
        curve_x=curve[0][None],
        curve_y=curve[1][None],
        projection=None if reading.columns is None else reading.columns.projection,
    )
    metrics, report = _measured(outcomes, out, weight, said, seed)
    return TrainedModel(spec, write_model(spec), metrics, report)


def _measured(
    outcomes: Outcomes, out: _OutOfFold, weight: Array, said: Array, seed: int
) -> tuple[dict[str, Any], ReportData]:
    quality, known = outcomes.quality, outcomes.known
    honest = _calibrated(said, known, quality, out.fold)
    ours, interval = _explained(honest, out.prior, quality, seed)
    neighbours, _ = _explained(out.experts[EXPERTS.index("knn")], out.prior, quality, seed)
    error = calibration_error(honest[known], quality[known])
    n_labels = int(known.sum())
    metrics: dict[str, Any] = {
        "n_train": len(outcomes.requests),
        "n_labels": n_labels,
        "n_test": n_labels,
        "seed": seed,
        "folds": FOLDS,
        "metric": "variance explained",
        "ours": ours,
        "ours_ci": interval,
        "baseline": "base rate of each agent",
        "baseline_value": 0.0,
        "beats_baseline": bool(interval[0] > 0),
        "nearest_neighbours": neighbours,
        "ece": error,
        "ece_uncalibrated": calibration_error(said[known], quality[known]),
        "weights": {name: float(w) for name, w in zip(EXPERTS, weight, strict=True)},
        "left_out": outcomes.left_out,
    }
    if known.all() and len(outcomes.agents) > 1:
        rows = np.arange(len(quality))
        metrics["chosen_quality"] = float(quality[rows, honest.argmax(axis=1)].mean())
        metrics["best_single_quality"] = float(quality.mean(axis=0).max())
        metrics["oracle_quality"] = float(quality.max(axis=1).mean())
    notes = []
    if outcomes.left_out:
        notes.append(f"{outcomes.left_out} labels without a quality were left out.")
    if outcomes.repeated:
        notes.append(f"{outcomes.repeated} labels repeat a request and agent; their means count.")
    table = [
        {
            "agent": name,
            "labels": int(outcomes.support[j]),
            "mean quality": float(quality[known[:, j], j].mean()),
            "mean predicted": float(honest[known[:, j], j].mean()),
        }
        for j, name in enumerate(outcomes.agents)
    ]
    report = ReportData(
        confidence=honest[known],
        outcome=quality[known],
        names=list(outcomes.agents),
        notes=notes,
        tables={"agents": table},
    )
    return metrics, report


def train_quality(
    requests: Sequence[str],
    agents: Sequence[str],
    quality: Sequence[float | None],
    encoder: Encoder,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    threads: int = 1,
) -> TrainedModel:
    """Train a quality model from labels, one for each request and agent that was tried.

    Args:
        requests: ``(n_labels,)`` texts.
        agents: ``(n_labels,)`` names.
        quality: ``(n_labels,)`` in [0, 1]; None and NaN are left out and counted.
        encoder: whose vectors the model reads.
        seed: of every random number.
        progress: listener.
        threads: for embedding.

    Returns:
        The model and what was measured out of fold.

    Raises:
        InvalidInputError: qualities outside of [0, 1], empty texts, too few requests, or nothing
            to tell apart.
        ShapeError: sequences of different lengths.
    """
    outcomes = collect(requests, agents, quality)
    return fit_quality(outcomes, encoder, seed, progress, threads=threads)
