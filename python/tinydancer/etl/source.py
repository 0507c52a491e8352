"""What requests come from; ``source_query`` and ``source_file`` are the two kinds.

A place to begin comes in, Arrow record batches in a fixed order come out, a few thousand rows at a
time, so that a source of any size takes the same memory.  A query is ordered by its key and
continued behind the last one that was done; a file is continued behind the last row.  Called by
``tinydancer.etl.runner``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pyarrow as pa

from tinydancer.errors import InvalidInputError
from tinydancer.etl.columns import Roles

__all__ = ["ARROW_TYPES", "BATCH_BYTES", "BATCH_ROWS", "Place", "Source", "null_key", "rows_within"]

# Rows of a batch: what a call of the kernel costs is then nothing, and memory is little.
BATCH_ROWS = 8192

# Bytes of a batch, about: of long texts there are fewer in one.
BATCH_BYTES = 32 << 20

# What each kind of input is in Arrow.
ARROW_TYPES: Mapping[str, pa.DataType] = {
    "number": pa.float64(),
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "vector": pa.list_(pa.float32()),
}

# How far a run has come: rows that are done, and the last of their keys.
Place = tuple[int, Any]


class Source(Protocol):
    """What requests are read from."""

    roles: Roles
    schema: pa.Schema

    def job(self) -> Mapping[str, Any]:
        """What of the source a cut run must have in common with the one that continues it."""

    def n_rows(self, after: Place | None) -> int | None:
        """About how many rows there are behind a place, None: unknown."""

    def batches(self, after: Place | None) -> Iterator[pa.RecordBatch]:
        """Rows behind a place, None: all."""


def null_key(name: str) -> InvalidInputError:
    """The error for a row without a key."""
    return InvalidInputError(
        f'key "{name}" is NULL',
        "A row without a key could not be found again in the output.",
        f"Leave such rows out, WHERE {name} IS NOT NULL, or take another key with --key.",
    )


def rows_within(n_bytes: int, n_rows: int) -> int:
    """How many rows make a batch, where ``n_rows`` take ``n_bytes``."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * n_rows // max(n_bytes, 1)))
