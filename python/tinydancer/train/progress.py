"""Progress of training: epoch, loss, validation metric, rate and remaining time.

Trainers call ``start`` and ``step``; ``Progress`` says nothing, ``shown()`` gives a bar on a
terminal and ``Progress`` elsewhere.  Used by the trainers and the command line.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["Progress", "shown"]


class Progress:
    """A listener that says nothing; others derive from it."""

    def start(self, name: str, steps: int) -> None:
        """A stage of so many steps begins; the one before it has ended."""

    def step(
        self, loss: float | None = None, metric: float | None = None, rows: int | None = None
    ) -> None:
        """A step of the stage is done.

        Args:
            loss: on the training rows.
            metric: on the validation rows.
            rows: how many rows were worked on, for the rate.
        """


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """A bar on standard error while the block runs, nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )

    class Shown(Progress):
        def __init__(self) -> None:
            self._task: TaskID | None = None

        def start(self, name: str, steps: int) -> None:
            self._finish()
            self._task = bars.add_task(name, total=steps, figures="")

        def step(
            self, loss: float | None = None, metric: float | None = None, rows: int | None = None
        ) -> None:
            if self._task is None:
                return
            task = next(one for one in bars.tasks if one.id == self._task)
            figures = []
            if loss is not None:
                figures.append(f"loss {loss:.4f}")
            if metric is not None:
                figures.append(f"validation {metric:.4f}")
            if rows is not None and task.elapsed:
                figures.append(f"{rows * (task.completed + 1) / task.elapsed:,.0f} rows/s")
            bars.update(self._task, advance=1, figures="  ".join(figures))

        def _finish(self) -> None:
            if self._task is not None:
                # Early stopping leaves steps over.
                task = next(one for one in bars.tasks if one.id == self._task)
                bars.update(self._task, total=task.completed)

    with bars:
        yield Shown()
