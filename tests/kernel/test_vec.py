"""Dot products, lengths, cosines and quantisation: against float64, at every length, and with the
same bits whatever the compiler's optimisation."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import quantise

from tinydancer import _kernels
from tinydancer.errors import NonFiniteError, ShapeError

ROOT = Path(__file__).resolve().parents[2]


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def lanes_dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    """The documented order: sixteen lanes, then halves, all in float32."""
    lane = np.zeros(16, dtype=np.float32)
    for i in range(len(a)):
        lane[i % 16] += a[i] * b[i]
    for half in (8, 4, 2, 1):
        lane[:half] += lane[half : 2 * half]
    return np.float32(lane[0])


def test_dot_of_every_length_follows_the_documented_order(rng: np.random.Generator) -> None:
    for n in [*range(70), 128, 384, 768, 1001]:
        a, b = floats(rng, n), floats(rng, n)
        assert np.float32(_kernels.dot(a, b)) == lanes_dot(a, b), n


def test_dot_of_long_vectors_is_near_float64(rng: np.random.Generator) -> None:
    a, b = floats(rng, 4096), floats(rng, 4096)
    # Sums of 256 terms in a lane, then four levels: at most 260 roundings of the sum of magnitudes.
    bound = 260 * 2.0**-24 * float(np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    assert abs(_kernels.dot(a, b) - float(a.astype(np.float64) @ b.astype(np.float64))) <= bound


def test_norm_of_extreme_values_neither_overflows_nor_underflows() -> None:
    assert _kernels.norm(np.array([3e30, 4e30], dtype=np.float32)) == pytest.approx(5e30, rel=1e-6)
    assert _kernels.norm(np.array([3e-40, 4e-40], dtype=np.float32)) == pytest.approx(
        5e-40, rel=1e-4
    )
    assert _kernels.norm(np.zeros(0, dtype=np.float32)) == 0.0


def test_cosine_of_random_vectors_equals_float64(rng: np.random.Generator) -> None:
    for n in (1, 2, 15, 16, 17, 384):
        a, b = floats(rng, n), floats(rng, n)
        x, y = a.astype(np.float64), b.astype(np.float64)
        want = float(x @ y / np.sqrt(x @ x) / np.sqrt(y @ y))
        assert _kernels.cosine(a, b) == pytest.approx(want, abs=1e-7)


def test_cosine_of_special_vectors_is_clamped_and_defined(rng: np.random.Generator) -> None:
    a = floats(rng, 384)
    assert _kernels.cosine(a, a) == 1.0
    assert _kernels.cosine(a, -a) == -1.0
    assert _kernels.cosine(a, np.zeros_like(a)) == 0.0
    huge = np.full(8, 3e38, dtype=np.float32)
    assert _kernels.cosine(huge, huge) == pytest.approx(1.0)


def test_normalise_of_any_scale_gives_unit_length(rng: np.random.Generator) -> None:
    for scale in (1e-42, 1e-20, 1.0, 1e20, 3e37):
        a = (floats(rng, 257).clip(-3, 3) * scale).astype(np.float32)
        before = a.copy()
        unit = _kernels.normalise(a)
        assert np.linalg.norm(unit.astype(np.float64)) == pytest.approx(1.0, abs=1e-6)
        assert (a == before).all()
    assert (_kernels.normalise(np.zeros(5, dtype=np.float32)) == 0).all()
    assert _kernels.normalise(np.zeros(0, dtype=np.float32)).shape == (0,)


def test_normalise_of_a_unit_vector_keeps_its_bits(rng: np.random.Generator) -> None:
    for n in (1, 2, 3, 5, 16, 128):
        for _ in range(200):
            once = _kernels.normalise(floats(rng, n))
            assert _kernels.normalise(once).tobytes() == once.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 16, 20])
def test_vectors_with_nan_or_infinity_are_refused(value: float, place: int) -> None:
    a = np.ones(21, dtype=np.float32)
    a[place] = value
    good = np.ones(21, dtype=np.float32)
    for call in (
        lambda: _kernels.normalise(a),
        lambda: _kernels.quantise(a),
        lambda: _kernels.cosine(a, good),
        lambda: _kernels.cosine(good, a),
    ):
        with pytest.raises(NonFiniteError, match="vector contains NaN or infinity") as caught:
            call()
        assert f"Element {place + 1} of 21" in str(caught.value)


def test_quantise_of_random_vectors_equals_the_oracle(rng: np.random.Generator) -> None:
    for n in [*range(1, 40), 128, 384]:
        a = floats(rng, n)
        q, scale = _kernels.quantise(a)
        want, want_scale = quantise(a)
        assert scale == want_scale
        assert (q == want).all()
        assert np.abs(q).max() == 127
        assert np.abs(q * scale - a).max() <= scale * 0.5000001


def test_quantise_of_ties_rounds_to_even() -> None:
    q, scale = _kernels.quantise(np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], dtype=np.float32))
    assert scale == 1.0
    assert q.tolist() == [127, 0, 2, 2, 0, -2, -2]


def test_quantise_of_zeros_and_subnormals_stays_in_range() -> None:
    q, scale = _kernels.quantise(np.zeros(9, dtype=np.float32))
    assert scale == 0.0 and not q.any()
    least = np.float32(1e-45)
    q, scale = _kernels.quantise(np.array([least, 0], dtype=np.float32))
    assert scale == 0.0 and not q.any()
    # A scale of one ulp for 190 of them: the quotient is 190.
    q, scale = _kernels.quantise(np.array([190 * least, -190 * least], dtype=np.float32))
    assert scale > 0.0 and q.tolist() == [127, -127]


def test_dot_i8_of_every_length_is_exact(rng: np.random.Generator) -> None:
    for n in [*range(70), 128, 384, 1001]:
        a = rng.integers(-128, 128, n, dtype=np.int8)
        b = rng.integers(-128, 128, n, dtype=np.int8)
        assert _kernels.dot_i8(a, b) == int(a.astype(np.int64) @ b.astype(np.int64)), n


def test_dot_i8_of_extremes_at_the_longest_length_does_not_overflow() -> None:
    a = np.full(131_072, 127, dtype=np.int8)
    assert _kernels.dot_i8(a, a) == 127 * 127 * 131_072
    assert _kernels.dot_i8(a, -a) == -127 * 127 * 131_072
    with pytest.raises(ShapeError, match="vector has too many dimensions"):
        _kernels.dot_i8(np.zeros(131_073, dtype=np.int8), np.zeros(131_073, dtype=np.int8))


@pytest.mark.parametrize("function", [_kernels.dot, _kernels.cosine])
def test_vectors_of_different_lengths_are_refused_with_both_numbers(
    function: Callable[[Any, Any], float],
) -> None:
    with pytest.raises(ValueError, match=r"^different vector dimensions 2 and 1$"):
        function(np.ones(2, dtype=np.float32), np.ones(1, dtype=np.float32))


@pytest.mark.parametrize(
    "wrong, seen",
    [
        (np.ones(4), "got float64 4"),
        (np.ones((2, 2), dtype=np.float32), "got float32 2x2"),
        (np.ones(8, dtype=np.float32)[::2], "got strided float32 4"),
        ([1.0, 2.0], "got float64 2"),
    ],
    ids=["float64", "2-d", "strided", "list"],
)
def test_array_of_wrong_kind_is_refused_and_described(wrong: Any, seen: str) -> None:
    for function in (_kernels.norm, _kernels.normalise, _kernels.quantise, _kernels.tanh):
        with pytest.raises(ShapeError) as caught:
            function(wrong)
        assert seen in str(caught.value)


def test_read_only_arrays_are_accepted() -> None:
    a = np.ones(4, dtype=np.float32)
    a.flags.writeable = False
    assert _kernels.dot(a, a) == 4.0


# ---------------------------------------------------------------- the same bits however compiled


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return set(text.partition("flags")[2].partition("\n")[0].split())


def _results(library: ctypes.CDLL, a: np.ndarray, b: np.ndarray) -> list[bytes]:
    def at(array: np.ndarray) -> ctypes.c_void_p:
        return array.ctypes.data_as(ctypes.c_void_p)

    for name in ("td_vec_dot", "td_vec_norm", "td_vec_cosine", "td_vec_quantise"):
        getattr(library, name).restype = ctypes.c_float
    library.td_exp.restype = ctypes.c_double
    out: list[bytes] = []
    for n in (0, 1, 15, 16, 33, 384, len(a)):
        size = ctypes.c_size_t(n)
        numbers = [
            library.td_vec_dot(at(a), at(b), size),
            library.td_vec_norm(at(a), size),
            library.td_vec_cosine(at(a), at(b), size),
        ]
        q = np.zeros(len(a), dtype=np.int8)
        r = np.zeros(len(a), dtype=np.int8)
        numbers.append(library.td_vec_quantise(at(a), size, at(q)))
        numbers.append(library.td_vec_quantise(at(b), size, at(r)))
        numbers.append(library.td_vec_dot_i8(at(q), at(r), size))
        unit, curve, bend = a.copy(), a.copy(), a.copy()
        numbers.append(library.td_vec_normalise(at(unit), size))
        library.td_vec_sigmoid(at(a), at(curve), size)
        library.td_vec_tanh(at(a), at(bend), size)
        out += [np.array(numbers).tobytes(), q.tobytes(), unit.tobytes()]
        out += [curve.tobytes(), bend.tobytes()]
    exps = [library.td_exp(ctypes.c_double(float(x) * 50)) for x in a[:200]]
    return [*out, np.array(exps).tobytes()]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
def test_results_at_every_optimisation_level_have_the_same_bits(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    levels = [["-O0"], ["-O1"], ["-O2"], ["-O3"]]
    flags = _cpu_flags()
    if {"avx2", "fma"} <= flags:
        levels.append(["-O3", "-mavx2", "-mfma"])
    if {"avx512f", "avx512bw", "avx512vl"} <= flags:
        levels.append(["-O3", "-mavx512f", "-mavx512bw", "-mavx512vl"])
    a, b = floats(rng, 1000) * 3, floats(rng, 1000)
    a[:8] = [0.0, -0.0, 1e-40, -90.0, 90.0, -104.5, 1e30, -3e30]
    sources = [str(ROOT / "kernels" / "src" / name) for name in ("td_vec.c", "td_math.c")]
    include = ["-I", str(ROOT / "kernels" / "include")]
    # What the sanitised run of these tests preloads is not for the compiler.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    results = {}
    for number, level in enumerate(levels):
        library = tmp_path / f"kernel{number}.so"
        command = ["cc", "-std=gnu11", *level, "-ffp-contract=off", "-fPIC", "-shared"]
        command += [*include, *sources, "-o", str(library), "-lm"]
        subprocess.run(command, check=True, env=env)
        results[" ".join(level)] = _results(ctypes.CDLL(str(library)), a, b)
    first = results["-O0"]
    for name, result in results.items():
        assert result == first, name
    # The extension itself is one more build.
    assert np.float32(_kernels.dot(a, b)).tobytes() == np.float32(lanes_dot(a, b)).tobytes()
