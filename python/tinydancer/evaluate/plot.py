"""The picture of ``tinydancer evaluate llm``: cost and quality of every router.

A comparison comes in, a PNG file comes out.  Called by tinydancer.evaluate.command.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinydancer.errors import InvalidInputError
from tinydancer.evaluate.curves import hull
from tinydancer.evaluate.llm import Comparison

__all__ = ["draw"]

# Okabe and Ito's colours, told apart by colour-blind people; dashes tell them apart without colour.
_STYLES = {
    "oracle": ("#000000", ":", 1.4),
    "ours": ("#D55E00", "-", 2.6),
    "knn100": ("#0072B2", "--", 1.6),
    "knn40": ("#56B4E9", "--", 1.2),
    "logistic": ("#009E73", "-.", 1.6),
    "random": ("#999999", ":", 1.4),
}
_LABELS = {
    "oracle": "oracle",
    "ours": "Tiny Dancer",
    "knn100": "100 nearest",
    "knn40": "40 nearest",
    "logistic": "logistic regression",
    "random": "random",
}


def draw(comparison: Comparison, path: Path, title: str) -> None:
    """Write the picture.

    Args:
        comparison: what was measured.
        path: of the PNG file.
        title: what it was measured on.

    Raises:
        InvalidInputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dearest = max(price for _, price, _ in comparison.agents)
    for name, (colour, dash, width) in _STYLES.items():
        points = comparison.points[name]
        corners = hull(points)
        flat = np.vstack([corners, [max(dearest, corners[-1, 0]), corners[-1, 1]]])
        area = comparison.figures[name]["area"]
        axes.plot(
            1000 * flat[:, 0], 100 * flat[:, 1], dash, color=colour, linewidth=width,
            label=f"{_LABELS[name]}  {area:.3f}",
        )  # fmt: skip
        if name == "ours":
            axes.plot(
                1000 * points[:, 0], 100 * points[:, 1], ".", color=colour, markersize=4, alpha=0.5
            )
    _agents(axes, comparison)
    axes.set_xlabel("mean price, USD for 1,000 calls")
    axes.set_ylabel("mean quality, %")
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.04)
    axes.legend(title="router: area", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InvalidInputError(f'could not write file "{path}"', f"{error.strerror}.") from None


def _agents(axes: object, comparison: Comparison) -> None:
    """The agents as crosses; the best of each price has its name."""
    best: dict[float, tuple[float, str]] = {}
    for name, price, quality in comparison.agents:
        axes.plot(1000 * price, 100 * quality, "x", color="#444444", markersize=6)  # type: ignore[attr-defined]
        best[price] = max(best.get(price, (-1.0, "")), (quality, name))
    middle = (min(best) + max(best)) / 2
    for price, (quality, name) in best.items():
        left = price <= middle
        axes.annotate(  # type: ignore[attr-defined]
            name, (1000 * price, 100 * quality), xytext=(7 if left else -7, -11),
            textcoords="offset points", fontsize=8, color="#444444", ha="left" if left else "right",
        )  # fmt: skip
