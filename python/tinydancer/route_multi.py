"""Several agents for one request, offline: the teams of ruvector_route_multi(), to the bit.

A request and limits come in, members of a team come out.  ``tinydancer.route.Router`` inherits the
method; the choice is made by the kernel (td_team.c), this module prepares what it reads.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinydancer import _kernels
from tinydancer.errors import EmptyRequestError, InvalidInputError

if TYPE_CHECKING:
    from tinydancer.route import Router

__all__ = ["MultiRouting", "TeamMember"]


@dataclass(frozen=True)
class TeamMember:
    """One agent of a team; the columns of ruvector_route_multi().

    Attributes:
        step: its number from 1: the order of a pipeline, else best score first.
        agent_name: its name.
        role: what it is for, such as "first: reasoning, code".
        confidence: its expected_quality.
        estimated_cost: USD for this request, None: unknown.
        estimated_latency_ms: ms, None: unknown.
        expected_quality: fit times quality, in [0, 1].
        similarity: greatest cosine between the request and the agent's phrases.
        reasoning: one line that a person can read.
        weight: of its vote, or its share of parallel work; they sum to 1. None in a pipeline.
        capabilities: what it is there for, in lower case.
    """

    step: int
    agent_name: str
    role: str
    confidence: float
    estimated_cost: float | None
    estimated_latency_ms: float | None
    expected_quality: float
    similarity: float
    reasoning: str
    weight: float | None
    capabilities: tuple[str, ...]


def _known(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _strategy(name: str | None) -> str:
    if name is None:
        return _kernels.STRATEGIES[0]
    if name not in _kernels.STRATEGIES:
        close = difflib.get_close_matches(str(name), _kernels.STRATEGIES, n=1)
        raise InvalidInputError(
            f'unknown strategy "{name}"',
            f"Known strategies are {', '.join(_kernels.STRATEGIES)}.",
            f'Perhaps you meant "{close[0]}".'
            if close
            else "A pipeline works step by step, in parallel each agent does a share, an ensemble "
            "votes.",
        )
    return name


def _num_agents(n: int | None) -> int:
    if n is None:
        return 3
    if not 1 <= n <= _kernels.MAX_TEAM:
        raise InvalidInputError(
            f"num_agents must be between 1 and {_kernels.MAX_TEAM}",
            f"The value is {n}.",
            "Pass how many agents the request should go to.",
        )
    return int(n)


def _capability_phrases(router: Router) -> npt.NDArray[np.uint32]:
    """The phrase that says each capability, NONE where a vector stands for an agent's texts."""
    phrases = np.full(len(router._capabilities), _kernels.NONE, dtype=np.uint32)
    for row, agent in zip(router._registry.agents, router.agents, strict=True):
        if agent.embedding is not None:
            continue
        for position, name in enumerate(agent.capabilities):
            number = router._capabilities[_kernels.fold(name)]
            if phrases[number] == _kernels.NONE:
                phrases[number] = row["first_phrase"] + position
    return phrases


def _queries(
    router: Router, request: str | None, embedding: Sequence[float] | npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """The vectors of the request and of its parts; a vector stands for both."""
    if embedding is not None:
        return router._vector(embedding)[None, :]
    assert request is not None
    vectors = [router.encoder.embed_info(request)[0]]
    for part in _kernels.team_parts(request):
        try:
            vectors.append(router.encoder.embed_info(part)[0])
        except EmptyRequestError:
            vectors.append(np.zeros(router.encoder.dim, dtype=np.float32))
    return np.stack(vectors)


def _required(router: Router, names: Iterable[str] | None) -> list[int]:
    """Ids of the capabilities that a team must have together, each once."""
    texts = [names] if isinstance(names, str) else list(names or ())
    for text in texts:
        if not isinstance(text, str):
            raise InvalidInputError(
                "required_capabilities must contain texts only", f"It has {text!r}."
            )
    ids = dict.fromkeys(
        router._capabilities.get(_kernels.fold(text), _kernels.NONE) for text in texts
    )
    if len(ids) > _kernels.MAX_NEEDS:
        raise InvalidInputError(
            "too many required_capabilities for one team",
            f"There are {len(ids)}, the limit is {_kernels.MAX_NEEDS}.",
            "Route the parts of the request by themselves.",
        )
    return list(ids)


class MultiRouting:
    """The part of Router that chooses teams."""

    def route_multi(
        self,
        request: str | None,
        num_agents: int | None = 3,
        strategy: str | None = "pipeline",
        required_capabilities: Iterable[str] | None = None,
        max_cost: float | None = None,
        max_latency_ms: float | None = None,
        min_quality: float | None = None,
        excluded_agents: Iterable[str] | None = None,
        budget_remaining: float | None = None,
        embedding: Sequence[float] | npt.NDArray[np.float32] | None = None,
        pool: str | None = None,
        min_expected_quality: float | None = None,
        optimize_for: str | None = "balanced",
        cost_scale: float = 0.001,
        latency_scale: float = 1000.0,
    ) -> list[TeamMember]:
        """Choose several agents, as ruvector_route_multi() does.

        Args:
            request: the text; None: only ``embedding`` counts.
            num_agents: from 1 to 32; fewer come back where fewer are within the limits.
            strategy: "pipeline" (one after the other), "parallel" (disjoint shares) or "ensemble"
                (all answer, and vote).
            required_capabilities: that the team must have together, in the order of the work; in
                an ensemble, that every voter must have. None: what the request seems to ask for.
            max_cost: USD of all members together; None: no limit.
            max_latency_ms: ms: the sum of a pipeline, else the slowest; None: no limit.
            min_quality: of each member's quality_score; None: no limit.
            excluded_agents: names; one that no agent has excludes nobody.
            budget_remaining: USD of all members together; None: no limit.
            embedding: (dim,), the request's vector in place of the text's; scaled to unit length.
            pool: only agents of this pool; None: any.
            min_expected_quality: of each member; None: no limit.
            optimize_for: what the scores of members measure; None: "balanced".
            cost_scale: USD at which cost_utility is 0.5.
            latency_scale: ms at which latency_utility is 0.5.

        Returns:
            The members, in the order of their steps; none when no team is within the limits or
            there is nothing to route.

        Raises:
            InvalidInputError: as ``route`` does, and its subclasses; also for a number or a
                strategy that is none.
        """
        router: Router = self  # type: ignore[assignment]
        strategy = _strategy(strategy)
        wanted = _num_agents(num_agents)
        together = strategy != "ensemble"
        scored = router._score(
            request,
            optimize_for,
            None if together else required_capabilities,
            max_cost,
            max_latency_ms,
            min_quality,
            excluded_agents,
            budget_remaining,
            embedding,
            pool,
            min_expected_quality,
            cost_scale,
            latency_scale,
        )
        if scored is None:
            return []
        scores, objective, info = scored
        names = list(router._capabilities)
        relevance = router._registry.relevance(
            _queries(router, request, embedding),
            _capability_phrases(router),
            names,
            mu=router.encoder.fit_mu,
            s=router.encoder.fit_s,
        )
        caps = [limit for limit in (max_cost, budget_remaining) if limit is not None]
        team = scores.team(
            strategy,
            wanted,
            relevance,
            names,
            required=_required(router, required_capabilities) if together else (),
            max_cost=min(caps, default=math.inf),
            max_latency_ms=math.inf if max_latency_ms is None else max_latency_ms,
        )
        members = []
        for i in range(len(team)):
            row = scores.candidates[team.agent(i)]
            members.append(
                TeamMember(
                    step=i + 1,
                    agent_name=router.agents[team.agent(i)].name,
                    role=team.role(i),
                    confidence=float(row["expected_quality"]),
                    estimated_cost=_known(row["cost"]),
                    estimated_latency_ms=_known(row["latency"]),
                    expected_quality=float(row["expected_quality"]),
                    similarity=float(row["similarity"]),
                    reasoning=team.reason(i, objective, info),
                    weight=_known(team.weight(i)),
                    capabilities=tuple(names[c] for c in team.capabilities(i)),
                )
            )
        return members
