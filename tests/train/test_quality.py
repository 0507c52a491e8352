"""Quality models: what they learn from complete and from sparse outcomes, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import InvalidInputError, ShapeError
from tinydancer.model_apply import apply_model
from tinydancer.train.numeric import one_thread
from tinydancer.train.outcomes import collect
from tinydancer.train.quality import base_rates, fit_quality, stack, train_quality
from tinydancer.train.reliability import apply_curve, rising_curve
from tinydancer.train.result import TrainedModel
from tinydancer.train.ridge import landmark_coefficients, ridge_coefficients

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
import outcome_data

# ---------------------------------------------------------------- parts


def kernel(n: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, 6))
    return np.exp(-((x[:, None] - x[None]) ** 2).sum(axis=2) / 8)


def test_ridge_of_complete_outcomes_solves_the_system() -> None:
    k, y = kernel(30, 0), np.random.default_rng(1).random((30, 3))
    found = ridge_coefficients(k, y, 0.5)
    np.testing.assert_allclose((k + 0.5 * np.eye(30)) @ found, y, atol=1e-9)


def test_ridge_of_one_output_with_gaps_uses_the_known_rows_alone() -> None:
    k, y = kernel(30, 0), np.random.default_rng(1).random((30, 1))
    y[10:] = np.nan
    found = ridge_coefficients(k, y, 0.5)
    np.testing.assert_allclose(found[:10], ridge_coefficients(k[:10, :10], y[:10], 0.5))
    assert not found[10:].any()


def test_ridge_learns_what_outputs_share_from_rows_of_the_others() -> None:
    k = kernel(200, 3)
    truth = k @ np.random.default_rng(4).standard_normal(200) / 10
    y = np.full((200, 4), np.nan)
    y[np.arange(200), np.arange(200) % 4] = truth
    alone = np.full((200, 1), np.nan)
    alone[::4, 0] = truth[::4]
    shared = ((k @ ridge_coefficients(k, y, 1.0))[:, 0] - truth) ** 2
    single = ((k @ ridge_coefficients(k, alone, 1.0))[:, 0] - truth) ** 2
    assert shared.mean() < single.mean() / 2


def test_landmarks_that_are_all_rows_give_the_exact_prediction() -> None:
    k, y = kernel(40, 0), np.random.default_rng(1).random((40, 2))
    exact = k @ ridge_coefficients(k, y, 1.0)
    found = k @ landmark_coefficients(k, np.arange(40), y, 1.0)
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_landmarks_with_gaps_predict_nearly_what_all_rows_do() -> None:
    k = kernel(200, 0)
    y = k @ np.random.default_rng(1).standard_normal((200, 2)) / 10
    y[::3, 0] = np.nan
    exact = k @ ridge_coefficients(k, y, 1.0)
    landmarks = np.arange(0, 200, 2)
    found = k[:, landmarks] @ landmark_coefficients(k[:, landmarks], landmarks, y, 1.0)
    assert np.corrcoef(found[:, 0], exact[:, 0])[0, 1] > 0.98


def test_base_rates_of_few_labels_are_near_those_of_all() -> None:
    quality = np.full((1000, 2), np.nan)
    quality[:, 0] = np.arange(1000) % 10 < 3
    quality[0, 1] = 1.0
    common, rare = base_rates(quality)
    assert common == pytest.approx(0.3, abs=0.01)
    assert 0.3 < rare < 0.4


def test_stack_gives_no_weight_to_an_expert_that_contradicts_and_shares_the_rest() -> None:
    rng = np.random.default_rng(0)
    quality, prior = rng.random((500, 2)), np.full((500, 2), 0.5)
    good = prior + 0.5 * (quality - prior)
    weights = stack(np.stack([good, good, prior - 2 * (quality - prior)]), prior, quality)
    assert weights.sum() == pytest.approx(1)
    assert weights[2] == 0
    assert weights[0] == pytest.approx(weights[1])


def test_curve_rises_everywhere_and_calibrates() -> None:
    rng = np.random.default_rng(0)
    said = rng.random(4000)
    came = (rng.random(4000) < said**2).astype(float)
    curve = rising_curve(said, came)
    assert (np.diff(curve[0]) > 0).all()
    assert (np.diff(curve[1]) > 0).all()
    grid = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(apply_curve(curve, grid), grid**2, atol=0.06)


# ---------------------------------------------------------------- models


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("static")


@pytest.fixture(scope="module")
def trained(encoder: Encoder) -> TrainedModel:
    return train_quality(*outcome_data.labels(outcome_data.outcomes(200, 1)), encoder)


def chosen(model: TrainedModel, encoder: Encoder) -> dict[str, list[str]]:
    """The agents that a model thinks best for new requests, by kind of request."""
    kernel = _kernels.Model(model.bytes)
    found: dict[str, list[str]] = {}
    new = outcome_data.requests(80, 9)
    p = kernel.apply(encoder.embed([t for t, _ in new]), [t for t, _ in new], encoder)
    for (_, kind), row in zip(new, p, strict=True):
        found.setdefault(kind, []).append(kernel.names[row.argmax()])
    return found


def test_model_knows_who_is_good_at_what(trained: TrainedModel, encoder: Encoder) -> None:
    found = chosen(trained, encoder)
    for kind, best in (("poem", "poet"), ("law", "large"), ("code", "large")):
        assert found[kind].count(best) > 0.9 * len(found[kind]), kind


def test_model_says_what_it_was_measured_to_be(trained: TrainedModel) -> None:
    metrics = trained.metrics
    assert metrics["beats_baseline"] is True
    assert metrics["ours_ci"][0] < metrics["ours"] < metrics["ours_ci"][1]
    assert metrics["n_train"] == 200
    assert metrics["n_test"] == 600
    # Out of fold: there are no rows apart to speak of.
    assert trained.basis == "200 rows, each measured by a model of the other 4 folds"
    assert sum(metrics["weights"].values()) == pytest.approx(1)
    assert metrics["best_single_quality"] < metrics["chosen_quality"] <= metrics["oracle_quality"]
    assert trained.spec.support.tolist() == [200, 200, 200]
    assert metrics["ece"] < 0.08


def test_model_in_the_kernel_is_the_sum_of_its_experts(
    trained: TrainedModel, encoder: Encoder
) -> None:
    texts = [text for text, _ in outcome_data.requests(20, 9)]
    x = encoder.embed(texts)
    by_kernel = _kernels.Model(trained.bytes).apply(x, texts, encoder)
    ids = [encoder.tokenize(text) for text in texts]
    np.testing.assert_allclose(by_kernel, apply_model(trained.spec, x, ids), atol=0.02)


def test_model_without_the_text_still_knows(trained: TrainedModel, encoder: Encoder) -> None:
    texts = [text for text, kind in outcome_data.requests(60, 9) if kind == "poem"]
    p = _kernels.Model(trained.bytes).apply(encoder.embed(texts))
    assert (p.argmax(axis=1) == trained.spec.names.index("poet")).mean() > 0.9


def test_same_seed_gives_the_same_bytes(encoder: Encoder) -> None:
    labels = outcome_data.labels(outcome_data.outcomes(40, 1))
    first, second = (train_quality(*labels, encoder, seed=3).bytes for _ in range(2))
    assert first == second
    assert first != train_quality(*labels, encoder, seed=4).bytes


def test_log_with_one_agent_a_request_is_enough(encoder: Encoder) -> None:
    rng = np.random.default_rng(7)
    rows = outcome_data.outcomes(300, 1)
    for row in rows:
        agent = list(row["quality"])[rng.integers(3)]
        row["quality"] = {agent: row["quality"][agent]}
    model = train_quality(*outcome_data.labels(rows), encoder)
    assert model.metrics["n_labels"] == 300
    assert model.metrics["beats_baseline"] is True
    found = chosen(model, encoder)
    assert found["poem"].count("poet") > 0.8 * len(found["poem"])
    assert found["code"].count("large") > 0.8 * len(found["code"])


def test_unknown_outcomes_are_left_out_and_counted(encoder: Encoder) -> None:
    requests, agents, quality = outcome_data.labels(outcome_data.outcomes(30, 1))
    quality[0], quality[4] = None, float("nan")
    model = train_quality(requests, agents, quality, encoder)
    assert model.metrics["left_out"] == 2
    assert "2 labels without a quality were left out." in model.report_data.notes
    assert sum(model.spec.support) == 88


def test_agent_with_one_label_stays_near_the_base_rate(encoder: Encoder) -> None:
    requests, agents, quality = outcome_data.labels(outcome_data.outcomes(60, 1))
    model = train_quality([*requests, requests[0]], [*agents, "rare"], [*quality, 1.0], encoder)
    rare = model.spec.names.index("rare")
    assert model.spec.support[rare] == 1
    texts = [text for text, _ in outcome_data.requests(40, 9)]
    p = _kernels.Model(model.bytes).apply(encoder.embed(texts), texts, encoder)
    assert p[:, rare].max() < 0.95
    assert abs(model.spec.prior[rare] - np.nanmean(np.array(quality, float))) < 0.1


@pytest.mark.parametrize(
    ("requests", "agents", "quality", "error", "sentence"),
    [
        (["a"] * 9, ["x"] * 8, [1.0] * 9, ShapeError, "must have the same number of rows"),
        (["a"], ["x"], [1.5], InvalidInputError, "quality must be between 0 and 1"),
        (["a", " "], ["x", "x"], [1.0, 0.0], InvalidInputError, "a request to learn from is empty"),
        (["a"], [""], [1.0], InvalidInputError, "a label has no name of an agent"),
        (["a", "b"], ["x", "x"], [1.0, 0.0], InvalidInputError, "too few requests to learn from"),
        ([], [], [], InvalidInputError, "too few requests to learn from"),
        (list("abcdefghij"), ["x"] * 10, [1.0] * 10, InvalidInputError,
         "every known quality is the same"),
    ],
)  # fmt: skip
def test_labels_that_teach_nothing_are_refused(
    requests: list[str], agents: list[str], quality: list[float], error: type, sentence: str,
    encoder: Encoder,
) -> None:  # fmt: skip
    with pytest.raises(error, match=sentence):
        train_quality(requests, agents, quality, encoder)


def test_vectors_of_another_encoder_are_refused(encoder: Encoder) -> None:
    outcomes = collect(*outcome_data.labels(outcome_data.outcomes(20, 1)))
    with one_thread(), pytest.raises(ShapeError, match="vectors do not fit the requests"):
        fit_quality(outcomes, encoder, vectors=np.zeros((20, 7)))
