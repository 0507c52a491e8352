"""``tinydancer evaluate``: JSON, tables, pictures, and what is left out of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import outcome_data
import pytest

from tinydancer import cli
from tinydancer.encoder import Encoder
from tinydancer.errors import InvalidInputError
from tinydancer.evaluate import intents, llm
from tinydancer.train.outcomes import Outcomes, collect

ROUTERS = {"ours", "cheapest", "best_single", "random", "knn40", "knn100", "logistic", "oracle"}
PRICE = np.array([4.0, 1.0, 2.0])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("static")


def table(n: int, seed: int) -> Outcomes:
    return collect(*outcome_data.labels(outcome_data.outcomes(n, seed)))


@pytest.fixture(scope="module")
def printed(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str, Path]:
    """What the command says of three agents: JSON, notices, and the picture."""
    import contextlib
    import io

    picture = tmp_path_factory.mktemp("plot") / "curves.png"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(
            ["evaluate", "llm", "--train", f"{files}/train.jsonl", "--test", f"{files}/test.jsonl",
             "--agents", f"{files}/agents.json", "--encoder", "static", "--json",
             "--plot", str(picture)]
        )  # fmt: skip
    assert status == 0, err.getvalue()
    return json.loads(out.getvalue()), err.getvalue(), picture


def test_llm_json_has_every_router_and_an_interval_for_each(printed: Any) -> None:
    figures = printed[0]
    assert set(figures) == ROUTERS | {"ours_minus"}
    for name in ROUTERS:
        assert {"accuracy", "mean_cost", "area", "gap_closed", "apgr", "cpt50", "cpt80"} <= set(
            figures[name]
        )
        assert figures[name]["apgr"] is None
    assert set(figures["ours_minus"]) == ROUTERS - {"ours"}
    for difference in figures["ours_minus"].values():
        low, middle, high = difference["area"]
        assert low <= middle <= high


def test_llm_routes_better_than_what_does_not_look_at_requests(printed: Any) -> None:
    figures = printed[0]
    for name in ("cheapest", "best_single", "random"):
        assert figures["ours_minus"][name]["area"][0] > 0
    assert figures["ours"]["accuracy"] > figures["best_single"]["accuracy"]
    assert figures["oracle"]["gap_closed"] == 1.0
    assert figures["best_single"]["gap_closed"] == 0.0
    assert figures["cheapest"]["mean_cost"] == pytest.approx(0.0002)


def test_llm_reports_requests_of_both_files(printed: Any) -> None:
    both = {t for t, _ in outcome_data.requests(150, 1)} & {
        t for t, _ in outcome_data.requests(120, 2)
    }
    assert both
    assert f"requests of both files are removed from the test: {len(both)}" in printed[1]
    assert f"judged by {120 - len(both)}" in printed[1]


def test_llm_plot_is_a_picture(printed: Any) -> None:
    assert printed[2].read_bytes().startswith(b"\x89PNG")


def test_llm_with_two_agents_has_apgr_and_cpt(encoder: Encoder) -> None:
    def pair(rows: Outcomes) -> Outcomes:
        return Outcomes(rows.requests, rows.agents[:2], rows.quality[:, :2])

    train, test = pair(table(150, 1)), pair(table(120, 2))
    assert train.agents == ["large", "poet"]
    figures = llm.compare(train, test, PRICE[[0, 1]], encoder).figures
    assert figures["random"]["apgr"] == 0.5
    assert figures["random"]["cpt80"] == 80.0
    assert 0.5 < figures["ours"]["apgr"] <= figures["oracle"]["apgr"]
    assert 0 < figures["ours"]["cpt50"] < figures["ours"]["cpt80"] < 80


def test_llm_ignores_and_reports_what_it_cannot_judge(encoder: Encoder) -> None:
    train, test = table(60, 1), table(60, 2)
    other = np.column_stack([test.quality, np.ones(60)])
    other[:5, 0] = np.nan
    unseen = Outcomes(test.requests, [*test.agents, "zebra"], other)
    found = llm.compare(train, unseen, PRICE, encoder)
    assert 'agents of the test file that training never saw are ignored: "zebra"' in found.notes
    assert "test requests without the outcome of every agent: 5" in found.notes
    assert "zebra" not in [name for name, _, _ in found.agents]


def test_llm_without_anything_to_judge_by_is_refused(encoder: Encoder) -> None:
    train = table(60, 1)
    with pytest.raises(InvalidInputError, match="no test request is left to judge by"):
        llm.compare(train, train, PRICE, encoder)
    lacking = Outcomes(["new"], train.agents[:2], np.ones((1, 2)))
    with pytest.raises(InvalidInputError, match="lacks an agent of the training file"):
        llm.compare(train, lacking, PRICE, encoder)


def test_intents_prints_a_table_or_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", "intents", "--train", f"{files}/train_intents.jsonl",
                 "--test", f"{files}/test_intents.jsonl", "--encoder", "static",
                 "--shots", "12", "--seeds", "2", "--json"]  # fmt: skip
    assert cli.main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {"accuracy", "best", "oos_auroc", "ece", "n_test"}
    assert {"nearest", "centroid", "top3", "ridge", "classifier", "logistic", "knn"} == set(
        figures["accuracy"]
    )
    assert figures["accuracy"][figures["best"]] > 0.9
    assert figures["oos_auroc"] > 0.8
    assert 0 <= figures["ece"] <= 1


def test_intents_chooses_the_best_without_the_labels_of_the_test(encoder: Encoder) -> None:
    rows = outcome_data.requests(60, 1)
    train = ([t for t, _ in rows], [k for _, k in rows])
    fresh = [(t, k) for t, k in outcome_data.requests(40, 2) if t not in train[0]]
    texts, kinds = [t for t, _ in fresh], [k for _, k in fresh]
    # Labels turned round: whoever looked at them would choose differently.
    turned = list(reversed(kinds))
    honest = intents.compare(train, (texts, kinds), encoder)
    misled = intents.compare(train, (texts, turned), encoder)
    assert honest.validated == misled.validated
    assert honest.figures["best"] == misled.figures["best"]
    assert honest.figures["accuracy"] != misled.figures["accuracy"]
    assert honest.figures["oos_auroc"] is None


def test_intents_with_one_label_or_nothing_new_is_refused(encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="the training file has fewer than two labels"):
        intents.compare((["a b", "c d"], ["x", "oos"]), (["e"], ["x"]), encoder)
    two = (["a b", "c d"], ["x", "y"])
    with pytest.raises(InvalidInputError, match="no test text is left to judge by"):
        intents.compare(two, (["a b", "e f"], ["x", "z"]), encoder)


def test_seeds_without_shots_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(
        ["evaluate", "intents", "--train", f"{files}/train_intents.jsonl",
         "--test", f"{files}/test_intents.jsonl", "--seeds", "3"]
    )  # fmt: skip
    assert status == 1
    assert "--seeds needs --shots" in capsys.readouterr().err


def test_encoder_that_is_not_built_says_how(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TINYDANCER_ENCODER_DIR", str(tmp_path))
    status = cli.main(
        ["evaluate", "llm", "--train", f"{files}/train.jsonl", "--test", f"{files}/test.jsonl",
         "--agents", f"{files}/agents.json", "--encoder", "minilm"]
    )  # fmt: skip
    assert status == 1
    assert "Build it with: tinydancer encoder build minilm" in capsys.readouterr().err
