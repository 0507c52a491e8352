"""The learning loop: decisions and their outcomes are logged, a model learns from the log, and
later requests get better answers for their money.

In: tables of outcomes that only this file knows.  The log is told the outcome of the agent that
was chosen, of no other.  What is checked: after training by SQL, realised quality per dollar of
requests that were never seen is higher than the untrained router's, beyond what chance explains.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinydancer import cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
import outcome_data

QUERY = (
    "SELECT d.request, d.agent_name, u.quality FROM tinydancer.decision d "
    "JOIN tinydancer.usage u USING (decision_id) WHERE u.quality IS NOT NULL ORDER BY decision_id"
)
TARGET = "quality_per_dollar"
# What a request is taken to cost besides the agent: the default of tinydancer.cost_scale.
SCALE = 0.001

Realised = tuple[np.ndarray, np.ndarray]


def register(conn: Any, agents: list[dict[str, Any]]) -> None:
    """Agents of unknown quality, each in a pool of its own to be sent requests for trial."""
    for agent in agents:
        conn.execute(
            "SELECT ruvector_register_agent(%s, 'llm', description := %s, "
            "cost_per_1k_tokens := %s, cost_per_1k_output_tokens := %s, pool := %s)",
            (
                agent["name"],
                agent.get("description", "a language model"),
                agent.get("cost_per_1k_input_tokens", agent.get("cost_per_1k_tokens")),
                agent.get("cost_per_1k_output_tokens"),
                agent["name"],
            ),
        )


def log_outcomes(conn: Any, rows: list[dict[str, Any]], seed: int) -> None:
    """Dispatch requests, every second to an agent drawn by lot, and record what came of them."""
    rng = np.random.default_rng(seed)
    for number, row in enumerate(rows):
        names = sorted(row["quality"])
        pool = names[rng.integers(len(names))] if number % 2 else None
        agent, cost, decision = conn.execute(
            "SELECT agent_name, estimated_cost, decision_id "
            "FROM ruvector_dispatch(%s, %s, pool := %s)",
            (row["request"], TARGET, pool),
        ).fetchone()
        assert pool in (None, agent)
        conn.execute(
            "SELECT ruvector_record_usage(%s, actual_cost := %s, quality := %s, decision_id := %s)",
            (agent, cost, row["quality"][agent], decision),
        )


def realised(conn: Any, rows: list[dict[str, Any]], target: str = TARGET) -> Realised:
    """Quality, and quality per dollar, of each request with the agent that is chosen now."""
    found = conn.execute(
        "SELECT r.agent_name, r.estimated_cost "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS u (q, n), "
        "LATERAL ruvector_route(u.q, %s) AS r ORDER BY u.n",
        ([row["request"] for row in rows], target),
    ).fetchall()
    assert len(found) == len(rows)
    quality = np.array([r["quality"][agent] for r, (agent, _) in zip(rows, found, strict=True)])
    return quality, quality / (np.array([cost for _, cost in found]) + SCALE)


def gain_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Relative gain of the mean, with its 95 % paired bootstrap interval: low, gain, high."""
    rng = np.random.default_rng(0)
    n = len(before)
    draws = []
    for _ in range(1000):
        rows = rng.integers(n, size=n)
        draws.append(after[rows].mean() / before[rows].mean() - 1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(after.mean() / before.mean() - 1), float(high)


def train(db: Any) -> dict[str, Any]:
    """Train on the log, and use the model from now on."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = cli.main(["train", "quality", "--dsn", db.conninfo, "--query", QUERY, "--json"])
    assert status == 0
    return dict(json.loads(out.getvalue()))


def run_loop(
    db: Any, conn: Any, agents: list[dict[str, Any]], log: list[Any], later: list[Any]
) -> None:
    """Log, train, route; both objectives get more of what they want."""
    register(conn, agents)
    log_outcomes(conn, log, seed=1)
    before = {target: realised(conn, later, target) for target in (TARGET, "quality")}
    metrics = train(db)
    assert metrics["n_labels"] == len(log)
    assert metrics["beats_baseline"] is True
    active = conn.execute("SELECT count(*) FROM tinydancer.model WHERE kind = 'quality' AND active")
    assert active.fetchone() == (1,)
    for target, figure in (("quality", 0), (TARGET, 1)):
        after = realised(conn, later, target)
        low, gain, high = gain_interval(before[target][figure], after[figure])
        assert low > 0, f"{target}: gain {gain:.3f} ({low:.3f} .. {high:.3f})"


def test_learning_from_a_log_raises_quality_per_dollar(db: Any, conn: Any) -> None:
    log = outcome_data.outcomes(300, 1)
    seen = {row["request"] for row in log}
    later = [row for row in outcome_data.outcomes(400, 2) if row["request"] not in seen]
    run_loop(db, conn, outcome_data.AGENTS, log, later)
    # The model is a row: without it the router is what it was.
    trained = realised(conn, later)[1].mean()
    conn.execute("SELECT tinydancer.deactivate_model('quality')")
    assert realised(conn, later)[1].mean() < trained


def test_learning_from_a_log_of_nine_models_raises_quality_per_dollar(
    db: Any, conn: Any, shared: Path
) -> None:
    folder = shared / "llm_outcomes"
    agents = json.loads((folder / "nine_models_agents.json").read_text())
    with (folder / "nine_models_train.jsonl").open(encoding="utf-8") as file:
        rows = {row["request"]: row for row in map(json.loads, file)}
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = [list(rows.values())[i] for i in order]
    run_loop(db, conn, agents, mixed[:1200], mixed[1200:2400])
