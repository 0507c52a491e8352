"""Lets the tests of the Python shell import the helpers that lie beside them by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
