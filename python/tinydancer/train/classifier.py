"""The trainers of classifiers (one category a request) and of capabilities (any number of them).

Requests and labels come in; a calibrated model and its figures on held-out rows come out.  Called
by ``tinydancer train``, by ``tinydancer evaluate intents`` and by what makes the built-in models.

Figures are measured on a fifth of the rows, by the kernel, with a model that has not seen them; the
model that is returned is then fitted to all rows, with the same members and the same calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import TrainingDataError
from tinydancer.model_file import ModelSpec, write_model
from tinydancer.train import calibrate, learner, measure
from tinydancer.train.data import distinct_names
from tinydancer.train.learner import Learned, Rows
from tinydancer.train.numeric import Array, softmax
from tinydancer.train.progress import Progress
from tinydancer.train.result import ReportData, TrainedModel

__all__ = [
    "OUT_OF_SCOPE",
    "fit_capabilities",
    "fit_classifier",
    "train_capabilities",
    "train_classifier",
]

# Rows with this label belong to no category: they measure whether a model knows what it is not for.
OUT_OF_SCOPE = "oos"
TEST_SHARE = 5
# int8 is kept when at least this share of decisions is that of floats.
SAME_DECISIONS = 0.99


@dataclass(frozen=True)
class _Calibration:
    """Scores times factor plus shift, and a curve for the greatest probability."""

    factor: float
    shift: float = 0.0
    curve: calibrate.Curve | None = None


def _calibration(task: str, learned: Learned, targets: Array, seed: int) -> _Calibration:
    """Fitted to the scores out of fold."""
    if task == "capabilities":
        return _Calibration(*calibrate.affine(learned.scores, targets))
    labels = targets.argmax(axis=1)
    t = calibrate.temperature(learned.scores, labels)
    p = softmax(learned.scores / t)
    right = (p.argmax(axis=1) == labels).astype(np.float64)
    return _Calibration(1 / t, 0.0, calibrate.best_curve(p.max(axis=1), right, seed))


def _spec(
    task: str, names: Sequence[str], encoder: Encoder, rows: Rows, learned: Learned,
    calibration: _Calibration, int8: bool,
) -> ModelSpec:  # fmt: skip
    counts = rows.targets.sum(axis=0)
    curve = calibration.curve
    return ModelSpec(
        task,
        list(names),
        encoder.id,
        int(encoder.checksum, 16),
        encoder.dim,
        "softmax" if task == "classifier" else "sigmoid",
        counts / len(rows),
        counts.astype(np.uint32),
        learned.members(calibration.factor, calibration.shift, int8),
        None,
        None if curve is None else curve[0][None],
        None if curve is None else curve[1][None],
    )


def _export(
    task: str, names: Sequence[str], encoder: Encoder, rows: Rows, learned: Learned,
    calibration: _Calibration, texts: Sequence[str],
) -> tuple[ModelSpec, bytes, float]:  # fmt: skip
    """The model with int8 weights, or with floats where int8 would change decisions."""
    sample = np.linspace(0, len(rows) - 1, min(len(rows), 1000)).astype(np.int64)
    specs, made, decided = [], [], []
    for int8 in (True, False):
        spec = _spec(task, names, encoder, rows, learned, calibration, int8)
        data = write_model(spec)
        p = _kernels.Model(data).apply(rows.vectors[sample], [texts[i] for i in sample], encoder)
        specs.append(spec)
        made.append(data)
        decided.append(p.argmax(axis=1) if task == "classifier" else p >= 0.5)
    same = float((decided[0] == decided[1]).mean())
    kept = 0 if same >= SAME_DECISIONS else 1
    return specs[kept], made[kept], same


# ---------------------------------------------------------------- labels to targets


def _categories(
    requests: Sequence[str], labels: Sequence[str]
) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Names, the category of each row that has one, and the numbers of these rows."""
    if len(requests) != len(labels):
        raise TrainingDataError(
            "requests and labels must have the same number of rows",
            f"There are {len(requests)} and {len(labels)}.",
        )
    for number, label in enumerate(labels, 1):
        if not isinstance(label, str) or not label.strip():
            raise TrainingDataError("a label is missing or is no text", f"Row {number}: {label!r}.")
    inside = np.array([i for i, label in enumerate(labels) if label != OUT_OF_SCOPE], np.int64)
    names = distinct_names([labels[i] for i in inside])
    if len(names) < 2:
        raise TrainingDataError(
            "a classifier needs two categories",
            f"All {len(inside)} rows have {names!r}.",
            f'Label requests of other kinds too; rows with the label "{OUT_OF_SCOPE}" have none.',
        )
    index = {name: j for j, name in enumerate(names)}
    return names, np.array([index[labels[i]] for i in inside], np.int64), inside


def _capabilities(
    requests: Sequence[str], labels: Sequence[Sequence[str]]
) -> tuple[list[str], Array]:
    """Names, and for each row 1 for each that it needs."""
    if len(requests) != len(labels):
        raise TrainingDataError(
            "requests and labels must have the same number of rows",
            f"There are {len(requests)} and {len(labels)}.",
        )
    names = distinct_names([one for label in labels for one in label], "capabilities")
    if not names:
        raise TrainingDataError(
            "there are no capabilities to learn", f"None of {len(labels)} rows has one."
        )
    index = {name: j for j, name in enumerate(names)}
    targets = np.zeros((len(labels), len(names)), np.float32)
    for i, label in enumerate(labels):
        targets[i, [index[one] for one in label]] = 1
    constant = [name for name, share in zip(names, targets.mean(0), strict=True) if share == 1]
    if constant:
        raise TrainingDataError(
            f'every request needs capability "{constant[0]}"',
            f"All {len(labels)} rows have it, so nothing can be learned of it.",
            "Add requests that do not need it.",
        )
    return names, targets


def _strata(task: str, targets: Array) -> npt.NDArray[np.int64]:
    """What is spread evenly over folds: the category, or the rarest capability of a row."""
    if task == "classifier":
        return targets.argmax(axis=1)
    frequency = np.where(targets > 0, targets.sum(axis=0), np.inf)
    rarest = frequency.argmin(axis=1)
    return np.where(targets.any(axis=1), rarest, targets.shape[1])


# ---------------------------------------------------------------- fit: all rows, no figures


def _fit_rows(
    task: str, names: Sequence[str], rows: Rows, encoder: Encoder, texts: Sequence[str],
    seed: int, progress: Progress,
) -> tuple[Learned, _Calibration, ModelSpec, bytes, float]:  # fmt: skip
    head = "softmax" if task == "classifier" else "labels"
    learned = learner.learn(rows, _strata(task, rows.targets), head, seed, progress)
    calibration = _calibration(task, learned, rows.targets, seed)
    exported = _export(task, names, encoder, rows, learned, calibration, texts)
    return learned, calibration, *exported


def fit_classifier(
    requests: Sequence[str],
    labels: Sequence[str],
    encoder: Encoder,
    *,
    seed: int = 0,
    vectors: Array | None = None,
    progress: Progress | None = None,
) -> tuple[ModelSpec, bytes]:
    """Fit a calibrated classifier to all rows, without figures.

    Args:
        requests: n texts.
        labels: n categories; rows with OUT_OF_SCOPE are passed over.
        encoder: makes the vectors.
        seed: of every random number.
        vectors: ``(n, dim)`` of the requests; None: they are made.
        progress: listener.

    Returns:
        The model and its file.

    Raises:
        TrainingDataError: rows that nothing can be learned from.
    """
    progress = progress or Progress()
    names, labelled, inside = _categories(requests, labels)
    texts = [requests[i] for i in inside]
    known = None if vectors is None else vectors[inside]
    targets = np.eye(len(names), dtype=np.float32)[labelled]
    rows = learner.rows_of(encoder, texts, targets, progress, known)
    _, _, spec, data, _ = _fit_rows("classifier", names, rows, encoder, texts, seed, progress)
    return spec, data


def fit_capabilities(
    requests: Sequence[str],
    labels: Sequence[Sequence[str]],
    encoder: Encoder,
    *,
    seed: int = 0,
    vectors: Array | None = None,
    progress: Progress | None = None,
) -> tuple[ModelSpec, bytes]:
    """Fit a calibrated model of capabilities to all rows, without figures.

    Args:
        requests: n texts.
        labels: of each the capabilities that it needs, possibly none.
        encoder: makes the vectors.
        seed: of every random number.
        vectors: ``(n, dim)`` of the requests; None: they are made.
        progress: listener.

    Returns:
        The model and its file.

    Raises:
        TrainingDataError: rows that nothing can be learned from.
    """
    progress = progress or Progress()
    names, targets = _capabilities(requests, labels)
    rows = learner.rows_of(encoder, requests, targets, progress, vectors)
    _, _, spec, data, _ = _fit_rows("capabilities", names, rows, encoder, requests, seed, progress)
    return spec, data


# ---------------------------------------------------------------- train: with figures


def _held_out(
    groups: npt.NDArray[np.int64], strata: npt.NDArray[np.int64], seed: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which rows are for testing, and which of these are dropped: training has the same request.

    A stratum with a single row is never held out: nothing would be left to learn it from.
    """
    rng = np.random.default_rng([seed, 4])
    order = rng.permutation(len(groups))
    test = np.zeros(len(groups), bool)
    for stratum in np.unique(strata):
        own = order[strata[order] == stratum]
        share = len(own) / TEST_SHARE
        # The fraction decides by lot, so that small strata are held out at the same rate.
        test[own[: min(len(own) - 1, int(share + rng.random()))]] = True
    repeated = test & np.isin(groups, groups[~test])
    return test & ~repeated, repeated


def _train(
    task: str, names: list[str], texts: list[str], targets: Array, encoder: Encoder, seed: int,
    vectors: Array | None, progress: Progress,
) -> tuple[
    TrainedModel, Rows, npt.NDArray[np.bool_], npt.NDArray[np.bool_], Array, _kernels.Model
]:  # fmt: skip
    rows = learner.rows_of(encoder, texts, targets, progress, vectors)
    strata = _strata(task, rows.targets)
    test, repeated = _held_out(rows.groups, strata, seed)
    if not test.any():
        raise TrainingDataError(
            "no request is left to test a model with",
            f"Of {len(texts)} rows, {int(repeated.sum())} that were drawn repeat another one.",
            "Label more different requests.",
        )
    learn_at, test_at = np.flatnonzero(~(test | repeated)), np.flatnonzero(test)
    learn_rows = rows.take(learn_at)
    if len(learn_rows) < learner.MIN_ROWS // 2:
        raise TrainingDataError(
            "there are too few labelled requests",
            f"{len(learn_rows)} are left to learn from.",
            "Label more requests, several of each kind.",
        )
    learned, calibration, _, data, _ = _fit_rows(
        task, names, learn_rows, encoder, [texts[i] for i in learn_at], seed, progress
    )
    # Served by the kernel, as it will be.
    judged = _kernels.Model(data)
    p = judged.apply(rows.vectors[test_at], [texts[i] for i in test_at], encoder)
    p = p.astype(np.float64)

    head = "softmax" if task == "classifier" else "labels"
    final = learner.refit(learned, rows, head, seed, progress)
    spec, final_data, same = _export(task, names, encoder, rows, final, calibration, texts)
    metrics: dict[str, Any] = {
        "n_train": len(learn_rows),
        "n_test": len(test_at),
        "n_repeated": int(repeated.sum()),
        "n_outputs": len(names),
        "seed": seed,
        "encoder": encoder.id,
        "candidate": learned.candidate.name,
        "inner_loss": {name: round(v, 6) for name, v in learned.figures.items()},
        "same_decisions_int8": same,
        "bytes": len(final_data),
    }
    report = ReportData(names=names)
    if repeated.any():
        report.notes.append(
            f"{int(repeated.sum())} held-out rows repeat a request of the training rows and were "
            "left out of the test."
        )
    report.notes.append(
        f"Chosen on inner folds: {learned.candidate.name}. Loss in nats: "
        + ", ".join(f"{name} {v:.4f}" for name, v in learned.figures.items())
        + "."
    )
    return (
        TrainedModel(spec, final_data, metrics, report),
        rows,
        ~(test | repeated),
        test,
        p,
        judged,
    )


def _beats(ours: float, baseline: float) -> bool:
    """Better, or perfect like it: a baseline without an error cannot be beaten."""
    return ours > baseline or ours == baseline == 1.0


def train_classifier(
    requests: Sequence[str],
    labels: Sequence[str],
    encoder: Encoder,
    *,
    seed: int = 0,
    vectors: Array | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a classifier and measure it on held-out rows.

    Args:
        requests: n texts.
        labels: n categories; rows with OUT_OF_SCOPE measure only whether it notices them.
        encoder: makes the vectors.
        seed: of every random number.
        vectors: ``(n, dim)`` of the requests; None: they are made.
        progress: listener.

    Returns:
        The model, its file and its figures: accuracy against the better of nearest centroid and
        the most frequent category.

    Raises:
        TrainingDataError: rows that nothing can be learned from.
    """
    progress = progress or Progress()
    names, labelled, inside = _categories(requests, labels)
    texts = [requests[i] for i in inside]
    known = None if vectors is None else vectors[inside]
    targets = np.eye(len(names), dtype=np.float32)[labelled]
    trained, rows, learned_from, test, p, judged = _train(
        "classifier", names, texts, targets, encoder, seed, known, progress
    )
    truth, predicted = labelled[test], p.argmax(axis=1)
    right = predicted == truth
    top = p.max(axis=1)
    centroid = measure.centroid_categories(
        rows.vectors[learned_from], labelled[learned_from], rows.vectors[test], len(names)
    )
    most = np.bincount(labelled[learned_from]).argmax()
    baselines = {
        "nearest centroid": float((centroid == truth).mean()),
        "most frequent category": float((truth == most).mean()),
    }
    baseline = max(baselines, key=lambda name: baselines[name])
    n = len(truth)
    trained.metrics |= {
        "metric": "accuracy",
        "ours": float(right.mean()),
        "ours_ci": measure.interval(lambda i: float(right[i].mean()), n, seed),
        "baseline": baseline,
        "baseline_value": baselines[baseline],
        "baselines": baselines,
        "beats_baseline": _beats(float(right.mean()), baselines[baseline]),
        "ece": measure.calibration_error(top, right),
        "ece_ci": measure.interval(
            lambda i: measure.calibration_error(top[i], right[i]), n, seed, 300
        ),
        "oos_auroc": None,
    }
    outside = [i for i, label in enumerate(labels) if label == OUT_OF_SCOPE]
    if outside:
        strange = [requests[i] for i in outside]
        made = learner.embed(encoder, strange, progress) if vectors is None else vectors[outside]
        unsure = judged.apply(np.ascontiguousarray(made, np.float32), strange, encoder).max(axis=1)
        trained.metrics["oos_auroc"] = measure.auroc(top, unsure)
        trained.metrics["n_oos"] = len(outside)
    report = trained.report_data
    report.confidence, report.outcome = top, right.astype(np.float64)
    report.truth, report.predicted = truth, predicted.astype(np.int64)
    counts = np.bincount(labelled, minlength=len(names))
    alone = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if alone:
        report.notes.append(
            f"Categories with a single row, which cannot be tested: {', '.join(alone[:20])}."
        )
    return trained


def train_capabilities(
    requests: Sequence[str],
    labels: Sequence[Sequence[str]],
    encoder: Encoder,
    *,
    seed: int = 0,
    vectors: Array | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a model of the capabilities that requests need, and measure it on held-out rows.

    Args:
        requests: n texts.
        labels: of each the capabilities that it needs, possibly none.
        encoder: makes the vectors.
        seed: of every random number.
        vectors: ``(n, dim)`` of the requests; None: they are made.
        progress: listener.

    Returns:
        The model, its file and its figures: F1 over all labels at probability 0.5, against the
        labels that half of the ten nearest training requests have.

    Raises:
        TrainingDataError: rows that nothing can be learned from.
    """
    progress = progress or Progress()
    names, targets = _capabilities(requests, labels)
    trained, rows, learned_from, test, p, _ = _train(
        "capabilities", names, list(requests), targets, encoder, seed, vectors, progress
    )
    truth, predicted = targets[test] > 0.5, p >= 0.5
    near = rows.vectors[test] @ rows.vectors[learned_from].T
    nearest = np.argsort(-near, axis=1, kind="stable")[:, :10]
    votes = targets[learned_from][nearest].mean(axis=1) >= 0.5
    n, ours = len(truth), measure.micro_f1(predicted, truth)
    theirs = measure.micro_f1(votes, truth)
    flat, came = p.ravel(), truth.ravel().astype(np.float64)
    trained.metrics |= {
        "metric": "F1",
        "ours": ours,
        "ours_ci": measure.interval(lambda i: measure.micro_f1(predicted[i], truth[i]), n, seed),
        "baseline": "ten nearest requests",
        "baseline_value": theirs,
        "beats_baseline": _beats(ours, theirs),
        "ece": measure.calibration_error(flat, came),
    }
    report = trained.report_data
    report.confidence, report.outcome = flat, came
    report.tables["Capabilities"] = [
        {
            "capability": name,
            "rows": int(targets[:, j].sum()),
            "F1": round(measure.micro_f1(predicted[:, [j]], truth[:, [j]]), 3),
        }
        for j, name in enumerate(names)
    ]
    return trained
