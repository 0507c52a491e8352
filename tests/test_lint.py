"""Lint is a test: what the checkers say about every file of the project.

In: the tree.  Out: the checker's own words.  ``make format`` repairs most of it, ``make dev``
installs the checkers; a test whose checker is absent is skipped and says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ["python", "tests", "tools", "bench", "setup.py"]


def check(tool: str, *arguments: str) -> None:
    """Run a checker of this interpreter's environment at the root; fail with what it prints."""
    program = Path(sys.executable).parent / tool
    if not program.exists():
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed (make dev)")
        program = Path(found)
    # cython-lint runs pycodestyle, which lies beside it.
    path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).splitlines()
        more = [f"... and {len(said) - 60} lines more"] if len(said) > 60 else []
        words = [f"{tool} {' '.join(arguments[:3])}:", *said[:60], *more]
        pytest.fail("\n".join(words), pytrace=False)


def files(*patterns: str) -> list[str]:
    """Paths below the root that match, sorted, relative."""
    found = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(found)


def python_paths() -> list[str]:
    return [path for path in PYTHON if (ROOT / path).exists()]


def test_ruff_check_finds_nothing() -> None:
    check("ruff", "check", "--quiet", *python_paths())


def test_ruff_format_changes_nothing() -> None:
    check("ruff", "format", "--quiet", "--diff", *python_paths())


def test_mypy_finds_nothing() -> None:
    check("mypy", "--no-error-summary")


def test_cython_lint_finds_nothing() -> None:
    sources = files("kernels/*.pyx", "kernels/*.pxd", "kernels/*.pxi")
    assert sources
    check("cython-lint", *sources)


def test_clang_format_changes_nothing_in_kernels() -> None:
    # The Unicode tables are written by a script, one long table a line.
    generated = {"kernels/src/td_unicode_tables.c"}
    sources = files("kernels/src/*.[ch]", "kernels/include/*.h", "kernels/fuzz/*.[ch]")
    checked = [path for path in sources if path not in generated]
    assert checked
    check("clang-format", "--dry-run", "--Werror", *checked)


def test_codespell_finds_nothing() -> None:
    wanted = ["kernels", "fdw", "sql", "python", "tests", "tools", "bench", "docs"]
    wanted += files("*.md", "Makefile", "Dockerfile", "*.py", "*.toml")
    check("codespell", *[path for path in wanted if (ROOT / path).exists()])
