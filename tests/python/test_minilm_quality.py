"""MiniLM's quality on the real data, on samples against floors; skipped where either is absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_minilm_on_real_data_passes_its_floors(minilm: Path, shared: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "evaluate_encoders.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
    assert done.stdout.count("floor") == 3
