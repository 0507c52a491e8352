"""Trained models as rows: which one a session uses, and that it says what the kernel says.

In: random models of a few members, written by tinydancer.model_file.  What is checked: decisions
and classes against the Python shell, activation and roll-back across sessions, what is refused, and
that agents outside of the model are neither preferred nor passed over.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import model_specs as models
import numpy as np
import psycopg
import pytest

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.model_file import ModelSpec, write_model
from tinydancer.route import Agent, Router

REQUESTS = [
    "Translate this contract into French",
    "debug my Python program, it crashes with a segmentation fault",
    "summarise the quarterly report in three sentences",
    "x",
    "what is the capital of Peru?",
]
KINDS = ("linear8", "cell8", "knn", "rbf", "words")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("static")


def identity(encoder: Encoder) -> tuple[str, int]:
    return encoder.id, int(encoder.checksum, 16)


def quality_model(encoder: Encoder, names: list[str], seed: int = 1, **changes: Any) -> ModelSpec:
    spec = models.random_model(seed, KINDS, n_out=len(names), encoder=identity(encoder))
    members = [dataclasses.replace(m, weight=np.full(len(names), 0.2)) for m in spec.members]
    return dataclasses.replace(spec, names=names, members=members, **changes)


def add(conn: Any, spec: ModelSpec, **metrics: Any) -> int:
    row = conn.execute(
        "SELECT tinydancer.add_model(%s, %s, %s::jsonb)",
        (spec.task, write_model(spec), json.dumps(metrics)),
    ).fetchone()
    return int(row[0])


def activate(conn: Any, spec: ModelSpec) -> int:
    version = add(conn, spec, beats_baseline=True)
    conn.execute("SELECT tinydancer.activate_model(%s, %s)", (spec.task, version))
    return version


def names_of(agents: list[dict[str, Any]]) -> list[str]:
    return sorted(agent["name"] for agent in agents)


def chosen(conn: Any, request: str, target: str = "quality") -> Any:
    return conn.execute(
        "SELECT agent_name, expected_quality, confidence, estimated_cost, reasoning "
        "FROM ruvector_route(%s, %s)",
        (request, target),
    ).fetchone()


@pytest.mark.parametrize("target", ["quality", "cost", "latency", "balanced", "quality_per_dollar"])
def test_decisions_with_a_model_are_those_of_the_python_shell(
    registry: Any, agents: list[dict[str, Any]], encoder: Encoder, target: str
) -> None:
    spec = quality_model(encoder, names_of(agents)[:-2])
    activate(registry, spec)
    router = Router(
        [Agent.from_dict(a) for a in agents], encoder, model=_kernels.Model(write_model(spec))
    )
    for request in REQUESTS:
        decision = router.route(request, target)
        assert decision is not None
        name, quality, confidence, cost, reasoning = chosen(registry, request, target)
        assert (name, quality, confidence, cost, reasoning) == (
            decision.agent_name,
            decision.expected_quality,
            decision.expected_quality,
            decision.estimated_cost,
            decision.reasoning,
        )
        joined = registry.execute(
            "SELECT agent_name, expected_quality, reasoning FROM route_results "
            "WHERE request = %s AND optimize_for = %s",
            (request, target),
        ).fetchone()
        assert joined == (name, quality, reasoning)
    # The words of each text count, and not only its vector.
    requests = REQUESTS * 5
    batch = registry.execute(
        "SELECT agent_name, expected_quality, reasoning "
        "FROM ruvector_batch_route(%s::text[], %s) ORDER BY request_index",
        (requests, target),
    ).fetchall()
    alone = {text: chosen(registry, text, target) for text in REQUESTS}
    assert batch == [(*alone[text][:2], alone[text][4]) for text in requests]
    assert batch == [
        (d.agent_name, d.expected_quality, d.reasoning)
        for d in router.route_batch(requests, target)
    ]


def test_reasoning_says_where_the_quality_comes_from(
    registry: Any, agents: list[dict[str, Any]], encoder: Encoder
) -> None:
    names = names_of(agents)
    activate(registry, quality_model(encoder, names[:-1]))
    rows = dict(
        registry.execute("SELECT agent_name, reasoning FROM ruvector_explain_route('hello')")
    )
    assert all("predicted quality" in rows[name] for name in names[:-1])
    assert "(from the model's mean)" in rows[names[-1]]


def test_same_model_without_text_reads_the_vector_alone(
    registry: Any, agents: list[dict[str, Any]], encoder: Encoder
) -> None:
    spec = quality_model(encoder, names_of(agents))
    activate(registry, spec)
    model = _kernels.Model(write_model(spec))
    vector = encoder.embed(REQUESTS[0])
    expected = model.apply(vector)[0]
    rows = registry.execute(
        "SELECT agent_name, expected_quality "
        "FROM ruvector_explain_route(NULL, embedding => %s::real[])",
        ([float(x) for x in vector[0]],),
    ).fetchall()
    for name, quality in rows:
        assert quality == pytest.approx(float(expected[spec.names.index(name)]), abs=1e-7)


def test_agent_outside_the_model_is_neither_preferred_nor_passed_over(
    conn: Any, encoder: Encoder
) -> None:
    for name in ("a", "b", "c", "new"):
        conn.execute(
            "SELECT ruvector_register_agent(%s, 'llm', cost_per_call := 0.001, "
            "avg_latency_ms := 100, quality_score := 0.7)",
            (name,),
        )
    spec = quality_model(encoder, ["a", "b", "c"])
    activate(conn, spec)
    wins = 0
    for request in REQUESTS:
        rows = dict(
            conn.execute(
                "SELECT agent_name, expected_quality FROM ruvector_explain_route(%s)", (request,)
            )
        )
        known = [rows[name] for name in ("a", "b", "c")]
        assert rows["new"] == pytest.approx(np.mean(known))
        wins += rows["new"] == max(rows.values())
    assert wins == 0
    # Better by its own figures than they are by theirs: half of that counts.
    conn.execute("UPDATE tinydancer.agent SET quality_score = 0.9 WHERE name = 'new'")
    rows = dict(
        conn.execute("SELECT agent_name, expected_quality FROM ruvector_explain_route('x')")
    )
    known = [rows[name] for name in ("a", "b", "c")]
    assert rows["new"] == pytest.approx(min(1.0, np.mean(known) + 0.5 * 0.2))


def test_agents_without_labels_are_not_covered(conn: Any, encoder: Encoder) -> None:
    for name in ("a", "b"):
        conn.execute("SELECT ruvector_register_agent(%s, 'llm', quality_score := 0.5)", (name,))
    activate(conn, quality_model(encoder, ["a", "b"], support=np.array([9, 0])))
    rows = dict(
        conn.execute("SELECT agent_name, expected_quality FROM ruvector_explain_route('x')")
    )
    assert rows["a"] == rows["b"]


def test_model_of_unknown_agents_says_nothing(registry: Any, encoder: Encoder) -> None:
    before = [chosen(registry, request) for request in REQUESTS]
    activate(registry, quality_model(encoder, ["nobody", "neither"]))
    assert [chosen(registry, request) for request in REQUESTS] == before


def test_other_sessions_use_a_model_from_commit_on_and_roll_back(
    registry: Any, session: Any, agents: list[dict[str, Any]], encoder: Encoder
) -> None:
    reader, writer = session(), session(autocommit=False)
    untrained = chosen(reader, REQUESTS[0])
    first = activate(writer, quality_model(encoder, names_of(agents), 1))
    assert chosen(reader, REQUESTS[0]) == untrained
    with_first = chosen(writer, REQUESTS[0])
    assert with_first != untrained
    writer.rollback()
    assert chosen(writer, REQUESTS[0]) == untrained
    writer.commit()
    assert activate(writer, quality_model(encoder, names_of(agents), 1)) == first
    writer.commit()
    assert chosen(reader, REQUESTS[0]) == with_first
    second = activate(writer, quality_model(encoder, names_of(agents), 2))
    writer.commit()
    with_second = chosen(reader, REQUESTS[0])
    assert with_second != with_first
    assert reader.execute("SELECT tinydancer.active_model('quality')").fetchone() == (
        f"quality {second}",
    )
    writer.execute("SELECT tinydancer.activate_model('quality', %s)", (first,))
    writer.commit()
    assert chosen(reader, REQUESTS[0]) == with_first
    writer.execute("SELECT tinydancer.deactivate_model('quality')")
    writer.commit()
    assert chosen(reader, REQUESTS[0]) == untrained
    assert reader.execute("SELECT tinydancer.active_model('quality')").fetchone() == (None,)


def test_open_cursor_keeps_its_model_and_registry(
    registry: Any, session: Any, agents: list[dict[str, Any]], encoder: Encoder
) -> None:
    names = names_of(agents)
    activate(registry, quality_model(encoder, names, 1))
    registry.execute(
        "CREATE TABLE log AS SELECT 'request ' || g AS body FROM generate_series(1, 500) g"
    )
    query = (
        "SELECT r.agent_name, r.expected_quality FROM log l "
        "JOIN route_results r ON r.request = l.body"
    )
    expected = registry.execute(query).fetchall()
    reader = session(autocommit=False)
    reader.execute(f"DECLARE c CURSOR FOR {query}")
    got = reader.execute("FETCH 10 FROM c").fetchall()
    activate(registry, quality_model(encoder, names, 2))
    registry.execute("SELECT ruvector_register_agent('aaa', 'llm', quality_score := 0.99)")
    # The same session maps the new registry onto the new model meanwhile.
    assert reader.execute("SELECT count(*) FROM ruvector_explain_route('x')").fetchone()[0] == (
        len(names) + 1
    )
    got += reader.execute("FETCH ALL FROM c").fetchall()
    assert got == expected


def test_dispatch_logs_the_model(
    registry: Any, agents: list[dict[str, Any]], encoder: Encoder
) -> None:
    version = activate(registry, quality_model(encoder, names_of(agents)))
    registry.execute("SELECT ruvector_dispatch('hello')")
    assert registry.execute("SELECT model FROM tinydancer.decision").fetchall() == [
        (f"quality {version}",)
    ]


@pytest.mark.parametrize(
    ("task", "link", "function"),
    [
        ("classifier", "softmax", "ruvector_classify_request"),
        ("capabilities", "sigmoid", "ruvector_classify_capabilities"),
    ],
)
def test_classes_are_those_of_the_python_shell(
    conn: Any, encoder: Encoder, task: str, link: str, function: str
) -> None:
    spec = models.random_model(5, KINDS, task=task, link=link, encoder=identity(encoder))
    activate(conn, spec)
    model = _kernels.Model(write_model(spec))
    for request in REQUESTS:
        vector = encoder.embed(request)
        for arguments, expected in (
            ((request, None), model.apply(vector, [request], encoder)[0]),
            ((None, [float(x) for x in vector[0]]), model.apply(vector)[0]),
        ):
            got = conn.execute(f"SELECT {function}(%s, %s::real[])", arguments).fetchone()[0]
            ranked = got["classifications"]
            assert {c["category"] for c in ranked} == set(spec.names)
            for c in ranked:
                assert c["probability"] == pytest.approx(
                    float(expected[spec.names.index(c["category"])]), abs=1e-6
                )
            values = [c["probability"] for c in ranked]
            assert values == sorted(values, reverse=True)
            assert (got["top_category"], got["confidence"]) == (ranked[0]["category"], values[0])


# ------------------------------------------------------------------------------- what is refused


def sqlstate(conn: Any, query: str, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(query, arguments)
    return str(caught.value.sqlstate), str(caught.value.diag.message_primary)


def test_model_that_does_not_beat_its_baseline_is_refused_unless_forced(
    registry: Any, agents: list[dict[str, Any]], encoder: Encoder
) -> None:
    spec = quality_model(encoder, names_of(agents))
    version = add(
        registry, spec, beats_baseline=False, metric="accuracy", ours=0.61, baseline="best single",
        baseline_value=0.62,
    )  # fmt: skip
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        registry.execute("SELECT tinydancer.activate_model('quality', %s)", (version,))
    assert caught.value.diag.message_primary == "model does not beat its baseline"
    assert "accuracy 0.61" in str(caught.value.diag.message_detail)
    assert "best single has 0.62" in str(caught.value.diag.message_detail)
    registry.execute("SELECT tinydancer.activate_model('quality', %s, force => true)", (version,))
    silent = add(registry, spec)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="do not say"):
        registry.execute("SELECT tinydancer.activate_model('quality', %s)", (silent,))


def test_model_for_another_encoder_is_refused_with_a_hint(conn: Any, encoder: Encoder) -> None:
    for spec in (
        models.random_model(1, ("knn",), encoder=("other-1", 5)),
        models.random_model(1, ("knn",), encoder=(encoder.id, 5)),
        models.random_model(1, ("knn",), encoder=identity(encoder), dim=64),
    ):
        version = add(conn, spec, beats_baseline=True)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
            conn.execute("SELECT tinydancer.activate_model('quality', %s, true)", (version,))
        assert "for another encoder" in str(caught.value.diag.message_primary)
        assert "use_encoder" in str(caught.value.diag.message_hint)
        conn.execute("SELECT ruvector_register_agent('a', 'llm')")
        assert chosen(conn, "x") is not None


def test_model_whose_encoder_file_differs_is_an_error_and_not_a_wrong_answer(
    registry: Any, encoder: Encoder
) -> None:
    spec = models.random_model(1, ("knn",), encoder=(encoder.id, 5))
    version = add(registry, spec, beats_baseline=True)
    registry.execute(
        "UPDATE tinydancer.model SET active = true WHERE kind = 'quality' AND version = %s",
        (version,),
    )
    assert sqlstate(registry, "SELECT * FROM ruvector_route('x')") == (
        "55000",
        'model is for another encoder than "static-1"',
    )


def test_damaged_bytes_never_get_into_the_table(conn: Any, encoder: Encoder) -> None:
    good = write_model(models.random_model(1, ("knn",), encoder=identity(encoder)))
    for damaged in (
        b"",
        b"x" * 500,
        good[:-1],
        good + b"\0",
        good[:200] + bytes([good[200] ^ 1]) + good[201:],
    ):
        state, _ = sqlstate(conn, "SELECT tinydancer.add_model('quality', %s)", damaged)
        assert state == "XX001"
        state, _ = sqlstate(
            conn,
            "INSERT INTO tinydancer.model (kind, version, encoder, bytes, checksum) "
            "VALUES ('quality', 1, 'static-1', %s, '')",
            damaged,
        )
        assert state == "XX001"
    version = add(conn, models.random_model(1, ("knn",), encoder=identity(encoder)))
    state, _ = sqlstate(
        conn,
        "UPDATE tinydancer.model SET bytes = %s WHERE kind = 'quality' AND version = %s",
        good[:-1],
        version,
    )
    assert state == "XX001"


def test_row_must_say_what_its_bytes_say(conn: Any, encoder: Encoder) -> None:
    good = write_model(models.random_model(1, ("knn",), encoder=identity(encoder)))
    assert sqlstate(conn, "SELECT tinydancer.add_model('classifier', %s)", good) == (
        "22023",
        'model is of kind "quality" for encoder "static-1"',
    )


def test_active_model_cannot_be_dropped_another_can(
    registry: Any, agents: list[dict[str, Any]], encoder: Encoder
) -> None:
    first = activate(registry, quality_model(encoder, names_of(agents), 1))
    second = activate(registry, quality_model(encoder, names_of(agents), 2))
    assert sqlstate(registry, "SELECT tinydancer.drop_model('quality', %s)", second) == (
        "55006",
        f'cannot drop model "quality" version {second}',
    )
    registry.execute("SELECT tinydancer.drop_model('quality', %s)", (first,))
    assert sqlstate(registry, "SELECT tinydancer.activate_model('quality', %s)", first) == (
        "42704",
        f'model "quality" version {first} does not exist',
    )


def test_checksum_is_that_of_the_file(conn: Any, encoder: Encoder) -> None:
    data = write_model(models.random_model(1, ("knn",), encoder=identity(encoder)))
    conn.execute("SELECT tinydancer.add_model('quality', %s)", (data,))
    stored = conn.execute(
        "SELECT checksum, bytes FROM tinydancer.model WHERE NOT builtin"
    ).fetchone()
    assert stored == (_kernels.Model(data).checksum, data)
