"""Every error of the module is shown by some test, with a DETAIL and a HINT.

In: the sources of fdw/ and sql/install/.  What is checked: each sentence stands in an expected file
or in a test of the server; each ereport(ERROR) has an SQLSTATE, a detail and a hint.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
C_FILES = sorted((ROOT / "fdw").glob("*.c"))
SQL_FILES = sorted((ROOT / "sql" / "install").glob("*.sql"))
# What no user can bring about: scripts and module of different versions, and a missing table.
UNREACHABLE = ("table tinydancer.", "column tinydancer.")


def reports(source: str) -> list[str]:
    """The text of each ereport(ERROR, ...) call."""
    found = []
    for match in re.finditer(r"ereport\(\s*ERROR", source):
        depth, end = 0, match.start()
        for end in range(source.index("(", match.start()), len(source)):
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            if depth == 0:
                break
        found.append(source[match.start() : end])
    return found


def literal_parts(text: str) -> list[str]:
    """Longest pieces of a message between its placeholders, at least three letters long."""
    pieces = re.split(r"%(?:\.?\d*[a-zA-Z]|%)?|\\\"", text)
    return [piece for piece in pieces if len(piece.strip()) > 2]


def shown() -> str:
    """What tests print or expect."""
    paths = [
        *(ROOT / "tests/regress/expected").glob("*.out"),
        *(ROOT / "tests/server").glob("*.py"),
    ]
    return "\n".join(path.read_text() for path in paths)


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_error_of_the_module_has_sqlstate_detail_and_hint(path: Path) -> None:
    for report in reports(path.read_text()):
        for part in ("errcode(", "errmsg(", "errdetail(", "errhint("):
            assert part in report, f"{path.name}: no {part}...) in {report}"


def messages(path: Path) -> list[str]:
    """The primary sentences of a file."""
    source = path.read_text()
    if path.suffix == ".c":
        found = re.findall(r'errmsg\(\s*"((?:[^"\\]|\\.)*)"', "\n".join(reports(source)))
    else:
        found = re.findall(r"RAISE EXCEPTION '((?:[^']|'')*)'", source)
    return [one for one in found if one != "%s" and not one.startswith(UNREACHABLE)]


@pytest.mark.parametrize("path", [*C_FILES, *SQL_FILES], ids=lambda path: path.name)
def test_error_sentence_is_shown_by_a_test(path: Path) -> None:
    seen = shown()
    for message in messages(path):
        for piece in literal_parts(message):
            assert piece in seen, f'{path.name}: no test shows "{message}" ("{piece}")'


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_error_in_sql_has_sqlstate_detail_and_hint(path: Path) -> None:
    for raised in re.findall(r"RAISE EXCEPTION .*?;\n", path.read_text(), re.DOTALL):
        for part in ("ERRCODE =", "DETAIL =", "HINT ="):
            assert part in raised, f"{path.name}: no {part} in {raised}"
