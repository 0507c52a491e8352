"""One run: requests are read, decided and written, with a progress bar, and can be continued.

A source, a decider and a target come in; figures of what was done come out.  Rows are decided in
batches and written in parts; a part is the unit that a cut run keeps or loses.  Called by the
command line and by whoever runs an ETL from Python.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from tinydancer.etl.columns import Roles
from tinydancer.etl.source import Place, Source
from tinydancer.etl.target import Target

__all__ = ["PART_ROWS", "BlockDecider", "Outcome", "run"]

# Requests of a part: one row group of a Parquet file, and what is done again after a cut.
PART_ROWS = 131_072


class BlockDecider(Protocol):
    """``decide.Decider`` or ``matches.MatchDecider``."""

    def schema(self, roles: Roles, source: pa.Schema) -> pa.Schema:
        """What comes out of batches of a schema."""

    def block(self, batch: pa.RecordBatch, roles: Roles) -> pa.RecordBatch:
        """Decide a batch."""

    def fingerprint(self) -> str:
        """What answers depend on besides request and options."""

    def job(self) -> dict[str, Any]:
        """What of the decider a run that continues must have in common."""


@dataclass
class Outcome:
    """What a run has done.

    Attributes:
        output: where the decisions are.
        rows: requests, those of cut runs before it included.
        earlier: how many of them cut runs had done.
        problems: how many of this run have no answer, by reason.
        seconds: of this run.
    """

    output: str
    rows: int = 0
    earlier: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rows_per_second(self) -> float:
        """Of this run."""
        return (self.rows - self.earlier) / self.seconds if self.seconds > 0 else 0.0

    def count(self, problem: pa.Array) -> None:
        """Count the reasons of a batch."""
        for one in pc.value_counts(problem.drop_null()).to_pylist():
            self.problems[one["values"]] = self.problems.get(one["values"], 0) + one["counts"]


@contextmanager
def _progress(total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar with rate and remaining time on standard error; how far it is goes to the function."""
    if not shown:
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} requests/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("requests", total=total)

        def advance(n: int) -> None:
            # A planner's estimate is one.
            known = bar.tasks[0].total
            if known is not None and n > known:
                bar.update(task, total=None)
            bar.update(task, completed=n)

        yield advance


def run(
    source: Source,
    decider: BlockDecider,
    target: Target,
    *,
    part_rows: int = PART_ROWS,
    any_registry: bool = False,
    progress: bool = False,
) -> Outcome:
    """Decide all requests of a source, or those that a cut run has left.

    Args:
        source: where requests come from.
        decider: what decides.
        target: where decisions go; it is closed in any case.
        part_rows: requests between two points from which a cut run can be continued.
        any_registry: continue a run that was begun with another registry.
        progress: show a bar.

    Raises:
        JobChangedError: if the run that was cut was another one.
        TinyDancerError: for a row that cannot be decided, or an output that cannot be written.
        psycopg.Error: if a connection is cut.
    """
    began = time.monotonic()
    outcome = Outcome(target.name)
    try:
        job = {"source": dict(source.job()), **decider.job()}
        after = target.resume(job, decider.fingerprint(), any_registry)
        outcome.rows = outcome.earlier = 0 if after is None else after[0]
        total = source.n_rows(after)
        schema = decider.schema(source.roles, source.schema)
        with _progress(None if total is None else total + outcome.earlier, progress) as advance:
            _loop(source, decider, target, schema, after, part_rows, outcome, advance)
        target.finish(schema)
        outcome.seconds = time.monotonic() - began
        return outcome
    finally:
        target.close()


def _loop(
    source: Source,
    decider: BlockDecider,
    target: Target,
    schema: pa.Schema,
    after: Place | None,
    part_rows: int,
    outcome: Outcome,
    advance: Callable[[int], None],
) -> None:
    waiting: list[pa.RecordBatch] = []
    kept = outcome.rows
    place: Place = (0, None)

    def keep() -> None:
        nonlocal kept
        if waiting:
            target.write(pa.Table.from_batches(waiting, schema).combine_chunks(), place)
            waiting.clear()
            kept = outcome.rows

    advance(outcome.rows)
    for batch in source.batches(after):
        for at in range(0, batch.num_rows, part_rows):
            piece = batch.slice(at, part_rows)
            answers = decider.block(piece, source.roles)
            outcome.count(answers.column("problem"))
            waiting.append(answers)
            outcome.rows += piece.num_rows
            place = (outcome.rows, piece.column(0)[-1].as_py())
            if outcome.rows - kept >= part_rows:
                keep()
        advance(outcome.rows)
    keep()


def describe(outcome: Outcome, kept: Mapping[str, Any] | None = None) -> str:
    """One line for people."""
    facts = [f"{outcome.rows:,} requests"]
    if outcome.earlier:
        facts.append(f"{outcome.earlier:,} of them in an earlier run")
    facts += [f"{n:,} {problem}" for problem, n in sorted(outcome.problems.items())]
    facts.append(f"{outcome.rows_per_second:,.0f} requests/s")
    return f"{outcome.output}: " + ", ".join(facts)


def is_terminal() -> bool:
    """Whether somebody looks at standard error."""
    return sys.stderr.isatty()
