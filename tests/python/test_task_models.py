"""The task models that ship: files, examples and published figures belong together.

In: tools/build_task_models.py, python/tinydancer/models, docs/classification.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinydancer import Encoder, _kernels

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "python/tinydancer/models"

# What the documents and the first minutes with the project ask.
FIRST = {
    "Write Python code to sort a list": "code",
    "Write a Python function to calculate Fibonacci numbers": "code",
    "Build and deploy a web application": "code",
    "Code generation request": "code",
    "Analyze this complex legal document": "legal",
    "Translate this letter into Spanish": "translation",
    "Summarize this article": "summarising",
    "How do I reset my password?": "support",
    "My invoice is wrong": "support",
}


@pytest.fixture(params=["static", "minilm"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """Each shipped encoder; MiniLM is skipped where it is not built."""
    if request.param == "minilm":
        request.getfixturevalue("minilm")
    return Encoder.load(request.param)


def test_task_models_have_the_figures_that_are_published(minilm: Path) -> None:
    pytest.importorskip("sklearn", reason="figures are measured with scikit-learn and SciPy")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/build_task_models.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_task_classifier_names_what_the_documents_ask(encoder: Encoder) -> None:
    model = _kernels.Model(MODELS / f"classifier.{encoder.id}.tdmodel")
    p = model.apply(encoder.embed(list(FIRST)), list(FIRST), encoder)
    said = dict(zip(FIRST, (model.names[i] for i in p.argmax(axis=1)), strict=True))
    assert said == FIRST
    assert np.allclose(p.sum(axis=1), 1, atol=1e-3)


def test_task_capabilities_of_code_are_code(encoder: Encoder) -> None:
    model = _kernels.Model(MODELS / f"capabilities.{encoder.id}.tdmodel")
    text = ["My Python script crashes with a KeyError, find the bug"]
    p = dict(zip(model.names, model.apply(encoder.embed(text), text, encoder)[0], strict=True))
    assert p["code"] > 0.5 and p["debugging"] > 0.5
    assert p["medical"] < 0.5 and p["translation"] < 0.5
