"""The registry of a database as a Router and a RouteMatcher: what its sessions decide with.

A psycopg connection comes in, snapshots come out that decide offline as the server does, to the
bit: texts that count, stored vectors, policies, the active encoder and the scales of utilities.
What is read is what the connection's transaction sees.  fdw/td_registry_build.c and
fdw/td_route_set.c do the same in C.  Called by ``tinydancer.etl``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import EncoderNotFoundError, FileFormatError, NonFiniteError
from tinydancer.matcher import FloatVector, Route, RouteMatcher
from tinydancer.route import CALLERS_VECTOR, Agent, Policy, Router

__all__ = ["ServerRegistry", "VectorsOnly", "active_encoder", "read_matcher", "read_registry"]

# The id of a database whose callers pass every vector.
EXTERNAL = "external"

_AGENT_COLUMNS = (
    "name",
    "type",
    "description",
    "capabilities",
    "cost_per_1k_tokens",
    "cost_per_1k_output_tokens",
    "cost_per_call",
    "cost_per_second",
    "expected_output_tokens",
    "avg_latency_ms",
    "p99_latency_ms",
    "quality_score",
    "success_rate",
    "pool",
    "active",
)

# A text that has a vector, which is None where it is yet to be made.
Phrase = tuple[str, "FloatVector | None"]


class VectorsOnly:
    """What stands for the encoder of a database whose callers pass every vector."""

    checksum = ""

    def __init__(self, dim: int, fit_mu: float, fit_s: float) -> None:
        self.id = EXTERNAL
        self.dim = dim
        self.fit_mu = fit_mu
        self.fit_s = fit_s
        self._counter = Encoder.load("static")

    def count_tokens(self, text: str) -> int:
        """Return how many word pieces a text has: what it costs does not depend on its vector."""
        return int(self._counter.count_tokens(text))

    @property
    def counter(self) -> Encoder:
        """The encoder that counts."""
        return self._counter

    def embed_info(self, text: str) -> tuple[FloatVector, int, int, int]:
        """Refuse: no text has a vector.

        Raises:
            EncoderNotFoundError: always.
        """
        raise EncoderNotFoundError(
            f'encoder "{EXTERNAL}" makes no vectors',
            "This database takes every vector from its callers.",
            "Pass embedding, or switch with CALL tinydancer.use_encoder('static').",
        )


@dataclass(frozen=True)
class ServerRegistry:
    """A database's registry, and the settings that decisions depend on.

    Attributes:
        router: decides as the database's sessions do.
        cost_scale: USD at which cost_utility is 0.5.
        latency_scale: ms at which latency_utility is 0.5.
    """

    router: Router
    cost_scale: float
    latency_scale: float


class _StoredRouter(Router):
    """A router whose phrases, and vectors where there are, come from tables."""

    def __init__(
        self,
        agents: list[Agent],
        encoder: Any,
        policies: Mapping[str, Policy],
        stored: Mapping[str, list[Phrase]],
    ) -> None:
        self._stored = stored
        self._first: dict[str, int] = {}
        super().__init__(agents, encoder, policies)

    def _phrases_of(self, agent: Agent) -> list[str]:
        self._first[agent.name] = len(self._phrases)
        return [text for text, _ in self._stored[agent.name]]

    def _phrase_vector(self, agent: Agent, phrase: int) -> FloatVector:
        vector = self._stored[agent.name][phrase - self._first[agent.name]][1]
        return super()._phrase_vector(agent, phrase) if vector is None else vector


def active_encoder(conn: psycopg.Connection[Any]) -> Encoder | VectorsOnly:
    """Open the encoder that a database uses.

    Raises:
        EncoderNotFoundError: if Python does not find its file.
        FileFormatError: if Python finds another file under its id.
    """
    row = conn.execute(
        "SELECT id, dim, checksum, fit_mu, fit_s FROM tinydancer.active_encoder()"
    ).fetchone()
    assert row is not None
    name, dim, checksum, mu, s = row
    if checksum is None:
        return VectorsOnly(dim, mu, s)
    encoder = Encoder.load(name)
    if encoder.checksum != checksum:
        raise FileFormatError(
            f'cannot use encoder "{name}": the server has another file of this id',
            f"The server's has checksum {checksum}, Python's {encoder.checksum}: "
            f'"{encoder.path}".',
            "Copy the server's file to where Python looks, or name its folder in "
            "TINYDANCER_ENCODER_DIR.",
        )
    return encoder


def _unit(values: Any, made_by: Any, encoder: Any) -> FloatVector | None:
    """A stored vector, if it is one of this encoder; else the text is embedded again."""
    if values is None or made_by != encoder.id:
        return None
    vector = np.array(values, dtype=np.float32)
    if vector.shape != (encoder.dim,):
        return None
    try:
        return _kernels.normalise(vector)
    except NonFiniteError:
        return None


def _phrases(agent: Agent, rows: list[tuple[str, str, FloatVector | None]]) -> list[Phrase]:
    """The phrases of an agent, of which ``rows`` (kind, text, vector) are stored."""
    for kind, text, vector in rows:
        if kind == "caller" and (vector is not None or text):
            if not text:
                return [(CALLERS_VECTOR, vector)]
            if agent.description in ("", text):
                return [(text, vector)]
            return [(agent.description, None)]

    def stored(kind: str, text: str) -> FloatVector | None:
        return next((row[2] for row in rows if row[:2] == (kind, text)), None)

    found: list[Phrase] = [
        (name.replace("-", " ").replace("_", " "), stored("capability", name))
        for name in agent.capabilities
    ]
    if agent.description:
        found.append((agent.description, stored("description", agent.description)))
    found.extend((text, vector) for kind, text, vector in rows if kind == "example")
    return found


def _scale(conn: psycopg.Connection[Any], name: str, default: float) -> float:
    # NULL where nothing sets it and the module has not been loaded in this session.
    row = conn.execute("SELECT current_setting(%s, true)", (f"tinydancer.{name}",)).fetchone()
    return default if row is None or not row[0] else float(row[0])


def read_registry(conn: psycopg.Connection[Any]) -> ServerRegistry:
    """Read the agents of a database, in the caller's transaction.

    Raises:
        EncoderNotFoundError: if Python lacks the file of the active encoder.
        FileFormatError: if Python has another file under its id.
        psycopg.Error: if the tables cannot be read.
    """
    encoder = active_encoder(conn)
    agents = []
    for row in conn.execute(
        f"SELECT {', '.join(_AGENT_COLUMNS)} FROM tinydancer.agent ORDER BY name"
    ):
        values = dict(zip(_AGENT_COLUMNS, row, strict=True))
        values["description"] = values["description"] or ""
        agents.append(Agent(**values))
    rows: dict[str, list[tuple[str, str, FloatVector | None]]] = {one.name: [] for one in agents}
    for name, kind, phrase, embedding, made_by in conn.execute(
        "SELECT agent_name, kind, phrase, embedding, encoder FROM tinydancer.agent_phrase "
        'ORDER BY agent_name, kind, "position"'
    ):
        rows[name].append((kind, phrase, _unit(embedding, made_by, encoder)))
    stored = {agent.name: _phrases(agent, rows[agent.name]) for agent in agents}
    if isinstance(encoder, VectorsOnly):
        stored = {
            name: [phrase for phrase in phrases if phrase[1] is not None]
            for name, phrases in stored.items()
        }
    # A row of the user's goes before the built-in one of its name.
    policies = {
        name: Policy(cost, latency, quality, fit)
        for name, cost, latency, quality, fit in conn.execute(
            "SELECT name, cost_weight, latency_weight, quality_weight, fit_weight "
            "FROM tinydancer.policy ORDER BY builtin DESC"
        )
    }
    return ServerRegistry(
        _StoredRouter(agents, encoder, policies, stored),
        _scale(conn, "cost_scale", 0.001),
        _scale(conn, "latency_scale", 1000.0),
    )


# ---------------------------------------------------------------- semantic routes


class _StoredMatcher(RouteMatcher):
    """A matcher whose utterances, and vectors where there are, come from tables."""

    def __init__(
        self,
        routes: list[Route],
        encoder: Any,
        positives: Mapping[str, list[Phrase]],
        negatives: Mapping[str, list[Phrase]],
        **scorer: Any,
    ) -> None:
        self._stored = positives, negatives
        super().__init__(routes, encoder, **scorer)

    def _positives(self, route: Route) -> list[FloatVector]:
        return self._vectors(self._stored[0][route.name])

    def _negatives(self, route: Route) -> list[FloatVector]:
        return self._vectors(self._stored[1][route.name])

    def _vectors(self, phrases: list[Phrase]) -> list[FloatVector]:
        if isinstance(self.encoder, VectorsOnly):
            return [vector for _, vector in phrases if vector is not None]
        return [self._embed(text) if vector is None else vector for text, vector in phrases]


def _utterances(
    description: str, rows: list[tuple[bool, str, FloatVector | None]]
) -> tuple[list[Phrase], list[Phrase]]:
    """The positive and the negative utterances of a route, of which ``rows`` are stored."""
    alone = [
        (t, v) for negative, t, v in rows if not negative and not t.strip(" ") and v is not None
    ]
    positives: list[Phrase] = [(text, vector) for text, vector in alone[:1]]
    if not positives:
        positives = [(t, v) for negative, t, v in rows if not negative and t.strip(" ")]
    if not positives and description.strip(" "):
        positives = [(description, None)]
    return positives, [(text, vector) for negative, text, vector in rows if negative]


def read_matcher(conn: psycopg.Connection[Any]) -> RouteMatcher:
    """Read the semantic routes of a database, in the caller's transaction.

    Rate limits are not among what is read: they count what was logged in the last minute.

    Raises:
        EncoderNotFoundError: if Python lacks the file of the active encoder.
        FileFormatError: if Python has another file under its id.
        psycopg.Error: if the tables cannot be read.
    """
    encoder = active_encoder(conn)
    rows: dict[str, list[tuple[bool, str, FloatVector | None]]] = {}
    routes = []
    descriptions = {}
    for name, description, target, priority, threshold, start, end, tiers in conn.execute(
        "SELECT name, description, target_agent, priority, threshold, time_start, time_end, "
        "user_tiers FROM tinydancer.route WHERE active ORDER BY name"
    ):
        rows[name] = []
        descriptions[name] = description or ""
        routes.append(
            Route(
                name,
                target,
                # Route wants something to match with; a table may hold nothing.
                utterances=(name,),
                priority=priority,
                threshold=threshold,
                time_start=start,
                time_end=end,
                user_tiers=tuple(tiers or ()),
            )
        )
    for name, negative, text, embedding, made_by in conn.execute(
        "SELECT route_name, negative, utterance, embedding, encoder "
        'FROM tinydancer.route_utterance ORDER BY route_name, "position"'
    ):
        if name in rows:
            rows[name].append((negative, text, _unit(embedding, made_by, encoder)))
    stored = {name: _utterances(descriptions[name], rows[name]) for name in rows}
    scorer = conn.execute(
        "SELECT scorer, confidence_mu, confidence_s FROM tinydancer.route_scorer "
        "WHERE encoder = %s",
        (encoder.id,),
    ).fetchone()
    chosen: dict[str, Any] = {}
    if scorer is not None:
        chosen = {"scorer": scorer[0], "mu": scorer[1], "s": scorer[2]}
    return _StoredMatcher(
        routes,
        encoder,
        {name: both[0] for name, both in stored.items()},
        {name: both[1] for name, both in stored.items()},
        **chosen,
    )
