"""The figures of the benchmarks in one form: what every area writes and ``make bench`` collects.

In: what an area has timed, in turns with its baseline.  Out: a list of Figure, and as JSON in the
file that ``--json FILE`` names.  Called by the areas; bench/run.py reads what they wrote.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What is compared with, apart from .venv; make bench installs it.
PACKAGES = ROOT / "build" / "bench-packages"


@dataclass
class Figure:
    """One line: a value, and how many times another's it is, or how many times better.

    The ratio is ours by the baseline's, and less is better; with a goal of at least (">= 8") it is
    turned round, and more is better.  The spread is the distance between the quartiles of the
    rounds' ratios.  A goal without a ratio is the value's.

    ``floor`` says that the baseline is what the value cannot get below on this machine, measured in
    the same run.  What is not ``drawn`` is not in build/bench.png: a comparison with ours in
    another way, or a bound below the floor.  ``series`` and ``size`` make it a point of a growth.
    """

    area: str
    name: str
    value: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    spread: float | None = None
    goal: str = ""
    floor: bool = False
    drawn: bool = True
    series: str = ""
    size: float | None = None

    @property
    def more_is_better(self) -> bool:
        """Whether the ratio says how many times better ours is."""
        return self.goal.startswith(">=")

    @property
    def against_others(self) -> bool:
        """Whether it is a comparison with other people's code, or with the plan."""
        if not self.drawn or self.ratio is None or self.series:
            return False
        return not self.floor and not self.baseline.startswith(("reading ", "multiply-adds "))

    @property
    def wanted(self) -> float | None:
        """The number of the goal."""
        found = re.search(r"[0-9.]+", self.goal)
        return float(found.group()) if found else None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        wanted = self.wanted
        if wanted is None:
            return None
        measured = self.measured
        return measured >= wanted if self.more_is_better else measured <= wanted

    @property
    def measured(self) -> float:
        """What the goal is about."""
        return self.value if self.ratio is None else self.ratio


def spread(values: Sequence[float]) -> float:
    """Distance between the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def compared(
    area: str,
    name: str,
    values: Sequence[float],
    unit: str,
    baseline: tuple[str, Sequence[float]],
    goal: str = "",
    floor: bool = False,
) -> Figure:
    """Ours and the baseline's times, round by round, as one figure."""
    other, others = baseline
    pairs = zip(values, others, strict=True)
    ratios = [b / a if goal.startswith(">=") else a / b for a, b in pairs]
    middle = statistics.median(ratios)
    value, apart = statistics.median(values), spread(ratios)
    return Figure(area, name, value, unit, other, middle, apart, goal, floor)


def against_plan(area: str, name: str, value: float, unit: str, plan: float) -> Figure:
    """Ours by what the mission's plan says; the only baseline that is not of the same run."""
    return Figure(area, name, value, unit, f"the plan's {plan:,g} {unit}", value / plan)


def from_ratios(
    area: str,
    names: Mapping[str, str],
    rows: Mapping[str, Mapping[str, float]],
    unit: str,
    key: str,
    baseline: str,
    goals: Mapping[str, str] | None = None,
    floor: bool = False,
) -> list[Figure]:
    """Rows with ``ratio``, ``ratio_q1`` and ``ratio_q3``, and the value under ``key``.

    ``names`` says which rows, and how each is called in the collection.
    """
    return [
        Figure(
            area,
            name,
            rows[row][key],
            unit,
            baseline,
            rows[row]["ratio"],
            rows[row]["ratio_q3"] - rows[row]["ratio_q1"],
            (goals or {}).get(row, ""),
            floor,
        )
        for row, name in names.items()
    ]


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def processor() -> str:
    """The processor's name, where the kernel tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


# ---------------------------------------------------------------- files


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--json FILE`` that every area has."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")


def write(path: Path | None, figures: Iterable[Figure]) -> None:
    """Write figures to the file of ``--json``; nothing without one."""
    if path is not None:
        path.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


def read(path: Path) -> list[Figure]:
    """What an area wrote."""
    return [Figure(**one) for one in json.loads(path.read_text())]
