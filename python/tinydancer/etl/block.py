"""The requests of a record batch as the kernel takes them, and what their answers have in common.

Columns of Arrow come in, NumPy views of their buffers come out; texts are not copied.  Used by
``tinydancer.etl.decide`` and ``tinydancer.etl.matches``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinydancer import _kernels
from tinydancer.errors import DimensionError, InvalidInputError, error_for_status
from tinydancer.etl.columns import Roles, wrong_type

__all__ = [
    "BLANK_REQUEST",
    "NO_REQUEST",
    "Block",
    "check_fields",
    "is_list",
    "is_text",
    "key_fields",
    "plain",
    "problems",
    "text_buffers",
    "valid_rows",
]

# TD_ERR_EMPTY.
_BLANK = 5

# Why a request has no decision.
NO_REQUEST = "no request"
BLANK_REQUEST = "blank request"


def is_text(kind: pa.DataType) -> bool:
    """Whether an array holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether an array holds lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def plain(array: pa.Array) -> pa.Array:
    """A dictionary or a view of texts as the texts."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.cast(kind.value_type))
    if str(kind) == "string_view":
        return array.cast(pa.string())
    return array


def valid_rows(array: pa.Array) -> npt.NDArray[np.uint8]:
    """Which rows are not NULL."""
    return pc.is_valid(array).to_numpy(zero_copy_only=False).astype(np.uint8)


def text_buffers(array: pa.Array) -> tuple[Any, Any, Any]:
    """Bytes, offsets and validity of texts; the bytes are those of the array."""
    width = np.int64 if pa.types.is_large_string(array.type) else np.int32
    _, offsets, data = array.buffers()
    ends = np.zeros(1, dtype=np.int64)
    if offsets is not None and len(array):
        found = np.frombuffer(offsets, dtype=width)
        ends = found[array.offset : array.offset + len(array) + 1].astype(np.int64)
    content = np.zeros(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)
    return content, ends, valid_rows(array)


def _vectors(
    array: pa.Array, dim: int, name_row: Callable[[int], str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Rows of float32, zeros for NULL, and validity."""
    valid = valid_rows(array)
    rows = np.zeros((len(array), dim), dtype=np.float32)
    lengths = pc.fill_null(pc.list_value_length(array), dim).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != dim)
    if wrong.size:
        raise DimensionError(
            _kernels.status_text(3),
            f"The encoder makes {dim}, {name_row(int(wrong[0]))} has {lengths[wrong[0]]}.",
            "Pass vectors of the encoder that the registry's were made with.",
        )
    # list_flatten leaves NULL lists out, also where they have elements beneath.
    flat = pc.list_flatten(array)
    if flat.null_count:
        rest = np.flatnonzero(~pc.is_valid(flat).to_numpy(zero_copy_only=False))
        row = int(np.flatnonzero(valid)[rest[0] // dim])
        raise InvalidInputError(
            "vector must not contain NULL", f"That of {name_row(row)} does.", "Pass real numbers."
        )
    values = flat.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    rows[valid.astype(bool)] = values.reshape(-1, dim)
    return rows, valid


class Block:
    """The requests of a batch as the kernel takes them."""

    def __init__(self, batch: pa.RecordBatch, roles: Roles, encoder: Any) -> None:
        self.batch = batch
        self.roles = roles
        self.texts: Any = None
        self.vectors: Any = None
        self.array: pa.Array | None = None
        n = batch.num_rows
        if roles.request is not None:
            self.array = plain(batch.column(roles.request))
            if pa.types.is_null(self.array.type):
                self.array = self.array.cast(pa.string())
            if not is_text(self.array.type):
                raise wrong_type(roles.request, str(self.array.type), "text")
            self.texts = text_buffers(self.array)
        if "embedding" in roles.inputs:
            column = batch.column("embedding")
            if pa.types.is_null(column.type):
                column = pa.nulls(n, pa.list_(pa.float32()))
            if not (is_list(column.type) and _is_number(column.type.value_type)):
                raise wrong_type("embedding", str(column.type), "vector")
            self.vectors = _vectors(column, encoder.dim, self.name_row)
        # What makes vectors, or only counts word pieces where callers pass every vector.
        self.encoder = getattr(encoder, "words", encoder) if self.texts is not None else None
        if self.texts is not None and hasattr(encoder, "words"):
            given = np.zeros(n, dtype=np.uint8) if self.vectors is None else self.vectors[1]
            if (self.texts[2] > given).any():
                encoder.embed_info("")
            if self.encoder is None:
                # Nothing here counts word pieces either: a text costs nothing beside its vector.
                self.texts = None
                if self.vectors is None:
                    self.vectors = np.zeros((n, encoder.dim), dtype=np.float32), given

    def name_row(self, row: int) -> str:
        """The words for a row in an error."""
        if self.roles.key is None:
            return f"row {row + 1}"
        return f"the row with {self.roles.key} {self.batch.column(self.roles.key)[row]}"

    def raise_failures(self, status: npt.NDArray[np.int32]) -> None:
        """Raise for the first request that is neither absent nor blank and has no vector."""
        failed = np.flatnonzero((status > 0) & (status != _BLANK))
        if failed.size:
            number = int(status[failed[0]])
            raise error_for_status(
                number,
                _kernels.status_text(number),
                f"It is in {self.name_row(int(failed[0]))}.",
                "Correct the row, or leave it out of the query.",
            )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))


def problems(
    status: npt.NDArray[np.int32], missing: npt.NDArray[np.bool_], why: str | None
) -> pa.Array:
    """Why requests have no answer, NULL where they have one."""
    codes = np.full(len(status), 3, dtype=np.int8)
    codes[missing] = 2
    codes[status == _kernels.NO_REQUEST] = 0
    codes[status == _BLANK] = 1
    words = pa.array([NO_REQUEST, BLANK_REQUEST, why, None], pa.string())
    return words.take(pa.array(codes))


def key_fields(roles: Roles, schema: pa.Schema) -> list[pa.Field]:
    """The key's field in an output, if there is a key."""
    if roles.key is None:
        return []
    kind = schema.field(roles.key).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return [pa.field(roles.key, kind)]


def check_fields(taken: list[pa.Field]) -> None:
    """Raise where the key has the name of an output."""
    names = [field.name for field in taken]
    if names.count(names[0]) > 1:
        raise InvalidInputError(
            f'the key cannot be called "{names[0]}"',
            "A column of the decisions has this name.",
            "Give it another one: SELECT x AS id, ...",
        )
