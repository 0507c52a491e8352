"""Write the corpus of kernels/fuzz/fuzz_file.c: small encoder files of every shape.

    .venv/bin/python tools/gen_fuzz_files.py [--check]

With --check nothing is written; exit status 1 says that a committed file differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from tinydancer.encoder_bert import BertModel, BertShape, pack_bert_encoder
from tinydancer.encoder_file import EncoderHeader, Vocab, pack_file, pack_static_encoder

FOLDER = Path(__file__).resolve().parents[1] / "kernels" / "fuzz" / "corpus_file"
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


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    different = []
    for name, data in corpus().items():
        path = FOLDER / name
        if check:
            if not path.exists() or path.read_bytes() != data:
                different.append(name)
        else:
            path.write_bytes(data)
    if different:
        print(f"differs from what the generator writes: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
