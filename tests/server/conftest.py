"""Fixtures for tests that talk to a running server; see tests/conftest.py for the general ones.

In: ``db`` and ``cluster``.  Out: several sessions on one database, the demo's registry loaded, and
folders with encoder files.  Used by the files of this folder.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinydancer import encoder_file

ROOT = Path(__file__).resolve().parents[2]
AGENTS = ROOT / "python" / "tinydancer" / "demo" / "agents.json"
SHIPPED = ROOT / "python" / "tinydancer" / "encoders" / "static-1.tdenc"
SMALL = "small-1"
SMALL_DIM = 48


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


@pytest.fixture(scope="session")
def small_encoder() -> bytes:
    """The file of encoder "small-1": the first 48 columns of the shipped one."""
    shipped = encoder_file.StaticEncoder.from_path(SHIPPED)
    header = dataclasses.replace(shipped.header, dim=SMALL_DIM, fit_mu=0.5, fit_s=0.125)
    rows = shipped.table()[shipped.header.first_row :, :SMALL_DIM]
    return encoder_file.pack_static_encoder(SMALL, header, shipped.vocab, rows, "for tests")


@pytest.fixture
def encoder_folder(db: Any, small_encoder: bytes) -> Iterator[Path]:
    """A folder that the server can read, with the shipped encoder and "small-1"."""
    path = Path(db.cluster.home) / f"encoders_{db.name}"
    path.mkdir()
    path.chmod(0o755)
    shutil.copy(SHIPPED, path)
    (path / SHIPPED.name).chmod(0o644)
    encoder_file.write_file(path / f"{SMALL}.tdenc", small_encoder)
    with db.connect() as conn:
        conn.execute(f"ALTER DATABASE {db.name} SET tinydancer.encoder_dir = '{path}'")
    yield path
    shutil.rmtree(path)
