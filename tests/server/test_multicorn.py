"""The Multicorn door answers as the server does.

In: generated clauses, in the form that Multicorn2 gives them.  What is compared: rows and errors of
the wrappers, driven as Multicorn2 drives them, with those of the server's own foreign tables, while
the registry changes between the queries.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import model_specs
import multicorn_scan
import psycopg
import pytest
from fdw_queries import REQUESTS, SETUP
from multicorn_scan import Clause

from tinydancer.encoder import Encoder
from tinydancer.errors import TinyDancerError
from tinydancer.model_file import write_model
from tinydancer.multicorn import RequestClasses, RouteCandidates, RouteResults, SemanticMatches
from tinydancer.multicorn.source import conninfo_of, source

QUERIES = 1000
ENCODER = Encoder.load("static")

ROUTES = """
SELECT ruvector_create_route('weather', priority := 1, target_agent := 'anyone',
    utterances := ARRAY['will it rain tomorrow', 'how hot will it be today']);
SELECT ruvector_create_route('billing', user_tiers := ARRAY['customer'],
    utterances := ARRAY['refund my money', 'there is a wrong amount on my invoice'],
    negatives := ARRAY['a wrong amount of rain']);
SELECT ruvector_create_route('night', time_start := '22:00', time_end := '05:00',
    description := 'questions at night');
SELECT ruvector_create_route('vector', embedding := ruvector_embed('translate this text'));
SELECT ruvector_create_route('seldom', rate_limit := 2, threshold := -1,
    utterances := ARRAY['debug my program']);
SELECT ruvector_create_route('never', rate_limit := 0, utterances := ARRAY['tell me a joke']);
"""

# What changes between queries: each is a commit of another session.
CHANGES = (
    "UPDATE tinydancer.agent SET cost_per_call = {cost} WHERE name = 'translator'",
    "UPDATE tinydancer.agent SET active = NOT active WHERE name = 'sums'",
    "UPDATE tinydancer.agent SET description = 'answers {cost} questions' WHERE name = 'anyone'",
    "UPDATE tinydancer.agent SET avg_latency_ms = NULL, cost_per_call = NULL WHERE name = 'sums'",
    "SELECT ruvector_register_agent('new', 'tool', ARRAY['jokes'], cost_per_call := {cost}, "
    "pool := 'east', examples := ARRAY['tell me a joke'])",
    "SELECT ruvector_register_agent('vec', 'api', embedding := ruvector_embed('seven times nine'))",
    "DELETE FROM tinydancer.agent WHERE name IN ('new', 'vec')",
    "INSERT INTO tinydancer.policy (name, quality_weight, fit_weight) VALUES ('mine', 1, {cost}) "
    "ON CONFLICT (name, builtin) DO UPDATE SET fit_weight = excluded.fit_weight",
    "UPDATE tinydancer.route SET priority = 2, threshold = {cost} WHERE name = 'weather'",
    "UPDATE tinydancer.route SET active = NOT active WHERE name = 'night'",
    "INSERT INTO tinydancer.decision (agent_name, route_name) VALUES ('coder', 'seldom')",
    "SELECT ruvector_tune_routes(force_scorer := '{scorer}')",
    "DELETE FROM tinydancer.route_scorer",
    "SELECT tinydancer.activate_model(m.kind, m.version, true) FROM tinydancer.model m "
    "WHERE NOT m.builtin AND NOT m.active",
    "SELECT tinydancer.deactivate_model('{kind}')",
)

TEXTS = (*REQUESTS, "is it going to rain", "debug this", "naïve café 東京", " ", "refund")
VALUES: dict[str, tuple[Any, ...]] = {
    "optimize_for": (
        "cost",
        "quality",
        "balanced",
        "latency",
        "quality_per_dollar",
        "mine",
        "cots",
    ),
    "max_cost": (0.001, 1.0, float("inf"), 0.0, -1.0, float("nan")),
    "max_latency_ms": (100.0, 2000.0, float("nan")),
    "min_quality": (0.5, 0.9, 1.5, float("-inf")),
    "required_capabilities": (["Coding"], [], ["coding", "juggling"], ["coding", None]),
    "excluded_agents": (["translator"], ["nobody", None], []),
    "budget_remaining": (0.01, 5.0, -3.0),
    "pool": ("east", "west", "north"),
    "min_expected_quality": (0.1, 0.6),
    "top_k": (1, 2, 9, 0),
    "user_tier": ("customer", "guest"),
    "at": ("2026-01-01 23:30:00+00", "2026-01-01 12:00:00+00", "infinity"),
}


@pytest.fixture
def door(conn: Any, db: Any) -> Iterator[tuple[Any, str]]:
    """``conn`` with agents and routes, and a connection string; its sessions end with the test."""
    conn.execute(SETUP)
    conn.execute(ROUTES)
    yield conn, db.conninfo
    source(conninfo_of({"dsn": db.conninfo})).close()


def generated(rng: random.Random, wrapper: Any, vectors: list[list[float]]) -> list[Clause]:
    """Clauses on some input columns, in any order."""
    inputs = [name for name in wrapper.kind.inputs if name in VALUES]
    chosen = rng.sample(inputs, k=min(rng.choice((0, 0, 1, 1, 2, 3, 4)), len(inputs)))
    clauses = []
    for name in chosen:
        kind = rng.random()
        if kind < 0.15:
            clauses.append(Clause(name, None, "is null"))
        elif kind < 0.2:
            clauses.append(Clause(name, None, "$"))
        else:
            # What is refused stands last, and is seldom meant.
            usual = VALUES[name][: max(2, len(VALUES[name]) - 2)]
            values = VALUES[name] if rng.random() < 0.2 else usual
            clauses.append(Clause(name, rng.choice(values), rng.choice("=$")))
    kind = rng.random()
    usual = [text for text in TEXTS if text.strip()]
    # Without limits, what is asked must be what is refused.
    texts = list(TEXTS) if rng.random() < (0.05 if inputs else 0.5) else usual
    if kind < 0.5:
        clauses.append(Clause("request", rng.choice(texts)))
    elif kind < 0.8:
        several: list[Any] = rng.choices(texts, k=rng.randint(0, 5))
        if rng.random() < 0.4:
            several.insert(rng.randint(0, len(several)), None)
        clauses.append(Clause("request", several, "any"))
    elif kind < 0.85:
        clauses.append(Clause("request", None, "$"))
    if kind >= 0.8 or rng.random() < 0.1:
        vector = rng.choice(vectors)
        if rng.random() < 0.03:
            vector = rng.choice((vector[:5], [float("nan")] * len(vector), [0.0] * len(vector)))
        clauses.append(Clause("embedding", None if rng.random() < 0.05 else vector, "$"))
    rng.shuffle(clauses)
    return clauses


def server_rows(conn: Any, wrapper: Any, clauses: list[Clause], columns: list[str]) -> list[Any]:
    """What the server's own foreign table, or the function that it stands for, returns."""
    types = wrapper.kind.types
    condition, parameters = multicorn_scan.where(clauses, types)
    listed = ", ".join(columns)
    statement = f"SELECT {listed} FROM {wrapper.kind.name} WHERE {condition}"
    return [tuple(row) for row in conn.execute(statement, parameters, prepare=False)]


def outcome(call: Any) -> Any:
    """The rows, or the error in the parts that a client reads."""
    try:
        return sorted(call(), key=repr)
    except psycopg.Error as error:
        diag = error.diag
        return diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint
    except TinyDancerError as error:
        return error.sqlstate, error.message, error.detail, error.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrapper", [RouteResults, RouteCandidates, SemanticMatches, RequestClasses]
)
def test_generated_clauses_give_the_rows_and_errors_of_the_server(
    door: tuple[Any, str], wrapper: Any, request: pytest.FixtureRequest
) -> None:
    conn, dsn = door
    rng = random.Random(request.config.getoption("--seed"))
    make_tables(conn)
    add_models(conn)
    foreign = multicorn_scan.table(wrapper, dsn)
    vectors = [conn.execute("SELECT ruvector_embed(%s)", (t,)).fetchone()[0] for t in REQUESTS]
    columns = list(wrapper.kind.types)
    with_rows = errors = 0
    for number in range(QUERIES):
        if rng.random() < 0.2:
            change = rng.choice(CHANGES).format(
                cost=rng.choice((0, 0.002, 0.3)),
                scorer=rng.choice(("centroid", "ridge", "top3")),
                kind=rng.choice(("quality", "classifier")),
            )
            conn.execute(change)
        clauses = generated(rng, wrapper, vectors)
        expected = outcome(lambda: server_rows(conn, wrapper, clauses, columns))  # noqa: B023
        found = outcome(lambda: multicorn_scan.rows(conn, foreign, clauses, columns))  # noqa: B023
        if isinstance(found, tuple) and any(
            one.value is None and one.form == "$" for one in clauses
        ):
            # "= NULL" has no row in the server, whatever else is wrong; here it is IS NULL.
            assert expected == [], f"query {number}: {clauses}"
            continue
        assert found == expected, f"query {number}: {clauses}"
        with_rows += isinstance(expected, list) and bool(expected)
        errors += isinstance(expected, tuple)
    # Otherwise the comparison would say little.
    assert with_rows > QUERIES / 3
    assert errors > QUERIES / 50


def make_tables(conn: Any) -> None:
    """The server's other foreign tables, beside route_results."""
    conn.execute(
        "IMPORT FOREIGN SCHEMA tinydancer EXCEPT (route_results) FROM SERVER tinydancer INTO public"
    )


def add_models(conn: Any) -> None:
    """Two models of random weights for each kind; a change activates them in turn."""
    identity = (ENCODER.id, int(ENCODER.checksum, 16))
    agents = [name for (name,) in conn.execute("SELECT name FROM tinydancer.agent ORDER BY name")]
    for task, link, names in (
        ("quality", "sigmoid", agents),
        ("classifier", "softmax", ["code", "maths", "small talk"]),
    ):
        for seed in (1, 2):
            spec = model_specs.random_model(
                seed, ("linear", "words"), task=task, link=link, n_out=len(names), encoder=identity
            )
            content = write_model(dataclasses.replace(spec, names=names))
            conn.execute("SELECT tinydancer.add_model(%s, %s)", (task, content))
