"""Who may do what: every function and table, as each level of access and as a role without one.

In: the extension's objects from the catalog, and a valid call of each from samples.py.  Out: what a
level may do works, what it may not do fails with 42501.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import catalog
import psycopg
import pytest
import samples
from roles import DENIED, LEVELS, acting, state

from tinydancer import server as td_server

PAGES = Path(__file__).resolve().parents[2] / "docs" / "functions"


def reaches(level: str) -> set[str]:
    """The roles that have a level of ``access_rules``."""
    return {f"td_{name}" for name in LEVELS[LEVELS.index(level) :]} if level in LEVELS else set()


# ---------------------------------------------------------------- functions


def test_every_function_has_exactly_one_level(conn: Any) -> None:
    functions = catalog.functions(conn)
    assert len(functions) >= 30
    for function in functions:
        assert function.level in {*LEVELS, "owner", "internal"}, function.signature


def is_helper(function: catalog.Function) -> bool:
    """Whether it is there for other functions alone: nobody is told to call it."""
    return not function.public and not (PAGES / f"{function.name}.md").exists()


def test_function_works_for_its_level_and_is_denied_below(sampled: Any) -> None:
    wrong = []
    for function in catalog.functions(sampled):
        if function.level == "internal":
            continue
        call = function.sql(samples.arguments(function))
        for role in ("td_none", *(f"td_{level}" for level in LEVELS)):
            found = state(sampled, role, call)
            if role in reaches(function.level):
                allowed = {samples.REFUSED.get(function.key)}
                if is_helper(function):
                    # It may serve functions that run as the owner.
                    allowed.add(DENIED)
            elif function.level == "viewer" and function.public:
                # Open to everybody where it reads nothing as the caller.
                allowed = {samples.REFUSED.get(function.key), DENIED}
            else:
                allowed = {DENIED}
            if found not in allowed:
                wrong.append(f"{role} gets {found} instead of {allowed} from {call}")
    assert not wrong, "\n".join(wrong)


def test_role_without_a_level_reads_decisions_and_nothing_else(sampled: Any) -> None:
    # What a decision is made from is read as its owner; tables and their readers are not open.
    for call in (
        "SELECT * FROM ruvector_route('debug my program')",
        "SELECT * FROM ruvector_explain_route('debug my program')",
        "SELECT ruvector_embed('debug my program')",
    ):
        assert state(sampled, "td_none", call) is None, call
    for call in (
        "SELECT * FROM ruvector_list_agents()",
        "SELECT ruvector_get_agent('coder')",
        "SELECT * FROM route_results WHERE request = 'debug my program'",
        "SELECT * FROM tinydancer.agent",
        "SELECT tinydancer.closest('a', '{b}')",
    ):
        assert state(sampled, "td_none", call) == DENIED, call


def test_no_writer_is_public_or_parallel_safe(conn: Any) -> None:
    for function in catalog.functions(conn):
        if function.level in ("router", "operator"):
            assert function.volatile == "v", function.signature
            assert function.parallel == "u", function.signature
        if function.volatile == "v" and function.level != "viewer":
            assert not function.public_execute, f"{function.signature} is not revoked from PUBLIC"
        if function.level == "viewer":
            assert function.parallel in ("s", "r"), function.signature


def test_reader_works_in_a_read_only_transaction(sampled: Any) -> None:
    for function in catalog.functions(sampled):
        if function.level == "viewer":
            call = function.sql(samples.arguments(function))
            found = state(sampled, None, "SET TRANSACTION READ ONLY", call)
            allowed = {samples.REFUSED.get(function.key)}
            if is_helper(function):
                # It may be there to say so for a writer.
                allowed.add("25006")
            assert found in allowed, call


def test_functions_pin_their_search_path_and_only_routers_writers_run_as_the_owner(
    conn: Any,
) -> None:
    for function in catalog.functions(conn):
        if function.language != "c":
            assert "search_path=pg_catalog, pg_temp" in function.settings, function.signature
        if function.level == "router":
            # Else the role would need INSERT on the logs, and could write what it likes there.
            assert function.definer, f"{function.signature} must be SECURITY DEFINER"
        if function.definer:
            assert function.language != "c", function.signature
            assert not function.public_execute, function.signature


def test_objects_that_an_upgrade_adds_are_covered_by_the_next_call(sampled: Any) -> None:
    sampled.execute(
        """
        CREATE FUNCTION tinydancer.later_reader() RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE
            SET search_path = pg_catalog, pg_temp AS 'SELECT 1';
        CREATE PROCEDURE tinydancer.later_writer(x integer) LANGUAGE plpgsql
            SET search_path = pg_catalog, pg_temp
            AS $$BEGIN UPDATE tinydancer.agent SET active = active; END$$;
        REVOKE ALL ON FUNCTION tinydancer.later_reader() FROM PUBLIC;
        REVOKE ALL ON PROCEDURE tinydancer.later_writer(integer) FROM PUBLIC;
        CREATE TABLE tinydancer.later_log (x integer);
        ALTER EXTENSION tinydancer ADD FUNCTION tinydancer.later_reader();
        ALTER EXTENSION tinydancer ADD PROCEDURE tinydancer.later_writer(integer);
        ALTER EXTENSION tinydancer ADD TABLE tinydancer.later_log;
        """
    )
    calls = {
        "SELECT tinydancer.later_reader()": {"td_viewer", "td_operator"},
        "SELECT * FROM tinydancer.later_log": {"td_viewer", "td_operator"},
        "CALL tinydancer.later_writer(1)": {"td_operator"},
        "INSERT INTO tinydancer.later_log VALUES (1)": set(),
    }
    for call in calls:
        assert state(sampled, "td_operator", call) == DENIED
    for level in ("viewer", "operator"):
        sampled.execute("SELECT tinydancer.grant_usage(%s, %s)", (f"td_{level}", level))
    for call, allowed in calls.items():
        for role in ("td_viewer", "td_operator"):
            assert state(sampled, role, call) == (None if role in allowed else DENIED), (
                role,
                call,
            )


# ---------------------------------------------------------------- tables


def test_tables_are_read_by_viewers_and_written_by_operators_but_for_the_logs(
    sampled: Any,
) -> None:
    told = {
        row[0]
        for row in sampled.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'bump_epoch'"
        )
    }
    assert "tinydancer.agent" in told
    for table in catalog.tables(sampled):
        written = table in told or table == "tinydancer.budget"
        changes = [f"DELETE FROM {table} WHERE NOT EXISTS (SELECT)"]
        if catalog.columns(sampled, table):
            assert table in samples.ROWS, samples.missing(table, "ROWS")
            column = next(iter(samples.ROWS[table]))
            changes += [
                samples.insert(table, samples.ROWS[table]),
                f"UPDATE {table} SET {column} = {column} WHERE NOT EXISTS (SELECT)",
            ]
        assert state(sampled, "td_none", f"SELECT FROM {table}") == DENIED
        for level in LEVELS:
            role = f"td_{level}"
            assert state(sampled, role, f"SELECT FROM {table}") is None, (role, table)
            for change in changes:
                found = state(sampled, role, change)
                expected = None if written and level == "operator" else DENIED
                assert found == expected, (role, change)
            assert state(sampled, role, f"TRUNCATE {table}") == DENIED


def test_no_level_owns_or_creates_anything(sampled: Any) -> None:
    for level in LEVELS:
        role = f"td_{level}"
        for statement in (
            "CREATE TABLE tinydancer.mine (x integer)",
            "CREATE FUNCTION tinydancer.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "ALTER TABLE tinydancer.agent DISABLE TRIGGER ALL",
            "ALTER TABLE tinydancer.agent ADD COLUMN mine integer",
            "CREATE TRIGGER mine BEFORE INSERT ON tinydancer.agent "
            "FOR EACH ROW EXECUTE FUNCTION tinydancer.touch()",
            "DROP TABLE tinydancer.usage CASCADE",
            "ALTER EXTENSION tinydancer UPDATE",
            "DROP EXTENSION tinydancer",
            "ALTER FUNCTION ruvector_route OWNER TO " + role,
            "GRANT SELECT ON tinydancer.agent TO td_none",
            "ALTER SERVER tinydancer OPTIONS (ADD x '1')",
            "SET tinydancer.encoder_dir = '/tmp'",
            f"ALTER ROLE {role} SET tinydancer.encoder_dir = '/tmp'",
            "SELECT set_config('tinydancer.encoder_dir', '/tmp', false)",
        ):
            found = state(sampled, role, statement)
            if statement.startswith("GRANT"):
                # A grant without the right to it is a warning, and gives nothing.
                found = found or state(
                    sampled,
                    role,
                    statement,
                    "SET SESSION AUTHORIZATION td_none",
                    "TABLE tinydancer.agent",
                )
            assert found == DENIED, (role, statement, found)


def test_router_routes_through_a_foreign_table_of_its_own(sampled: Any) -> None:
    sampled.execute("CREATE SCHEMA own; GRANT ALL ON SCHEMA own TO td_router, td_viewer")
    create = (
        "CREATE FOREIGN TABLE own.t (request text, agent_name text) "
        "SERVER tinydancer OPTIONS (pool 'cheap')"
    )
    query = "SELECT agent_name FROM own.t WHERE request = 'debug my program'"
    assert state(sampled, "td_router", create, query) is None
    assert state(sampled, "td_viewer", create) == DENIED


def test_router_imports_tables_and_says_who_reads_them(sampled: Any) -> None:
    sampled.execute("CREATE SCHEMA own; GRANT ALL ON SCHEMA own TO PUBLIC")
    load = "IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO own"
    read = [
        "SELECT agent_name FROM own.route_candidates WHERE request = 'debug my program'",
        "SELECT route_name FROM own.semantic_matches WHERE request = 'debug my program'",
    ]
    for role in ("td_none", "td_viewer"):
        assert state(sampled, role, load) == DENIED
    assert state(sampled, "td_router", load, *read) is None
    # They belong to who imported them: a level is no privilege on them, and needs not be one.
    for query in read:
        for role in ("td_none", "td_viewer", "td_operator"):
            become = f"SET SESSION AUTHORIZATION {role}"
            assert state(sampled, "td_router", load, become, query) == DENIED
            granted = f"GRANT SELECT ON ALL TABLES IN SCHEMA own TO {role}"
            assert state(sampled, "td_router", load, granted, become, query) is None


# ---------------------------------------------------------------- giving and taking


def privileges(conn: Any, role: str) -> list[Any]:
    """Everything of the extension that ``role`` itself has been granted."""
    return [row for row in catalog.snapshot(conn)["privileges"] if row[3] == role]


def test_second_call_leaves_exactly_the_level_it_names(sampled: Any) -> None:
    expected = {
        level: [row[:3] + row[4:] for row in privileges(sampled, f"td_{level}")] for level in LEVELS
    }
    for first in LEVELS:
        for second in LEVELS:
            sampled.execute("SELECT tinydancer.grant_usage('td_sample', %s)", (first,))
            sampled.execute("SELECT tinydancer.grant_usage('td_sample', %s)", (second,))
            found = [row[:3] + row[4:] for row in privileges(sampled, "td_sample")]
            assert found == expected[second], (first, second)
    # Each level has more than the one before it.
    sizes = [len(expected[level]) for level in LEVELS]
    assert sizes == sorted(set(sizes))
    for lower, higher in pairwise(LEVELS):
        assert set(expected[lower]) < set(expected[higher])


def test_revoke_leaves_nothing_and_the_role_can_be_dropped(sampled: Any) -> None:
    sampled.execute("GRANT SELECT (name) ON tinydancer.agent TO td_operator")
    sampled.execute("SELECT tinydancer.revoke_usage('td_operator')")
    assert privileges(sampled, "td_operator") == []
    with acting(sampled, None):
        sampled.execute("DROP ROLE td_operator")


def test_change_of_level_is_undone_by_a_rollback(sampled: Any) -> None:
    before = privileges(sampled, "td_viewer")
    with acting(sampled, None):
        sampled.execute("SELECT tinydancer.grant_usage('td_viewer', 'operator')")
        assert privileges(sampled, "td_viewer") != before
    assert privileges(sampled, "td_viewer") == before


def test_member_of_a_role_has_its_level(sampled: Any) -> None:
    sampled.execute("GRANT td_viewer TO td_sample")
    assert state(sampled, "td_sample", "SELECT * FROM ruvector_list_agents()") is None


def test_level_of_a_role_whose_name_needs_quoting(sampled: Any) -> None:
    role = """Ein "Team"; DROP ROLE 'x' --"""
    quoted = '"' + role.replace('"', '""') + '"'
    sampled.execute(f"CREATE ROLE {quoted}")
    try:
        sampled.execute("SELECT tinydancer.grant_usage(%s, 'viewer')", (role,))
        assert state(sampled, quoted, "SELECT ruvector_get_agent('coder')") is None
        sampled.execute("SELECT tinydancer.revoke_usage(%s)", (role,))
        assert state(sampled, quoted, "SELECT ruvector_get_agent('coder')") == DENIED
    finally:
        sampled.execute(f"DROP ROLE {quoted}")


def test_only_the_owner_of_the_extension_hands_out_access(sampled: Any) -> None:
    call = "SELECT tinydancer.grant_usage('td_viewer', 'operator')"
    sampled.execute("GRANT EXECUTE ON FUNCTION tinydancer.grant_usage TO td_operator")
    with (
        acting(sampled, "td_operator"),
        pytest.raises(psycopg.errors.InsufficientPrivilege) as caught,
    ):
        sampled.execute(call)
    diag = caught.value.diag
    assert diag.message_primary == 'permission denied to change the access of role "td_viewer"'
    assert '"td_operator"' in diag.message_detail
    assert diag.message_hint == 'Ask role "postgres" or a superuser.'
    with pytest.raises(
        psycopg.errors.InvalidGrantOperation, match='cannot change the access of role "postgres"'
    ):
        sampled.execute("SELECT tinydancer.revoke_usage('postgres')")


def test_two_sessions_that_hand_out_access_wait_for_each_other(
    sampled: Any, session: Callable[..., Any]
) -> None:
    # The catalog itself would fail: "tuple concurrently updated".
    first, second = session(autocommit=False), session()
    first.execute("SELECT tinydancer.grant_usage('td_viewer', 'operator')")
    failed: list[BaseException] = []

    def other() -> None:
        try:
            second.execute("SELECT tinydancer.grant_usage('td_router', 'viewer')")
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    td_server.wait_for(
        lambda: sampled.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted",
            (second.info.backend_pid,),
        ).fetchone()[0],
        what="the second session waits",
    )
    first.commit()
    thread.join()
    assert not failed
    assert state(sampled, "td_viewer", "SELECT ruvector_remove_agent('coder')") is None
    assert state(sampled, "td_router", "SELECT * FROM ruvector_list_agents()") is None


def test_levels_reach_an_extension_in_a_closed_schema(empty_db: Any) -> None:
    with empty_db.connect() as conn:
        conn.execute('CREATE SCHEMA "Rout ing"; CREATE EXTENSION tinydancer SCHEMA "Rout ing"')
        conn.execute("CREATE ROLE td_closed")
        try:
            call = 'SELECT * FROM "Rout ing".ruvector_list_agents()'
            assert state(conn, "td_closed", call) == DENIED
            conn.execute("SELECT tinydancer.grant_usage('td_closed', 'viewer')")
            assert state(conn, "td_closed", call) is None
            conn.execute("SELECT tinydancer.revoke_usage('td_closed')")
            assert state(conn, "td_closed", call) == DENIED
        finally:
            conn.execute("DROP ROLE td_closed")
