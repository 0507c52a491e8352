"""What this machine can do at most: read so many bytes, multiply and add so many numbers.

In: nothing but a compiler; bench/floor.c and bench/peak.c are built into build/bench.  Out:
functions that read an array, or do a number of multiply-adds in registers, as fast as one thread
can.  bench/kernels.py and the encoders time them in turns with what they measure.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from figures import ROOT, Figure, compared

BUILD = ROOT / "build" / "bench"

Array = npt.NDArray[Any]
Call = Callable[[], object]


def build(name: str, *options: str) -> ctypes.CDLL:
    """The library of a C file of this folder."""
    BUILD.mkdir(parents=True, exist_ok=True)
    source, out = Path(__file__).with_name(f"{name}.c"), BUILD / f"{name}.so"
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", *options, "-shared", "-fPIC"]
    subprocess.run([*command, str(source), "-o", str(out), "-lm"], check=True)
    return ctypes.CDLL(str(out))


@functools.cache
def floor() -> ctypes.CDLL:
    """Reading, and loops as one writes them."""
    return build("floor")


@functools.cache
def peak() -> ctypes.CDLL:
    """Multiply-adds."""
    library = build("peak", "-march=native")
    library.peak_f32.restype = library.peak_i8.restype = ctypes.c_uint64
    return library


def address(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def aligned(array: Array) -> Array:
    """A copy that starts at a multiple of 64, as the product's arrays do."""
    room = np.empty(array.nbytes + 63, dtype=np.uint8)
    start = -room.ctypes.data % 64
    result = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def reader(array: Array, times: int = 1) -> Call:
    """Reads the array so many times."""
    size = array.nbytes // 256 * 256
    read = floor().floor_read
    arguments = address(array), ctypes.c_size_t(size), ctypes.c_size_t(times)
    return lambda: (read(*arguments), array)


def multiplier(kind: str, products: float, times: int = 1) -> Call:
    """Does so many multiply-adds of one kind, "f32" or "i8", so many times."""
    run = getattr(peak(), f"peak_{kind}")
    turns = ctypes.c_size_t(max(1, round(products * times / run(1))))
    return lambda: run(turns)


def bounds(
    area: str,
    name: str,
    unit: str,
    seen: dict[str, list[float]],
    what: str,
    others: Sequence[tuple[str, str]],
) -> list[Figure]:
    """Ours by each bound, with its goal; the bound that takes longest is the physical floor."""
    highest = max((bound for bound, _ in others), key=lambda bound: float(np.median(seen[bound])))
    result = []
    for bound, goal in others:
        baseline = (bound, seen[bound])
        one = compared(area, name, seen[what], unit, baseline, goal, bound == highest)
        one.drawn = one.floor or goal != ""
        result.append(one)
    return result
