"""What the trainers of classifiers and capabilities share: candidates, their choice, folds.

Vectors, word counts and targets come in; the candidate that is best on inner folds, its scores on
rows that it has not seen, and its members fitted to all rows come out.  Called by
tinydancer.train.classifier and tinydancer.train.capabilities.

A candidate is a sum of members that learn jointly.  Linear maps and words win where there are few
rows of each category, FastGRNN where categories bend; which one it is, inner folds say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinydancer.encoder import Encoder
from tinydancer.errors import TrainingDataError
from tinydancer.train import numeric
from tinydancer.train.data import normalised
from tinydancer.train.fit import Fitted, Settings, fit_fastgrnn
from tinydancer.train.network import Inputs, loss_of
from tinydancer.train.numeric import Array
from tinydancer.train.progress import Progress
from tinydancer.train.words import WordWeights, count_words

if TYPE_CHECKING:
    from tinydancer.model_file import Member

__all__ = [
    "Candidate",
    "Learned",
    "Rows",
    "candidates",
    "embed",
    "learn",
    "same_request",
    "spread",
]

MIN_ROWS = 10
# Buckets of words: so many that few different words share one, so few that a model stays small.
MIN_BUCKETS, MAX_BUCKETS = 1 << 10, 1 << 14
# Steps of Adam after which more of them change nothing: measured on CLINC150 and Banking77.
STEPS = 1400
WORKERS = 2


@dataclass(frozen=True)
class Candidate:
    """A sum of members, and how it is fitted.

    Attributes:
        name: for people.
        hidden: size of the FastGRNN's state; 0: without one.
        linear: whether there is a linear map.
        settings: of the fit.
    """

    name: str
    hidden: int
    linear: bool
    settings: Settings


@dataclass
class Rows:
    """Rows to learn from.

    Attributes:
        vectors: ``(n, dim)`` float32.
        counts: ``(n, n_buckets)`` CSR of ``count_words``.
        targets: ``(n, n_out)`` float32.
        groups: ``(n,)`` rows of the same request have the same number.
    """

    vectors: Array
    counts: Any
    targets: Array
    groups: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: npt.NDArray[Any]) -> Rows:
        """Some of the rows."""
        return Rows(self.vectors[rows], self.counts[rows], self.targets[rows], self.groups[rows])


@dataclass
class Learned:
    """What was learned of some rows.

    Attributes:
        candidate: that was chosen.
        scores: ``(n, n_out)`` out of fold.
        figures: inner loss of each candidate by its name, in nats.
        fitted: to all rows.
        words: weights of the words.
    """

    candidate: Candidate
    scores: Array
    figures: dict[str, float]
    fitted: Fitted
    words: WordWeights

    def members(self, factor: float, shift: float, int8: bool) -> list[Member]:
        """Members of a model file, whose total is ``factor * score + shift``."""
        network = self.fitted.network
        bias = network.parameters["b"]
        network.parameters["b"] = (bias + bias.dtype.type(shift / factor)).astype(bias.dtype)
        try:
            return self.fitted.members(
                factor,
                int8=int8,
                idf=self.words.idf,
                buckets=self.words.buckets,
                features=self.words.features,
            )
        finally:
            network.parameters["b"] = bias


def same_request(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """``(n,)``: texts that differ by case or blanks alone have the same number."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(normalised(t), len(numbers)) for t in texts], np.int64)


def spread(
    groups: npt.NDArray[np.int64], strata: npt.NDArray[np.int64], k: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The fold of each row, that of all rows of its group; strata are spread over the folds."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    fold: npt.NDArray[np.int64] = numeric.folds(len(first), k, rng, strata[first])[inverse]
    return fold


def embed(encoder: Encoder, texts: Sequence[str], progress: Progress) -> npt.NDArray[np.float32]:
    """Vectors of texts ``(n, dim)``, with progress and Ctrl-C between blocks."""
    block = 256
    made = np.empty((len(texts), encoder.dim), np.float32)
    progress.start("vectors", math.ceil(len(texts) / block))
    for at in range(0, len(texts), block):
        part = list(texts[at : at + block])
        made[at : at + block] = encoder.embed(part, threads=WORKERS)
        progress.step(rows=len(part))
    return made


def rows_of(
    encoder: Encoder,
    texts: Sequence[str],
    targets: Array,
    progress: Progress,
    vectors: Array | None = None,
) -> Rows:
    """Embed texts and count their words.

    Raises:
        TrainingDataError: fewer rows than the folds need.
    """
    if len(texts) < MIN_ROWS:
        raise TrainingDataError(
            "there are too few labelled requests",
            f"There are {len(texts)}, and at least {MIN_ROWS} are needed: they are divided into "
            "folds.",
            "Label more requests, several of each kind.",
        )
    made = embed(encoder, texts, progress) if vectors is None else vectors
    wanted = 1 << (4 * len(texts) - 1).bit_length()
    buckets = min(max(wanted, MIN_BUCKETS), MAX_BUCKETS)
    counts = count_words(encoder, texts, buckets)
    return Rows(
        np.ascontiguousarray(made, np.float32),
        counts,
        np.asarray(targets, np.float32),
        same_request(texts),
    )


def candidates(n: int) -> list[Candidate]:
    """What is tried on n rows."""
    batch = 256 if n > 4000 else 64 if n > 400 else 32
    epochs = min(80, max(10, math.ceil(STEPS * batch / n)))
    base = Settings(epochs=epochs, batch=batch, validation=0)
    wide = _with(base, rate=0.03, alone=0.3)
    deep = _with(
        base, rate=0.005, alone=0.5, dropout=0.6, word_dropout=0.3, decay=0.1, word_rate=3.0
    )
    found = [
        Candidate("linear map and words", 0, True, wide),
        Candidate("FastGRNN and words", 256 if n > 4000 else 96, False, deep),
    ]
    if n <= 4000:
        # Few rows: shrink the weights of words.
        shy = _with(wide, decay=0.1, word_decay=0.1, word_rate=0.3)
        found.append(Candidate("linear map and few words", 0, True, shy))
    return found


def _with(settings: Settings, **changes: Any) -> Settings:
    from dataclasses import replace

    return replace(settings, **changes)


def _fit(candidate: Candidate, rows: Rows, head: str, seed: int) -> tuple[Fitted, WordWeights]:
    words = WordWeights.learn(rows.counts)
    fitted = fit_fastgrnn(
        rows.vectors,
        rows.targets,
        head=head,
        hidden=candidate.hidden,
        linear=candidate.linear,
        words=words.apply(rows.counts),
        settings=candidate.settings,
        seed=seed,
    )
    return fitted, words


def _scores(fitted: Fitted, words: WordWeights, rows: Rows) -> Array:
    return fitted.scores(Inputs(rows.vectors, None, words.apply(rows.counts)))


def _parallel(jobs: Sequence[Callable[[], Any]], progress: Progress, stage: str) -> list[Any]:
    """Results in the order of the jobs; each runs on one thread, so nothing depends on timing."""
    progress.start(stage, len(jobs))
    pool = ThreadPoolExecutor(WORKERS)
    try:
        running = [pool.submit(job) for job in jobs]
        results = []
        for one in running:
            results.append(one.result())
            progress.step()
        return results
    finally:
        # After Ctrl-C what has not begun does not begin.
        pool.shutdown(wait=True, cancel_futures=True)


def learn(
    rows: Rows,
    strata: npt.NDArray[np.int64],
    head: str,
    seed: int,
    progress: Progress,
) -> Learned:
    """Choose a candidate by inner folds, score every row out of fold, fit all rows.

    Args:
        rows: n of them.
        strata: ``(n,)`` what is spread evenly over the folds.
        head: softmax or labels.
        seed: of every random number.
        progress: listener.

    Returns:
        The chosen candidate and what it learned.
    """
    n = len(rows)
    k = min(10 if n <= 2000 else 5 if n <= 6000 else 3, n)
    fold = spread(rows.groups, strata, k, np.random.default_rng([seed, 3]))
    tried = candidates(n)

    def job(candidate: Candidate, number: int) -> Callable[[], Array]:
        def run() -> Array:
            learned = _fit(candidate, rows.take(np.flatnonzero(fold != number)), head, seed)
            return _scores(*learned, rows.take(np.flatnonzero(fold == number)))

        return run

    def loss(scores: Sequence[Array], numbers: Sequence[int]) -> float:
        at = np.concatenate([np.flatnonzero(fold == number) for number in numbers])
        return _scaled_loss(head, np.concatenate(list(scores)), rows.targets[at])

    # Small folds say little: judge by as many of them as hold a few hundred rows.
    judged = list(range(min(k, max(1, math.ceil(600 * k / n)))))
    with numeric.one_thread():
        jobs = [job(one, number) for one in tried for number in judged]
        first = _parallel(jobs, progress, "candidates")
        by = [first[i * len(judged) : (i + 1) * len(judged)] for i in range(len(tried))]
        losses = [loss(scores, judged) for scores in by]
        best = int(np.argmin(losses))
        others = [number for number in range(k) if number not in judged]
        rest = _parallel([job(tried[best], number) for number in others], progress, "folds")
        scores = np.empty(rows.targets.shape, np.float64)
        for number, part in zip([*judged, *others], [*by[best], *rest], strict=True):
            scores[fold == number] = part
        progress.start("all rows", 1)
        fitted, words = _fit(tried[best], rows, head, seed)
        progress.step()
    names = [one.name for one in tried]
    return Learned(tried[best], scores, dict(zip(names, losses, strict=True)), fitted, words)


def refit(learned: Learned, rows: Rows, head: str, seed: int, progress: Progress) -> Learned:
    """The same candidate fitted to more rows; the scores out of fold stay those that they were."""
    with numeric.one_thread():
        progress.start("all rows", 1)
        fitted, words = _fit(learned.candidate, rows, head, seed)
        progress.step()
    return Learned(learned.candidate, learned.scores, learned.figures, fitted, words)


def _scaled_loss(head: str, scores: Array, targets: Array) -> float:
    """The loss after calibration: candidates are not judged by what calibration repairs."""
    from tinydancer.train.calibrate import affine, temperature

    scores = scores.astype(np.float64)
    if head == "softmax":
        return loss_of(head, scores / temperature(scores, targets.argmax(1)), targets)[0]
    a, b = affine(scores, targets)
    return loss_of(head, a * scores + b, targets)[0]
