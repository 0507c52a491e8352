"""The demo's content is believable, and its requests go where a reader would send them.

In: the package tinydancer.demo and tests/golden/demo_routes.jsonl (see tests/golden/README.md).
Out: failures that list every request that went astray; run as a program, the counts by target.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tinydancer import Encoder, demo
from tinydancer.route import POLICIES, Agent, Explanation, Router

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "demo_routes.jsonl"
TARGETS = ("cost", "latency", "quality", "balanced", "quality_per_dollar")
# Of 40 requests, under quality and under balanced; with MiniLM more, as it tells meanings better.
MINIMUM = {"static": {"quality": 32, "balanced": 32}, "minilm": {"quality": 39, "balanced": 37}}

Route = dict[str, Any]


def routes() -> list[Route]:
    return [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


@cache
def router(encoder: str) -> Router:
    return Router.demo(Encoder.load(encoder))


@pytest.fixture(params=["static", "minilm"])
def encoder(request: pytest.FixtureRequest) -> str:
    """The name of each encoder; MiniLM's is skipped where it is not built."""
    if request.param == "minilm":
        request.getfixturevalue("minilm")
    return str(request.param)


def ranked(target: str, encoder: str) -> list[tuple[Route, list[Explanation]]]:
    """Each request of the table with every agent, the chosen one first."""
    decide = router(encoder).explain
    return [(route, decide(route["request"], optimize_for=target)) for route in routes()]


def table(rows: list[tuple[Route, list[Explanation]]], target: str) -> str:
    """Who got each request, and the best of those who should have."""
    lines = [f"under {target}:"]
    for route, agents in rows:
        right = next(agent for agent in agents if agent.agent_name in route["acceptable"])
        for mark, agent in (("got ", agents[0]), ("want", right)):
            lines.append(
                f"  {mark} {agent.agent_name:15} score {agent.score:.4g}, similarity "
                f'{agent.similarity:.2f} to "{agent.closest_phrase}"'
            )
        lines.insert(-2, f"{route['request']}")
    return "\n".join(lines)


def counts(target: str, encoder: str = "static") -> tuple[int, int]:
    """How many requests reach an acceptable agent, and how many a laughable one."""
    first = [(route, agents[0].agent_name) for route, agents in ranked(target, encoder)]
    acceptable = sum(name in route["acceptable"] for route, name in first)
    return acceptable, sum(name in route["laughable"] for route, name in first)


# ---------------------------------------------------------------- the table of routes


def test_golden_routes_have_40_requests_and_name_agents_of_the_registry() -> None:
    names = {agent["name"] for agent in demo.agents()}
    assert len({route["request"] for route in routes()}) == 40
    for route in routes():
        acceptable, laughable = set(route["acceptable"]), set(route["laughable"])
        assert acceptable
        assert not acceptable & laughable, route["request"]
        assert acceptable | laughable <= names, route["request"]


def test_golden_routes_cover_every_agent() -> None:
    wanted = Counter(name for route in routes() for name in route["acceptable"])
    assert set(wanted) == {agent["name"] for agent in demo.agents()}


def test_golden_requests_are_neither_in_the_log_nor_examples() -> None:
    seen = {entry["body"].casefold() for entry in demo.request_log()}
    seen |= {
        text.casefold() for agent in demo.agents() for text in Agent.from_dict(agent).phrases()
    }
    assert not seen & {route["request"].casefold() for route in routes()}


def test_golden_targets_are_all_that_ship() -> None:
    assert set(TARGETS) == set(POLICIES)


@pytest.mark.parametrize("target", ["quality", "balanced"])
def test_demo_requests_under_target_reach_acceptable_agents(target: str, encoder: str) -> None:
    rows = ranked(target, encoder)
    missed = [row for row in rows if row[1][0].agent_name not in row[0]["acceptable"]]
    right = len(rows) - len(missed)
    assert right >= MINIMUM[encoder][target], table(missed, target)


@pytest.mark.parametrize("target", TARGETS)
def test_demo_requests_under_any_target_reach_no_laughable_agent(target: str, encoder: str) -> None:
    rows = ranked(target, encoder)
    laughed = [row for row in rows if row[1][0].agent_name in row[0]["laughable"]]
    assert not laughed, table(laughed, target)


def test_readme_states_the_counts_that_are_measured() -> None:
    readme = (GOLDEN.parents[2] / "README.md").read_text(encoding="utf-8")
    quality, balanced = counts("quality")[0], counts("balanced")[0]
    assert f"`quality` {quality}, `balanced` {balanced} of 40" in readme


# ---------------------------------------------------------------- registry and log


def test_demo_registry_has_ten_agents_of_all_types() -> None:
    agents = [Agent.from_dict(agent) for agent in demo.agents()]
    assert len(agents) >= 10
    assert {agent.type for agent in agents} == {"llm", "tool", "api", "human", "ensemble"}
    assert len({agent.name for agent in agents}) == len(agents)


@pytest.mark.parametrize("config", demo.agents(), ids=lambda config: config["name"])
def test_demo_agent_is_complete(config: dict[str, Any]) -> None:
    agent = Agent.from_dict(config)
    costs = [config[key] for key in config if key.startswith("cost_")]
    assert costs and all(cost > 0 for cost in costs)
    assert 3 <= len(agent.examples) <= 8
    assert len(set(agent.phrases())) == len(agent.phrases())
    assert 0 < config["avg_latency_ms"] <= config["p99_latency_ms"]
    assert 0.5 < agent.quality_score <= 1 and 0.9 < agent.success_rate <= 1
    assert agent.description.endswith(".") and agent.metadata["provider"] and agent.pool


def test_demo_phrases_belong_to_one_agent_only() -> None:
    counts = Counter(
        phrase.casefold()
        for agent in demo.agents()
        for phrase in Agent.from_dict({**agent, "capabilities": []}).phrases()
    )
    assert not [phrase for phrase, count in counts.items() if count > 1]


def test_demo_log_is_ordered_and_varied() -> None:
    log = demo.request_log()
    assert len({entry["body"] for entry in log}) >= 240
    assert [entry["id"] for entry in log] == list(range(1, len(log) + 1))
    times = [datetime.fromisoformat(entry["created_at"].replace("Z", "+00:00")) for entry in log]
    assert times == sorted(times)
    lengths = [len(entry["body"]) for entry in log]
    assert min(lengths) <= 5 and max(lengths) >= 400
    assert len({entry["user_id"] for entry in log}) >= 30


def test_demo_log_gives_each_user_one_tier() -> None:
    tiers: dict[str, set[str]] = {}
    for entry in demo.request_log():
        tiers.setdefault(entry["user_id"], set()).add(entry["user_tier"])
    assert {len(found) for found in tiers.values()} == {1}
    assert set().union(*tiers.values()) == {"free", "pro", "enterprise"}


def test_demo_queries_have_title_sentence_and_one_statement() -> None:
    for query in demo.queries():
        assert query.title and query.about.endswith("."), query.name
        assert query.sql.count(";") == 1 and query.sql.endswith(";"), query.name
        assert max(map(len, query.sql.splitlines())) <= demo.WIDTH - 2, query.name


if __name__ == "__main__":
    for name in ("static", "minilm"):
        try:
            router(name)
        except FileNotFoundError:
            print(f"{name}: not built")
            continue
        for one in TARGETS:
            right, wrong = counts(one, name)
            print(f"{name:8} {one:20} acceptable {right:2}, laughable {wrong}, of 40")
