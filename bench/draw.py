"""The picture of ``make bench``: how far each figure is from its floor or baseline.

In: figures that have a ratio.  Out: one PNG with two parts, those of which less is better and those
of which more is.  Called by bench/run.py.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from figures import Figure

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

COLOURS = {True: "#1a7f37", False: "#c62828", None: "#4a5a6a"}
MEANINGS = {True: "goal reached", False: "goal missed", None: "no goal"}
TITLES = {
    False: "times the baseline: less is better",
    True: "times better than the baseline: more is better",
}
INCHES_A_LINE = 0.27


def draw(figures: list[Figure], path: Path) -> None:
    """Draw every figure with a ratio; nothing when there is none."""
    parts = {
        more: [one for one in figures if one.ratio and one.more_is_better is more]
        for more in (False, True)
    }
    parts = {more: part for more, part in parts.items() if part}
    if not parts:
        return
    heights = [len(part) + 4 for part in parts.values()]
    picture, places = plt.subplots(
        len(parts),
        1,
        figsize=(13, sum(heights) * INCHES_A_LINE + 1),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for (more, part), axes in zip(parts.items(), places[:, 0], strict=True):
        _part(axes, part, TITLES[more])
    handles = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[key], label=MEANINGS[key])
        for key in (True, False, None)
    ]
    handles.append(Line2D([], [], marker="|", linestyle="", color="black", ms=11, label="goal"))
    picture.legend(handles=handles, loc="outside upper right", ncols=4, frameon=False)
    picture.savefig(path, dpi=110)
    plt.close(picture)


def _part(axes: plt.Axes, figures: list[Figure], title: str) -> None:
    """One figure a line, by area."""
    last = figures[0].area
    for row, one in enumerate(figures):
        assert one.ratio is not None
        colour = COLOURS[one.reached]
        half = (one.spread or 0) / 2
        axes.plot([1, one.ratio], [row, row], color=colour, linewidth=1, alpha=0.35)
        axes.errorbar(
            one.ratio, row, xerr=[[min(half, one.ratio * 0.9)], [half]], fmt="o", ms=6, color=colour
        )
        axes.annotate(
            f"{one.ratio:.2f}",
            (1.005, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=colour,
        )
        if one.wanted is not None:
            axes.plot(one.wanted, row, marker="|", ms=13, mew=2, color="black", zorder=1)
        if one.area != last:
            axes.axhline(row - 0.5, color="#cccccc", linewidth=0.8)
            last = one.area
    labels = [f"{one.area}: {one.name}, against {one.baseline}" for one in figures]
    axes.set_yticks(range(len(figures)), labels, fontsize=8)
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", which="major", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(title, loc="left", fontsize=11)
