"""The picture of ``make bench``: how far each figure is from its goal, its floor, and others.

In: figures.  Out: one PNG.  Above, a line for each thing that has a goal or a physical floor: at
the left the share of the goal that it takes, at the right how many times the floor.  Below, how
many times faster it is than other people's code and the plan.  Points of a growth that have no goal
are in build/growth.png instead.  Called by bench/run.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from figures import Figure, number

matplotlib.use("Agg")
from matplotlib import pyplot as plt

GREEN, RED, GREY, BLUE = "#1a7f37", "#c62828", "#4a5a6a", "#1f5fa8"
COLOURS = {True: GREEN, False: RED, None: GREY}
INCHES_A_LINE = 0.25
# Ends of the axis of goals, where a goal of nothing is reached or missed.
LEAST, MOST = 0.03, 10.0


@dataclass
class Line:
    """One line of the upper part."""

    area: str
    name: str
    goal: Figure | None = None
    floor: Figure | None = None


def lines_of(figures: list[Figure]) -> list[Line]:
    """Figures of one thing together: each goal on a line, with the floor of its name."""
    result: list[Line] = []
    for one in figures:
        if not one.drawn or (not one.goal and (not one.floor or one.series)):
            continue
        alike = [line for line in result if (line.area, line.name) == (one.area, one.name)]
        if one.goal:
            free = next((line for line in alike if line.goal is None), None)
            line = free or Line(one.area, one.name)
            if free is None:
                result.append(line)
            line.goal = one
        if one.floor:
            free = next((line for line in [*alike, *result[-1:]] if line.floor is None), None)
            if free is None or (free.area, free.name) != (one.area, one.name):
                free = Line(one.area, one.name)
                result.append(free)
            free.floor = one
    places = {area: i for i, area in enumerate(dict.fromkeys(one.area for one in figures))}
    return sorted(result, key=lambda line: places[line.area])


def share_of_goal(one: Figure) -> float:
    """What is measured by what is allowed: at most 1 where the goal is reached."""
    wanted = one.wanted
    if not wanted or not one.measured:
        return LEAST if one.reached else MOST
    share = wanted / one.measured if one.more_is_better else one.measured / wanted
    return min(max(share, LEAST), MOST)


def draw(figures: list[Figure], path: Path) -> None:
    """Draw the figures that have a goal, a floor or another's time; nothing when there are none."""
    lines = lines_of(figures)
    others = [one for one in figures if one.against_others]
    if not lines or not others:
        heights = [max(rows_of(lines or others), default=0) + 4]
    else:
        heights = [max(rows_of(lines)) + 4, max(rows_of(others)) + 4]
    picture = plt.figure(figsize=(15, sum(heights) * INCHES_A_LINE + 0.6), layout="constrained")
    grid = picture.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[1.25, 1])
    if lines:
        goals = picture.add_subplot(grid[0, 0])
        floors = picture.add_subplot(grid[0, 1], sharey=goals)
        _goals(goals, lines)
        _floors(floors, lines)
    if others:
        _others(picture.add_subplot(grid[-1, :]), others)
    picture.savefig(path, dpi=110)
    plt.close(picture)


def rows_of(things: Sequence[Line | Figure]) -> list[int]:
    """The row of each: one is left free above each area, for its name."""
    areas = list(dict.fromkeys(one.area for one in things))
    return [i + areas.index(one.area) + 1 for i, one in enumerate(things)]


def _frame(axes: plt.Axes, things: Sequence[Line | Figure], title: str) -> None:
    """What the parts have in common: a name a line, below that of its area; a log scale."""
    rows = rows_of(things)
    labels = dict(zip(rows, (one.name for one in things), strict=True))
    for row, one in zip(reversed(rows), reversed(things), strict=True):
        if row - 1 not in labels:
            labels[row - 1] = one.area.upper().replace("_", " ")
            axes.axhline(row - 1.5, color="#c8c8c8", linewidth=0.8, zorder=0)
    axes.set_yticks(list(labels), labels.values(), fontsize=8)
    for row, label in zip(labels, axes.get_yticklabels(), strict=True):
        label.set_fontweight("normal" if row in rows else "bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(rows) + 0.6, -0.6)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.grid(axis="x", which="major", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(title, loc="left", fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mark(axes: plt.Axes, row: int, value: float, apart: float, colour: str, said: str) -> None:
    """A point, the way to it from 1, its spread, and words beside it."""
    axes.plot([1, value], [row, row], color=colour, linewidth=3, alpha=0.25)
    error = [[min(apart / 2, value * 0.9)], [apart / 2]]
    axes.errorbar(value, row, xerr=error, fmt="o", ms=6, color=colour)
    side = (8, "left") if value >= 1 else (-8, "right")
    axes.annotate(
        said,
        (value + apart / 2 if value >= 1 else max(value - apart / 2, value * 0.1), row),
        xytext=(side[0], 0),
        textcoords="offset points",
        ha=side[1],
        va="center",
        fontsize=7.5,
        color=colour,
    )


def _goals(axes: plt.Axes, lines: list[Line]) -> None:
    _frame(axes, lines, "share of its goal: left of the line is reached")
    axes.set_xlim(LEAST / 40, MOST * 60)
    axes.axvspan(LEAST / 40, 1, color=GREEN, alpha=0.05)
    axes.axvspan(1, MOST * 60, color=RED, alpha=0.05)
    for row, line in zip(rows_of(lines), lines, strict=True):
        if line.goal is None:
            continue
        share = share_of_goal(line.goal)
        apart = 0.0
        if line.goal.spread and line.goal.ratio:
            apart = share * min(line.goal.spread / line.goal.ratio, 1)
        what = line.goal.unit if line.goal.ratio is None else f"× {line.goal.baseline}"
        wanted = line.goal.goal.replace("<=", "≤").replace(">=", "≥")
        said = f"{number(line.goal.measured)} {what} (goal {wanted})"
        _mark(axes, row, share, apart, COLOURS[line.goal.reached], said)


def _floors(axes: plt.Axes, lines: list[Line]) -> None:
    _frame(axes, lines, "times its floor, measured in the same run")
    axes.tick_params(labelleft=False)
    most = 1.0
    for row, line in zip(rows_of(lines), lines, strict=True):
        if line.floor is None or line.floor.ratio is None:
            continue
        # Throughputs are the other way round.
        value = 1 / line.floor.ratio if line.floor.more_is_better else line.floor.ratio
        most = max(most, value)
        _mark(axes, row, value, 0, BLUE, f"{number(value)} × {line.floor.baseline}")
    axes.set_xlim(0.3, most * 30)


def _others(axes: plt.Axes, figures: list[Figure]) -> None:
    _frame(axes, figures, "times faster than others: right of the line ours is faster")
    values = []
    for row, one in zip(rows_of(figures), figures, strict=True):
        assert one.ratio is not None
        value = one.ratio if one.more_is_better else 1 / one.ratio
        apart = value * min((one.spread or 0) / one.ratio, 1)
        values.append(value)
        colour = GREEN if value >= 1 else RED
        _mark(axes, row, value, apart, colour, f"{number(value)} × {one.baseline}")
    axes.set_xlim(min(*values, 1) / 4, max(values) * 6)
