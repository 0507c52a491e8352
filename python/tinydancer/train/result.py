"""What every trainer returns: the model, its file, and what was measured on held-out rows.

Made by the trainers of this package; read by the report, by the command line and by
``tinydancer evaluate``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tinydancer.model_file import ModelSpec

__all__ = ["ReportData", "TrainedModel"]


@dataclass
class ReportData:
    """What the report draws; whatever is None or empty is left out of it.

    Attributes:
        confidence: ``(n,)`` the probabilities that were predicted for held-out rows.
        outcome: ``(n,)`` in [0, 1], what came of them; with ``confidence`` the reliability diagram.
        truth: ``(n,)`` numbers of the true categories, for the confusion matrix.
        predicted: ``(n,)`` numbers of the predicted ones.
        names: of the categories, capabilities or agents.
        curves: cost-quality curves: name of a router to its points ``[(cost, quality), ...]``.
        training_curve: ``[(epoch, training loss, validation loss, validation metric), ...]``.
        notes: sentences for the reader: rows that were left out, members that were chosen.
        tables: further tables: title to rows, each a dict from column to value.
    """

    confidence: npt.NDArray[np.float64] | None = None
    outcome: npt.NDArray[np.float64] | None = None
    truth: npt.NDArray[np.int64] | None = None
    predicted: npt.NDArray[np.int64] | None = None
    names: list[str] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    training_curve: list[tuple[int, float, float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class TrainedModel:
    """A model and its figures.

    Attributes:
        spec: the model in readable form.
        bytes: its file, what ``tinydancer.add_model`` takes.
        metrics: JSON-able; at least ``n_train``, ``n_test``, ``seed``, ``metric`` (its name),
            ``ours``, ``ours_ci`` (95 %), ``baseline`` (its name), ``baseline_value``,
            ``beats_baseline`` and ``ece``; ``folds`` where each row was measured by a model that
            had not seen it, instead of on ``n_test`` rows apart.
        report_data: what the report draws.
    """

    spec: ModelSpec
    bytes: bytes
    metrics: dict[str, Any]
    report_data: ReportData = field(default_factory=ReportData)

    @property
    def basis(self) -> str:
        """How many rows were learned from, and which the figures are of: part of a sentence."""
        m = self.metrics
        if "folds" in m:
            other = m["folds"] - 1
            return f"{m['n_train']} rows, each measured by a model of the other {other} folds"
        return f"{m['n_train']} rows, measured on {m['n_test']} others"
