"""The constants of fit: from what similarity on an encoder's vectors mean "this agent is right".

An encoder and the calibration set of the folder calibration/ come in: what agents say they are good
at, and which requests are theirs.  A logistic regression of "this request is for this agent" on the
greatest cosine to the agent's phrases gives mu (where fit is 0.5) and s.  Called by
tinydancer.encoder_build for folders of users, and by tools/fit_constants.py for what ships.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DATA", "MISMATCH_WEIGHT", "Fit", "fit", "regress", "similarities"]

DATA = Path(__file__).resolve().parent / "calibration"
# All mismatches together weigh this many times as much as all matches: a registry holds several
# agents for each that is right, and a cheap wrong one must not win by its price alone.
MISMATCH_WEIGHT = 3.0

FloatArray = npt.NDArray[np.float64]
Embed = Callable[[Sequence[str]], npt.NDArray[np.floating[Any]]]


def similarities(embed: Embed) -> tuple[FloatArray, npt.NDArray[np.int8]]:
    """How near every request is to every agent, and whether it should be.

    Args:
        embed: texts to unit vectors ``(n, dim)``.

    Returns:
        similarity ``(n_requests, n_agents)`` in [-1, 1]; and of the same shape 1 for the agent that
        a request is for, 0 for one that it is not for, -1 for one that may be argued about.
    """

    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]

    agents, requests = read("agents.jsonl"), read("requests.jsonl")
    names = [agent["agent"] for agent in agents]
    x = embed([row["request"] for row in requests]).astype(np.float64)
    phrases = (embed(agent["phrases"]).astype(np.float64) for agent in agents)
    nearness = np.stack([(x @ each.T).max(axis=1) for each in phrases], axis=1)
    wanted = np.zeros(nearness.shape, np.int8)
    for i, row in enumerate(requests):
        wanted[i, names.index(row["match"])] = 1
        for other in row["also"]:
            wanted[i, names.index(other)] = -1
    return nearness, wanted


def logistic(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x))."""
    # Beyond 700 exp overflows, and the outcome is 0 or 1 long before.
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def regress(similarity: FloatArray, match: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """mu and s of the weighted logistic regression, by Newton's method.

    Args:
        similarity: ``(n,)``.
        match: ``(n,)``.

    Raises:
        ValueError: similarity does not rise with match, so that s would not be positive.
    """
    weight = np.where(match, 1 / match.sum(), MISMATCH_WEIGHT / (~match).sum())
    # Centred and scaled, so that the steps are as large where all similarities are alike.
    middle, spread = similarity.mean(), similarity.std()
    if not (spread > 1e-9 and similarity[match].mean() > similarity[~match].mean()):
        raise ValueError("similarity does not tell matches from mismatches")
    design = np.stack([(similarity - middle) / spread, np.ones_like(similarity)], axis=1)
    beta = np.zeros(2)
    for _ in range(50):
        p = logistic(design @ beta)
        gradient = design.T @ (weight * (match - p))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            break  # all matches lie above all mismatches: no slope is steep enough
        beta += step
        if np.abs(step).max() < 1e-10:
            break
    mu, s = middle - spread * beta[1] / beta[0], spread / beta[0]
    if not (beta[0] > 0 and -1 <= mu <= 1):
        raise ValueError("similarity does not tell matches from mismatches")
    return float(mu), float(s)


@dataclass(frozen=True)
class Fit:
    """The constants, and how well they tell matches from mismatches.

    Attributes:
        mu: similarity at which fit is 0.5.
        s: similarity over which fit rises from 0.5 to 0.73.
        similarity: of every request and agent.
        wanted: 1 match, 0 mismatch, -1 may be argued about.
    """

    mu: float
    s: float
    similarity: FloatArray = field(repr=False)
    wanted: npt.NDArray[np.int8] = field(repr=False)

    def report(self) -> str:
        """In words."""
        probability = logistic((self.similarity - self.mu) / self.s)
        match, other = probability[self.wanted == 1], probability[self.wanted == 0]
        near, far = self.similarity[self.wanted == 1], self.similarity[self.wanted == 0]
        best = np.where(self.wanted == -1, -2, self.similarity).argmax(axis=1)
        right = float(np.take_along_axis(self.wanted, best[:, None], axis=1).mean())
        order = np.concatenate([near, far]).argsort().argsort()
        auroc = (order[: len(near)].sum() - len(near) * (len(near) - 1) / 2) / (
            len(near) * len(far)
        )
        return (
            f"fit mu={self.mu:.4f} s={self.s:.4f}: matches median {np.median(match):.3f} "
            f"(similarity {np.median(near):.2f}), {100 * (match > 0.5).mean():.0f} % above 0.5; "
            f"mismatches median {np.median(other):.4f} ({np.median(far):.2f}), "
            f"{100 * (other < 0.5).mean():.0f} % below 0.5, 95 % below "
            f"{np.quantile(other, 0.95):.2f}; AUROC {auroc:.3f}; nearest agent right "
            f"{100 * right:.0f} % of {len(best)} requests"
        )


def fit(embed: Embed) -> Fit:
    """mu and s of an encoder.

    Args:
        embed: texts to unit vectors ``(n, dim)``.

    Raises:
        ValueError: similarity does not tell matches from mismatches.
    """
    similarity, wanted = similarities(embed)
    mu, s = regress(similarity[wanted >= 0], wanted[wanted >= 0] == 1)
    return Fit(mu, s, similarity, wanted)
