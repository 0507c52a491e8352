"""Routing without a server: the decisions of ruvector_route(), to the bit.

Agents and an encoder come in, decisions come out.  Python packs the registry and words the errors;
every number is made by the kernel (``tinydancer._kernels``), which the Postgres module shares.
Times are in milliseconds, money in USD.

Vocabulary
    phrase      a short text that says what an agent is good at: a capability, its description, or
                an example request; each has a vector of its own
    objective   what a decision maximises: a built-in name of ``POLICIES`` or one passed to Router
    limit       what an agent must meet to be eligible
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import (
    DimensionError,
    EmptyRequestError,
    InvalidAgentError,
    InvalidInputError,
    UnknownObjectiveError,
)
from tinydancer.route_batch import BatchRouting
from tinydancer.route_multi import MultiRouting

__all__ = [
    "AGENT_TYPES",
    "POLICIES",
    "Agent",
    "Decision",
    "Explanation",
    "Policy",
    "Router",
]

AGENT_TYPES = ("llm", "tool", "api", "human", "ensemble")

# Word pieces that an llm is expected to write when nothing else is known of it.
LLM_OUTPUT_TOKENS = 300.0

MAX_NAME_BYTES = 256

# What stands in for a phrase where the caller passed a vector in place of texts.
CALLERS_VECTOR = "the caller's vector"

FloatVector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Policy:
    """What an objective maximises: fit times the weighted sum of utilities.

    Attributes:
        cost_weight: of cost_utility, 1 / (1 + cost / cost_scale).
        latency_weight: of latency_utility, 1 / (1 + latency / latency_scale).
        quality_weight: of quality, quality_score times success_rate.
        fit_weight: of fit itself.
        per_dollar: divide by cost + cost_scale.
    """

    cost_weight: float = 0.0
    latency_weight: float = 0.0
    quality_weight: float = 0.0
    fit_weight: float = 0.0
    per_dollar: bool = False


POLICIES: Mapping[str, Policy] = {
    "balanced": Policy(cost_weight=0.3, latency_weight=0.3, quality_weight=0.4),
    "cost": Policy(cost_weight=1.0),
    "latency": Policy(latency_weight=1.0),
    "quality": Policy(quality_weight=1.0),
    "quality_per_dollar": Policy(quality_weight=1.0, per_dollar=True),
}


@dataclass(frozen=True)
class Agent:
    """Something a request can be sent to; the columns of tinydancer.agent.

    Attributes:
        name: unique, not empty.
        type: one of ``AGENT_TYPES``.
        description: what it is good at, one or two sentences.
        capabilities: short names such as "code-review".
        cost_per_1k_tokens: USD per 1,000 input tokens; None: it has no such cost.
        cost_per_1k_output_tokens: USD per 1,000 output tokens; None: cost_per_1k_tokens.
        cost_per_call: USD; None: it has no such cost.
        cost_per_second: USD per second of avg_latency_ms; None: it has no such cost.
        expected_output_tokens: None: 300 for an llm, 0 for others.
        avg_latency_ms: None: unknown.
        p99_latency_ms: None: unknown; not used in a decision.
        quality_score: in [0, 1].
        success_rate: in [0, 1].
        pool: a name that requests can ask for, None: in no pool.
        metadata: anything; not used in a decision.
        active: whether it may be chosen.
        examples: requests that it should get.
        embedding: a vector of the router's encoder that stands alone, in place of all texts.

    With no cost at all (every one None) the cost is unknown; 0 is free.

    Raises:
        InvalidAgentError: for an impossible figure, an unknown type or an empty name.
    """

    name: str
    type: str
    description: str = ""
    capabilities: Sequence[str] = ()
    cost_per_1k_tokens: float | None = None
    cost_per_1k_output_tokens: float | None = None
    cost_per_call: float | None = None
    cost_per_second: float | None = None
    expected_output_tokens: float | None = None
    avg_latency_ms: float | None = None
    p99_latency_ms: float | None = None
    quality_score: float = 0.5
    success_rate: float = 1.0
    pool: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    active: bool = True
    examples: Sequence[str] = ()
    embedding: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _require(self.name, "name")
        _require(self.type, "agent_type")
        size = len(self.name.encode("utf-8", "surrogatepass"))
        if size > MAX_NAME_BYTES:
            raise InvalidAgentError(
                "agent name is too long",
                f"It has {size} bytes, the limit is {MAX_NAME_BYTES}.",
                "Put what the agent does into its description.",
            )
        if self.type not in AGENT_TYPES:
            raise InvalidAgentError(
                f'unknown agent type "{self.type}"',
                f"Known types are {', '.join(AGENT_TYPES)}.",
                _closest(self.type, AGENT_TYPES)
                or "A program that answers by itself is a tool, a service an api.",
            )
        for name in (*_COSTS, "expected_output_tokens", "avg_latency_ms", "p99_latency_ms"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0.0 <= value < math.inf):
                free = "Pass 0 for free, None for not known."
                raise InvalidAgentError(
                    f"{name} must be a finite number that is not negative",
                    f'Agent "{self.name}" has {value}.',
                    free if name in _COSTS else "Pass None for not known.",
                )
        for name in ("quality_score", "success_rate"):
            value = getattr(self, name)
            if not (_is_number(value) and 0.0 <= value <= 1.0):
                raise InvalidAgentError(
                    f"{name} must be between 0 and 1",
                    f'Agent "{self.name}" has {value}.',
                    "Divide a score in percent by 100.",
                )
        for name in ("capabilities", "examples"):
            texts = getattr(self, name)
            if isinstance(texts, str) or not all(
                isinstance(text, str) and text.strip(" ") for text in texts
            ):
                raise InvalidAgentError(
                    f"{name} must be a list of non-empty texts",
                    f'Agent "{self.name}" has {texts}.',
                    'Write ["reasoning", "code"].',
                )
            # A tuple of its own: the caller's list may change later.
            object.__setattr__(self, name, tuple(texts))
        if self.pool is not None and not self.pool.strip(" "):
            raise InvalidAgentError(
                "pool must not be empty",
                f'Agent "{self.name}" has a blank pool.',
                "Pass None for no pool.",
            )
        if self.expected_output_tokens is None:
            object.__setattr__(
                self, "expected_output_tokens", LLM_OUTPUT_TOKENS if self.type == "llm" else 0.0
            )
        if self.embedding is not None:
            object.__setattr__(self, "embedding", tuple(float(x) for x in self.embedding))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Agent:
        """Make an agent of a JSON object as ruvector_register_agent_full() takes it.

        Args:
            config: column names and values; null means the default; "agent_type" is accepted for
                "type".

        Raises:
            InvalidAgentError: for an unknown key or value.
        """
        values: dict[str, Any] = {"name": None, "type": None}
        for key, value in config.items():
            if key not in _KEYS and key != "type":
                raise InvalidAgentError(
                    f'unknown key "{key}" in config',
                    f"Known keys are {', '.join(_KEYS)}.",
                    _closest(key, _KEYS) or 'Put facts of your own into "metadata".',
                )
            if key in ("capabilities", "examples", "embedding") and not (
                value is None or isinstance(value, (list, tuple))
            ):
                raise InvalidAgentError(
                    f'"{key}" must be a JSON array',
                    f"It is {value!r}.",
                    f'Write "{key}": [...].',
                )
            if value is not None:
                values["type" if key == "agent_type" else key] = value
        return cls(**values)

    def phrases(self) -> list[str]:
        """Return what the agent is matched by: capabilities as words, description, examples.

        An agent with a vector of its own is matched by that alone.
        """
        if self.embedding is not None:
            return [CALLERS_VECTOR]
        result = [name.replace("-", " ").replace("_", " ") for name in self.capabilities]
        if self.description:
            result.append(self.description)
        result.extend(self.examples)
        return result


_COSTS = (
    "cost_per_1k_tokens",
    "cost_per_1k_output_tokens",
    "cost_per_call",
    "cost_per_second",
)

# The arguments of ruvector_register_agent(), in its order.
_KEYS = (
    "name",
    "agent_type",
    "capabilities",
    "cost_per_1k_tokens",
    "cost_per_call",
    "avg_latency_ms",
    "quality_score",
    "metadata",
    "cost_per_second",
    "description",
    "examples",
    "cost_per_1k_output_tokens",
    "expected_output_tokens",
    "p99_latency_ms",
    "success_rate",
    "pool",
    "embedding",
    "active",
)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(value: Any, name: str) -> None:
    if value is None:
        raise InvalidAgentError(
            f"{name} must not be NULL",
            "An agent needs a value for it.",
            f"Give every agent {name}.",
        )
    if not isinstance(value, str):
        raise InvalidAgentError(f"{name} must be a text", f"It is {value!r}.")
    if not value.strip(" "):
        raise InvalidAgentError(
            f"{name} must not be empty",
            "An agent has an empty text or blanks.",
            f"Pass a {name} with at least one visible character.",
        )


@dataclass(frozen=True)
class Decision:
    """The chosen agent; the columns of ruvector_route().

    Attributes:
        agent_name: its name.
        confidence: expected_quality of the chosen agent.
        estimated_cost: USD for this request, None: unknown.
        estimated_latency_ms: ms, None: unknown.
        expected_quality: fit times quality, in [0, 1].
        similarity: greatest cosine between the request and the agent's phrases.
        reasoning: one line that a person can read.
    """

    agent_name: str
    confidence: float
    estimated_cost: float | None
    estimated_latency_ms: float | None
    expected_quality: float
    similarity: float
    reasoning: str


@dataclass(frozen=True)
class Explanation:
    """One agent and every part of its score; the columns of ruvector_explain_route().

    Attributes:
        agent_name: its name.
        rank: place among the eligible agents from 1, None when rejected.
        eligible: whether it met every limit.
        rejected_by: the names of the limits that it did not meet, separated by ", "; None if
            eligible.
        score: what the objective gives.
        similarity: greatest cosine between the request and the agent's phrases.
        closest_phrase: the phrase of that cosine, None when the agent has none.
        fit: similarity as a probability.
        quality: quality_score times success_rate.
        expected_quality: fit times quality.
        estimated_cost: USD for this request, None: unknown.
        cost_utility: in (0, 1].
        estimated_latency_ms: ms, None: unknown.
        latency_utility: in (0, 1].
        reasoning: one line that a person can read.
    """

    agent_name: str
    rank: int | None
    eligible: bool
    rejected_by: str | None
    score: float
    similarity: float
    closest_phrase: str | None
    fit: float
    quality: float
    expected_quality: float
    estimated_cost: float | None
    cost_utility: float
    estimated_latency_ms: float | None
    latency_utility: float
    reasoning: str


def _closest(name: str, known: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f'Perhaps you meant "{matches[0]}".' if matches else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _figure(value: float) -> str:
    """A number as Postgres prints it with %g."""
    if math.isfinite(value):
        return f"{value:g}"
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _ceiling(name: str, value: float | None, *, may_be_negative: bool = False) -> float:
    """A limit on cost or latency; None is no limit."""
    if value is None:
        return math.inf
    fault = "NaN" if math.isnan(value) else "negative" if value < 0.0 else None
    if fault == "NaN" or (fault == "negative" and not may_be_negative):
        raise InvalidInputError(
            f"{name} must not be {fault}",
            f"The value is {_figure(value)}.",
            "Pass None or infinity for no limit.",
        )
    return float(value)


def _floor(name: str, value: float | None) -> float:
    """A limit on a quality; None is no limit."""
    if value is None or value == -math.inf:
        return -math.inf
    if not 0.0 <= value <= 1.0:
        raise InvalidInputError(
            f"{name} must be between 0 and 1",
            f"The value is {_figure(value)}.",
            "Pass None or minus infinity for no limit.",
        )
    return float(value)


def _scale(name: str, value: float) -> float:
    if not (value > 0.0 and math.isfinite(value)):
        raise InvalidInputError(
            f"{name} must be positive and finite", f"The value is {_figure(value)}."
        )
    return float(value)


def _names(name: str, values: Iterable[str] | None) -> list[str]:
    """A list of names; a lone str would be taken for its characters."""
    if values is None:
        return []
    result = [values] if isinstance(values, str) else list(values)
    for value in result:
        if not isinstance(value, str):
            raise InvalidInputError(f"{name} must contain texts only", f"It has {value!r}.")
    return result


def check_encoder(model: _kernels.Model, encoder: Encoder) -> None:
    """Make sure that a model reads the vectors of this encoder.

    Raises:
        InvalidInputError: if it was trained on those of another.
    """
    checksum = getattr(encoder, "checksum", model.encoder_checksum)
    if (model.encoder_id, model.encoder_checksum) == (encoder.id, checksum):
        return
    raise InvalidInputError(
        f'model is for another encoder than "{encoder.id}"',
        f'It was trained on vectors of "{model.encoder_id}" with checksum '
        f'{model.encoder_checksum}; those of "{encoder.id}" have {checksum}.',
        "Train it again with this encoder.",
    )


class Router(MultiRouting, BatchRouting):
    """Decides which agent a request goes to; a snapshot of the agents it was made with.

    Safe to share between threads.

    Args:
        agents: in any order, with names of their own.
        encoder: what turns texts into vectors; None: ``Encoder.load()``.
        policies: objectives besides the built-in ones, or in their place.
        model: a quality model, whose predictions take the place of fit and registered quality.

    Raises:
        InvalidAgentError: if two agents have one name.
        InvalidInputError: if the model is of another task or for another encoder.
        DimensionError: if an agent's own vector is not of the encoder's length.
    """

    def __init__(
        self,
        agents: Iterable[Agent],
        encoder: Encoder | None = None,
        policies: Mapping[str, Policy] | None = None,
        model: _kernels.Model | None = None,
    ) -> None:
        self.encoder = Encoder.load() if encoder is None else encoder
        # UTF-8 bytes order as the C collation does in Postgres; it decides ties.
        self.agents = tuple(sorted(agents, key=lambda agent: agent.name.encode("utf-8")))
        self.policies = {**POLICIES, **(policies or {})}
        self._numbers = {agent.name: number for number, agent in enumerate(self.agents)}
        if len(self._numbers) < len(self.agents):
            names = [agent.name for agent in self.agents]
            twice = next(a for a, b in itertools.pairwise(names) if a == b)
            raise InvalidAgentError(
                f'agent "{twice}" is there twice', None, "Give every agent a name of its own."
            )
        self._pools = {name: i for i, name in enumerate(self._distinct_pools())}
        # Numbered in byte order, as the server numbers them: ties go to the lower one.
        folded = {_kernels.fold(name) for agent in self.agents for name in agent.capabilities}
        self._capabilities = {name: i for i, name in enumerate(sorted(folded))}
        self._phrases: list[str] = []
        self._registry = self._pack()
        self.model = model
        self._outputs = None if model is None else self._outputs_of(model)

    def _outputs_of(self, model: _kernels.Model) -> npt.NDArray[np.uint32]:
        """The number of each agent's output; NONE for one that training has not seen."""
        if model.task != "quality":
            raise InvalidInputError(
                f'a model of kind "{model.task}" cannot route',
                'Only one of kind "quality" says how good each agent\'s answer will be.',
                "Train one with tinydancer train quality.",
            )
        check_encoder(model, self.encoder)
        support = model.support
        numbers = {name: i for i, name in enumerate(model.names) if support[i] > 0}
        return np.array([numbers.get(a.name, _kernels.NONE) for a in self.agents], np.uint32)

    def _distinct_pools(self) -> list[str]:
        return sorted({agent.pool for agent in self.agents if agent.pool is not None})

    def _pack(self) -> _kernels.Registry:
        packed = np.zeros(len(self.agents), dtype=_kernels.AGENT_DTYPE)
        capability_ids: list[int] = []
        for row, agent in zip(packed, self.agents, strict=True):
            for name in (*_COSTS, "avg_latency_ms"):
                value = getattr(agent, name)
                row[name] = math.nan if value is None else value
            for name in ("expected_output_tokens", "quality_score", "success_rate", "active"):
                row[name] = getattr(agent, name)
            row["pool"] = _kernels.NONE if agent.pool is None else self._pools[agent.pool]

            ids = sorted(self._capabilities[_kernels.fold(name)] for name in agent.capabilities)
            row["first_capability"] = len(capability_ids)
            row["n_capabilities"] = len(ids)
            capability_ids.extend(ids)

            phrases = self._phrases_of(agent)
            row["first_phrase"] = len(self._phrases)
            row["n_phrases"] = len(phrases)
            self._phrases.extend(phrases)

        rows = np.zeros((len(self._phrases), self.encoder.dim), dtype=np.int8)
        scales = np.zeros(len(self._phrases), dtype=np.float32)
        for row, agent in zip(packed, self.agents, strict=True):
            for i in range(row["first_phrase"], row["first_phrase"] + row["n_phrases"]):
                rows[i], scales[i] = _kernels.quantise(self._phrase_vector(agent, i))
        return _kernels.Registry(
            packed, np.array(capability_ids, dtype=np.uint32), rows, scales, self._phrases
        )

    def _phrases_of(self, agent: Agent) -> list[str]:
        return agent.phrases()

    def _phrase_vector(self, agent: Agent, phrase: int) -> FloatVector:
        if agent.embedding is not None:
            return self._vector(agent.embedding)
        try:
            return self.encoder.embed_info(self._phrases[phrase])[0]
        except EmptyRequestError:
            # Such as the capability "-": it matches nothing, the agent keeps its others.
            return np.zeros(self.encoder.dim, dtype=np.float32)

    @classmethod
    def from_json(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | None = None,
        policies: Mapping[str, Policy] | None = None,
    ) -> Router:
        """Make a router of a file: a JSON list of agents, each as ``Agent.from_dict`` takes it.

        Raises:
            InvalidAgentError: if the file is no such list, or for an unknown key or value.
            OSError: if it cannot be read.
        """
        try:
            configs = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InvalidAgentError(
                f'file "{os.fspath(path)}" is not valid JSON', f"The parser says: {error}."
            ) from None
        if isinstance(configs, dict) and isinstance(configs.get("agents"), list):
            configs = configs["agents"]
        if not isinstance(configs, list) or not all(isinstance(item, dict) for item in configs):
            raise InvalidAgentError(
                f'file "{os.fspath(path)}" is not a list of agents',
                None,
                'Write a JSON list of objects such as {"name": "fast-llm", "type": "llm"}.',
            )
        return cls([Agent.from_dict(config) for config in configs], encoder, policies)

    @classmethod
    def demo(cls, encoder: Encoder | None = None) -> Router:
        """Make a router of the agents that the package ships for its demonstration."""
        return cls.from_json(Path(__file__).resolve().parent / "demo" / "agents.json", encoder)

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

    def _policy(self, optimize_for: str | None) -> tuple[str, Policy]:
        name = "balanced" if optimize_for is None else optimize_for
        policy = self.policies.get(name)
        if policy is None:
            raise UnknownObjectiveError(
                f'unknown optimization target "{name}"',
                f"Known targets are {', '.join(sorted(self.policies))}.",
                _closest(str(name), self.policies)
                or "Policies passed to Router make targets of your own.",
            )
        return name, policy

    def _terms(
        self,
        optimize_for: str | None,
        required_capabilities: Iterable[str] | None,
        max_cost: float | None,
        max_latency_ms: float | None,
        min_quality: float | None,
        excluded_agents: Iterable[str] | None,
        budget_remaining: float | None,
        pool: str | None,
        min_expected_quality: float | None,
        cost_scale: float,
        latency_scale: float,
    ) -> tuple[str, dict[str, Any]]:
        """The objective's name, and what Registry.score() takes besides the request."""
        objective, policy = self._policy(optimize_for)
        terms: dict[str, Any] = {
            "mu": self.encoder.fit_mu,
            "s": self.encoder.fit_s,
            "cost_weight": policy.cost_weight,
            "latency_weight": policy.latency_weight,
            "quality_weight": policy.quality_weight,
            "fit_weight": policy.fit_weight,
            "per_dollar": policy.per_dollar,
            "max_cost": _ceiling("max_cost", max_cost),
            "max_latency_ms": _ceiling("max_latency_ms", max_latency_ms),
            # An overspent budget is a fact, not a mistake.
            "budget_remaining": _ceiling(
                "budget_remaining", budget_remaining, may_be_negative=True
            ),
            "min_quality": _floor("min_quality", min_quality),
            "min_expected_quality": _floor("min_expected_quality", min_expected_quality),
            "required": [
                self._capabilities.get(_kernels.fold(name), _kernels.NONE)
                for name in _names("required_capabilities", required_capabilities)
            ],
            # Names that no agent has exclude nobody.
            "excluded": [
                self._numbers[name]
                for name in _names("excluded_agents", excluded_agents)
                if name in self._numbers
            ],
            "pool": None if pool is None else self._pools.get(pool, _kernels.NONE),
            "cost_scale": _scale("cost_scale", cost_scale),
            "latency_scale": _scale("latency_scale", latency_scale),
        }
        return objective, terms

    def _score(
        self,
        request: str | None,
        optimize_for: str | None,
        required_capabilities: Iterable[str] | None,
        max_cost: float | None,
        max_latency_ms: float | None,
        min_quality: float | None,
        excluded_agents: Iterable[str] | None,
        budget_remaining: float | None,
        embedding: Sequence[float] | FloatVector | None,
        pool: str | None,
        min_expected_quality: float | None,
        cost_scale: float,
        latency_scale: float,
    ) -> tuple[_kernels.Scores, str, tuple[int, int, int] | None] | None:
        """Scores, the objective's name, and what was read of the text; None without a request."""
        if request is None and embedding is None:
            return None
        objective, terms = self._terms(
            optimize_for,
            required_capabilities,
            max_cost,
            max_latency_ms,
            min_quality,
            excluded_agents,
            budget_remaining,
            pool,
            min_expected_quality,
            cost_scale,
            latency_scale,
        )
        info: tuple[int, int, int] | None = None
        if embedding is not None:
            vector = self._vector(embedding)
            n_tokens = 0 if request is None else self.encoder.count_tokens(request)
        else:
            assert request is not None
            vector, n_tokens, n_used, n_known = self.encoder.embed_info(request)
            info = (n_tokens, n_used, n_known)
        scores = self._registry.score(
            vector,
            input_tokens=n_tokens,
            outputs=self._outputs,
            probabilities=self._probabilities(vector, request),
            **terms,
        )
        return scores, objective, info

    def _probabilities(self, vector: FloatVector, request: str | None) -> FloatVector | None:
        """What the quality model says of a request, (n_out,); None without a model."""
        if self.model is None:
            return None
        # Where only vectors of the encoder are known, another may have its word pieces.
        words = getattr(self.encoder, "words", self.encoder)
        return self.model.apply(vector[None], [None if words is None else request], words)[0]

    def route(
        self,
        request: str | None,
        optimize_for: str | None = "balanced",
        required_capabilities: Iterable[str] | None = None,
        max_cost: float | None = None,
        max_latency_ms: float | None = None,
        min_quality: float | None = None,
        excluded_agents: Iterable[str] | None = None,
        budget_remaining: float | None = None,
        embedding: Sequence[float] | FloatVector | None = None,
        pool: str | None = None,
        min_expected_quality: float | None = None,
        cost_scale: float = 0.001,
        latency_scale: float = 1000.0,
    ) -> Decision | None:
        """Choose an agent, as ruvector_route() does.

        Args:
            request: the text; None: only ``embedding`` counts.
            optimize_for: an objective; None: "balanced".
            required_capabilities: all of which the agent must have, whatever their case.
            max_cost: USD for this request; None: no limit.
            max_latency_ms: ms of the agent's average latency; None: no limit.
            min_quality: of the agent's quality_score; None: no limit.
            excluded_agents: names; one that no agent has excludes nobody.
            budget_remaining: USD; None: no limit.
            embedding: (dim,), the request's vector in place of the text's; scaled to unit length.
            pool: only agents of this pool; None: any.
            min_expected_quality: of fit times quality; None: no limit.
            cost_scale: USD at which cost_utility is 0.5.
            latency_scale: ms at which latency_utility is 0.5.

        Returns:
            The decision, or None when every agent was rejected or there is nothing to route.

        Raises:
            EmptyRequestError: for a text of nothing but white space and control characters.
            UnknownObjectiveError: for an unknown ``optimize_for``.
            DimensionError: for an embedding of another length.
            NonFiniteError: for a NaN or an infinity in the embedding.
            InvalidInputError: for a limit that is none.
        """
        scored = self._score(
            request,
            optimize_for,
            required_capabilities,
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
        if scored is None or scored[0].best is None:
            return None
        scores, objective, info = scored
        best = scores.best
        assert best is not None
        row = scores.candidates[best]
        return Decision(
            agent_name=self.agents[best].name,
            confidence=float(row["expected_quality"]),
            estimated_cost=_known(row["cost"]),
            estimated_latency_ms=_known(row["latency"]),
            expected_quality=float(row["expected_quality"]),
            similarity=float(row["similarity"]),
            reasoning=scores.reason(best, objective, 1, info),
        )

    def explain(
        self,
        request: str | None,
        optimize_for: str | None = "balanced",
        required_capabilities: Iterable[str] | None = None,
        max_cost: float | None = None,
        max_latency_ms: float | None = None,
        min_quality: float | None = None,
        excluded_agents: Iterable[str] | None = None,
        budget_remaining: float | None = None,
        embedding: Sequence[float] | FloatVector | None = None,
        pool: str | None = None,
        min_expected_quality: float | None = None,
        cost_scale: float = 0.001,
        latency_scale: float = 1000.0,
    ) -> list[Explanation]:
        """Say of every agent how it scored and what rejected it, as ruvector_explain_route() does.

        Args:
            request: as for ``route``; so are all the others.
            optimize_for: see ``route``.
            required_capabilities: see ``route``.
            max_cost: see ``route``.
            max_latency_ms: see ``route``.
            min_quality: see ``route``.
            excluded_agents: see ``route``.
            budget_remaining: see ``route``.
            embedding: see ``route``.
            pool: see ``route``.
            min_expected_quality: see ``route``.
            cost_scale: see ``route``.
            latency_scale: see ``route``.

        Returns:
            One row per agent: eligible ones best first, then the rejected ones by score.

        Raises:
            InvalidInputError: as ``route`` does, and its subclasses.
        """
        scored = self._score(
            request,
            optimize_for,
            required_capabilities,
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
        result = []
        for place, number in enumerate(scores.order.tolist(), start=1):
            row = scores.candidates[number]
            rejected_by = int(row["rejected_by"])
            phrase = int(row["phrase"])
            result.append(
                Explanation(
                    agent_name=self.agents[number].name,
                    rank=None if rejected_by else place,
                    eligible=not rejected_by,
                    rejected_by=", ".join(
                        name
                        for bit, name in enumerate(_kernels.LIMIT_NAMES)
                        if rejected_by & 1 << bit
                    )
                    or None,
                    score=float(row["score"]),
                    similarity=float(row["similarity"]),
                    closest_phrase=None if phrase == _kernels.NONE else self._phrases[phrase],
                    fit=float(row["fit"]),
                    quality=float(row["quality"]),
                    expected_quality=float(row["expected_quality"]),
                    estimated_cost=_known(row["cost"]),
                    cost_utility=float(row["cost_utility"]),
                    estimated_latency_ms=_known(row["latency"]),
                    latency_utility=float(row["latency_utility"]),
                    reasoning=scores.reason(number, objective, place, info),
                )
            )
        return result
