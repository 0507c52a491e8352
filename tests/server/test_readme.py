"""Documents say what is true: their SQL is executed, its output compared, their commands exist.

In: README.md, docs/foreign-tables.md, docs/doors.md and docs/functions/, whose SQL and Python
blocks to execute follow the comment ``<!-- run -->`` and whose expected output follows
``<!-- prints -->``; each document has a database of its own, which Python finds by the variables of
libpq.
Out: failures that name the block, and functions of the extension that no page describes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import catalog
import psycopg
import pytest

from tinydancer import multicorn

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs" / "functions").glob("*.md"))
INDEX = ROOT / "docs" / "functions" / "README.md"
FOREIGN_TABLES = ROOT / "docs" / "foreign-tables.md"
DOORS = ROOT / "docs" / "doors.md"

_BLOCK = re.compile(r"(?:<!-- (run|prints) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(document: str = README) -> list[tuple[str, str, str]]:
    """Every fenced block: its mark ("" for none), its language and its text."""
    return [(m[1] or "", m[2], m[3]) for m in _BLOCK.finditer(document)]


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


def run_python(text: str, db: Any) -> str:
    """What a program of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        env=db.cluster.environment(db.name),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def execute(document: str, db: Any) -> tuple[int, int]:
    """Run and compare the marked blocks; returns how many there were of each."""
    printed = ""
    ran = compared = 0
    shown = True
    for mark, language, text in blocks(document):
        if mark == "run":
            assert shown or "ERROR:" not in printed, printed
            if language == "python":
                printed = run_python(text, db)
            else:
                printed = db.psql(text, "-P", "format=aligned", "-P", "tuples_only=off")
            ran += 1
            shown = False
        elif mark == "prints":
            assert tidy(printed) == tidy(text), printed
            compared += 1
            shown = True
    assert shown or "ERROR:" not in printed, printed
    return ran, compared


def test_readme_sql_blocks_run_and_print_what_it_says(db: Any) -> None:
    ran, compared = execute(README, db)
    assert ran >= 4
    assert compared >= 3


def test_page_of_foreign_tables_runs_and_prints_what_it_says(db: Any) -> None:
    ran, compared = execute(FOREIGN_TABLES.read_text(encoding="utf-8"), db)
    assert ran >= 4
    assert compared >= 4


def test_page_of_doors_runs_and_prints_what_it_says(db: Any) -> None:
    ran, compared = execute(DOORS.read_text(encoding="utf-8"), db)
    assert ran >= 5
    assert compared >= 4


def test_page_of_doors_names_the_wrappers() -> None:
    text = DOORS.read_text(encoding="utf-8")
    assert all(name in text for name in multicorn.__all__)
    for name in re.findall(r"wrapper 'tinydancer\.multicorn\.(\w+)'", text):
        assert name in multicorn.__all__


def test_page_of_foreign_tables_names_every_table_option_and_input(conn: Any) -> None:
    text = FOREIGN_TABLES.read_text(encoding="utf-8")
    conn.execute(
        "IMPORT FOREIGN SCHEMA tinydancer EXCEPT (route_results) FROM SERVER tinydancer INTO public"
    )
    tables = [
        row[0] for row in conn.execute("SELECT ftrelid::regclass::text FROM pg_foreign_table")
    ]
    assert len(tables) >= 3
    for table in tables:
        assert f"| `{table}` |" in text
        inputs = [name for name, _ in catalog.columns(conn, table)]
        first = {"semantic_matches": "top_k", "request_classes": "embedding"}
        inputs = inputs[inputs.index(first.get(table, "optimize_for")) :]
        for name in inputs:
            assert f"`{name}`" in text, f"{table}.{name}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != INDEX], ids=lambda page: page.stem
)
def test_function_page_runs_and_prints_what_it_says(page: Path, db: Any) -> None:
    ran, compared = execute(page.read_text(encoding="utf-8"), db)
    assert ran >= 1, "no block is marked <!-- run -->"
    assert compared >= 1, "no block is marked <!-- prints -->"


def test_every_public_function_has_a_page_that_names_its_arguments(conn: Any) -> None:
    for function in catalog.functions(conn):
        if not function.public:
            continue
        page = INDEX.parent / f"{function.name}.md"
        assert page.exists(), f"{function.signature} has no page: write docs/functions/{page.name}"
        text = page.read_text(encoding="utf-8")
        for name in function.names:
            assert not name or f"`{name}`" in text, f"{page.name} does not explain `{name}`"


def test_every_function_page_has_a_function_and_a_line_in_the_index(conn: Any) -> None:
    known = {function.name for function in catalog.functions(conn)}
    index = INDEX.read_text(encoding="utf-8")
    for page in PAGES:
        if page != INDEX:
            assert page.stem in known, f"{page.name}: no function of that name"
            assert f"]({page.name})" in index, (
                f"docs/functions/README.md has no line for {page.name}"
            )
            title = page.read_text(encoding="utf-8").splitlines()[0]
            assert title.removeprefix("# ").split(".")[-1] == page.stem, page.name


@pytest.mark.parametrize(
    "page",
    [page for page in (*PAGES, FOREIGN_TABLES) if page != INDEX],
    ids=lambda page: page.stem,
)
def test_function_page_lists_its_errors_by_sqlstate(page: Path) -> None:
    rows = re.findall(r"(?m)^\| *((?:`[0-9A-Z]{5}`(?:, )?)+) *\|", page.read_text(encoding="utf-8"))
    states = [state for row in rows for state in re.findall(r"`(\w+)`", row)]
    assert states, "no table with a row | `SQLSTATE` | when |"
    for state in states:
        # Raises KeyError for a code that Postgres does not have.
        psycopg.errors.lookup(state)


def test_every_object_says_what_it_is(conn: Any) -> None:
    silent = conn.execute(
        f"""
        SELECT i.type, i.identity FROM ({catalog.MEMBERS}) m,
               LATERAL pg_identify_object(m.classid, m.objid, 0) i
        WHERE i.type IN ('function', 'procedure', 'aggregate', 'table', 'view', 'foreign table',
                         'schema', 'server', 'foreign-data wrapper', 'materialized view')
          AND obj_description(m.objid, m.classid::regclass::name) IS NULL
          AND NOT EXISTS (SELECT FROM pg_class c WHERE m.classid = 'pg_class'::regclass
                          AND c.oid = m.objid AND c.relispartition)
        """
    ).fetchall()
    assert not silent


def test_every_figure_in_a_table_has_its_unit_in_its_name_or_comment(conn: Any) -> None:
    unit = re.compile(r"\b(USD|ms|requests)\b")
    for table in [*catalog.tables(conn), *catalog.foreign_tables(conn)]:
        for name, kind in catalog.columns(conn, table):
            # Whole numbers are counts, but for limits.
            words = {
                **dict.fromkeys(("integer", "bigint"), "limit"),
                **dict.fromkeys(
                    ("double precision", "real", "numeric"),
                    "cost|price|budget|spent|limit|latency|duration",
                ),
            }.get(kind)
            if words is None or not re.search(words, name):
                continue
            if name.endswith("_weight"):
                continue
            (comment,) = conn.execute(
                "SELECT col_description(attrelid, attnum) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND quote_ident(attname) = %s",
                (table, name),
            ).fetchone()
            assert unit.search(comment or "") or name.endswith(("_ms", "_usd")), (
                f"{table}.{name}: no unit in its name, and its comment is {comment!r}"
            )


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


@pytest.mark.parametrize("path", [ROOT / "README.md", DOORS, *PAGES], ids=lambda path: path.stem)
def test_links_and_pictures_of_a_document_exist(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert targets or path in PAGES
    for target in targets:
        assert (path.parent / target).exists(), target


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
