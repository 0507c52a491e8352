"""Writes and reads the files of the kernel: the container "TDFILE" and the encoders in it.

Arrays and a vocabulary come in, bytes go out (``pack_file``, ``pack_static_encoder``), and back
again (``unpack_file``, ``StaticEncoder``).  The layout is that of kernels/include/tinydancer.h,
which is the reference; this module is its second, readable implementation in NumPy.  The encoder
builders write with it, the tests use it as the oracle of the C code.  It never runs while routing.

Vocabulary
    section    a named array in a file, starting at a multiple of 64 bytes
    piece      a word piece as in vocab.txt: "play", "##ing"
    row        the vector of a piece; pieces below ``first_row`` have none and weigh nothing
    code       which of 256 scales turns a row's int8 values into floats
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "FLAG_CLEAN",
    "FLAG_LOWERCASE",
    "FLAG_SPLIT_CJK",
    "FLAG_STRIP_ACCENTS",
    "KIND_BERT_ENCODER",
    "KIND_MODEL",
    "KIND_STATIC_ENCODER",
    "NO_ID",
    "EncoderFileError",
    "EncoderHeader",
    "StaticEncoder",
    "TdFile",
    "Vocab",
    "encoder_sections",
    "fnv1a32",
    "hash64",
    "pack_file",
    "pack_static_encoder",
    "quantise_rows",
    "scale_table",
    "unpack_file",
    "write_file",
]

MAGIC = b"TDFILE\r\n"
FILE_VERSION = 1
MAX_SECTIONS = 1024
ID_PATTERN = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,31}")
HEADER_SIZE = 128
ENTRY_SIZE = 48
ALIGNMENT = 64

KIND_STATIC_ENCODER = 1
KIND_BERT_ENCODER = 2
KIND_MODEL = 3

FLAG_LOWERCASE = 1
FLAG_STRIP_ACCENTS = 2
FLAG_SPLIT_CJK = 4
FLAG_CLEAN = 8

VOCAB_MAX = 65534
EMPTY_SLOT = 65535
MAX_DIM = 4096
MAX_TOKENS = 8192
N_SCALES = 256
NO_ID = 2**32 - 1  # of a special token, other than [UNK], that a vocabulary lacks

# Element type in the file <-> NumPy type; little-endian is spelled out.
_ELEMENTS: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("i1"),
    3: np.dtype("<u2"),
    4: np.dtype("<u4"),
    5: np.dtype("<f4"),
    6: np.dtype("<i4"),
}
_ELEMENT_OF = {dtype: code for code, dtype in _ELEMENTS.items()}

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]


class EncoderFileError(ValueError):
    """Bytes that are not a file of ours, or not one that can be trusted; in the kernel's words."""


def hash64(data: bytes | bytearray | memoryview) -> int:
    """XXH64 of ``data`` with seed 0.

    Taken from the kernel where it is built, else from the ``xxhash`` package: the builders of
    encoders run before there is a compiler.

    Raises:
        ImportError: neither is there.
    """
    try:
        from tinydancer._kernels import hash64 as kernel_hash64
    except ImportError:
        import xxhash

        return int(xxhash.xxh64_intdigest(data, 0))
    return int(kernel_hash64(bytes(data)))


# ------------------------------------------------------------------------------------- container


@dataclass(frozen=True)
class TdFile:
    """A checked file: its kind, its id and its sections as read-only one-dimensional arrays."""

    kind: int
    id: str
    checksum: int
    sections: Mapping[str, Array] = field(repr=False)


def pack_file(kind: int, file_id: str, sections: Mapping[str, Array]) -> bytes:
    """The bytes of a file with these sections, in the order given.

    Args:
        kind: one of ``KIND_...``.
        file_id: 1 to 32 of ``[a-z0-9._-]``, not a dot first; it pins the content for ever.
        sections: name (1 to 23 ASCII characters) to array of uint8, int8, uint16, uint32 or
            float32, of any shape; it is written in C order.

    Raises:
        ValueError: an id, a name, a count or an element type that the format cannot hold.
    """
    if not ID_PATTERN.fullmatch(file_id):
        raise ValueError(f'id "{file_id}" is not made of 1 to 32 of a-z, 0-9, ".", "_" and "-"')
    if len(sections) > MAX_SECTIONS:
        raise ValueError(f"{len(sections)} sections are more than {MAX_SECTIONS}")
    table = bytearray()
    body = bytearray()
    start = HEADER_SIZE + ENTRY_SIZE * len(sections)
    for name, array in sections.items():
        encoded = name.encode("ascii")
        if not 1 <= len(encoded) <= 23:
            raise ValueError(f'section name "{name}" is not 1 to 23 bytes long')
        element = _ELEMENT_OF.get(array.dtype.newbyteorder("<"))
        if element is None:
            raise ValueError(f'section "{name}" has elements of type {array.dtype}')
        data = np.ascontiguousarray(array, dtype=_ELEMENTS[element]).tobytes()
        body += bytes(-(start + len(body)) % ALIGNMENT)
        table += struct.pack("<24sIIQQ", encoded, element, 0, start + len(body), len(data))
        body += data
    tail = struct.pack("<32sI60x", file_id.encode("ascii"), len(sections)) + table + body
    size = 32 + len(tail)
    return struct.pack("<8sIIQQ", MAGIC, FILE_VERSION, kind, size, hash64(tail)) + tail


def unpack_file(data: bytes) -> TdFile:
    """Look at ``data`` as a file of ours, with the checks of ``td_file_open()``.

    Raises:
        EncoderFileError: with the kernel's sentence for the same fault.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise EncoderFileError("not a tinydancer file")
    if len(data) < HEADER_SIZE:
        raise EncoderFileError("file is truncated")
    _, version, kind, size, checksum = struct.unpack_from("<8sIIQQ", data)
    if version != FILE_VERSION:
        raise EncoderFileError("unsupported tinydancer file version")
    if size != len(data):
        raise EncoderFileError("file is truncated")
    if hash64(memoryview(data)[32:]) != checksum:
        raise EncoderFileError("file is corrupt: checksum does not match")
    raw_id, n_sections = struct.unpack_from("<32sI", data, 32)
    file_id = raw_id.rstrip(b"\0").decode("ascii", "replace")
    corrupt = EncoderFileError("file is corrupt")
    if not ID_PATTERN.fullmatch(file_id):
        raise corrupt
    end = HEADER_SIZE + ENTRY_SIZE * n_sections
    if n_sections > MAX_SECTIONS or end > size:
        raise corrupt
    sections: dict[str, Array] = {}
    for i in range(n_sections):
        raw_name, element, offset, length = struct.unpack_from(
            "<24sI4xQQ", data, HEADER_SIZE + ENTRY_SIZE * i
        )
        name = raw_name.partition(b"\0")[0].decode("ascii", "replace")
        dtype = _ELEMENTS.get(element)
        if dtype is None or not name or raw_name[23]:
            raise corrupt
        if offset % ALIGNMENT or offset < end or offset + length > size or length % dtype.itemsize:
            raise corrupt
        end = offset + length
        # Of two sections of one name the first counts, as in td_file_section().
        sections.setdefault(name, np.frombuffer(data, dtype, length // dtype.itemsize, offset))
    return TdFile(kind, file_id, checksum, sections)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Put ``data`` at ``path`` by rename: whoever has the old file mapped keeps reading it."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


# ------------------------------------------------------------------------------------- vocabulary


def fnv1a32(data: bytes) -> int:
    """FNV-1a, 32 bits (Fowler, Noll and Vo)."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


@dataclass(frozen=True)
class Vocab:
    """The word pieces of an encoder in id order, with a hash index to find a piece's id."""

    pieces: tuple[bytes, ...]
    n_slots: int

    def __post_init__(self) -> None:
        n = len(self.pieces)
        if not 1 <= n <= VOCAB_MAX:
            raise ValueError(f"a vocabulary has 1 to {VOCAB_MAX} pieces, this one {n}")
        if not n < self.n_slots < 2**32:
            raise ValueError(f"an index of {self.n_slots} slots cannot hold {n} pieces")
        if len(set(self.pieces)) != n or b"" in self.pieces:
            raise ValueError("a vocabulary has empty or repeated pieces")

    @classmethod
    def from_text(cls, text: str, n_slots: int | None = None) -> Vocab:
        """From the content of a vocab.txt: one piece a line.  By default 1.6 slots a piece."""
        pieces = tuple(line.encode() for line in text.rstrip("\n").split("\n"))
        return cls(pieces, n_slots or max(len(pieces) + 1, len(pieces) * 8 // 5))

    @classmethod
    def from_sections(cls, sections: Mapping[str, Array]) -> Vocab:
        """From the sections that ``sections()`` made."""
        text = sections["vocab.text"].tobytes()
        offset = sections["vocab.offset"].astype(np.int64)
        base = sections["vocab.base"].astype(np.int64)
        ends = base[np.arange(offset.size) >> 8] + offset
        if ends[0] != 0 or np.any(np.diff(ends) <= 0) or ends[-1] != len(text):
            raise EncoderFileError("file is corrupt")
        pieces = tuple(text[a:b] for a, b in pairwise(ends.tolist()))
        return cls(pieces, sections["vocab.index"].size)

    def slot(self, piece: bytes) -> int:
        """Where the probe for ``piece`` starts."""
        return (((fnv1a32(piece) * 0x9E3779B1) & 0xFFFFFFFF) * self.n_slots) >> 32

    def find(self, piece: bytes, index: npt.NDArray[np.uint16]) -> int | None:
        """The id of ``piece`` by probing ``index``, None if there is none."""
        slot = self.slot(piece)
        while index[slot] != EMPTY_SLOT:
            if self.pieces[index[slot]] == piece:
                return int(index[slot])
            slot = (slot + 1) % self.n_slots
        return None

    def sections(self) -> dict[str, Array]:
        """The four sections of ``td_vocab``."""
        n = len(self.pieces)
        ends = np.zeros(n + 1, np.int64)
        np.cumsum([len(piece) for piece in self.pieces], out=ends[1:])
        base = ends[::256]
        offset = ends - base[np.arange(n + 1) >> 8]
        if offset.max() > 0xFFFF:
            raise ValueError("256 word pieces in a row take more than 65,535 bytes")
        index = np.full(self.n_slots, EMPTY_SLOT, np.uint16)
        for i, piece in enumerate(self.pieces):
            slot = self.slot(piece)
            while index[slot] != EMPTY_SLOT:
                slot = (slot + 1) % self.n_slots
            index[slot] = i
        return {
            "vocab.text": np.frombuffer(b"".join(self.pieces), np.uint8),
            "vocab.base": base.astype(np.uint32),
            "vocab.offset": offset.astype(np.uint16),
            "vocab.index": index,
        }


# ------------------------------------------------------------------------------------- encoders


@dataclass(frozen=True)
class EncoderHeader:
    """The section "encoder": shapes, the vocabulary's special ids, the constants of fit."""

    dim: int
    max_tokens: int
    vocab_size: int
    first_row: int
    flags: int
    unk_id: int
    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int
    fit_mu: float
    fit_s: float

    def pack(self) -> npt.NDArray[np.uint32]:
        """As uint32[16].

        Raises:
            ValueError: a shape, an id or a constant that ``td_encoder_open()`` would refuse.
        """
        specials = (self.unk_id, self.cls_id, self.sep_id, self.pad_id, self.mask_id)
        if not (1 <= self.dim <= MAX_DIM and 1 <= self.max_tokens <= MAX_TOKENS):
            raise ValueError(f"encoder of {self.dim} dimensions and {self.max_tokens} word pieces")
        if not 0 <= self.first_row <= self.vocab_size <= VOCAB_MAX:
            raise ValueError(f"first row {self.first_row} of {self.vocab_size} word pieces")
        if not 0 <= self.unk_id < self.vocab_size or any(
            not (0 <= i < self.vocab_size or i == NO_ID) for i in specials
        ):
            raise ValueError(f"special ids {specials} outside {self.vocab_size} word pieces")
        if not (-1 <= self.fit_mu <= 1 and 1e-6 <= self.fit_s <= 1e6):
            raise ValueError(f"constants of fit mu={self.fit_mu} and s={self.fit_s}")
        constants = np.array([self.fit_mu, self.fit_s], "<f4").view("<u4")
        return np.array(
            [
                self.dim,
                self.max_tokens,
                self.vocab_size,
                self.first_row,
                self.flags,
                *specials,
                *constants,
                0,
                0,
                0,
                0,
            ],
            np.uint32,
        )

    @classmethod
    def unpack(cls, section: Array) -> EncoderHeader:
        """From the section as read."""
        if section.dtype != np.dtype("<u4") or section.size != 16 or np.any(section[12:]):
            raise EncoderFileError("file is corrupt")
        mu, s = np.ascontiguousarray(section[10:12]).view("<f4")
        dim, max_tokens, size, first, flags, *specials = (int(value) for value in section[:10])
        unk, cls_id, sep, pad, mask = specials
        return cls(
            dim, max_tokens, size, first, flags, unk, cls_id, sep, pad, mask, float(mu), float(s)
        )


def encoder_sections(header: EncoderHeader, vocab: Vocab, about: str) -> dict[str, Array]:
    """The sections that every encoder has; a BERT encoder's weights follow them."""
    return {
        "encoder": header.pack(),
        **vocab.sections(),
        "about": np.frombuffer(about.encode(), np.uint8),
    }


def scale_table(needed: Float32Array) -> Float32Array:
    """256 scales at equal ratios, from the smallest positive to the greatest value of ``needed``.

    Args:
        needed: ``(n,) float32``, greatest magnitude of each row divided by 127.

    Returns:
        ``(256,) float32``, rising strictly; entry 0 is the smallest scale that is needed.
    """
    positive = needed[needed > 0].astype(np.float64)
    low, high = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)
    # The last step up keeps the greatest row within 127 after rounding to float32.
    high = max(high, low * 1.001) * (1 + 1e-6)
    table = np.exp(np.linspace(np.log(low), np.log(high), N_SCALES)).astype(np.float32)
    table[0] = np.float32(low)
    return table


def quantise_rows(rows: Float32Array) -> tuple[Int8Array, npt.NDArray[np.uint8], Float32Array]:
    """Rows as int8 with one of 256 scales each.

    A row takes the smallest scale that holds it, and is rounded with that very scale, so the
    coarseness of the scales costs at most their ratio in resolution and nothing in length.

    Args:
        rows: ``(n, dim) float32``, finite.

    Returns:
        values ``(n, dim) int8``, codes ``(n,) uint8`` and scales ``(256,) float32`` with
        ``rows[i] ~ values[i] * scales[codes[i]]``.

    Raises:
        ValueError: a NaN or an infinity.
    """
    if not np.all(np.isfinite(rows)):
        raise ValueError("vector is not finite")
    needed = (np.abs(rows).max(axis=1) / np.float32(127)).astype(np.float32)
    scales = scale_table(needed)
    codes = np.minimum(np.searchsorted(scales, needed), N_SCALES - 1)
    values = np.rint(rows / scales[codes][:, None])
    return values.clip(-127, 127).astype(np.int8), codes.astype(np.uint8), scales


def pack_static_encoder(
    file_id: str, header: EncoderHeader, vocab: Vocab, rows: Float32Array, about: str
) -> bytes:
    """The bytes of a static encoder.

    Args:
        file_id: see ``pack_file``.
        header: its dim and first_row must fit ``rows``.
        vocab: all pieces, also those without a row.
        rows: ``(vocab_size - first_row, dim) float32``, importance weights included.
        about: provenance and licence, for people.

    Raises:
        ValueError: shapes that contradict each other, or rows that are not finite.
    """
    if header.vocab_size != len(vocab.pieces):
        raise ValueError(
            f"header of {header.vocab_size} word pieces, there are {len(vocab.pieces)}"
        )
    if rows.shape != (header.vocab_size - header.first_row, header.dim):
        raise ValueError(f"rows of shape {rows.shape} do not fit the header")
    values, codes, scales = quantise_rows(rows.astype(np.float32))
    sections = {
        **encoder_sections(header, vocab, about),
        "static.row": values,
        "static.code": codes,
        "static.scale": scales,
    }
    return pack_file(KIND_STATIC_ENCODER, file_id, sections)


@dataclass(frozen=True)
class StaticEncoder:
    """A static encoder as read from its file, the oracle of ``td_embed_text()``."""

    file: TdFile
    header: EncoderHeader
    vocab: Vocab
    rows: Int8Array = field(repr=False)
    codes: npt.NDArray[np.uint8] = field(repr=False)
    scales: Float32Array = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> StaticEncoder:
        """Read and check a file.

        Raises:
            EncoderFileError: not a static encoder, or one that is not whole.
        """
        file = unpack_file(data)
        if file.kind != KIND_STATIC_ENCODER:
            raise EncoderFileError("file is of the wrong kind")
        try:
            header = EncoderHeader.unpack(file.sections["encoder"])
            vocab = Vocab.from_sections(file.sections)
            rows, codes, scales = (
                file.sections[name] for name in ("static.row", "static.code", "static.scale")
            )
        except KeyError as missing:
            raise EncoderFileError("file is corrupt") from missing
        n = header.vocab_size - header.first_row
        if (
            header.vocab_size != len(vocab.pieces)
            or rows.size != n * header.dim
            or codes.size != n
            or scales.size != N_SCALES
        ):
            raise EncoderFileError("file is corrupt")
        return cls(file, header, vocab, rows.reshape(n, header.dim), codes, scales)

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> StaticEncoder:
        """``from_bytes`` of the file at ``path``."""
        return cls.from_bytes(Path(path).read_bytes())

    def table(self) -> Float32Array:
        """``(vocab_size, dim) float32``: every piece's weighted vector, zeros for those without."""
        out = np.zeros((self.header.vocab_size, self.header.dim), np.float32)
        out[self.header.first_row :] = self.rows * self.scales[self.codes][:, None]
        return out

    def embed_ids(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Float32Array:
        """The unit vector of a text given as word-piece ids, without [CLS] and [SEP].

        Args:
            ids: ``(n,)``, in text order; only the first ``max_tokens`` are read.

        Returns:
            ``(dim,) float32``, of length 1, or of length 0 when no piece has a row.
        """
        known = np.asarray(ids, np.int64)[: self.header.max_tokens] - self.header.first_row
        known = known[known >= 0]
        rows = self.rows[known].astype(np.float64)
        total = (rows * self.scales[self.codes[known]].astype(np.float64)[:, None]).sum(axis=0)
        length = np.sqrt((total * total).sum())
        unit: Float32Array = (total / length if length > 0 else total).astype(np.float32)
        return unit
