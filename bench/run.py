"""``make bench``: runs the areas, prints their figures as one table, writes and draws them.

In: the areas of bench/, each a program that writes its figures (bench/figures.py) and has a limit
of time.  Out: a table, build/bench.json with machine, compiler, commit and command, build/bench.png
with the ratio of every figure to its floor or baseline, and what the areas printed in build/log.
Called by make bench; ``make bench AREA=kernels`` runs one.

    .venv/bin/python bench/run.py [AREA ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from draw import draw
from draw_growth import draw as draw_growth
from figures import ROOT, Figure, processor, read
from rich.console import Console
from rich.table import Table

LOG = ROOT / "build" / "log"
# Programs of each area, in the order of the table.
AREAS = {
    "kernels": ["kernels.py"],
    "encoders": ["encoders_static.py", "encoders_minilm.py"],
    "decision": ["decision.py"],
    "join": ["join.py"],
    "batch": ["batch.py"],
    "pgvector": ["pgvector.py"],
    "plpython": ["plpython.py"],
    "concurrency": ["concurrency.py"],
    "cold_start": ["cold_start.py"],
    "growth": ["growth.py"],
    "growth_log": ["growth_log.py"],
}
# Longer ones, run when named; they print their own tables.
NAMED = ("analytics", "doors", "etl", "quality", "routes", "warm_path")
BY_NAME = {name: [f"{name}.py"] for name in NAMED}
SECONDS = 180  # limit of one program
SECONDS_BY_NAME = 1800


def run(program: str, area: str, console: Console) -> list[Figure]:
    """Run one program; its figures, none when it was skipped or is one that has none."""
    path = LOG / f"bench-{Path(program).stem}.txt"
    limit = SECONDS if area in AREAS else SECONDS_BY_NAME
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, str(ROOT / "bench" / program)]
        if area in AREAS:
            command += ["--json", str(out)]
        start = time.monotonic()
        with path.open("w") as log, console.status(f"{program} ..."):
            try:
                done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=limit)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{program} took more than {limit} s") from None
        said = path.read_text()
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed\n" + "\n".join(said.splitlines()[-20:]))
        found = read(out) if out.exists() else []
    console.print(f"{program}: {time.monotonic() - start:.0f} s, {len(found)} figures")
    if not found:
        console.print(said, markup=False, highlight=False)
    return found


def table(figures: list[Figure]) -> Table:
    """All figures, one a line."""
    result = Table(title="benchmarks", title_justify="left")
    for head, side in {
        "area": "left", "figure": "left", "value": "right", "ratio": "right", "spread": "right",
        "goal": "left", "against": "left",
    }.items():  # fmt: skip
        result.add_column(head, justify=side, overflow="fold")  # type: ignore[arg-type]
    last = ""
    for one in figures:
        if last and one.area != last:
            result.add_section()
        colour = {None: "", True: "green", False: "red"}[one.reached]
        goal = f"[{colour}]{one.goal}[/]" if colour else one.goal
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        apart = "" if one.spread is None else f"{one.spread:.2f}"
        area = "" if one.area == last else one.area
        value = f"{one.value:,.2f} {one.unit}"
        result.add_row(area, one.name, value, ratio, apart, goal, one.baseline)
        last = one.area
    return result


def first_line(*command: str) -> str:
    """What a program says first; empty without it."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0]


def circumstances() -> dict[str, object]:
    """Where and of what the figures are."""
    commit = first_line("git", "rev-parse", "HEAD")
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "compiler": first_line(os.environ.get("CC", "cc"), "--version"),
        "python": platform.python_version(),
        "commit": commit,
        "changed": bool(first_line("git", "status", "--porcelain")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = AREAS | BY_NAME
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(everything))
    args = parser.parse_args()
    for area in args.areas:
        if area not in everything:
            parser.error(f"no area {area!r}; there are {', '.join(everything)}")

    console = Console()
    LOG.mkdir(parents=True, exist_ok=True)
    about = circumstances()
    start = time.monotonic()
    figures: list[Figure] = []
    failures: set[str] = set()
    areas = args.areas or list(AREAS)
    for area in areas:
        for program in everything[area]:
            try:
                figures += run(program, area, console)
            except RuntimeError as error:
                failures.add(program)
                console.print(f"[red]{error}[/]", highlight=False)
    if figures:
        # A terminal's width folds long names; a file has room.
        wide = console if console.is_terminal else Console(width=160)
        wide.print(table(figures))
        command = " ".join(["make bench", *(f"AREA={area}" for area in args.areas)])
        document = {
            "command": command,
            **about,
            "load_at_end": os.getloadavg()[0],
            "seconds": time.monotonic() - start,
            "areas": [one for one in areas if not failures.intersection(everything[one])],
            "figures": [asdict(one) for one in figures],
        }
        (ROOT / "build" / "bench.json").write_text(json.dumps(document, indent=2) + "\n")
        draw(figures, ROOT / "build" / "bench.png")
        draw_growth(figures, ROOT / "build" / "growth.png")
        console.print("written: build/bench.json, build/bench.png, build/growth.png")
    if failures:
        console.print(f"[red]failed: {', '.join(sorted(failures))}[/]")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
