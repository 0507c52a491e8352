"""The trainers of classifiers and capabilities: what they learn, refuse and measure.

In: requests of a grammar.  What is checked: figures are those of the kernel on rows that were held
out, equal seeds give equal bytes, weak models are told from strong ones, repeated requests do not
judge, and rows that nothing can be learned from are refused with a sentence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from training_rows import accuracy, requests

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import TrainingDataError
from tinydancer.model_file import read_model
from tinydancer.train import (
    calibrate,
    fit_capabilities,
    fit_classifier,
    learner,
    measure,
    train_capabilities,
    train_classifier,
)
from tinydancer.train.numeric import softmax


def said(data: bytes, texts: list[str], encoder: Encoder, words: bool = True) -> list[str]:
    model = _kernels.Model(data)
    p = model.apply(encoder.embed(texts), texts if words else None, encoder if words else None)
    return [model.names[i] for i in p.argmax(axis=1)]


def test_classifier_is_right_on_requests_that_it_has_not_seen(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, categories, _ = requests(300, rng)
    spec, data = fit_classifier(texts[:200], categories[:200], static)
    assert spec.names == sorted(set(categories))
    assert spec.task == _kernels.Model(data).task == "classifier"
    assert accuracy(said(data, texts[200:], static), categories[200:]) > 0.95
    assert accuracy(said(data, texts[200:], static, words=False), categories[200:]) > 0.9
    np.testing.assert_array_equal(
        spec.support, [categories[:200].count(name) for name in spec.names]
    )


def test_trained_classifier_reports_what_the_kernel_says_of_held_out_rows(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, categories, _ = requests(400, rng, noise=0.3)
    trained = train_classifier(texts, categories, static, seed=5)
    m, report = trained.metrics, trained.report_data
    assert m["n_train"] + m["n_test"] == 400
    assert m["n_test"] == pytest.approx(80, abs=4)
    low, high = m["ours_ci"]
    assert low <= m["ours"] <= high
    # Three of ten labels are drawn from four at random.
    assert 0.6 < m["ours"] < 0.9
    assert m["ours"] == (report.truth == report.predicted).mean()
    assert m["ece"] == measure.calibration_error(report.confidence, report.outcome)
    # Confidence knows of the noise.
    assert report.confidence is not None
    assert abs(report.confidence.mean() - m["ours"]) < 0.12
    assert m["baseline_value"] == max(m["baselines"].values())
    assert m["beats_baseline"] == (m["ours"] > m["baseline_value"])
    assert math.isclose(sum(report.outcome), m["ours"] * m["n_test"])


def test_two_trainings_with_one_seed_have_equal_bytes_and_figures(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, categories, _ = requests(120, rng, noise=0.2)
    one, two = (train_classifier(texts, categories, static, seed=3) for _ in range(2))
    assert one.bytes == two.bytes
    assert one.metrics == two.metrics
    assert train_classifier(texts, categories, static, seed=4).bytes != one.bytes


def test_labels_without_sense_do_not_beat_the_baseline(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, _, _ = requests(150, rng)
    # Most rows have one category, for no reason that the text shows.
    labels = ["usual" if draw < 0.7 else "rare" for draw in rng.random(150)]
    trained = train_classifier(texts, labels, static)
    assert trained.metrics["beats_baseline"] is False
    assert trained.metrics["baseline"] == "most frequent category"


def test_out_of_scope_rows_are_no_category_and_are_noticed(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, categories, _ = requests(160, rng)
    strange = [f"the {a} {b} of zebras in orbit" for a in "abcde" for b in ("mass", "hue")]
    trained = train_classifier(texts + strange, categories + ["oos"] * 10, static)
    assert "oos" not in trained.spec.names
    assert trained.metrics["n_oos"] == 10
    assert trained.metrics["oos_auroc"] > 0.8
    assert trained.metrics["n_train"] + trained.metrics["n_test"] == 160


def test_repeated_requests_are_reported_and_do_not_judge(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, categories, _ = requests(100, rng)
    doubled = texts + [f"  {text.upper()} " for text in texts[:50]]
    trained = train_classifier(doubled, categories + categories[:50], static)
    m = trained.metrics
    assert m["n_repeated"] > 0
    assert m["n_train"] + m["n_test"] + m["n_repeated"] == 150
    assert any("repeat" in note for note in trained.report_data.notes)
    groups = learner.same_request(doubled)
    assert len(np.unique(groups)) == 100


def test_category_with_one_row_is_learned_and_never_held_out(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, categories, _ = requests(60, rng)
    trained = train_classifier([*texts, "zebra"], [*categories, "animals"], static)
    assert "animals" in trained.spec.names
    where = trained.spec.names.index("animals")
    assert trained.report_data.truth is not None
    assert where not in trained.report_data.truth
    assert any("animals" in note for note in trained.report_data.notes)
    assert said(trained.bytes, ["zebra"], static) == ["animals"]


def test_request_of_a_megabyte_is_learned_from(static: Encoder, rng: np.random.Generator) -> None:
    texts, categories, _ = requests(40, rng)
    _, data = fit_classifier([*texts, "debug " * 170_000], [*categories, "code"], static)
    assert said(data, ["bug " * 250_000, texts[0]], static)[1] == categories[0]


def test_capabilities_are_found_together(static: Encoder, rng: np.random.Generator) -> None:
    texts, _, needs = requests(400, rng)
    trained = train_capabilities(texts, needs, static)
    m = trained.metrics
    assert trained.spec.names == sorted({one for need in needs for one in need})
    assert m["metric"] == "F1"
    assert m["ours"] > 0.9
    assert m["beats_baseline"] is True
    assert len(trained.report_data.tables["Capabilities"]) == 6
    new = "book a flight to rome quick and translate it into French and summarise the answer"
    p = _kernels.Model(trained.bytes).apply(static.embed([new]), [new], static)[0]
    found = {name for name, value in zip(trained.spec.names, p, strict=True) if value > 0.5}
    assert found == {"travel", "translation", "summary"}


def test_capabilities_of_a_fit_are_those_of_the_rows(
    static: Encoder, rng: np.random.Generator
) -> None:
    texts, _, needs = requests(60, rng)
    spec, data = fit_capabilities(texts + ["hm"] * 2, [*needs, [], []], static)
    assert spec.task == "capabilities"
    assert read_model(data).names == spec.names
    assert spec.prior[spec.names.index("code")] == pytest.approx(
        sum("code" in need for need in needs) / 62
    )


def case(texts: list[str], labels: list[Any], message: str, detail: str) -> Any:
    return pytest.param(texts, labels, message, detail, id=message.replace(" ", "-"))


TEXTS = [f"request number {i}" for i in range(20)]


@pytest.mark.parametrize(
    ("texts", "labels", "message", "detail"),
    [
        case(TEXTS, ["a"] * 20, "a classifier needs two categories", "All 20 rows"),
        case(TEXTS[:9], ["a", "b", "c"] * 3, "there are too few labelled requests", "There are 9"),
        case(TEXTS, ["Code", "code"] * 10, "two categories differ by case", '"Code" and "code"'),
        case(TEXTS, ["a", None] * 10, "a label is missing or is no text", "Row 2: None"),
        case(TEXTS, ["a", math.nan] * 10, "a label is missing or is no text", "Row 2: nan"),
        case(TEXTS, ["a", " "] * 10, "a label is missing or is no text", "Row 2: ' '"),
        case(TEXTS, ["a", "b"], "must have the same number of rows", "20 and 2"),
        case(["same"] * 20, ["a", "b"] * 10, "no request is left to test a model", "Of 20 rows"),
    ],
)
def test_rows_that_teach_nothing_are_refused(
    static: Encoder, texts: list[str], labels: list[Any], message: str, detail: str
) -> None:
    with pytest.raises(TrainingDataError, match=message) as caught:
        train_classifier(texts, labels, static)
    assert detail in (caught.value.detail or "")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[]] * 20, "there are no capabilities to learn"),
        ([["a"], ["a", "b"]] * 10, 'every request needs capability "a"'),
        ([["SQL"], ["sql"]] * 10, "two capabilities differ by case"),
    ],
)
def test_capabilities_that_teach_nothing_are_refused(
    static: Encoder, labels: list[list[str]], message: str
) -> None:
    with pytest.raises(TrainingDataError, match=message):
        train_capabilities(TEXTS, labels, static)


# ---------------------------------------------------------------- calibration and figures


def test_temperature_undoes_scores_that_are_too_sure(rng: np.random.Generator) -> None:
    scores = rng.standard_normal((4000, 5)) * 2
    labels = np.array([rng.choice(5, p=p) for p in softmax(scores)])
    assert calibrate.temperature(scores * 4, labels) == pytest.approx(4, rel=0.1)
    # A few rows without an error are no proof of certainty.
    sure = np.eye(3)[[0, 1, 2] * 4] * 5
    p = softmax(sure / calibrate.temperature(sure, np.array([0, 1, 2] * 4)))
    assert 0.9 < p.max() < 0.99


def test_affine_map_makes_scores_probabilities(rng: np.random.Generator) -> None:
    scores = rng.standard_normal(5000)
    outcome = (rng.random(5000) < 1 / (1 + np.exp(-(2 * scores - 1)))).astype(float)
    a, b = calibrate.affine(scores, outcome)
    assert (a, b) == (pytest.approx(2, rel=0.15), pytest.approx(-1, rel=0.15))
    unknown = np.where(rng.random(5000) < 0.5, np.nan, outcome)
    half = calibrate.affine(scores, unknown, (~np.isnan(unknown)).astype(float))
    assert half == (pytest.approx(2, rel=0.2), pytest.approx(-1, rel=0.2))


def test_curve_is_taken_only_where_it_helps(rng: np.random.Generator) -> None:
    p = rng.random(4000)
    right = (rng.random(4000) < p**3).astype(float)
    curve = calibrate.best_curve(p, right, 0)
    assert curve is not None
    x, y = curve
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    assert 0 <= y.min() <= y.max() <= 1
    before = measure.calibration_error(p, right)
    assert before > 0.2
    assert measure.calibration_error(calibrate.apply_curve(curve, p), right) < 0.03


def test_calibration_error_is_that_of_its_definition() -> None:
    confidence = np.array([0.1, 0.1, 0.9, 0.9])
    assert measure.calibration_error(confidence, np.array([0, 0, 1, 1])) == pytest.approx(0.1)
    assert measure.calibration_error(confidence, np.array([1, 1, 0, 0])) == pytest.approx(0.9)
    assert measure.calibration_error(np.ones(3), np.ones(3)) == 0


def test_auroc_counts_ties_half() -> None:
    assert measure.auroc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert measure.auroc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5
    assert measure.auroc(np.array([0.1]), np.array([0.2, 0.3])) == 0


def test_interval_covers_the_truth_about_as_often_as_it_says(rng: np.random.Generator) -> None:
    covered = 0
    for seed in range(200):
        right = rng.random(100) < 0.8
        low, high = measure.interval(lambda i, r=right: float(r[i].mean()), 100, seed, 200)
        covered += low <= 0.8 <= high
    assert 175 <= covered <= 200
