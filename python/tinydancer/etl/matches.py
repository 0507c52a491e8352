"""A block of requests becomes a block of matches with semantic routes.

Arrow record batches come in, Arrow record batches of one schema come out: for each request its best
routes, or one row that says why there is none.  The counterpart of ``tinydancer.etl.decide``.
"""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from tinydancer import _kernels
from tinydancer.errors import InvalidInputError
from tinydancer.etl.block import Block, check_fields, key_fields, plain, problems
from tinydancer.etl.columns import MATCH_INPUTS, Roles
from tinydancer.etl.shortlist import MANY_UTTERANCES, Shortlister, is_worthwhile, shortlist
from tinydancer.etl.terms import Arrays
from tinydancer.matcher import RouteMatcher

__all__ = ["MatchDecider"]

NO_ROUTE = "no matching route"


class MatchDecider:
    """Matches blocks of requests with one set of routes, at one time of day.

    Args:
        matcher: the routes.
        top_k: matches of a request at most.
        user_tier: of whoever asks; None: of no tier.
        at: the time that time windows are judged at; None: now.
        many: number of utterances above which faiss shortlists the routes.

    Raises:
        InvalidInputError: for a ``top_k`` below 1.
        ModuleNotFoundError: if faiss is needed and not installed.
    """

    inputs = MATCH_INPUTS

    def __init__(
        self,
        matcher: RouteMatcher,
        *,
        top_k: int = 3,
        user_tier: str | None = None,
        at: datetime.time | None = None,
        many: int = MANY_UTTERANCES,
    ) -> None:
        if top_k < 1:
            raise InvalidInputError("top_k must be at least 1", f"The value is {top_k}.")
        self.matcher = matcher
        self.top_k = top_k
        self.user_tier = user_tier
        self.at = datetime.datetime.now().time() if at is None else at
        self.n_whole = 0
        self._open = np.array(
            [route.is_open(self.at, user_tier) for route in matcher.routes], dtype=np.uint8
        )
        self._shortlister = Shortlister(matcher) if is_worthwhile(matcher, many) else None
        self._names = pa.array([route.name for route in matcher.routes], pa.string())
        self._targets = pa.array([route.target_agent for route in matcher.routes], pa.string())

    @property
    def has_index(self) -> bool:
        """Whether faiss shortlists the routes."""
        return self._shortlister is not None

    def schema(self, roles: Roles, source: pa.Schema) -> pa.Schema:
        """What comes out of batches of a schema."""
        taken = key_fields(roles, source)
        taken += [
            pa.field("rank", pa.int32()),
            pa.field("route_name", pa.string()),
            pa.field("similarity", pa.float64()),
            pa.field("target_agent", pa.string()),
            pa.field("confidence", pa.float64()),
            pa.field("problem", pa.string()),
        ]
        check_fields(taken)
        return pa.schema(taken)

    def block(self, batch: pa.RecordBatch, roles: Roles) -> pa.RecordBatch:
        """Match a batch: one to ``top_k`` rows for each of its rows, in its order.

        Raises:
            InvalidInputError: for a vector or a text that is none, and its subclasses; the detail
                names the row.
        """
        block = Block(batch, roles, self.matcher.encoder)
        view = self.matcher._view
        vectors, status, rounded = _kernels.embed_block(
            block.encoder,
            view.dim,
            texts=block.texts,
            vectors=block.vectors,
            quantised=self.has_index,
        )
        block.raise_failures(status)
        found: Arrays = _kernels.match_block(
            view,
            vectors,
            (status == 0).astype(np.uint8),
            k=self.top_k,
            open=self._open,
            shortlist=shortlist(self._shortlister, rounded),
        )
        self.n_whole += found["n_whole"]
        return self._rows(block, status, found, self.schema(roles, batch.schema))

    def _rows(self, block: Block, status: Any, found: Arrays, schema: pa.Schema) -> pa.RecordBatch:
        counts = np.diff(found["offsets"])
        # A request without a match has a row all the same.
        rows = np.maximum(counts, 1)
        request = np.repeat(np.arange(len(counts)), rows)
        missing = np.repeat(counts == 0, rows)
        rank = np.arange(len(request)) - np.repeat(np.cumsum(rows) - rows, rows) + 1

        def spread(values: Any) -> Any:
            out = np.zeros(len(request), dtype=values.dtype)
            out[~missing] = values
            return out

        route = pa.array(spread(found["route"]).astype(np.int64), mask=missing)
        similarity = np.clip(found["score"].astype(np.float64), -1.0, 1.0)
        columns = []
        for field in key_fields(block.roles, schema):
            columns.append(plain(block.batch.column(field.name)).take(pa.array(request)))
        columns += [
            pa.array(rank.astype(np.int32), mask=missing),
            self._names.take(route),
            pa.array(spread(similarity), mask=missing),
            self._targets.take(route),
            pa.array(spread(found["confidence"]), mask=missing),
            problems(status[request], missing, NO_ROUTE),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def fingerprint(self) -> str:
        """What matches depend on besides request and options, as 64 hexadecimal digits."""
        matcher = self.matcher
        encoder = matcher.encoder
        hashed = hashlib.sha256()
        routes = [
            (one.name, one.target_agent, one.time_start, one.time_end, tuple(one.user_tiers))
            for one in matcher.routes
        ]
        checksum = getattr(encoder, "checksum", None)
        facts = [encoder.id, checksum, matcher.scorer, matcher.mu, matcher.s, routes]
        hashed.update(repr(facts).encode("utf-8", "surrogatepass"))
        for array in (matcher._view.routes, *matcher._view.arrays):
            hashed.update(array.tobytes())
        return hashed.hexdigest()

    def job(self) -> Arrays:
        """What of the decider a cut run must have in common with the one that continues it."""
        return {
            "command": "match",
            "top_k": self.top_k,
            "user_tier": self.user_tier,
            "at": self.at.isoformat(),
        }
