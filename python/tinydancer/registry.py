"""The registry of a database, read into a Router that decides as its server does.

A psycopg connection comes in, a snapshot comes out: what ``fdw/td_registry_build.c`` reads, from
the same rows, with the vectors that are stored.  Used by ``tinydancer.multicorn``,
``tinydancer.etl`` and any program that decides many times without asking the server;
``tinydancer.registry_routes`` has semantic routes.

Vocabulary
    version     what tinydancer.registry_version() says: equal versions mean equal tables
    stored      with the vector that the database keeps, None where it has to be made
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import psycopg

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import (
    EncoderUnavailableError,
    FileFormatError,
    ModelUnusableError,
    NonFiniteError,
    TinyDancerError,
)
from tinydancer.route import CALLERS_VECTOR, POLICIES, Agent, FloatVector, Policy, Router

__all__ = [
    "Phrase",
    "StoredAgent",
    "StoredRouter",
    "VectorsOnly",
    "Version",
    "apply",
    "read_encoder",
    "read_model",
    "read_router",
    "read_scales",
    "read_version",
    "snapshot",
    "unit_vector",
]

EXTERNAL = "external"

# A text that is compared with requests, and its vector where the database has it.
Phrase = tuple[str, FloatVector | None]

_KINDS = ("capability", "description", "example", "caller")


@dataclass(frozen=True)
class Version:
    """What two copies of the tables are compared by.

    Attributes:
        registry: of agents, phrases, policies and settings.
        routes: of semantic routes and settings.
        models: of trained models and settings.
    """

    registry: str
    routes: str
    models: str


def read_version(conn: psycopg.Connection[Any]) -> Version:
    """The version of the tables; what is read after the call is no older."""
    row = conn.execute(
        "SELECT v.registry, v.routes, v.models FROM tinydancer.registry_version() v"
    ).fetchone()
    assert row is not None
    return Version(*row)


def read_scales(conn: psycopg.Connection[Any]) -> tuple[float, float]:
    """The cost and the latency at which a utility is one half, as the connection has them set."""
    read_version(conn)  # the module is loaded, and knows its settings
    row = conn.execute(
        "SELECT current_setting('tinydancer.cost_scale')::float8, "
        "current_setting('tinydancer.latency_scale')::float8"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


@contextlib.contextmanager
def snapshot(conn: psycopg.Connection[Any]) -> Iterator[psycopg.Cursor[Any]]:
    """A cursor whose queries see one moment: that of the caller's transaction, else their own.

    Floats come as they are stored, to the bit.
    """
    alone = conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with conn.transaction(), conn.cursor(binary=True) as cursor:
        if alone:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield cursor


# ---------------------------------------------------------------- the encoder


class VectorsOnly:
    """Stands for an encoder whose file is not here: vectors can be compared, texts cannot be read.

    Has what Router and RouteMatcher ask of an Encoder.
    """

    def __init__(self, id: str, dim: int, fit_mu: float, fit_s: float, fault: TinyDancerError):
        self.id = id
        self.dim = dim
        self.fit_mu = fit_mu
        self.fit_s = fit_s
        self.fault = fault
        self.words: Encoder | None = None
        with contextlib.suppress(TinyDancerError, OSError):
            self.words = Encoder.load("static")

    def embed_info(self, text: str) -> tuple[FloatVector, int, int, int]:
        """Raise what is against it."""
        raise self.fault

    def count_tokens(self, text: str) -> int:
        """A request that comes with its vector costs what its text costs."""
        return 0 if self.words is None else self.words.count_tokens(text)


def read_model(
    cursor: psycopg.Cursor[Any], kind: str, encoder: Encoder
) -> tuple[int, _kernels.Model] | None:
    """The active model of a kind for the encoder, and its version; None: there is none.

    Raises:
        ModelUnusableError: if it was trained on another file's vectors.
        FileFormatError: if its bytes are damaged.
    """
    cursor.execute(
        "SELECT m.version, m.bytes FROM tinydancer.model m "
        "WHERE m.active AND m.kind = %s AND m.encoder = %s ORDER BY m.builtin LIMIT 1",
        (kind, encoder.id),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    version, content = row
    model = _kernels.Model(bytes(content))
    # Of an encoder whose file is not here only the dimension is known.
    alone = isinstance(encoder, VectorsOnly)
    if model.dim != encoder.dim or not (alone or model.encoder_checksum == encoder.checksum):
        raise ModelUnusableError(
            f'model is for another encoder than "{encoder.id}"',
            f'Version {version} of kind "{kind}" was trained on {model.dim}-dimensional vectors of '
            f"a file with checksum {model.encoder_checksum}.",
            "Train it again with this encoder.",
        )
    return version, model


def apply(
    model: _kernels.Model, encoder: Encoder, text: str | None, vector: FloatVector
) -> FloatVector:
    """What a model says of a request, (n_out,); words that cannot be read are left out."""
    if isinstance(encoder, VectorsOnly):
        words = encoder.words
        if words is None or (model.reads_text and words.dim != model.dim):
            text = None
        return model.apply(vector[None], [text], words)[0]
    return model.apply(vector[None], [text], encoder)[0]


def _fault_of(id: str, checksum: str | None) -> tuple[Encoder | None, TinyDancerError | None]:
    """The encoder, or why it cannot be had."""
    if id == EXTERNAL:
        return None, EncoderUnavailableError(
            f'encoder "{id}" does not embed text',
            "It stands for vectors that the caller makes.",
            "Pass the vector as embedding, or CALL tinydancer.use_encoder('static').",
        )
    try:
        encoder = Encoder.load(id)
    except TinyDancerError as error:
        return None, error
    if checksum is not None and encoder.checksum != checksum:
        return None, FileFormatError(
            f'cannot use encoder "{id}": the file is not the one this database was using',
            f'File "{encoder.path}": its checksum is {encoder.checksum}, that of the database is '
            f"{checksum}.",
            "Install the same version of tinydancer as the server has.",
        )
    return encoder, None


def read_encoder(cursor: psycopg.Cursor[Any]) -> Encoder:
    """The active encoder, or what stands for it where only its vectors are known.

    Raises:
        EncoderNotFoundError: if its file is not here and no vector is stored.
        FileFormatError: if it is another one and no vector is stored.
        psycopg.Error: the server has it neither.
    """
    cursor.execute("SELECT s.name, s.value FROM tinydancer.setting s WHERE s.name ^@ 'encoder'")
    facts = dict(cursor.fetchall())
    if "encoder" in facts:
        id, checksum = facts["encoder"], facts.get("encoder_checksum")
        dim = int(facts.get("encoder_dim", 0))
        mu, s = float(facts.get("encoder_fit_mu", 0)), float(facts.get("encoder_fit_s", 0))
    else:
        cursor.execute(
            "SELECT e.id, e.dim, e.checksum, e.fit_mu, e.fit_s FROM tinydancer.active_encoder() e"
        )
        row = cursor.fetchone()
        assert row is not None
        id, dim, checksum, mu, s = row
    encoder, fault = _fault_of(id, checksum)
    if encoder is not None:
        return encoder
    assert fault is not None
    if dim < 1 or not s > 0:
        raise fault
    return cast(Encoder, VectorsOnly(id, dim, mu, s, fault))


def unit_vector(values: Sequence[float] | None, dim: int) -> FloatVector | None:
    """A stored vector as the kernel compares it; one that does not fit is as good as none."""
    if values is None or len(values) != dim:
        return None
    try:
        return _kernels.normalise(np.array(values, dtype=np.float32))
    except NonFiniteError:
        return None


# ---------------------------------------------------------------- agents


@dataclass(frozen=True)
class StoredAgent(Agent):
    """A row of tinydancer.agent and its phrases.

    Attributes:
        stored: what it is matched by.
    """

    stored: Sequence[Phrase] = field(default=(), repr=False)

    def phrases(self) -> list[str]:
        """Return the texts of its phrases."""
        return [text for text, _ in self.stored]


class StoredRouter(Router):
    """A Router over stored agents; its targets are the policies of the database alone."""

    agents: tuple[StoredAgent, ...]

    def __init__(
        self,
        agents: Sequence[StoredAgent],
        encoder: Encoder,
        policies: Mapping[str, Policy],
        model: _kernels.Model | None = None,
    ) -> None:
        super().__init__(agents, encoder, model=model)
        self.policies = dict(policies)

    def _pack(self) -> _kernels.Registry:
        self._vectors = [vector for agent in self.agents for _, vector in agent.stored]
        return super()._pack()

    def _phrase_vector(self, agent: Agent, phrase: int) -> FloatVector:
        stored = self._vectors[phrase]
        return super()._phrase_vector(agent, phrase) if stored is None else stored

    def _probabilities(self, vector: FloatVector, request: str | None) -> FloatVector | None:
        return None if self.model is None else apply(self.model, self.encoder, request, vector)


def _callers_phrase(description: str, phrase: Phrase, can_embed: bool) -> Phrase:
    """A vector that stands alone: as passed, or of the description when an encoder was switched."""
    text, vector = phrase
    if not text or not can_embed:
        return text or CALLERS_VECTOR, vector
    return phrase if description in ("", text) else (description, None)


def _phrases(
    capabilities: Sequence[str],
    description: str,
    rows: Mapping[str, Sequence[Phrase]],
    can_embed: bool,
) -> list[Phrase]:
    """What an agent is matched by.

    The agent's own columns say which texts count; stored rows only save the embedding.
    """

    def stored(kind: str, text: str) -> FloatVector | None:
        return next((vector for phrase, vector in rows[kind] if phrase == text), None)

    for phrase in rows["caller"]:
        if phrase[1] is not None or phrase[0]:
            found = [_callers_phrase(description, phrase, can_embed)]
            break
    else:
        found = [
            (name.replace("-", " ").replace("_", " "), stored("capability", name))
            for name in capabilities
        ]
        if description:
            found.append((description, stored("description", description)))
        found.extend(rows["example"])
    return [phrase for phrase in found if can_embed or phrase[1] is not None]


_AGENT = (
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


def _read_agents(cursor: psycopg.Cursor[Any], encoder: Encoder) -> list[StoredAgent]:
    can_embed = not isinstance(encoder, VectorsOnly)
    cursor.execute(
        "SELECT p.agent_name, p.kind, p.phrase, CASE WHEN p.encoder = %s THEN p.embedding END "
        "FROM tinydancer.agent_phrase p ORDER BY p.agent_name, p.kind, p.position",
        (encoder.id,),
    )
    phrases: dict[str, dict[str, list[Phrase]]] = {}
    for name, kind, text, values in cursor:
        of_agent = phrases.setdefault(name, {kind: [] for kind in _KINDS})
        of_agent.setdefault(kind, []).append((text, unit_vector(values, encoder.dim)))
    nothing: dict[str, list[Phrase]] = {kind: [] for kind in _KINDS}
    columns = ", ".join(f"a.{name}" for name in _AGENT)
    cursor.execute(f"SELECT {columns} FROM tinydancer.agent a")
    agents = []
    for row in cursor:
        values = dict(zip(_AGENT, row, strict=True))
        values["description"] = values["description"] or ""
        values["stored"] = _phrases(
            values["capabilities"],
            values["description"],
            phrases.get(values["name"], nothing),
            can_embed,
        )
        agents.append(StoredAgent(**values))
    return agents


def _read_policies(cursor: psycopg.Cursor[Any]) -> dict[str, Policy]:
    """The objectives; a row of the user's own goes before the built-in one of its name."""
    cursor.execute(
        "SELECT p.name, p.cost_weight, p.latency_weight, p.quality_weight, p.fit_weight "
        "FROM tinydancer.policy p ORDER BY p.builtin DESC"
    )
    policies = {name: Policy(*weights) for name, *weights in cursor}
    # Not a weighted sum, so not a row.
    policies["quality_per_dollar"] = POLICIES["quality_per_dollar"]
    return policies


def read_router(conn: psycopg.Connection[Any]) -> StoredRouter:
    """Read the agents into a Router with the server's answers.

    Args:
        conn: to a database with the extension, as a role of level viewer; inside of a
            transaction, what that sees is read.

    Raises:
        psycopg.Error: the server refused.
        InvalidAgentError: for a row that no agent can have.
        EncoderNotFoundError: if the encoder's file is not here and no vector is stored.
        FileFormatError: if it is another one and no vector is stored.
    """
    with snapshot(conn) as cursor:
        encoder = read_encoder(cursor)
        agents = _read_agents(cursor, encoder)
        policies = _read_policies(cursor)
        found = read_model(cursor, "quality", encoder)
        return StoredRouter(agents, encoder, policies, None if found is None else found[1])
