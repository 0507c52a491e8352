"""Switching the encoder: who sees it when, who waits for it, and what it leaves behind.

In: several sessions on one database, the shipped encoder and a second one made of its columns.
What is checked: vectors and decisions before, during and after a switch, in every session.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tinydancer import Encoder, Router

DIM = "SELECT cardinality(ruvector_embed('a word'))"
ROUTE = "SELECT agent_name FROM route_results WHERE request = %s"
REQUEST = "translate this sentence into french"
OTHERS = (
    "SELECT count(*) FROM tinydancer.agent_phrase WHERE encoder IS DISTINCT FROM "
    "(SELECT value FROM tinydancer.setting WHERE name = 'encoder')"
)
pytestmark = pytest.mark.usefixtures("encoder_folder")


def register(conn: Any, name: str, description: str | None, **more: Any) -> None:
    """One agent, by the public function."""
    casts = {"embedding": "::real[]", "capabilities": "::text[]"}
    named = "".join(f", {key} := %({key})s{casts.get(key, '')}" for key in more)
    conn.execute(
        "SELECT ruvector_register_agent(%(name)s, 'api', description := %(description)s, "
        f"cost_per_call := 0, avg_latency_ms := 10{named})",
        {"name": name, "description": description, **more},
    )


def use(conn: Any, name: str, dim: int | None = None) -> list[str]:
    """Switch; returns the notices."""
    notices: list[str] = []

    def keep(diagnostic: Any) -> None:
        notices.append(diagnostic.message_primary)

    conn.add_notice_handler(keep)
    try:
        conn.execute("CALL tinydancer.use_encoder(%s, %s)", (name, dim))
    finally:
        conn.remove_notice_handler(keep)
    return notices


def dim(conn: Any) -> int:
    return int(conn.execute(DIM).fetchone()[0])


def active(conn: Any) -> tuple[str, int]:
    return tuple(conn.execute("SELECT id, dim FROM tinydancer.active_encoder()").fetchone())


def wait_for_lock(observer: Any, pid: int) -> None:
    """Until the session waits for another one."""
    deadline = time.monotonic() + 60
    while not observer.execute("SELECT pg_blocking_pids(%s) <> '{}'", (pid,)).fetchone()[0]:
        assert time.monotonic() < deadline, "the session does not wait"
        time.sleep(0.01)


class Later(threading.Thread):
    """A call in another thread, with its result or its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self.call = call
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error

    def get(self) -> Any:
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


# ---------------------------------------------------------------- vectors and decisions


def test_switch_makes_the_vectors_that_a_new_registry_would_have(
    session: Any, agents: list[dict[str, Any]], encoder_folder: Path
) -> None:
    conn = session()
    for agent in agents:
        conn.execute("SELECT ruvector_register_agent_full(%s::jsonb)", (json.dumps(agent),))
    query = (
        "SELECT agent_name, kind, position, phrase, embedding, encoder "
        "FROM tinydancer.agent_phrase ORDER BY 1, 2, 3"
    )
    fresh = conn.execute(query).fetchall()
    use(conn, "small-1")
    switched = conn.execute(query).fetchall()
    assert [row[:4] for row in switched] == [row[:4] for row in fresh]
    assert {(len(row[4]), row[5]) for row in switched} == {(48, "small-1")}
    use(conn, "static")
    assert conn.execute(query).fetchall() == fresh


@pytest.mark.parametrize("encoder", ["small-1", "static-1"])
def test_decisions_after_a_switch_are_those_of_python(
    session: Any, agents: list[dict[str, Any]], encoder_folder: Path, encoder: str
) -> None:
    conn = session()
    for agent in agents:
        conn.execute("SELECT ruvector_register_agent_full(%s::jsonb)", (json.dumps(agent),))
    use(conn, "small-1")
    use(conn, encoder)
    root = Path(__file__).resolve().parents[2] / "python" / "tinydancer" / "demo"
    router = Router.from_json(root / "agents.json", Encoder(encoder_folder / f"{encoder}.tdenc"))
    log = (root / "request_log.jsonl").read_text().splitlines()[:60]
    for request in (json.loads(line)["body"] for line in log):
        row = conn.execute(
            "SELECT agent_name, confidence, similarity, reasoning FROM ruvector_route(%s)",
            (request,),
        ).fetchone()
        decision = router.route(request)
        assert decision is not None
        assert row == (
            decision.agent_name,
            decision.confidence,
            decision.similarity,
            decision.reasoning,
        )


def test_passed_vector_is_made_from_the_description_and_named(session: Any) -> None:
    conn = session()
    register(conn, "passed", "translate texts", embedding=[1.0] * 128, capabilities=["chess"])
    register(conn, "described", "play chess")
    register(conn, "twin", "translate texts")
    notices = use(conn, "small-1")
    assert len(notices) == 1
    assert '"passed"' in notices[0]
    # As similar, to the bit, as an agent who never had another vector than that of the text.
    rows = conn.execute(
        "SELECT agent_name, closest_phrase, similarity "
        "FROM ruvector_explain_route('translate texts') WHERE agent_name IN ('passed', 'twin') "
        "ORDER BY agent_name"
    ).fetchall()
    similarity = rows[1][2]
    assert rows == [(name, "translate texts", similarity) for name in ("passed", "twin")]
    assert similarity > 0.99
    assert use(conn, "static") == []


def test_passed_vectors_without_text_are_listed_and_nothing_changes(session: Any) -> None:
    conn = session()
    names = [f"agent {i}" for i in range(25)]
    for name in names:
        register(conn, name, None, embedding=[1.0] * 128)
    register(conn, "described", "translate texts", embedding=[1.0] * 128)
    before = conn.execute("SELECT * FROM tinydancer.agent_phrase ORDER BY 1, 2, 3").fetchall()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        use(conn, "small-1")
    diag = caught.value.diag
    assert all(f'"{name}"' in diag.message_detail for name in names)
    assert '"described"' not in diag.message_detail
    assert diag.message_hint
    assert active(conn) == ("static-1", 128)
    after = conn.execute("SELECT * FROM tinydancer.agent_phrase ORDER BY 1, 2, 3").fetchall()
    assert after == before


def test_missing_file_is_named_and_nothing_changes(session: Any, encoder_folder: Path) -> None:
    conn = session()
    register(conn, "a", "translate texts")
    (encoder_folder / "small-1.tdenc").unlink()
    with pytest.raises(psycopg.errors.UndefinedFile) as caught:
        use(conn, "small-1")
    assert str(encoder_folder / "small-1.tdenc") in caught.value.diag.message_detail
    assert "tinydancer encoder build small-1" in caught.value.diag.message_hint
    assert active(conn) == ("static-1", 128)
    assert conn.execute(ROUTE, (REQUEST,)).fetchone() == ("a",)


def test_switch_away_from_a_missing_encoder_works(session: Any, encoder_folder: Path) -> None:
    conn = session()
    register(conn, "a", "translate texts")
    use(conn, "small-1")
    (encoder_folder / "small-1.tdenc").unlink()
    with pytest.raises(psycopg.errors.UndefinedFile):
        conn.execute(ROUTE, (REQUEST,))
    use(conn, "static")
    assert conn.execute(ROUTE, (REQUEST,)).fetchone() == ("a",)


def test_hundreds_of_phrases_are_switched(session: Any, rng: Any) -> None:
    """More than fit into one part of the work; the order of rows must not matter."""
    conn = session()
    words = [f"word{i}" for i in rng.permutation(700)]
    conn.execute(
        "INSERT INTO tinydancer.agent (name, type, capabilities, description) "
        "SELECT w, 'tool', ARRAY[w || '-x', 'y ' || w], 'about ' || w FROM unnest(%s::text[]) w",
        (words,),
    )
    use(conn, "small-1")
    wrong = conn.execute(
        "SELECT count(*) FROM tinydancer.agent_phrase p "
        "WHERE p.embedding IS DISTINCT FROM tinydancer.embed_phrase(p.kind, p.phrase)"
    ).fetchone()
    assert wrong == (0,)
    assert conn.execute("SELECT count(*) FROM tinydancer.agent_phrase").fetchone() == (2100,)
    assert conn.execute(OTHERS).fetchone() == (0,)


def test_encoder_of_a_dump_goes_on(session: Any, db: Any) -> None:
    conn = session()
    use(conn, "external", 3)
    register(conn, "a", "translate texts", embedding=[1.0, 0.0, 0.0])
    dump = db.cluster.run("pg_dump", dbname=db.name, capture_output=True).stdout
    with db.cluster.connect(autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {db.name}_copy")
    try:
        db.cluster.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname=f"{db.name}_copy",
                       input=dump, check=True, capture_output=True)  # fmt: skip
        with db.cluster.connect(f"{db.name}_copy", autocommit=True) as copy:
            assert active(copy) == ("external", 3)
            row = copy.execute(
                "SELECT agent_name, similarity FROM ruvector_route(NULL, embedding := '{2,0,0}')"
            ).fetchone()
            assert row == ("a", 1.0)
    finally:
        with db.cluster.connect(autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {db.name}_copy WITH (FORCE)")


# ---------------------------------------------------------------- who sees it


def test_other_session_sees_switch_at_commit_through_prepared_statement(session: Any) -> None:
    writer, reader = session(autocommit=False), session(autocommit=False)
    register(writer, "a", "translate texts")
    writer.commit()
    reader.prepare_threshold = 0
    for _ in range(7):
        assert reader.execute(DIM, prepare=True).fetchone() == (128,)
        assert reader.execute(ROUTE, (REQUEST,), prepare=True).fetchone() == ("a",)
    use(writer, "small-1")
    assert dim(writer) == 48
    assert reader.execute(DIM, prepare=True).fetchone() == (128,)
    assert reader.execute(ROUTE, (REQUEST,), prepare=True).fetchone() == ("a",)
    writer.commit()
    assert reader.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert reader.execute(DIM, prepare=True).fetchone() == (48,)
    assert reader.execute(ROUTE, (REQUEST,), prepare=True).fetchone() == ("a",)
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        reader.execute(
            "SELECT * FROM ruvector_route(NULL, embedding := %s::real[])", ([0.5] * 128,)
        )
    assert '"small-1" have 48, the argument has 128' in caught.value.diag.message_detail


def test_rollback_leaves_everything_as_it_was(session: Any) -> None:
    writer, reader = session(autocommit=False), session()
    register(writer, "a", "translate texts")
    writer.commit()
    tables = ("tinydancer.setting", "tinydancer.agent_phrase")
    before = [reader.execute(f"TABLE {table}").fetchall() for table in tables]
    use(writer, "small-1")
    assert writer.execute(ROUTE, (REQUEST,)).fetchone() == ("a",)
    writer.rollback()
    assert [reader.execute(f"TABLE {table}").fetchall() for table in tables] == before
    assert (dim(writer), dim(reader)) == (128, 128)
    assert writer.execute(ROUTE, (REQUEST,)).fetchone() == ("a",)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_repeatable_read_keeps_its_encoder_until_it_ends(session: Any, level: str) -> None:
    writer, reader = session(), session()
    register(writer, "a", "translate texts")
    reader.execute(f"BEGIN ISOLATION LEVEL {level}")
    assert dim(reader) == 128
    use(writer, "small-1")
    assert dim(reader) == 128
    assert active(reader) == ("static-1", 128)
    assert reader.execute(ROUTE, (REQUEST,)).fetchone() == ("a",)
    assert reader.execute(
        "SELECT agent_name FROM ruvector_route(NULL, embedding := "
        "ruvector_embed('translate', 'static'))"
    ).fetchone() == ("a",)
    reader.execute("COMMIT")
    assert dim(reader) == 48
    assert reader.execute(ROUTE, (REQUEST,)).fetchone() == ("a",)


def test_cursor_keeps_the_encoder_that_it_began_with(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    register(writer, "a", "translate texts")
    with reader.cursor(name="c") as cursor:
        cursor.itersize = 1
        cursor.execute(
            "SELECT cardinality(ruvector_embed('word ' || i)) FROM generate_series(1, 20) i"
        )
        rows = [cursor.fetchone()]
        use(writer, "small-1")
        rows += cursor.fetchall()
    assert rows == [(128,)] * 20
    assert dim(reader) == 48


def test_named_encoders_work_whichever_is_active(session: Any) -> None:
    conn = session()
    dims = (
        "SELECT cardinality(ruvector_embed('x', 'static')), "
        "cardinality(ruvector_embed('x', 'small-1'))"
    )
    for name, length in (("static", 128), ("small-1", 48)):
        use(conn, name)
        assert conn.execute(dims).fetchone() == (128, 48)
        mixed = conn.execute(
            "SELECT cardinality(ruvector_embed('x', CASE i % 2 WHEN 0 THEN 'static' "
            "ELSE 'small-1' END)) FROM generate_series(1, 4) i"
        ).fetchall()
        assert mixed == [(48,), (128,), (48,), (128,)]
        assert dim(conn) == length


# ---------------------------------------------------------------- who waits


def test_second_switch_waits_for_the_first(session: Any) -> None:
    first, second, observer = session(autocommit=False), session(), session()
    register(observer, "a", "translate texts")
    use(first, "small-1")
    later = Later(lambda: use(second, "external", 5))
    wait_for_lock(observer, second.info.backend_pid)
    assert active(observer) == ("static-1", 128)
    first.commit()
    later.get()
    assert active(observer) == ("external", 5)
    assert observer.execute(
        "SELECT count(*) FROM tinydancer.agent_phrase WHERE embedding IS NOT NULL"
    ).fetchone() == (0,)


def test_registration_waits_for_a_switch_and_uses_the_new_encoder(session: Any) -> None:
    switch, writer, observer = session(autocommit=False), session(), session()
    register(observer, "a", "translate texts")
    use(switch, "small-1")
    later = Later(lambda: register(writer, "b", "play chess"))
    wait_for_lock(observer, writer.info.backend_pid)
    assert observer.execute(ROUTE, (REQUEST,)).fetchone() == ("a",)  # readers do not wait
    switch.commit()
    later.get()
    assert observer.execute(OTHERS).fetchone() == (0,)


def test_registration_with_a_vector_of_the_old_length_fails_after_the_wait(session: Any) -> None:
    switch, writer, observer = session(autocommit=False), session(), session()
    use(switch, "small-1")
    later = Later(lambda: register(writer, "b", "play chess", embedding=[1.0] * 128))
    wait_for_lock(observer, writer.info.backend_pid)
    switch.commit()
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        later.get()
    assert observer.execute(OTHERS).fetchone() == (0,)


def test_switch_waits_for_a_registration(session: Any) -> None:
    writer, switch, observer = session(autocommit=False), session(), session()
    register(writer, "a", "translate texts")
    later = Later(lambda: use(switch, "small-1"))
    wait_for_lock(observer, switch.info.backend_pid)
    # More of the same transaction gets by: it has the locks already.
    register(writer, "b", "play chess")
    register(writer, "a", "translate texts")
    writer.commit()
    later.get()
    assert active(observer) == ("small-1", 48)
    assert observer.execute(OTHERS).fetchone() == (0,)


def test_first_registration_and_a_switch_of_an_empty_registry_agree(session: Any) -> None:
    switch, writer, observer = session(autocommit=False), session(), session()
    use(switch, "external", 3)
    later = Later(lambda: register(writer, "b", "play chess", embedding=[1.0, 0.0, 0.0]))
    wait_for_lock(observer, writer.info.backend_pid)
    switch.commit()
    later.get()
    assert active(observer) == ("external", 3)
    assert observer.execute(
        "SELECT kind, encoder FROM tinydancer.agent_phrase WHERE embedding IS NOT NULL"
    ).fetchall() == [("caller", "external")]


def test_old_snapshot_stores_no_vector_of_the_old_encoder(session: Any) -> None:
    switch, writer = session(), session()
    register(switch, "a", "translate texts")
    writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert dim(writer) == 128
    use(switch, "small-1")
    message = "could not serialize access due to a switch of the encoder"
    with pytest.raises(psycopg.errors.SerializationFailure, match=message):
        register(writer, "b", "play chess", embedding=[1.0] * 128)
    writer.execute("ROLLBACK")
    assert switch.execute(OTHERS).fetchone() == (0,)


def test_old_snapshot_switches_only_what_it_can_see_whole(session: Any) -> None:
    writer, switch = session(), session()
    register(writer, "a", "translate texts")
    switch.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert dim(switch) == 128
    register(writer, "b", "play chess")
    with pytest.raises(psycopg.errors.SerializationFailure):
        use(switch, "small-1")
    switch.execute("ROLLBACK")
    assert active(writer) == ("static-1", 128)
    switch.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    use(switch, "small-1")
    assert dim(switch) == 48
    switch.execute("COMMIT")
    assert writer.execute(OTHERS).fetchone() == (0,)


def test_switches_and_registrations_at_once_leave_no_mixture(session: Any) -> None:
    """Two sessions switch while four register: none fails, and no vector is of another encoder."""
    sessions = [session() for _ in range(6)]
    observer = session()

    def switching(conn: Any, names: list[tuple[str, int | None]]) -> None:
        for name in names * 4:
            use(conn, *name)

    def registering(conn: Any, prefix: str) -> None:
        for i in range(12):
            register(conn, f"{prefix}{i % 5}", f"does {prefix} number {i}")

    running = [
        Later(lambda: switching(sessions[0], [("small-1", None), ("static", None)])),
        Later(lambda: switching(sessions[1], [("static", None), ("external", 7)])),
        *(
            Later(lambda i=i: registering(sessions[i], f"r{i}"))  # type: ignore[misc]
            for i in range(2, 6)
        ),
    ]
    for one in running:
        one.get()
    encoder, length = active(observer)
    stored = observer.execute(
        "SELECT DISTINCT encoder, cardinality(embedding) FROM tinydancer.agent_phrase"
    ).fetchall()
    assert stored in ([(None, None)], [(encoder, length)])
    assert observer.execute("SELECT count(*) FROM tinydancer.agent").fetchone() == (20,)
