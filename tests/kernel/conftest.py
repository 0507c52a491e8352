"""Lets the kernel tests import their oracle, which lies beside them, by its plain name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
