"""The foreign table request_classes is ruvector_classify_request() as rows.

In: a classifier made of a few requests' vectors, and generated queries.  What is compared:
categories, probabilities and their order with the function's JSON, row by row; and which model a
query uses.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import psycopg
import pytest

from tinydancer.model_file import Linear, ModelSpec, write_model

EXAMPLES = {
    "code": "Write a Python function that parses a date",
    "translation": "Translate this sentence into French",
    "maths": "What is seven times eight?",
    "small talk": "Hello, how are you?",
}
REQUESTS = (
    *EXAMPLES.values(),
    "Why does my program crash?",
    "Übersetze das bitte ins Englische",
    "the square root of 1764",
    "good morning",
)
QUERIES = 150


def model(conn: Any, scale: float) -> bytes:
    """A classifier whose scores are the cosines with the examples, times ``scale``."""
    encoder_id, checksum, dim = conn.execute(
        "SELECT id, checksum, dim FROM tinydancer.active_encoder()"
    ).fetchone()
    rows = [
        conn.execute("SELECT ruvector_embed(%s)", (text,)).fetchone()[0]
        for text in EXAMPLES.values()
    ]
    n = len(rows)
    return write_model(
        ModelSpec(
            task="classifier",
            names=list(EXAMPLES),
            encoder_id=encoder_id,
            encoder_checksum=int(checksum, 16),
            dim=dim,
            link="softmax",
            prior=np.full(n, 1.0 / n),
            support=np.full(n, 10),
            rows=np.empty((0, dim), np.float32),
            members=[Linear(np.ones(n), scale * np.array(rows), np.zeros(n), False)],
        )
    )


def activate(conn: Any, scale: float) -> int:
    """The version of a new model, which is active."""
    (version,) = conn.execute(
        "SELECT tinydancer.add_model('classifier', %s)", (model(conn, scale),)
    ).fetchone()
    conn.execute("SELECT tinydancer.activate_model('classifier', %s, true)", (version,))
    return int(version)


@pytest.fixture
def imported(conn: Any) -> Any:
    """A classifier, the foreign tables, and a log of requests, one of them NULL."""
    conn.execute(
        "CREATE SCHEMA td; IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td"
    )
    activate(conn, 9.0)
    conn.execute("CREATE TABLE log (id int, body text, vector real[])")
    for number, text in enumerate((*REQUESTS, REQUESTS[0], None), 1):
        conn.execute("INSERT INTO log VALUES (%s, %s, ruvector_embed(%s))", (number, text, text))
    conn.execute("ANALYZE log")
    return conn


# The function's answer as the table's rows.
FUNCTION = (
    "(SELECT c.value->>'category' AS category, (c.value->>'probability')::float8 AS probability, "
    "c.ordinality::int AS rank FROM jsonb_array_elements("
    "ruvector_classify_request({request}, {embedding})->'classifications') "
    "WITH ORDINALITY c (value, ordinality))"
)
OUTPUT = "r.category, round(r.probability::numeric, 6), r.rank"
SETTINGS = ("enable_nestloop", "enable_hashjoin", "enable_memoize", "enable_sort")


def queries(rng: random.Random) -> tuple[str, str]:
    """A query on the table and the same on the function."""
    by_vector = rng.random() < 0.4
    by_text = not by_vector or rng.random() < 0.3
    joined = rng.random() < 0.6
    text = "l.body" if joined else f"'{rng.choice(REQUESTS)}'"
    vector = "l.vector" if joined else f"ruvector_embed('{rng.choice(REQUESTS)}')"
    clauses = [f"r.request = {text}"] * by_text + [f"r.embedding = {vector}"] * by_vector
    function = FUNCTION.format(
        request=text if by_text else "NULL", embedding=vector if by_vector else "NULL"
    )
    extra = rng.choice(
        ("", " AND r.rank = 1", " AND r.rank <= 2", " AND r.probability > 0.2", " AND r.rank > 3")
    )
    where = " AND ".join(clauses)
    if joined:
        kind = rng.choice(("JOIN", "LEFT JOIN"))
        return (
            f"SELECT l.id, {OUTPUT} FROM log l {kind} td.request_classes r ON {where}{extra}",
            f"SELECT l.id, {OUTPUT} FROM log l {kind} LATERAL {function} r ON true{extra}",
        )
    tail = rng.choice(
        ("", " ORDER BY r.rank LIMIT 2", " ORDER BY r.probability DESC LIMIT 3", " LIMIT 9")
    )
    return (
        f"SELECT {OUTPUT} FROM td.request_classes r WHERE {where}{extra}{tail}",
        f"SELECT {OUTPUT} FROM {function} r WHERE true{extra}{tail}",
    )


def test_generated_queries_give_the_rows_of_the_function(
    imported: Any, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(request.config.getoption("--seed"))
    for _ in range(QUERIES):
        foreign, function = queries(rng)
        with imported.transaction(force_rollback=True):
            expected = sorted(map(str, imported.execute(function)))
            for name in SETTINGS:
                if rng.random() < 0.15:
                    imported.execute(f"SET LOCAL {name} = off")
            assert sorted(map(str, imported.execute(foreign))) == expected, foreign


def test_categories_come_by_probability_and_name_the_model(imported: Any) -> None:
    rows = imported.execute(
        "SELECT category, probability, rank, model_version FROM td.request_classes "
        "WHERE request = 'Translate this letter into German'"
    ).fetchall()
    assert rows[0][0] == "translation"
    assert [row[2] for row in rows] == [1, 2, 3, 4]
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
    assert abs(sum(row[1] for row in rows) - 1.0) < 1e-6
    assert {row[3] for row in rows} == {2}  # the one that ships is version 1


@pytest.mark.parametrize("order", ["rank", "probability DESC", "probability DESC, rank"])
def test_order_of_the_rows_needs_no_sort(imported: Any, order: str) -> None:
    query = (
        f"SELECT category FROM td.request_classes WHERE request = 'x y' ORDER BY {order} LIMIT 2"
    )
    plan = imported.execute(f"EXPLAIN (ANALYZE, COSTS OFF, FORMAT JSON) {query}").fetchone()[0]
    limit = plan[0]["Plan"]
    scan = limit["Plans"][0]
    assert (limit["Node Type"], scan["Node Type"]) == ("Limit", "Foreign Scan")
    assert scan["Actual Rows"] == 2
    assert (scan["Requests Classified"], scan["Categories Scored"]) == (1, 4)
    for other in ("probability", "rank DESC", "category"):
        again = query.replace(order, other)
        assert any("Sort" in row[0] for row in imported.execute(f"EXPLAIN {again}"))


def test_explain_names_the_model_and_classifies_nothing(imported: Any) -> None:
    query = "SELECT * FROM td.request_classes WHERE request = 'x y'"
    before = imported.execute("SELECT * FROM tinydancer.session_activity()").fetchone()
    plan = imported.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {query}").fetchone()[0][0]["Plan"]
    assert imported.execute("SELECT * FROM tinydancer.session_activity()").fetchone() == before
    assert (plan["Model"], plan["Encoder"]) == ("classifier 2", "static-1")
    imported.execute(query).fetchall()
    after = imported.execute("SELECT * FROM tinydancer.session_activity()").fetchone()
    assert after[-1] == before[-1] + 1


def test_cursor_keeps_its_model_and_the_next_statement_has_the_new_one(imported: Any) -> None:
    query = (
        "SELECT category, probability, model_version FROM td.request_classes WHERE request = 'hi'"
    )
    before = imported.execute(query).fetchall()
    with imported.transaction():
        imported.execute(f"DECLARE c CURSOR FOR {query}")
        fetched = imported.execute("FETCH 1 FROM c").fetchall()
        assert activate(imported, 3.0) == 3
        fetched += imported.execute("FETCH ALL FROM c").fetchall()
        assert fetched == before
        after = imported.execute(query).fetchall()
        assert {row[2] for row in after} == {3}
        assert after[0][1] < before[0][1]


def test_without_a_classifier_only_a_request_is_an_error(conn: Any) -> None:
    conn.execute(
        "IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (request_classes) "
        "FROM SERVER tinydancer INTO public"
    )
    conn.execute("CREATE TABLE log (body text)")
    joined = "SELECT * FROM log l JOIN request_classes r ON r.request = l.body"
    # One ships for each shipped encoder.
    conn.execute("CALL tinydancer.use_encoder('external', 3)")
    assert conn.execute(joined).fetchall() == []
    conn.execute("INSERT INTO log VALUES ('x')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no task classifier"):
        conn.execute(joined)
