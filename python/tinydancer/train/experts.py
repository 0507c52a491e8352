"""The experts of a quality model: each predicts what every agent's outcome will be.

Vectors, weighted words and outcomes of training requests come in, fitted experts come out; they
predict for other requests, and become members of a model file.  Used by tinydancer.train.quality.

    knn     the mean outcome of the nearest requests
    rbf     kernel ridge regression
    deep    FastGRNN and, beside it, weights of words, learned together; a few seeds

All of them read the vector of a request with columns of its words beside it (WordColumns).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tinydancer.train.fit import Fitted, Settings, fit_fastgrnn
from tinydancer.train.network import Inputs
from tinydancer.train.numeric import Array
from tinydancer.train.progress import Progress
from tinydancer.train.ridge import landmark_coefficients, ridge_coefficients

if TYPE_CHECKING:
    from tinydancer.model_file import Member

__all__ = ["EXPERTS", "Experts", "Problem"]

EXPERTS = ("knn", "rbf", "deep")

NEIGHBOURS = 50
PSEUDO = 2.0
GAMMA = 2.0
# Found by cross-validation on the nine-model data; see docs/evaluation.md.
RBF_STRENGTH = 5.0
HIDDEN = 64
DEEP_MEMBERS = 3
DEEP = Settings(
    epochs=30, rate=0.01, word_rate=0.3, mixup=0.9, dropout=0.5, decay=0.1, word_decay=0.03,
    validation=0.0,
)  # fmt: skip
# Above so many rows the kernel matrix is replaced by its columns of LANDMARKS rows.
EXACT_ROWS = 8000
LANDMARKS = 4000


@dataclass(frozen=True)
class Problem:
    """Training requests.

    Attributes:
        x: ``(n, width)`` float32 unit vectors.
        words: ``(n, n_features)`` CSR matrix of unit rows.
        quality: ``(n, n_agents)``; NaN: unknown.
        prior: ``(n_agents,)`` base rates.
    """

    x: Array
    words: Any
    quality: Array
    prior: Array


@dataclass
class Experts:
    """Fitted experts.

    Attributes:
        problem: what they were fitted to.
        k: neighbours that are looked at.
        landmarks: numbers of the rows that kernels are taken with.
        coefficients: of rbf: ``(n_landmarks, n_agents)``.
        deep: fitted networks; their targets were divided by ``scale``.
        scale: ``(n_agents,)`` variance of an outcome of the base rate.
    """

    problem: Problem
    k: int
    landmarks: Array
    coefficients: Array
    scale: Array
    deep: list[Fitted] = field(default_factory=list)

    @classmethod
    def fit(cls, problem: Problem, seed: int, progress: Progress, stage: str) -> Experts:
        """Fit all experts to a problem.

        Args:
            problem: with at least one row.
            seed: of the landmarks and the networks.
            progress: listener.
            stage: name of this fit.
        """
        n = len(problem.x)
        known = ~np.isnan(problem.quality)
        # In a log each request has one agent's outcome: look so much farther.
        density = max(float(known.mean()), 1 / 64)
        k = min(n, max(1, round(min(NEIGHBOURS, max(n / 4, 1)) / density)))
        residual = problem.quality - problem.prior
        landmarks = np.arange(n)
        if n > EXACT_ROWS:
            chosen = np.random.default_rng([seed, 2]).permutation(n)[:LANDMARKS]
            landmarks = np.sort(chosen)
        near = _rbf(problem.x, problem.x[landmarks])
        progress.start(f"{stage}: ridge", 1)
        if n > EXACT_ROWS:
            made = landmark_coefficients(near, landmarks, residual, RBF_STRENGTH)
        else:
            made = ridge_coefficients(near, residual, RBF_STRENGTH)
        progress.step(rows=n)
        scale = problem.prior * (1 - problem.prior) + 0.01
        experts = cls(problem, k, landmarks, made, scale)
        targets = np.where(known, residual / scale, 0)
        # A mixture with a row whose outcome is unknown has an unknown outcome.
        mixup = DEEP.mixup if known.all() else 0.0
        settings = replace(DEEP, batch=min(256, max(n // 8, 1)), mixup=mixup)
        for member in range(DEEP_MEMBERS):
            experts.deep.append(
                fit_fastgrnn(
                    problem.x, targets, known.astype(np.float32), "value", HIDDEN,
                    words=problem.words, settings=settings,
                    seed=1000 * seed + member, progress=progress,
                    stage=f"{stage}: FastGRNN {member + 1}",
                )
            )  # fmt: skip
        return experts

    def predict(self, x: Array, words: Any) -> dict[str, Array]:
        """What each expert expects of other requests.

        Args:
            x: ``(n, width)``.
            words: ``(n, n_features)``, weighted as those of the problem.

        Returns:
            Name to ``(n, n_agents)``.
        """
        problem = self.problem
        near = _rbf(x, problem.x[self.landmarks])
        result = {
            "knn": self._neighbours(x),
            "rbf": problem.prior + near @ self.coefficients,
        }
        inputs = Inputs(np.asarray(x, np.float32), None, words)
        scores = [one.scores(inputs) for one in self.deep]
        result["deep"] = problem.prior + self.scale * np.mean(scores, axis=0)
        return result

    def _neighbours(self, x: Array) -> Array:
        problem = self.problem
        known = ~np.isnan(problem.quality)
        value = np.where(known, problem.quality, 0)
        result = np.empty((len(x), problem.quality.shape[1]))
        for first in range(0, len(x), 1024):
            cosine = x[first : first + 1024] @ problem.x.T
            nearest = np.argpartition(-cosine, self.k - 1, axis=1)[:, : self.k]
            total = value[nearest].sum(axis=1) + PSEUDO * problem.prior
            result[first : first + 1024] = total / (known[nearest].sum(axis=1) + PSEUDO)
        return result

    def members(self, weight: dict[str, float], idf: Array, buckets: Array, features: int) -> Any:
        """The experts as members of a model file, whose scores add up to the weighted prediction.

        Without the words the server scales the remaining weights up; so each member carries its
        share of the prior.

        Args:
            weight: of each expert, 0 or more, with sum 1.
            idf: ``(n_buckets,)`` of the words.
            buckets: ``(n_features,)`` where the features of the problem lie.
            features: kinds of words.

        Returns:
            List of members.
        """
        from tinydancer.model_file import FastGrnn, Knn, Rbf, Words

        problem = self.problem
        n_out = len(problem.prior)
        # A fifth of the deep expert is the words'.
        of_words = weight["deep"] / 5
        table = np.zeros((len(buckets), n_out))
        made: list[Member] = []

        def constant(value: float) -> Array:
            return np.full(n_out, value, np.float32)

        if weight["knn"] > 0:
            made.append(Knn(constant(weight["knn"]), problem.quality, self.k, pseudo=PSEUDO))
        if weight["rbf"] > 0:
            coefficients = np.zeros((len(problem.x), n_out))
            coefficients[self.landmarks] = self.coefficients
            made.append(Rbf(constant(weight["rbf"]), coefficients, problem.prior, GAMMA))
        if weight["deep"] > 0:
            share = weight["deep"] / len(self.deep)
            for one in self.deep:
                p = one.network.parameters
                table += share * self.scale * p["words"]
                cell = one.members(constant(0.8 * share), idf=idf, buckets=buckets)[0]
                assert isinstance(cell, FastGrnn)
                # What this member adds to the prior, over its weight.
                made.append(
                    replace(
                        cell,
                        head=p["o"] * (self.scale / 0.8)[:, None],
                        head_bias=problem.prior + p["b"] * self.scale / 0.8,
                    )
                )
        if of_words > 0:
            full = np.zeros((len(idf), n_out))
            full[buckets] = table / of_words
            made.append(Words(constant(of_words), full, problem.prior, idf, features))
        return made


def _rbf(a: Array, b: Array) -> Array:
    """exp(-GAMMA (2 - 2 a b)): of unit vectors exp(-GAMMA |a - b|^2)."""
    kernel: Array = a @ b.T
    kernel -= 1
    np.minimum(kernel, 0, out=kernel)
    kernel *= 2 * GAMMA
    return np.exp(kernel, out=kernel)
