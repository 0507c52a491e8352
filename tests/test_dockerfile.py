"""The Dockerfile names only files and make goals that exist; nothing here has a Docker engine.

In: Dockerfile, .dockerignore, Makefile.  Out: failures that name the line.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of the Dockerfile, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n", " ", text)
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())
    ]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the checkout out of the build context."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = Path(path).parts
    heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return any(
        fnmatch.fnmatch(head, pattern) or fnmatch.fnmatch(head, pattern.removeprefix("**/"))
        for head in heads
        for pattern in patterns
    )


def test_dockerfile_has_a_build_stage_and_a_final_stage() -> None:
    stages = [rest for word, rest in instructions() if word == "FROM"]
    assert [stage.split(" ")[0] for stage in stages] == ["postgres:${PG_MAJOR}"] * 2
    assert stages[0].endswith(" AS build")


def test_dockerfile_copies_paths_that_exist_and_are_sent() -> None:
    copies = [rest.split() for word, rest in instructions() if word in ("COPY", "ADD")]
    assert ["COPY", ". ."] in [list(pair) for pair in instructions()]
    for words in copies:
        flags = [word for word in words if word.startswith("--")]
        if any(flag.startswith("--from=") for flag in flags):
            continue
        for source in [word for word in words if word not in flags][:-1]:
            assert (ROOT / source).exists(), f"COPY {source}"
            assert not ignored(source), f"COPY {source} is in .dockerignore"


@pytest.mark.parametrize(
    "path", ["Makefile", "tinydancer.control", "kernels", "fdw", "sql", "python"]
)
def test_dockerignore_leaves_what_the_build_needs(path: str) -> None:
    assert (ROOT / path).exists()
    assert not ignored(path)


def test_dockerignore_keeps_objects_of_the_host_out() -> None:
    assert ignored("kernels/src/td_vec.o")
    assert ignored(".venv/bin/python")
    assert ignored("python/tinydancer/_kernels.so")


def test_dockerfile_runs_make_goals_that_exist(all_installations: list[Path]) -> None:
    runs = " && ".join(rest for word, rest in instructions() if word == "RUN")
    commands = re.findall(r"(?:^|&&)\s*make\b([^&]*)", runs)
    assert len(commands) == 2
    for command in commands:
        words = re.sub(r'-j"?\$\(nproc\)"?', "", command).split()
        done = subprocess.run(
            ["make", "-n", f"PG_CONFIG={all_installations[0]}", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"make{command}: {done.stderr}"


@pytest.fixture
def all_installations() -> list[Path]:
    """The pg_config of each server with headers, of which there must be one."""
    from tinydancer import server

    found = [one.pg_config for one in server.installations() if one.has_headers]
    if not found:
        pytest.skip("no Postgres with headers")
    return found
