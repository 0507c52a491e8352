"""The demo: a throw-away Postgres with a registry and a log in it, and what one can ask of them.

In: agents.json (the registry), request_log.jsonl (what users asked) and the numbered .sql files of
this folder, each a title, a sentence and one query.  Out: on the terminal, every query with what it
answered.  Called by ``tinydancer demo``; the tests read the same files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    from rich.console import Console

    from tinydancer.server import Server

__all__ = ["Query", "agents", "load", "main", "queries", "request_log"]

WIDTH = 100  # columns; every table fits

REGISTER = """\
SELECT ruvector_register_agent_full(agent)
FROM jsonb_array_elements($1) AS agent;"""

FILL_LOG = """\
INSERT INTO request_log
SELECT * FROM jsonb_populate_recordset(NULL::request_log, $1);"""


# ---------------------------------------------------------------- what is shown


@dataclass(frozen=True)
class Query:
    """One numbered .sql file.

    Attributes:
        name: the file's name without number and ending.
        title: its first comment line.
        about: its second.
        sql: the rest, one statement.
    """

    name: str
    title: str
    about: str
    sql: str


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def agents() -> list[dict[str, Any]]:
    """The registry: each entry is an argument of ``ruvector_register_agent_full``."""
    return list(json.loads(_read("agents.json")))


def request_log() -> list[dict[str, Any]]:
    """The log: id, user_id, user_tier, body and created_at of every request, oldest first."""
    return [json.loads(line) for line in _read("request_log.jsonl").splitlines()]


def queries() -> list[Query]:
    """The numbered .sql files in order."""
    folder = resources.files(__package__)
    names = sorted(f.name for f in folder.iterdir() if f.name[:1].isdigit())
    found = []
    for name in names:
        title, about, sql = _read(name).split("\n", 2)
        stem = name.split("-", 1)[1].removesuffix(".sql")
        found.append(Query(stem, title.lstrip("- "), about.lstrip("- "), sql.strip()))
    return found


def load(conn: psycopg.Connection[Any]) -> None:
    """Register the agents, create ``request_log`` and fill it, in the caller's transaction.

    Args:
        conn: to a database that has the extension.
    """
    conn.execute(REGISTER.replace("$1", "%s::jsonb").rstrip(";"), [json.dumps(agents())])
    conn.execute(_read("schema.sql"))
    conn.execute(FILL_LOG.replace("$1", "%s::jsonb").rstrip(";"), [json.dumps(request_log())])


# ---------------------------------------------------------------- how it is shown


def _cell(value: Any) -> str:
    """A value as psql's reader expects it, floats at four significant digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return str(value)


def _show_sql(console: Console, sql: str) -> None:
    from rich.padding import Padding
    from rich.syntax import Syntax

    code = Syntax(sql, "sql", theme="ansi_dark", background_color="default", word_wrap=True)
    console.print(Padding(code, (0, 0, 1, 2)))


def _show_rows(console: Console, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; a single row stands upright, as with psql's \\x."""
    from rich import box
    from rich.table import Table

    if len(rows) == 1:
        table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in zip(names, rows[0], strict=True):
            table.add_row(name, _cell(value))
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for i, name in enumerate(names):
            number = any(not isinstance(row[i], str | list | None) for row in rows)
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(_cell, row))
    console.print(table)


def _show(console: Console, conn: psycopg.Connection[Any], query: Query) -> None:
    """Print a query, run it, print what it answered and how long that took."""
    console.rule(f"[bold]{query.title}", align="left")
    console.print(query.about, style="italic")
    console.print()
    _show_sql(console, query.sql)
    start = time.perf_counter()
    cursor = conn.execute(query.sql.encode())
    rows = cursor.fetchall()
    elapsed = (time.perf_counter() - start) * 1e3
    _show_rows(console, [column.name for column in cursor.description or []], rows)
    console.print(f"({len(rows)} row{'s'[: len(rows) != 1]}, {elapsed:.1f} ms)\n", style="dim")


@contextmanager
def _step(console: Console, text: str) -> Iterator[None]:
    """A line with a spinner while something happens, and its time once it has."""
    start = time.perf_counter()
    with console.status(text):
        yield
    console.print(f"  [green]✓[/] {text} [dim]{time.perf_counter() - start:.1f} s[/]")


def _command() -> str:
    """How to type the command line's name from here."""
    if shutil.which("tinydancer"):
        return "tinydancer"
    beside = Path(sys.executable).with_name("tinydancer")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)


def _epilogue(console: Console, kept: str | None) -> None:
    from rich.markup import escape

    command = _command()
    console.rule("[bold]Your turn", align="left")
    if kept is not None:
        lines = [
            ("psql on this server, with everything above in it", f"psql --data {kept}"),
            ("stop it; the files stay", f"down --data {kept}"),
        ]
    else:
        console.print("This server is gone. For one that stays:\n")
        lines = [
            ("an empty one with the extension", "up --data DIR"),
            ("or this demo's, with everything above in it", "demo --keep DIR"),
            ("psql on it", "psql --data DIR"),
            ("stop it; the files stay", "down --data DIR"),
        ]
    # What is typed stands alone on its line, to be copied whole: its path may be long.
    for about, line in lines:
        console.print(f"  [dim]# {about}[/]")
        console.print(f"  {escape(command)} {line}", soft_wrap=True)


# ---------------------------------------------------------------- the run


def _run(console: Console, server: Server) -> None:
    """Fill the cluster and show every query.

    Raises:
        psycopg.Error: with ``--keep``, the folder's database holds a demo already.
    """
    with server.connect(autocommit=True) as conn:
        with _step(console, "CREATE EXTENSION tinydancer"):
            conn.execute("CREATE EXTENSION IF NOT EXISTS tinydancer")
        what = f"{len(agents())} agents, a log of {len(request_log())} requests"
        with _step(console, what), conn.transaction():
            load(conn)
        console.print()
        console.rule("[bold]Registering is SQL", align="left")
        console.print("$1 is the demo's agents.json and request_log.jsonl.\n", style="italic")
        _show_sql(console, f"{REGISTER}\n\n{FILL_LOG}")
        for query in queries():
            _show(console, conn, query)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinydancer demo",
        description="Start a throw-away Postgres, fill it, and show what routing in SQL is like.",
    )
    parser.add_argument(
        "--pg", default=None, metavar="18|16|15", help="which Postgres (a label or a path; 18)"
    )
    parser.add_argument("--keep", metavar="DIR", help="make the server in DIR and leave it running")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: the arguments after ``tinydancer demo``; None means those of the process.

    Returns:
        The exit status: 0, 1 for an error that was printed, 130 after Ctrl-C.
    """
    options = _parser().parse_args(argv)

    import psycopg
    from rich.console import Console

    from tinydancer.db import error_parts
    from tinydancer.server import ServerError, encoder_files, temporary_cluster, up

    console = Console(highlight=False)
    if not console.is_terminal or console.width > WIDTH:
        console = Console(highlight=False, width=WIDTH)
    start = time.perf_counter()
    try:
        with ExitStack() as stack:
            if options.keep is not None:
                with _step(console, f"starting Postgres in {options.keep}"):
                    server = up(options.keep, options.pg)
            else:
                with _step(console, f"starting a throw-away Postgres {options.pg or 18}"):
                    server = stack.enter_context(
                        temporary_cluster(options.pg or "18", encoders=encoder_files())
                    )
            _run(console, server)
    except ServerError as error:
        parts = (error.message, error.detail, error.hint)
    except psycopg.Error as error:
        parts = error_parts(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    else:
        _epilogue(console, options.keep)
        console.print(f"\n[dim]{time.perf_counter() - start:.0f} s in all.[/]")
        return 0
    for label, part in zip(("ERROR", "DETAIL", "HINT"), parts, strict=True):
        if part:
            print(f"{label}:  {part}", file=sys.stderr)
    return 1
