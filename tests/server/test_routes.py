"""Semantic routes in several sessions: who sees a change, what is read when, and rate limits.

In: several sessions on one database.  What is checked: the routes that a session matches with are
those that its transaction may see, agents and routes do not pay for each other, and the same bits
come out of the server and of Python.
"""

from __future__ import annotations

import datetime
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tinydancer import Route, RouteMatcher

MATCH = "SELECT route_name FROM ruvector_semantic_route(%s, 1)"
LOG = "INSERT INTO tinydancer.decision (agent_name, route_name) VALUES ('x', %s)"
GREETING = "good morning to you"


def create(conn: Any, name: str, utterance: str = "good morning", **more: Any) -> None:
    named = "".join(f", {key} := %({key})s" for key in more)
    conn.execute(
        f"SELECT ruvector_create_route(%(name)s, utterances := ARRAY[%(utterance)s]{named})",
        {"name": name, "utterance": utterance, **more},
    )


def matched(conn: Any, query: str = GREETING) -> str | None:
    row = conn.execute(MATCH, (query,)).fetchone()
    return row[0] if row else None


def builds(conn: Any) -> tuple[int, int]:
    """How often this session has read the registry of agents, and the routes."""
    row = conn.execute("SELECT tinydancer.registry_builds(), tinydancer.route_builds()").fetchone()
    return int(row[0]), int(row[1])


def test_other_session_sees_route_at_commit_and_not_before(session: Any) -> None:
    writer, reader = session(autocommit=False), session()
    create(writer, "a")
    assert matched(writer) == "a"
    assert matched(reader) is None
    writer.commit()
    assert matched(reader) == "a"


def test_prepared_statement_in_open_transaction_sees_commit(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    create(writer, "a", "evening")
    reader.prepare_threshold = 0
    for _ in range(7):
        assert reader.execute(MATCH, (GREETING,), prepare=True).fetchone() == ("a",)
    create(writer, "b", GREETING)
    assert reader.execute(MATCH, (GREETING,), prepare=True).fetchone() == ("b",)


def test_rollback_leaves_no_route(session: Any) -> None:
    writer = session(autocommit=False)
    create(writer, "a", "evening")
    writer.commit()
    create(writer, "b", GREETING)
    assert matched(writer) == "b"
    writer.execute("SAVEPOINT s")
    writer.execute("UPDATE tinydancer.route SET active = false WHERE name = 'b'")
    assert matched(writer) == "a"
    writer.execute("ROLLBACK TO s")
    assert matched(writer) == "b"
    writer.rollback()
    assert matched(writer) == "a"


def test_repeatable_read_neither_sees_the_future_nor_is_stale_afterwards(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    create(writer, "a", "evening")
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    reader.execute("SELECT 1")  # takes the snapshot; the routes are not read yet
    create(writer, "b", GREETING)
    assert matched(reader) == "a"
    reader.commit()
    assert matched(reader) == "b"


def test_cursor_sees_one_set_of_routes_from_first_row_to_last(session: Any) -> None:
    writer, reader = session(), session(autocommit=False)
    create(writer, "a", "evening")
    reader.execute("SET LOCAL cursor_tuple_fraction = 1")
    with reader.cursor(name="c") as cursor:
        cursor.itersize = 1
        cursor.execute(
            "SELECT s.route_name FROM generate_series(1, 50) i, "
            "LATERAL ruvector_semantic_route(%s || i, 1) s",
            (GREETING,),
        )
        rows = [cursor.fetchone()[0]]
        create(writer, "b", GREETING)
        rows += [row[0] for row in cursor]
    assert rows == ["a"] * 50
    assert matched(reader) == "b"


def test_drop_and_create_extension_in_one_session_matches_again(session: Any) -> None:
    conn = session()
    create(conn, "a", rate_limit=5)
    assert matched(conn) == "a"
    conn.execute("DROP EXTENSION tinydancer CASCADE")
    conn.execute("CREATE EXTENSION tinydancer")
    assert matched(conn) is None
    create(conn, "b", rate_limit=1)
    assert matched(conn) == "b"
    conn.execute(LOG, ("b",))
    assert matched(conn) is None


def test_truncate_and_tuning_are_seen_by_other_sessions(session: Any) -> None:
    writer, reader = session(), session()
    for name in ("a", "b"):
        writer.execute(
            "SELECT ruvector_create_route(%s, utterances := "
            "ARRAY(SELECT %s || ' number ' || i FROM generate_series(1, 6) i))",
            (name, "sunny weather" if name == "a" else "unpaid invoice"),
        )
    before = reader.execute(
        "SELECT confidence FROM ruvector_semantic_route('sunny weather', 1)"
    ).fetchone()[0]
    writer.execute("SELECT ruvector_tune_routes()")
    after = reader.execute(
        "SELECT confidence FROM ruvector_semantic_route('sunny weather', 1)"
    ).fetchone()[0]
    assert after != before
    writer.execute("TRUNCATE tinydancer.route CASCADE")
    assert matched(reader) is None


def test_agents_and_routes_do_not_pay_for_each_other(session: Any) -> None:
    conn, other = session(), session()
    other.execute("SELECT ruvector_register_agent('x', 'api', description := 'greets people')")
    create(other, "a")
    conn.execute("SELECT * FROM ruvector_route('hello')").fetchall()
    assert builds(conn) == (1, 0)
    assert matched(conn) == "a"
    assert builds(conn) == (1, 1)
    # A changed price does not read the routes again, a changed route not the agents.
    other.execute("UPDATE tinydancer.agent SET cost_per_call = 0.5")
    assert matched(conn) == "a"
    conn.execute("SELECT * FROM ruvector_route('hello')").fetchall()
    assert builds(conn) == (2, 1)
    create(other, "b")
    conn.execute("SELECT * FROM ruvector_route('hello')").fetchall()
    assert matched(conn) == "a"
    assert builds(conn) == (2, 2)
    # The log and maintenance change neither.
    other.execute(LOG, ("a",))
    for command in ("VACUUM", "ANALYZE", "VACUUM FULL"):
        other.execute(f"{command} tinydancer.route")
        other.execute(f"{command} tinydancer.route_utterance")
    assert matched(conn) == "a"
    conn.execute("SELECT * FROM ruvector_route('hello')").fetchall()
    assert builds(conn) == (2, 2)


def test_parallel_workers_match_the_leaders_routes(session: Any) -> None:
    conn = session()
    create(conn, "a")
    create(conn, "b", "unpaid invoice", rate_limit=1000000)
    conn.execute(
        "CREATE TABLE log AS SELECT CASE i % 2 WHEN 0 THEN 'good morning ' ELSE 'invoice ' END "
        "|| i AS body FROM generate_series(1, 5000) i"
    )
    conn.execute("ANALYZE log")
    query = (
        "SELECT s.route_name, count(*) FROM log, LATERAL ruvector_semantic_route(log.body, 1) s "
        "GROUP BY 1 ORDER BY 1"
    )
    serial = conn.execute(query).fetchall()
    for setting in (
        "parallel_setup_cost = 0",
        "parallel_tuple_cost = 0",
        "min_parallel_table_scan_size = 0",
        "max_parallel_workers_per_gather = 2",
    ):
        conn.execute(f"SET {setting}")
    plan = "\n".join(row[0] for row in conn.execute("EXPLAIN " + query))
    assert "Gather" in plan, plan
    assert conn.execute(query).fetchall() == serial


def test_tuning_can_be_cancelled_and_leaves_nothing_behind(session: Any) -> None:
    conn = session()
    conn.execute(
        "SELECT ruvector_create_route('route ' || i, utterances := ARRAY("
        "SELECT md5(i || ' ' || j) || ' topic ' || i FROM generate_series(1, 200) j)) "
        "FROM generate_series(1, 15) i"
    )
    conn.execute("SET statement_timeout = '50ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute("SELECT ruvector_tune_routes(force_scorer := 'ridge')")
    conn.execute("RESET statement_timeout")
    assert conn.execute("SELECT count(*) FROM tinydancer.route_scorer").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM ruvector_semantic_route('x', 99)").fetchone() == (15,)


# ---------------------------------------------------------------- rate limits


def test_rate_limit_counts_what_other_sessions_have_committed(session: Any) -> None:
    a, b = session(), session(autocommit=False)
    create(a, "busy", GREETING, rate_limit=2, priority=1)
    create(a, "spare", "good evening")
    assert matched(a) == "busy"
    b.execute(LOG, ("busy",))
    b.execute(LOG, ("busy",))
    # Its own decisions count for a session at once, for others from the commit on.
    assert matched(b) == "spare"
    assert matched(a) == "busy"
    b.commit()
    assert matched(a) == "spare"


def test_rate_limit_in_a_long_transaction_counts_later_decisions(session: Any) -> None:
    a, b = session(autocommit=False), session()
    create(b, "busy", GREETING, rate_limit=1)
    assert matched(a) == "busy"
    # Later than a's now(), which is when its transaction began.
    b.execute(LOG, ("busy",))
    assert matched(a) is None
    a.rollback()


def test_rate_limit_under_repeatable_read_is_that_of_the_snapshot(session: Any) -> None:
    a, b = session(autocommit=False), session()
    create(b, "busy", GREETING, rate_limit=1)
    a.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    assert matched(a) == "busy"
    b.execute(LOG, ("busy",))
    assert matched(a) == "busy"
    a.commit()
    assert matched(a) is None


def test_rate_limit_holds_for_sessions_that_match_and_log_in_turn(session: Any) -> None:
    """Who takes a lock round matching and logging never gets past the limit."""
    setup = session()
    create(setup, "busy", GREETING, rate_limit=7)
    sessions = [session(autocommit=False) for _ in range(8)]

    def work(conn: Any) -> None:
        for _ in range(5):
            conn.execute("SELECT pg_advisory_xact_lock(1)")
            if matched(conn) == "busy":
                conn.execute(LOG, ("busy",))
            conn.commit()

    threads = [threading.Thread(target=work, args=(conn,)) for conn in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert setup.execute("SELECT count(*) FROM tinydancer.decision").fetchone() == (7,)


def test_log_is_read_only_when_a_matched_route_has_a_limit(session: Any) -> None:
    holder, conn = session(autocommit=False), session()
    create(conn, "busy", "unpaid invoice", rate_limit=5)
    create(conn, "free", GREETING)
    assert matched(conn, "unpaid invoice") == "busy"
    holder.execute("LOCK TABLE tinydancer.decision IN ACCESS EXCLUSIVE MODE")
    conn.execute("SET lock_timeout = '200ms'")
    assert matched(conn) == "free"
    with pytest.raises(psycopg.errors.LockNotAvailable):
        matched(conn, "unpaid invoice")
    holder.rollback()
    assert matched(conn, "unpaid invoice") == "busy"


# ---------------------------------------------------------------- both shells

TOPICS = {
    "weather": ["will it rain tomorrow", "is it going to snow", "how hot will it be", "sunny days"],
    "billing": ["refund my money", "wrong amount on my invoice", "i was charged twice", "my bill"],
    "travel": ["book a flight to paris", "a hotel in rome", "rent a car", "train to berlin"],
    "Greeting": ["hello", "good morning", "good evening", "hi there"],
    "cooking": ["bake bread", "a recipe for onion soup", "how long do i boil an egg"],
}
NEGATIVES = {"weather": ["rain on my parade"], "travel": ["flight of stairs", "train a dog"]}


def routes_of_both(conn: Any) -> RouteMatcher:
    routes = [
        Route(
            name,
            f"{name}-agent",
            utterances,
            NEGATIVES.get(name, []),
            priority=len(name) % 3,
            time_start=datetime.time(8) if name == "billing" else None,
            time_end=datetime.time(18) if name == "billing" else None,
            user_tiers=["gold"] if name == "cooking" else [],
        )
        for name, utterances in TOPICS.items()
    ]
    routes.append(Route("vector", None, description="x", embedding=[0.5, -0.5] * 64))
    routes.append(Route("described", None, description="repairs of cars and bicycles"))
    conn.execute("SET client_min_messages = warning")
    for route in routes:
        conn.execute(
            "SELECT ruvector_create_route(%s, %s, %s::real[], %s, %s, %s, NULL, %s, %s, %s, NULL, "
            "%s)",
            (
                route.name,
                route.description,
                route.embedding,
                route.target_agent,
                route.priority,
                list(route.utterances),
                route.time_start,
                route.time_end,
                list(route.user_tiers),
                list(route.negatives),
            ),
        )
    return RouteMatcher(routes)


@pytest.mark.parametrize("scorer", ["nearest", "centroid", "top3", "ridge", None])
def test_matches_and_reports_have_the_same_bits(conn: Any, scorer: str | None) -> None:
    offline = routes_of_both(conn)
    queries = [text for texts in (*TOPICS.values(), *NEGATIVES.values()) for text in texts]
    queries += [f"{a} and {b}" for a, b in zip(queries, reversed(queries), strict=True)]
    columns = (
        "route_name, utterances, scorer, threshold, precision, coverage, most_confused_with, "
        "confusion, accuracy"
    )
    for wish in ({}, {"target_precision": 0.9}, {"target_coverage": 0.6}):
        named = "".join(f"{key} := {value}, " for key, value in wish.items())
        rows = conn.execute(
            f"SELECT {columns} FROM ruvector_tune_routes({named} force_scorer := %s)", (scorer,)
        ).fetchall()
        reports = offline.tune(**wish, force_scorer=scorer)
        names = columns.split(", ")
        assert [dict(zip(names, row, strict=True)) for row in rows] == [
            {name: getattr(report, name) for name in names} for report in reports
        ]
        for tier, hour in ((None, 3), ("gold", 12)):
            at = datetime.datetime(2026, 3, 1, hour, tzinfo=datetime.timezone.utc)
            rows = conn.execute(
                "SELECT q, s.* FROM unnest(%s::text[]) WITH ORDINALITY AS u (q, n), "
                "LATERAL ruvector_semantic_route(q, 4, %s, %s) WITH ORDINALITY AS s "
                "ORDER BY n, s.ordinality",
                (queries, tier, at),
            ).fetchall()
            want = [
                (q, m.route_name, m.similarity, m.target_agent, m.confidence, place)
                for q in queries
                for place, m in enumerate(offline.match(q, 4, tier, at), start=1)
            ]
            assert rows == want
            assert rows


def test_weights_that_are_stored_are_those_of_a_fit(conn: Any, session: Any) -> None:
    routes_of_both(conn)
    conn.execute("SELECT ruvector_tune_routes(force_scorer := 'ridge')")
    query = "SELECT * FROM ruvector_semantic_route('a train to rome in the rain', 10)"
    stored = session().execute(query).fetchall()
    conn.execute("UPDATE tinydancer.route_scorer SET weights = NULL")
    assert session().execute(query).fetchall() == stored


# ---------------------------------------------------------------- real data


def load(path: Path) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def test_tuned_routes_of_real_intents_do_what_was_wanted(
    conn: Any, shared: Path, rng: np.random.Generator
) -> None:
    """Forty intents of CLINC150, ten utterances each; bench/routes.py measures them all."""
    texts, labels = load(shared / "intents" / "clinc150_train.jsonl")
    held_texts, held_labels = load(shared / "intents" / "clinc150_val.jsonl")
    names = sorted(set(labels) - {"oos"})
    chosen = [names[i] for i in rng.permutation(len(names))[:40]]
    by_label: dict[str, list[str]] = {name: [] for name in chosen}
    for i in rng.permutation(len(texts)):
        if labels[i] in by_label and len(by_label[labels[i]]) < 10:
            by_label[labels[i]].append(texts[i])
    for name, utterances in by_label.items():
        conn.execute("SELECT ruvector_create_route(%s, utterances := %s)", (name, utterances))
    held = [(t, y) for t, y in zip(held_texts, held_labels, strict=True) if y in by_label]

    def answers() -> list[tuple[str, str | None, float | None]]:
        return conn.execute(
            "SELECT u.y, s.route_name, s.confidence "
            "FROM unnest(%s::text[], %s::text[]) AS u (q, y) "
            "LEFT JOIN LATERAL ruvector_semantic_route(u.q, 1) s ON true",
            ([t for t, _ in held], [y for _, y in held]),
        ).fetchall()

    def accuracy(rows: list[tuple[str, str | None, float | None]]) -> float:
        return float(np.mean([y == name for y, name, _ in rows]))

    before = accuracy(answers())
    conn.execute("SELECT ruvector_tune_routes()")
    after = answers()
    assert accuracy(after) > before
    # Confidence in bins of how often it was right: the error of an untuned one is far above this.
    right = np.array([y == name for y, name, _ in after])
    said = np.array([confidence for _, _, confidence in after])
    bins = np.minimum((said * 15).astype(int), 14)
    error = sum(
        abs(right[bins == b].mean() - said[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )
    assert error < 0.06

    conn.execute("SELECT ruvector_tune_routes(0.95)")
    answered = [row for row in answers() if row[1] is not None]
    assert accuracy(answered) > 0.92
    assert 0.5 * len(held) < len(answered) < len(held)
