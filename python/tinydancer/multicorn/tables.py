"""The foreign tables of the Multicorn door: what each takes and answers.

In: one request and its other inputs.  Out: objects whose attributes are the outputs, the same as
those of the Postgres module's tables.  Called by foreign_table.py, and by Multicorn2, which finds
the classes by the names that servers give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tinydancer.multicorn.columns import ROUTE_INPUTS, Input, TableKind
from tinydancer.multicorn.foreign_table import ForeignTable, Inputs

__all__ = ["RequestClasses", "RouteCandidates", "RouteResults", "SemanticMatches"]

_DECISION = {
    "agent_name": "text",
    "confidence": "double precision",
    "estimated_cost": "double precision",
    "estimated_latency_ms": "double precision",
    "expected_quality": "double precision",
    "similarity": "double precision",
    "reasoning": "text",
}

_CANDIDATE = {
    "agent_name": "text",
    "rank": "integer",
    "eligible": "boolean",
    "rejected_by": "text",
    "score": "double precision",
    "similarity": "double precision",
    "closest_phrase": "text",
    "fit": "double precision",
    "quality": "double precision",
    "expected_quality": "double precision",
    "estimated_cost": "double precision",
    "cost_utility": "double precision",
    "estimated_latency_ms": "double precision",
    "latency_utility": "double precision",
    "reasoning": "text",
}


class RouteResults(ForeignTable):
    """One decision for each request, as the table route_results."""

    kind = TableKind("route_results", "tinydancer.multicorn.RouteResults", ROUTE_INPUTS, _DECISION)

    def _snapshot(self) -> Any:
        return self._source.router()

    def _answer(self, snapshot: Any, request: str | None, inputs: Inputs) -> Iterable[Any]:
        decision = snapshot.route(
            request,
            cost_scale=self._source.cost_scale,
            latency_scale=self._source.latency_scale,
            **inputs.values,
        )
        return () if decision is None else (decision,)

    def _rows_of_request(self) -> int:
        return 1


class RouteCandidates(ForeignTable):
    """Every agent for each request, ranked, as the table route_candidates."""

    kind = TableKind(
        "route_candidates", "tinydancer.multicorn.RouteCandidates", ROUTE_INPUTS, _CANDIDATE
    )
    order: Mapping[str, bool] = {"rank": False, "eligible": True}

    def _snapshot(self) -> Any:
        return self._source.router()

    def _answer(self, snapshot: Any, request: str | None, inputs: Inputs) -> Iterable[Any]:
        found: Iterable[Any] = snapshot.explain(
            request,
            cost_scale=self._source.cost_scale,
            latency_scale=self._source.latency_scale,
            **inputs.values,
        )
        return found

    def _rows_of_request(self) -> int:
        return self._source.known_agents() or 20


@dataclass(frozen=True)
class RankedMatch:
    """A row of semantic_matches."""

    route_name: str
    similarity: float
    target_agent: str | None
    confidence: float
    rank: int


class SemanticMatches(ForeignTable):
    """The semantic routes that each request matches, as the table semantic_matches."""

    kind = TableKind(
        "semantic_matches",
        "tinydancer.multicorn.SemanticMatches",
        {
            "request": Input("text"),
            "top_k": Input("integer", "3", is_option=True),
            "user_tier": Input("text", is_option=True),
            # No option: what a text means as a time depends on the session.
            "at": Input("timestamp with time zone"),
            "embedding": Input("real[]"),
        },
        {
            "route_name": "text",
            "similarity": "double precision",
            "target_agent": "text",
            "confidence": "double precision",
            "rank": "integer",
        },
    )
    order: Mapping[str, bool] = {"rank": False}

    def _snapshot(self) -> Any:
        return self._source.matcher()

    def _answer(self, snapshot: Any, request: str | None, inputs: Inputs) -> Iterable[Any]:
        matches = self._source.ask(lambda conn: snapshot.match_now(conn, request, **inputs.values))
        for rank, one in enumerate(matches, start=1):
            yield RankedMatch(
                one.route_name, one.similarity, one.target_agent, one.confidence, rank
            )

    def _rows_of_request(self) -> int:
        return 3


class RequestClasses(ForeignTable):
    """The kinds of task that each request may be, as the table request_classes."""

    kind = TableKind(
        "request_classes",
        "tinydancer.multicorn.RequestClasses",
        {"request": Input("text"), "embedding": Input("real[]")},
        {
            "category": "text",
            "probability": "double precision",
            "rank": "integer",
            "model_version": "integer",
        },
    )
    order: Mapping[str, bool] = {"probability": True, "rank": False}

    def _snapshot(self) -> Any:
        return self._source.classifier()

    def _answer(self, snapshot: Any, request: str | None, inputs: Inputs) -> Iterable[Any]:
        found: Iterable[Any] = snapshot.classify(request, **inputs.values)
        return found

    def _rows_of_request(self) -> int:
        return 15
