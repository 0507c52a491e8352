"""The offline router: what a decision is made of, its limits, its errors."""

from __future__ import annotations

import concurrent.futures
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydancer import Agent, Decision, Encoder, Policy, Router, _kernels
from tinydancer.errors import (
    DimensionError,
    EmptyRequestError,
    InvalidAgentError,
    InvalidInputError,
    NonFiniteError,
    UnknownObjectiveError,
)

WRITER = Agent(
    name="writer",
    type="llm",
    description="Writes essays, letters and stories.",
    capabilities=["creative-writing", "translation"],
    cost_per_1k_tokens=0.01,
    cost_per_1k_output_tokens=0.03,
    avg_latency_ms=2000,
    quality_score=0.9,
    pool="premium",
    examples=["Write a poem about the sea"],
)
CODER = Agent(
    name="coder",
    type="llm",
    description="Writes and reviews program code.",
    capabilities=["code_review", "Python"],
    cost_per_1k_tokens=0.002,
    expected_output_tokens=100,
    avg_latency_ms=800,
    quality_score=0.8,
    success_rate=0.9,
)
DESK = Agent(
    name="desk",
    type="human",
    description="Answers questions of customers about invoices and refunds.",
    cost_per_second=0.01,
    avg_latency_ms=60_000,
    quality_score=0.95,
    pool="people",
)
MYSTERY = Agent(name="mystery", type="tool", description="Does something with files.")
AGENTS = [DESK, MYSTERY, WRITER, CODER]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("static")


@pytest.fixture(scope="module")
def router(encoder: Encoder) -> Router:
    return Router(AGENTS, encoder)


@pytest.mark.parametrize(
    "request_text, name",
    [
        ("please review this python function", "coder"),
        ("Write a poem about autumn", "writer"),
        ("a customer wants a refund for an invoice", "desk"),
    ],
)
def test_route_by_quality_chooses_the_fitting_agent(
    router: Router, request_text: str, name: str
) -> None:
    decision = router.route(request_text, "quality")
    assert decision is not None and decision.agent_name == name


def test_decision_has_the_columns_of_ruvector_route_in_order() -> None:
    assert [column.name for column in fields(Decision)] == [
        "agent_name",
        "confidence",
        "estimated_cost",
        "estimated_latency_ms",
        "expected_quality",
        "similarity",
        "reasoning",
    ]


def test_decision_repeats_the_first_row_of_its_explanation(router: Router) -> None:
    for objective in sorted(router.policies):
        decision = router.route("review this code", objective)
        rows = router.explain("review this code", objective)
        assert decision is not None and len(rows) == len(AGENTS)
        assert [row.rank for row in rows] == [1, 2, 3, 4]
        assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
        best = rows[0]
        assert decision == Decision(
            best.agent_name,
            best.expected_quality,
            best.estimated_cost,
            best.estimated_latency_ms,
            best.expected_quality,
            best.similarity,
            best.reasoning,
        )


def test_parts_of_a_score_follow_the_design(router: Router, encoder: Encoder) -> None:
    text = "Summarise the attached quarterly report"
    tokens = encoder.count_tokens(text)
    costs = {
        "coder": (tokens + 100) * 0.002 / 1000,
        "desk": 0.01 * 60,
        "mystery": None,
        "writer": (tokens * 0.01 + 300 * 0.03) / 1000,
    }
    qualities = {"coder": 0.72, "desk": 0.95, "mystery": 0.5, "writer": 0.9}
    latencies = {"coder": 800, "desk": 60_000, "mystery": None, "writer": 2000}
    for row in router.explain(text, "balanced", cost_scale=0.01, latency_scale=500):
        name = row.agent_name
        assert row.estimated_cost == (costs[name] and pytest.approx(costs[name]))
        assert row.estimated_latency_ms == latencies[name]
        assert row.quality == pytest.approx(qualities[name])
        fit = 1 / (1 + math.exp(-(row.similarity - encoder.fit_mu) / encoder.fit_s))
        assert row.fit == pytest.approx(fit)
        assert row.expected_quality == pytest.approx(fit * qualities[name])
        # Unknown counts as the dearest and the slowest, which is the desk.
        cost = 0.6 if costs[name] is None else costs[name]
        latency = 60_000 if latencies[name] is None else latencies[name]
        assert row.cost_utility == pytest.approx(1 / (1 + cost / 0.01))
        assert row.latency_utility == pytest.approx(1 / (1 + latency / 500))
        weighted = 0.3 * row.cost_utility + 0.3 * row.latency_utility + 0.4 * row.quality
        assert row.score == pytest.approx(fit * weighted)


@pytest.mark.parametrize(
    "objective, want",
    [
        ("cost", lambda row: row.cost_utility),
        ("latency", lambda row: row.latency_utility),
        ("quality", lambda row: row.quality),
        ("quality_per_dollar", lambda row: row.quality / ((row.estimated_cost or 0.6) + 0.001)),
        (None, lambda row: 0.3 * row.cost_utility + 0.3 * row.latency_utility + 0.4 * row.quality),
    ],
    ids=str,
)
def test_objective_maximises_what_its_name_says(
    router: Router, objective: str | None, want: Any
) -> None:
    for row in router.explain("Write a poem about the sea", objective):
        assert row.score == pytest.approx(row.fit * want(row))


def test_policy_of_the_caller_is_an_objective(encoder: Encoder) -> None:
    router = Router(AGENTS, encoder, policies={"mine": Policy(fit_weight=1.0)})
    for row in router.explain("Write a poem", "mine"):
        assert row.score == pytest.approx(row.fit**2)
    with pytest.raises(UnknownObjectiveError, match="balanced, cost, latency, mine, quality"):
        router.route("Write a poem", "yours")


def test_phrases_are_capabilities_as_words_then_description_then_examples(
    encoder: Encoder, router: Router
) -> None:
    assert WRITER.phrases() == [
        "creative writing",
        "translation",
        "Writes essays, letters and stories.",
        "Write a poem about the sea",
    ]
    rows = {row.agent_name: row for row in router.explain("write a poem about the sea")}
    assert rows["writer"].closest_phrase == "Write a poem about the sea"
    # The same text twice, int8 on both sides: the squared length of what rounding left, to the bit.
    values, scale = _kernels.quantise(encoder.embed("write a poem about the sea")[0])
    length = np.float32(_kernels.dot_i8(values, values)) * (np.float32(scale) * np.float32(scale))
    assert rows["writer"].similarity == length
    assert length > 0.99
    assert {row.closest_phrase for row in router.explain("code review")} >= {"code review"}
    vectors = encoder.embed(["code review", "creative writing"]).astype(np.float64)
    rows = {row.agent_name: row for row in router.explain("creative writing")}
    assert rows["coder"].similarity >= vectors[0] @ vectors[1] - 0.01


@pytest.mark.parametrize(
    "limits, rejected",
    [
        ({"required_capabilities": ["PYTHON"]}, {"desk", "mystery", "writer"}),
        ({"required_capabilities": "python"}, {"desk", "mystery", "writer"}),
        ({"required_capabilities": ["code_review", "python"]}, {"desk", "mystery", "writer"}),
        ({"required_capabilities": ["code-review"]}, {"coder", "desk", "mystery", "writer"}),
        ({"max_cost": 0.001}, {"desk", "mystery", "writer"}),
        ({"max_cost": math.inf}, set()),
        ({"budget_remaining": 0.5}, {"desk", "mystery"}),
        ({"budget_remaining": -1.0}, {"coder", "desk", "mystery", "writer"}),
        ({"max_latency_ms": 1000}, {"desk", "mystery", "writer"}),
        ({"min_quality": 0.9}, {"coder", "mystery"}),
        ({"excluded_agents": ["coder", "nobody"]}, {"coder"}),
        ({"pool": "people"}, {"coder", "mystery", "writer"}),
        ({"pool": "nowhere"}, {"coder", "desk", "mystery", "writer"}),
    ],
    ids=str,
)
def test_limit_rejects_exactly_the_agents_beyond_it(
    router: Router, limits: dict[str, Any], rejected: set[str]
) -> None:
    rows = router.explain("anything at all", **limits)
    assert {row.agent_name for row in rows if not row.eligible} == rejected
    name = next(iter(limits))
    for row in rows:
        assert row.rejected_by == (name if row.agent_name in rejected else None)
        assert (row.rank is None) == (row.agent_name in rejected)
        assert row.reasoning.startswith("rejected: ") == (row.agent_name in rejected)
    decision = router.route("anything at all", **limits)
    assert (decision is None) == (len(rejected) == len(AGENTS))


def test_min_expected_quality_at_a_row_value_keeps_that_row(router: Router) -> None:
    rows = router.explain("review this code")
    floor = rows[0].expected_quality
    kept = [
        row.agent_name
        for row in router.explain("review this code", min_expected_quality=floor)
        if row.eligible
    ]
    assert kept == [row.agent_name for row in rows if row.expected_quality >= floor]


def test_several_limits_are_all_named(router: Router) -> None:
    rows = router.explain("x", max_cost=0.001, max_latency_ms=1000, pool="premium")
    named = {row.agent_name: row.rejected_by for row in rows}
    assert named["desk"] == "pool, max_cost, max_latency_ms"
    assert named["writer"] == "max_cost, max_latency_ms"


def test_inactive_agent_is_rejected_and_listed(encoder: Encoder) -> None:
    router = Router([replace(CODER, active=False), WRITER], encoder)
    rows = router.explain("review this code")
    assert [(row.agent_name, row.rejected_by) for row in rows] == [
        ("writer", None),
        ("coder", "active"),
    ]


def test_ties_go_to_the_cheaper_then_to_the_lower_name(encoder: Encoder) -> None:
    twins = [
        Agent("b", "tool", "Sorts files.", cost_per_call=0.5),
        Agent("é", "tool", "Sorts files."),
        Agent("Z", "tool", "Sorts files.", cost_per_call=0.5),
        Agent("c", "tool", "Sorts files.", cost_per_call=0.1),
    ]
    rows = Router(twins, encoder).explain("sort these files", "quality")
    # Capitals before small letters before what is not ASCII, as in the C collation.
    assert [row.agent_name for row in rows] == ["c", "Z", "b", "é"]


def test_order_of_the_agents_given_does_not_matter(encoder: Encoder, router: Router) -> None:
    for text in ("review this code", "poem", "refund"):
        assert Router(AGENTS[::-1], encoder).explain(text) == router.explain(text)


def test_router_without_agents_has_no_decision(encoder: Encoder) -> None:
    assert Router([], encoder).route("anything") is None
    assert Router([], encoder).explain("anything") == []


def test_agent_without_a_phrase_can_still_be_chosen(encoder: Encoder) -> None:
    decision = Router([Agent("bare", "api")], encoder).route("anything")
    assert decision is not None and decision.similarity == 0.0
    # A capability that leaves no word counts for the limit, and matches nothing.
    router = Router([Agent("dash", "api", capabilities=["-"])], encoder)
    assert router.route("anything", required_capabilities=["-"]) is not None


def test_vector_of_an_agent_stands_alone(encoder: Encoder) -> None:
    vector = encoder.embed("refund my invoice")[0]
    own = replace(CODER, name="own", embedding=(vector * 3).tolist())
    rows = {row.agent_name: row for row in Router([own, CODER], encoder).explain("review code")}
    assert rows["own"].closest_phrase == "the caller's vector"
    assert rows["own"].similarity < rows["coder"].similarity
    best = Router([own, CODER], encoder).route("refund my invoice", "quality")
    assert best is not None and best.agent_name == "own" and best.similarity > 0.999
    with pytest.raises(DimensionError):
        Router([replace(CODER, embedding=[1.0])], encoder)


def test_request_of_none_is_not_routed(router: Router) -> None:
    assert router.route(None) is None
    assert router.explain(None) == []


def test_embedding_in_place_of_a_text_gives_the_same_match(
    router: Router, encoder: Encoder
) -> None:
    text = "review this code"
    vector = encoder.embed(text)[0]
    by_text = {row.agent_name: row for row in router.explain(text)}
    # Any length: it is scaled; any sequence: it is copied.
    for embedding in (vector, vector.tolist(), vector.astype(np.float64) * 4):
        for row in router.explain(None, embedding=embedding):
            assert row.similarity == pytest.approx(by_text[row.agent_name].similarity, abs=1e-6)
    # With both, the vector is matched and the text is counted.
    tokens = encoder.count_tokens(text)
    only, both = router.route(None, embedding=vector), router.route(text, embedding=vector)
    assert only is not None and both is not None and only.agent_name == both.agent_name == "coder"
    assert both.estimated_cost == pytest.approx((tokens + 100) * 0.002 / 1000)
    assert only.estimated_cost == pytest.approx(100 * 0.002 / 1000)


def test_long_request_is_costed_whole_and_said_to_be_truncated(
    router: Router, encoder: Encoder
) -> None:
    decision = router.route("code " * 5000, "quality")
    assert decision is not None
    assert (
        f"request truncated: {encoder.max_tokens} of 5,000 word pieces read" in decision.reasoning
    )
    assert decision.estimated_cost == pytest.approx((5000 + 100) * 0.002 / 1000)


def test_request_without_a_known_word_says_so(router: Router) -> None:
    decision = router.route("\U0001f9ff\U0001f9ff")
    assert decision is not None and decision.similarity == 0.0
    assert "no word of the request is known to the encoder" in decision.reasoning


def test_threads_that_share_a_router_get_the_same_decisions(router: Router) -> None:
    texts = ["review this code", "write a poem", "refund my invoice"] * 20
    want = [router.route(text) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(router.route, texts)) == want


# ---------------------------------------------------------------- refused input


def test_unknown_objective_lists_the_known_and_the_closest(router: Router) -> None:
    with pytest.raises(UnknownObjectiveError) as caught:
        router.route("anything", "qualty")
    assert str(caught.value) == (
        'unknown optimization target "qualty"\n'
        "DETAIL:  Known targets are balanced, cost, latency, quality, quality_per_dollar.\n"
        'HINT:  Perhaps you meant "quality".'
    )
    with pytest.raises(UnknownObjectiveError) as caught:
        router.route("anything", "zzz")
    assert caught.value.hint == "Policies passed to Router make targets of your own."


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"max_cost": -0.1}, "max_cost must not be negative"),
        ({"max_cost": math.nan}, "max_cost must not be NaN"),
        ({"max_latency_ms": -1}, "max_latency_ms must not be negative"),
        ({"budget_remaining": math.nan}, "budget_remaining must not be NaN"),
        ({"min_quality": 1.2}, "min_quality must be between 0 and 1"),
        ({"min_quality": math.nan}, "min_quality must be between 0 and 1"),
        ({"min_expected_quality": -0.2}, "min_expected_quality must be between 0 and 1"),
        ({"cost_scale": 0.0}, "cost_scale must be positive and finite"),
        ({"latency_scale": math.inf}, "latency_scale must be positive and finite"),
        ({"required_capabilities": [None]}, "required_capabilities must contain texts only"),
        ({"excluded_agents": [7]}, "excluded_agents must contain texts only"),
    ],
    ids=str,
)
def test_limit_that_is_none_is_refused(
    router: Router, limits: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        router.route("anything", **limits)
    assert caught.value.message == message
    assert caught.value.detail is not None


def test_empty_request_is_refused(router: Router) -> None:
    with pytest.raises(EmptyRequestError, match=r"^request is empty"):
        router.route("  \n")


def test_embedding_that_is_no_vector_of_the_encoder_is_refused(
    router: Router, encoder: Encoder
) -> None:
    with pytest.raises(DimensionError) as caught:
        router.route("anything", embedding=[1.0, 2.0])
    assert caught.value.message == "embedding has the wrong number of dimensions"
    assert caught.value.detail == (
        f'Vectors of encoder "{encoder.id}" have {encoder.dim}, the argument has 2.'
    )
    with pytest.raises(NonFiniteError, match="Element 1 of"):
        router.route("anything", embedding=[math.nan] * encoder.dim)
    with pytest.raises(InvalidInputError, match="vector must have one dimension"):
        router.route("anything", embedding=np.zeros((1, encoder.dim)))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"name": None}, "name must not be NULL"),
        ({"name": ""}, "name must not be empty"),
        ({"name": " "}, "name must not be empty"),
        ({"name": 7}, "name must be a text"),
        ({"name": "é" * 129}, "agent name is too long"),
        ({"type": None}, "agent_type must not be NULL"),
        ({"type": "robot"}, 'unknown agent type "robot"'),
        ({"cost_per_call": -1}, "cost_per_call must be a finite number that is not negative"),
        (
            {"avg_latency_ms": math.inf},
            "avg_latency_ms must be a finite number that is not negative",
        ),
        ({"cost_per_second": "1"}, "cost_per_second must be a finite number that is not negative"),
        ({"quality_score": 1.2}, "quality_score must be between 0 and 1"),
        ({"success_rate": math.nan}, "success_rate must be between 0 and 1"),
        ({"quality_score": None}, "quality_score must be between 0 and 1"),
        ({"capabilities": "python"}, "capabilities must be a list of non-empty texts"),
        ({"capabilities": [" "]}, "capabilities must be a list of non-empty texts"),
        ({"examples": [1]}, "examples must be a list of non-empty texts"),
        ({"pool": ""}, "pool must not be empty"),
    ],
    ids=str,
)
def test_impossible_agent_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAgentError) as caught:
        Agent(**{"name": "x", "type": "tool", **values})
    assert caught.value.message == message
    assert caught.value.detail


def test_unknown_type_lists_the_known_and_the_closest() -> None:
    with pytest.raises(InvalidAgentError) as caught:
        Agent("x", "humans")
    assert caught.value.detail == "Known types are llm, tool, api, human, ensemble."
    assert caught.value.hint == 'Perhaps you meant "human".'


def test_two_agents_of_one_name_are_refused(encoder: Encoder) -> None:
    with pytest.raises(InvalidAgentError, match='agent "coder" is there twice'):
        Router([CODER, WRITER, CODER], encoder)


def test_expected_output_tokens_default_depends_on_the_type() -> None:
    assert Agent("x", "llm").expected_output_tokens == 300
    assert Agent("x", "tool").expected_output_tokens == 0
    assert Agent("x", "llm", expected_output_tokens=0).expected_output_tokens == 0


# ---------------------------------------------------------------- files


def test_from_json_of_the_demonstration_makes_its_agents(encoder: Encoder) -> None:
    router = Router.demo(encoder)
    assert {agent.type for agent in router.agents} == {"llm", "tool", "api", "human", "ensemble"}
    for agent in router.agents:
        rows = {row.agent_name: row for row in router.explain(agent.examples[0])}
        assert rows[agent.name].closest_phrase == agent.examples[0]


def test_from_json_takes_columns_nulls_and_agent_type(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    configs = [
        {"name": "a", "agent_type": "api", "cost_per_call": None, "metadata": {"x": 1}},
        {"name": "b", "type": "human", "capabilities": ["c"], "active": False},
    ]
    for content in (configs, {"agents": configs}):
        path.write_text(json.dumps(content))
        agents = Router.from_json(path, encoder).agents
        assert agents == (
            Agent("a", "api", metadata={"x": 1}),
            Agent("b", "human", capabilities=["c"], active=False),
        )


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not valid JSON"),
        ("3", "is not a list of agents"),
        ('["a"]', "is not a list of agents"),
        ('[{"type": "api"}]', "name must not be NULL"),
        ('[{"name": "a"}]', "agent_type must not be NULL"),
        ('[{"name": "a", "quality": 1}]', 'unknown key "quality" in config'),
        ('[{"name": "a", "type": "api", "examples": "x"}]', '"examples" must be a JSON array'),
    ],
)
def test_from_json_of_another_content_is_refused(
    encoder: Encoder, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "agents.json"
    path.write_text(content)
    with pytest.raises(InvalidAgentError, match=message):
        Router.from_json(path, encoder)
