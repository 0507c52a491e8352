"""Writes and reads the files of BERT encoders, in readable NumPy.

A model's float32 weights (``BertModel``) and a vocabulary come in, the bytes of an encoder file go
out (``pack_bert_encoder``), and back again (``BertEncoder``).  The layout is that of
kernels/include/tinydancer.h, the arithmetic that of the kernel's BERT: ``BertEncoder`` is its
oracle, equal but for the order of float sums.  ``BertModel`` itself computes the vectors of the
float32 original.  Used by the converter, the tests and the evaluation; never while routing.

Vocabulary
    product    a layer's matrix with its bias: qkv, out, up or down
    channel    an output of a product: a row of its weights, with a scale of its own
    token      a word piece in its place in a text, [CLS] and [SEP] included
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.encoder_file import (
    KIND_BERT_ENCODER,
    NO_ID,
    EncoderFileError,
    EncoderHeader,
    TdFile,
    Vocab,
    encoder_sections,
    pack_file,
    unpack_file,
)

__all__ = [
    "MAX_LAYERS",
    "POOLING_CLS",
    "POOLING_MEAN",
    "PRODUCTS",
    "BertEncoder",
    "BertModel",
    "BertShape",
    "pack_bert_encoder",
    "pack_weights",
    "quantise_channels",
    "quantise_tokens",
    "unpack_weights",
]

MAX_LAYERS = 24
POOLING_MEAN = 0
POOLING_CLS = 1
PRODUCTS = ("qkv", "out", "up", "down")

PANEL = 64  # channels that lie together in a file
GROUP = 4  # inputs that lie together in a file
HEAD_STEP = 16  # a head's size is a multiple of it
# Same-signed neighbours at an even input sum to at most this: AVX2 adds two products with
# activations up to 255 in 16 bits, and 255 * 128 still fits.
PAIR_MAX = 128

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]
IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class BertShape:
    """The figures of a BERT encoder; ``max_tokens`` leaves out [CLS] and [SEP]."""

    dim: int
    n_layers: int
    n_heads: int
    n_inner: int
    max_tokens: int
    pooling: int = POOLING_MEAN
    norm_eps: float = 1e-12

    @property
    def head_size(self) -> int:
        """Length of a head's queries, keys and values."""
        return self.dim // self.n_heads

    def product(self, name: str) -> tuple[int, int]:
        """Outputs and inputs of a product."""
        return {
            "qkv": (3 * self.dim, self.dim),
            "out": (self.dim, self.dim),
            "up": (self.n_inner, self.dim),
            "down": (self.dim, self.n_inner),
        }[name]

    def problems(self) -> Iterator[str]:
        """What the kernel cannot run, in words; nothing for a shape that it can."""
        if self.dim % PANEL or not PANEL <= self.dim <= 4096:
            yield f"hidden size {self.dim} is not a multiple of {PANEL} up to 4096"
        if self.n_inner % PANEL or not PANEL <= self.n_inner <= 16384:
            yield f"inner size {self.n_inner} is not a multiple of {PANEL} up to 16384"
        if not 1 <= self.n_layers <= MAX_LAYERS:
            yield f"{self.n_layers} layers are not 1 to {MAX_LAYERS}"
        if self.n_heads < 1 or self.dim % self.n_heads:
            yield f"hidden size {self.dim} cannot be divided among {self.n_heads} heads"
        elif self.head_size % HEAD_STEP:
            yield f"head size {self.head_size} is not a multiple of {HEAD_STEP}"
        if not 1 <= self.max_tokens <= 8190:
            yield f"a limit of {self.max_tokens + 2} tokens is not 3 to 8192"
        if self.pooling not in (POOLING_MEAN, POOLING_CLS):
            yield f"pooling {self.pooling} is neither mean nor CLS"
        if not 0 < self.norm_eps < 1:
            yield f"layer norm's epsilon {self.norm_eps} is not between 0 and 1"


# ------------------------------------------------------------------------------------- arithmetic


def _erf(x: Float32Array) -> Float32Array:
    """The error function within 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t) + (
        0.254829592
    )
    out: Float32Array = (np.sign(x) * (1 - poly * t * np.exp(-x * x))).astype(np.float32)
    return out


def _gelu(x: Float32Array) -> Float32Array:
    return x * (np.float32(0.5) * (1 + _erf(x * np.float32(np.sqrt(0.5)))))


def _softmax(x: Float32Array) -> Float32Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    out: Float32Array = e / e.sum(axis=-1, keepdims=True)
    return out


def _layer_norm(x: Float32Array, gain_bias: Float32Array, eps: float) -> Float32Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(eps)) * gain_bias[0] + gain_bias[1]


class _Bert:
    """Devlin et al. 2018, post-layer-norm: the parts that the original and the oracle share."""

    shape: BertShape
    position: Float32Array
    norm: Float32Array
    norms: Mapping[str, Float32Array]

    def words(self, ids: IntArray) -> Float32Array:
        """``(..., dim) float32``, the vectors of word pieces."""
        raise NotImplementedError

    def product(self, name: str, x: Float32Array) -> Float32Array:
        """``(..., n_out) float32``, the product ``name`` ("00.qkv") of ``x``, bias included."""
        raise NotImplementedError

    def embed_tokens(self, ids: IntArray) -> Float32Array:
        """The unit vectors of texts of one length.

        Args:
            ids: ``(n, length)``, with [CLS] and [SEP], at most ``max_tokens`` + 2 long.

        Returns:
            ``(n, dim) float32``.
        """
        shape = self.shape
        n, length = ids.shape
        x = self.words(ids) + self.position[:length]
        x = _layer_norm(x, self.norm, shape.norm_eps)
        for layer in range(shape.n_layers):
            qkv = self.product(f"{layer:02}.qkv", x)
            # (3, n, heads, length, head size)
            qkv = qkv.reshape(n, length, 3, shape.n_heads, -1).transpose(2, 0, 3, 1, 4)
            query, key, value = qkv
            attention = _softmax(query @ key.swapaxes(-1, -2))
            context = (attention @ value).swapaxes(1, 2).reshape(n, length, shape.dim)
            x = x + self.product(f"{layer:02}.out", context)
            x = _layer_norm(x, self.norms[f"{layer:02}.norm1"], shape.norm_eps)
            inner = _gelu(self.product(f"{layer:02}.up", x))
            x = x + self.product(f"{layer:02}.down", inner)
            x = _layer_norm(x, self.norms[f"{layer:02}.norm2"], shape.norm_eps)
        pooled = x.mean(axis=1) if shape.pooling == POOLING_MEAN else x[:, 0]
        unit: Float32Array = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit.astype(np.float32)


# ------------------------------------------------------------------------------------- quantising


def quantise_channels(weight: Float32Array) -> tuple[Int8Array, Float32Array]:
    """A product's weights as int8, with a scale for each channel.

    Each channel gets the scale of least squared error, where what is too large for it is clipped:
    a value at 127, a pair of same-signed neighbours at a sum of 128.

    Args:
        weight: ``(n_out, n_in) float32``, n_in even, finite.

    Returns:
        values ``(n_out, n_in) int8`` and scales ``(n_out,) float32``, with
        ``weight ~ values * scales[:, None]``.
    """
    pairs = weight.reshape(len(weight), -1, 2)
    same = np.sign(pairs[..., 0]) * np.sign(pairs[..., 1]) > 0
    sums = np.where(same, np.abs(pairs.sum(axis=2)), 0).max(axis=1)
    # The scale at which nothing is clipped.
    full = np.maximum(np.abs(weight).max(axis=1) / 127, sums / PAIR_MAX).astype(np.float32)
    full[full < np.finfo(np.float32).tiny] = 1  # a channel of zeros
    best = np.full(len(weight), np.inf)
    values = np.zeros(weight.shape, np.int8)
    scales = full.copy()
    for factor in np.linspace(1, 0.7, 16, dtype=np.float32):
        scale = full * factor
        candidate = _rounded(weight / scale[:, None])
        difference = (candidate * scale[:, None] - weight).astype(np.float64)
        error = (difference * difference).sum(axis=1)
        better = error < best
        best[better] = error[better]
        values[better] = candidate[better].astype(np.int8)
        scales[better] = scale[better]
    return values, scales


def _rounded(x: Float32Array) -> Float32Array:
    """``x`` (changed in place) rounded to what the format holds, nearest first."""
    pairs = x.reshape(len(x), -1, 2)
    # Copies of the few pairs that are too large, before they are rounded.
    total = np.abs(np.rint(pairs).sum(axis=2))
    large = (total > PAIR_MAX) & (pairs[..., 0] * pairs[..., 1] > 0)
    exact = pairs[large]
    np.clip(np.rint(x, out=x), -127, 127, out=x)
    if len(exact):
        # The nearest pair of whole numbers whose sum is the greatest that is allowed.
        sign = np.sign(exact[:, 0])
        first = np.rint((PAIR_MAX + np.abs(exact[:, 0]) - np.abs(exact[:, 1])) / 2).clip(1, 127)
        pairs[large] = np.stack([sign * first, sign * (PAIR_MAX - first)], axis=1)
    return x


def pack_weights(values: Int8Array) -> Int8Array:
    """``(n_out, n_in)`` in the order of a file: ``[n_out / 64][n_in / 4][64][4]``."""
    n_out, n_in = values.shape
    panels = values.reshape(n_out // PANEL, PANEL, n_in // GROUP, GROUP)
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3))


def unpack_weights(packed: Int8Array, n_out: int, n_in: int) -> Int8Array:
    """The inverse of ``pack_weights``."""
    panels = packed.reshape(n_out // PANEL, n_in // GROUP, PANEL, GROUP)
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3).reshape(n_out, n_in))


def quantise_tokens(x: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Activations as the kernel quantises them: uint8, with a scale and a zero for each token.

    Args:
        x: ``(..., n_in) float32``.

    Returns:
        whole numbers 0 .. 255 ``(..., n_in)``, scales and zeros ``(..., 1)``, all float32, with
        ``x ~ (values - zeros) * scales``.
    """
    low = np.minimum(x.min(axis=-1, keepdims=True), 0)
    high = np.maximum(x.max(axis=-1, keepdims=True), 0)
    scale = (high - low) / np.float32(255)
    scale[scale == 0] = 1  # a token of zeros
    zero = np.rint(-low / scale)
    return np.clip(np.rint(x / scale) + zero, 0, 255), scale, zero


# ------------------------------------------------------------------------------------- the original


@dataclass(frozen=True)
class BertModel(_Bert):
    """A model as trained, float32, arranged as the kernel wants it.

    Attributes:
        shape: its figures.
        word: ``(n, dim)``, the vectors of word pieces.
        position: ``(max_tokens + 2, dim)``, the vector of token type 0 added.
        norm: ``(2, dim)``, gain and bias of the embeddings' layer norm.
        weights: by the names of products ("00.qkv"), ``(n_out, n_in)``; the query part of qkv is
            divided by the square root of the head size.
        biases: the same, ``(n_out,)``.
        norms: by name ("00.norm1"), ``(2, dim)``.
    """

    shape: BertShape
    word: Float32Array = field(repr=False)
    position: Float32Array = field(repr=False)
    norm: Float32Array = field(repr=False)
    weights: Mapping[str, Float32Array] = field(repr=False)
    biases: Mapping[str, Float32Array] = field(repr=False)
    norms: Mapping[str, Float32Array] = field(repr=False)

    def words(self, ids: IntArray) -> Float32Array:
        """``(..., dim) float32``, the vectors of word pieces."""
        return self.word[ids]

    def product(self, name: str, x: Float32Array) -> Float32Array:
        """``(..., n_out) float32``."""
        return x @ self.weights[name].T + self.biases[name]


def pack_bert_encoder(
    file_id: str, header: EncoderHeader, vocab: Vocab, model: BertModel, about: str
) -> bytes:
    """The bytes of a BERT encoder; the same input gives the same bytes.

    Args:
        file_id: see ``pack_file``.
        header: its dim, max_tokens and vocab_size must be those of model and vocabulary.
        vocab: all pieces, in the order of ``model.word``.
        model: finite weights of a shape without ``problems()``.
        about: provenance and licence, for people.

    Raises:
        ValueError: shapes that contradict each other, or that the kernel cannot run.
    """
    shape = model.shape
    for problem in shape.problems():
        raise ValueError(problem)
    if (
        (header.dim, header.max_tokens, header.first_row) != (shape.dim, shape.max_tokens, 0)
        or not header.vocab_size == len(vocab.pieces) == len(model.word)
        or NO_ID in (header.cls_id, header.sep_id)
    ):
        raise ValueError("header, vocabulary and model contradict each other")
    word_scale = (np.abs(model.word).max(axis=1) / np.float32(127)).astype(np.float32)
    divisor = np.where(word_scale > 0, word_scale, np.float32(1))
    figures = np.zeros(16, np.uint32)
    figures[:4] = shape.n_layers, shape.n_heads, shape.n_inner, shape.pooling
    figures[4:5] = np.array([shape.norm_eps], "<f4").view("<u4")
    sections: dict[str, Array] = {
        **encoder_sections(header, vocab, about),
        "bert": figures,
        "bert.word": np.rint(model.word / divisor[:, None]).clip(-127, 127).astype(np.int8),
        "bert.word.scale": word_scale,
        "bert.position": model.position,
        "bert.norm": model.norm,
    }
    for layer in range(shape.n_layers):
        for name in (f"{layer:02}.{product}" for product in PRODUCTS):
            values, scales = quantise_channels(model.weights[name])
            sections[f"{name}.weight"] = pack_weights(values)
            sections[f"{name}.scale"] = scales
            sections[f"{name}.bias"] = model.biases[name]
            sections[f"{name}.sum"] = values.sum(axis=1, dtype=np.int32)
        for name in (f"{layer:02}.norm1", f"{layer:02}.norm2"):
            sections[name] = model.norms[name]
    return pack_file(KIND_BERT_ENCODER, file_id, sections)


# ------------------------------------------------------------------------------------- the oracle


@dataclass(frozen=True)
class BertEncoder(_Bert):
    """A BERT encoder as read from its file, the oracle of the kernel."""

    file: TdFile
    header: EncoderHeader
    vocab: Vocab
    shape: BertShape
    position: Float32Array = field(repr=False)
    norm: Float32Array = field(repr=False)
    norms: Mapping[str, Float32Array] = field(repr=False)
    weights: Mapping[str, Int8Array] = field(repr=False)
    # The weights as [n_in][n_out] float64, in which sums of whole numbers are exact.
    _exact: Mapping[str, Array] = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> BertEncoder:
        """Read and check a file, weights and their sums included.

        Raises:
            EncoderFileError: not a BERT encoder, or one that is not whole.
        """
        file = unpack_file(data)
        if file.kind != KIND_BERT_ENCODER:
            raise EncoderFileError("file is of the wrong kind")
        corrupt = EncoderFileError("file is corrupt")
        sections = file.sections
        try:
            header = EncoderHeader.unpack(sections["encoder"])
            vocab = Vocab.from_sections(sections)
            figures = sections["bert"]
            if figures.size != 16 or np.any(figures[5:]):
                raise corrupt
            n_layers, n_heads, n_inner, pooling = (int(figure) for figure in figures[:4])
            eps = float(np.ascontiguousarray(figures[4:5]).view("<f4")[0])
            shape = BertShape(
                header.dim, n_layers, n_heads, n_inner, header.max_tokens, pooling, eps
            )
            if any(shape.problems()) or header.first_row != 0:
                raise corrupt
            expected = {
                "bert.word": header.vocab_size * shape.dim,
                "bert.word.scale": header.vocab_size,
                "bert.position": (shape.max_tokens + 2) * shape.dim,
                "bert.norm": 2 * shape.dim,
            }
            weights = {}
            norms = {}
            for layer in range(n_layers):
                for product in PRODUCTS:
                    name = f"{layer:02}.{product}"
                    n_out, n_in = shape.product(product)
                    expected |= {f"{name}.{part}": n_out for part in ("scale", "bias", "sum")}
                    if sections[f"{name}.weight"].size != n_out * n_in:
                        raise corrupt
                    weights[name] = unpack_weights(sections[f"{name}.weight"], n_out, n_in)
                for name in (f"{layer:02}.norm1", f"{layer:02}.norm2"):
                    expected[name] = 2 * shape.dim
                    norms[name] = sections[name].reshape(2, -1)
            if any(sections[name].size != size for name, size in expected.items()):
                raise corrupt
        except (KeyError, ValueError) as error:
            raise corrupt from error
        if header.vocab_size != len(vocab.pieces) or NO_ID in (header.cls_id, header.sep_id):
            raise corrupt
        encoder = cls(
            file,
            header,
            vocab,
            shape,
            sections["bert.position"].reshape(-1, shape.dim),
            sections["bert.norm"].reshape(2, -1),
            norms,
            weights,
            {name: values.T.astype(np.float64) for name, values in weights.items()},
        )
        if not encoder.keeps_the_rules():
            raise corrupt
        return encoder

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> BertEncoder:
        """``from_bytes`` of the file at ``path``."""
        return cls.from_bytes(Path(path).read_bytes())

    def keeps_the_rules(self) -> bool:
        """Whether no pair of weights is too large for AVX2, and sums are those of the weights."""
        for name, values in self.weights.items():
            pairs = values.reshape(len(values), -1, 2).astype(np.int32)
            positive = np.maximum(pairs, 0).sum(axis=2)
            negative = np.maximum(-pairs, 0).sum(axis=2)
            if positive.max() > PAIR_MAX or negative.max() > PAIR_MAX:
                return False
            if np.any(values.sum(axis=1, dtype=np.int32) != self.file.sections[f"{name}.sum"]):
                return False
        return True

    def words(self, ids: IntArray) -> Float32Array:
        """``(..., dim) float32``, the vectors of word pieces."""
        rows = self.file.sections["bert.word"].reshape(-1, self.shape.dim)[ids]
        scale = self.file.sections["bert.word.scale"][ids]
        return rows * scale[..., None]

    def product(self, name: str, x: Float32Array) -> Float32Array:
        """``(..., n_out) float32``; the sums of whole numbers are exact, as in the kernel."""
        sections = self.file.sections
        values, scale, zero = quantise_tokens(x)
        total = values.astype(np.float64) @ self._exact[name]
        total -= zero * sections[f"{name}.sum"]
        out = total.astype(np.float32) * (scale * sections[f"{name}.scale"])
        return out + sections[f"{name}.bias"]

    def embed_ids(self, ids: Sequence[int] | IntArray) -> Float32Array:
        """The unit vector of a text given as word-piece ids, without [CLS] and [SEP].

        Args:
            ids: ``(n,)``, in text order; only the first ``max_tokens`` are read.

        Returns:
            ``(dim,) float32``, of length 1.
        """
        read = [int(i) for i in ids[: self.header.max_tokens]]
        return self.embed_tokens(np.array([[self.header.cls_id, *read, self.header.sep_id]]))[0]
