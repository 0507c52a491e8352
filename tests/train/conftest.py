"""Lets the tests of training import helpers by their plain names, and gives them an encoder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinydancer.encoder import Encoder

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "kernel")]


@pytest.fixture(scope="session")
def static() -> Encoder:
    """The encoder that ships."""
    return Encoder.load("static")
