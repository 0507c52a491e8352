"""Embedding serves interrupts, and gives back the memory that it took.

In: long texts and large registries, with the shipped encoder and with MiniLM where it was built.
What is checked: that a statement is cancelled while it embeds, that the session and the cluster go
on, and what /proc and the server say of the session's memory.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tinydancer import Encoder

ROOT = Path(__file__).resolve().parents[2]
MINILM = ROOT / "build" / "encoders" / "minilm-l6-v2-1.tdenc"
WORDS = "the quick brown fox jumps over lazy dogs while considering quarterly results "
LONG = WORDS * 40  # more than MiniLM's 254 word pieces
# One step of the kernel and what surrounds it, on a machine with much else to do.
SOON = 50
# A log without end, whose requests count themselves.
JOIN = (
    "SELECT r.agent_name FROM (SELECT '{words}' || i || nextval('progress') AS body "
    "FROM (SELECT generate_series(1, 100000000) AS i) g OFFSET 0) l "
    "JOIN route_results r ON r.request = l.body"
)


@pytest.fixture
def minilm(db: Any, encoder_folder: Path) -> Any:
    """A session of a database whose encoder is MiniLM."""
    if not MINILM.exists():
        pytest.skip(f"MiniLM was not built: {MINILM}")
    target = encoder_folder / MINILM.name
    target.write_bytes(MINILM.read_bytes())
    target.chmod(0o644)
    with db.connect() as conn:
        conn.execute("CALL tinydancer.use_encoder('minilm')")
        yield conn


def cancelled_after(conn: Any, statement: str, params: tuple[Any, ...], timeout_ms: int) -> None:
    """The statement is cancelled by its timeout, and the session goes on."""
    conn.execute(f"SET statement_timeout = {timeout_ms}")
    with pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute(statement, params)
    conn.execute("RESET statement_timeout")
    assert conn.execute("SELECT 1").fetchone() == (1,)


def progress_when_cancelled(db: Any, statement: str) -> int:
    """How far a statement that counts in a sequence got before it was cancelled from outside."""
    with db.connect() as conn, db.connect() as other:
        conn.execute("SELECT ruvector_register_agent('a', 'api', description := 'a fox')")
        other.execute("CREATE SEQUENCE IF NOT EXISTS progress")
        other.execute("ALTER SEQUENCE progress RESTART")
        failure: list[BaseException] = []

        def run() -> None:
            try:
                conn.execute(statement)
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 60
        while not other.execute("SELECT is_called FROM progress").fetchone()[0]:
            assert time.monotonic() < deadline
        other.execute("SELECT pg_cancel_backend(%s)", (conn.info.backend_pid,))
        thread.join(60)
        assert not thread.is_alive()
        assert isinstance(failure[0], psycopg.errors.QueryCanceled)
        return int(other.execute("SELECT last_value FROM progress").fetchone()[0])


def anonymous_kb(pid: int) -> int:
    """Kilobytes of a process that it shares with nobody and no file."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("the system does not tell")


# ---------------------------------------------------------------- interrupts


def test_text_of_many_megabytes_is_cancelled(conn: Any) -> None:
    """Only its first word pieces are embedded, but all are counted."""
    cancelled_after(conn, "SELECT ruvector_embed(repeat(%s, 4000000))", (WORDS,), SOON)
    cancelled_after(
        conn,
        "SELECT * FROM ruvector_route(repeat(%s, 4000000), "
        "embedding := ruvector_embed('x', 'static'))",
        (WORDS,),
        SOON,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT ruvector_embed('{words}' || nextval('progress')) "
        "FROM generate_series(1, 100000000)",
        "SELECT r.agent_name FROM generate_series(1, 100000000) i, "
        "LATERAL ruvector_route('{words}' || i || nextval('progress')) r",
        JOIN,
    ],
)
def test_embedding_row_by_row_is_cancelled(db: Any, statement: str) -> None:
    got = progress_when_cancelled(db, statement.format(words=WORDS))
    assert 1 <= got < 100_000_000


def test_list_of_requests_is_cancelled(conn: Any) -> None:
    """One scan that answers a million requests."""
    conn.execute("SELECT ruvector_register_agent('a', 'api', description := 'a fox')")
    conn.execute(
        "CREATE TABLE lists AS SELECT array_agg('request ' || i) AS texts "
        "FROM generate_series(1, 1000000) i"
    )
    statement = (
        "SELECT r.agent_name FROM lists l JOIN route_results r ON r.request = ANY (l.texts) "
        "WHERE r.agent_name = 'b'"
    )
    cancelled_after(conn, statement, (), 4 * SOON)


def test_minilm_is_cancelled_in_the_midst_of_a_join(minilm: Any, db: Any) -> None:
    got = progress_when_cancelled(db, JOIN.format(words=LONG))
    assert 1 <= got < 100_000_000


def test_minilm_is_cancelled_in_the_midst_of_one_text(minilm: Any) -> None:
    """At the slowest level one text takes several times the timeout."""
    minilm.execute("SET tinydancer.kernel_level = 'portable'")
    cancelled_after(minilm, "SELECT ruvector_embed(%s)", (LONG,), 1)
    minilm.execute("RESET tinydancer.kernel_level")
    assert len(minilm.execute("SELECT ruvector_embed(%s)", (LONG,)).fetchone()[0]) == 384


def test_minilm_is_cancelled_while_the_registry_is_read(minilm: Any, db: Any) -> None:
    """Thousands of phrases without stored vectors, as after a restore of the agents alone."""
    minilm.execute(
        "INSERT INTO tinydancer.agent (name, type, capabilities, description) "
        "SELECT 'agent ' || i, 'tool', ARRAY['capability ' || i, 'other ' || i], 'does ' || i "
        "FROM generate_series(1, 3000) i"
    )
    cancelled_after(minilm, "SELECT * FROM ruvector_route('does 77')", (), SOON)
    minilm.execute("DELETE FROM tinydancer.agent WHERE name <> 'agent 77'")
    assert minilm.execute("SELECT agent_name FROM ruvector_route('does 77')").fetchone() == (
        "agent 77",
    )


def test_switch_to_minilm_is_cancelled_and_changes_nothing(minilm: Any) -> None:
    minilm.execute("CALL tinydancer.use_encoder('static')")
    minilm.execute(
        "INSERT INTO tinydancer.agent (name, type, capabilities, description) "
        "SELECT 'agent ' || i, 'tool', ARRAY['capability ' || i, 'other ' || i], 'does ' || i "
        "FROM generate_series(1, 3000) i"
    )
    cancelled_after(minilm, "CALL tinydancer.use_encoder('minilm')", (), 20 * SOON)
    assert minilm.execute("SELECT id FROM tinydancer.active_encoder()").fetchone() == ("static-1",)
    assert minilm.execute(
        "SELECT count(*) FROM tinydancer.agent_phrase WHERE encoder <> 'static-1'"
    ).fetchone() == (0,)


# ---------------------------------------------------------------- texts in parts


def test_count_of_a_text_in_parts_is_that_of_the_whole(conn: Any, rng: np.random.Generator) -> None:
    """Above 256 kB a text is split where white space is; word pieces must not notice."""
    words = ["naïve", "東京の天気", "x" * 300, "don't", "🎉🎉", "a\u0301", "[CLS]", "\u3000", "1.5"]
    blanks = [" ", "\n", "\t", "  ", "\r\n", "\u00a0"]
    conn.execute("SELECT ruvector_register_agent('a', 'llm', cost_per_1k_tokens := 1000)")
    encoder = Encoder.load("static")
    for _ in range(6):
        n = int(rng.integers(60_000, 200_000))
        picked = rng.choice(len(words), n)
        between = rng.choice(len(blanks), n)
        text = "".join(words[w] + blanks[b] for w, b in zip(picked, between, strict=True))
        row = conn.execute(
            "SELECT ruvector_embed(%(t)s), (SELECT estimated_cost FROM ruvector_route(%(t)s)), "
            "(SELECT estimated_cost FROM ruvector_route(%(t)s, embedding := ruvector_embed('x')))",
            {"t": text},
        ).fetchone()
        vector, n_tokens, n_used, _ = encoder.embed_info(text)
        assert n_used < n_tokens
        assert np.array(row[0], np.float32).tobytes() == vector.tobytes()
        # 300 tokens of answer at the same price: see expected_output_tokens.
        assert round(row[1]) == round(row[2]) == n_tokens + 300


@pytest.mark.parametrize(
    "text",
    [
        " " * 400_000 + "hello",
        "x" * 400_000 + " hello",
        ("y" * 200_000 + " ") * 3 + "hello",
        "\n" * 600_000,
        "z" * 700_000,
    ],
    ids=["blanks first", "giant word", "giant words", "blanks alone", "one word"],
)
def test_first_part_without_words_changes_nothing(conn: Any, text: str) -> None:
    encoder = Encoder.load("static")
    if not text.strip():
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            conn.execute("SELECT ruvector_embed(%s)", (text,))
        return
    found = conn.execute("SELECT ruvector_embed(%s)", (text,)).fetchone()[0]
    assert np.array(found, np.float32).tobytes() == encoder.embed([text])[0].tobytes()


# ---------------------------------------------------------------- memory


def test_scratch_of_minilm_is_small_and_goes_with_the_statement(minilm: Any) -> None:
    held = (
        "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts "
        "WHERE name = 'tinydancer scratch'"
    )
    during = minilm.execute(
        "WITH v AS MATERIALIZED (SELECT cardinality(ruvector_embed(%s)) AS dim) "
        f"SELECT dim, ({held}) FROM v",
        (LONG,),
    ).fetchone()
    assert during[0] == 384
    assert 500_000 < during[1] <= 3 * 2**20
    assert minilm.execute(held).fetchone() == (None,)


def test_memory_of_a_long_text_is_given_back_to_the_system(minilm: Any) -> None:
    pid = minilm.info.backend_pid
    register = "SELECT ruvector_register_agent('a', 'api', description := 'translate texts')"
    minilm.execute(register)
    for text in ("short", LONG):
        minilm.execute("SELECT ruvector_embed(%s), agent_name FROM ruvector_route(%s)", (text,) * 2)
    before = anonymous_kb(pid)
    with minilm.transaction(), minilm.cursor(name="c") as cursor:
        cursor.itersize = 1
        cursor.execute(
            "SELECT cardinality(ruvector_embed(%s || i)) FROM generate_series(1, 5) i", (LONG,)
        )
        cursor.fetchone()
        during = anonymous_kb(pid)
    after = anonymous_kb(pid)
    assert 500 < during - before <= 3 * 1024 + 256
    assert after - before <= 256
    for _ in range(5):
        minilm.execute("SELECT agent_name FROM route_results WHERE request = %s", (LONG,))
        minilm.execute("SELECT ruvector_embed(%s, 'minilm')", (LONG,))
    assert anonymous_kb(pid) - before <= 256


def test_memory_of_a_cancelled_text_is_given_back_too(minilm: Any) -> None:
    pid = minilm.info.backend_pid
    minilm.execute("SELECT ruvector_embed(%s)", (LONG,))
    minilm.execute("SET tinydancer.kernel_level = 'portable'")
    cancelled_after(minilm, "SELECT ruvector_embed(%s)", (LONG,), 1)
    before = anonymous_kb(pid)
    for _ in range(5):
        cancelled_after(minilm, "SELECT ruvector_embed(%s)", (LONG,), 1)
    assert anonymous_kb(pid) - before <= 256
