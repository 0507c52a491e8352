"""Semantic routes without a server: the matches of ruvector_semantic_route(), to the bit.

Routes and an encoder come in, matches come out, and ``RouteMatcher.tune`` chooses how routes are
scored as ruvector_tune_routes() does.  Python packs the routes and judges times and tiers; every
number is made by the kernel (``tinydancer._kernels``).  What a rate limit has counted lies in the
database's log, so offline the caller says which routes are exhausted.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import DimensionError, EmptyRequestError, InvalidInputError

__all__ = ["SCORERS", "Match", "Route", "RouteMatcher", "RouteReport"]

FloatVector = npt.NDArray[np.float32]

SCORERS: tuple[str, ...] = _kernels.SCORER_NAMES


@dataclass(frozen=True)
class Route:
    """A topic, example requests, and who answers them.

    Attributes:
        name: of the route.
        target_agent: who answers; None: the route only names a topic.
        utterances: example requests; without any the description is the only one.
        negatives: requests that must not match.
        description: what the route is about.
        embedding: (dim,), a vector that stands alone in place of the utterances.
        priority: the greater goes first in a near-tie.
        threshold: least similarity that matches, -1 to 1; None: no cut.
        time_start: matches from this time of day on; None: from midnight.
        time_end: and before this one; None: until midnight.  Before the start: over midnight.
        user_tiers: who may use it; empty: anybody.
    """

    name: str
    target_agent: str | None = None
    utterances: Sequence[str] = ()
    negatives: Sequence[str] = ()
    description: str | None = None
    embedding: Sequence[float] | FloatVector | None = field(default=None, repr=False)
    priority: int = 0
    threshold: float | None = None
    time_start: datetime.time | None = None
    time_end: datetime.time | None = None
    user_tiers: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InvalidInputError("name must not be empty", "A route has a blank name.")
        for what in ("utterances", "negatives", "user_tiers"):
            texts = getattr(self, what)
            if isinstance(texts, str) or any(not str(text).strip() for text in texts):
                raise InvalidInputError(
                    f"{what} must be a one-dimensional list of non-empty texts",
                    f'Route "{self.name}" has {texts!r}.',
                )
        if self.embedding is None and not self.utterances and not (self.description or "").strip():
            raise InvalidInputError(
                f'route "{self.name}" has nothing that a request could be matched with',
                "Its description, utterances and embedding are all empty.",
                'Pass utterances=["an example request", ...], or at least a description.',
            )
        both = [text for text in self.utterances if text in set(self.negatives)]
        if both:
            raise InvalidInputError(
                f'an utterance of route "{self.name}" is a negative example too',
                f'Both lists have "{both[0]}".',
                "Remove it from utterances or from negatives.",
            )
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise InvalidInputError(
                "threshold must be between -1 and 1",
                f'Route "{self.name}" has {self.threshold}.',
                "It is compared with the similarity; pass None for no cut.",
            )
        if self.time_start is not None and self.time_start == self.time_end:
            raise InvalidInputError(
                "time_start and time_end must differ",
                f'Route "{self.name}" has {self.time_start} twice.',
                "Pass neither for the whole day; a start after the end goes over midnight.",
            )

    def is_open(self, time: datetime.time, user_tier: str | None) -> bool:
        """Whether a user of that tier may use the route at that time of day."""
        if self.user_tiers and user_tier not in self.user_tiers:
            return False
        start = self.time_start or datetime.time.min
        if self.time_end is None:
            return time >= start
        if start < self.time_end:
            return start <= time < self.time_end
        return time >= start or time < self.time_end


@dataclass(frozen=True)
class Match:
    """A route that a request matches; the columns of ruvector_semantic_route()."""

    route_name: str
    similarity: float
    target_agent: str | None
    confidence: float


@dataclass(frozen=True)
class RouteReport:
    """What leave-one-out says of a route; the columns of ruvector_tune_routes()."""

    route_name: str
    utterances: int
    scorer: str
    threshold: float | None
    precision: float | None
    coverage: float | None
    most_confused_with: str | None
    confusion: float
    accuracy: float | None


def _distinct(texts: Iterable[str]) -> list[str]:
    """Said twice counts once."""
    return list(dict.fromkeys(texts))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def most_routes(top_k: int | None) -> int:
    """How many routes a request has at most.

    Raises:
        InvalidInputError: for a number below 1.
    """
    k = 3 if top_k is None else top_k
    if k < 1:
        raise InvalidInputError(
            "top_k must be at least 1", f"The value is {k}.", "Pass None for the default of 3."
        )
    return k


class RouteMatcher:
    """Semantic routes, packed for the kernel.

    Args:
        routes: with different names.
        encoder: None: the static one.
        scorer: one of ``SCORERS``; "nearest" until ``tune`` chooses.
        mu: similarity at which confidence is 0.5; None: the encoder's fit.
        s: the slope of confidence; None: the encoder's fit.

    Raises:
        InvalidInputError: for a name that is there twice or an unknown scorer.
        DimensionError: for a route's embedding of another length.
        NonFiniteError: for a NaN or an infinity in it.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        encoder: Encoder | None = None,
        *,
        scorer: str = "nearest",
        mu: float | None = None,
        s: float | None = None,
    ) -> None:
        self.encoder = Encoder.load("static") if encoder is None else encoder
        # Byte order of the names, as in the server.
        self.routes = sorted(routes, key=lambda route: route.name.encode())
        for one, other in itertools.pairwise(self.routes):
            if one.name == other.name:
                raise InvalidInputError(
                    f'route "{one.name}" is there twice',
                    None,
                    "Give every route a name of its own.",
                )
        self.scorer = scorer
        self.mu = self.encoder.fit_mu if mu is None else mu
        self.s = self.encoder.fit_s if s is None else s
        self._positive = self._pack([self._positives(route) for route in self.routes])
        self._negative = self._pack([self._negatives(route) for route in self.routes])
        self._view = self._packed(None)

    def _embed(self, text: str) -> FloatVector:
        try:
            vector: FloatVector = self.encoder.embed_info(text)[0]
            return vector
        except EmptyRequestError:
            return np.zeros(self.encoder.dim, dtype=np.float32)

    def _positives(self, route: Route) -> list[FloatVector]:
        if route.embedding is not None:
            return [self._vector(route.embedding)]
        texts = _distinct(route.utterances) or [route.description or ""]
        return [self._embed(text) for text in texts]

    def _negatives(self, route: Route) -> list[FloatVector]:
        return [self._embed(text) for text in _distinct(route.negatives)]

    def _vector(self, embedding: Sequence[float] | FloatVector) -> FloatVector:
        """A caller's vector, scaled to unit length."""
        vector = np.array(embedding, dtype=np.float32)
        if vector.ndim != 1:
            raise InvalidInputError("vector must have one dimension", f"It has {vector.ndim}.")
        if vector.shape[0] != self.encoder.dim:
            raise DimensionError(
                _kernels.status_text(3),
                f'Vectors of encoder "{self.encoder.id}" have {self.encoder.dim}, '
                f"the argument has {vector.shape[0]}.",
                "Embed the text with Encoder.embed(), or use the encoder that made the vector.",
            )
        return _kernels.normalise(vector)

    def _pack(
        self, vectors: Sequence[Sequence[FloatVector]]
    ) -> tuple[list[int], npt.NDArray[np.int8], FloatVector]:
        counts = [len(one) for one in vectors]
        rows = np.zeros((sum(counts), self.encoder.dim), dtype=np.int8)
        scales = np.zeros(sum(counts), dtype=np.float32)
        for i, vector in enumerate(vector for one in vectors for vector in one):
            rows[i], scales[i] = _kernels.quantise(vector)
        return counts, rows, scales

    def _packed(self, weights: FloatVector | None) -> _kernels.Routes:
        packed = np.zeros(len(self.routes), dtype=_kernels.ROUTE_DTYPE)
        packed["n_rows"] = self._positive[0]
        packed["first_row"] = np.cumsum(self._positive[0]) - packed["n_rows"]
        packed["n_negatives"] = self._negative[0]
        packed["first_negative"] = np.cumsum(self._negative[0]) - packed["n_negatives"]
        packed["priority"] = [route.priority for route in self.routes]
        packed["threshold"] = [
            -math.inf if route.threshold is None else route.threshold for route in self.routes
        ]
        return _kernels.Routes(
            packed,
            self._positive[1],
            self._positive[2],
            self._negative[1],
            self._negative[2],
            scorer=self.scorer,
            mu=self.mu,
            s=self.s,
            weights=weights,
        )

    def match(
        self,
        query: str | None,
        top_k: int | None = 3,
        user_tier: str | None = None,
        at: datetime.datetime | datetime.time | None = None,
        embedding: Sequence[float] | FloatVector | None = None,
        exhausted: Iterable[str] = (),
    ) -> list[Match]:
        """Find the routes that a request matches, as ruvector_semantic_route() does.

        Args:
            query: the text; None: only ``embedding`` counts.
            top_k: how many at most; None: 3.
            user_tier: of whoever asks; None: of no tier.
            at: the time that time windows are judged at; None: now, here.
            embedding: (dim,), the request's vector in place of the text's.
            exhausted: names of routes whose rate limit is reached.

        Returns:
            The matches, best first; none when no route matches or there is nothing to match.

        Raises:
            EmptyRequestError: for a text of nothing but white space and control characters.
            DimensionError: for an embedding of another length.
            NonFiniteError: for a NaN or an infinity in the embedding.
            InvalidInputError: for a ``top_k`` below 1.
        """
        k = most_routes(top_k)
        if query is None and embedding is None:
            return []
        if embedding is not None:
            vector = self._vector(embedding)
        else:
            assert query is not None
            vector = self.encoder.embed_info(query)[0]
        moment = datetime.datetime.now() if at is None else at
        time = moment.time() if isinstance(moment, datetime.datetime) else moment
        closed = set(exhausted)
        is_open = np.array(
            [r.name not in closed and r.is_open(time, user_tier) for r in self.routes], dtype=bool
        )
        scores = self._view.score(vector)
        return [
            Match(
                route_name=self.routes[i].name,
                similarity=max(min(float(scores[i]), 1.0), -1.0),
                target_agent=self.routes[i].target_agent,
                confidence=self._view.confidence(float(scores[i])),
            )
            for i in self._view.select(scores, min(k, len(self.routes)), is_open).tolist()
        ]

    def tune(
        self,
        target_precision: float | None = None,
        target_coverage: float | None = None,
        apply: bool = True,
        force_scorer: str | None = None,
    ) -> list[RouteReport]:
        """Choose scorer, constants of confidence and thresholds, as ruvector_tune_routes() does.

        Args:
            target_precision: wanted of each route's answers, 0 to 1; None: not wanted.
            target_coverage: wanted share of each route's requests, 0 to 1; None: not wanted.
            apply: match with them from now on.
            force_scorer: one of ``SCORERS``; None: the most accurate.

        Returns:
            A report for each route, by name.

        Raises:
            InvalidInputError: for a share outside of 0 to 1, both wanted, or an unknown scorer.
        """
        for what, share in (
            ("target_precision", target_precision),
            ("target_coverage", target_coverage),
        ):
            if share is not None and not 0 <= share <= 1:
                raise InvalidInputError(
                    f"{what} must be between 0 and 1",
                    f"The value is {share}.",
                    "Pass None when none is wanted.",
                )
        if target_precision is not None and target_coverage is not None:
            raise InvalidInputError(
                "target_precision and target_coverage cannot both be wanted",
                "A threshold that raises one lowers the other.",
                "Pass one of them; the report has both.",
            )
        result, rows = self._view.tune(
            scorer=force_scorer, precision=target_precision, coverage=target_coverage
        )
        reports = [self._report(route, n, row, result) for route, n, row in self._numbered(rows)]
        if apply:
            self.routes = [
                replace(route, threshold=report.threshold)
                for route, report in zip(self.routes, reports, strict=True)
            ]
            if result["fitted"]:
                self.scorer, self.mu, self.s = result["scorer"], result["mu"], result["s"]
            self._view = self._packed(result["weights"] if self.scorer == "ridge" else None)
        return reports

    def _numbered(self, rows: npt.NDArray[np.void]) -> Iterable[tuple[Route, int, Any]]:
        return zip(self.routes, self._positive[0], rows, strict=True)

    def _report(self, route: Route, n: int, row: Any, result: Mapping[str, Any]) -> RouteReport:
        threshold = _known(row["threshold"])
        other = int(row["confused_with"])
        return RouteReport(
            route_name=route.name,
            utterances=n,
            scorer=result["scorer"],
            threshold=None if threshold is None else max(min(threshold, 1.0), -1.0),
            precision=_known(row["precision"]),
            coverage=_known(row["coverage"]),
            most_confused_with=None if other == _kernels.NONE else self.routes[other].name,
            confusion=float(row["confusion"]),
            accuracy=_known(result["accuracy"][result["scorer"]]),
        )
