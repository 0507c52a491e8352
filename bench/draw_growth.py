"""Figures that are points of a growth: as lines of text, as the steepest step, as a picture.

In: figures with a series and a size.  Out: what bench/growth.py and bench/growth_log.py print, and
build/growth.png, which bench/run.py draws of all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from figures import Figure

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = 3
AXES = {"growth": "agents and routes", "growth_log": "rows of usage"}
# Of more, the last step would be compared with the start, where fixed costs hide the growth.
STEP = 10


def series_of(figures: Iterable[Figure]) -> dict[tuple[str, str], list[Figure]]:
    """The points of each area's series, by size."""
    result: dict[tuple[str, str], list[Figure]] = {}
    for one in figures:
        if one.area in AXES and one.series:
            result.setdefault((one.area, one.series), []).append(one)
    for points in result.values():
        points.sort(key=lambda one: one.size or 0)
    return result


def show(figures: Iterable[Figure]) -> None:
    """One line a series."""
    for (_, name), points in series_of(figures).items():
        said = "  ".join(f"{one.size:,}: {one.value:,.2f}" for one in points)
        print(f"{name + ', ' + points[0].unit:34} {said}")


def steepest(area: str, figures: Iterable[Figure]) -> list[Figure]:
    """The greatest growth of each series for ten times the size."""
    result = []
    for (_, name), points in series_of(figures).items():
        steps = [
            b.value / a.value
            for a, b in itertools.pairwise(points)
            if a.value > 0 and a.size and b.size == STEP * a.size
        ]
        if steps:
            what = f"{name}: most that ten times the size takes"
            result.append(Figure(area, what, max(steps), "times", goal="<= 10"))
    return result


def draw(figures: Iterable[Figure], path: Path) -> None:
    """One small picture a series, logarithmic both ways, with a line that grows linearly.

    With many sessions among the figures, one more: what they do in a second.
    """
    figures = list(figures)
    lines = series_of(figures)
    rates = [one for one in figures if one.area == "concurrency" and one.series.endswith("rate")]
    number = len(lines) + bool(rates)
    if number == 0:
        return
    rows = -(-number // COLUMNS)
    picture, places = plt.subplots(
        rows, COLUMNS, figsize=(4.4 * COLUMNS, 3.4 * rows), squeeze=False, layout="constrained"
    )
    for axes in places.flat[number:]:
        axes.set_visible(False)
    for ((area, name), points), axes in zip(lines.items(), places.flat, strict=False):
        sizes = [one.size or 0 for one in points]
        values = [max(one.value, 1e-3) for one in points]
        # Through the largest point: what is above it at the left does not grow worse than linearly.
        linear = [values[-1] * size / sizes[-1] for size in sizes]
        axes.loglog(sizes, linear, linestyle=":", color="#909090", label="grows linearly")
        axes.loglog(sizes, values, marker="o", color="#1f5fa8", label="measured")
        for size, value, one in zip(sizes, values, points, strict=True):
            axes.annotate(
                f"{one.value:,.3g}" if one.value < 1000 else f"{one.value:,.0f}",
                (size, value),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        floors = [(one.size, one.value / one.ratio) for one in points if one.floor and one.ratio]
        if floors:
            axes.loglog(
                *zip(*floors, strict=True), color="#c07000", linewidth=1, label=points[0].baseline
            )
        axes.set_ylim(min(values) / 3, max(values) * 3)
        axes.margins(x=0.12)
        axes.set_title(f"{name}, {points[0].unit}", fontsize=10)
        axes.set_xlabel(AXES[area], fontsize=9)
        axes.grid(color="#e4e4e4")
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    if rates:
        _sessions(places.flat[len(lines)], rates)
    picture.suptitle("what rises more steeply than the dotted line grows worse than linearly")
    picture.savefig(path, dpi=110)
    plt.close(picture)


def _sessions(axes: plt.Axes, rates: list[Figure]) -> None:
    """Statements a second of each workload against the number of clients."""
    for series in dict.fromkeys(one.series for one in rates):
        points = [(one.size, one.value) for one in rates if one.series == series]
        name = series.partition(",")[0]
        axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(0)
    axes.set_title("many sessions, statements a second", fontsize=10)
    axes.set_xlabel("clients", fontsize=9)
    axes.grid(color="#e4e4e4")
    axes.legend(frameon=False, fontsize=8)
