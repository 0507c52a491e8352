"""A calibration curve that always rises: it never makes two predictions equal.

Predictions and outcomes come in, the knots of a curve come out, as
``model_file.ModelSpec.curve_x`` and ``curve_y`` hold them.  Used by tinydancer.train.quality and
by tinydancer.evaluate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["apply_curve", "rising_curve"]

Array = npt.NDArray[np.float64]


def rising_curve(said: Array, came: Array, groups: int = 24) -> tuple[Array, Array]:
    """Isotonic regression of group means, joined by lines, so that no two predictions become equal.

    Steps would: an isotonic fit to single outcomes is flat nearly everywhere, and agents whose
    predictions fall on one step would be chosen by price alone.

    Args:
        said: ``(n,)`` predicted, in [0, 1], on rows that were not learned from.
        came: ``(n,)`` what happened, in [0, 1].
        groups: how many groups of equal size; fewer where there are few rows.

    Returns:
        Knots: x increasing from 0 to 1, and y, increasing too, in [0, 1].
    """
    order = np.argsort(said, kind="stable")
    parts = np.array_split(order, max(min(groups, len(order) // 50), 1))
    blocks: list[tuple[float, float, int]] = []
    for part in parts:
        if len(part) == 0:
            continue
        blocks.append((float(said[part].mean()), float(came[part].mean()), len(part)))
        # Pool neighbours until means rise; the pool is one knot.
        while len(blocks) > 1 and (
            blocks[-1][1] <= blocks[-2][1] or blocks[-1][0] - blocks[-2][0] < 1e-6
        ):
            (low_x, low_y, low_n), (x, y, n) = blocks[-2:]
            total = low_n + n
            pool = (low_x * low_n + x * n) / total, (low_y * low_n + y * n) / total, total
            blocks[-2:] = [pool]
    at = np.array([block[0] for block in blocks])
    height = np.array([block[1] for block in blocks]).clip(1e-4, 1 - 1e-4)
    # Beyond the outer knots it goes half of the way to the corners of the unit square.
    if at[0] > 1e-6:
        at, height = np.insert(at, 0, 0.0), np.insert(height, 0, height[0] / 2)
    if at[-1] < 1 - 1e-6:
        at, height = np.append(at, 1.0), np.append(height, (1 + height[-1]) / 2)
    return at, height


def apply_curve(curve: tuple[Any, Any], said: Array) -> Array:
    """Predictions on a curve; flat outside of its knots."""
    result: Array = np.interp(said, curve[0], curve[1])
    return result
