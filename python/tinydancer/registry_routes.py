"""The semantic routes of a database, read into a RouteMatcher that answers as its server does.

A psycopg connection comes in, a snapshot comes out: what ``fdw/td_route_set.c`` reads, from the
same rows.  The conditions that only the server knows, its clock and its log, are asked of it as
``fdw/td_match.c`` does.  Used by ``tinydancer.multicorn`` and
``tinydancer.etl``.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import psycopg

from tinydancer.encoder import Encoder
from tinydancer.errors import InvalidTimeError
from tinydancer.matcher import FloatVector, Match, Route, RouteMatcher, most_routes
from tinydancer.registry import Phrase, VectorsOnly, read_encoder, snapshot, unit_vector

__all__ = ["StoredMatcher", "StoredRoute", "read_matcher"]


@dataclass(frozen=True)
class StoredRoute(Route):
    """A row of tinydancer.route and its utterances.

    Attributes:
        positive: texts that it is matched by.
        negative: texts that must not match.
        rate_limit: how many decisions a minute; None: any number.
    """

    positive: Sequence[Phrase] = field(default=(), repr=False)
    negative: Sequence[Phrase] = field(default=(), repr=False)
    rate_limit: int | None = None

    def __post_init__(self) -> None:
        # The table's own checks hold, and they allow a route that matches nothing.
        pass


class StoredMatcher(RouteMatcher):
    """A RouteMatcher over stored routes, which counts their rate limits in the database's log."""

    routes: list[StoredRoute]  # type: ignore[assignment]

    def _stored(self, phrases: Sequence[Phrase]) -> list[FloatVector]:
        return [self._embed(text) if vector is None else vector for text, vector in phrases]

    def _positives(self, route: Route) -> list[FloatVector]:
        return self._stored(cast(StoredRoute, route).positive)

    def _negatives(self, route: Route) -> list[FloatVector]:
        return self._stored(cast(StoredRoute, route).negative)

    def use_weights(self, weights: bytes, fingerprint: str) -> None:
        """Take stored weights of "ridge" if they are of these utterances."""
        shape = (self._view.n_routes, self._view.n_landmarks)
        found = np.frombuffer(weights, dtype=np.float32) if len(weights) % 4 == 0 else None
        if (
            found is not None
            and found.size == shape[0] * shape[1]
            and int(fingerprint, 16) == self._view.fingerprint
        ):
            self._view = self._packed(found.reshape(shape).copy())

    def match_now(
        self,
        conn: psycopg.Connection[Any],
        query: str | None,
        top_k: int | None = None,
        user_tier: str | None = None,
        at: str | None = None,
        embedding: Sequence[float] | FloatVector | None = None,
    ) -> list[Match]:
        """Find the matches as the server does: by its clock and time zone, and by its log.

        Args:
            conn: to the database of the routes.
            query: as for ``match``.
            top_k: see ``match``.
            user_tier: see ``match``.
            at: a timestamptz as the server reads it; None: now.
            embedding: see ``match``.

        Raises:
            InvalidInputError: as ``match`` does, and its subclasses.
            psycopg.Error: the server refused.
        """
        k = most_routes(top_k)
        timed = any(route.time_start or route.time_end for route in self.routes)
        time: datetime.time | None = None
        if at is not None or timed:
            time = _time_of_day(conn, at)
        limits = {route.name: route.rate_limit for route in self.routes}
        exhausted: set[str] = set()
        counted: set[str] = set()
        while True:
            # A route that is closed makes room for others, which may have limits too.
            matches = self.match(query, k, user_tier, time, embedding, exhausted)
            limited = [
                one.route_name
                for one in matches
                if limits[one.route_name] is not None and one.route_name not in counted
            ]
            if not limited:
                return matches
            counted.update(limited)
            taken = _decisions(conn, limited, at)
            exhausted.update(
                name for name in limited if taken.get(name, 0) >= cast(int, limits[name])
            )


def _time_of_day(conn: psycopg.Connection[Any], at: str | None) -> datetime.time:
    """The server's, in the time zone of the connection."""
    row = conn.execute(
        "SELECT CASE WHEN isfinite(t.at) THEN t.at::time END, t.at > 'epoch' "
        "FROM (SELECT coalesce(%s::timestamptz, now())) AS t (at)",
        (at,),
    ).fetchone()
    assert row is not None
    if row[0] is None:
        raise InvalidTimeError(
            "at must be a finite time",
            f"The value is {'infinity' if row[1] else '-infinity'}.",
            "Pass NULL for now.",
        )
    return cast(datetime.time, row[0])


def _decisions(
    conn: psycopg.Connection[Any], names: Sequence[str], at: str | None
) -> dict[str, int]:
    """How often each route was taken in the minute before ``at``; now: others' newest count too."""
    rows = conn.execute(
        "SELECT d.route_name, count(*) FROM tinydancer.decision d "
        "WHERE d.route_name = ANY (%(names)s) "
        "AND d.decided_at > coalesce(%(at)s::timestamptz, now()) - interval '1 minute' "
        "AND d.decided_at <= coalesce(%(at)s::timestamptz, 'infinity') GROUP BY d.route_name",
        {"names": list(names), "at": at},
    ).fetchall()
    return dict(rows)


def _route_phrases(
    description: str | None, rows: Sequence[Phrase], can_embed: bool
) -> Sequence[Phrase]:
    """A vector that a caller passed alone, else the utterances, else the description."""
    alone = next((row for row in rows if not row[0].strip(" ") and row[1] is not None), None)
    if alone is not None:
        return [alone]
    found = [row for row in rows if row[0].strip(" ") and (can_embed or row[1] is not None)]
    if not found and can_embed and (description or "").strip(" "):
        found = [(cast(str, description), None)]
    return found


def _read_routes(cursor: psycopg.Cursor[Any], encoder: Encoder) -> list[StoredRoute]:
    can_embed = not isinstance(encoder, VectorsOnly)
    cursor.execute(
        "SELECT u.route_name, u.negative, u.utterance, "
        "CASE WHEN u.encoder = %s THEN u.embedding END "
        "FROM tinydancer.route_utterance u ORDER BY u.route_name, u.position",
        (encoder.id,),
    )
    phrases: dict[tuple[str, bool], list[Phrase]] = {}
    for name, negative, text, values in cursor:
        phrases.setdefault((name, negative), []).append((text, unit_vector(values, encoder.dim)))
    # Python has no 24:00, which as the end of a window is what no end is.
    cursor.execute(
        "SELECT r.name, r.description, r.target_agent, r.priority, r.threshold, "
        "nullif(r.time_start, '24:00'), nullif(r.time_end, '24:00'), r.user_tiers, "
        "r.rate_limit_per_minute FROM tinydancer.route r WHERE r.active"
    )
    return [
        StoredRoute(
            name=name,
            description=description,
            target_agent=target,
            priority=priority,
            threshold=threshold,
            time_start=start,
            time_end=end,
            user_tiers=tiers or (),
            positive=_route_phrases(description, phrases.get((name, False), ()), can_embed),
            negative=[
                row for row in phrases.get((name, True), ()) if can_embed or row[1] is not None
            ],
            rate_limit=limit,
        )
        for name, description, target, priority, threshold, start, end, tiers, limit in cursor
    ]


def read_matcher(conn: psycopg.Connection[Any]) -> StoredMatcher:
    """Read the semantic routes into a RouteMatcher with the server's answers.

    Args:
        conn: as for ``read_router``.

    Raises:
        psycopg.Error: the server refused.
        EncoderNotFoundError: if the encoder's file is not here and no vector is stored.
        FileFormatError: if it is another one and no vector is stored.
    """
    with snapshot(conn) as cursor:
        encoder = read_encoder(cursor)
        routes = _read_routes(cursor, encoder)
        cursor.execute(
            "SELECT s.scorer, s.confidence_mu, s.confidence_s, s.weights, s.fingerprint "
            "FROM tinydancer.route_scorer s WHERE s.encoder = %s",
            (encoder.id,),
        )
        row = cursor.fetchone()
    if row is None:
        return StoredMatcher(routes, encoder)
    scorer, mu, s, weights, fingerprint = row
    matcher = StoredMatcher(routes, encoder, scorer=scorer, mu=mu, s=s)
    if scorer == "ridge" and weights is not None:
        matcher.use_weights(weights, fingerprint)
    return matcher
