"""The command ``tinydancer etl route | match``: its arguments, and what they mean.

Arguments come in; a run of ``tinydancer.etl.runner`` comes out, with a line about it on standard
output. Called by tinydancer.cli, which words errors.  Nothing here is imported before the command
runs but argparse, so that the other commands work without the extra.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tinydancer.errors import InvalidInputError, TinyDancerError

if TYPE_CHECKING:
    import psycopg

    from tinydancer.etl.runner import BlockDecider, Outcome
    from tinydancer.etl.source import Source
    from tinydancer.etl.target import Target

TABLE = "table:"


def add_commands(commands: Any) -> None:
    """Add ``etl`` to the commands of the program."""
    text = "decide for the rows of a query or a file, into a file or a table"
    etl = commands.add_parser("etl", help=text, description=text)
    parts = etl.add_subparsers(title="commands", metavar="COMMAND", required=True)

    text = "choose an agent for each row"
    route = parts.add_parser("route", help=text, description=text)
    _common(route)
    route.add_argument("--agents", metavar="FILE", help="a registry in JSON, without a server")
    route.add_argument("--optimize-for", metavar="TARGET", help="cost, latency, quality ...")
    route.add_argument("--require", metavar="CAPABILITY", action="append", default=None)
    route.add_argument("--exclude", metavar="AGENT", action="append", default=None)
    for name, unit in (
        ("max-cost", "USD"),
        ("max-latency-ms", "MS"),
        ("min-quality", "0..1"),
        ("min-expected-quality", "0..1"),
        ("budget-remaining", "USD"),
    ):
        route.add_argument(f"--{name}", type=float, metavar=unit)
    route.add_argument("--pool", metavar="NAME")
    route.add_argument(
        "--reasoning", action="store_true", help="write a sentence for each decision"
    )
    route.set_defaults(run=_route)

    text = "find the semantic routes of each row"
    match = parts.add_parser("match", help=text, description=text)
    _common(match)
    match.add_argument("--top-k", type=int, default=3, metavar="N", help="matches of a row at most")
    match.add_argument("--user-tier", metavar="TIER")
    match.add_argument("--at", metavar="HH:MM", help="time of day that routes are open at")
    match.set_defaults(run=_match)


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dsn", help="server with the registry: a URI or libpq's keywords")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--query", metavar="SELECT", help="key, request and limits of each row")
    where.add_argument("--in", dest="file", metavar="FILE", help="a .parquet, .csv or .jsonl file")
    command.add_argument(
        "--out", required=True, metavar="OUT", help="a .parquet or .csv file, or table:NAME"
    )
    command.add_argument("--out-dsn", metavar="DSN", help="server of the table (default: --dsn)")
    command.add_argument("--key", metavar="COLUMN", help="unique column (default: the first)")
    command.add_argument("--request", metavar="COLUMN", help="column of texts (default: request)")
    command.add_argument("--encoder", metavar="NAME", help="without a server: a name or a file")
    command.add_argument(
        "--part-rows", type=int, metavar="N", help="rows that a cut run loses at most"
    )
    command.add_argument("--restart", action="store_true", help="forget what a cut run has done")
    command.add_argument(
        "--any-registry", action="store_true", help="continue although the registry has changed"
    )
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.add_argument("--json", action="store_true", help="the figures, for programs")


@contextmanager
def _snapshot(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in the one transaction that sees registry and rows as they are now."""
    import psycopg

    from tinydancer import db

    try:
        conn = db.connect(dsn)
    except LookupError as error:
        raise InvalidInputError(
            str(error.args[0]), None, "Run CREATE EXTENSION tinydancer CASCADE in it."
        ) from None
    with conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.read_only = True
        with conn.transaction():
            yield conn


def _needs(args: argparse.Namespace, offline: bool) -> None:
    if args.dsn is None and args.query is not None:
        raise InvalidInputError(
            "a query needs a server", None, "Pass --dsn, or read a file with --in."
        )
    if args.dsn is None and not offline:
        raise InvalidInputError(
            "there is no registry", None, "Pass --dsn, or a registry in JSON with --agents."
        )
    if args.part_rows is not None and args.part_rows < 1:
        raise InvalidInputError("--part-rows must be at least 1", f"It is {args.part_rows}.")


def _target(args: argparse.Namespace) -> Target:
    if not args.out.startswith(TABLE):
        from tinydancer.etl.target import FileTarget

        return FileTarget(args.out, restart=args.restart)
    import psycopg

    from tinydancer.etl.table import TableTarget

    dsn = args.out_dsn or args.dsn
    if dsn is None:
        raise InvalidInputError("a table needs a server", None, "Pass --out-dsn.")
    conn = psycopg.connect(dsn, autocommit=True)
    try:
        return TableTarget(conn, args.out.removeprefix(TABLE), restart=args.restart)
    except BaseException:
        conn.close()
        raise


def _source(args: argparse.Namespace, conn: Any, inputs: Any) -> Source:
    from tinydancer.etl.source_file import FileSource
    from tinydancer.etl.source_query import QuerySource

    if args.query is None:
        return FileSource(args.file, key=args.key, request=args.request, inputs=inputs)
    return QuerySource(conn, args.query, key=args.key, request=args.request, inputs=inputs)


def _run(
    args: argparse.Namespace,
    make: Callable[[Any, Any], BlockDecider],
    inputs: Any,
) -> int:
    from tinydancer.etl import runner

    with ExitStack() as stack:
        conn = None if args.dsn is None else stack.enter_context(_snapshot(args.dsn))
        source = _source(args, conn, inputs)
        target = _target(args)
        stack.callback(target.close)
        decider = make(conn, target.before)
        outcome = _reported(
            args,
            lambda: runner.run(
                source,
                decider,
                target,
                part_rows=args.part_rows or runner.PART_ROWS,
                any_registry=args.any_registry,
                progress=not args.quiet and runner.is_terminal(),
            ),
        )
    if args.json:
        facts = dict(vars(outcome), rows_per_second=round(outcome.rows_per_second))
        print(json.dumps(facts))
    else:
        print(runner.describe(outcome))
    return 0


def _reported(args: argparse.Namespace, work: Callable[[], Outcome]) -> Outcome:
    """Run, and say of a run that was cut how it is continued."""
    from tinydancer.etl.target import JobChangedError

    try:
        return work()
    except JobChangedError:
        raise
    except BaseException:
        print(
            f'NOTICE:  "{args.out}" is not whole; the same command continues it',
            file=sys.stderr,
        )
        raise


def _route(args: argparse.Namespace) -> int:
    from tinydancer.encoder import Encoder
    from tinydancer.etl.columns import INPUTS
    from tinydancer.etl.decide import Decider
    from tinydancer.etl.terms import Options
    from tinydancer.registry import read_router, read_scales
    from tinydancer.route import Router

    _needs(args, args.agents is not None)
    if args.agents is not None and args.encoder is None:
        args.encoder = "static"
    options = Options(
        optimize_for=args.optimize_for,
        required_capabilities=None if args.require is None else tuple(args.require),
        max_cost=args.max_cost,
        max_latency_ms=args.max_latency_ms,
        min_quality=args.min_quality,
        excluded_agents=None if args.exclude is None else tuple(args.exclude),
        budget_remaining=args.budget_remaining,
        pool=args.pool,
        min_expected_quality=args.min_expected_quality,
    )

    def make(conn: Any, before: Any) -> BlockDecider:
        if args.agents is not None:
            router = Router.from_json(args.agents, Encoder.load(args.encoder))
            return Decider(router, options, reasoning=args.reasoning)
        if args.encoder is not None:
            raise InvalidInputError("--encoder goes with --agents", "A server has its own encoder.")
        cost_scale, latency_scale = read_scales(conn)
        return Decider(
            read_router(conn),
            options,
            reasoning=args.reasoning,
            cost_scale=cost_scale,
            latency_scale=latency_scale,
        )

    return _run(args, make, INPUTS)


def _match(args: argparse.Namespace) -> int:
    from tinydancer.etl.columns import MATCH_INPUTS
    from tinydancer.etl.matches import MatchDecider
    from tinydancer.registry_routes import read_matcher

    _needs(args, False)
    if args.encoder is not None:
        raise InvalidInputError("--encoder goes with --agents", "A server has its own encoder.")
    if args.at is not None:
        try:
            at = datetime.time.fromisoformat(args.at)
        except ValueError:
            raise TinyDancerError(f'"{args.at}" is no time of day', None, "Write HH:MM.") from None

    def make(conn: Any, before: Any) -> BlockDecider:
        # A run that continues judges at the time at which it began.
        if args.at is not None:
            time = at
        elif before is not None and "at" in before:
            time = datetime.time.fromisoformat(before["at"])
        else:
            row = conn.execute("SELECT localtime").fetchone()
            time = row[0]
        return MatchDecider(read_matcher(conn), top_k=args.top_k, user_tier=args.user_tier, at=time)

    return _run(args, make, MATCH_INPUTS)
