"""Decisions as tables and files, for many rows at a time.

    from tinydancer import Router
    from tinydancer.etl import route_table

    decisions = route_table(requests, Router.demo(), max_cost=0.01)

``requests`` is a pyarrow.Table with a column "request" or "embedding"; what its columns may say for
each row is in ``tinydancer.etl.columns``.  Decisions are those of route_results, to the bit.  The
command ``tinydancer etl`` reads queries and files and writes files and tables; see docs/etl.md.

Needs the extra: pip install tinydancer[etl].  Names are imported when they are used, so that the
command line can ask for the arguments of ``tinydancer etl`` without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinydancer.etl.api import match_table, route_batches, route_table
    from tinydancer.etl.decide import Decider
    from tinydancer.etl.matches import MatchDecider
    from tinydancer.etl.runner import Outcome, run
    from tinydancer.etl.source_file import FileSource
    from tinydancer.etl.source_query import QuerySource
    from tinydancer.etl.table import TableTarget
    from tinydancer.etl.target import FileTarget, JobChangedError, OutputError
    from tinydancer.etl.terms import Options

__all__ = [
    "Decider",
    "FileSource",
    "FileTarget",
    "JobChangedError",
    "MatchDecider",
    "Options",
    "Outcome",
    "OutputError",
    "QuerySource",
    "TableTarget",
    "match_table",
    "route_batches",
    "route_table",
    "run",
]

_HOMES = {
    "api": ("match_table", "route_batches", "route_table"),
    "decide": ("Decider",),
    "matches": ("MatchDecider",),
    "runner": ("Outcome", "run"),
    "source_file": ("FileSource",),
    "source_query": ("QuerySource",),
    "table": ("TableTarget",),
    "terms": ("Options",),
    "target": ("FileTarget", "JobChangedError", "OutputError"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"tinydancer.etl.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
