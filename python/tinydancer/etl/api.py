"""Decisions for tables of Python: pyarrow in, pyarrow out.

Tables and streams of record batches come in, decided ones come out, a batch at a time.  The
functions of ``tinydancer.etl`` that people import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from tinydancer.errors import InvalidInputError
from tinydancer.etl.columns import MATCH_INPUTS, Roles, resolve
from tinydancer.etl.decide import Decider
from tinydancer.etl.matches import MatchDecider
from tinydancer.etl.source import BATCH_ROWS
from tinydancer.etl.terms import Options
from tinydancer.matcher import RouteMatcher
from tinydancer.route import Router

__all__ = ["match_table", "route_batches", "route_table"]


def _options(given: dict[str, Any]) -> Options:
    for name in ("required_capabilities", "excluded_agents"):
        if isinstance(given.get(name), str):
            given[name] = (given[name],)
        elif given.get(name) is not None:
            given[name] = tuple(given[name])
    known = Options.__dataclass_fields__
    for name in given:
        if name not in known:
            raise InvalidInputError(
                f'unknown option "{name}"', f"Known options are {', '.join(known)}."
            )
    return Options(**given)


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return iter(table.to_batches(max_chunksize=BATCH_ROWS))


def route_table(
    table: pa.Table,
    router: Router,
    *,
    key: str | None = None,
    request: str | None = None,
    reasoning: bool = False,
    cost_scale: float = 0.001,
    latency_scale: float = 1000.0,
    **options: Any,
) -> pa.Table:
    """Choose an agent for each row of a table, as a join with route_results does.

    Args:
        table: n rows; columns named as the inputs of route_results count for their rows, and a
            NULL in them means what ``options`` say.
        router: the agents.
        key: column that goes into the result; None: the first one, if it is no input.
        request: column of texts; None: "request".
        reasoning: whether a column of sentences is wanted.
        cost_scale: USD at which cost_utility is 0.5.
        latency_scale: ms at which latency_utility is 0.5.
        options: objective and limits of all rows, as ``Router.route`` takes them.

    Returns:
        n rows in the order of the table: the key, the columns of route_results, and "problem",
        which says why a row has no decision.

    Raises:
        InvalidInputError: for a column that is missing or of a wrong type, or a value that is none.
    """
    roles = resolve(table.schema.names, key=key, request=request, needs_key=False)
    decider = Decider(
        router,
        _options(options),
        reasoning=reasoning,
        cost_scale=cost_scale,
        latency_scale=latency_scale,
    )
    schema = decider.schema(roles, table.schema)
    batches = [decider.block(batch, roles) for batch in _batches(table.select(roles.columns))]
    return pa.Table.from_batches(batches, schema)


def route_batches(
    batches: pa.RecordBatchReader | Iterable[pa.RecordBatch],
    router: Router,
    *,
    schema: pa.Schema | None = None,
    key: str | None = None,
    request: str | None = None,
    reasoning: bool = False,
    cost_scale: float = 0.001,
    latency_scale: float = 1000.0,
    **options: Any,
) -> pa.RecordBatchReader:
    """Choose agents for a stream of record batches, one batch at a time.

    Args:
        batches: a reader, or batches of one schema.
        router: the agents.
        schema: of the batches, where they come from no reader.
        key: as for ``route_table``, and so are all the others.
        request: see ``route_table``.
        reasoning: see ``route_table``.
        cost_scale: see ``route_table``.
        latency_scale: see ``route_table``.
        options: see ``route_table``.

    Returns:
        A reader whose batches are decided when they are read.

    Raises:
        InvalidInputError: as ``route_table`` does; for a value, when its batch is read.
    """
    if schema is None:
        if not isinstance(batches, pa.RecordBatchReader):
            raise InvalidInputError(
                "batches have no schema", None, "Pass schema=, or a pyarrow.RecordBatchReader."
            )
        schema = batches.schema
    roles: Roles = resolve(schema.names, key=key, request=request, needs_key=False)
    decider = Decider(
        router,
        _options(options),
        reasoning=reasoning,
        cost_scale=cost_scale,
        latency_scale=latency_scale,
    )
    decided = (decider.block(batch.select(roles.columns), roles) for batch in batches)
    return pa.RecordBatchReader.from_batches(decider.schema(roles, schema), decided)


def match_table(
    table: pa.Table,
    matcher: RouteMatcher,
    *,
    key: str | None = None,
    request: str | None = None,
    **options: Any,
) -> pa.Table:
    """Find the semantic routes of each row of a table, as ruvector_semantic_route() does.

    Args:
        table: n rows with a column "request" or "embedding".
        matcher: the routes.
        key: see ``route_table``.
        request: see ``route_table``.
        options: ``top_k``, ``user_tier``, ``at`` and ``many``, as ``MatchDecider`` takes them.

    Returns:
        For each row, in its order, its matches, best first, or one row that says why there is none.

    Raises:
        InvalidInputError: for a column that is missing or of a wrong type, or a value that is none.
    """
    roles = resolve(
        table.schema.names, key=key, request=request, inputs=MATCH_INPUTS, needs_key=False
    )
    decider = MatchDecider(matcher, **options)
    schema = decider.schema(roles, table.schema)
    batches = [decider.block(batch, roles) for batch in _batches(table.select(roles.columns))]
    return pa.Table.from_batches(batches, schema)
