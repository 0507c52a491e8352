"""Many requests at once, offline: the decisions of ruvector_batch_route(), to the bit.

A list of requests and limits come in, decisions come out.  ``tinydancer.route.Router`` inherits the
method; what is decided for all requests together is solved by the kernel (td_knapsack.c).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinydancer import _kernels
from tinydancer.errors import InfeasiblePlanError, InvalidInputError, UnknownObjectiveError

if TYPE_CHECKING:
    from tinydancer.route import Router

__all__ = ["BatchDecision", "BatchRouting"]

# The objective that decides for all requests together.
TOTAL_COST = "total_cost"

# As in td_knapsack.c: relative, what rounding of sums may come to.
ROUNDING = 1e-12


@dataclass(frozen=True)
class BatchDecision:
    """The chosen agent for one of many requests; the columns of ruvector_batch_route().

    Attributes:
        request_index: its place in the list, from 1.
        request: the text.
        agent_name: the agent's name.
        confidence: expected_quality of the chosen agent.
        estimated_cost: USD for this request, None: unknown.
        estimated_latency_ms: ms, None: unknown.
        expected_quality: fit times quality, in [0, 1].
        similarity: greatest cosine between the request and the agent's phrases.
        reasoning: one line that a person can read.
    """

    request_index: int
    request: str
    agent_name: str
    confidence: float
    estimated_cost: float | None
    estimated_latency_ms: float | None
    expected_quality: float
    similarity: float
    reasoning: str


def _known(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _is_total_cost(router: Router, optimize_for: str | None, max_total_cost: float | None) -> bool:
    if optimize_for is None:
        return max_total_cost is not None
    if optimize_for == TOTAL_COST:
        return True
    if optimize_for not in router.policies and difflib.get_close_matches(
        optimize_for, [TOTAL_COST], n=1
    ):
        raise UnknownObjectiveError(
            f'unknown optimization target "{optimize_for}"',
            f'Besides the targets of ruvector_route(), a batch knows "{TOTAL_COST}".',
            f'Perhaps you meant "{TOTAL_COST}".',
        )
    if max_total_cost is not None:
        raise InvalidInputError(
            f'max_total_cost needs the optimization target "{TOTAL_COST}"',
            f'The target is "{optimize_for}", which decides each request alone.',
            f'Pass optimize_for="{TOTAL_COST}", or leave max_total_cost out.',
        )
    return False


@dataclass(frozen=True)
class _Limits:
    """What total_cost keeps for all requests together."""

    goal: str
    min_quality: float  # NaN: that of balanced
    max_cost: float
    cost_name: str


def _joint_limits(
    min_quality: float | None, budget_remaining: float | None, max_total_cost: float | None
) -> _Limits:
    if min_quality is not None and not (min_quality == -math.inf or 0.0 <= min_quality <= 1.0):
        raise InvalidInputError(
            "min_quality must be between 0 and 1",
            f"The value is {min_quality:g}.",
            'Pass None for what the target "balanced" would reach.',
        )
    cap = math.inf if max_total_cost is None else float(max_total_cost)
    budget = math.inf if budget_remaining is None else float(budget_remaining)
    if math.isnan(cap) or cap < 0.0:
        raise InvalidInputError(
            f"max_total_cost must not be {'NaN' if math.isnan(cap) else 'negative'}",
            f"The value is {cap:g}.",
            "Pass None or infinity for no limit.",
        )
    if math.isnan(budget):
        raise InvalidInputError(
            "budget_remaining must not be NaN",
            "The value is nan.",
            "Pass None or infinity for no limit.",
        )
    return _Limits(
        "least_cost" if max_total_cost is None else "most_quality",
        math.nan if min_quality is None else float(min_quality),
        min(cap, budget),
        "max_total_cost" if cap <= budget else "budget_remaining",
    )


def _quality_error(wanted: float, reachable: float, n: int) -> InfeasiblePlanError:
    floor = math.floor(reachable * 1e6) / 1e6
    return InfeasiblePlanError(
        f"no plan reaches a mean expected quality of {wanted:g}",
        f"The eligible agents reach {floor:.6f} on average; requests: {n}.",
        f'With the target "{TOTAL_COST}", min_quality is the mean of expected_quality; lower it, '
        "or register agents that fit the requests better.",
    )


def _cost_error(limits: _Limits, needed: float, quality: float, n: int) -> InfeasiblePlanError:
    return InfeasiblePlanError(
        f"no plan stays within {limits.cost_name} {limits.max_cost:.15g}",
        f"A mean expected quality of {quality:g} for the {n} requests costs {needed:.15g} USD."
        if quality > 0.0
        else f"The cheapest agents for the {n} requests cost {needed:.15g} USD together.",
        f"Raise {limits.cost_name}, lower min_quality, or pass fewer requests.",
    )


def _solve(
    limits: _Limits, groups: list[Any], fallback: list[Any], items: list[int]
) -> tuple[Any, _kernels.Plan]:
    """Numbers of the chosen choices, one for each item, and the plan."""
    least = limits.goal == "least_cost"
    level, plan = _kernels.solve_plan(
        np.cumsum([0, *(len(group) for group in groups)]).astype(np.uint32),
        np.concatenate(groups),
        items,
        limits.goal,
        limits.min_quality if least else limits.max_cost,
        fallback=np.array(fallback, dtype=_kernels.CHOICE_DTYPE),
    )
    n = len(items)
    if least:
        if not plan.is_feasible:
            raise _quality_error(plan.limit, plan.reachable, n)
        over = plan.cost - limits.max_cost
        if limits.max_cost < math.inf and over > ROUNDING * abs(limits.max_cost):
            raise _cost_error(limits, plan.cost, plan.limit, n)
    elif not plan.is_feasible:
        raise _cost_error(limits, plan.reachable, 0.0, n)
    elif plan.quality / n < limits.min_quality - ROUNDING:
        raise _quality_error(limits.min_quality, plan.quality / n, n)
    return level, plan


def _rows_of_texts(texts: list[str]) -> tuple[Any, Any, Any]:
    """Texts as route_block() takes them: bytes, where each begins and ends, and which there are."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return data, offsets, np.ones(len(texts), dtype=np.uint8)


def _decide_block(
    router: Router, texts: list[str], objective: str, terms: dict[str, Any]
) -> dict[str, Any]:
    """What route_block() says of texts with the same terms, those of Router._terms()."""

    def ids(name: str) -> tuple[Any, Any]:
        return np.array([0, len(terms[name])], dtype=np.int64), np.uint32(terms[name])

    pool = -1 if terms["pool"] is None else terms["pool"]
    found: dict[str, Any] = _kernels.route_block(
        router._registry,
        router.encoder,
        texts=_rows_of_texts(texts),
        mu=terms["mu"],
        s=terms["s"],
        limits=np.array([[terms[name] for name in _kernels.BLOCK_LIMITS]], dtype=np.float64),
        objective=np.zeros(1, dtype=np.uint32),
        objectives=[objective],
        weights=np.array([[terms[name] for name in _kernels.BLOCK_WEIGHTS]], dtype=np.float64),
        pool=np.array([pool], dtype=np.int64),
        required=ids("required"),
        excluded=ids("excluded"),
        cost_scale=terms["cost_scale"],
        latency_scale=terms["latency_scale"],
        reasoning=True,
        model=router.model,
        outputs=router._outputs,
    )
    return found


class BatchRouting:
    """The part of Router that decides for many requests."""

    def route_batch(
        self,
        requests: Iterable[str | None],
        optimize_for: str | None = None,
        required_capabilities: Iterable[str] | None = None,
        max_cost: float | None = None,
        max_latency_ms: float | None = None,
        min_quality: float | None = None,
        excluded_agents: Iterable[str] | None = None,
        budget_remaining: float | None = None,
        pool: str | None = None,
        min_expected_quality: float | None = None,
        max_total_cost: float | None = None,
        cost_scale: float = 0.001,
        latency_scale: float = 1000.0,
    ) -> list[BatchDecision]:
        """Choose an agent for each of many requests, as ruvector_batch_route() does.

        Args:
            requests: the texts; None gives no decision.
            optimize_for: an objective of ``route``, which decides each request alone; or
                "total_cost", which decides for all of them together. None: "balanced", and with
                ``max_total_cost`` "total_cost".
            required_capabilities: as for ``route``, and so are the limits without a word here.
            max_cost: USD for each request.
            max_latency_ms: see ``route``.
            min_quality: as for ``route``; with "total_cost" the mean expected_quality wanted, None:
                what "balanced" would reach.
            excluded_agents: see ``route``.
            budget_remaining: USD for each request; with "total_cost" for all of them together.
            pool: see ``route``.
            min_expected_quality: see ``route``.
            max_total_cost: USD for all requests together: the plan is then the one of greatest
                total expected quality within it. None: the plan of least cost.
            cost_scale: USD at which cost_utility is 0.5.
            latency_scale: ms at which latency_utility is 0.5.

        Returns:
            Decisions in the order of the requests; none for a request that no agent can take.

        Raises:
            InfeasiblePlanError: where "total_cost" cannot keep what is wanted.
            InvalidInputError: as ``route`` does, and its subclasses.
        """
        router: Router = self  # type: ignore[assignment]
        texts = list(requests)
        together = _is_total_cost(router, optimize_for, max_total_cost)
        required = None if required_capabilities is None else list(required_capabilities)
        excluded = None if excluded_agents is None else list(excluded_agents)

        named = (
            None if together else optimize_for,
            required,
            max_cost,
            max_latency_ms,
            None if together else min_quality,
            excluded,
            None if together else budget_remaining,
        )
        others = (pool, min_expected_quality, cost_scale, latency_scale)

        def score(text: str) -> Any:
            return router._score(text, *named, None, *others)

        def decision(i: int, agent: int, row: dict[str, Any], reasoning: str) -> BatchDecision:
            text = texts[i]
            assert text is not None
            return BatchDecision(
                request_index=i + 1,
                request=text,
                agent_name=router.agents[agent].name,
                confidence=float(row["expected_quality"]),
                estimated_cost=_known(row["cost"]),
                estimated_latency_ms=_known(row["latency"]),
                expected_quality=float(row["expected_quality"]),
                similarity=float(row["similarity"]),
                reasoning=reasoning,
            )

        # Equal texts are scored once.
        distinct = dict.fromkeys(text for text in texts if text is not None)
        result = []
        if not together:
            kept: dict[str, tuple[int, Any, str]] = {}
            unique = list(distinct)
            if not unique:
                return []
            if not isinstance(router.encoder, _kernels.Encoder):
                # Vectors of an encoder that is not here: scoring a text says so.
                score(unique[0])
            found = _decide_block(router, unique, *router._terms(*named, *others))
            ends, sentences = found.pop("reasoning")
            for k, text in enumerate(unique):
                if found["status"][k] != 0:
                    score(text)  # raises what is wrong with it
                if found["agent"][k] != _kernels.NONE:
                    row = {name: values[k] for name, values in found.items()}
                    reason = bytes(sentences[ends[k] : ends[k + 1]]).decode()
                    kept[text] = int(found["agent"][k]), row, reason
            for i, asked in enumerate(texts):
                if asked in kept:
                    result.append(decision(i, *kept[asked]))
            return result

        limits = _joint_limits(min_quality, budget_remaining, max_total_cost)
        groups: list[Any] = []
        fallback: list[Any] = []
        scored: list[Any] = []
        group_of: dict[str, int] = {}
        n_asked = sum(text is not None for text in texts)
        for text in distinct:
            scores, _, info = score(text)
            choices, preferred = scores.choices(
                n_asked > _kernels.EXACT_ITEMS, limits.max_cost < math.inf
            )
            if len(choices):
                group_of[text] = len(groups)
                groups.append(choices)
                fallback.append(preferred)
                scored.append((scores, info))
        placed = [
            (i, group_of[text])
            for i, text in enumerate(texts)
            if text is not None and text in group_of
        ]
        if not placed:
            return []
        items = [group for _, group in placed]
        level, plan = _solve(limits, groups, fallback, items)
        for (i, group), chosen in zip(placed, level.tolist(), strict=True):
            choice = fallback[group] if chosen == _kernels.NONE else groups[group][chosen]
            scores, info = scored[group]
            agent = int(choice["agent"])
            latency = float(router._registry.agents["avg_latency_ms"][agent])
            row = {
                "expected_quality": choice["quality"],
                "cost": choice["cost"] if choice["is_known"] else math.nan,
                "latency": latency,
                "similarity": choice["similarity"],
            }
            reason = scores.reason_plan(choice, latency, limits.goal, plan, len(items), info)
            result.append(decision(i, agent, row, reason))
        return result
