"""``tinydancer evaluate intents | llm``: their arguments, their tables, their JSON.

Arguments come in; a table for people, or with --json one JSON object and nothing else, goes to
standard output, what was left out goes to standard error.  tinydancer.cli adds it to its commands.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tinydancer.errors import InvalidInputError

__all__ = ["add_commands"]

_ROUTER_NAMES = {
    "ours": "ours",
    "cheapest": "the cheapest agent",
    "best_single": "the best single agent",
    "random": "random",
    "knn40": "40 nearest requests",
    "knn100": "100 nearest requests",
    "logistic": "logistic regression",
    "oracle": "oracle",
}


def add_commands(commands: Any) -> None:
    """Add ``evaluate`` to the subparsers of the command line."""
    text = "measure routes, classifiers and routers on files of labelled requests"
    evaluate = commands.add_parser("evaluate", help=text, description=text)
    kinds = evaluate.add_subparsers(title="commands", metavar="COMMAND", required=True)

    text = "accuracy of route scorers and of a trained classifier"
    intents = kinds.add_parser("intents", help=text, description=text)
    intents.set_defaults(run=_intents)
    rows = 'JSON lines {"text": ..., "label": ...}; the label oos is out of scope'
    intents.add_argument("--train", required=True, metavar="FILE", help=rows)
    intents.add_argument("--test", required=True, metavar="FILE", help="the same")
    intents.add_argument(
        "--shots", type=_positive, metavar="N", help="learn from N random texts of each label"
    )
    intents.add_argument(
        "--seeds", type=_positive, default=1, metavar="K", help="draw them K times (default: 1)"
    )

    text = "cost and quality of a trained router and of baselines"
    llm = kinds.add_parser("llm", help=text, description=text)
    llm.set_defaults(run=_llm)
    rows = 'JSON lines {"request": ..., "quality": {agent: 0..1}}'
    llm.add_argument("--train", required=True, metavar="FILE", help=rows)
    llm.add_argument("--test", required=True, metavar="FILE", help="the same")
    llm.add_argument("--agents", required=True, metavar="FILE", help="JSON list: names and prices")
    llm.add_argument("--plot", metavar="FILE", help="write cost-quality curves to a PNG file")

    for one in (intents, llm):
        one.add_argument("--encoder", default="static", metavar="NAME", help="a name or a file")
        one.add_argument("--seed", type=int, default=0, help="of every random number (default: 0)")
        one.add_argument("--json", action="store_true", help="the numbers, for programs")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _require_extra() -> None:
    """One sentence in place of an import error from the depth of the trainer."""
    try:
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ImportError as error:
        raise InvalidInputError(
            "evaluation needs packages that are not installed",
            f"{error}.",
            'Run: pip install "tinydancer[train]"',
        ) from None


def _threads() -> int:
    return min(2, os.cpu_count() or 1)


def _say(notes: list[str]) -> None:
    for note in notes:
        print(f"NOTICE:  {note}", file=sys.stderr)


def _llm(args: argparse.Namespace) -> int:
    _require_extra()
    from tinydancer.encoder import Encoder
    from tinydancer.evaluate.files import read_agents, read_outcomes
    from tinydancer.evaluate.llm import compare
    from tinydancer.train.progress import shown

    encoder = Encoder.load(args.encoder)
    train, test = read_outcomes(Path(args.train)), read_outcomes(Path(args.test))
    price = read_agents(Path(args.agents), train.agents)
    with shown() as progress:
        result = compare(train, test, price, encoder, args.seed, progress, _threads())
    _say(result.notes)
    if args.plot:
        from tinydancer.evaluate.plot import draw

        draw(result, Path(args.plot), f"{Path(args.test).name}, encoder {encoder.id}")
    if args.json:
        print(json.dumps(result.figures))
    else:
        _llm_table(result.figures, len(price) == 2)
    return 0


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _console() -> Any:
    from rich.console import Console

    # A pipe has no width: columns are not to be folded for it.
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _llm_table(figures: dict[str, Any], pair: bool) -> None:
    columns = ["router", "accuracy, %", "mean cost", "area", "of the gap, %", "ours minus it: area"]
    table = _table(*columns, *(["APGR", "CPT50, %", "CPT80, %"] if pair else []))
    for name, label in _ROUTER_NAMES.items():
        one = figures[name]
        gap = one["gap_closed"]
        minus = figures["ours_minus"].get(name)
        between = ""
        if minus is not None:
            low, middle, high = minus["area"]
            between = f"{middle:+.4f} ({low:+.4f} .. {high:+.4f})"
        cells = [
            label,
            f"{100 * one['accuracy']:.2f}",
            f"{one['mean_cost']:.6f}",
            f"{one['area']:.4f}",
            _shown(None if gap is None else 100 * gap, ".1f"),
            between,
        ]
        if pair:
            cells += [_shown(one["apgr"], ".4f")]
            cells += [_shown(one[key], ".1f") for key in ("cpt50", "cpt80")]
        table.add_row(*cells, style="bold" if name == "ours" else None)
    console = _console()
    console.print(table)
    console.print(f"\ncalibration error of ours, 15 bins: {figures['ours']['ece']:.4f}")
    console.print("in brackets: 95 % of paired bootstrap samples of the test requests")


def _intents(args: argparse.Namespace) -> int:
    _require_extra()
    from tinydancer.encoder import Encoder
    from tinydancer.evaluate.files import read_intents
    from tinydancer.evaluate.intents import compare
    from tinydancer.train.progress import shown

    if args.seeds > 1 and args.shots is None:
        raise InvalidInputError(
            "--seeds needs --shots",
            f"{args.seeds} draws of all texts would all be the same.",
            "Say how many texts of each label are drawn: --shots 10.",
        )
    encoder = Encoder.load(args.encoder)
    train, test = read_intents(Path(args.train)), read_intents(Path(args.test))
    with shown() as progress:
        result = compare(
            train, test, encoder, shots=args.shots, seeds=args.seeds, seed=args.seed,
            progress=progress, threads=_threads(),
        )  # fmt: skip
    _say(result.notes)
    if args.json:
        print(json.dumps(result.figures))
    else:
        _intents_table(result.figures, result.validated)
    return 0


def _intents_table(figures: dict[str, Any], validated: dict[str, float]) -> None:
    table = _table("scorer", "accuracy, %", "on training texts held out, %", "")
    for name, accuracy in figures["accuracy"].items():
        best = name == figures["best"]
        table.add_row(
            name,
            f"{100 * accuracy:.2f}",
            f"{100 * validated[name]:.2f}",
            "chosen" if best else "",
            style="bold" if best else None,
        )
    console = _console()
    console.print(table)
    console.print(f"\n{figures['n_test']} test texts of known labels")
    if figures["oos_auroc"] is not None:
        console.print(f"out of scope told apart (AUROC): {figures['oos_auroc']:.4f}")
    console.print(f"calibration error of the chosen one, 15 bins: {figures['ece']:.4f}")
