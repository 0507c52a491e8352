"""``tinydancer train`` and ``tinydancer model``: their arguments, and what they print.

Arguments come in; rows are read from a database or a file, a model is trained, reported and stored.
Hooked into tinydancer.cli by ``add_commands``.  Nothing of training is imported before it is asked
for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.encoder import Encoder
    from tinydancer.train.data import Labelled
    from tinydancer.train.progress import Progress
    from tinydancer.train.result import TrainedModel

__all__ = ["add_commands"]

KINDS = ("classifier", "capabilities", "quality")


# ---------------------------------------------------------------- train


def _source(args: argparse.Namespace) -> str:
    return str(args.query) if args.query is not None else f'file "{Path(args.file).name}"'


def _rows(args: argparse.Namespace) -> Labelled:
    from tinydancer.train import data, store

    if args.file is not None:
        return data.read_file(Path(args.file), args.task)
    if args.dsn is None:
        raise InvalidInputError("--query needs --dsn", None, "Say which database it asks.")
    with store.connected(args.dsn) as conn:
        return data.read_query(conn, args.query, args.task)


def _encoder(args: argparse.Namespace) -> Encoder:
    """The one that was named, else the database's, else the default."""
    from tinydancer import encoder
    from tinydancer.train import store

    name = args.encoder
    if args.dsn is not None:
        with store.connected(args.dsn) as conn:
            active, checksum = store.active_encoder(conn)
        chosen = encoder.Encoder.load(active if name is None else name)
        if args.activate and (chosen.id, chosen.checksum) != (active, checksum):
            raise InvalidInputError(
                f'the database uses encoder "{active}"',
                f'A model for "{chosen.id}" ({chosen.checksum}) cannot be active where vectors '
                f"have checksum {checksum}.",
                "Leave out --encoder, or add --no-activate.",
            )
        return chosen
    return encoder.Encoder.load(encoder.default_id() if name is None else name)


def _trained(
    args: argparse.Namespace, rows: Labelled, encoder: Encoder, progress: Progress
) -> TrainedModel:
    seed = args.seed
    if rows.task == "quality":
        from tinydancer.train.quality import train_quality

        return train_quality(rows.requests, rows.labels, rows.quality, encoder, seed, progress)
    from tinydancer.train import classifier

    train = (
        classifier.train_classifier if rows.task == "classifier" else classifier.train_capabilities
    )
    return train(rows.requests, rows.labels, encoder, seed=seed, progress=progress)


def _train(args: argparse.Namespace) -> int:
    from tinydancer.train import progress, report, store

    rows, encoder = _rows(args), _encoder(args)
    with progress.shown() as listener:
        trained = _trained(args, rows, encoder, listener)
    if args.out is not None:
        Path(args.out).write_bytes(trained.bytes)
    if args.report is not None:
        report.write_report(trained, Path(args.report))
    if args.json:
        print(json.dumps(trained.metrics, ensure_ascii=False))
    else:
        _show(trained, args)
    if args.dsn is None:
        return 0
    version = store.store(
        args.dsn, trained, _source(args), activated=args.activate, force=args.force
    )
    state = "active" if args.activate else "stored, not active"
    print(f"model {trained.spec.task} {version}: {state}", file=sys.stderr)
    return 0


def _show(trained: TrainedModel, args: argparse.Namespace) -> None:
    m = trained.metrics
    low, high = m["ours_ci"]
    print(f"{trained.spec.task}: {len(trained.spec.names)} outputs, {len(trained.bytes):,} bytes")
    print(f"learned from {trained.basis}")
    print(f"{m['metric']:24} {m['ours']:.4f}  (95 %: {low:.4f} to {high:.4f})")
    print(f"{m['baseline'][:24]:24} {m['baseline_value']:.4f}")
    print(f"{'calibration error':24} {m['ece']:.4f}")
    for note in trained.report_data.notes:
        print(f"NOTICE:  {note}", file=sys.stderr)
    if args.out is not None:
        print(f"model file: {args.out}")
    if args.report is not None:
        print(f"report: {Path(args.report) / 'report.md'}")


def _train_routes(args: argparse.Namespace) -> int:
    from tinydancer.train import progress, routes, store

    if args.dsn is None:
        raise InvalidInputError("routes are in a database", None, "Say which with --dsn.")
    rows = _rows(args)
    with store.connected(args.dsn) as conn, progress.shown() as listener:
        conn.autocommit = True
        figures = routes.train_routes(
            conn, rows, seed=args.seed, keep=args.activate, force=args.force, progress=listener
        )
    if args.json:
        print(json.dumps(figures))
        return 0
    low, high = figures["gain_ci"]
    print(f"held-out accuracy before  {figures['accuracy_before']:.4f}")
    print(
        f"held-out accuracy after   {figures['accuracy_after']:.4f}  "
        f"(95 % interval of the gain: {low:.4f} to {high:.4f})"
    )
    kept = f"{figures['n_added']} utterances added" if figures["kept"] else "nothing was changed"
    print(f"{figures['n_test']} requests held out; {kept}; scorer {figures['scorer']}")
    return 0


# ---------------------------------------------------------------- model


def _model_list(args: argparse.Namespace) -> int:
    from tinydancer.train import store

    rows = store.listed(args.dsn)
    if args.json:
        print(json.dumps(rows, default=str, ensure_ascii=False))
        return 0
    for row in rows:
        m = row["metrics"] or {}
        state = "active" if row["active"] else "built-in" if row["builtin"] else ""
        figures = ""
        if isinstance(m.get("ours"), float) and isinstance(m.get("baseline_value"), float):
            figures = f"{m['metric']} {m['ours']:.4f}, {m['baseline']} {m['baseline_value']:.4f}"
        print(
            f"{row['kind']:12} {row['version']:3}  {row['encoder']:14} {state:8}  "
            f"{row['size'] / 1e3:8.1f} kB  {row['created_at']:%Y-%m-%d %H:%M}  {figures}".rstrip()
        )
    return 0


def _model_activate(args: argparse.Namespace) -> int:
    from tinydancer.train import store

    store.activate(args.dsn, args.kind, args.version, force=args.force)
    print(f"model {args.kind} {args.version}: active")
    return 0


def _model_deactivate(args: argparse.Namespace) -> int:
    from tinydancer.train import store

    if not store.deactivate(args.dsn, args.kind):
        print(f"NOTICE:  no model {args.kind} of your own was active", file=sys.stderr)
    return 0


def _model_drop(args: argparse.Namespace) -> int:
    from tinydancer.train import store

    store.drop(args.dsn, args.kind, args.version)
    return 0


def _model_export(args: argparse.Namespace) -> int:
    from tinydancer.train import store

    for path in store.export_model(args.dsn, args.kind, args.version, Path(args.path)):
        print(path)
    return 0


def _model_import(args: argparse.Namespace) -> int:
    from tinydancer.train import store

    kind, version = store.import_model(
        args.dsn, Path(args.path), activated=args.activate, force=args.force
    )
    print(f"model {kind} {version}: {'active' if args.activate else 'stored, not active'}")
    return 0


# ---------------------------------------------------------------- arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def add_commands(commands: Any) -> None:
    """Add ``train`` and ``model`` to the parser of the command line."""
    text = "train a model, or routes, on labelled requests"
    train = commands.add_parser("train", help=text, description=text)
    tasks = train.add_subparsers(title="what to train", metavar="TASK", required=True)
    for task, run, text in (
        ("classifier", _train, "one category for each request"),
        ("capabilities", _train, "any number of capabilities for each request"),
        ("quality", _train, "how good each agent's answer will be"),
        ("routes", _train_routes, "labelled requests as utterances of semantic routes"),
    ):
        one = tasks.add_parser(task, help=text, description=text)
        one.set_defaults(run=run, task=task)
        one.add_argument("--dsn", metavar="URI", help="database to read from and to store in")
        source = one.add_mutually_exclusive_group(required=True)
        source.add_argument("--query", metavar="SQL", help="a SELECT of the labelled rows")
        source.add_argument("--file", metavar="JSONL", help="a file with a JSON object a line")
        one.add_argument("--seed", type=_positive, default=0, metavar="N", help="(default: 0)")
        kept = "keep it" if task == "routes" else "make it active"
        one.add_argument(
            "--activate",
            action=argparse.BooleanOptionalAction,
            default=True,
            help=f"{kept} in the database (default)",
        )
        one.add_argument("--force", action="store_true", help="though it beats no baseline")
        one.add_argument("--json", action="store_true", help="the figures, for programs")
        if task != "routes":
            one.add_argument("--encoder", metavar="NAME", help="(default: the database's)")
            one.add_argument("--out", metavar="FILE", help="write the model file too")
            one.add_argument("--report", metavar="DIR", help="write a report with pictures")

    text = "list, activate, move and drop trained models"
    model = commands.add_parser("model", help=text, description=text)
    actions = model.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str, *, version: bool = False,
        kind: bool = False,
    ) -> argparse.ArgumentParser:  # fmt: skip
        one: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        if kind or version:
            one.add_argument("kind", choices=KINDS)
        if version:
            one.add_argument("version", type=_positive)
        one.add_argument("--dsn", metavar="URI", required=True, help="the database")
        return one

    forced: dict[str, Any] = {"action": "store_true", "help": "though it beats no baseline"}
    one = add("list", _model_list, "the models of a database")
    one.add_argument("--json", action="store_true", help="the facts, for programs")
    one = add("activate", _model_activate, "use a version from now on", version=True)
    one.add_argument("--force", **forced)
    add("deactivate", _model_deactivate, "go back to the built-in model or to none", kind=True)
    one = add("export", _model_export, "write a model to a file", version=True)
    one.add_argument("path", metavar="FILE", help="NAME.safetensors for tensors")
    one = add("import", _model_import, "add a model of a file")
    one.add_argument("path", metavar="FILE")
    one.add_argument("--activate", action="store_true", help="and use it from now on")
    one.add_argument("--force", **forced)
    add("drop", _model_drop, "delete a version that is not active", version=True)
