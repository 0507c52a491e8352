"""Reads files of tensors in the format "safetensors", without that package.

The bytes of a file come in, named float32 arrays come out.  Every offset is checked before it is
used; what is read is what the converter of encoders needs.  Called by tinydancer.encoder_convert.

The format: u64 length of a JSON object, the object, then the tensors' bytes.  The object names each
tensor's element type, its shape, and where in those bytes it begins and ends.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.errors import ModelFolderError

__all__ = ["Tensors"]

Buffer = bytes | memoryview

# Element types that weights come in: the NumPy type that holds their bits.
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_MAX_HEADER = 100_000_000  # bytes; the limit of the format's own reader


def _fault(detail: str) -> ModelFolderError:
    return ModelFolderError(
        "file of weights is damaged", detail, "Copy it again from where it came."
    )


class Tensors(Mapping[str, tuple[int, ...]]):
    """The tensors of a file: a mapping of their names to their shapes.

    Raises:
        ModelFolderError: the bytes are not a whole file of this format.
    """

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        size = self._data.nbytes
        if size < 8:
            raise _fault(f"It is {size} bytes long.")
        (length,) = struct.unpack_from("<Q", self._data)
        if length > min(_MAX_HEADER, size - 8):
            raise _fault(f"Its header would take {length} of {size} bytes.")
        try:
            header = json.loads(bytes(self._data[8 : 8 + length]))
        except (ValueError, RecursionError) as error:
            raise _fault(f"Its header is not JSON: {error}.") from None
        if not isinstance(header, dict):
            raise _fault("Its header is not a JSON object.")
        header.pop("__metadata__", None)
        self._start = 8 + length
        self._entries = {name: self._entry(name, entry) for name, entry in header.items()}

    def _entry(self, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
        """Element type, shape and place of a tensor, checked."""
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise _fault(f'Tensor "{name}" is not described.') from None
        numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
        if not isinstance(dtype, str) or not all(type(n) is int and n >= 0 for n in numbers):
            raise _fault(f'Tensor "{name}" is not described.')
        room = self._data.nbytes - self._start
        if begin > end or end > room:
            raise _fault(f'Tensor "{name}" ends at byte {end} of {room}: the file is truncated.')
        element = _FLOATS.get(dtype)
        if element is not None and math.prod(shape) * element.itemsize != end - begin:
            raise _fault(
                f'Tensor "{name}" of shape {shape} and type {dtype} has {end - begin} bytes.'
            )
        return dtype, tuple(shape), begin, end

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._entries[name][1]

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def float32(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor as float32.

        Raises:
            KeyError: there is none of this name.
            ModelFolderError: its elements are no floats, or one is not finite as float32.
        """
        dtype, shape, begin, end = self._entries[name]
        element = _FLOATS.get(dtype)
        if element is None:
            raise ModelFolderError(
                "weights have an element type that cannot be read",
                f'Tensor "{name}" is of type {dtype}; {", ".join(_FLOATS)} can be read.',
                "Save the model in one of these types.",
            )
        raw = np.frombuffer(self._data[self._start + begin : self._start + end], element)
        with np.errstate(over="ignore"):
            values = (raw.astype("<u4") << 16).view("<f4") if dtype == "BF16" else raw.astype("<f4")
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            raise ModelFolderError(
                "weights contain NaN or infinity",
                f'Element {at + 1} of {values.size} of tensor "{name}" is {values[at]}.',
                "Training has diverged, or the file is damaged.",
            )
        return values.reshape(shape)
