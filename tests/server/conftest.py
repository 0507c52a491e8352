"""Fixtures for tests that talk to a running server; see tests/conftest.py for the general ones.

In: ``db`` and ``cluster``.  Out: several sessions on one database, and the demo's registry loaded.
Used by the files of this folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AGENTS = ROOT / "python" / "tinydancer" / "demo" / "agents.json"


@pytest.fixture
def session(db: Any) -> Iterator[Callable[..., Any]]:
    """Open further connections to ``db``: ``a, b = session(), session(autocommit=False)``."""
    opened: list[Any] = []

    def open_one(**kwargs: Any) -> Any:
        opened.append(db.connect(**kwargs))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def agents() -> list[dict[str, Any]]:
    """The demo's registry."""
    loaded = json.loads(AGENTS.read_text())
    return list(loaded["agents"] if isinstance(loaded, dict) else loaded)


@pytest.fixture
def registry(conn: Any, agents: list[dict[str, Any]]) -> Any:
    """``conn``, with the demo's registry registered."""
    for agent in agents:
        conn.execute("SELECT ruvector_register_agent_full(%s::jsonb)", (json.dumps(agent),))
    return conn
