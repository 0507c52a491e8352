"""Teams of agents: against all teams where they can be counted, and the words about them.

In: random registries whose agents have capabilities, and relevances as a request would give them.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tinydancer import _kernels
from tinydancer.errors import ShapeError

DIM = 8
NAMES = ["analysis", "code", "code-review", "execution", "testing", "summaries", "reply", "maths"]


def registry(rng: Any, n: int, n_capabilities: int, empty: bool = True) -> _kernels.Registry:
    agents = np.zeros(n, dtype=_kernels.AGENT_DTYPE)
    for name in ("cost_per_1k_tokens", "cost_per_1k_output_tokens", "cost_per_second"):
        agents[name] = math.nan
    agents["cost_per_call"] = np.where(rng.random(n) < 0.1, math.nan, rng.integers(0, 9, n) / 10)
    agents["avg_latency_ms"] = np.where(rng.random(n) < 0.1, math.nan, rng.integers(1, 2000, n))
    agents["quality_score"] = rng.integers(1, 11, n) / 10
    agents["success_rate"] = 1.0
    agents["active"] = rng.random(n) < 0.85
    agents["pool"] = _kernels.NONE
    agents["first_phrase"] = np.arange(n)
    agents["n_phrases"] = 1
    ids: list[int] = []
    for row in agents:
        size = int(rng.integers(0 if empty else 1, min(4, n_capabilities) + 1))
        own = sorted(rng.choice(n_capabilities, size, replace=False).tolist())
        row["first_capability"], row["n_capabilities"] = len(ids), len(own)
        ids += own
    rows = rng.integers(-127, 128, (n, DIM), dtype=np.int8)
    return _kernels.Registry(
        agents, ids, rows, np.full(n, 1 / 400, dtype=np.float32), ["phrase"] * n
    )


def own(many: _kernels.Registry, ids: Any, agent: int) -> set[int]:
    a = many.agents[agent]
    return set(ids[a["first_capability"] : a["first_capability"] + a["n_capabilities"]])


class Case:
    """A registry, scores, relevances and limits."""

    def __init__(self, rng: Any, n: int, n_capabilities: int, strategy: str) -> None:
        self.strategy = strategy
        self.registry = registry(rng, n, n_capabilities)
        a = self.registry.agents
        # The ids again, as the registry has them.
        self.ids = _ids(self.registry)
        vector = _kernels.normalise(rng.normal(size=DIM).astype(np.float32))
        self.max_cost = float(rng.choice([math.inf, 0.5, 1.2, 2.0]))
        self.max_latency = float(rng.choice([math.inf, 1500.0, 3000.0]))
        self.scores = self.registry.score(
            vector, mu=0.3, s=0.2, cost_weight=0.3, quality_weight=0.7,
            max_cost=self.max_cost, max_latency_ms=self.max_latency,
        )  # fmt: skip
        self.names = [f"capability {i}" for i in range(n_capabilities)]
        self.relevance = np.zeros(n_capabilities, dtype=_kernels.RELEVANCE_DTYPE)
        self.relevance["fit"] = rng.choice([0.1, 0.3, 0.6, 0.8], n_capabilities)
        self.relevance["similarity"] = self.relevance["fit"]
        self.relevance["position"] = rng.choice([0.0, 0.25, 0.5, 1.0], n_capabilities)
        self.required: list[int] = []
        if strategy != "ensemble" and rng.random() < 0.5:
            size = int(rng.integers(1, min(3, n_capabilities) + 1))
            self.required = rng.choice(n_capabilities, size, replace=False).tolist()
        self.n_agents = len(a)

    def team(self, k: int) -> _kernels.Team:
        return self.scores.team(
            self.strategy, k, self.relevance, self.names, required=self.required,
            max_cost=self.max_cost, max_latency_ms=self.max_latency,
        )  # fmt: skip

    def needs(self) -> list[int]:
        """The capabilities that the request needs, by the rule in words."""
        if self.required or self.strategy == "ensemble":
            return self.required
        eligible = np.flatnonzero(self.scores.candidates["rejected_by"] == 0)
        there = sorted(set().union(*(own(self.registry, self.ids, i) for i in eligible)))
        asked = [c for c in there if self.relevance["fit"][c] >= 0.5]
        if not asked and there:
            asked = [max(there, key=lambda c: (self.relevance["fit"][c], -c))]
        return asked

    def value(self, members: tuple[int, ...]) -> tuple[float, float, float] | None:
        """Covered weight, score and minus cost of a team, None when it breaks a limit."""
        c = self.scores.candidates[list(members)]
        cost = np.nan_to_num(c["cost"], nan=0.0).sum()
        latency = np.nan_to_num(c["latency"], nan=0.0)
        whole = latency.sum() if self.strategy == "pipeline" else latency.max()
        if cost > self.max_cost * (1 + 1e-12) or whole > self.max_latency:
            return None
        has = [own(self.registry, self.ids, i) for i in members]
        needs = self.needs()
        covered = [n for n in needs if any(n in one for one in has)]
        if self.required and len(covered) < len(needs):
            return None
        weight = sum(1.0 if self.required else float(self.relevance["fit"][n]) for n in covered)
        score = 0.0
        for i, candidate in enumerate(c):
            overlap = [
                len(has[i] & has[j]) / len(has[i] | has[j]) if has[i] | has[j] else 1.0
                for j in range(len(members))
                if j != i
            ]
            part = float(candidate["score"])
            if self.strategy == "ensemble" and overlap:
                part *= 1 - 0.5 * sum(overlap) / len(overlap)
            score += part
        return weight, score, -float(cost)


def _ids(many: _kernels.Registry) -> list[int]:
    return many.capabilities.tolist()


@pytest.mark.parametrize("strategy", _kernels.STRATEGIES)
def test_team_is_the_best_of_all_teams(rng: Any, strategy: str) -> None:
    found = smaller = 0
    for _ in range(150):
        case = Case(rng, int(rng.integers(1, 9)), int(rng.integers(1, 6)), strategy)
        k = int(rng.integers(1, 5))
        eligible = np.flatnonzero(case.scores.candidates["rejected_by"] == 0).tolist()
        best = None
        for size in range(min(k, len(eligible)), 0, -1):
            values = [case.value(members) for members in itertools.combinations(eligible, size)]
            best = max((v for v in values if v is not None), default=None)
            if best is not None:
                break
        team = case.team(k)
        members = tuple(team.agent(i) for i in range(len(team)))
        assert team.is_exact
        assert len(set(members)) == len(members)
        if best is None:
            assert members == ()
            continue
        found += 1
        smaller += len(members) < min(k, len(eligible))
        assert len(members) == size
        got = case.value(members)
        assert got is not None
        assert np.allclose(got[:2], best[:2], rtol=1e-12)
        # Cost counts where scores are equal to the bit.
        if got[1] == best[1]:
            assert math.isclose(got[2], best[2])
        assert math.isclose(team.cost, -got[2], abs_tol=1e-12)
    assert found > 80
    assert smaller > 5


@pytest.mark.parametrize("strategy", _kernels.STRATEGIES)
def test_team_of_a_great_registry_keeps_limits_and_covers_what_is_required(
    rng: Any, strategy: str
) -> None:
    for n, k in ((60, 5), (400, 32), (2000, 8)):
        case = Case(rng, n, 40, strategy)
        team = case.team(k)
        members = tuple(team.agent(i) for i in range(len(team)))
        assert len(set(members)) == len(members)
        if members:
            assert case.value(members) is not None
        else:
            assert case.required or case.max_cost < math.inf or case.max_latency < math.inf


@pytest.mark.parametrize("strategy", ["pipeline", "parallel"])
def test_jobs_of_a_team_are_disjoint_and_cover_all_that_it_can(rng: Any, strategy: str) -> None:
    for _ in range(100):
        case = Case(rng, int(rng.integers(2, 9)), int(rng.integers(1, 7)), strategy)
        team = case.team(int(rng.integers(1, 6)))
        needs = case.needs()
        jobs = [team.capabilities(i) for i in range(len(team))]
        for i, job in enumerate(jobs):
            assert set(job) <= own(case.registry, case.ids, team.agent(i))
            if own(case.registry, case.ids, team.agent(i)):
                assert job
            else:
                assert team.role(i).split(": ")[1].startswith("general")
        covered = {n for n, is_covered in team.needs if is_covered}
        assert {n for n, _ in team.needs} == set(needs) or not jobs
        assert covered <= {n for job in jobs for n in job}
        if case.required and jobs:
            assert covered == set(needs)
        several = [job for job in jobs if len(job) > 1]
        assert len({n for job in several for n in job}) == sum(map(len, several))
        if strategy == "parallel" and jobs:
            weights = [team.weight(i) for i in range(len(team))]
            assert math.isclose(sum(weights), 1.0)
            assert min(weights) >= 0.0
            # A job that two have is divided between them, and says so.
            for i, job in enumerate(jobs):
                alike = [j for j, other in enumerate(jobs) if other == job]
                said = f" ({alike.index(i) + 1} of {len(alike)})" if len(alike) > 1 else ""
                assert team.role(i).endswith(said or team.role(i)[-1])
                assert ("(" in team.role(i)) == bool(said)
        elif jobs:
            assert all(math.isnan(team.weight(i)) for i in range(len(team)))


def test_pipeline_runs_in_the_order_of_what_is_required_or_of_the_work(rng: Any) -> None:
    longer = 0
    for _ in range(100):
        case = Case(rng, 8, 6, "pipeline")
        case.max_cost = case.max_latency = math.inf
        team = case.team(4)
        needs = case.needs()
        places = []
        for i in range(len(team)):
            job = team.capabilities(i)
            places.append(
                min(needs.index(c) if case.required else case.relevance["position"][c] for c in job)
                if job and set(job) <= set(needs)
                else None
            )
        known = [place for place in places if place is not None]
        if case.required:
            assert known == sorted(known)
        longer += len(known) > 1
    assert longer > 20


def test_weights_of_voters_are_in_proportion_to_their_expected_quality(rng: Any) -> None:
    for _ in range(50):
        case = Case(rng, 6, 4, "ensemble")
        team = case.team(3)
        quality = [
            float(case.scores.candidates["expected_quality"][team.agent(i)])
            for i in range(len(team))
        ]
        weights = [team.weight(i) for i in range(len(team))]
        assert np.allclose(weights, np.array(quality) / sum(quality) if quality else [])


def three(capabilities: list[list[str]]) -> tuple[_kernels.Registry, list[str], Any]:
    """Agents that are alike but for their capabilities; their phrases are axes."""
    names = sorted({c for one in capabilities for c in one})
    agents = np.zeros(len(capabilities), dtype=_kernels.AGENT_DTYPE)
    for name in ("cost_per_1k_tokens", "cost_per_1k_output_tokens", "cost_per_second"):
        agents[name] = math.nan
    agents["cost_per_call"] = 0.01
    agents["avg_latency_ms"] = 100.0
    agents["quality_score"] = 0.9
    agents["success_rate"] = agents["active"] = 1
    agents["pool"] = _kernels.NONE
    ids: list[int] = []
    phrase = 0
    of_capability = np.full(len(names), _kernels.NONE, dtype=np.uint32)
    rows = []
    for row, one in zip(agents, capabilities, strict=True):
        row["first_capability"], row["n_capabilities"] = len(ids), len(one)
        row["first_phrase"], row["n_phrases"] = phrase, len(one)
        ids += sorted(names.index(c) for c in one)
        for c in one:
            of_capability[names.index(c)] = phrase
            axis = np.zeros(len(names), dtype=np.float32)
            axis[names.index(c)] = 1.0
            rows.append(_kernels.quantise(axis))
            phrase += 1
    many = _kernels.Registry(
        agents, ids, np.array([r for r, _ in rows]), [s for _, s in rows], ["x"] * phrase
    )
    return many, names, of_capability


def unit(names: list[str], *wanted: str) -> Any:
    vector = np.zeros(len(names), dtype=np.float32)
    for name in wanted:
        vector[names.index(name)] = 1.0
    return _kernels.normalise(vector)


def roles(capabilities: list[list[str]], strategy: str, *queries: Any, n: int = 3) -> list[str]:
    many, names, phrase = three(capabilities)
    vectors = np.array([unit(names, *one) for one in queries])
    relevance = many.relevance(vectors, phrase, names, mu=0.4, s=0.05)
    scores = many.score(vectors[0].copy(), mu=0.4, s=0.05, quality_weight=1.0)
    team = scores.team(strategy, n, relevance, names)
    return [f"{team.agent(i)} {team.role(i)}" for i in range(len(team))]


AGENTS = [["code", "reasoning"], ["summaries"], ["software-testing", "code-execution"]]


def test_roles_of_a_pipeline_follow_the_usual_course_of_work() -> None:
    asked = ("code", "summaries", "software-testing")
    assert roles(AGENTS, "pipeline", asked) == [
        "0 first: code",
        "2 then: software-testing",
        "1 last: summaries",
    ]


def test_roles_of_a_pipeline_follow_the_text_where_parts_are_clear() -> None:
    asked = ("code", "summaries", "software-testing")
    parts = [("summaries",), ("software-testing",), ("code",)]
    assert roles(AGENTS, "pipeline", asked, *parts) == [
        "1 first: summaries",
        "2 then: software-testing",
        "0 last: code",
    ]


def test_roles_of_parts_and_voters_name_their_number_and_capability() -> None:
    assert roles(AGENTS, "parallel", ("code", "summaries")) == [
        "0 part 1 of 3: code",
        "1 part 2 of 3: summaries",
        "2 part 3 of 3: code-execution",
    ]
    assert roles(AGENTS, "ensemble", ("code", "software-testing")) == [
        "0 voter 1 of 3: code",
        "2 voter 2 of 3: software-testing",
        "1 voter 3 of 3: summaries",
    ]
    assert roles([["code"], ["code"], []], "parallel", ("code",)) == [
        "0 part 1 of 3: code (1 of 2)",
        "1 part 2 of 3: code (2 of 2)",
        "2 part 3 of 3: general",
    ]
    assert roles(AGENTS, "pipeline", ("summaries",), n=1) == ["1 only: summaries"]


def test_stages_of_work_are_told_by_the_last_word_that_tells() -> None:
    many, names, phrase = three([NAMES])
    nothing = np.zeros((1, len(names)), dtype=np.float32)
    relevance = many.relevance(nothing, phrase, names, mu=0.4, s=0.05)
    # No part asks for anything: the usual course of work alone.
    assert dict(zip(names, relevance["position"].tolist(), strict=True)) == {
        "analysis": 0.0,
        "code": 0.25,
        "code-review": 0.75,
        "execution": 0.5,
        "testing": 0.75,
        "summaries": 1.0,
        "reply": 1.0,
        "maths": 0.25,
    }


def test_relevance_is_the_greatest_cosine_with_the_request_or_a_part(rng: Any) -> None:
    many, names, phrase = three([NAMES])
    vectors = rng.normal(size=(4, len(names))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.array([_kernels.normalise(v) for v in vectors])
    relevance = many.relevance(vectors, phrase, names, mu=0.1, s=0.2)
    # Phrases are axes, so that cosines are elements; int8 has steps of 1/127.
    assert np.allclose(relevance["similarity"], vectors.max(axis=0), atol=0.01)
    fit = 1 / (1 + np.exp(-(relevance["similarity"].astype(float) - 0.1) / 0.2))
    assert np.allclose(relevance["fit"], fit, atol=1e-12)
    phrase[2] = _kernels.NONE
    without = many.relevance(vectors, phrase, names, mu=0.1, s=0.2)
    assert without["fit"][2] == without["similarity"][2] == 0.0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Build and deploy a web application", ["deploy a web application"]),
        ("Translate this letter, then check the numbers.",
         ["Translate this letter,", "check the numbers."]),
        ("first line\nsecond line", ["first line", "second line"]),
        ("version 3.14 of node.js is out", []),
        ("one thing", []),
        ("Stand up AND sit down Then go home", ["Stand up", "sit down", "go home"]),
        ("a b! " * 20, ["a b!"] * 8),
        ("and then and", []),
        ("", []),
        (" \n ", []),
        ("naïve café: über alles", ["naïve café:", "über alles"]),
    ],
)  # fmt: skip
def test_parts_of_a_request_end_where_a_task_ends(text: str, parts: list[str]) -> None:
    assert _kernels.team_parts(text) == parts


def test_team_of_numbers_out_of_bounds_raises(rng: Any) -> None:
    case = Case(rng, 4, 3, "pipeline")
    for k in (0, _kernels.MAX_TEAM + 1):
        with pytest.raises(ShapeError):
            case.team(k)
    with pytest.raises(ShapeError):
        case.scores.team("pipeline", 1, case.relevance[:1], case.names)
    with pytest.raises(ValueError):
        case.scores.team("relay", 1, case.relevance, case.names)
    case.required = [_kernels.NONE]
    assert len(case.team(2)) == 0
