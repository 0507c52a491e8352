"""Route scorers and classifiers compared on labelled texts.

Texts with labels to learn from and to be judged by come in; the accuracy of every scorer of the
kernel, of the trained classifier and of two reference classifiers comes out.  Which of them is the
best is decided on training texts alone: scorers by leave-one-out, the others on texts held out.
Called by tinydancer.evaluate.command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import InvalidInputError, TinyDancerError
from tinydancer.evaluate.files import without_repeats
from tinydancer.matcher import SCORERS, Route, RouteMatcher
from tinydancer.train.classifier import train_classifier
from tinydancer.train.measure import auroc, calibration_error
from tinydancer.train.numeric import folds, one_thread
from tinydancer.train.progress import Progress
from tinydancer.train.reliability import apply_curve, rising_curve

__all__ = ["OUT_OF_SCOPE", "Comparison", "compare"]

OUT_OF_SCOPE = "oos"
# Reference classifiers learn from so many parts of the training texts and are judged by one.
PARTS = 5

Array = npt.NDArray[Any]
Labelled = tuple[list[str], list[str]]


@dataclass
class Comparison:
    """What was measured.

    Attributes:
        figures: the JSON of ``tinydancer evaluate intents``.
        validated: accuracy of each on training texts, which the best is chosen by.
        notes: what was left out and why, for people.
    """

    figures: dict[str, Any]
    validated: dict[str, float]
    notes: list[str] = field(default_factory=list)


@dataclass
class _Answer:
    """What one scorer or classifier says of the test texts.

    Attributes:
        label: numbers of labels.
        confidence: calibrated probabilities that they are right.
        outside: the same for texts out of scope.
        validated: accuracy on training texts.
    """

    label: Array
    confidence: Array
    outside: Array
    validated: float


class _Known(Encoder):
    """An encoder that has embedded its texts already, many at once."""

    # No __slots__: the vectors are kept on the instance.

    def remember(self, texts: Sequence[str], threads: int) -> None:
        different = list(dict.fromkeys(texts))
        vectors = self.embed(different, threads=threads)
        self.vectors: dict[str, Array] = dict(zip(different, vectors, strict=True))

    def embed_info(self, text: str) -> Any:
        return self.vectors[text], 0, 0, 0

    def all(self, texts: Sequence[str]) -> Array:
        return np.stack([self.vectors[text] for text in texts])


@dataclass
class _Task:
    """One run: what is learned from, and the texts to be judged by and out of scope."""

    encoder: _Known
    names: list[str]
    texts: list[str]
    label: Array
    test: list[str]
    outside: list[str]
    seed: int
    progress: Progress


def _scorer(task: _Task, scorer: str) -> _Answer:
    """A scorer of routes, its confidence tuned by leave-one-out."""
    utterances: list[list[str]] = [[] for _ in task.names]
    for text, label in zip(task.texts, task.label, strict=True):
        utterances[label].append(text)
    routes = [
        Route(name, utterances=texts) for name, texts in zip(task.names, utterances, strict=True)
    ]
    matcher = RouteMatcher(routes, task.encoder)
    reports = matcher.tune(force_scorer=scorer)
    number = {name: i for i, name in enumerate(task.names)}

    def ask(texts: list[str]) -> tuple[Array, Array]:
        found = [matcher.match(text, 1)[0] for text in texts]
        labels = np.array([number[one.route_name] for one in found], dtype=np.int64)
        return labels, np.array([one.confidence for one in found])

    label, confidence = ask(task.test)
    outside = ask(task.outside)[1]
    return _Answer(label, confidence, outside, float(reports[0].accuracy or 0.0))


def _classifier(task: _Task) -> _Answer:
    """The project's own classifier; its accuracy on texts that it held out itself."""
    trained = train_classifier(
        task.texts,
        [task.names[i] for i in task.label],
        task.encoder,
        seed=task.seed,
        vectors=task.encoder.all(task.texts),
        progress=task.progress,
    )
    model = _kernels.Model(trained.bytes)
    number = np.array([task.names.index(name) for name in model.names])

    def ask(texts: list[str]) -> Array:
        if not texts:
            return np.zeros((0, len(number)))
        return model.apply(task.encoder.all(texts), texts, task.encoder).astype(np.float64)

    p = ask(task.test)
    return _Answer(
        number[p.argmax(axis=1)],
        p.max(axis=1),
        ask(task.outside).max(axis=1, initial=0.0),
        float(trained.metrics["ours"]),
    )


def _reference(task: _Task, make: Any) -> _Answer:
    """A classifier of scikit-learn; judged on a part of the training texts, then fitted to all."""
    x, test = task.encoder.all(task.texts), task.encoder.all(task.test)
    part = folds(len(x), PARTS, np.random.default_rng(task.seed), task.label)
    held = part == 0
    # A label that has a single text stays among what is learned from.
    held &= np.isin(task.label, task.label[~held])
    validated, curve = 0.0, None
    if held.any():
        model = make().fit(x[~held], task.label[~held])
        p = model.predict_proba(x[held])
        right = model.classes_[p.argmax(axis=1)] == task.label[held]
        validated = float(right.mean())
        curve = rising_curve(p.max(axis=1), right.astype(np.float64))
    model = make().fit(x, task.label)
    p = model.predict_proba(test)
    outside = np.zeros(0)
    if task.outside:
        outside = model.predict_proba(task.encoder.all(task.outside)).max(axis=1)
    return _Answer(
        model.classes_[p.argmax(axis=1)],
        _on(curve, p.max(axis=1)),
        _on(curve, outside),
        validated,
    )


def _on(curve: tuple[Array, Array] | None, said: Array) -> Array:
    return said if curve is None else apply_curve(curve, said)


def _answers(task: _Task, notes: list[str]) -> dict[str, _Answer]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    found: dict[str, _Answer] = {}
    task.progress.start("route scorers", len(SCORERS))
    for scorer in SCORERS:
        found[scorer] = _scorer(task, scorer)
        task.progress.step()
    try:
        found["classifier"] = _classifier(task)
    except TinyDancerError as error:
        reason = f"{error.message}. {error.detail or ''}".strip()
        notes.append(f"no classifier is trained: {reason}")
    k = min(10, len(task.texts))
    task.progress.start("reference classifiers", 2)
    with one_thread():
        found["logistic"] = _reference(task, lambda: LogisticRegression(C=30, max_iter=100))
        task.progress.step()
        found["knn"] = _reference(
            task, lambda: KNeighborsClassifier(k, metric="cosine", weights="distance")
        )
        task.progress.step()
    return found


def _few(label: Array, shots: int | None, rng: np.random.Generator) -> Array:
    """Numbers of at most so many random texts of each label."""
    if shots is None:
        return np.arange(len(label))
    order = rng.permutation(len(label))
    chosen = [order[label[order] == one][:shots] for one in np.unique(label)]
    return np.sort(np.concatenate(chosen))


def compare(
    train: Labelled,
    test: Labelled,
    encoder: Encoder,
    *,
    shots: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    threads: int = 1,
) -> Comparison:
    """Learn from one set of labelled texts and judge by another.

    Args:
        train: texts and labels; the label OUT_OF_SCOPE is not learned from.
        test: texts and labels; OUT_OF_SCOPE measures only how such texts are told apart.
        encoder: of the texts.
        shots: learn from so many random texts of each label; None: from all.
        seeds: draws of them; figures are means.
        seed: of the first draw.
        progress: listener.
        threads: for embedding.

    Returns:
        Figures and notes.

    Raises:
        InvalidInputError: fewer than two labels, or no test text of a label that is known.
    """
    progress = progress or Progress()
    notes: list[str] = []
    names = sorted({label for label in train[1] if label != OUT_OF_SCOPE}, key=str.encode)
    if len(names) < 2:
        raise InvalidInputError(
            "the training file has fewer than two labels",
            f"It has {', '.join(names) or 'none'} apart from {OUT_OF_SCOPE}.",
            "There is nothing to tell apart.",
        )
    inside = [i for i, label in enumerate(train[1]) if label != OUT_OF_SCOPE]
    texts = [train[0][i] for i in inside]
    number = {name: i for i, name in enumerate(names)}
    label = np.array([number[train[1][i]] for i in inside])

    fresh, repeated = without_repeats(texts, test[0])
    if repeated:
        notes.append(f"texts of both files are removed from the test: {repeated}")
    rows = [(t, y) for t, y, new in zip(*test, fresh, strict=True) if new]
    unknown = Counter(y for _, y in rows if y != OUT_OF_SCOPE and y not in number)
    if unknown:
        listed = ", ".join(f'"{name}"' for name in unknown)
        notes.append(f"labels that training never saw are ignored: {listed}")
    known = [(t, y) for t, y in rows if y in number]
    outside = [t for t, y in rows if y == OUT_OF_SCOPE]
    if not known:
        raise InvalidInputError(
            "no test text is left to judge by",
            f"Of {len(test[0])} texts {repeated} are in the training file too; "
            "the others have no label of it.",
        )
    if encoder.path is None:
        raise InvalidInputError("the encoder has no file", None, "Open it by name or path.")
    remembering = _Known(encoder.path)
    progress.start("embedding", 1)
    remembering.remember([*texts, *(t for t, _ in rows)], threads)
    progress.step(rows=len(texts) + len(rows))

    truth = np.array([number[y] for _, y in known])
    runs = []
    for draw in range(seeds):
        at = _few(label, shots, np.random.default_rng([seed, draw]))
        task = _Task(
            remembering, names, [texts[i] for i in at], label[at], [t for t, _ in known],
            outside, seed + draw, progress,
        )  # fmt: skip
        runs.append(_answers(task, notes))
    # A draw that is too small for one of them leaves it out.
    everywhere = [name for name in runs[0] if all(name in run for run in runs)]
    validated = {name: float(np.mean([run[name].validated for run in runs])) for name in everywhere}
    best = max(everywhere, key=lambda name: validated[name])
    accuracy = {
        name: float(np.mean([(run[name].label == truth).mean() for run in runs]))
        for name in everywhere
    }
    figures = {
        "accuracy": accuracy,
        "best": best,
        "oos_auroc": float(
            np.mean([auroc(run[best].confidence, run[best].outside) for run in runs])
        )
        if outside
        else None,
        "ece": float(
            np.mean(
                [calibration_error(run[best].confidence, run[best].label == truth) for run in runs]
            )
        ),
        "n_test": len(known),
    }
    return Comparison(figures, validated, list(dict.fromkeys(notes)))
