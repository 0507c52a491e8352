"""Writes and reads model files: what training has learned, as the kernel applies it.

A ``ModelSpec`` of float arrays goes in, the bytes of a file come out (``write_model``), and back
again (``read_model``).  ``tinydancer.model_apply`` is the readable second implementation of what
kernels/src/td_model.c computes from them; kernels/include/tinydancer.h describes the layout and is
the reference.  Called by tinydancer.train, by ``tinydancer model`` and by tests.

Vocabulary
    output     what has a probability: a category, a capability or an agent
    member     a part of the ensemble; its scores are weighted and added to those of the others
    row        the stored vector of a training request; KNN and RBF members share them
    width      of what members read: the vector and, with a projection, columns of words beside it
    support    how many labels of an output training has seen; 0: the model does not cover it
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.encoder_file import KIND_MODEL, TdFile, pack_file, unpack_file

__all__ = [
    "LINKS",
    "MAX_ROWS",
    "MAX_STEPS",
    "TASKS",
    "WORDS_BIGRAMS",
    "WORDS_LENGTH",
    "WORDS_UNIGRAMS",
    "FastGrnn",
    "Knn",
    "Linear",
    "Member",
    "ModelSpec",
    "Projection",
    "Rbf",
    "Words",
    "from_safetensors",
    "read_model",
    "to_safetensors",
    "write_model",
]

TASKS = ("classifier", "capabilities", "quality")
LINKS = ("softmax", "sigmoid", "identity")
FORMAT, FORMAT_PROJECTION = 1, 2
RANK_STEP = 16
MAX_ROWS = 65536
MAX_OUTPUTS = 4096
MAX_MEMBERS = 8
MAX_STEPS = 512
MIN_BUCKETS = 256
MAX_BUCKETS = 1 << 20
META_SIZE = 16
MEMBER_SIZE = 8
MISSING = 255
VALUE_STEPS = 254

WORDS_UNIGRAMS = 1
WORDS_BIGRAMS = 2
WORDS_LENGTH = 4

F32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Linear:
    """Scores ``matrix @ vector + bias``.

    Attributes:
        weight: ``(n_out,)`` what the scores are multiplied by.
        matrix: ``(n_out, width)``.
        bias: ``(n_out,)``.
        int8: write the matrix as int8, a scale for each row.
    """

    weight: Array
    matrix: Array
    bias: Array
    int8: bool = False


@dataclass(frozen=True)
class FastGrnn:
    """Scores ``head @ h + head_bias`` of the hidden state h of a FastGRNN cell.

    Without ``steps`` h is one step from the zero state on the request's vector; with them it is the
    state after a sequence of at most so many token vectors of a static encoder, and w has dim
    columns.

    Attributes:
        weight: ``(n_out,)``.
        w: gate's input matrix ``(n_hidden, width)``, or factors ``(n_hidden, r)``, ``(r, width)``.
        u: gate's state matrix ``(n_hidden, n_hidden)``, or factors; None: zeros.
        w_h: candidate's input matrix, shaped as w; None: tied to w.
        u_h: candidate's state matrix, shaped as u; None with w_h: zeros.
        b_z: ``(n_hidden,)``.
        b_h: ``(n_hidden,)``.
        zeta: in [0, 1], after the sigmoid.
        nu: in [0, 1], after the sigmoid.
        head: ``(n_out, n_hidden)``.
        head_bias: ``(n_out,)``.
        int8: write the matrices and the head as int8, a scale for each row.
        steps: 0, or the greatest number of token vectors read.
        token_scale: what token vectors are multiplied by.
    """

    weight: Array
    w: Array | tuple[Array, Array]
    b_z: Array
    b_h: Array
    zeta: float
    nu: float
    head: Array
    head_bias: Array
    u: Array | tuple[Array, Array] | None = None
    w_h: Array | tuple[Array, Array] | None = None
    u_h: Array | tuple[Array, Array] | None = None
    int8: bool = False
    steps: int = 0
    token_scale: float = 1.0


@dataclass(frozen=True)
class Knn:
    """Scores the mean value of the k nearest rows, shrunk to the prior by pseudo-counts.

    Attributes:
        weight: ``(n_out,)``.
        values: ``(n_rows, n_out)`` in [0, 1], NaN where a row has none; kept in steps of 1/254.
        k: how many rows, of all.
        temperature: a row counts ``exp((cosine - 1) / temperature)``; infinity: all the same.
        pseudo: how many rows the prior counts for.
    """

    weight: Array
    values: Array
    k: int
    temperature: float = float("inf")
    pseudo: float = 0.0


@dataclass(frozen=True)
class Rbf:
    """Scores ``bias + sum_i coefficients[i] exp(-gamma (2 - 2 cosine_i))`` over the rows.

    Attributes:
        weight: ``(n_out,)``.
        coefficients: ``(n_rows, n_out)``.
        bias: ``(n_out,)``.
        gamma: greater than 0.
        int8: write the coefficients as int8, a scale for each output.
    """

    weight: Array
    coefficients: Array
    bias: Array
    gamma: float
    int8: bool = False


@dataclass(frozen=True)
class Words:
    """Scores ``bias + x @ table`` of hashed word pieces and pairs of them.

    ``x[f] = sqrt(count of f) * idf[f]``, divided by its Euclidean length.

    Attributes:
        weight: ``(n_out,)``.
        table: ``(n_buckets, n_out)``; written as int8 with a scale for each output.
        bias: ``(n_out,)``.
        idf: ``(n_buckets,)``, not negative.
        features: sum of WORDS_UNIGRAMS, WORDS_BIGRAMS, WORDS_LENGTH.
    """

    weight: Array
    table: Array
    bias: Array
    idf: Array
    features: int = WORDS_UNIGRAMS | WORDS_BIGRAMS


@dataclass(frozen=True)
class Projection:
    """Words of a request as columns beside its vector; every member but sequences reads both.

    ``(vector, share * c) / sqrt(1 + share**2)`` with ``c = s / |s|`` and
    ``s = sum_f sqrt(count of f) * table[f]``; where s is 0, because there is no text or no word of
    it is known, ``(vector * sqrt(1 + share**2), 0)``.

    Attributes:
        table: ``(n_buckets, rank)``; written as int8 with a scale for each bucket.  The rank is a
            multiple of RANK_STEP.
        share: length of the columns, where that of the vector is 1.
        features: sum of WORDS_UNIGRAMS, WORDS_BIGRAMS, WORDS_LENGTH.
    """

    table: Array
    share: float
    features: int = WORDS_UNIGRAMS | WORDS_BIGRAMS


Member = Linear | FastGrnn | Knn | Rbf | Words
_KINDS: dict[type, int] = {Linear: 1, FastGrnn: 2, Knn: 3, Rbf: 4, Words: 5}


@dataclass(frozen=True)
class ModelSpec:
    """A model as arrays.

    Attributes:
        task: one of TASKS.
        names: of the outputs, distinct and not empty.
        encoder_id: whose vectors it reads.
        encoder_checksum: of that encoder's file.
        dim: of those vectors.
        link: what turns the weighted sum into a probability: one of LINKS.
        prior: ``(n_out,)`` base rate of each output, in [0, 1].
        support: ``(n_out,)`` labels seen of each output.
        members: 1 to 8.
        rows: ``(n_rows, width)`` unit vectors that KNN and RBF members refer to, or None.
        curve_x: ``(n_curves, n_knots)`` increasing; calibration, see ``curve_y``; None: none.
        curve_y: ``(n_curves, n_knots)`` in [0, 1], not decreasing.  One curve for all outputs or
            one for each; a classifier has at most one, for its most probable category.
        projection: of words beside the vector; None: members read the vector alone.
    """

    task: str
    names: Sequence[str]
    encoder_id: str
    encoder_checksum: int
    dim: int
    link: str
    prior: Array
    support: Array
    members: Sequence[Member]
    rows: Array | None = field(default=None, repr=False)
    curve_x: Array | None = None
    curve_y: Array | None = None
    projection: Projection | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        """Length of what members read."""
        return self.dim + (0 if self.projection is None else np.shape(self.projection.table)[1])

    @property
    def n_out(self) -> int:
        """How many outputs there are."""
        return len(self.names)

    @property
    def n_rows(self) -> int:
        """How many rows are stored."""
        return 0 if self.rows is None else len(self.rows)


# --------------------------------------------------------------------------------------- writing


def quantise(rows: Array) -> tuple[npt.NDArray[np.int8], F32]:
    """Each row as int8 and a scale, as ``td_vec_quantise()`` does it.

    Args:
        rows: ``(n, dim)``.

    Returns:
        ``(n, dim) int8`` and ``(n,) float32``; a row is about ``int8 * scale``.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    greatest = np.abs(rows).max(axis=1, initial=0.0)
    scales = (greatest / np.float32(127)).astype(np.float32)
    divisor = np.where(scales > 0, scales, 1)[:, None]
    values = np.rint(rows / divisor).clip(-127, 127).astype(np.int8)
    return values, scales


def _shaped(what: str, array: Array, shape: tuple[int, ...]) -> F32:
    result = np.ascontiguousarray(array, np.float32)
    if result.shape != shape:
        raise ValueError(f"{what} has shape {result.shape} and must have {shape}")
    if not np.isfinite(result).all():
        raise ValueError(f"{what} contains NaN or infinity")
    return result


class _Writer:
    """Collects the sections of a file."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.sections: dict[str, Array] = {}

    def floats(self, name: str, array: Array, *shape: int) -> None:
        self.sections[name] = _shaped(name, array, shape)

    def matrix(self, name: str, array: Array, shape: tuple[int, int], int8: bool) -> None:
        """A matrix [n_out][n_in], and with int8 the scales of its rows as NAME.s."""
        checked = _shaped(name, array, shape)
        if int8:
            self.sections[name], self.sections[f"{name}.s"] = quantise(checked)
        else:
            self.sections[name] = checked

    def columns(self, name: str, array: Array, shape: tuple[int, int]) -> None:
        """A table of int8 with a scale for each column as NAME.s."""
        values, scales = quantise(_shaped(name, array, shape).T)
        self.sections[name] = np.ascontiguousarray(values.T)
        self.sections[f"{name}.s"] = scales

    def factored(
        self, name: str, array: Array | tuple[Array, Array], n_out: int, n_in: int, int8: bool
    ) -> int:
        """A matrix or its two factors; returns the rank, 0 for a full matrix."""
        if not isinstance(array, tuple):
            self.matrix(f"{name}.r", array, (n_out, n_in), int8)
            return 0
        left, right = array
        rank = int(np.shape(right)[0])
        self.matrix(f"{name}.l", left, (n_out, rank), int8)
        self.matrix(f"{name}.r", right, (rank, n_in), int8)
        return rank

    def linear(self, at: str, m: Linear) -> list[int]:
        n = self.spec.n_out
        self.matrix(f"{at}.w", m.matrix, (n, self.spec.width), m.int8)
        self.floats(f"{at}.b", m.bias, n)
        return [int(m.int8)]

    def fastgrnn(self, at: str, m: FastGrnn) -> list[int]:
        n, hidden = self.spec.n_out, len(m.b_z)
        dim = self.spec.dim if m.steps else self.spec.width
        none = np.zeros((hidden, hidden), np.float32)
        if m.w_h is None and m.u_h is not None:
            raise ValueError("a tied cell has no matrices of its own for the candidate")
        u = none if m.u is None else m.u
        rank_w = self.factored(f"{at}.w", m.w, hidden, dim, m.int8)
        rank_u = self.factored(f"{at}.u", u, hidden, hidden, m.int8)
        if m.w_h is not None:
            u_h = m.u_h
            if u_h is None:
                u_h = u if m.u is None else _zeros_like(m.u)
            ranks = (
                self.factored(f"{at}.wh", m.w_h, hidden, dim, m.int8),
                self.factored(f"{at}.uh", u_h, hidden, hidden, m.int8),
            )
            if ranks != (rank_w, rank_u):
                raise ValueError("gate and candidate have matrices of different ranks")
        self.floats(f"{at}.zn", np.array([m.zeta, m.nu, m.token_scale]), 3)
        self.floats(f"{at}.bz", m.b_z, hidden)
        self.floats(f"{at}.bh", m.b_h, hidden)
        self.matrix(f"{at}.o", m.head, (n, hidden), m.int8)
        self.floats(f"{at}.ob", m.head_bias, n)
        return [int(m.int8), hidden, rank_w, rank_u, int(m.w_h is None), m.steps]

    def knn(self, at: str, m: Knn) -> list[int]:
        values = np.asarray(m.values, np.float64)
        if values.shape != (self.spec.n_rows, self.spec.n_out):
            raise ValueError(f"values of shape {values.shape} do not fit the rows")
        coded = np.full(values.shape, MISSING, np.uint8)
        known = ~np.isnan(values)
        coded[known] = np.rint(values[known].clip(0, 1) * VALUE_STEPS).astype(np.uint8)
        self.sections[f"{at}.v"] = coded
        self.floats(f"{at}.p", np.array([1.0 / m.temperature, m.pseudo]), 2)
        return [m.k]

    def rbf(self, at: str, m: Rbf) -> list[int]:
        shape = (self.spec.n_rows, self.spec.n_out)
        if m.int8:
            self.columns(f"{at}.c", m.coefficients, shape)
        else:
            self.floats(f"{at}.c", m.coefficients, *shape)
        self.floats(f"{at}.b", m.bias, self.spec.n_out)
        self.floats(f"{at}.p", np.array([m.gamma]), 1)
        return [int(m.int8)]

    def words(self, at: str, m: Words) -> list[int]:
        buckets = len(m.idf)
        self.columns(f"{at}.w", m.table, (buckets, self.spec.n_out))
        self.floats(f"{at}.b", m.bias, self.spec.n_out)
        self.floats(f"{at}.idf", m.idf, buckets)
        return [buckets, m.features]

    def projection(self, p: Projection) -> list[int]:
        buckets, rank = np.shape(p.table)
        values, scales = quantise(_shaped("words", p.table, (buckets, rank)))
        self.sections["words"], self.sections["words.s"] = values, scales
        self.floats("words.p", np.array([p.share]), 1)
        return [rank, buckets, p.features]

    def member(self, at: str, m: Member) -> list[int]:
        if isinstance(m, Linear):
            return self.linear(at, m)
        if isinstance(m, FastGrnn):
            return self.fastgrnn(at, m)
        if isinstance(m, Knn):
            return self.knn(at, m)
        if isinstance(m, Rbf):
            return self.rbf(at, m)
        return self.words(at, m)


def _zeros_like(u: Array | tuple[Array, Array]) -> Array | tuple[Array, Array]:
    if isinstance(u, tuple):
        return np.zeros_like(u[0]), np.zeros_like(u[1])
    return np.zeros_like(u)


def write_model(spec: ModelSpec) -> bytes:
    """The bytes of a model file; the kernel accepts them or this raises.

    Raises:
        ValueError: arrays that contradict each other or that the format cannot hold.
    """
    writer = _Writer(spec)
    n = spec.n_out
    n_curves, n_knots = (0, 0) if spec.curve_x is None else np.shape(spec.curve_x)
    encoder = spec.encoder_id.encode("ascii")
    names = b"".join(name.encode() + b"\0" for name in spec.names)
    if len(set(spec.names)) != n or not all(spec.names) or names.count(b"\0") != n:
        raise ValueError("names of outputs must be distinct, not empty and without zero bytes")
    sections = writer.sections
    sections["model"] = np.zeros(META_SIZE, np.uint32)
    sections["encoder.id"] = np.frombuffer(encoder.ljust(32, b"\0"), np.uint8)
    sections["names"] = np.frombuffer(names, np.uint8)
    writer.floats("prior", spec.prior, n)
    sections["support"] = np.asarray(spec.support).astype(np.uint32)
    if spec.rows is not None:
        rows = _shaped("rows", spec.rows, (spec.n_rows, spec.width))
        sections["rows"], sections["rows.s"] = quantise(rows)
    if spec.curve_x is not None and spec.curve_y is not None:
        writer.floats("curve.x", spec.curve_x, n_curves, n_knots)
        writer.floats("curve.y", spec.curve_y, n_curves, n_knots)
    for i, member in enumerate(spec.members):
        at = f"m{i}"
        writer.floats(f"{at}.weight", member.weight, n)
        meta = [_KINDS[type(member)], *writer.member(at, member)]
        sections[at] = np.array(meta + [0] * (MEMBER_SIZE - len(meta)), np.uint32)
    # Older versions read a model without a projection as before.
    words = [] if spec.projection is None else writer.projection(spec.projection)
    version = FORMAT_PROJECTION if words else FORMAT
    meta = [version, TASKS.index(spec.task), LINKS.index(spec.link), n, spec.dim, spec.n_rows]
    meta += [len(spec.members), n_curves, n_knots]
    meta += [spec.encoder_checksum & 0xFFFFFFFF, spec.encoder_checksum >> 32, *words]
    sections["model"] = np.array(meta + [0] * (META_SIZE - len(meta)), np.uint32)
    data = pack_file(KIND_MODEL, spec.task, sections)

    # The one judge of what can be served is the kernel.
    from tinydancer._kernels import Model

    Model(data)
    return data


# --------------------------------------------------------------------------------------- reading


class _Reader:
    """Takes the arrays of members out of a file."""

    def __init__(self, file: TdFile, n_out: int, dim: int, width: int, n_rows: int) -> None:
        self.sections = file.sections
        self.n_out = n_out
        self.dim = dim
        self.width = width
        self.n_rows = n_rows

    def matrix(self, name: str, n_out: int, n_in: int) -> F32:
        values = self.sections[name].reshape(n_out, n_in)
        if values.dtype == np.int8:
            return np.asarray(values * self.sections[f"{name}.s"][:, None], np.float32)
        return np.asarray(values, np.float32)

    def columns(self, name: str, n: int) -> F32:
        values = self.sections[name].reshape(n, self.n_out)
        if values.dtype == np.int8:
            return np.asarray(values * self.sections[f"{name}.s"], np.float32)
        return np.asarray(values, np.float32)

    def factored(self, name: str, n_out: int, n_in: int, rank: int) -> F32 | tuple[F32, F32]:
        if rank == 0:
            return self.matrix(f"{name}.r", n_out, n_in)
        return self.matrix(f"{name}.l", n_out, rank), self.matrix(f"{name}.r", rank, n_in)

    def member(self, at: str) -> Member:
        s = self.sections
        kind, *p = (int(v) for v in s[at])
        weight = s[f"{at}.weight"]
        if kind == _KINDS[Linear]:
            matrix = self.matrix(f"{at}.w", self.n_out, self.width)
            return Linear(weight, matrix, s[f"{at}.b"], bool(p[0]))
        if kind == _KINDS[FastGrnn]:
            int8, hidden, rank_w, rank_u, tied, steps, *_ = p
            dim = self.dim if steps else self.width
            zeta, nu, token_scale = (float(v) for v in s[f"{at}.zn"])
            return FastGrnn(
                weight,
                self.factored(f"{at}.w", hidden, dim, rank_w),
                s[f"{at}.bz"],
                s[f"{at}.bh"],
                zeta,
                nu,
                self.matrix(f"{at}.o", self.n_out, hidden),
                s[f"{at}.ob"],
                self.factored(f"{at}.u", hidden, hidden, rank_u),
                None if tied else self.factored(f"{at}.wh", hidden, dim, rank_w),
                None if tied else self.factored(f"{at}.uh", hidden, hidden, rank_u),
                bool(int8),
                steps,
                token_scale,
            )
        if kind == _KINDS[Knn]:
            coded = s[f"{at}.v"].reshape(self.n_rows, self.n_out)
            values = np.where(coded == MISSING, np.nan, coded / VALUE_STEPS)
            inverse, pseudo = (float(v) for v in s[f"{at}.p"])
            return Knn(weight, values, p[0], 1 / inverse if inverse > 0 else float("inf"), pseudo)
        if kind == _KINDS[Rbf]:
            coefficients = self.columns(f"{at}.c", self.n_rows)
            return Rbf(weight, coefficients, s[f"{at}.b"], float(s[f"{at}.p"][0]), bool(p[0]))
        buckets, features, *_ = p
        table = self.columns(f"{at}.w", buckets)
        return Words(weight, table, s[f"{at}.b"], s[f"{at}.idf"], features)


def read_model(data: bytes) -> ModelSpec:
    """A model as arrays; int8 values come back as floats.

    Raises:
        FileFormatError: not a model, or one that is damaged.
    """
    from tinydancer._kernels import Model

    Model(data)
    file = unpack_file(data)
    s = file.sections
    meta = [int(v) for v in s["model"]]
    _, task, link, n_out, dim, n_rows, n_members, n_curves, n_knots, low, high = meta[:11]
    rank, buckets, features = meta[11:14]
    reader = _Reader(file, n_out, dim, dim + rank, n_rows)
    rows = reader.matrix("rows", n_rows, dim + rank) if n_rows else None
    projection = None
    if rank:
        table = reader.matrix("words", buckets, rank)
        projection = Projection(table, float(s["words.p"][0]), features)
    return ModelSpec(
        TASKS[task],
        bytes(s["names"]).decode().split("\0")[:-1],
        bytes(s["encoder.id"]).rstrip(b"\0").decode(),
        low | high << 32,
        dim,
        LINKS[link],
        s["prior"],
        s["support"],
        [reader.member(f"m{i}") for i in range(n_members)],
        rows,
        s["curve.x"].reshape(n_curves, n_knots) if n_curves else None,
        s["curve.y"].reshape(n_curves, n_knots) if n_curves else None,
        projection,
    )


# ----------------------------------------------------------------------------------- safetensors

_TENSOR_TYPES = {"u1": "U8", "i1": "I8", "u2": "U16", "u4": "U32", "f4": "F32", "i4": "I32"}
_NUMPY_TYPES = {name: np.dtype("<" + code) for code, name in _TENSOR_TYPES.items()}


def to_safetensors(data: bytes) -> bytes:
    """The same model as a file of tensors in the format "safetensors", a tensor a section.

    Raises:
        FileFormatError: not a model, or one that is damaged.
    """
    from tinydancer._kernels import Model

    model = Model(data)
    file = unpack_file(data)
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "tinydancer model",
            "task": model.task,
            "encoder": model.encoder_id,
            # The order of sections is part of the bytes, that of keys in JSON is not.
            "sections": json.dumps(list(file.sections)),
        }
    }
    body = bytearray()
    for name, array in file.sections.items():
        begin = len(body)
        body += array.tobytes()
        header[name] = {
            "dtype": _TENSOR_TYPES[array.dtype.str[1:]],
            "shape": [array.size],
            "data_offsets": [begin, len(body)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def from_safetensors(data: bytes) -> bytes:
    """The bytes of the model that ``to_safetensors`` wrote, to the bit.

    Raises:
        FileFormatError: tensors that are not a model of ours.
    """
    from tinydancer._kernels import Model
    from tinydancer.errors import FileFormatError

    fault = FileFormatError(
        "file of tensors is not a tinydancer model",
        "Its metadata does not say so, or its tensors are not those of a model.",
        "Export one with tinydancer model export.",
    )
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        metadata = header["__metadata__"]
        if metadata["format"] != "tinydancer model":
            raise fault
        sections = {
            str(name): _tensor(header[name], memoryview(data)[8 + length :])
            for name in json.loads(metadata["sections"])
        }
        packed = pack_file(KIND_MODEL, metadata["task"], sections)
    except (ValueError, KeyError, TypeError, struct.error, RecursionError):
        raise fault from None
    Model(packed)
    return packed


def _tensor(entry: Mapping[str, Any], body: memoryview) -> Array:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(body):
        raise ValueError("a tensor lies outside of the file")
    return np.frombuffer(body[begin:end], _NUMPY_TYPES[entry["dtype"]])
