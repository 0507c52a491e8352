"""Routers of LLMs compared: ours with baselines, on outcomes that are all known.

Outcomes to learn from, outcomes to be judged by and prices come in; accuracy, mean cost, area under
the cost-quality hull, APGR and CPT of each router come out, with paired bootstrap intervals of ours
minus each.  Called by tinydancer.evaluate.command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import InvalidInputError
from tinydancer.evaluate import curves
from tinydancer.evaluate.files import without_repeats
from tinydancer.train.measure import calibration_error
from tinydancer.train.outcomes import Outcomes
from tinydancer.train.progress import Progress
from tinydancer.train.quality import base_rates, fit_quality

__all__ = ["ROUTERS", "Comparison", "compare"]

ROUTERS = ("ours", "cheapest", "best_single", "random", "knn40", "knn100", "logistic", "oracle")
# What does not look at the request ranks none of them before others.
_BLIND = ("cheapest", "best_single", "random")
RESAMPLES = 1000

Array = npt.NDArray[Any]


@dataclass
class Comparison:
    """What was measured.

    Attributes:
        figures: the JSON of ``tinydancer evaluate llm``.
        points: ``(n_points, 2)`` mean cost and quality of each router's curve.
        agents: name, price and mean quality of each agent.
        notes: what was left out and why, for people.
    """

    figures: dict[str, Any]
    points: dict[str, Array]
    agents: list[tuple[str, float, float]]
    notes: list[str] = field(default_factory=list)


def _aligned(train: Outcomes, test: Outcomes, notes: list[str]) -> Outcomes:
    """The test rows that can judge: not seen in training, and known for every agent of it."""
    unknown = [name for name in test.agents if name not in train.agents]
    if unknown:
        listed = ", ".join(f'"{name}"' for name in unknown)
        notes.append(f"agents of the test file that training never saw are ignored: {listed}")
    missing = [name for name in train.agents if name not in test.agents]
    if missing:
        raise InvalidInputError(
            "the test file lacks an agent of the training file",
            f'No row has the quality of "{missing[0]}".',
            "A router can only be judged where the outcome of every agent is known.",
        )
    fresh, repeated = without_repeats(train.requests, test.requests)
    if repeated:
        notes.append(f"requests of both files are removed from the test: {repeated}")
    columns = [test.agents.index(name) for name in train.agents]
    quality = test.quality[:, columns]
    whole = ~np.isnan(quality).any(axis=1)
    if not whole.all():
        notes.append(f"test requests without the outcome of every agent: {int((~whole).sum())}")
    rows = np.flatnonzero(fresh & whole)
    if len(rows) == 0:
        raise InvalidInputError(
            "no test request is left to judge by",
            f"Of {len(quality)} requests {repeated} are in the training file too, and "
            f"{int((~whole).sum())} lack the outcome of some agent.",
        )
    return Outcomes([test.requests[i] for i in rows], train.agents, quality[rows])


def _neighbours(x: Array, quality: Array, test: Array, k: int, prior: Array) -> Array:
    k = min(k, len(x))
    result = np.empty((len(test), quality.shape[1]))
    known = ~np.isnan(quality)
    value = np.where(known, quality, 0)
    for first in range(0, len(test), 1024):
        nearest = np.argpartition(-(test[first : first + 1024] @ x.T), k - 1, axis=1)[:, :k]
        count = known[nearest].sum(axis=1)
        mean = value[nearest].sum(axis=1) / np.maximum(count, 1)
        result[first : first + 1024] = np.where(count > 0, mean, prior)
    return result


def _logistic(x: Array, quality: Array, test: Array, prior: Array, progress: Progress) -> Array:
    """Logistic regression on the vectors, for each agent by itself."""
    from sklearn.linear_model import LogisticRegression

    result = np.tile(prior, (len(test), 1))
    progress.start("logistic regression", quality.shape[1])
    for j in range(quality.shape[1]):
        rows = np.flatnonzero(~np.isnan(quality[:, j]))
        good = quality[rows, j]
        # An outcome between 0 and 1 is a good one and a bad one, weighted.
        weight = np.concatenate([good, 1 - good])
        label = np.repeat([1, 0], len(rows))
        if (weight[label == 1] > 0).any() and (weight[label == 0] > 0).any():
            kept = weight > 0
            model = LogisticRegression(max_iter=200)
            model.fit(np.concatenate([x[rows], x[rows]])[kept], label[kept], weight[kept])
            result[:, j] = model.predict_proba(test)[:, 1]
        progress.step(rows=len(rows))
    return result


def compare(
    train: Outcomes,
    test: Outcomes,
    price: npt.NDArray[np.float64],
    encoder: Encoder,
    seed: int = 0,
    progress: Progress | None = None,
    threads: int = 1,
) -> Comparison:
    """Train ours and the baselines on one table of outcomes and judge them by another.

    Args:
        train: any subset of the agents for each request.
        test: outcomes to judge by.
        price: ``(n_agents,)`` of a call to each agent of ``train``.
        encoder: of the requests.
        seed: of every random number.
        progress: listener.
        threads: for embedding.

    Returns:
        Figures, curves and notes.

    Raises:
        InvalidInputError: nothing to learn from or nothing to judge by.
    """
    progress = progress or Progress()
    notes: list[str] = []
    if train.left_out:
        notes.append(f"training labels without a quality are left out: {train.left_out}")
    test = _aligned(train, test, notes)
    progress.start("embedding", 2)
    x = encoder.embed(train.requests, threads=threads)
    progress.step(rows=len(x))
    y = encoder.embed(test.requests, threads=threads)
    progress.step(rows=len(y))
    trained = fit_quality(train, encoder, seed, progress, vectors=x)
    prior = base_rates(train.quality)
    n = len(y)
    predicted: dict[str, Array] = {
        "ours": _kernels.Model(trained.bytes).apply(y, test.requests, encoder).astype(np.float64),
        "cheapest": np.zeros((n, len(price))),
        "best_single": np.tile(prior, (n, 1)),
        "knn40": _neighbours(x, train.quality, y, 40, prior),
        "knn100": _neighbours(x, train.quality, y, 100, prior),
        "logistic": _logistic(x, train.quality, y, prior, progress),
        "oracle": test.quality,
    }
    drawn = {
        name: _blind(name, test.quality, price, prior)
        if name in _BLIND
        else curves.curve_of(predicted[name], test.quality, price)
        for name in ROUTERS
    }
    figures = _figures(drawn, predicted, test.quality, price, prior, seed)
    figures["ours"]["ece"] = calibration_error(predicted["ours"].ravel(), test.quality.ravel())
    agents = [
        (name, float(price[j]), float(test.quality[:, j].mean()))
        for j, name in enumerate(test.agents)
    ]
    notes.insert(0, f"trained on {len(x)} requests, judged by {n}, {len(price)} agents")
    return Comparison(figures, {name: curve.points for name, curve in drawn.items()}, agents, notes)


def _blind(name: str, quality: Array, price: Array, prior: Array) -> curves.Curve:
    """Curves of routers that do the same for every request, and with no money the cheapest."""
    cheapest = int(curves.argmax(np.zeros((1, len(price))), price)[0])
    least = (np.full(len(quality), price[cheapest]), quality[:, cheapest])
    if name == "cheapest":
        full = least
    elif name == "best_single":
        best = int(curves.argmax(prior[None], price)[0])
        full = (np.full(len(quality), price[best]), quality[:, best])
    else:
        # Its expectation: every agent for an equal share of each request.
        full = (np.full(len(quality), price.mean()), quality.mean(axis=1))
    return curves.Curve(np.stack([full[0], least[0]]), np.stack([full[1], least[1]]))


def _figures(
    drawn: dict[str, curves.Curve],
    predicted: dict[str, Array],
    quality: Array,
    price: Array,
    prior: Array,
    seed: int,
) -> dict[str, Any]:
    least, most = float(price.min()), float(price.max())
    single = float(drawn["best_single"].points[0, 1])
    oracle = float(drawn["oracle"].points[0, 1])
    figures: dict[str, Any] = {}
    for name, curve in drawn.items():
        cost, accuracy = curve.points[0]
        gap = (accuracy - single) / (oracle - single) if oracle > single else None
        figures[name] = {
            "accuracy": float(accuracy),
            "mean_cost": float(cost),
            "area": curves.area(curve.points, least, most),
            "gap_closed": None if gap is None else float(gap),
            "apgr": None,
            "cpt50": None,
            "cpt80": None,
        }
        if len(price) == 2:
            figures[name] |= _pair(name, predicted.get(name), quality, price, prior)
    drawn_areas = curves.resampled_areas(drawn, least, most, RESAMPLES, seed)
    figures["ours_minus"] = {}
    for name in drawn:
        if name != "ours":
            difference = drawn_areas["ours"] - drawn_areas[name]
            low, high = np.quantile(difference, [0.025, 0.975])
            middle = figures["ours"]["area"] - figures[name]["area"]
            figures["ours_minus"][name] = {"area": [float(low), float(middle), float(high)]}
    return figures


def _pair(
    name: str, predicted: Array | None, quality: Array, price: Array, prior: Array
) -> dict[str, float | None]:
    """APGR and CPT of a router of two agents; the strong one is dearer, or better in training."""
    strong = int(np.argmax(price)) if price[0] != price[1] else int(np.argmax(prior))
    weak, best = quality[:, 1 - strong], quality[:, strong]
    if best.sum() <= weak.sum():
        return {"apgr": None, "cpt50": None, "cpt80": None}
    if name in _BLIND or predicted is None:
        # In expectation: calls at random recover as much of the gap as their share.
        return {"apgr": 0.5, "cpt50": 50.0, "cpt80": 80.0}
    preference = predicted[:, strong] - predicted[:, 1 - strong]
    return {
        "apgr": curves.apgr(preference, weak, best),
        "cpt50": curves.call_share(preference, weak, best, 0.5),
        "cpt80": curves.call_share(preference, weak, best, 0.8),
    }
