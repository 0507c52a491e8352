"""Teams offline: what Router.route_multi() adds to the kernel, whose choices tests/kernel tests."""

from __future__ import annotations

import math

import pytest

from tinydancer import Agent, Encoder, Router
from tinydancer.errors import EmptyRequestError, InvalidInputError, UnknownObjectiveError

AGENTS = [
    Agent("gpt-4", "llm", capabilities=["reasoning", "code", "analysis", "creative"],
          cost_per_1k_tokens=0.03, avg_latency_ms=2500, quality_score=0.95),
    Agent("claude-3-haiku", "llm", capabilities=["fast-response", "simple-tasks", "classification"],
          cost_per_1k_tokens=0.00025, avg_latency_ms=400, quality_score=0.80),
    Agent("code-specialist", "tool", capabilities=["code-execution", "debugging", "testing"],
          cost_per_call=0.001, avg_latency_ms=100, quality_score=0.90),
]  # fmt: skip
REQUEST = "Build and deploy a web application"


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(AGENTS)


def test_route_multi_pipeline_gives_each_agent_a_role_of_its_own(router: Router) -> None:
    team = router.route_multi(REQUEST, 3, "pipeline")
    assert [member.step for member in team] == [1, 2, 3]
    assert {member.agent_name for member in team} == {agent.name for agent in AGENTS}
    steps = {member.agent_name: member.step for member in team}
    assert steps["gpt-4"] < steps["code-specialist"]
    own = {agent.name: set(agent.capabilities) for agent in AGENTS}
    for member in team:
        assert member.capabilities
        assert set(member.capabilities) <= own[member.agent_name]
        assert member.role.endswith(": " + ", ".join(member.capabilities))
        assert member.weight is None
        single = next(e for e in router.explain(REQUEST) if e.agent_name == member.agent_name)
        assert member.confidence == member.expected_quality == single.expected_quality
        assert member.estimated_cost == single.estimated_cost
        assert member.similarity == single.similarity


def test_route_multi_limits_are_on_the_whole(router: Router) -> None:
    assert len(router.route_multi(REQUEST, max_latency_ms=3000)) == 3
    assert len(router.route_multi(REQUEST, max_latency_ms=2999)) == 2
    assert len(router.route_multi(REQUEST, strategy="parallel", max_latency_ms=2500)) == 3
    cheap = router.route_multi(REQUEST, max_cost=0.002)
    assert sum(member.estimated_cost or math.inf for member in cheap) <= 0.002
    assert len(cheap) == len(router.route_multi(REQUEST, budget_remaining=0.002)) == 2
    assert router.route_multi(REQUEST, budget_remaining=-1.0) == []


def test_route_multi_required_capabilities_are_the_teams_or_each_voters(router: Router) -> None:
    wanted = ["Testing", "reasoning", "testing"]
    team = router.route_multi(REQUEST, 2, "pipeline", wanted)
    assert [(m.agent_name, m.role) for m in team] == [
        ("code-specialist", "first: testing"),
        ("gpt-4", "last: reasoning"),
    ]
    assert router.route_multi(REQUEST, 2, "ensemble", wanted) == []
    assert router.route_multi(REQUEST, 3, "parallel", ["alchemy"]) == []


def test_route_multi_weights_sum_to_one(router: Router) -> None:
    for strategy in ("parallel", "ensemble"):
        team = router.route_multi(REQUEST, 3, strategy)
        assert math.isclose(sum(member.weight or 0.0 for member in team), 1.0)


def test_route_multi_by_vector_needs_no_text() -> None:
    encoder = Encoder.load("static")
    vector = encoder.embed(["code"])[0]
    own = [*AGENTS, Agent("vector", "api", capabilities=["secret"], embedding=list(-vector))]
    team = Router(own, encoder).route_multi(None, 4, "parallel", embedding=vector)
    assert {member.agent_name for member in team} == {agent.name for agent in own}
    assert {m.agent_name: m.capabilities for m in team}["vector"] == ("secret",)
    assert Router(own, encoder).route_multi(None) == []


def test_route_multi_of_what_is_none_says_so(router: Router) -> None:
    with pytest.raises(InvalidInputError, match='unknown strategy "pipelinee"') as caught:
        router.route_multi(REQUEST, strategy="pipelinee")
    assert caught.value.detail == "Known strategies are pipeline, parallel, ensemble."
    assert caught.value.hint == 'Perhaps you meant "pipeline".'
    for n in (0, -1, 33):
        with pytest.raises(InvalidInputError, match="num_agents must be between 1 and 32"):
            router.route_multi(REQUEST, n)
    with pytest.raises(InvalidInputError, match="must contain texts only"):
        router.route_multi(REQUEST, required_capabilities=[1])  # type: ignore[list-item]
    with pytest.raises(EmptyRequestError):
        router.route_multi(" ")
    with pytest.raises(UnknownObjectiveError):
        router.route_multi(REQUEST, optimize_for="best")
    many = Router([Agent("all", "human", capabilities=[f"c{i}" for i in range(65)])])
    with pytest.raises(InvalidInputError, match="too many required_capabilities"):
        many.route_multi("x", 1, required_capabilities=[f"c{i}" for i in range(65)])
    assert len(many.route_multi("x", 1, required_capabilities=[f"c{i}" for i in range(64)])) == 1
