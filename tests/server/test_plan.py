"""Teams, batches and budgets in SQL: the bits of the Python shell, and what no plan can beat.

In: the demo's registry and log.  What is compared: rows of ruvector_route_multi() and
ruvector_batch_route() with Router's, and ruvector_optimize_budget() with a linear program.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tinydancer import Router
from tinydancer.route_batch import BatchDecision
from tinydancer.route_multi import TeamMember

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "python" / "tinydancer" / "demo"
TEAM = list(TeamMember.__dataclass_fields__)
BATCH = list(BatchDecision.__dataclass_fields__)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    log = (DEMO / "request_log.jsonl").read_text().splitlines()
    bodies = [json.loads(line)["body"] for line in log]
    # What has parts, what repeats, and what the encoder does not know.
    pairs = [f"{a}, then {b}" for a, b in zip(bodies[:40], bodies[40:80], strict=True)]
    return [*bodies[:60], *pairs, *bodies[:20], "東京の天気", "naïve café!\nand then go home"]


@pytest.fixture(scope="module")
def router() -> Router:
    return Router.from_json(DEMO / "agents.json")


LIMITS: list[dict[str, Any]] = [
    {},
    {"num_agents": 5, "max_cost": 0.004, "optimize_for": "quality"},
    {"num_agents": 2, "max_latency_ms": 1500.0, "excluded_agents": ["nobody"]},
    {"num_agents": 4, "required_capabilities": ["SQL", "translation", "debugging"]},
    {"num_agents": 2, "required_capabilities": ["debugging"], "min_quality": 0.5},
]


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "-".join(limits) or "none")
@pytest.mark.parametrize("strategy", ["pipeline", "parallel", "ensemble"])
def test_teams_have_the_same_bits(
    registry: Any, router: Router, texts: list[str], strategy: str, limits: dict[str, Any]
) -> None:
    named = "".join(f", {name} := %({name})s" for name in limits)
    members = 0
    for text in texts[::3]:
        rows = registry.execute(
            f"SELECT {', '.join(TEAM)} "
            f"FROM ruvector_route_multi(%(request)s, strategy := %(strategy)s{named})",
            {"request": text, "strategy": strategy, **limits},
        ).fetchall()
        team = router.route_multi(text, strategy=strategy, **limits)
        assert [(*row[:-1], tuple(row[-1])) for row in rows] == [
            tuple(getattr(member, name) for name in TEAM) for member in team
        ]
        members += len(team)
    # No agent of the demo can vote on three things at once.
    nobody = strategy == "ensemble" and len(limits.get("required_capabilities", ())) > 1
    assert (members == 0) if nobody else (members > 10)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"optimize_for": "quality", "min_quality": 0.6},
        {"optimize_for": "total_cost"},
        {"optimize_for": "total_cost", "min_quality": 0.3},
        {"max_total_cost": 0.05},
        {"optimize_for": "total_cost", "budget_remaining": 0.5, "min_quality": 0.2},
    ],
    ids=lambda limits: "-".join(limits) or "none",
)
@pytest.mark.parametrize("n", [7, 122], ids=["few", "many"])
def test_batches_have_the_same_bits(
    registry: Any, router: Router, texts: list[str], limits: dict[str, Any], n: int
) -> None:
    # Few requests are planned exactly, however many NULLs stand round them.
    requests: list[str | None] = [None] * 20 + [*texts[:n], None]
    named = "".join(f", {name} := %({name})s" for name in limits)
    rows = registry.execute(
        f"SELECT {', '.join(BATCH)} FROM ruvector_batch_route(%(requests)s::text[]{named})",
        {"requests": requests, **limits},
    ).fetchall()
    decisions = router.route_batch(requests, **limits)
    assert len(rows) == n
    assert rows == [tuple(getattr(d, name) for name in BATCH) for d in decisions]


@pytest.mark.parametrize("n_agents", [3, 14])
@pytest.mark.parametrize("limits", [{}, {"optimize_for": "cost", "max_cost": 0.002}], ids=str)
def test_batch_decides_as_each_request_alone(
    registry: Any, texts: list[str], n_agents: int, limits: dict[str, Any]
) -> None:
    # Requests are read ahead: repeats near and far, and absent ones, must not shift them.
    requests: list[str | None] = []
    for i, text in enumerate(texts):
        requests += [text] if i % 3 else [text, None, texts[i // 2], text]
    named = "".join(f", {name} := %({name})s" for name in limits)
    decided = ", ".join(BATCH[2:])
    with registry.transaction(force_rollback=True):
        # With few phrases, requests are multiplied with them one by one.
        registry.execute(
            "DELETE FROM tinydancer.agent WHERE name NOT IN "
            "(SELECT name FROM tinydancer.agent ORDER BY name LIMIT %s)",
            (n_agents,),
        )
        together = registry.execute(
            f"SELECT request_index, {decided} "
            f"FROM ruvector_batch_route(%(requests)s::text[]{named})",
            {"requests": requests, **limits},
        ).fetchall()
        alone = registry.execute(
            f"SELECT number::integer, {decided} "
            "FROM unnest(%(requests)s::text[]) WITH ORDINALITY AS asked(body, number), "
            f"ruvector_route(body{named})",
            {"requests": requests, **limits},
        ).fetchall()
    assert together == alone
    assert len(together) > 100


def test_error_in_a_batch_names_its_element(registry: Any, texts: list[str]) -> None:
    for target in ("balanced", "total_cost"):
        for i in (0, 5, 16, 37, 59):
            with pytest.raises(psycopg.errors.InvalidParameterValue) as found:
                registry.execute(
                    "SELECT * FROM ruvector_batch_route(%s::text[], %s)",
                    ([None, *texts[:i], " ", *texts[i:]], target),
                )
            assert found.value.diag.context is not None
            assert f"routing element {i + 2} of requests" in found.value.diag.context


def test_errors_of_infeasible_plans_are_worded_alike(
    registry: Any, router: Router, texts: list[str]
) -> None:
    for limits in (
        {"optimize_for": "total_cost", "min_quality": 0.99},
        {"max_total_cost": 0.0, "excluded_agents": ["calculator"]},
        {"optimize_for": "total_cost", "budget_remaining": -1.0},
    ):
        named = "".join(f", {name} := %({name})s" for name in limits)
        with pytest.raises(psycopg.errors.NumericValueOutOfRange) as in_sql:
            registry.execute(
                f"SELECT * FROM ruvector_batch_route(%(requests)s::text[]{named})",
                {"requests": texts[:30], **limits},
            )
        with pytest.raises(ValueError) as offline:
            router.route_batch(texts[:30], **limits)  # type: ignore[arg-type]
        diag = in_sql.value.diag
        error: Any = offline.value
        assert (diag.message_primary, diag.message_detail, diag.message_hint) == (
            error.message,
            error.detail,
            error.hint,
        )


def test_batch_of_many_requests_stays_within_its_cap(registry: Any) -> None:
    many = (
        "ARRAY(SELECT 'translate sentence ' || mod(i, 7000) || ' and fix line ' || i "
        "FROM generate_series(1, 20000) i)"
    )
    low = registry.execute(
        f"SELECT sum(estimated_cost) FROM ruvector_batch_route({many}, 'total_cost', "
        "min_quality := 0)"
    ).fetchone()[0]
    for factor in (1.0, 1.5, 4.0):
        cap = low * factor + 1e-9
        rows = registry.execute(
            "SELECT count(*), count(DISTINCT request_index), sum(estimated_cost), "
            f"avg(expected_quality) FROM ruvector_batch_route({many}, max_total_cost := %s)",
            (cap,),
        ).fetchone()
        assert rows[:2] == (20000, 20000)
        assert rows[2] <= cap * (1 + 1e-12)
        # The same quality cannot be had for less, but for the one request that is rounded.
        back = registry.execute(
            f"SELECT sum(estimated_cost) FROM ruvector_batch_route({many}, 'total_cost', "
            "min_quality := %s)",
            (rows[3],),
        ).fetchone()[0]
        assert back <= rows[2] + 0.05


def test_batch_can_be_cancelled(registry: Any) -> None:
    registry.execute("SET statement_timeout = '200ms'")
    for target in ("balanced", "total_cost"):
        with pytest.raises(psycopg.errors.QueryCanceled):
            registry.execute(
                "SELECT count(*) FROM ruvector_batch_route(ARRAY(SELECT 'request ' || i "
                "FROM generate_series(1, 900000) i), %s)",
                (target,),
            )
    registry.execute("RESET statement_timeout")


def test_budget_over_the_log_is_the_optimum_of_a_linear_program(
    registry: Any, texts: list[str]
) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(3)
    logged = [text for text in dict.fromkeys(texts) for _ in range(int(rng.integers(1, 6)))]
    with registry.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO tinydancer.decision (request, agent_name) VALUES (%s, 'x')",
            [(text,) for text in logged],
        )
    rows = registry.execute(
        "SELECT u.n, e.estimated_cost, e.expected_quality "
        "FROM unnest(%s::text[]) WITH ORDINALITY u (t, n), "
        "LATERAL ruvector_explain_route(u.t, max_latency_ms := 3000) e "
        "WHERE e.eligible AND e.estimated_cost IS NOT NULL",
        (logged,),
    ).fetchall()
    item, cost, quality = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    one_each = (item[None, :] == np.arange(1, len(logged) + 1)[:, None]).astype(float)
    low = sum(cost[item == i].min() for i in range(1, len(logged) + 1))
    for budget in (low * 1.01 + 1e-6, low + 0.01, low + 0.1, 1000.0):
        done = linprog(
            -quality, A_ub=cost[None, :], b_ub=[budget], A_eq=one_each, b_eq=np.ones(len(logged))
        )
        assert done.status == 0
        plan = registry.execute(
            "SELECT agent, allocated_budget, share, expected_requests, expected_quality "
            "FROM ruvector_optimize_budget(%s, NULL, 3000)",
            (budget,),
        ).fetchall()
        assert sum(row[1] for row in plan) <= budget
        assert abs(sum(row[2] for row in plan) - 1.0) < 1e-9
        assert sum(row[3] for row in plan) == len(logged)
        got = sum(row[3] * row[4] for row in plan)
        # The kind that the program divides is rounded to whole requests.
        assert -done.fun + 1e-6 >= got >= -done.fun - 1.0
        mean = got / len(logged)
        registry.execute(
            "SELECT * FROM ruvector_optimize_budget(%s, %s, 3000)", (budget, mean - 1e-9)
        )
        with pytest.raises(psycopg.errors.NumericValueOutOfRange):
            registry.execute(
                "SELECT * FROM ruvector_optimize_budget(%s, %s, 3000)", (budget, mean + 1e-6)
            )
