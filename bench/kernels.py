"""How far the kernels are from what the machine can do, and how far ahead of plain code.

Read bounds are the time to read the same bytes once, measured in the same run; the naive loops are
those of bench/floor.c, compiled with -O2; NumPy and faiss run on one thread.  All that a line
compares is timed in turns, round after round: a ratio is the median of the rounds' ratios, its
spread the distance between their quartiles.

    make build/bench-packages/.done && .venv/bin/python bench/kernels.py [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import site
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import PACKAGES, ROOT, Figure, add_option, against_plan, compared, processor, write
from machine import BUILD, Array, Call, address, aligned, bounds, floor, multiplier, reader

from tinydancer import Encoder, _kernels

ENCODERS = {
    "minilm": ROOT / "build" / "encoders" / "minilm-l6-v2-1.tdenc",
    "static": ROOT / "python" / "tinydancer" / "encoders" / "static-1.tdenc",
}
ROUNDS = 15
# A part is long against the clock and short against what else runs on the machine.
PARTS_A_TURN = 4
SECONDS_A_PART = 0.001


# ---------------------------------------------------------------- measuring


def turn(call: Call, times: int, parts: int = 1) -> float:
    """Seconds of processor time a call: those of the fastest part, which nobody disturbed."""
    fastest = float("inf")
    for _ in range(parts):
        start = time.thread_time()
        for _ in range(times):
            call()
        fastest = min(fastest, time.thread_time() - start)
    return fastest / times


def rounds(calls: dict[str, tuple[Call, int]]) -> dict[str, list[float]]:
    """Microseconds of each call in each round; with each call the units of work that it does."""
    times = {}
    for name, (call, _) in calls.items():
        call()
        times[name] = max(1, int(SECONDS_A_PART / max(turn(call, 1), 1e-7)))
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (call, work) in calls.items():
            seen[name].append(turn(call, times[name], PARTS_A_TURN) / work * 1e6)
    return seen


def figure(
    seen: dict[str, list[float]], name: str, what: str, baseline: str, goal: str = ""
) -> Figure:
    """Compare two that were timed in turns; a goal of at least turns the ratio round."""
    return compared("kernels", name, seen[what], "us", (baseline, seen[baseline]), goal)


def share(name: str, value: float, goal: str = "") -> Figure:
    return Figure("kernels", name, 100 * value, "%", goal=goal)


# ---------------------------------------------------------------- what is measured against


def peaks(rng: np.random.Generator) -> Iterator[Figure]:
    """What one thread of this machine reads, and multiplies and adds, in a second."""
    for name, size in (("level 2", 384 * 1024), ("memory", 256 * 1024 * 1024)):
        array = aligned(np.ones(size, dtype=np.uint8))
        (taken,) = rounds({"reading": (reader(array), 1)}).values()
        rate = size / float(np.median(taken)) / 1e3
        yield Figure("kernels", f"read bandwidth, {name}", rate, "GB/s")
    for kind in ("f32", "i8"):
        products = 1e6
        (taken,) = rounds({kind: (multiplier(kind, products), 1)}).values()
        rate = products / float(np.median(taken)) / 1e3
        yield Figure("kernels", f"multiply-add peak, {kind}", rate, "G/s")


# ---------------------------------------------------------------- FastGRNN


def fastgrnn(rng: np.random.Generator) -> Iterator[Figure]:
    """The step from a zero state, 768 -> 64, W and W' apart; eight rows a call, one by one."""
    n_in, n_hidden, n = 768, 64, 8
    weights = aligned((rng.normal(size=(2, n_hidden, n_in)) / np.sqrt(n_in)).astype(np.float32))
    recurrent = np.zeros((n_hidden, n_hidden), dtype=np.float32)
    bias = np.zeros(n_hidden, dtype=np.float32)
    x = aligned(rng.normal(size=(n, n_in)).astype(np.float32))
    h = np.zeros((n, n_hidden), dtype=np.float32)
    packed = [np.empty((n_hidden, n_in), dtype=np.int8) for _ in range(2)]
    scales = [np.empty(n_hidden, dtype=np.float32) for _ in range(2)]
    for matrix, rows, row_scales in zip(weights, packed, scales, strict=True):
        for i, row in enumerate(matrix):
            rows[i], row_scales[i] = _kernels.quantise(row)
    narrow = aligned(np.stack(packed))
    room = np.empty(n_in, dtype=np.int8)
    sizes = [ctypes.c_size_t(size) for size in (n, n_in, n_hidden)]
    constants = [ctypes.c_float(value) for value in (1.0, 0.0)]

    def cell(int8: bool) -> _kernels.FastGRNN:
        return _kernels.FastGRNN(
            weights[0], recurrent, bias, bias, 1.0, 0.0, W_h=weights[1], U_h=recurrent, int8=int8
        )

    def naive_f32() -> None:
        floor().naive_fastgrnn_f32(
            *map(address, (weights[0], weights[1], bias, bias)),
            *constants, address(x), *sizes, address(h),
        )  # fmt: skip

    def naive_i8() -> None:
        floor().naive_fastgrnn_i8(
            *map(address, (packed[0], scales[0], packed[1], scales[1], bias, bias)),
            *constants, address(x), *sizes, address(room), address(h),
        )  # fmt: skip

    def numpy_step() -> Array:
        return _logistic(x @ weights[0].T) * np.tanh(x @ weights[1].T)

    f32, int8 = cell(False), cell(True)
    seen = rounds(
        {
            "reading f32": (reader(weights, n), n),
            "reading int8": (reader(narrow, n), n),
            "multiply-adds f32": (multiplier("f32", weights.size, n), n),
            "multiply-adds int8": (multiplier("i8", weights.size, n), n),
            "f32": (lambda: f32.forward_batch(x), n),
            "int8": (lambda: int8.forward_batch(x), n),
            "naive f32": (naive_f32, n),
            "naive int8": (naive_i8, n),
            "NumPy, one batched product": (numpy_step, n),
        }
    )
    bound = [("reading f32", "<= 1.3"), ("multiply-adds f32", "")]
    yield from bounds("kernels", "FastGRNN 768 -> 64, f32", "us", seen, "f32", bound)
    yield figure(seen, "FastGRNN 768 -> 64, f32", "f32", "naive f32", ">= 15")
    yield figure(seen, "FastGRNN 768 -> 64, f32", "f32", "NumPy, one batched product")
    yield figure(seen, "FastGRNN 768 -> 64, int8", "int8", "reading f32", "<= 0.7")
    bound = [("reading int8", ""), ("multiply-adds int8", "")]
    yield from bounds("kernels", "FastGRNN 768 -> 64, int8", "us", seen, "int8", bound)
    yield figure(seen, "FastGRNN 768 -> 64, int8", "int8", "naive int8", ">= 15")
    yield figure(seen, "FastGRNN 768 -> 64, int8", "int8", "NumPy, one batched product")
    for what in ("f32", "int8"):
        taken = float(np.median(seen[what]))
        yield against_plan("kernels", f"FastGRNN 768 -> 64, {what}", taken, "us", 45)


def _logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# ---------------------------------------------------------------- matching


def unit_vectors(rng: np.random.Generator, n: int, dim: int) -> Array:
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def quantised(vectors: Array) -> tuple[Array, Array]:
    rows = aligned(np.zeros(vectors.shape, dtype=np.int8))
    scales = np.zeros(len(vectors), dtype=np.float32)
    for i, vector in enumerate(vectors):
        rows[i], scales[i] = _kernels.quantise(vector)
    return rows, scales


def flat_index(vectors: Array) -> Any:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def matching(rng: np.random.Generator) -> Iterator[Figure]:
    """The three nearest of 1,000 rows of 384 dimensions."""
    vectors = unit_vectors(rng, 1000, 384)
    rows, scales = quantised(vectors)
    index = flat_index(vectors)
    nearest = _kernels.Nearest(rows, scales)
    query = unit_vectors(rng, 1, 384)
    single = query[0]
    seen = rounds(
        {
            "reading int8": (reader(rows, 16), 16),
            "multiply-adds int8": (multiplier("i8", rows.size, 16), 16),
            "match": (lambda: nearest.search(single, 3), 1),
            "rows as they are": (lambda: _kernels.topk_cosine(single, rows, scales, 3), 1),
            "faiss IndexFlatIP": (lambda: index.search(query, 3), 1),
            "NumPy f32 product": (lambda: vectors @ single, 1),
        }
    )
    yield figure(seen, "top 3 of 1,000 x 384", "match", "faiss IndexFlatIP", ">= 8")
    yield figure(seen, "top 3 of 1,000 x 384", "match", "NumPy f32 product")
    bound = [("reading int8", ""), ("multiply-adds int8", "")]
    yield from bounds("kernels", "top 3 of 1,000 x 384", "us", seen, "match", bound)
    one = figure(seen, "top 3 of 1,000 x 384", "match", "rows as they are")
    one.drawn = False
    yield one


def graph_index(vectors: Array) -> tuple[Any, float]:
    """HNSW with what pgvector takes by default, and the seconds that its making took."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 64, 40
    start = time.thread_time()
    index.add(vectors)
    return index, time.thread_time() - start


DATA = ROOT.parent / "shared" / "data" / "intents"
MANY = 100_000
HELD_OUT = 400
# Length of the noise that is added to a copy of a unit vector.
NOISE = 0.35


def utterances() -> list[str]:
    """All of CLINC150 and Banking77, each text once."""
    texts = []
    for path in sorted(DATA.glob("*.jsonl")):
        texts += [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    return list(dict.fromkeys(texts))


def embedded(path: Path) -> Array:
    """Their vectors, kept from run to run: MiniLM takes half a minute for them."""
    encoder = Encoder(path)
    kept = BUILD / f"{encoder.id}.npy"
    texts = utterances()
    if kept.exists() and len(vectors := np.load(kept)) == len(texts):
        return vectors
    np.save(kept, encoder.embed(texts))
    return np.load(kept)


def replicated(vectors: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """MANY vectors, noisy copies of all but HELD_OUT, and those as queries."""
    vectors = vectors[rng.permutation(len(vectors))]
    queries, base = vectors[:HELD_OUT], vectors[HELD_OUT:]
    parts = [base]
    while sum(map(len, parts)) < MANY:
        noise = rng.normal(size=base.shape).astype(np.float32) * (NOISE / base.shape[1] ** 0.5)
        parts.append((base + noise) / np.linalg.norm(base + noise, axis=1, keepdims=True))
    return np.concatenate(parts)[:MANY], queries


def many(rng: np.random.Generator) -> Iterator[Figure]:
    """The three nearest of 100,000 real vectors, of which most are passed over by their signs."""
    for name, path in ENCODERS.items():
        if not DATA.is_dir() or not path.exists():
            print(f"  {name}: needs {DATA if path.exists() else path}; not measured")
            continue
        vectors, queries = replicated(embedded(path), rng)
        rows, scales = quantised(vectors)
        nearest = _kernels.Nearest(rows, scales)
        index, (graph, graph_seconds) = flat_index(vectors), graph_index(vectors)
        answers = [nearest.search(query, 3) for query in queries]
        exact = [_kernels.topk_cosine(query, rows, scales, 3)[0] for query in queries]
        same = [a[0][0] == b[0] for a, b in zip(answers, exact, strict=True)]
        all_compared = float(np.mean([a[2] for a in answers]))
        found = [graph.search(query[None], 3)[1][0][0] for query in queries]
        by_graph = [a == b[0] for a, b in zip(found, exact, strict=True)]
        turns = itertools.cycle([q for q, a in zip(queries, answers, strict=True) if not a[2]])
        others = itertools.cycle(queries)
        # As often as they come, those for which all are compared among them.
        times = sorted(turn(lambda q=q, n=nearest: n.search(q, 3), 1, 3) for q in queries)
        one = queries[:1]
        sketch = aligned(np.zeros(nearest.sketch_size, dtype=np.uint8))
        seen = rounds(
            {
                "reading the signs": (reader(sketch, 1), 1),
                "by signs": (lambda it=turns, n=nearest: n.search(next(it), 3), 1),
                "all compared": (lambda q=queries[0], r=rows, s=scales: _exact(q, r, s), 1),
                "faiss IndexFlatIP": (lambda i=index, q=one: i.search(q, 3), 1),
                "faiss HNSW": (lambda i=graph, it=others: i.search(next(it)[None], 3), 1),
                "NumPy f32 product": (lambda v=vectors, q=queries[0]: v @ q, 1),
            }
        )
        title = f"top 3 of {MANY:,}, {name}"
        bound = [("reading the signs", "<= 1.15")]
        yield from bounds("kernels", title, "us", seen, "by signs", bound)
        one = figure(seen, title, "by signs", "all compared")
        one.drawn = False
        yield one
        yield figure(seen, title, "by signs", "NumPy f32 product")
        yield figure(seen, title, "by signs", "faiss IndexFlatIP", ">= 8")
        yield figure(seen, title, "by signs", "faiss HNSW")
        yield Figure("kernels", f"{title}: mean of all", 1e6 * float(np.mean(times)), "us")
        yield Figure("kernels", f"{title}: median of all", 1e6 * float(np.median(times)), "us")
        yield share(f"{title}: nearest found", float(np.mean(same)), ">= 99 %")
        yield share(f"{title}: all compared", all_compared)
        yield share(f"{title}: nearest found by faiss HNSW", float(np.mean(by_graph)))
        what = f"{title}: building faiss HNSW, one thread"
        yield Figure("kernels", what, graph_seconds, "s")


def _exact(query: Array, rows: Array, scales: Array) -> object:
    return _kernels.topk_cosine(query, rows, scales, 3)


# ---------------------------------------------------------------- report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_option(parser)
    args = parser.parse_args()
    if not PACKAGES.is_dir():
        print("bench/kernels.py needs what it compares with: make build/bench-packages/.done")
        return 0
    # NumPy reads it when it is imported.
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        os.execv(sys.executable, [sys.executable, *sys.argv])
    # Behind what is installed, which must not be shadowed.
    site.addsitedir(str(PACKAGES))

    rng = np.random.default_rng(0)
    print(f"{processor()}, {_kernels.BEST_LEVEL}, one thread, median of {ROUNDS} rounds")
    print(f"{'':38} {'':12} {'ratio':>7} {'spread':>7} {'goal':7} against")
    figures: list[Figure] = []
    for area in (peaks, fastgrnn, matching, many):
        for one in area(rng):
            figures.append(one)
            ratio = "" if one.ratio is None else f"{one.ratio:6.2f}x {one.spread or 0:7.2f}"
            value = f"{one.value:9.2f} {one.unit:2}"
            print(f"{one.name:38} {value} {ratio:15} {one.goal:7} {one.baseline}")
    write(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
