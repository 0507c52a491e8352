"""MiniLM in the server: the default where its file lies, and everything else works as with static.

In: a server whose folder of encoders has both.  Out: README.md's blocks and the demo, executed with
MiniLM; which encoder a database takes, and that it keeps it.  Skipped where minilm is not built.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tinydancer import Encoder, demo
from tinydancer import server as td_server

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = [
    "Summarise this contract and flag the risks",
    "Übersetze diesen Satz: 今日は天気がいい \U0001f600",
    "x",
    "refund " * 400,
]


def dimensions(conn: Any, encoder: str | None = None) -> int:
    """Length of the vectors that ruvector_embed() gives."""
    call = "ruvector_embed('x')" if encoder is None else f"ruvector_embed('x', '{encoder}')"
    row = conn.execute(f"SELECT array_length({call}, 1)").fetchone()
    return int(row[0])


def register(conn: Any) -> None:
    conn.execute("SELECT ruvector_register_agent('a', 'api', description := 'translate texts')")


def test_minilm_is_the_default_and_static_there_by_name(minilm_db: Any) -> None:
    with minilm_db.connect() as conn:
        assert [dimensions(conn, name) for name in (None, "minilm", "static")] == [384, 384, 128]


def test_minilm_in_sql_gives_the_bits_of_python(minilm_db: Any, minilm: Path) -> None:
    encoder = Encoder(minilm)
    with minilm_db.connect() as conn:
        for text in TEXTS:
            row = conn.execute("SELECT ruvector_embed(%s)", (text,)).fetchone()
            assert np.array(row[0], np.float32).tobytes() == encoder.embed(text)[0].tobytes()


def test_readme_blocks_print_the_same_with_minilm(minilm_db: Any) -> None:
    block = re.compile(r"(?:<!-- (run|prints) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
    printed = ""
    compared = 0
    for mark, _, text in block.findall(README):
        if mark == "run":
            printed = minilm_db.psql(text, "-P", "format=aligned", "-P", "tuples_only=off")
        elif mark == "prints":
            got, want = (
                [line.rstrip() for line in each.strip().splitlines()] for each in (printed, text)
            )
            assert got == want
            compared += 1
    assert compared >= 3


def test_demo_runs_with_minilm(minilm_db: Any) -> None:
    with minilm_db.connect() as conn:
        demo.load(conn)
        for query in demo.queries():
            rows = conn.execute(query.sql).fetchall()
            assert rows, query.name
            if query.name == "cost-per-agent":
                assert sum(row[2] for row in rows) == len(demo.request_log())


def test_database_keeps_its_encoder_when_minilm_arrives(
    any_installation: td_server.Installation, minilm: Path
) -> None:
    with td_server.temporary_cluster(any_installation, extension=True) as running:
        with running.connect(autocommit=True) as old:
            assert dimensions(old) == 128
            register(old)
            old.execute("SELECT * FROM ruvector_route('translate this')").fetchone()
            running.stage_encoders([minilm])
            # The same session, whose registry's vectors are static's.
            assert dimensions(old) == 128
            assert old.execute("SELECT agent_name FROM ruvector_route('translate')").fetchone()
            old.execute("CREATE DATABASE later")
        running.create_extension("later")
        with running.connect("later", autocommit=True) as new:
            assert dimensions(new) == 384


@pytest.fixture
def any_installation(request: pytest.FixtureRequest) -> td_server.Installation:
    """The first server there is, for what does not depend on the version."""
    wanted = request.config.getoption("--pg")
    for one in td_server.installations():
        if one.has_module and (not wanted or one.label in wanted.split(",")):
            return one
    pytest.skip("no Postgres with the module (make dev)")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a lasting cluster, which is stopped at the end."""
    path = tmp_path / "cluster"
    yield path
    if (path / td_server.STATE_FILE).exists():
        stopping = td_server.open_cluster(path)
        stopping.stop("immediate")
        for leftover in {stopping.home, stopping.socket_dir.parent} - {path}:
            subprocess.run(["rm", "-rf", leftover], check=True)


def up(folder: Path, label: str, **variables: str) -> str:
    """``tinydancer up``, and the URI that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tinydancer", "up", "--pg", label, "--data", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_up_gives_the_server_what_python_finds_without_a_restart(
    any_installation: td_server.Installation, minilm: Path, folder: Path, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    uri = up(folder, any_installation.label, TINYDANCER_ENCODER_DIR=str(nothing))
    with psycopg.connect(uri, autocommit=True) as conn:
        # The module brings static with it.
        assert dimensions(conn) == 128
        assert up(folder, any_installation.label) == uri
        # The session is still there, and no vector has been stored yet.
        assert dimensions(conn) == 384
        row = conn.execute("SHOW tinydancer.encoder_dir").fetchone()
        assert row is not None and Path(row[0]) == td_server.open_cluster(folder).encoders
    names = {path.name for path in td_server.open_cluster(folder).encoders.iterdir()}
    assert {"static-1.tdenc", minilm.name} <= names


def test_doctor_reports_minilm_or_how_to_build_it(minilm: Path, tmp_path: Path) -> None:
    def findings(**variables: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "tinydancer", "doctor", "--json"],
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        )
        return {one["what"]: one for one in json.loads(done.stdout)}

    one = findings()["encoder minilm-l6-v2-1"]
    assert one["state"] == "ok" and str(minilm) in one["found"] and "sha256" in one["found"]
    one = findings(TINYDANCER_BUILD=str(tmp_path))["encoder minilm-l6-v2-1"]
    assert (one["state"], one["remedy"]) == ("optional", "tinydancer encoder build minilm")
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / minilm.name).write_bytes(minilm.read_bytes()[:-1])
    one = findings(TINYDANCER_BUILD=str(tmp_path))["encoder minilm-l6-v2-1"]
    assert one["state"] == "missing" and "truncated" in one["found"]
    assert one["remedy"].startswith("tinydancer encoder build minilm")
