"""Write the corpora of kernels/fuzz: small encoder files, and small models, of every shape.

    .venv/bin/python tools/gen_fuzz_files.py [--check]

With --check nothing is written; exit status 1 says that a committed file differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinydancer.encoder_bert import BertModel, BertShape, pack_bert_encoder
from tinydancer.encoder_file import EncoderHeader, Vocab, pack_file, pack_static_encoder
from tinydancer.model_file import (
    FastGrnn,
    Knn,
    Linear,
    Member,
    ModelSpec,
    Projection,
    Rbf,
    Words,
    write_model,
)

FUZZ = Path(__file__).resolve().parents[1] / "kernels" / "fuzz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "hello",
    "world",
    "a",
    "un",
    "##aff",
    "##able",
    "##ing",
    "super",
    "##c",
    "1",
    "##2",
    "!",
    "你",
]


def header_of(pieces: list[str], dim: int, max_tokens: int, first_row: int) -> EncoderHeader:
    """With the special pieces first, as in SPECIAL."""
    return EncoderHeader(
        dim=dim,
        max_tokens=max_tokens,
        vocab_size=len(pieces),
        first_row=first_row,
        flags=15,
        unk_id=1,
        cls_id=2,
        sep_id=3,
        pad_id=0,
        mask_id=4,
        fit_mu=0.3,
        fit_s=0.05,
    )


def encoder(pieces: list[str], dim: int, max_tokens: int, n_slots: int | None = None) -> bytes:
    """A static encoder with random rows for all pieces behind the special ones."""
    rng = np.random.default_rng(len(pieces) * 1000 + dim)
    header = header_of(pieces, dim, max_tokens, len(SPECIAL))
    rows = rng.standard_normal((len(pieces) - len(SPECIAL), dim)).astype(np.float32)
    return pack_static_encoder(
        "fuzz-1", header, Vocab.from_text("\n".join(pieces), n_slots), rows, "fuzz"
    )


def bert(max_tokens: int, n_heads: int, pooling: int) -> bytes:
    """The smallest BERT encoder there can be: one layer, 64 dimensions."""
    dim = 64
    pieces = [*SPECIAL, *WORDS]
    # Whole numbers of a generator whose stream NumPy keeps: the same file everywhere.
    rng = np.random.default_rng(max_tokens * 10 + n_heads)

    def values(*shape: int) -> np.ndarray:
        return rng.integers(-64, 65, shape).astype(np.float32) / np.float32(256)

    def norm() -> np.ndarray:
        return np.stack([np.float32(1) + values(dim), values(dim)])

    sizes = {"qkv": (3 * dim, dim), "out": (dim, dim), "up": (dim, dim), "down": (dim, dim)}
    model = BertModel(
        BertShape(dim, 1, n_heads, dim, max_tokens, pooling, 1e-12),
        values(len(pieces), dim),
        values(max_tokens + 2, dim),
        norm(),
        {f"00.{name}": values(*size) for name, size in sizes.items()},
        {f"00.{name}": values(size[0]) for name, size in sizes.items()},
        {"00.norm1": norm(), "00.norm2": norm()},
    )
    header = header_of(pieces, dim, max_tokens, 0)
    return pack_bert_encoder("fuzz-4", header, Vocab.from_text("\n".join(pieces)), model, "fuzz")


def corpus() -> dict[str, bytes]:
    """File names and contents."""
    many = [*SPECIAL, *WORDS, *(f"w{i}" for i in range(600))]
    return {
        "small": encoder([*SPECIAL, *WORDS], 8, 16),
        "one_dimension": encoder([*SPECIAL, *WORDS], 1, 1),
        "full_index": encoder([*SPECIAL, *WORDS], 3, 4, len(SPECIAL) + len(WORDS) + 1),
        "no_rows": encoder(SPECIAL, 4, 4),
        "three_blocks": encoder(many, 2, 512),
        "bert_mean": bert(40, 4, 0),
        "bert_cls": bert(1, 1, 1),
        "no_sections": pack_file(1, "fuzz-2", {}),
        "model": pack_file(3, "fuzz-3", {"weights": np.arange(5, dtype=np.float32)}),
    }


def values(*shape: int, low: float = -0.5) -> Any:
    """Numbers from low to low + 1 that no version of NumPy changes."""
    return (np.arange(math.prod(shape)) * 37 % 17 / 16 + low).reshape(shape)


def model(
    task: str,
    link: str,
    n_out: int,
    n_rows: int,
    dim: int,
    *members: Member,
    projection: Projection | None = None,
) -> bytes:
    """A model of these members, with one calibration curve where it may have one."""
    width = dim + (0 if projection is None else projection.table.shape[1])
    return write_model(
        ModelSpec(
            task=task,
            names=[f"output {i}" for i in range(n_out)],
            encoder_id="fuzz-1",
            encoder_checksum=1,
            dim=dim,
            link=link,
            prior=values(n_out, low=0.0).clip(0, 1),
            support=np.arange(n_out),
            members=members,
            rows=values(n_rows, width) if n_rows else None,
            curve_x=np.array([[0.0, 0.4, 1.0]]),
            curve_y=np.array([[0.1, 0.5, 0.9]]),
            projection=projection,
        )
    )


def cell(n_out: int, dim: int, hidden: int, *, rank: int = 0, tied: bool = False) -> FastGrnn:
    """A FastGRNN; int8 where it is not tied."""

    def matrix(n: int, m: int) -> Any:
        return (values(n, rank), values(rank, m)) if rank else values(n, m)

    return FastGrnn(
        weight=np.ones(n_out),
        w=matrix(hidden, dim),
        b_z=values(hidden),
        b_h=values(hidden),
        zeta=0.75,
        nu=0.25,
        head=values(n_out, hidden),
        head_bias=values(n_out),
        u=matrix(hidden, hidden),
        w_h=None if tied else matrix(hidden, dim),
        u_h=None if tied else matrix(hidden, hidden),
        int8=not tied,
    )


def models() -> dict[str, bytes]:
    """The files of models by name."""
    one = np.ones(3)
    knn = Knn(one, np.where(values(5, 3) > 0.3, np.nan, values(5, 3).clip(0, 1)), 4, 0.25, 1.0)
    rbf = Rbf(one, values(5, 3), values(3), 2.0)
    words = Words(one, values(256, 3), values(3), values(256, low=0.0), 7)
    linear = Linear(one, values(3, 16), values(3), int8=True)
    columns = Projection(values(256, 16), 1.5, 7)
    return {
        "linear": model("quality", "identity", 3, 0, 16, Linear(one, values(3, 16), values(3))),
        "linear_int8": model("capabilities", "sigmoid", 3, 0, 16, linear),
        "cell": model("classifier", "softmax", 3, 0, 16, cell(3, 16, 5)),
        "cell_tied": model("classifier", "softmax", 3, 0, 1, cell(3, 1, 1, tied=True)),
        "cell_low_rank": model("quality", "sigmoid", 3, 0, 16, cell(3, 16, 5, rank=2)),
        "knn": model("quality", "identity", 3, 5, 16, knn),
        "rbf": model("quality", "identity", 3, 5, 16, rbf, dataclasses.replace(rbf, int8=True)),
        "projection": model(
            "quality", "identity", 3, 5, 8, knn, cell(3, 24, 5), projection=columns
        ),
        "ensemble": model("quality", "identity", 3, 5, 16, knn, rbf, words, linear),
    }


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    files = {FUZZ / "corpus_file" / name: data for name, data in corpus().items()}
    files |= {FUZZ / "corpus_model" / name: data for name, data in models().items()}
    different = []
    for path, data in files.items():
        path.parent.mkdir(exist_ok=True)
        if check:
            if not path.exists() or path.read_bytes() != data:
                different.append(path.name)
        else:
            path.write_bytes(data)
    if different:
        print(f"differs from what the generator writes: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
