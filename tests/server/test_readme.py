"""README.md says what is true: its SQL is executed, its output compared, its commands exist.

In: README.md, whose SQL blocks to execute follow the comment ``<!-- run -->`` and whose expected
output follows ``<!-- prints -->``.  Out: failures that name the block.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_BLOCK = re.compile(r"(?:<!-- (run|prints) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """Every fenced block: its mark ("" for none), its language and its text."""
    return [(m[1] or "", m[2], m[3]) for m in _BLOCK.finditer(README)]


def tidy(text: str) -> list[str]:
    """Lines without the blanks that editors and psql put at their ends."""
    return [line.rstrip() for line in text.strip().splitlines()]


def commands(program: str) -> set[str]:
    """The first argument of every ``program`` in the shell blocks."""
    shell = "\n".join(text for _, language, text in blocks() if language == "sh")
    return set(re.findall(rf"(?m)^(?:\S*/)?{program} +(\w+)", shell))


def test_readme_first_code_is_make_demo_and_make_test() -> None:
    lines = blocks()[0][2].splitlines()
    assert [line.split("#")[0].strip() for line in lines] == ["make demo", "make test"]


def test_readme_sql_blocks_run_and_print_what_it_says(db: Any) -> None:
    printed = ""
    ran = compared = 0
    for mark, _, text in blocks():
        if mark == "run":
            printed = db.psql(text, "-P", "format=aligned", "-P", "tuples_only=off")
            ran += 1
        elif mark == "prints":
            assert tidy(printed) == tidy(text), printed
            compared += 1
    assert ran >= 4
    assert compared >= 3


def test_readme_unmarked_sql_against_the_start_is_valid(db: Any) -> None:
    for mark, _, text in blocks():
        if mark == "run":
            db.psql(text)
    checked = 0
    for mark, language, text in blocks():
        if mark == "" and language == "sql":
            db.psql("\\set ON_ERROR_STOP on\nBEGIN;\n" + text + "\nROLLBACK;\n")
            checked += 1
    assert checked >= 3


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {"demo", "test", "dev"}
    assert targets <= commands("make")
    for target in targets:
        assert re.search(rf"(?m)^{target}:", makefile), target


@pytest.mark.parametrize("command", sorted(commands("tinydancer")))
def test_readme_tinydancer_commands_exist(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tinydancer", command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_readme_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_name_only_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    folders = "kernels|fdw|sql|python|tests|bench|tools|docs"
    # A name with a placeholder (NN, <area>) is a pattern, not a file.
    paths = re.findall(rf"(?<![\w./-])((?:{folders})/[\w./-]*\w)(?![\w<*-])", text)
    for path in paths:
        if "NN" not in path and "OLD" not in path:
            assert (ROOT / path).exists(), path


def test_documents_have_no_place_left_to_fill() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.findall(r"@[A-Z_]+@", text), name
