"""Every instruction set gives the same bits, in SQL and in Python.

In: tinydancer.kernel_level, with the shipped encoder and with MiniLM where it was built.  What is
compared: vectors, decisions and stored phrases at every level that this processor can run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tinydancer import Encoder, Router, _kernels

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "python" / "tinydancer" / "demo"
BUILT = {
    "static": ROOT / "python" / "tinydancer" / "encoders" / "static-1.tdenc",
    "minilm": ROOT / "build" / "encoders" / "minilm-l6-v2-1.tdenc",
}
LOADS_THE_MODULE = "SELECT ruvector_cosine_similarity('{1}', '{1}')"
RUNNABLE = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]
TEXTS = [
    "hello",
    "naïve café",
    "東京の天気 🎉",
    "xyzzy plugh " * 3,
    "Write a Python function that parses a CSV file and returns the totals",
    "the quick brown fox jumps over the lazy dog " * 9,
    "one two three four five six seven eight nine ten " * 40,
]


@pytest.fixture(params=list(BUILT))
def switched(request: pytest.FixtureRequest, db: Any, encoder_folder: Path) -> Any:
    """A session whose database uses the encoder, with the demo's registry; and the file."""
    path = BUILT[request.param]
    if not path.exists():
        pytest.skip(f"{request.param} was not built: {path}")
    target = encoder_folder / path.name
    target.write_bytes(path.read_bytes())
    target.chmod(0o644)
    with db.connect() as conn:
        conn.execute("CALL tinydancer.use_encoder(%s)", (request.param,))
        for agent in json.loads((DEMO / "agents.json").read_text()):
            conn.execute("SELECT ruvector_register_agent_full(%s::jsonb)", (json.dumps(agent),))
        yield conn, target


def embedded(conn: Any, texts: list[str]) -> bytes:
    rows = conn.execute(
        "SELECT ruvector_embed(t) FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n",
        (texts,),
    ).fetchall()
    return np.array([row[0] for row in rows], np.float32).tobytes()


def matched(conn: Any) -> list[Any]:
    return conn.execute(
        "SELECT n, s.* FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n), "
        "ruvector_semantic_route(t, 99) s ORDER BY n, s.route_name",
        (TEXTS,),
    ).fetchall()


def test_vectors_and_decisions_have_the_same_bits_at_every_level(switched: Any) -> None:
    conn, path = switched
    encoder = Encoder(path)
    vectors = encoder.embed(TEXTS).tobytes()
    router = Router.from_json(DEMO / "agents.json", encoder)
    decisions = [router.route(text) for text in TEXTS]
    stored = conn.execute("SELECT embedding FROM tinydancer.agent_phrase ORDER BY 1").fetchall()
    for number, text in enumerate(TEXTS):
        conn.execute(
            "SELECT ruvector_create_route(%s, utterances := %s)", (f"r{number}", [text, text[:9]])
        )
    matches = matched(conn)
    assert len(matches) == len(TEXTS) ** 2
    for level in ("auto", *RUNNABLE):
        conn.execute(f"SET tinydancer.kernel_level = '{level}'")
        assert embedded(conn, TEXTS) == vectors, level
        assert matched(conn) == matches, level
        for text, decision in zip(TEXTS, decisions, strict=True):
            row = conn.execute(
                "SELECT agent_name, confidence, similarity, reasoning FROM ruvector_route(%s)",
                (text,),
            ).fetchone()
            assert decision is not None
            assert row == (
                decision.agent_name,
                decision.confidence,
                decision.similarity,
                decision.reasoning,
            ), level
        # Read anew, with every phrase embedded at this level and together with others.
        conn.execute("UPDATE tinydancer.agent_phrase SET embedding = NULL, encoder = NULL")
        row = conn.execute("SELECT similarity FROM ruvector_route(%s)", (TEXTS[4],)).fetchone()
        assert decisions[4] is not None
        assert row == (decisions[4].similarity,), level
        conn.execute("CALL tinydancer.use_encoder(%s)", (encoder.id,))
        again = conn.execute("SELECT embedding FROM tinydancer.agent_phrase ORDER BY 1").fetchall()
        assert again == stored, level


@pytest.mark.parametrize("level", _kernels.LEVELS)
def test_level_is_accepted_if_the_processor_can_run_it(conn: Any, level: str) -> None:
    conn.execute(LOADS_THE_MODULE)
    if level in RUNNABLE:
        conn.execute(f"SET tinydancer.kernel_level = '{level}'")
        assert conn.execute("SHOW tinydancer.kernel_level").fetchone() == (level,)
    else:
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            conn.execute(f"SET tinydancer.kernel_level = '{level}'")
        assert _kernels.BEST_LEVEL in caught.value.diag.message_detail


def test_level_of_a_session_is_kept_from_others(conn: Any, session: Any) -> None:
    other = session()
    for one in (conn, other):
        one.execute(LOADS_THE_MODULE)
    conn.execute("SET tinydancer.kernel_level = 'portable'")
    assert other.execute("SHOW tinydancer.kernel_level").fetchone() == ("auto",)
    assert embedded(conn, TEXTS) == embedded(other, TEXTS)
