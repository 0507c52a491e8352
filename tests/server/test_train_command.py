"""tinydancer train and tinydancer model against a server, as they are typed.

In: labelled rows in tables.  What is checked: a model is stored and active in one transaction, an
interrupt or a cut connection leaves none behind, weak models are refused with both figures, files
carry models from database to database, and routes change only when they become better.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "tinydancer"]
QUERY = "SELECT request, category FROM labelled ORDER BY request"
SHAPES = {
    "code": "debug the {} program of the {} team",
    "travel": "book a {} flight to {} for me",
    "cooking": "a {} recipe for {} soup",
}


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def labelled(db: Any, sense: bool = True) -> None:
    words = ["red", "quick", "old", "strange", "cheap", "modern"]
    rows = [
        (shape.format(a, b), name)
        for name, shape in SHAPES.items()
        for i, a in enumerate(words)
        for b in words[: 3 + i % 2]
    ]
    with db.connect() as conn:
        conn.execute("CREATE TABLE labelled (request text, category text)")
        for i, (request, name) in enumerate(rows):
            # Without sense: one label in five is another, whatever the text says.
            label = name if sense else "rare" if i % 5 == 0 else "usual"
            conn.execute("INSERT INTO labelled VALUES (%s, %s)", (request, label))


def own_models(db: Any) -> list[tuple[Any, ...]]:
    """Kind, version (the built-in classifier has 1) and whether it is active."""
    with db.connect() as conn:
        return conn.execute(
            "SELECT kind, version, active FROM tinydancer.model WHERE NOT builtin ORDER BY 1, 2"
        ).fetchall()


def test_trained_classifier_is_active_and_rolls_back(db: Any, tmp_path: Path) -> None:
    labelled(db)
    done = run(
        "train",
        "classifier",
        "--dsn",
        db.conninfo,
        "--query",
        QUERY,
        "--report",
        tmp_path,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["beats_baseline"] is True
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    for name in ("report.md", "details.md"):
        assert (tmp_path / name).read_text().startswith("# ")
    for name in ("reliability.png", "confusion.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert own_models(db) == [("classifier", 2, True)]
    with db.connect() as conn:
        row = conn.execute(
            "SELECT ruvector_classify_request('book a flight to Rome') ->> 'top_category'"
        ).fetchone()
        assert row == ("travel",)
        stored = conn.execute(
            "SELECT training_query, metrics FROM tinydancer.model WHERE NOT builtin"
        ).fetchone()
        assert stored == (QUERY, metrics)

    # The same rows and seed give the same model.
    again = run("train", "classifier", "--dsn", db.conninfo, "--query", QUERY, "--no-activate")
    assert again.returncode == 0, again.stderr
    with db.connect() as conn:
        same = conn.execute(
            "SELECT count(DISTINCT checksum) FROM tinydancer.model WHERE NOT builtin"
        ).fetchone()
    assert same == (1,)
    assert run("model", "activate", "classifier", 3, "--dsn", db.conninfo).returncode == 0
    assert own_models(db) == [("classifier", 2, False), ("classifier", 3, True)]
    refused = run("model", "drop", "classifier", 3, "--dsn", db.conninfo)
    assert refused.returncode == 1
    assert 'cannot drop model "classifier" version 3' in refused.stderr
    assert run("model", "deactivate", "classifier", "--dsn", db.conninfo).returncode == 0
    assert run("model", "drop", "classifier", 3, "--dsn", db.conninfo).returncode == 0
    assert own_models(db) == [("classifier", 2, False)]
    shown = run("model", "list", "--dsn", db.conninfo)
    assert "classifier     2  static-1" in shown.stdout


@pytest.mark.parametrize("suffix", ["tdmodel", "safetensors"])
def test_exported_model_is_imported_with_its_figures(db: Any, tmp_path: Path, suffix: str) -> None:
    labelled(db)
    done = run("train", "classifier", "--dsn", db.conninfo, "--query", QUERY)
    assert done.returncode == 0, done.stderr
    path = tmp_path / f"mine.{suffix}"
    assert run("model", "export", "classifier", 2, path, "--dsn", db.conninfo).returncode == 0
    done = run("model", "import", path, "--activate", "--dsn", db.conninfo)
    assert done.returncode == 0, done.stderr
    assert own_models(db) == [("classifier", 2, False), ("classifier", 3, True)]
    with db.connect() as conn:
        same = conn.execute(
            "SELECT count(DISTINCT (checksum, metrics)) FROM tinydancer.model WHERE NOT builtin"
        ).fetchone()
    assert same == (1,)
    path.write_bytes(path.read_bytes()[:-9])
    done = run("model", "import", path, "--dsn", db.conninfo)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR:  ")
    assert len(own_models(db)) == 2


def test_model_that_does_not_beat_its_baseline_is_refused_unless_forced(db: Any) -> None:
    labelled(db, sense=False)
    command = ("train", "classifier", "--dsn", db.conninfo, "--query", QUERY)
    done = run(*command)
    assert done.returncode == 1
    assert "ERROR:  model does not beat its baseline" in done.stderr
    assert "most frequent category has 0." in done.stderr
    assert own_models(db) == []
    assert run(*command, "--force").returncode == 0
    assert own_models(db) == [("classifier", 2, True)]


@pytest.mark.parametrize("how", ["interrupt", "cut"])
def test_interrupted_training_leaves_no_model_behind(db: Any, how: str) -> None:
    labelled(db)
    with db.connect(autocommit=False) as holder, db.connect() as watcher:
        # The transaction that stores the model waits here, in its middle.
        holder.execute("LOCK TABLE tinydancer.model IN SHARE ROW EXCLUSIVE MODE")
        process = subprocess.Popen(
            [*COMMAND, "train", "classifier", "--dsn", db.conninfo, "--query", QUERY],
            stderr=subprocess.PIPE,
            text=True,
        )
        waiting = None
        until = time.monotonic() + 240
        while waiting is None and time.monotonic() < until and process.poll() is None:
            waiting = watcher.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock' AND query LIKE '%add_model%'"
                " AND pid <> pg_backend_pid()"
            ).fetchone()
            time.sleep(0.05)
        assert waiting is not None, process.communicate()[1]
        if how == "interrupt":
            process.send_signal(signal.SIGINT)
        else:
            watcher.execute("SELECT pg_terminate_backend(%s)", waiting)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (130 if how == "interrupt" else 1), said
        holder.rollback()
    assert own_models(db) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "the query is empty"),
        (" ; ", "the query is empty"),
        ("SELECT 1", "the query returns the wrong columns"),
        ("SELECT request, category, 1 FROM labelled", "the query returns the wrong columns"),
        ("SELECT 1, category FROM labelled", "a request to learn from is missing or empty"),
        ("SELECT request, NULL FROM labelled", "a label is missing or is no text"),
        ("SELECT request, 'x' FROM labelled", "a classifier needs two categories"),
        ("SELECT request, category FROM labelled LIMIT 0", "there are no rows to learn from"),
        (
            "SELECT DISTINCT ON (category) request, category FROM labelled",
            "there are too few labelled requests",
        ),
        ("DELETE FROM labelled RETURNING *", "cannot execute DELETE in a read-only transaction"),
        ("SELEC", 'syntax error at or near "SELEC"'),
    ],
)
def test_query_that_gives_no_labels_is_refused(
    module_labelled: Any, query: str, message: str
) -> None:
    done = run("train", "classifier", "--dsn", module_labelled.conninfo, "--query", query)
    assert done.returncode == 1
    assert f"ERROR:  {message}" in done.stderr
    assert own_models(module_labelled) == []


@pytest.fixture(scope="module")
def module_labelled(module_db: Any) -> Any:
    labelled(module_db)
    return module_db


def test_unknown_encoder_and_missing_extension_are_named(
    module_labelled: Any, empty_db: Any
) -> None:
    command = ("train", "classifier", "--query", QUERY, "--dsn")
    done = run(*command, module_labelled.conninfo, "--encoder", "nosuch")
    assert done.returncode == 1
    assert 'cannot use encoder "nosuch": file does not exist' in done.stderr
    done = run(*command, empty_db.conninfo)
    assert done.returncode == 1
    assert 'lacks the extension "tinydancer"' in done.stderr
    assert "CREATE EXTENSION" in done.stderr


def test_routes_learn_from_labelled_requests(db: Any) -> None:
    labelled(db)
    with db.connect() as conn:
        # Descriptions that mislead: without utterances of their own the routes are mixed up.
        for name, text in (("code", "flights"), ("travel", "soup"), ("cooking", "programs")):
            conn.execute("SELECT ruvector_create_route(%s, utterances => ARRAY[%s])", (name, text))
    command = ("train", "routes", "--dsn", db.conninfo, "--query", QUERY, "--json")

    def utterances() -> int:
        with db.connect() as conn:
            return conn.execute("SELECT count(*) FROM tinydancer.route_utterance").fetchone()[0]

    tried = run(*command, "--no-activate")
    assert tried.returncode == 0, tried.stderr
    assert utterances() == 3
    done = run(*command)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["accuracy_after"] > figures["accuracy_before"]
    assert figures["gain_ci"][0] > 0
    assert utterances() == 3 + figures["n_added"]

    # Nothing is left to win: every held-out request is an utterance by now.
    again = run(*command)
    assert again.returncode == 1
    assert "ERROR:  no request is left to judge the routes by" in again.stderr
    with db.connect() as conn:
        conn.execute("UPDATE labelled SET request = request || ', please', category = 'nowhere'")
    unknown = run(*command)
    assert 'ERROR:  route "nowhere" does not exist' in unknown.stderr


def test_routes_that_do_not_become_better_stay_as_they_were(db: Any) -> None:
    labelled(db)
    with db.connect() as conn:
        for name, shape in SHAPES.items():
            conn.execute(
                "SELECT ruvector_create_route(%s, utterances => ARRAY[%s])",
                (name, shape.format("nice", "blue")),
            )
    done = run("train", "routes", "--dsn", db.conninfo, "--query", QUERY)
    assert done.returncode == 1
    assert "ERROR:  routes do not become better" in done.stderr
    with db.connect() as conn:
        count = conn.execute("SELECT count(*) FROM tinydancer.route_utterance").fetchone()
        scorers = conn.execute("SELECT count(*) FROM tinydancer.route_scorer").fetchone()
    assert (count, scorers) == ((3,), (0,))
