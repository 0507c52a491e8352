"""Run the .sql/.out pairs on every server through psql, as pg_regress would.

In: sql/NAME.sql and expected/NAME.out beside this file, and expected/minilm/NAME.out for a server
with MiniLM.  Out: build/regress/pg<label>/NAME.out, and on failure the difference.  psql does it
because the wheel's own pg_regress crashes; its result is the same to the byte, so
``make installcheck`` may use these files too.  Accept a result with
``TINYDANCER_ACCEPT=1 make test PYTEST_ARGS="-k regress"``.
"""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = sorted(path.stem for path in (HERE / "sql").glob("*.sql"))
# The servers of most tests have the static encoder alone; these run with MiniLM too.
MINILM_NAMES = sorted(path.stem for path in (HERE / "expected" / "minilm").glob("*.out"))
# The defaults of pg_regress, which hide what a server's build options would change; it sets the
# time zone and date style too, so that `make installcheck` sees the same answers.
VARIABLES = ["-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"]
SETTINGS = "-c timezone=PST8PDT -c datestyle=Postgres,MDY -c intervalstyle=postgres_verbose"


def expected_files(name: str) -> list[Path]:
    """NAME.out, and NAME_1.out ... where servers may differ, as pg_regress looks for them."""
    folder = HERE / "expected"
    numbered = (folder / f"{name}_{n}.out" for n in range(1, 10))
    return [folder / f"{name}.out", *(path for path in numbered if path.exists())]


def run_and_compare(name: str, db: Any, candidates: list[Path]) -> None:
    """Run sql/NAME.sql and fail with the difference unless one of the candidates is its output."""
    sql = HERE / "sql" / f"{name}.sql"
    env = db.cluster.environment(db.name) | {"PGOPTIONS": SETTINGS, "PGAPPNAME": name}
    with sql.open() as script:
        done = db.cluster.run(
            "psql",
            "-X",
            "-a",
            "-q",
            *VARIABLES,
            env=env,
            stdin=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Paths in \i and \copy are relative to the files' folder, as with pg_regress.
            cwd=HERE,
        )
    folder = candidates[0].parent.relative_to(HERE / "expected")
    result = ROOT / "build" / "regress" / f"pg{db.cluster.label}" / folder / f"{name}.out"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(done.stdout)

    if os.environ.get("TINYDANCER_ACCEPT"):
        if not any(path.exists() and path.read_text() == done.stdout for path in candidates):
            candidates[0].write_text(done.stdout)
        return
    texts = [path.read_text() if path.exists() else "" for path in candidates]
    if done.stdout in texts:
        return
    # The nearest of the alternatives makes the shortest difference.
    differences = [
        list(
            difflib.unified_diff(
                text.splitlines(), done.stdout.splitlines(), str(path), str(result), lineterm=""
            )
        )
        for path, text in zip(candidates, texts, strict=True)
    ]
    pytest.fail("\n".join(min(differences, key=len)), pytrace=False)


@pytest.mark.parametrize("name", NAMES)
def test_regress_file_gives_expected_output(name: str, db: Any) -> None:
    run_and_compare(name, db, expected_files(name))


@pytest.mark.parametrize("name", MINILM_NAMES)
def test_regress_file_gives_expected_output_with_minilm(name: str, minilm_db: Any) -> None:
    run_and_compare(name, minilm_db, [HERE / "expected" / "minilm" / f"{name}.out"])


def test_expected_files_have_a_script() -> None:
    known = {path for name in NAMES for path in expected_files(name)}
    assert set((HERE / "expected").glob("*.out")) <= known
    assert set(MINILM_NAMES) <= set(NAMES)
