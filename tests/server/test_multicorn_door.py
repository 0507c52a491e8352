"""The Multicorn door: what it sees of a commit, says of bad input, and tells the planner.

In: wrappers driven as Multicorn2 drives them, a real server, other sessions.  Out: failures where a
row is old, a session is lost, a sentence differs from the server's, or a password is shown.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import model_specs
import multicorn_scan
import psycopg
import pytest
from multicorn_scan import Clause

from tinydancer import Encoder
from tinydancer.errors import ForeignTableError, TinyDancerError
from tinydancer.model_file import write_model
from tinydancer.multicorn import RequestClasses, RouteCandidates, RouteResults, SemanticMatches
from tinydancer.multicorn.protocol import ColumnDefinition, Qual, SortKey
from tinydancer.multicorn.source import conninfo_of, source

REQUEST = [Clause("request", "Why does my Go program deadlock?")]
QUAL = [Qual("request", "=", "Why does my Go program deadlock?")]
WRAPPERS = (RouteResults, RouteCandidates, SemanticMatches, RequestClasses)
IDS = [one.kind.name for one in WRAPPERS]


@pytest.fixture
def dsn(registry: Any, db: Any) -> Iterator[str]:
    """A connection string of the demo's registry; its sessions end with the test."""
    yield str(db.conninfo)
    source(conninfo_of({"dsn": db.conninfo})).close()


def chosen(conn: Any, foreign: Any, clauses: list[Clause] = REQUEST) -> Any:
    rows = multicorn_scan.rows(conn, foreign, clauses, ["agent_name", "estimated_cost"])
    return rows[0] if rows else None


def parts(error: pytest.ExceptionInfo[Any]) -> tuple[Any, ...]:
    one = error.value
    return one.sqlstate, one.message, one.detail, one.hint


# ---------------------------------------------------------------- what is committed is seen


def test_a_commit_is_seen_by_the_next_query_and_nothing_before(
    registry: Any, dsn: str, session: Any
) -> None:
    foreign = multicorn_scan.table(RouteResults, dsn)
    other = session(autocommit=False)
    name, cost = chosen(registry, foreign)
    other.execute("UPDATE tinydancer.agent SET cost_per_call = 0.5 WHERE name = %s", (name,))
    assert chosen(registry, foreign, [*REQUEST, Clause("pool", None, "is null")]) == (name, cost)
    other.rollback()
    assert chosen(registry, foreign) == (name, cost)
    other.execute("UPDATE tinydancer.agent SET cost_per_1k_tokens = 0 WHERE name = %s", (name,))
    other.commit()
    assert chosen(registry, foreign)[1] < cost


def test_what_does_not_concern_a_decision_does_not_read_the_registry_again(
    registry: Any, dsn: str, session: Any
) -> None:
    foreign = multicorn_scan.table(RouteResults, dsn)
    mine = source(conninfo_of({"dsn": dsn}))
    chosen(registry, foreign)
    before = mine.router()
    other = session()
    other.execute("CREATE TABLE unrelated (x int)")
    other.execute("ANALYZE tinydancer.agent")
    other.execute("INSERT INTO tinydancer.route (name, description) VALUES ('topic', 'a topic')")
    assert mine.router() is before
    other.execute("UPDATE tinydancer.agent SET metadata = '{}' WHERE name = 'calculator'")
    assert mine.router() is not before


def test_a_rescan_sees_what_the_scan_saw_and_another_scan_what_is_committed(
    registry: Any, dsn: str, session: Any
) -> None:
    foreign = multicorn_scan.table(RouteResults, dsn)
    change = "UPDATE tinydancer.agent SET active = NOT active WHERE name <> 'calculator'"
    other = session()
    first = next(foreign.execute(QUAL, {"agent_name"}))
    other.execute(change)
    # The rows before are gone, as when Multicorn starts the inner side of a join again.
    assert next(foreign.execute(QUAL, {"agent_name"})) == first
    cursor = foreign.execute(QUAL, {"agent_name"})
    # A cursor that is still open: this is another statement's scan.
    assert next(foreign.execute(QUAL, {"agent_name"}))["agent_name"] == "calculator"
    foreign.end_scan()
    assert next(cursor) == first
    other.execute(change)
    assert next(foreign.execute(QUAL, {"agent_name"})) == first
    foreign.rollback()
    other.execute(change)
    assert next(foreign.execute(QUAL, {"agent_name"}))["agent_name"] == "calculator"


# ---------------------------------------------------------------- the connection


def test_tables_of_a_process_share_one_connection(registry: Any, dsn: str) -> None:
    for wrapper in WRAPPERS:
        list(multicorn_scan.table(wrapper, dsn).execute(QUAL, set()))
    (n,) = registry.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tinydancer' "
        "AND datname = current_database()"
    ).fetchone()
    assert n == 1


def test_a_forked_process_has_a_connection_of_its_own(registry: Any, dsn: str) -> None:
    foreign = multicorn_scan.table(RouteResults, dsn)
    expected = chosen(registry, foreign)
    child = os.fork()
    if child == 0:
        # No test framework from here on: it is the parent's.
        status = 1
        try:
            own = multicorn_scan.table(RouteResults, dsn)
            row = next(own.execute(QUAL, {"agent_name"}))
            status = 0 if row["agent_name"] == expected[0] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert chosen(registry, foreign) == expected


def test_a_cut_connection_is_opened_again(registry: Any, dsn: str) -> None:
    foreign = multicorn_scan.table(RouteResults, dsn)
    expected = chosen(registry, foreign)
    cut = registry.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE application_name = 'tinydancer' AND datname = current_database()"
    )
    assert cut.fetchall() == [(True,)]
    assert chosen(registry, foreign) == expected


def test_a_server_that_is_away_is_an_error_without_the_password(registry: Any, db: Any) -> None:
    away = f"host={db.cluster.home}/nowhere dbname=app user=me password=geheim"
    foreign = multicorn_scan.table(RouteResults, away)
    with pytest.raises(ForeignTableError) as error:
        foreign.execute(QUAL, set())
    assert error.value.sqlstate == "HV00N"
    assert error.value.message == "could not connect to the database of the registry"
    assert "nowhere" in str(error.value)
    assert "geheim" not in str(error.value)


def test_user_and_password_of_a_mapping_go_before_those_of_the_dsn() -> None:
    found = conninfo_of({"dsn": "dbname=app user=a password=b", "user": "c", "password": "d"})
    assert psycopg.conninfo.conninfo_to_dict(found) == {
        "dbname": "app",
        "user": "c",
        "password": "d",
        "connect_timeout": "5",
        "application_name": "tinydancer",
        "client_encoding": "UTF8",
    }
    uri = "postgresql://me@db.example.org/app?connect_timeout=1"
    assert "connect_timeout=1" in conninfo_of({"dsn": uri})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, 'option "dsn" is missing'),
        (" ", 'option "dsn" is missing'),
        ("dbname=app geheim", 'option "dsn" is not a connection string'),
        ("kennwort=geheim", 'option "dsn" is not a connection string'),
    ],
)
def test_a_dsn_that_is_none_is_an_error_that_does_not_show_it(
    given: str | None, message: str
) -> None:
    options = {} if given is None else {"dsn": given}
    with pytest.raises(ForeignTableError) as error:
        RouteResults(options, {"request": ColumnDefinition("request", base_type_name="text")})
    assert error.value.message == message
    assert error.value.sqlstate == "HV00D"
    assert "geheim" not in str(error.value)


def test_a_database_without_the_extension_is_an_error(empty_db: Any) -> None:
    foreign = multicorn_scan.table(RouteResults, empty_db.conninfo)
    with pytest.raises(ForeignTableError) as error:
        foreign.execute(QUAL, set())
    assert error.value.sqlstate == "55000"
    assert error.value.message == f'database "{empty_db.name}" lacks the extension "tinydancer"'


def test_an_extension_of_another_version_is_an_error(registry: Any, dsn: str, db: Any) -> None:
    registry.execute("UPDATE pg_extension SET extversion = '7.8' WHERE extname = 'tinydancer'")
    foreign = multicorn_scan.table(RouteResults, dsn)
    with pytest.raises(ForeignTableError) as error:
        foreign.execute(QUAL, set())
    assert error.value.sqlstate == "55000"
    assert error.value.message == (
        f'extension "tinydancer" of database "{db.name}" is of another version'
    )
    assert error.value.detail is not None
    assert error.value.detail.startswith("It is 7.8, ")


def test_a_role_of_level_viewer_is_enough_and_less_is_refused(
    registry: Any, dsn: str, db: Any
) -> None:
    role = f"door_{db.name}"
    registry.execute(f"CREATE ROLE {role} LOGIN")
    try:
        foreign = multicorn_scan.table(RouteResults, dsn, user=role)
        with pytest.raises(ForeignTableError) as error:
            foreign.execute(QUAL, set())
        assert error.value.sqlstate == "42501"
        assert error.value.message.startswith("permission denied for ")
        registry.execute("SELECT tinydancer.grant_usage(%s, 'viewer')", (role,))
        assert next(foreign.execute(QUAL, {"agent_name"}))["agent_name"]
        matches = multicorn_scan.table(SemanticMatches, dsn, user=role)
        assert list(matches.execute(QUAL, {"route_name"})) == []
    finally:
        source(conninfo_of({"dsn": dsn, "user": role})).close()
        registry.execute(f"DROP OWNED BY {role}")
        registry.execute(f"DROP ROLE {role}")


def test_a_locked_registry_is_an_error_and_no_wait_for_ever(
    registry: Any, dsn: str, session: Any
) -> None:
    hurried = f"{dsn} options='-c lock_timeout=50ms'"
    foreign = multicorn_scan.table(RouteResults, hurried)
    other = session(autocommit=False)
    other.execute("LOCK TABLE tinydancer.agent")
    with pytest.raises(ForeignTableError) as error:
        foreign.execute(QUAL, set())
    assert error.value.sqlstate == "55P03"
    assert error.value.message == "canceling statement due to lock timeout"
    other.rollback()
    assert next(foreign.execute(QUAL, {"agent_name"}))
    source(conninfo_of({"dsn": hurried})).close()


def test_the_scales_of_the_role_that_reads_the_registry_count(
    registry: Any, dsn: str, db: Any
) -> None:
    scaled = f"{dsn} options='-c tinydancer.cost_scale=0.05 -c tinydancer.latency_scale=20'"
    foreign = multicorn_scan.table(RouteCandidates, scaled)
    columns = ["agent_name", "cost_utility", "latency_utility"]
    found = multicorn_scan.rows(registry, foreign, REQUEST, columns)
    registry.execute("SET tinydancer.cost_scale = 0.05")
    registry.execute("SET tinydancer.latency_scale = 20")
    expected = registry.execute(
        "SELECT agent_name, cost_utility, latency_utility FROM ruvector_explain_route(%s)",
        (REQUEST[0].value,),
    ).fetchall()
    assert found == expected
    source(conninfo_of({"dsn": scaled})).close()


# ---------------------------------------------------------------- the encoder


def test_without_the_encoders_file_vectors_are_routed_and_texts_are_an_error(
    registry: Any, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = registry.execute("SELECT ruvector_embed('debug my program')").fetchone()[0]
    monkeypatch.setenv("TINYDANCER_ENCODER_DIR", str(tmp_path))
    foreign = multicorn_scan.table(RouteResults, dsn)
    expected = registry.execute(
        "SELECT agent_name, estimated_cost FROM route_results WHERE embedding = %s::real[]",
        (vector,),
    ).fetchone()
    assert chosen(registry, foreign, [Clause("embedding", vector)]) == expected
    with pytest.raises(TinyDancerError) as error:
        list(foreign.execute(QUAL, set()))
    assert error.value.sqlstate == "58P01"
    assert error.value.message == 'cannot use encoder "static-1": file does not exist'
    assert error.value.hint == "Build it with: tinydancer encoder build static"


def test_another_file_under_the_encoders_id_is_an_error(registry: Any, dsn: str) -> None:
    registry.execute(
        "UPDATE tinydancer.setting SET value = '00000000000000ff' WHERE name = 'encoder_checksum'"
    )
    foreign = multicorn_scan.table(RouteResults, dsn)
    with pytest.raises(TinyDancerError) as error:
        list(foreign.execute(QUAL, set()))
    assert error.value.sqlstate == "XX001"
    assert error.value.message == (
        'cannot use encoder "static-1": the file is not the one this database was using'
    )


def test_an_external_encoder_routes_by_vectors_as_the_server_does(
    registry: Any, dsn: str, db: Any
) -> None:
    with db.connect() as conn:
        conn.execute("SELECT ruvector_clear_agents()")
        conn.execute("CALL tinydancer.use_encoder('external', 3)")
        for name, vector in (("x", "{1,0,0}"), ("y", "{0,1,0}")):
            conn.execute(
                "SELECT ruvector_register_agent(%s, 'api', ARRAY['c'], description := 'd', "
                "cost_per_call := 0.01, embedding := %s::real[])",
                (name, vector),
            )
        foreign = multicorn_scan.table(RouteCandidates, dsn)
        vector = [0.25, 1.0, 0.5]
        columns = ["agent_name", "score", "similarity", "closest_phrase", "reasoning"]
        clauses = [Clause("embedding", vector), Clause("request", "some text")]
        expected = conn.execute(
            f"SELECT {', '.join(columns)} FROM ruvector_explain_route(%s, embedding := %s::real[])",
            ("some text", vector),
        ).fetchall()
        assert multicorn_scan.rows(conn, foreign, clauses, columns) == expected
        with pytest.raises(TinyDancerError) as error:
            list(foreign.execute(QUAL, set()))
        with pytest.raises(psycopg.Error) as theirs:
            conn.execute("SELECT * FROM ruvector_route('x')")
        diag = theirs.value.diag
        assert parts(error) == (
            diag.sqlstate,
            diag.message_primary,
            diag.message_detail,
            diag.message_hint,
        )


def test_a_row_that_no_agent_can_have_is_an_error(registry: Any, dsn: str) -> None:
    registry.execute("ALTER TABLE tinydancer.agent DROP CONSTRAINT agent_type_check")
    registry.execute("UPDATE tinydancer.agent SET type = 'tol' WHERE name = 'calculator'")
    foreign = multicorn_scan.table(RouteResults, dsn)
    with pytest.raises(TinyDancerError) as error:
        foreign.execute(QUAL, set())
    assert parts(error) == (
        "22023",
        'unknown agent type "tol"',
        "Known types are llm, tool, api, human, ensemble.",
        'Perhaps you meant "tool".',
    )


# ---------------------------------------------------------------- trained models


def activate(conn: Any, task: str, names: list[str]) -> None:
    """A model of random weights, which says something of each request."""
    spec = model_specs.random_model(
        11, ("linear", "words"), task=task, link=LINKS[task], n_out=len(names)
    )
    spec = dataclasses.replace(
        spec, names=names, encoder_checksum=int(Encoder.load("static").checksum, 16)
    )
    content = write_model(spec)
    (version,) = conn.execute("SELECT tinydancer.add_model(%s, %s)", (task, content)).fetchone()
    conn.execute("SELECT tinydancer.activate_model(%s, %s, true)", (task, version))


LINKS = {"quality": "sigmoid", "classifier": "softmax"}


def test_an_active_quality_model_decides_as_in_the_server(registry: Any, dsn: str) -> None:
    foreign = multicorn_scan.table(RouteCandidates, dsn)
    columns = ["agent_name", "rank", "score", "expected_quality", "quality", "reasoning"]
    ask = f"SELECT {', '.join(columns)} FROM ruvector_explain_route(%s)"
    before = multicorn_scan.rows(registry, foreign, REQUEST, columns)
    agents = [name for name, *_ in registry.execute("SELECT name FROM tinydancer.agent LIMIT 5")]
    activate(registry, "quality", [*agents, "nobody"])
    for text in (REQUEST[0].value, "what is seven times eight", "naïve café 東京"):
        expected = registry.execute(ask, (text,)).fetchall()
        assert (
            multicorn_scan.rows(registry, foreign, [Clause("request", text)], columns) == expected
        )
    assert multicorn_scan.rows(registry, foreign, REQUEST, columns) != before
    registry.execute("SELECT tinydancer.deactivate_model('quality')")
    assert multicorn_scan.rows(registry, foreign, REQUEST, columns) == before


def test_request_classes_are_those_of_the_servers_function(registry: Any, dsn: str) -> None:
    registry.execute("DELETE FROM tinydancer.model WHERE NOT builtin")
    foreign = multicorn_scan.table(RequestClasses, dsn)
    activate(registry, "classifier", ["code", "maths", "small talk", "legal"])
    columns = ["category", "probability", "rank"]
    vector = registry.execute("SELECT ruvector_embed('tell me a joke')").fetchone()[0]
    for text, given in (
        (REQUEST[0].value, None),
        ("what is seven times eight", None),
        ("some text", vector),
        (None, vector),
    ):
        (answer,) = registry.execute(
            "SELECT ruvector_classify_request(%s, %s::real[])", (text, given)
        ).fetchone()
        expected = [
            (one["category"], one["probability"], rank)
            for rank, one in enumerate(answer["classifications"], start=1)
        ]
        clauses = [] if text is None else [Clause("request", text)]
        if given is not None:
            clauses.append(Clause("embedding", given))
        found = multicorn_scan.rows(registry, foreign, clauses, columns)
        # JSON has six places.
        assert [(name, round(p, 6), rank) for name, p, rank in found] == expected


def test_request_classes_without_a_classifier_have_the_servers_error(conn: Any, db: Any) -> None:
    conn.execute("SET session_replication_role = replica")
    conn.execute("DELETE FROM tinydancer.model")
    with pytest.raises(psycopg.Error) as theirs:
        conn.execute("SELECT ruvector_classify_request('x')")
    foreign = multicorn_scan.table(RequestClasses, db.conninfo)
    with pytest.raises(TinyDancerError) as error:
        list(foreign.execute(QUAL, set()))
    diag = theirs.value.diag
    assert parts(error) == (
        diag.sqlstate,
        diag.message_primary,
        diag.message_detail,
        diag.message_hint,
    )
    source(conninfo_of({"dsn": db.conninfo})).close()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wrapper", "condition", "quals"),
    [
        (RouteResults, "agent_name = 'x'", [Qual("agent_name", "=", "x")]),
        (RouteResults, "request LIKE 'x%'", [Qual("request", "~~", "x%")]),
        (RouteResults, "request IS NOT NULL", [Qual("request", "<>", None)]),
        (RouteResults, "request = 'x' AND max_cost > 1", [*QUAL, Qual("max_cost", ">", "1")]),
        (RouteResults, "request = 'x' AND pool IS NOT NULL", [*QUAL, Qual("pool", "<>", None)]),
        (
            RouteResults,
            "request = 'x' AND optimize_for IN ('cost', 'quality')",
            [*QUAL, Qual("optimize_for", ("=", True), ["cost", "quality"])],
        ),
        (
            RouteResults,
            "request = 'x' AND optimize_for = 'qality'",
            [*QUAL, Qual("optimize_for", "=", "qality")],
        ),
        (
            RouteResults,
            "request = 'x' AND optimize_for = 'zzz'",
            [*QUAL, Qual("optimize_for", "=", "zzz")],
        ),
        (RouteResults, "embedding = '{1,NULL}'", [Qual("embedding", "=", ["1", None])]),
        (RouteResults, "embedding = '{1,2}'", [Qual("embedding", "=", ["1", "2"])]),
        (
            RouteCandidates,
            "request = 'x' AND required_capabilities = '{a,NULL}'",
            [*QUAL, Qual("required_capabilities", "=", ["a", None])],
        ),
        (
            RouteCandidates,
            "request = 'x' AND min_quality = 2",
            [*QUAL, Qual("min_quality", "=", "2")],
        ),
        (SemanticMatches, "top_k = 1", [Qual("top_k", "=", 1)]),
        (SemanticMatches, "request = 'x' AND top_k = 0", [*QUAL, Qual("top_k", "=", 0)]),
        (SemanticMatches, "request = ''", [Qual("request", "=", "")]),
        (
            SemanticMatches,
            "request = 'x' AND at = '-infinity'",
            [*QUAL, Qual("at", "=", "-infinity")],
        ),
    ],
)
def test_an_error_has_the_servers_sentences_and_sqlstate(
    registry: Any, dsn: str, wrapper: Any, condition: str, quals: list[Any]
) -> None:
    registry.execute(
        "IMPORT FOREIGN SCHEMA tinydancer EXCEPT (route_results) FROM SERVER tinydancer INTO public"
    )
    with pytest.raises(psycopg.Error) as theirs:
        registry.execute(f"SELECT * FROM {wrapper.kind.name} WHERE {condition}")
    foreign = multicorn_scan.table(wrapper, dsn)
    with pytest.raises(TinyDancerError) as error:
        list(foreign.execute(quals, set()))
    diag = theirs.value.diag
    assert parts(error) == (
        diag.sqlstate,
        diag.message_primary,
        diag.message_detail,
        diag.message_hint,
    )


@pytest.mark.parametrize(
    ("name", "value", "sqlstate", "message"),
    [
        ("max_cost", "abc", "22P02", 'invalid input syntax for type double precision: "abc"'),
        ("max_cost", "1_0", "22P02", 'invalid input syntax for type double precision: "1_0"'),
        ("max_cost", "1e999", "22003", '"1e999" is out of range for type double precision'),
        ("excluded_agents", "a,b", "22P02", 'malformed array literal: "a,b"'),
        ("excluded_agents", "{a", "22P02", 'malformed array literal: "{a"'),
        ("max_cots", "1", "HV00D", 'invalid option "max_cots"'),
        ("request", "x", "HV00D", 'invalid option "request"'),
    ],
)
def test_a_wrong_option_has_the_servers_sentence(
    registry: Any, dsn: str, name: str, value: str, sqlstate: str, message: str
) -> None:
    with pytest.raises(psycopg.Error) as theirs:
        registry.execute(
            f"CREATE FOREIGN TABLE mine (request text) SERVER tinydancer OPTIONS ({name} '{value}')"
        )
    with pytest.raises(ForeignTableError) as error:
        multicorn_scan.table(RouteResults, dsn, **{name: value})
    assert (error.value.sqlstate, error.value.message) == (sqlstate, message)
    assert theirs.value.diag.sqlstate == sqlstate
    assert theirs.value.diag.message_primary == message


def test_options_are_the_defaults_that_a_clause_replaces(registry: Any, dsn: str) -> None:
    options = {"max_cost": "0.001", "excluded_agents": "{calculator,NULL}", "optimize_for": "cost"}
    listed = ", ".join(f"{name} '{value}'" for name, value in options.items())
    registry.execute(
        "CREATE FOREIGN TABLE mine (request text, agent_name text, max_cost float8, "
        f"excluded_agents text[], optimize_for text) SERVER tinydancer OPTIONS ({listed})"
    )
    columns = ["request", "agent_name", "max_cost", "excluded_agents", "optimize_for"]
    foreign = multicorn_scan.table(RouteResults, dsn, columns, **options)
    for clauses in (
        REQUEST,
        [*REQUEST, Clause("max_cost", None, "is null")],
        [*REQUEST, Clause("max_cost", 0.0)],
        [*REQUEST, Clause("optimize_for", "quality"), Clause("excluded_agents", ["code-llm"])],
    ):
        condition, parameters = multicorn_scan.where(clauses, RouteResults.kind.types)
        statement = f"SELECT {', '.join(columns)} FROM mine WHERE {condition}"
        expected = registry.execute(statement, parameters).fetchall()
        assert multicorn_scan.rows(registry, foreign, clauses, columns) == expected


@pytest.mark.parametrize(
    ("column", "kind", "sqlstate", "message"),
    [
        ("agent", "text", "HV007", 'foreign table "route_results" has an unknown column "agent"'),
        (
            "max_cost",
            "numeric",
            "HV004",
            'column "max_cost" of foreign table "route_results" has the wrong type',
        ),
    ],
)
def test_a_wrong_column_has_the_servers_sentence(
    registry: Any, dsn: str, column: str, kind: str, sqlstate: str, message: str
) -> None:
    registry.execute("CREATE SCHEMA mine")
    registry.execute(f"CREATE FOREIGN TABLE mine.route_results ({column} {kind}) SERVER tinydancer")
    with pytest.raises(psycopg.Error) as theirs:
        registry.execute("SELECT * FROM mine.route_results")
    definition = {column: ColumnDefinition(column, type_name=kind, base_type_name=kind)}
    with pytest.raises(ForeignTableError) as error:
        RouteResults({"dsn": dsn}, definition)
    assert (error.value.sqlstate, error.value.message) == (sqlstate, message)
    assert theirs.value.diag.sqlstate == sqlstate
    assert theirs.value.diag.message_primary == message


# ---------------------------------------------------------------- the planner


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=IDS)
def test_estimates_are_rows_of_the_requests_and_dear_without_one(dsn: str, wrapper: Any) -> None:
    foreign = multicorn_scan.table(wrapper, dsn)
    one, width = foreign.get_rel_size(QUAL, {"request"})
    several = [Qual("request", ("=", True), ["a", "b", None, "a"])]
    assert foreign.get_rel_size(several, {"request"}) == (2 * one, width)
    assert foreign.get_rel_size([], {"request"})[0] > 1e12
    assert foreign.get_rel_size(QUAL, wrapper.kind.types)[1] > width
    assert foreign.get_rel_size(QUAL, set())[1] >= 1


def test_a_scan_that_takes_more_of_a_joins_inputs_is_the_cheaper_one(dsn: str) -> None:
    columns = ["request", "agent_name", "max_cost", "pool"]
    keys = multicorn_scan.table(RouteResults, dsn, columns).get_path_keys()
    assert [key for key, _ in keys] == [
        ("request", "max_cost", "pool"),
        ("request", "max_cost"),
        ("request", "pool"),
        ("request",),
    ]
    rows = dict(keys)
    assert rows["request", "max_cost", "pool"] == 1
    assert rows["request", "pool"] == rows["request", "max_cost"] > 100
    assert rows[("request",)] > rows["request", "pool"]
    whole = multicorn_scan.table(RouteResults, dsn).get_path_keys()
    assert len(whole) < 100
    assert all(key[0] in ("request", "embedding") for key, _ in whole)


def test_only_the_order_that_rows_have_is_offered(registry: Any, dsn: str) -> None:
    foreign = multicorn_scan.table(RouteCandidates, dsn)
    rank = SortKey("rank", 3, False, False, None)
    eligible = SortKey("eligible", 4, True, True, None)
    name = SortKey("agent_name", 2, False, False, None)
    assert foreign.can_sort([rank, name]) == [rank]
    assert foreign.can_sort([eligible, rank]) == [eligible, rank]
    assert foreign.can_sort([name, rank]) == []
    assert foreign.can_sort([rank._replace(is_reversed=True)]) == []
    assert foreign.can_sort([rank._replace(nulls_first=True)]) == []
    several = [Qual("request", ("=", True), ["a dog", "debug my program"])]
    limits = [*several, Qual("max_cost", "=", "0.0005")]
    rows = list(foreign.execute(limits, {"rank", "request"}, sortkeys=[rank]))
    ranks = [row["rank"] for row in rows]
    known = [one for one in ranks if one is not None]
    assert known == sorted(known)
    assert ranks == known + [None] * (len(ranks) - len(known))
    assert len(known) > 2
    assert None in ranks
    assert multicorn_scan.table(RouteResults, dsn).can_sort([rank]) == []


def test_a_limit_that_is_left_to_the_wrapper_is_kept(dsn: str) -> None:
    foreign = multicorn_scan.table(RouteCandidates, dsn)
    rows = list(foreign.execute(QUAL, {"rank"}))
    assert foreign.can_limit(3, 1)
    assert foreign.can_limit(3, None)
    assert not foreign.can_limit(None, 1)
    assert list(foreign.execute(QUAL, {"rank"}, limit=3, offset=1)) == rows[1:4]
    assert list(foreign.execute(QUAL, {"rank"}, offset=2)) == rows[2:]
    # As in the server, where a LIMIT 0 never asks.
    assert list(foreign.execute([], {"rank"}, limit=0)) == []


def test_explain_names_the_inputs_and_asks_nobody(tmp_path: Path) -> None:
    foreign = multicorn_scan.table(RouteResults, f"host={tmp_path}/nowhere")
    quals = [Qual("max_cost", "=", "?"), Qual("request", "=", "?"), Qual("agent_name", "=", "?")]
    assert foreign.explain(quals, {"request"}, verbose=True) == ["Inputs: max_cost, request"]
    assert foreign.explain(quals, {"request"}) == []
    assert foreign.explain([], set()) == ["Request: none: fails when it is run"]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=IDS)
def test_import_makes_the_table_that_the_server_has(registry: Any, wrapper: Any) -> None:
    registry.execute("CREATE SCHEMA imported")
    registry.execute("IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO imported")
    expected = registry.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
        (f"imported.{wrapper.kind.name}",),
    ).fetchall()
    (made,) = wrapper.import_schema("tinydancer", {}, {}, None, [])
    assert made.table_name == wrapper.kind.name
    assert [(one.column_name, one.type_name) for one in made.columns] == expected
    limited = wrapper.import_schema("tinydancer", {}, {}, "limit", [wrapper.kind.name])
    assert [one.table_name for one in limited] == [wrapper.kind.name]
    assert wrapper.import_schema("tinydancer", {}, {}, "except", [wrapper.kind.name]) == []
    with pytest.raises(ForeignTableError, match='remote schema "public" does not exist'):
        wrapper.import_schema("public", {}, {}, None, [])
    with pytest.raises(ForeignTableError, match='invalid option "top"'):
        wrapper.import_schema("tinydancer", {}, {"top": "1"}, None, [])


def test_import_of_another_table_names_the_wrapper_that_has_it() -> None:
    with pytest.raises(ForeignTableError) as error:
        RouteResults.import_schema("tinydancer", {}, {}, "limit", ["semantic_matches"])
    assert error.value.sqlstate == "HV00R"
    assert error.value.message == 'remote table "semantic_matches" does not exist'
    assert error.value.hint == (
        "A server with wrapper tinydancer.multicorn.SemanticMatches has it."
    )


# ---------------------------------------------------------------- the package of that name

OTHER = """
import sys
from tinydancer.multicorn import RouteResults
from tinydancer.multicorn.protocol import in_server
print(RouteResults.__mro__[2].__module__, in_server())
"""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("def run(): pass\n", "tinydancer.multicorn.protocol False"),
        (
            "class ForeignDataWrapper: pass\nclass ColumnDefinition: pass\n"
            "class TableDefinition: pass\nclass Qual: pass\nclass SortKey: pass\n",
            "multicorn False",
        ),
    ],
    ids=["another project", "Multicorn outside of a server"],
)
def test_a_module_named_multicorn_is_taken_for_what_it_is(
    tmp_path: Path, module: str, expected: str
) -> None:
    (tmp_path / "multicorn.py").write_text(module)
    done = subprocess.run(
        [sys.executable, "-c", OTHER],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout.strip() == expected, done.stderr
