"""Outcomes of requests as a table: who answered what how well.

Labels come in, one for each request and agent that was tried; a matrix with a row for each
different request and a column for each agent comes out, NaN where nobody knows.  Used by the
trainer of quality models and by ``tinydancer evaluate llm``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydancer.errors import InvalidInputError, ShapeError

__all__ = ["Outcomes", "collect"]


@dataclass(frozen=True)
class Outcomes:
    """Qualities by request and agent.

    Attributes:
        requests: n different texts, in the order in which they first appeared.
        agents: names, in the order of their bytes.
        quality: ``(n, n_agents)`` in [0, 1]; NaN: this agent was not tried.
        left_out: labels without a quality, which count for nothing.
        repeated: labels beyond the first of the same request and agent; their mean counts.
    """

    requests: list[str]
    agents: list[str]
    quality: npt.NDArray[np.float64]
    left_out: int = 0
    repeated: int = 0

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """``(n, n_agents)``: which qualities are known."""
        return ~np.isnan(self.quality)

    @property
    def support(self) -> npt.NDArray[np.int64]:
        """``(n_agents,)``: of how many requests each agent's quality is known."""
        return self.known.sum(axis=0)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Outcomes:
        """Some of the requests, with all agents."""
        numbers = np.arange(len(self.requests))[rows]
        return Outcomes([self.requests[i] for i in numbers], self.agents, self.quality[numbers])


def collect(
    requests: Sequence[str], agents: Sequence[str], quality: Sequence[float | None]
) -> Outcomes:
    """Make the table from labels.

    Args:
        requests: ``(n_labels,)`` texts.
        agents: ``(n_labels,)`` names of the agents that answered.
        quality: ``(n_labels,)`` in [0, 1]; None and NaN are left out.

    Returns:
        The table; requests of which no quality is known are not in it.

    Raises:
        ShapeError: sequences of different lengths.
        InvalidInputError: a quality outside of [0, 1], a name or a text that is none.
    """
    if not len(requests) == len(agents) == len(quality):
        raise ShapeError(
            "requests, agents and qualities must have the same number of rows",
            f"There are {len(requests)}, {len(agents)} and {len(quality)}.",
        )
    rows: dict[str, int] = {}
    sums: dict[tuple[int, str], list[float]] = {}
    left_out = 0
    for number, (request, agent, value) in enumerate(
        zip(requests, agents, quality, strict=True), start=1
    ):
        if not isinstance(request, str) or not request.strip():
            raise InvalidInputError(
                "a request to learn from is empty", f"Label {number} has {request!r}."
            )
        if not isinstance(agent, str) or not agent:
            raise InvalidInputError(
                "a label has no name of an agent", f"Label {number} has {agent!r}."
            )
        if value is None or math.isnan(value):
            left_out += 1
            continue
        if not 0 <= value <= 1:
            raise InvalidInputError(
                "quality must be between 0 and 1",
                f'Label {number} has {value} for agent "{agent}".',
                "Scale it: 0 is useless, 1 is as good as can be; NULL is unknown.",
            )
        row = rows.setdefault(request, len(rows))
        sums.setdefault((row, agent), []).append(float(value))
    names = sorted({agent for _, agent in sums}, key=str.encode)
    column = {name: j for j, name in enumerate(names)}
    matrix = np.full((len(rows), len(names)), np.nan)
    for (row, agent), values in sums.items():
        matrix[row, column[agent]] = sum(values) / len(values)
    repeated = sum(len(values) - 1 for values in sums.values())
    return Outcomes(list(rows), names, matrix, left_out, repeated)
