"""No input of any kind makes an internal error: not for one argument, column, option or setting.

In: every function, foreign table, table and setting of the extension, from the catalog; a valid
call or row of each from samples.py; bad_values.py.  Out: each argument in turn gets each value that
could be bad for its type, and the answer must be a result, or an error with an SQLSTATE of its own,
in the same backend.  What the extension itself raises has a DETAIL and a HINT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bad_values
import catalog
import psycopg
import pytest
import samples
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader

from tinydancer import server as td_server

PAGES = Path(__file__).resolve().parents[2] / "docs" / "functions"

# What a registry with a bad row in it must still answer.
PROBES = (
    "SELECT * FROM ruvector_route('debug my program')",
    "SELECT * FROM ruvector_explain_route('translate this')",
    "SELECT * FROM ruvector_list_agents()",
    "SELECT agent_name FROM route_results WHERE request = 'debug my program'",
    "SELECT ruvector_embed('debug my program')",
)
# The same, called as in samples.py; those that are there.
READERS = (
    "ruvector_semantic_route",
    "ruvector_find_agents_by_capability",
    "ruvector_check_budget",
    "ruvector_routing_analytics",
    "ruvector_optimize_budget",
)


def values(kind: str, what: str) -> list[str]:
    """Values that could be bad for a type, NULL first."""
    bad = bad_values.BAD.get(kind)
    assert bad, f"{what} is a {kind}: add values for that type to tests/server/bad_values.py"
    return ["NULL", *bad]


class Checker:
    """Runs statements, each in a transaction that is rolled back, and keeps what went wrong."""

    def __init__(self, db: Any) -> None:
        self.db = db
        self.conn: Any = None
        self.connect()
        self.pid = self.conn.info.backend_pid
        self.faults: list[str] = []
        self.ran = 0
        # (function key) -> SQLSTATEs that it raised by itself
        self.states: dict[str, set[str]] = {}

    def connect(self) -> None:
        """Open the session; after a crash as soon as the server is back."""

        def connected() -> bool:
            if self.conn is not None:
                self.conn.close()
            try:
                self.conn = self.db.connect()
                self.conn.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        td_server.wait_for(connected, what="the server answers")
        self.conn.execute("SET client_min_messages = error")
        self.conn.execute("SET statement_timeout = '120s'")
        # Python's own types end at the year 9999.
        for kind in ("timestamptz", "timestamp", "date", "time", "interval"):
            self.conn.adapters.register_loader(kind, TextLoader)

    def fault(self, statement: str, what: str) -> None:
        self.faults.append(f"{what}: {statement[:300]}")

    def error(self, statement: str, error: psycopg.Error) -> str:
        """Judge an error; returns its SQLSTATE."""
        diag = error.diag
        state = diag.sqlstate or "no SQLSTATE"
        # XX001 is for files that are damaged or not the ones they were; a test may expect it.
        if state in ("no SQLSTATE", "XX000", "57014") or state.startswith("57P"):
            self.fault(statement, f"{state} {diag.message_primary or error}")
        elif state.startswith("XX") and not raised_here(diag):
            self.fault(statement, f"{state} {diag.message_primary}")
        elif raised_here(diag) and not (diag.message_detail and diag.message_hint):
            self.fault(statement, f"{state} without DETAIL or HINT: {diag.message_primary}")
        return state

    def run(self, *statements: str) -> str | None:
        """The SQLSTATE of the first statement that fails, None when all of them work."""
        self.ran += 1
        try:
            self.conn.execute("BEGIN")
        except psycopg.OperationalError:
            # The server took down a session that was opened while it noticed the crash of another.
            self.connect()
            self.conn.execute("BEGIN")
        statement = ""
        try:
            for statement in statements:
                cursor = self.conn.execute(statement)
                if cursor.description is not None:
                    self.look(statement, cursor.fetchall())
            return None
        except psycopg.Error as error:
            self.last = error
            if self.conn.closed:
                self.fault(statement, "the backend is gone")
                self.connect()
                return "08006"
            return self.error(statement, error)
        finally:
            if self.conn.info.transaction_status != TransactionStatus.IDLE:
                self.conn.execute("ROLLBACK")

    def look(self, statement: str, rows: list[Any]) -> None:
        """A figure that is not a number is never an answer."""
        for row in rows:
            for value in row:
                figures = value if isinstance(value, list) else [value]
                if any(isinstance(figure, float) and figure != figure for figure in figures):
                    self.fault(statement, f"NaN in {str(row)[:200]}")

    def finish(self, least: int) -> None:
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:60]])
        assert self.ran >= least
        assert self.conn.execute("SELECT pg_backend_pid()").fetchone() == (self.pid,)


def raised_here(diag: Any) -> bool:
    """Whether the extension raised the error, rather than the server for it."""
    return (diag.source_file or "").startswith("td_") or diag.source_function == "exec_stmt_raise"


@pytest.fixture
def checker(db: Any) -> Iterator[Checker]:
    """A checker on a database with the samples' registry."""
    made = Checker(db)
    made.conn.execute(samples.SETUP)
    made.conn.execute("CREATE ROLE td_sample")
    yield made
    if made.conn.closed or made.conn.broken or made.faults:
        made.connect()
    made.conn.execute("DROP ROLE td_sample")
    made.conn.close()


@pytest.mark.parametrize(
    "body, fault",
    [
        ("RAISE EXCEPTION 'x' USING ERRCODE = 'XX000', DETAIL = 'D.', HINT = 'H.'", "XX000 x"),
        (
            "RAISE EXCEPTION 'x' USING ERRCODE = '22023', DETAIL = 'D.'",
            "22023 without DETAIL or HINT: x",
        ),
        ("RETURN 'NaN'", "NaN in (nan,)"),
        ("RAISE EXCEPTION 'x' USING ERRCODE = '22023', DETAIL = 'D.', HINT = 'H.'", None),
        ("RETURN 1", None),
    ],
)
def test_checker_tells_a_fault_from_an_answer(
    conn: Any, db: Any, body: str, fault: str | None
) -> None:
    conn.execute(f"CREATE FUNCTION f() RETURNS float8 LANGUAGE plpgsql AS $$BEGIN {body}; END$$")
    checker = Checker(db)
    checker.run("SELECT f()")
    assert checker.faults == ([f"{fault}: SELECT f()"] if fault else [])
    checker.conn.close()


def test_checker_goes_on_after_a_lost_backend_and_says_so(conn: Any, db: Any) -> None:
    checker = Checker(db)
    checker.run("SELECT pg_terminate_backend(pg_backend_pid())")
    checker.run("SELECT 1")
    with pytest.raises(AssertionError):
        checker.finish(2)
    assert checker.faults == ["the backend is gone: SELECT pg_terminate_backend(pg_backend_pid())"]
    checker.conn.close()


def call_each(checker: Checker, function: catalog.Function) -> None:
    """The valid call of a function, then each argument with each value."""
    valid = samples.arguments(function)
    expected = samples.REFUSED.get(function.key)
    found = checker.run(function.sql(valid))
    assert found == expected, f"{function.sql(valid)}: {getattr(checker, 'last', found)}"
    for slot, kind in function.slots():
        for value in values(kind, f"argument {slot} of {function.key}"):
            # A cast: NULL and the literals must mean this function's type.
            statement = function.sql({**valid, slot: f"({value})::{kind}"})
            state = checker.run(statement)
            if state in ("42883", "42725", "42601"):
                checker.fault(statement, f"not a call of {function.key}: {checker.last}")
            if state is not None and raised_here(checker.last.diag):
                checker.states.setdefault(function.key, set()).add(state)


def callable_functions(conn: Any) -> list[catalog.Function]:
    """All but what only the server calls."""
    return [one for one in catalog.functions(conn) if one.level != "internal"]


def test_every_function_has_a_valid_call(conn: Any) -> None:
    for function in callable_functions(conn):
        samples.arguments(function)


def test_function_given_a_bad_argument_answers_or_says_why(checker: Checker) -> None:
    for function in callable_functions(checker.conn):
        call_each(checker, function)
    checker.finish(800)


def test_function_pages_list_each_sqlstate_that_a_bad_argument_raises(checker: Checker) -> None:
    public = [one for one in callable_functions(checker.conn) if one.public]
    for function in public:
        call_each(checker, function)
    forgotten = []
    for function in public:
        page = PAGES / f"{function.name}.md"
        text = page.read_text() if page.exists() else ""
        listed = set(re.findall(r"`(\w{5})`", " ".join(re.findall(r"(?m)^\|[^|]*\|", text))))
        for state in sorted(checker.states.get(function.key, set()) - listed):
            forgotten.append(f"{page.name}: no row for `{state}`")
    assert not forgotten, "\n".join(forgotten)


def test_internal_function_called_by_hand_is_refused(checker: Checker) -> None:
    internal = [one for one in catalog.functions(checker.conn) if one.level == "internal"]
    for function in internal:
        arguments = {str(i): f"NULL::{kind}" for i, kind in enumerate(function.types, 1)}
        state = checker.run(function.sql(arguments))
        # The validator is strict, and NULL is all that can be said to be valid for it.
        assert state is not None or function.strict, function.signature
    checker.finish(len(internal))


def every_foreign_table(conn: Any) -> list[str]:
    """Those of the extension and those that can be imported."""
    conn.execute("CREATE SCHEMA td")
    conn.execute("IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td")
    imported = conn.execute(
        "SELECT ftrelid::regclass::text FROM pg_foreign_table "
        "JOIN pg_class c ON c.oid = ftrelid WHERE c.relnamespace = 'td'::regnamespace "
        "AND c.relname <> 'route_results' ORDER BY 1"
    )
    return [*catalog.foreign_tables(conn), *(row[0] for row in imported)]


def test_foreign_table_given_a_bad_input_answers_or_says_why(checker: Checker) -> None:
    conn = checker.conn
    for table in every_foreign_table(conn):
        query = f"SELECT * FROM {table} WHERE request = 'debug my program'"
        for column, kind in catalog.columns(conn, table):
            for value in values(kind, f"column {column} of {table}"):
                bad = f"({value})::{kind}"
                if column != "request":
                    checker.run(f"{query} AND {column} = {bad}")
                # By itself, by a join, and in an array.
                checker.run(f"SELECT * FROM {table} WHERE {column} = {bad}")
                checker.run(
                    f"SELECT * FROM (SELECT 'debug my program'::text AS q, {bad} AS v OFFSET 0) s "
                    f"JOIN {table} r ON r.request = s.q AND r.{column} = s.v"
                )
                if not kind.endswith("[]"):
                    checker.run(f"{query} AND {column} = ANY (ARRAY[{bad}, {bad}])")
    checker.finish(300)


def test_foreign_table_with_a_bad_option_answers_or_says_why(checker: Checker) -> None:
    conn = checker.conn
    texts = [
        "", " ", "-1", "0", "NaN", "Infinity", "-Infinity", "1e400", "no such thing", "{}",
        "{NULL}", "{{a,b},{c,d}}", "{", "x" * 300, "null", "5e-324",
    ]  # fmt: skip
    for table in every_foreign_table(conn):
        which = table.split(".")[-1]
        columns = ", ".join(f"{name} {kind}" for name, kind in catalog.columns(conn, table))
        names = [name for name, _ in catalog.columns(conn, table)]
        for text in texts:
            checker.run(
                f"CREATE FOREIGN TABLE own (x text) SERVER tinydancer OPTIONS (table '{text}')"
            )
        for option in [*names, "max_cots", "", "host", "x" * 300]:
            for text in texts:
                quoted = '"' + option.replace('"', '""') + '"'
                checker.run(
                    f"CREATE FOREIGN TABLE own ({columns}) SERVER tinydancer "
                    f"OPTIONS (table '{which}', {quoted} '{text}')",
                    "SELECT * FROM own WHERE request = 'debug my program'",
                    "SELECT * FROM own WHERE request = 'debug my program' AND "
                    + (f"{option} IS NULL" if option in names else "true"),
                )
    checker.run("ALTER SERVER tinydancer OPTIONS (ADD max_cost '1')")
    checker.run("ALTER FOREIGN DATA WRAPPER tinydancer_fdw OPTIONS (ADD max_cost '1')")
    checker.run("CREATE USER MAPPING FOR PUBLIC SERVER tinydancer OPTIONS (max_cost '1')")
    checker.finish(300)


def test_table_given_a_bad_figure_refuses_it_or_routing_goes_on(checker: Checker) -> None:
    conn = checker.conn
    probes = [
        *PROBES,
        *(
            function.sql(samples.arguments(function))
            for function in catalog.functions(conn)
            if function.name in READERS
        ),
    ]
    for table in catalog.tables(conn):
        if not catalog.columns(conn, table):
            continue
        assert table in samples.ROWS, samples.missing(table, "ROWS")
        row = samples.ROWS[table]
        assert checker.run(samples.insert(table, row), *probes) is None, table
        for column, kind in catalog.columns(conn, table):
            for value in values(kind, f"column {column} of {table}"):
                bad = f"({value})::{kind}"
                checker.run(samples.insert(table, {**row, column: bad}), *probes)
                checker.run(f"UPDATE {table} SET {column} = {bad}", *probes)
                checker.run(
                    samples.insert(table, row), f"UPDATE {table} SET {column} = {bad}", *probes
                )
    checker.finish(800)


def test_setting_row_with_a_bad_value_refuses_it_or_routing_says_why(checker: Checker) -> None:
    conn = checker.conn
    names = [row[0] for row in conn.execute("SELECT name FROM tinydancer.setting ORDER BY 1")]
    assert "encoder" in names
    for name in names:
        for value in values("text", name):
            change = f"UPDATE tinydancer.setting SET value = {value} WHERE name = '{name}'"
            for probe in PROBES:
                checker.run(change, probe)
        for probe in PROBES:
            checker.run(f"DELETE FROM tinydancer.setting WHERE name = '{name}'", probe)
    checker.finish(300)


def test_server_setting_given_a_bad_value_refuses_it_or_routing_goes_on(checker: Checker) -> None:
    conn = checker.conn
    found = conn.execute(
        "SELECT name FROM pg_settings WHERE name LIKE 'tinydancer.%' ORDER BY 1"
    ).fetchall()
    assert len(found) >= 3
    texts = [
        "", " ", "-1", "0", "NaN", "nan", "Infinity", "-Infinity", "1e308", "1e400", "5e-324",
        "abc", "1e-9", "1e9", "on", "x" * 5000, "/nowhere", "2147483648", "%s%n",
    ]  # fmt: skip
    for (name,) in found:
        for text in texts:
            for probe in PROBES:
                checker.run(f"SET LOCAL {name} = '{text}'", probe)
    checker.finish(200)
