"""What the kernel must compute, in readable NumPy: the reference for tests/kernel.

Arrays come in, float64 (or exact integer) answers come out.  Written from the papers and
specifications, not from the C sources; slow on purpose where that reads better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


# ---------------------------------------------------------------- vectors


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, in the precision of ``x``."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def ulp_error(got: Array, want: Array) -> float:
    """The greatest distance of float32 or float64 results from longdouble ones, in their ulp."""
    spacing = np.spacing(np.abs(want).astype(got.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(got.astype(np.longdouble) - want) / spacing, initial=0.0))


def quantise(a: Array) -> tuple[Array, float]:
    """int8 values and the scale: a is about q * scale, scale = max|a| / 127, halves to even."""
    scale = np.float32(np.max(np.abs(a), initial=0.0)) / np.float32(127)
    if scale == 0:
        return np.zeros(a.shape, dtype=np.int8), 0.0
    quotients = a.astype(np.float32) / scale
    return np.clip(np.rint(quotients), -127, 127).astype(np.int8), float(scale)


def matvec_i8(matrix: Array, scales: Array, x: Array) -> Array:
    """The product of an int8 matrix with a scale per row and a vector that is quantised."""
    quantised, scale = quantise(x)
    sums = matrix.astype(np.int64) @ quantised.astype(np.int64)
    return sums.astype(np.float32) * (np.float32(scale) * scales.astype(np.float32))


def topk_cosine(query: Array, rows: Array, scales: Array, k: int) -> tuple[Array, Array]:
    """Row numbers and cosines of the k nearest rows; equal cosines by row number."""
    quantised, scale = quantise(query)
    dots = rows.astype(np.int64) @ quantised.astype(np.int64)
    cosines = dots.astype(np.float32) * (np.float32(scale) * scales.astype(np.float32))
    cosines = np.clip(cosines, np.float32(-1), np.float32(1))
    order = np.argsort(-cosines.astype(np.float64), kind="stable")[:k]
    return order, cosines[order]


# ---------------------------------------------------------------- checksum

_MASK = (1 << 64) - 1
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def _rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _rotate((accumulator + lane * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    """XXH64 step by step as the xxHash specification (version 0.1.1) tells it."""
    at = 0
    if len(data) < 32:
        acc = (seed + _P5) & _MASK
    else:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while at + 32 <= len(data):
            for i in range(4):
                lane = int.from_bytes(data[at + 8 * i : at + 8 * i + 8], "little")
                lanes[i] = _round(lanes[i], lane)
            at += 32
        acc = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
        acc &= _MASK
        for lane in lanes:
            acc = ((acc ^ _round(0, lane)) * _P1 + _P4) & _MASK
    acc = (acc + len(data)) & _MASK
    while at + 8 <= len(data):
        acc ^= _round(0, int.from_bytes(data[at : at + 8], "little"))
        acc = (_rotate(acc, 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= len(data):
        acc ^= int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK
        acc = (_rotate(acc, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        acc ^= byte * _P5 & _MASK
        acc = _rotate(acc, 11) * _P1 & _MASK
    acc = (acc ^ acc >> 33) * _P2 & _MASK
    acc = (acc ^ acc >> 29) * _P3 & _MASK
    return acc ^ acc >> 32


# ---------------------------------------------------------------- FastGRNN


@dataclass
class Cell:
    """A FastGRNN cell in float64; W (n_hidden, n_in), U (n_hidden, n_hidden), or pairs of factors.

    W_h and U_h None: tied, W and U serve gate and candidate (the paper's equation 3).
    """

    W: Any
    U: Any
    b_z: Array
    b_h: Array
    zeta: float
    nu: float
    W_h: Any = None
    U_h: Any = None

    def step(self, x: Array, h: Array) -> Array:
        """h_t from x_t and h_{t-1}."""
        w, u = _product(self.W), _product(self.U)
        w_h = w if self.W_h is None else _product(self.W_h)
        u_h = u if self.U_h is None else _product(self.U_h)
        x, h = x.astype(np.float64), h.astype(np.float64)
        z = sigmoid(w @ x + u @ h + self.b_z)
        c = np.tanh(w_h @ x + u_h @ h + self.b_h)
        return (self.zeta * (1 - z) + self.nu) * c + z * h

    def forward(self, x: Array, h: Array) -> Array:
        """The state after all rows of x."""
        for row in x:
            h = self.step(row, h)
        return h


def _product(matrix: Any) -> Array:
    """A matrix in float64; of a pair, the product."""
    if isinstance(matrix, tuple):
        return matrix[0].astype(np.float64) @ matrix[1].astype(np.float64)
    return np.asarray(matrix, dtype=np.float64)


# ---------------------------------------------------------------- scoring


@dataclass
class ScoredAgent:
    """The parts of one agent's score; None stands for an unknown cost or latency."""

    rejected_by: set[str]
    fit: float
    cost: float | None
    latency: float | None
    cost_utility: float = math.nan
    latency_utility: float = math.nan
    score: float = math.nan


def estimated_cost(agent: dict[str, Any], input_tokens: float) -> float | None:
    """USD for one request: all kinds of cost that are set add up; None when none is set."""
    per_input = agent.get("cost_per_1k_tokens")
    per_output = agent.get("cost_per_1k_output_tokens")
    per_call = agent.get("cost_per_call")
    per_second = agent.get("cost_per_second")
    if per_input is None and per_output is None and per_call is None and per_second is None:
        return None
    if per_output is None:
        per_output = per_input or 0.0
    total = input_tokens * (per_input or 0.0) / 1000
    total += agent["expected_output_tokens"] * per_output / 1000 + (per_call or 0.0)
    if per_second:
        if agent.get("avg_latency_ms") is None:
            return None
        total += per_second * agent["avg_latency_ms"] / 1000
    return total


def score(
    agents: Sequence[dict[str, Any]],
    similarities: Sequence[float],
    weights: dict[str, float],
    *,
    mu: float,
    s: float,
    per_dollar: bool = False,
    cost_scale: float = 0.001,
    latency_scale: float = 1000.0,
    input_tokens: float = 0.0,
    required: Sequence[int] = (),
    excluded: Sequence[int] = (),
    pool: int | None = None,
    max_cost: float = math.inf,
    budget_remaining: float = math.inf,
    max_latency_ms: float = math.inf,
    min_quality: float = -math.inf,
    min_expected_quality: float = -math.inf,
) -> list[ScoredAgent]:
    """Every agent's score, as the design describes it."""
    result = []
    for number, (agent, similarity) in enumerate(zip(agents, similarities, strict=True)):
        fit = 1 / (1 + math.exp(-(similarity - mu) / s))
        cost = estimated_cost(agent, input_tokens)
        latency = agent.get("avg_latency_ms")
        expected = fit * agent["quality_score"] * agent["success_rate"]
        tests = {
            "active": not agent["active"],
            "pool": pool is not None and agent.get("pool") != pool,
            "excluded_agents": number in excluded,
            "required_capabilities": not set(required) <= set(agent["capabilities"]),
            "max_cost": max_cost < math.inf and (cost is None or cost > max_cost),
            "budget_remaining": budget_remaining < math.inf
            and (cost is None or cost > budget_remaining),
            "max_latency_ms": max_latency_ms < math.inf
            and (latency is None or latency > max_latency_ms),
            "min_quality": agent["quality_score"] < min_quality,
            "min_expected_quality": expected < min_expected_quality,
        }
        rejected = {name for name, broken in tests.items() if broken}
        result.append(ScoredAgent(rejected, fit, cost, latency))

    passed = [one for one in result if not one.rejected_by]
    dearest = max((one.cost for one in passed if one.cost is not None), default=0.0)
    slowest = max((one.latency for one in passed if one.latency is not None), default=0.0)
    for one, agent in zip(result, agents, strict=True):
        cost = dearest if one.cost is None else one.cost
        latency = slowest if one.latency is None else one.latency
        one.cost_utility = 1 / (1 + cost / cost_scale)
        one.latency_utility = 1 / (1 + latency / latency_scale)
        one.score = one.fit * (
            weights.get("cost_weight", 0.0) * one.cost_utility
            + weights.get("latency_weight", 0.0) * one.latency_utility
            + weights.get("quality_weight", 0.0) * agent["quality_score"] * agent["success_rate"]
            + weights.get("fit_weight", 0.0) * one.fit
        )
        if per_dollar:
            one.score /= cost + cost_scale
    return result
