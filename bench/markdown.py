"""The tables of docs/performance.md, from what was measured: no figure is copied by hand.

In: build/bench.json of `make bench`, and the profile that bench/warm_path.py leaves in build/bench.
Out: each block of docs/performance.md between `<!-- figures: NAME -->` and `<!-- end -->` is
written anew, where its figures were measured; the others stay.  With names, the blocks are printed
instead.

    .venv/bin/python bench/markdown.py [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from typing import Any

from draw_growth import AXES, series_of
from figures import ROOT, Figure, number
from run import AREAS
from warm_path import PROFILE

PAGE = ROOT / "docs" / "performance.md"
JSON = ROOT / "build" / "bench.json"
WORKLOADS = ("SELECT 1", "routing", "updated", "mixed")


def run(figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """What was run, where."""
    load = f"{document['load']:.1f} at the start, {document['load_at_end']:.1f} at the end"
    minutes = document["seconds"] / 60
    return [
        f"`{document['command']}` at commit `{document['commit'][:12]}`: {document['processors']} "
        f"processors, {document['processor']}, {document['system']}; {document['compiler']}; "
        f"Python {document['python']}; {minutes:.1f} minutes. "
        f"**Load of the machine: {load}.**"
    ]


def goals(figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """Every figure with a goal."""
    lines = ["| what | area | goal | measured | |", "|---|---|---|---|---|"]
    for one in figures:
        if not one.goal:
            continue
        what, measured = one.name, f"{number(one.measured)} {one.unit}"
        if one.ratio is not None:
            pair = (one.name, one.baseline)
            what = " ÷ ".join(reversed(pair) if one.more_is_better else pair)
            apart = "" if one.spread is None else f" ({one.spread:.2g})"
            measured = number(one.ratio) + apart
        said = "reached" if one.reached else "**missed**"
        goal = one.goal.replace("<=", "≤").replace(">=", "≥")
        unit = "" if one.ratio is not None or goal.endswith(one.unit) else f" {one.unit}"
        lines.append(f"| {what} | `{one.area}` | {goal}{unit} | {measured} | {said} |")
    return lines


def floors(figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """What the machine can do, and how many times its floor each thing takes."""
    lines = ["| what | value | floor | times the floor |", "|---|---|---|---|"]
    for one in figures:
        if one.floor and one.drawn and one.ratio and not one.series:
            ratio = f"{number(one.ratio)} ({one.spread or 0:.2g})"
            lines.append(
                f"| {one.name} | {number(one.value)} {one.unit} | {one.baseline} | {ratio} |"
            )
    machine = [
        f"{one.name}: {number(one.value)} {one.unit}"
        for one in figures
        if one.name.startswith(("read bandwidth", "multiply-add peak"))
    ]
    return ["One thread of this machine: " + "; ".join(machine) + ".", "", *lines]


def others(figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """How many times faster than other people's code."""
    lines = ["| what | ours | against | times faster |", "|---|---|---|---|"]
    for one in figures:
        if one.against_others and one.ratio:
            ratio = one.ratio if one.more_is_better else 1 / one.ratio
            value = f"{number(one.value)} {one.unit}"
            lines.append(f"| {one.name} | {value} | {one.baseline} | {number(ratio)} |")
    return lines


def growth(figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """A table for each axis: a series a line, a size a column."""
    lines: list[str] = []
    for area, axis in AXES.items():
        series = {name: points for (of, name), points in series_of(figures).items() if of == area}
        if not series:
            continue
        sizes = sorted({one.size for points in series.values() for one in points if one.size})
        lines += [
            *([""] if lines else []),
            f"| {axis} | " + " | ".join(f"{size:,.0f}" for size in sizes) + " |",
            "|---|" + "---|" * len(sizes),
        ]
        for name, points in series.items():
            by_size = {one.size: f"{number(one.value)} {one.unit}" for one in points}
            lines.append(f"| {name} | " + " | ".join(by_size.get(s, "") for s in sizes) + " |")
    return lines


def sessions(figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """A line for each number of clients and workload."""
    points = {(one.series, one.size): one for one in figures if one.area == "concurrency"}
    sizes = sorted({size for _, size in points if size is not None})
    lines = [
        "| clients | workload | a second | ÷ `SELECT 1` | p50, p99 | memory above `SELECT 1`'s |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        for name in WORKLOADS:
            rate = points[f"{name}, rate", size]
            ratio = "" if rate.ratio is None else f"{rate.ratio:.2f} ({rate.spread or 0:.2f})"
            times = [points[f"{name}, p{part}", size].value for part in (50, 99)]
            memory = points.get((f"{name}, memory", size))
            more = "" if memory is None else f"{memory.value:.2f} MB"
            lines.append(
                f"| {size:.0f} | {name} | {rate.value:,.0f} | {ratio} | "
                f"{times[0]:.2f}, {times[1]:.2f} ms | {more} |"
            )
    return lines


def profile(figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """The profile, as it was printed."""
    return PROFILE.read_text().splitlines() if PROFILE.exists() else []


BLOCKS: dict[str, Callable[[list[Figure], dict[str, Any]], list[str]]] = {
    one.__name__: one for one in (run, goals, floors, others, growth, sessions, profile)
}
# The areas of each; of the other blocks all.
NEEDS = {"growth": {"growth", "growth_log"}, "sessions": {"concurrency"}, "profile": set()}


def block(name: str, figures: list[Figure], document: dict[str, Any]) -> list[str]:
    """The lines of a block; none where one of its areas was not measured."""
    measured = NEEDS.get(name, set(AREAS)) <= set(document["areas"])
    return typeset(BLOCKS[name](figures, document)) if measured else []


def typeset(lines: list[str]) -> list[str]:
    """Signs that programs print in ASCII."""
    for plain, sign in ((r"->", "→"), (r"\bus\b", "µs"), (r"(?<=\d )x(?= \d)", "×")):
        lines = [re.sub(plain, sign, line) for line in lines]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BLOCKS))
    args = parser.parse_args()
    if unknown := set(args.names) - set(BLOCKS):
        parser.error(f"no block {', '.join(unknown)}; there are {', '.join(BLOCKS)}")
    if not JSON.exists():
        parser.error(f"{JSON.relative_to(ROOT)} is missing: make bench")
    document = json.loads(JSON.read_text())
    figures = [Figure(**one) for one in document["figures"]]
    for name in args.names:
        print("\n".join(typeset(BLOCKS[name](figures, document))))
    if args.names:
        return 0

    def fill(found: re.Match[str]) -> str:
        lines = block(found[2], figures, document)
        print(f"{found[2]}: {'written' if lines else 'not measured, left as it is'}")
        return "\n".join([found[1].rstrip(), *lines, found[4]]) if lines else found[0]

    pattern = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    PAGE.write_text(pattern.sub(fill, PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
