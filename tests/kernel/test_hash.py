"""XXH64 of the kernel against the specification, and against values published with it."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import xxh64

from tinydancer import _kernels


@pytest.mark.parametrize(
    "data, seed, want",
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"as", 0, 0x1C330FB2D66BE179),
        (b"", 0x9E3779B1, 0xAC75FDA2929B17EF),
    ],
)
def test_hash64_of_published_input_gives_published_value(data: bytes, seed: int, want: int) -> None:
    assert _kernels.hash64(data, seed) == want
    assert xxh64(data, seed) == want


def test_hash64_of_every_length_equals_the_specification(rng: np.random.Generator) -> None:
    data = rng.bytes(130)
    for n in range(len(data) + 1):
        seed = int(rng.integers(0, 1 << 63))
        assert _kernels.hash64(data[:n], seed) == xxh64(data[:n], seed), n


def test_hash64_of_unaligned_bytes_equals_that_of_a_copy(rng: np.random.Generator) -> None:
    data = rng.bytes(200)
    for start in range(16):
        assert _kernels.hash64(memoryview(data)[start:]) == _kernels.hash64(data[start:])


def test_hash64_of_an_array_takes_its_bytes(rng: np.random.Generator) -> None:
    array = rng.normal(size=33).astype(np.float32)
    assert _kernels.hash64(array) == _kernels.hash64(array.tobytes())
