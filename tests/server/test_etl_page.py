"""docs/etl.md says what is true: its SQL, shell and Python are executed, and their output compared.

In: the page, whose blocks follow ``<!-- run -->``, ``<!-- prints -->`` and ``<!-- fails -->``.
Out: failures that name the block.  All blocks work on one database and in one folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from test_readme import tidy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "etl.md"
BLOCK = re.compile(r"<!-- (run|prints|fails) -->\n```(\w+)\n(.*?)```", re.DOTALL)
# The line with the rate, which is another each time.
SUMMARY = re.compile(r"(?m)^\S+: [\d,]+ requests, .*requests/s\n")


def execute(language: str, text: str, db: Any, folder: Path) -> tuple[int, str, str]:
    """Run one block: its status, and what it printed and complained of."""
    if language == "sql":
        return 0, db.psql(text, "-P", "format=aligned", "-P", "tuples_only=off"), ""
    commands = {
        "sh": ["bash", "-euc", text],
        "python": [sys.executable, "-c", text],
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        commands[language],
        cwd=folder,
        env={**os.environ, "DSN": db.conninfo, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, SUMMARY.sub("", done.stdout), done.stderr


def test_page_of_etl_runs_and_prints_what_it_says(db: Any, tmp_path: Path) -> None:
    counts = {"run": 0, "prints": 0, "fails": 0}
    marks = [*BLOCK.findall(PAGE.read_text(encoding="utf-8")), ("run", "", "")]
    code, out, errors = 0, "", ""
    for (mark, language, text), after in zip(marks, [*marks[1:], ("", "", "")], strict=True):
        counts[mark] += 1
        if mark == "run" and language:
            code, out, errors = execute(language, text, db, tmp_path)
            assert (code != 0) == (after[0] == "fails"), (text, out, errors)
        elif mark == "prints":
            assert tidy(out) == tidy(text), (out, errors)
        elif mark == "fails":
            assert tidy(errors)[-len(tidy(text)) :] == tidy(text)
    assert counts["run"] > 8
    assert counts["prints"] > 4
    assert counts["fails"] == 1
