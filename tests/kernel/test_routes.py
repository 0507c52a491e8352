"""Semantic routes: scores, negative examples, near-ties, regression and tuning, against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import route_oracle as oracle

from tinydancer import _kernels
from tinydancer.errors import DimensionError, InvalidInputError, NonFiniteError, ShapeError

LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]
SCORERS = ("nearest", "centroid", "top3", "ridge")


def unit(rng: np.random.Generator, dim: int, near: Any = 0.0) -> np.ndarray:
    return _kernels.normalise((near + rng.normal(size=dim)).astype(np.float32))


def quantised(vectors: list[np.ndarray], dim: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.zeros((len(vectors), dim), dtype=np.int8)
    scales = np.zeros(len(vectors), dtype=np.float32)
    for i, vector in enumerate(vectors):
        rows[i], scales[i] = _kernels.quantise(vector)
    return rows, scales


class Case:
    """A registry of clusters that overlap, for the kernel and for the oracle."""

    def __init__(
        self,
        rng: np.random.Generator,
        counts: list[int],
        negatives: list[int] | None = None,
        dim: int = 24,
        spread: float = 1.0,
    ) -> None:
        negatives = negatives or [0] * len(counts)
        centres = [spread * rng.normal(size=dim) for _ in counts]
        positive = [unit(rng, dim, centres[r]) for r, n in enumerate(counts) for _ in range(n)]
        # Negative examples of a route lie where its neighbour is.
        negative = [
            unit(rng, dim, centres[(r + 1) % len(counts)])
            for r, n in enumerate(negatives)
            for _ in range(n)
        ]
        self.dim, self.counts = dim, np.array(counts)
        self.routes = np.zeros(len(counts), dtype=_kernels.ROUTE_DTYPE)
        self.routes["n_rows"] = counts
        self.routes["first_row"] = np.cumsum(counts) - counts
        self.routes["n_negatives"] = negatives
        self.routes["first_negative"] = np.cumsum(negatives) - negatives
        self.routes["threshold"] = -np.inf
        self.arrays = (*quantised(positive, dim), *quantised(negative, dim))
        rows, scales, bad, bad_scales = self.arrays
        self.oracle = oracle.Registry(
            rows * scales.astype(np.float64)[:, None],
            np.repeat(np.arange(len(counts)), counts),
            bad * bad_scales.astype(np.float64)[:, None],
            np.repeat(np.arange(len(counts)), negatives),
            len(counts),
        )
        self.queries = [unit(rng, dim, centres[i % len(counts)]) for i in range(20) if counts]

    def kernel(self, **options: Any) -> _kernels.Routes:
        return _kernels.Routes(self.routes, *self.arrays, **options)

    def dequantised(self, query: np.ndarray) -> np.ndarray:
        q, scale = _kernels.quantise(query)
        return q.astype(np.float64) * scale


@pytest.fixture
def case(rng: np.random.Generator) -> Case:
    return Case(rng, [5, 1, 8, 3, 2, 0, 9], [0, 2, 3, 0, 1, 0, 1])


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_equal_the_oracle(case: Case, scorer: str) -> None:
    routes = case.kernel(scorer=scorer)
    for query in case.queries:
        want = oracle.scores(case.oracle, case.dequantised(query), scorer)
        got = routes.score(query)
        assert np.array_equal(np.isfinite(got), np.isfinite(want))
        assert np.allclose(got, want, atol=2e-5, rtol=0)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("dim", [24, 129])
def test_scores_and_tuning_have_the_same_bits_at_every_level(
    rng: np.random.Generator, scorer: str, dim: int
) -> None:
    # More utterances than are compared at a time, in routes of one, of none and of many.
    counts = [5, 1, 70, 0, 2, 1, 1, 131, 8]
    case = Case(rng, counts, [0, 2, 3, 1, 1, 0, 40, 0, 1], dim)
    want = None
    for level in LEVELS:
        routes = case.kernel(scorer=scorer, level=level)
        result, reports = routes.tune()
        got = (
            np.concatenate([routes.score(query) for query in case.queries]).tobytes(),
            reports.tobytes(),
            result["mu"],
            result["accuracy"],
            None if result["weights"] is None else result["weights"].tobytes(),
        )
        want = got if want is None else want
        assert got == want, level


def test_scores_of_a_route_without_utterances_are_minus_infinity(case: Case) -> None:
    assert case.kernel().score(case.queries[0])[5] == -np.inf


@pytest.mark.parametrize("scorer", SCORERS)
def test_score_of_a_negative_example_itself_is_minus_infinity(case: Case, scorer: str) -> None:
    routes = case.kernel(scorer=scorer)
    for i, owner in enumerate(case.oracle.bad_y):
        query = _kernels.normalise((case.arrays[2][i] * case.arrays[3][i]).astype(np.float32))
        assert routes.score(query)[owner] == -np.inf


def test_negative_example_lowers_the_score_by_what_it_is_nearer(rng: np.random.Generator) -> None:
    # On a plane the cosines are known: the utterance at 0 degrees, the negative example at 60.
    def at(degrees: float) -> np.ndarray:
        angle = math.radians(degrees)
        return np.array([math.cos(angle), math.sin(angle)], dtype=np.float32)

    case = Case(rng, [1], [1], dim=2)
    case.arrays = (*quantised([at(0)], 2), *quantised([at(60)], 2))
    routes = case.kernel()
    p, n = math.cos(math.radians(35)), math.cos(math.radians(25))
    assert routes.score(at(35))[0] == pytest.approx(p - (n - p), abs=0.01)
    assert routes.score(at(20))[0] == pytest.approx(math.cos(math.radians(20)), abs=0.01)
    # At 50 degrees 1 - n is 0.015 and 1 - p is 0.357: far more than half of it.
    assert routes.score(at(50))[0] == -np.inf


def test_scores_refuse_wrong_queries(case: Case) -> None:
    routes = case.kernel()
    with pytest.raises(DimensionError, match="wrong number of dimensions"):
        routes.score(np.zeros(case.dim + 1, dtype=np.float32))
    query = case.queries[0].copy()
    query[3] = np.nan
    with pytest.raises(NonFiniteError, match="vector contains NaN"):
        routes.score(query)
    with pytest.raises(ShapeError, match="query has the wrong shape"):
        routes.score(case.queries[0].astype(np.float64))


def test_score_of_a_zero_query_is_zero_for_cosines(case: Case) -> None:
    got = case.kernel().score(np.zeros(case.dim, dtype=np.float32))
    assert np.array_equal(got[np.isfinite(got)], np.zeros(np.isfinite(got).sum()))


def test_confidence_is_the_logistic_of_the_score(case: Case) -> None:
    routes = case.kernel(mu=0.4, s=0.05)
    for score in (-1.0, 0.0, 0.4, 0.5, 1.0):
        want = 1 / (1 + math.exp(-(float(np.float32(score)) - 0.4) / 0.05))
        assert routes.confidence(score) == pytest.approx(want, rel=1e-12)


# ---------------------------------------------------------------- the best


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_select_equals_the_oracle(rng: np.random.Generator, n: int) -> None:
    for spread in (0.01, 0.2, 1.0):
        case = Case(rng, [1] * n, dim=4)
        case.routes["priority"] = rng.integers(-2, 3, size=n)
        case.routes["threshold"] = np.where(rng.random(n) < 0.5, -np.inf, rng.normal(size=n))
        routes = case.kernel()
        scores = (spread * rng.normal(size=n)).astype(np.float32)
        # Equal scores, and excluded routes.
        scores[rng.random(n) < 0.2] = np.float32(0.1)
        scores[rng.random(n) < 0.1] = -np.inf
        is_open = rng.random(n) < 0.8
        for k in (0, 1, 2, 5, n, n + 1):
            for mask in (None, is_open):
                want = oracle.select(
                    scores,
                    k,
                    case.routes["priority"],
                    case.routes["threshold"],
                    np.ones(n, dtype=bool) if mask is None else mask,
                    _kernels.NEAR_TIE,
                )
                assert routes.select(scores, k, mask).tolist() == want


def test_select_prefers_priority_in_a_near_tie_and_not_beyond(rng: np.random.Generator) -> None:
    case = Case(rng, [1, 1, 1], dim=4)
    case.routes["priority"] = [0, 5, 9]
    routes = case.kernel()
    near = np.array([0.80, 0.79, 0.70], dtype=np.float32)
    assert routes.select(near, 3).tolist() == [1, 0, 2]
    apart = np.array([0.80, 0.75, 0.70], dtype=np.float32)
    assert routes.select(apart, 3).tolist() == [0, 1, 2]


def test_select_refuses_wrong_shapes(case: Case) -> None:
    routes = case.kernel()
    with pytest.raises(ShapeError, match="different numbers of routes and scores"):
        routes.select(np.zeros(2, dtype=np.float32), 1)
    with pytest.raises(ShapeError, match="number of routes is negative"):
        routes.select(routes.score(case.queries[0]), -1)
    with pytest.raises(ShapeError, match="open has the wrong shape"):
        routes.select(routes.score(case.queries[0]), 1, np.ones(2, dtype=bool))


# ---------------------------------------------------------------- regression


def test_ridge_weights_of_an_exact_fit_equal_the_dual_solution(case: Case) -> None:
    routes = case.kernel(scorer="ridge")
    assert routes.n_landmarks == len(case.arrays[0])
    assert routes.weights is not None
    assert np.allclose(routes.weights, oracle.ridge_weights(case.oracle), atol=1e-4)


def test_ridge_weights_of_a_sampled_fit_equal_the_primal_solution(
    rng: np.random.Generator,
) -> None:
    # So many dimensions that 150 utterances are too many to compare each request with.
    case = Case(rng, [40, 0, 75, 35], [0, 0, 2, 0], dim=8192, spread=0.5)
    routes = case.kernel(scorer="ridge")
    assert routes.n_landmarks == len(oracle.landmarks(case.oracle)) < 150
    assert routes.weights is not None
    assert np.allclose(routes.weights, oracle.ridge_weights(case.oracle), atol=1e-3)
    query = case.queries[0]
    want = oracle.scores(case.oracle, case.dequantised(query), "ridge")
    assert np.allclose(routes.score(query), want, atol=1e-4)


def test_ridge_with_given_weights_uses_them(case: Case) -> None:
    fitted = case.kernel(scorer="ridge")
    assert fitted.weights is not None
    again = case.kernel(scorer="ridge", weights=fitted.weights)
    query = case.queries[0]
    assert again.score(query).tobytes() == fitted.score(query).tobytes()
    with pytest.raises(ShapeError, match="weights have the wrong shape"):
        case.kernel(scorer="ridge", weights=fitted.weights[:, :-1].copy())


def test_fingerprint_depends_on_utterances_and_routes_alone(case: Case) -> None:
    before = case.kernel().fingerprint
    case.routes["threshold"] = 0.5
    case.routes["priority"] = 3
    assert case.kernel(scorer="top3", mu=0.1).fingerprint == before
    moved = case.arrays[0].copy()
    moved[0, 0] ^= 1
    case.arrays = (moved, *case.arrays[1:])
    assert case.kernel().fingerprint != before


# ---------------------------------------------------------------- tuning


@pytest.fixture
def tuned(rng: np.random.Generator) -> Case:
    """Clusters that overlap so much that every scorer errs."""
    return Case(rng, [12, 9, 1, 15, 10, 2, 14], [0, 4, 0, 3, 0, 0, 2], dim=16, spread=0.75)


def threshold_of(report: Any) -> list[float]:
    return [float(one) for one in report["threshold"]]


@pytest.mark.parametrize("scorer", SCORERS)
def test_tune_leaves_each_utterance_out(tuned: Case, scorer: str) -> None:
    outcomes = oracle.left_out(tuned.oracle, scorer)
    result, _ = tuned.kernel().tune(scorer=scorer)
    assert result["scorer"] == scorer
    assert result["n_left_out"] == 62
    assert result["accuracy"][scorer] == oracle.accuracy(outcomes)


def test_tune_leaves_out_by_the_hat_matrix_where_landmarks_are_sampled(
    rng: np.random.Generator,
) -> None:
    case = Case(rng, [40, 45, 50, 35], [0, 3, 0, 0], dim=8192, spread=0.1)
    outcomes = oracle.left_out(case.oracle, "ridge", hat=True)
    result, reports = case.kernel().tune(scorer="ridge", precision=0.9)
    assert result["accuracy"]["ridge"] == oracle.accuracy(outcomes)
    mu, s = oracle.confidence(outcomes)
    assert (result["mu"], result["s"]) == (
        pytest.approx(mu, abs=1e-3),
        pytest.approx(s, rel=1e-2),
    )
    assert np.allclose(reports["threshold"], oracle.for_precision(outcomes, 0.9), atol=1e-4)


@pytest.mark.parametrize("scorer", SCORERS)
def test_tune_fits_confidence_to_the_outcomes(tuned: Case, scorer: str) -> None:
    mu, s = oracle.confidence(oracle.left_out(tuned.oracle, scorer))
    result, _ = tuned.kernel().tune(scorer=scorer)
    assert result["fitted"]
    assert result["mu"] == pytest.approx(mu, abs=1e-3)
    assert result["s"] == pytest.approx(s, rel=1e-2)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("wanted", [0.0, 0.7, 0.9, 1.0])
def test_tune_for_precision_equals_the_oracle(tuned: Case, scorer: str, wanted: float) -> None:
    outcomes = oracle.left_out(tuned.oracle, scorer)
    result, reports = tuned.kernel().tune(scorer=scorer, precision=wanted)
    threshold = oracle.for_precision(outcomes, wanted)
    assert np.allclose(reports["threshold"], threshold, atol=2e-5, rtol=0)
    described = oracle.describe(outcomes, threshold, tuned.counts)
    check_described(reports, described)
    assert result["n_short"] == sum(
        one["precision"] is not None and one["precision"] < wanted for one in described
    )


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("wanted", [0.0, 0.5, 0.8, 1.0])
def test_tune_for_coverage_equals_the_oracle(tuned: Case, scorer: str, wanted: float) -> None:
    outcomes = oracle.left_out(tuned.oracle, scorer)
    _, reports = tuned.kernel().tune(scorer=scorer, coverage=wanted)
    threshold = oracle.for_coverage(outcomes, wanted, tuned.counts)
    assert np.allclose(reports["threshold"], threshold, atol=2e-5, rtol=0)
    check_described(reports, oracle.describe(outcomes, threshold, tuned.counts))


def check_described(reports: Any, described: list[dict[str, Any]]) -> None:
    for got, want in zip(reports, described, strict=True):
        other = None if got["confused_with"] == _kernels.NONE else int(got["confused_with"])
        assert other == want["confused_with"]
        assert got["confusion"] == want["confusion"]
        for name in ("precision", "coverage"):
            assert (None if np.isnan(got[name]) else float(got[name])) == want[name]


def test_tune_chooses_the_most_accurate_scorer(tuned: Case) -> None:
    result, _ = tuned.kernel().tune()
    accuracies = result["accuracy"]
    assert accuracies[result["scorer"]] == max(accuracies.values())
    assert result["scorer"] == max(
        SCORERS, key=lambda name: (accuracies[name], -SCORERS.index(name))
    )


def test_tune_of_clear_clusters_keeps_the_cheapest_scorer(rng: np.random.Generator) -> None:
    case = Case(rng, [6, 6, 6], dim=32, spread=5.0)
    result, _ = case.kernel(scorer="top3").tune()
    assert set(result["accuracy"].values()) == {1.0}
    assert result["scorer"] == "nearest"
    # All were right: confidence comes from own and wrong routes, and tells them apart.
    assert result["fitted"]
    routes = case.kernel(mu=result["mu"], s=result["s"])
    for query in case.queries:
        scores = np.sort(routes.score(query))
        assert routes.confidence(float(scores[-1])) > 0.5 > routes.confidence(float(scores[-2]))


def test_tune_without_a_wish_keeps_thresholds_of_the_same_scorer(tuned: Case) -> None:
    tuned.routes["threshold"] = [0.5, -np.inf, 0.1, 0.9, -0.2, 0.0, 0.3]
    _, reports = tuned.kernel(scorer="top3").tune(scorer="top3")
    assert np.array_equal(reports["threshold"], tuned.routes["threshold"])


def test_tune_without_a_wish_carries_thresholds_over_at_the_same_coverage(tuned: Case) -> None:
    tuned.routes["threshold"] = [0.5, -np.inf, 0.1, 0.9, -0.2, 0.0, 0.3]
    _, reports = tuned.kernel(scorer="nearest").tune(scorer="ridge")
    outcomes = oracle.left_out(tuned.oracle, "nearest")
    before, after = outcomes.rows, oracle.left_out(tuned.oracle, "ridge").rows
    for r, threshold in enumerate(tuned.routes["threshold"]):
        own = outcomes.owners == r
        if not own.any() or threshold == -np.inf:
            assert reports["threshold"][r] == threshold
            continue
        assert (after[own, r] >= reports["threshold"][r] - 5e-6).sum() == (
            before[own, r] >= threshold
        ).sum()


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [4, 4], [12], [0, 0], []])
def test_tune_of_too_few_utterances_changes_nothing(
    rng: np.random.Generator, counts: list[int]
) -> None:
    case = Case(rng, counts)
    case.routes["threshold"] = 0.25
    result, reports = case.kernel(scorer="top3", mu=0.3, s=0.2).tune(precision=0.9)
    assert not result["fitted"]
    assert (result["scorer"], result["mu"], result["s"]) == ("top3", 0.3, 0.2)
    assert threshold_of(reports) == [0.25] * len(counts)


def test_tune_of_equal_vectors_changes_nothing(rng: np.random.Generator) -> None:
    case = Case(rng, [8, 8])
    rows, scales, *rest = case.arrays
    case.arrays = (np.repeat(rows[:1], 16, axis=0), np.repeat(scales[:1], 16), *rest)
    result, _ = case.kernel().tune(precision=0.9)
    assert not result["fitted"]


def test_tune_gives_the_weights_of_a_fit(tuned: Case) -> None:
    result, _ = tuned.kernel().tune(scorer="ridge")
    fitted = tuned.kernel(scorer="ridge").weights
    assert fitted is not None
    assert result["weights"].tobytes() == fitted.tobytes()
    assert tuned.kernel().tune(scorer="nearest")[0]["weights"] is None


def test_tune_refuses_what_cannot_be_wanted(tuned: Case) -> None:
    routes = tuned.kernel()
    for wish in ({"precision": 1.5}, {"coverage": -0.1}, {"precision": 0.5, "coverage": 0.5}):
        with pytest.raises(ShapeError):
            routes.tune(**wish)
    with pytest.raises(InvalidInputError, match='unknown scorer "nearst"'):
        routes.tune(scorer="nearst")


# ---------------------------------------------------------------- construction


def test_routes_refuse_arrays_that_contradict_each_other(case: Case) -> None:
    rows, scales, bad, bad_scales = case.arrays
    with pytest.raises(ShapeError, match="different numbers of rows and scales"):
        _kernels.Routes(case.routes, rows, scales[:-1], bad, bad_scales)
    with pytest.raises(ShapeError, match="routes do not follow each other"):
        _kernels.Routes(case.routes, rows[:-1].copy(), scales[:-1], bad, bad_scales)
    with pytest.raises(ShapeError, match="impossible dimension"):
        _kernels.Routes(case.routes, rows, scales, bad[:, :5].copy(), bad_scales)
    with pytest.raises(ShapeError, match="there are rows without a route"):
        _kernels.Routes(case.routes[:0], rows, scales, bad[:0], bad_scales[:0])
    with pytest.raises(ShapeError, match="routes has the wrong shape"):
        _kernels.Routes(np.zeros(7), rows, scales, bad, bad_scales)
    with pytest.raises(NonFiniteError, match="a constant of confidence is not one"):
        case.kernel(s=0.0)
    with pytest.raises(NonFiniteError, match="scales contain NaN"):
        _kernels.Routes(case.routes, rows, scales * np.nan, bad, bad_scales)
    case.routes["threshold"][0] = np.nan
    with pytest.raises(NonFiniteError, match="a threshold is NaN"):
        case.kernel()
