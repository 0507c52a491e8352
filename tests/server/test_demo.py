"""The demo runs: each query on each server, and the whole command from start to clean end.

In: the package tinydancer.demo.  Out: failures that name the query.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinydancer import demo

QUERIES = {query.name: query for query in demo.queries()}


@pytest.fixture(scope="module")
def loaded(module_db: Any) -> Iterator[Any]:
    """A connection to a database with the demo's registry and log."""
    with module_db.connect() as conn:
        if conn.execute("SELECT to_regclass('request_log')").fetchone()[0] is None:
            demo.load(conn)
        yield conn


@pytest.mark.parametrize("name", list(QUERIES))
def test_demo_query_answers_with_rows(loaded: Any, name: str) -> None:
    assert loaded.execute(QUERIES[name].sql).fetchall()


def test_demo_registry_has_every_agent_and_type(loaded: Any) -> None:
    rows = loaded.execute("SELECT name, type FROM tinydancer.agent").fetchall()
    assert {name for name, _ in rows} == {agent["name"] for agent in demo.agents()}
    assert {kind for _, kind in rows} == {"llm", "tool", "api", "human", "ensemble"}


def test_demo_join_routes_every_request_of_the_log(loaded: Any) -> None:
    rows = loaded.execute(QUERIES["cost-per-agent"].sql).fetchall()
    assert sum(row[2] for row in rows) == len(demo.request_log())


def test_demo_limits_keep_the_lawyer_out(loaded: Any) -> None:
    rows = loaded.execute(QUERIES["why-the-others-lost"].sql).fetchall()
    rejected = {row[1]: row[2] for row in rows if row[2]}
    assert "max_cost" in rejected["legal-counsel"]
    chosen = loaded.execute(QUERIES["under-limits"].sql).fetchall()
    assert len(chosen) == 1
    assert chosen[0][0] not in rejected


def run_demo(tmp: Path, *args: str) -> subprocess.Popen[str]:
    """The command, with its temporary files under ``tmp``."""
    return subprocess.Popen(
        [sys.executable, "-m", "tinydancer", "demo", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp,
    )


def home_of(process: subprocess.Popen[str]) -> Path:
    """The throw-away folder of a running demo: the last argument of its watchdog."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                command = stat.with_name("cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue
            if parent == process.pid and b"tinydancer-watchdog" in command:
                return Path(command[-2].decode())
        time.sleep(0.02)
    raise AssertionError("the demo started no server")


def test_demo_command_ends_with_status_0_and_fits_100_columns(cluster: Any, tmp_path: Path) -> None:
    process = run_demo(tmp_path, "--pg", cluster.label)
    home = home_of(process)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == ""
    for query in QUERIES.values():
        assert query.title in out
    # The command's path is that of this checkout, as long as it may be.
    program = str(Path(sys.executable).with_name("tinydancer"))
    shown = [line.replace(program, "tinydancer") for line in out.splitlines()]
    assert max(map(len, shown)) <= demo.WIDTH
    assert "psql --data" in out
    assert not home.exists()


def test_demo_command_interrupted_leaves_no_server(cluster: Any, tmp_path: Path) -> None:
    process = run_demo(tmp_path, "--pg", cluster.label)
    home = home_of(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not home.exists()
