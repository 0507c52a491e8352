# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: embedsignature=False, binding=True
"""The kernel of Tiny Dancer over NumPy arrays.

Contiguous arrays and text come in, new arrays come out; the arithmetic is all in kernels/src.
Called by tinydancer.encoder and tinydancer.route.  This layer checks shapes and bounds, lends
buffers, releases the GIL around each kernel call and turns a status into an exception of
tinydancer.errors.  Its types do not change after construction, so threads may share them.

Strided arrays and other element types raise instead of being copied silently.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport INFINITY, NAN
from libc.stdint cimport SIZE_MAX, int8_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport getenv
from libc.string cimport memcpy, memset, strlen

cimport td

import mmap
import operator
import os

import numpy as np

from tinydancer import errors

__all__ = [
    "AGENT_DTYPE",
    "BEST_LEVEL",
    "BLOCK_LIMITS",
    "BLOCK_WEIGHTS",
    "CANDIDATE_DTYPE",
    "CHOICE_DTYPE",
    "EXACT_ITEMS",
    "FILE_VERSION",
    "LEVELS",
    "LIMIT_NAMES",
    "MAX_DIM",
    "MAX_NEEDS",
    "MAX_PIECES",
    "MAX_TEAM",
    "NEAR_TIE",
    "NONE",
    "NO_REQUEST",
    "RELEVANCE_DTYPE",
    "ROUTE_DTYPE",
    "ROUTE_REPORT_DTYPE",
    "SCORER_NAMES",
    "STRATEGIES",
    "TASKS",
    "Encoder",
    "FastGRNN",
    "File",
    "Model",
    "Registry",
    "Plan",
    "Routes",
    "Scores",
    "Team",
    "cosine",
    "divide_budget",
    "dot",
    "dot_i8",
    "embed_block",
    "exp",
    "fold",
    "hash64",
    "match_block",
    "matvec",
    "norm",
    "normalise",
    "quantise",
    "route_block",
    "sigmoid",
    "solve_plan",
    "status_text",
    "tanh",
    "team_parts",
    "topk_cosine",
    "word_features",
]

# No such capability, pool or phrase: TD_NONE of the header.
NONE = int(td.TD_NONE)
FILE_VERSION = int(td.TD_FILE_VERSION)
MAX_DIM = int(td.TD_MAX_DIM)

# The instruction sets that the kernel has code for, the least first.
LEVELS = tuple(
    td.td_level_name(<td.td_level> i).decode("ascii") for i in range(td.TD_N_LEVELS)
)
BEST_LEVEL = LEVELS[<int> td.td_level_best()]

# In the order of the bits of CANDIDATE_DTYPE's "rejected_by".
LIMIT_NAMES = tuple(td.td_limit_name(i).decode("ascii") for i in range(td.TD_N_LIMITS))

# In the order of td_strategy.
STRATEGIES = tuple(
    td.td_strategy_name(<td.td_strategy> i).decode("ascii") for i in range(td.TD_N_STRATEGIES)
)
MAX_TEAM = int(td.TD_TEAM_MAX)
MAX_NEEDS = int(td.TD_NEEDS_MAX)

# Requests up to which Scores.choices() should keep all choices.
EXACT_ITEMS = int(td.TD_KNAPSACK_EXACT_ITEMS)

# td_vec_dot_i8() is exact up to this length.
cdef enum:
    MAX_I8 = 131072

# The C structs as NumPy sees them; _check_layout() compares the two.
AGENT_DTYPE = np.dtype(
    [
        ("cost_per_1k_tokens", "f8"),
        ("cost_per_1k_output_tokens", "f8"),
        ("cost_per_call", "f8"),
        ("cost_per_second", "f8"),
        ("expected_output_tokens", "f8"),
        ("avg_latency_ms", "f8"),
        ("quality_score", "f8"),
        ("success_rate", "f8"),
        ("first_phrase", "u4"),
        ("n_phrases", "u4"),
        ("first_capability", "u4"),
        ("n_capabilities", "u4"),
        ("pool", "u4"),
        ("active", "u4"),
    ],
    align=True,
)
CANDIDATE_DTYPE = np.dtype(
    [
        ("agent", "u4"),
        ("phrase", "u4"),
        ("rejected_by", "u4"),
        ("missing", "u4"),
        ("similarity", "f4"),
        ("prediction", "u4"),
        ("fit", "f8"),
        ("quality", "f8"),
        ("expected_quality", "f8"),
        ("cost", "f8"),
        ("latency", "f8"),
        ("cost_utility", "f8"),
        ("latency_utility", "f8"),
        ("score", "f8"),
    ],
    align=True,
)

CHOICE_DTYPE = np.dtype(
    [
        ("cost", "f8"),
        ("quality", "f8"),
        ("similarity", "f4"),
        ("agent", "u4"),
        ("phrase", "u4"),
        ("is_known", "u4"),
    ],
    align=True,
)
RELEVANCE_DTYPE = np.dtype(
    [("similarity", "f4"), ("fit", "f8"), ("position", "f8")], align=True
)
_ALLOTMENT_DTYPE = np.dtype([("cost", "f8"), ("requests", "f8"), ("quality", "f8")], align=True)


cdef int _check_layout() except -1:
    cdef td.td_agent agent
    cdef td.td_candidate candidate

    if (
        AGENT_DTYPE.itemsize != sizeof(td.td_agent)
        or AGENT_DTYPE.fields["active"][1] != <char *> &agent.active - <char *> &agent
        or CANDIDATE_DTYPE.itemsize != sizeof(td.td_candidate)
        or CANDIDATE_DTYPE.fields["fit"][1] != <char *> &candidate.fit - <char *> &candidate
        or CANDIDATE_DTYPE.fields["score"][1] != <char *> &candidate.score - <char *> &candidate
        or CHOICE_DTYPE.itemsize != sizeof(td.td_choice)
        or RELEVANCE_DTYPE.itemsize != sizeof(td.td_relevance)
        or _ALLOTMENT_DTYPE.itemsize != sizeof(td.td_allotment)
    ):
        raise ImportError("the structs of tinydancer.h have another layout than their NumPy types")
    return 0


_check_layout()


# ------------------------------------------------------------------ errors and buffers


def status_text(int status):
    """Return the sentence of td_status number ``status``."""
    return td.td_status_text(<td.td_status> status).decode("ascii")


cdef object _error(int status, object detail=None, object hint=None):
    if status == td.TD_ERR_EMPTY:
        detail = detail or "The text holds nothing but white space and control characters."
        hint = hint or "Pass a text with at least one visible character, or None for no decision."
    return errors.error_for_status(status, status_text(status), detail, hint)


cdef int _raise(int status, object detail=None, object hint=None) except -1:
    raise _error(status, detail, hint)


cdef int _level(object name) except -1:
    """The number of a level, checked against what this processor can run."""
    cdef int number

    if name not in LEVELS:
        raise errors.InvalidInputError(
            f'unknown kernel level "{name}"', f"Known levels are {', '.join(LEVELS)}."
        )
    number = LEVELS.index(name)
    if number > <int> td.td_level_best():
        raise errors.InvalidInputError(
            f'this processor cannot run kernel level "{name}"',
            f"The greatest that it can run is {BEST_LEVEL}.",
        )
    return number


cdef int _chosen_level(object level) except -1:
    """The number of a level that was asked for; None: what the environment says, or the best."""
    # os.environ sets the variable of the process too, and reads it a hundred times slower.
    cdef const char *named = getenv("TINYDANCER_KERNEL_LEVEL") if level is None else NULL

    if level is None and (named == NULL or named[0] == 0):
        return <int> td.td_level_best()
    return _level(level if level is not None else named.decode("utf-8", "replace"))


cdef object _wrong_array(str what, object given, str wanted):
    given = np.asarray(given)
    layout = "" if given.flags.c_contiguous else "strided "
    shape = "x".join(str(side) for side in given.shape) or "scalar"
    return errors.ShapeError(
        f"{what} has the wrong shape or element type",
        f"Expected {wanted}, got {layout}{given.dtype} {shape}.",
        "Convert it with numpy.ascontiguousarray(array, dtype).",
    )


cdef const float[::1] _floats(object array, str what="vector"):
    try:
        return array
    except (ValueError, TypeError):
        raise _wrong_array(what, array, "contiguous float32 of 1 dimension") from None


cdef const float[:, ::1] _float_rows(object array, str what="rows"):
    try:
        return array
    except (ValueError, TypeError):
        raise _wrong_array(what, array, "contiguous float32 of 2 dimensions") from None


cdef const int8_t[::1] _int8s(object array, str what="vector"):
    try:
        return array
    except (ValueError, TypeError):
        raise _wrong_array(what, array, "contiguous int8 of 1 dimension") from None


cdef const int8_t[:, ::1] _int8_rows(object array, str what="rows"):
    try:
        return array
    except (ValueError, TypeError):
        raise _wrong_array(what, array, "contiguous int8 of 2 dimensions") from None


cdef int _same_length(Py_ssize_t a, Py_ssize_t b) except -1:
    if a != b:
        raise errors.ShapeError(f"different vector dimensions {a} and {b}")
    return 0


cdef const float *_float_at(const float[::1] view) noexcept:
    # An empty view has no first element to take the address of.
    return &view[0] if view.shape[0] > 0 else NULL


@cython.final
@cython.internal
@cython.freelist(8)
cdef class _Scratch:
    """A block of memory aligned to 64 bytes."""

    cdef void *block
    cdef void *start
    cdef size_t size

    def __cinit__(self, size_t size):
        self.block = PyMem_RawMalloc(size + 64)
        if self.block == NULL:
            raise MemoryError()
        self.start = <void *> ((<uintptr_t> self.block + 63) & ~(<uintptr_t> 63))
        self.size = size

    def __dealloc__(self):
        PyMem_RawFree(self.block)


# ------------------------------------------------------------------ vectors


def dot(a, b):
    """Return the sum of ``a[i] * b[i]``, in the kernel's fixed order.

    Args:
        a: (n,) float32, contiguous.
        b: (n,) float32, contiguous.

    Raises:
        ShapeError: for other shapes, element types or different lengths.
    """
    cdef const float[::1] x = _floats(a)
    cdef const float[::1] y = _floats(b)
    cdef const float *p = _float_at(x)
    cdef const float *q = _float_at(y)
    cdef size_t n = x.shape[0]
    cdef float result

    _same_length(x.shape[0], y.shape[0])
    with nogil:
        result = td.td_vec_dot(p, q, n)
    return result


def norm(a):
    """Return the Euclidean length of ``a``, (n,) float32, contiguous.

    Raises:
        ShapeError: for another shape or element type.
    """
    cdef const float[::1] x = _floats(a)
    cdef const float *p = _float_at(x)
    cdef size_t n = x.shape[0]
    cdef float result

    with nogil:
        result = td.td_vec_norm(p, n)
    return result


def cosine(a, b):
    """Return the cosine of two vectors in [-1, 1]; 0 when either has length 0.

    Args:
        a: (n,) float32, contiguous.
        b: (n,) float32, contiguous.

    Raises:
        ShapeError: for other shapes, element types or different lengths.
        NonFiniteError: for a NaN or an infinity.
    """
    cdef const float[::1] x = _floats(a)
    cdef const float[::1] y = _floats(b)
    cdef const float *p = _float_at(x)
    cdef const float *q = _float_at(y)
    cdef size_t n = x.shape[0]
    cdef td.td_status status
    cdef float result = 0.0

    _same_length(x.shape[0], y.shape[0])
    with nogil:
        status = td.td_vec_check(p, n)
        if status == td.TD_OK:
            status = td.td_vec_check(q, n)
        if status == td.TD_OK:
            result = td.td_vec_cosine(p, q, n)
    if status != td.TD_OK:
        _raise(status, _first_nonfinite(x) or _first_nonfinite(y))
    return result


cdef object _first_nonfinite(const float[::1] x):
    """Say where the first NaN or infinity stands, for the detail of an error."""
    cdef Py_ssize_t i

    for i in range(x.shape[0]):
        if td.td_vec_check(&x[i], 1) != td.TD_OK:
            return f"Element {i + 1} of {x.shape[0]} is {x[i]}."
    return None


def normalise(a):
    """Return a copy of ``a`` scaled to unit length; zeros stay zeros.

    Args:
        a: (n,) float32, contiguous.

    Returns:
        (n,) float32.

    Raises:
        ShapeError: for another shape or element type.
        NonFiniteError: for a NaN or an infinity.
    """
    cdef const float[::1] x = _floats(a)
    cdef float[::1] y
    cdef size_t n = x.shape[0]
    cdef float *p
    cdef td.td_status status

    result = np.array(x, dtype=np.float32)
    if n == 0:
        return result
    y = result
    p = &y[0]
    with nogil:
        status = td.td_vec_normalise(p, n)
    if status != td.TD_OK:
        _raise(status, _first_nonfinite(x))
    return result


def quantise(a):
    """Quantise a vector to int8: ``a`` is about ``q * scale``, with 127 at the greatest magnitude.

    Args:
        a: (n,) float32, contiguous.

    Returns:
        q, (n,) int8, and scale, float; the scale of zeros is 0.

    Raises:
        ShapeError: for another shape or element type.
        NonFiniteError: for a NaN or an infinity.
    """
    cdef const float[::1] x = _floats(a)
    cdef const float *p = _float_at(x)
    cdef size_t n = x.shape[0]
    cdef int8_t[::1] out
    cdef int8_t *q = NULL
    cdef float scale = 0.0
    cdef td.td_status status

    result = np.empty(n, dtype=np.int8)
    out = result
    if n > 0:
        q = &out[0]
    with nogil:
        status = td.td_vec_check(p, n)
        if status == td.TD_OK:
            scale = td.td_vec_quantise(p, n, q)
    if status != td.TD_OK:
        _raise(status, _first_nonfinite(x))
    return result, scale


def dot_i8(a, b):
    """Return the exact sum of ``a[i] * b[i]`` as an int.

    Args:
        a: (n,) int8, contiguous, n at most 131,072.
        b: (n,) int8, contiguous.

    Raises:
        ShapeError: for other shapes, element types, different lengths or longer vectors.
    """
    cdef const int8_t[::1] x = _int8s(a)
    cdef const int8_t[::1] y = _int8s(b)
    cdef size_t n = x.shape[0]
    cdef const int8_t *p = &x[0] if n > 0 else NULL
    cdef const int8_t *q
    cdef int result

    _same_length(x.shape[0], y.shape[0])
    if n > MAX_I8:
        raise errors.ShapeError(
            "vector has too many dimensions", f"It has {n}, the limit is {MAX_I8}."
        )
    q = &y[0] if n > 0 else NULL
    with nogil:
        result = td.td_vec_dot_i8(p, q, n)
    return result


def matvec(matrix, x, scales=None, *, level=None):
    """Return the product of a matrix and a vector.

    Args:
        matrix: (n, dim) float32, contiguous; with ``scales`` int8.
        x: (dim,) float32; quantised as by ``quantise`` where the matrix is int8.
        scales: (n,) float32, the scales of the int8 rows.
        level: the instruction set to compute with, one of LEVELS; None means what the environment
            variable TINYDANCER_KERNEL_LEVEL names, or the best. All give the same bits.

    Returns:
        (n,) float32.

    Raises:
        ShapeError: for other shapes or element types.
        NonFiniteError: for a NaN or an infinity in ``x``.
        InvalidInputError: for a level that is unknown, or that this processor cannot run.
    """
    cdef const float[::1] vector = _floats(x, "x")
    cdef const float[:, ::1] floats
    cdef const int8_t[:, ::1] bytes_
    cdef const float[::1] scale_view
    cdef const float *x_at = _float_at(vector)
    cdef size_t n_in = vector.shape[0]
    cdef size_t n
    cdef td.td_matrix view
    cdef uint32_t weights = td.TD_WEIGHTS_F32 if scales is None else td.TD_WEIGHTS_I8
    cdef uint32_t chosen = _chosen_level(level)
    cdef float[::1] out
    cdef float *y = NULL
    cdef _Scratch scratch
    cdef td.td_status status

    memset(&view, 0, sizeof(td.td_matrix))
    if scales is None:
        floats = _float_rows(matrix, "matrix")
        _same_length(floats.shape[1], n_in)
        n = floats.shape[0]
        if floats.size > 0:
            view.f32 = &floats[0, 0]
    else:
        bytes_ = _int8_rows(matrix, "matrix")
        scale_view = _floats(scales, "scales")
        _same_length(bytes_.shape[1], n_in)
        n = bytes_.shape[0]
        if <size_t> scale_view.shape[0] != n:
            raise errors.ShapeError(
                f"different numbers of rows and scales {n} and {scale_view.shape[0]}"
            )
        if bytes_.size > 0:
            view.i8 = &bytes_[0, 0]
        view.scales = _float_at(scale_view)
    result = np.empty(n, dtype=np.float32)
    if n > 0:
        out = result
        y = &out[0]
    scratch = _Scratch(td.td_matvec_scratch_size(n_in))
    with nogil:
        status = td.td_matvec(chosen, &view, weights, n, n_in, x_at, y, scratch.start, scratch.size)
    if status == td.TD_ERR_SHAPE:
        _raise(status, f"The vector has {n_in} dimensions, 1 to {MAX_I8} are possible.")
    if status != td.TD_OK:
        _raise(status, _first_nonfinite(vector))
    return result


def sigmoid(x):
    """Return ``1 / (1 + exp(-x))`` elementwise, within 3 units in the last place.

    Args:
        x: (n,) float32, contiguous.

    Returns:
        (n,) float32.

    Raises:
        ShapeError: for another shape or element type.
    """
    cdef const float[::1] values = _floats(x)
    cdef const float *p = _float_at(values)
    cdef size_t n = values.shape[0]
    cdef float[::1] out
    cdef float *y

    result = np.empty(n, dtype=np.float32)
    if n > 0:
        out = result
        y = &out[0]
        with nogil:
            td.td_vec_sigmoid(p, y, n)
    return result


def tanh(x):
    """Return the hyperbolic tangent elementwise, within 2 units in the last place.

    Args:
        x: (n,) float32, contiguous.

    Returns:
        (n,) float32.

    Raises:
        ShapeError: for another shape or element type.
    """
    cdef const float[::1] values = _floats(x)
    cdef const float *p = _float_at(values)
    cdef size_t n = values.shape[0]
    cdef float[::1] out
    cdef float *y

    result = np.empty(n, dtype=np.float32)
    if n > 0:
        out = result
        y = &out[0]
        with nogil:
            td.td_vec_tanh(p, y, n)
    return result


def exp(x):
    """Return ``exp(x)`` elementwise, within one unit in the last place.

    Args:
        x: (n,) float64, contiguous.

    Returns:
        (n,) float64.

    Raises:
        ShapeError: for another shape or element type.
    """
    cdef const double[::1] values
    cdef double[::1] out
    cdef Py_ssize_t i

    try:
        values = x
    except (ValueError, TypeError):
        raise _wrong_array("vector", x, "contiguous float64 of 1 dimension") from None
    result = np.empty(values.shape[0], dtype=np.float64)
    out = result
    with nogil:
        for i in range(values.shape[0]):
            out[i] = td.td_exp(values[i])
    return result


def topk_cosine(query, rows, scales, Py_ssize_t k, *, level=None):
    """Find the ``k`` rows nearest to a query by cosine.

    Args:
        query: (dim,) float32, unit length or zero.
        rows: (n, dim) int8, each the ``quantise`` of a unit vector.
        scales: (n,) float32, the scales of the rows.
        k: how many; fewer come back when there are fewer rows.
        level: the instruction set to compute with, as for ``matvec``.

    Returns:
        Row numbers, (min(k, n),) uint32, greatest cosine first and equal ones by row number, and
        their cosines, float32.

    Raises:
        ShapeError: for other shapes or element types, or a negative ``k``.
        NonFiniteError: for a NaN or an infinity in the query.
        InvalidInputError: for a level that is unknown, or that this processor cannot run.
    """
    cdef uint32_t chosen = _chosen_level(level)
    cdef const float[::1] q = _floats(query, "query")
    cdef const int8_t[:, ::1] r = _int8_rows(rows)
    cdef const float[::1] s = _floats(scales, "scales")
    cdef const float *query_at = _float_at(q)
    cdef const float *scales_at = _float_at(s)
    cdef const int8_t *rows_at = NULL
    cdef size_t n = r.shape[0]
    cdef size_t dim = q.shape[0]
    cdef size_t found = 0
    cdef size_t wanted
    cdef uint32_t[::1] index_view
    cdef float[::1] score_view
    cdef uint32_t *index_at = NULL
    cdef float *score_at = NULL
    cdef _Scratch scratch
    cdef td.td_status status

    _same_length(r.shape[1], q.shape[0])
    if s.shape[0] != r.shape[0]:
        raise errors.ShapeError(f"different numbers of rows and scales {n} and {s.shape[0]}")
    if k < 0:
        raise errors.ShapeError("number of neighbours is negative", f"k is {k}.")
    wanted = min(<size_t> k, n)
    index = np.empty(wanted, dtype=np.uint32)
    score = np.empty(wanted, dtype=np.float32)
    if wanted > 0 and dim > 0:
        index_view = index
        score_view = score
        index_at = &index_view[0]
        score_at = &score_view[0]
        rows_at = &r[0, 0]
    scratch = _Scratch(td.td_topk_scratch_size(dim))
    with nogil:
        status = td.td_topk_cosine(chosen, query_at, rows_at, scales_at, n, dim, wanted, index_at,
                                   score_at, &found, scratch.start, scratch.size)
    if status == td.TD_ERR_SHAPE:
        _raise(status, f"The query has {dim} dimensions, 1 to {MAX_I8} are possible.")
    if status != td.TD_OK:
        _raise(status, _first_nonfinite(q))
    return index, score


# ------------------------------------------------------------------ bytes and text


def hash64(data, uint64_t seed=0):
    """Return XXH64 of a bytes-like object as an int."""
    cdef const uint8_t[::1] view
    cdef const uint8_t *p = NULL
    cdef size_t n
    cdef uint64_t result

    flat = memoryview(data).cast("B")
    n = flat.nbytes
    if n > 0:
        view = flat
        p = &view[0]
    with nogil:
        result = td.td_hash64(p, n, seed)
    return result


cdef bytes _utf8(object text):
    """Encode a str; a lone surrogate has no UTF-8 form."""
    if not isinstance(text, str):
        raise TypeError(f"text must be str, not {type(text).__name__}")
    try:
        return (<str> text).encode("utf-8")
    except UnicodeEncodeError as error:
        raise _error(
            td.TD_ERR_UTF8, f"Character {error.start + 1} is a lone surrogate."
        ) from None


def fold(text):
    """Return ``text`` with each character in its simple lower case, for comparison without case.

    Raises:
        TextEncodingError: for a lone surrogate.
    """
    cdef bytes encoded = _utf8(text)
    cdef const char *p = encoded
    cdef size_t n = len(encoded)
    cdef size_t capacity = td.td_text_fold_size(n)
    cdef size_t written = 0
    cdef _Scratch out = _Scratch(capacity)
    cdef td.td_status status

    with nogil:
        status = td.td_text_fold(p, n, <char *> out.start, capacity, &written)
    if status != td.TD_OK:
        _raise(status)
    return PyUnicode_DecodeUTF8(<char *> out.start, written, NULL)


# ------------------------------------------------------------------ files and encoders

_KIND_NAMES = {
    int(td.TD_FILE_STATIC_ENCODER): "static",
    int(td.TD_FILE_BERT_ENCODER): "bert",
    int(td.TD_FILE_MODEL): "model",
}

# Element types of sections, in NumPy's words.
_ELEMENTS = {
    np.dtype(np.uint8): int(td.TD_U8),
    np.dtype(np.int8): int(td.TD_I8),
    np.dtype(np.uint16): int(td.TD_U16),
    np.dtype(np.uint32): int(td.TD_U32),
    np.dtype(np.float32): int(td.TD_F32),
    np.dtype(np.int32): int(td.TD_I32),
}


@cython.final
@cython.internal
cdef class _Content:
    """The bytes of a file, aligned to 64: mapped read-only from a path, or copied from bytes."""

    cdef object path
    cdef object mapping
    cdef const uint8_t[::1] mapped
    cdef _Scratch copy
    cdef const void *start
    cdef size_t size

    def __cinit__(self, source):
        cdef const uint8_t[::1] given

        self.path = None
        if isinstance(source, (str, os.PathLike)):
            self.path = os.fspath(source)
            with open(self.path, "rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                # An empty file cannot be mapped; the kernel says what is wrong with it.
                if self.size > 0:
                    self.mapping = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
        else:
            flat = memoryview(source).cast("B")
            self.size = flat.nbytes
        if self.mapping is not None:
            self.mapped = self.mapping
            self.start = &self.mapped[0]
            return
        self.copy = _Scratch(self.size)
        self.start = self.copy.start
        if self.size > 0:
            given = flat
            memcpy(self.copy.start, &given[0], self.size)

    cdef int refuse(self, td.td_status status) except -1:
        what = "The bytes given" if self.path is None else f'File "{self.path}"'
        _raise(
            status,
            f"{what} cannot be used ({self.size} bytes).",
            "Write it again with the command that made it, such as tinydancer encoder build.",
        )


@cython.final
cdef class File:
    """A checked file of ours, of any kind: a header and named sections.

    Args:
        source: a path, which is mapped read-only, or the bytes of a file, which are copied.

    Raises:
        FileFormatError: if the bytes are not an intact file of this version.
        OSError: if the path cannot be read.
    """

    cdef td.td_file file
    cdef _Content _content

    def __cinit__(self, source):
        cdef _Content content = _Content(source)
        cdef td.td_status status

        self._content = content
        with nogil:
            status = td.td_file_open(content.start, content.size, &self.file)
        if status != td.TD_OK:
            content.refuse(status)

    @property
    def id(self):
        """The id, which pins the content."""
        return (<bytes> self.file.id).decode("ascii")

    @property
    def kind(self):
        """What it is: "static" or "bert", an encoder, or "model"."""
        return _KIND_NAMES[self.file.kind]

    @property
    def n_sections(self):
        """How many sections."""
        return self.file.n_sections

    @property
    def checksum(self):
        """XXH64 of the content, 16 hexadecimal digits."""
        return f"{self.file.checksum:016x}"

    def section(self, str name, dtype):
        """Return a copy of a section, (n,) of ``dtype``; None if there is none of that name.

        Raises:
            FileFormatError: if it is there with another element type.
            TypeError: for a dtype that no section has.
        """
        cdef bytes encoded = _utf8(name)
        cdef const char *name_at = encoded
        cdef const void *data = NULL
        cdef size_t count = 0
        cdef uint8_t[::1] out
        cdef td.td_status status

        wanted = np.dtype(dtype)
        if wanted not in _ELEMENTS:
            raise TypeError(f"no section has elements of {wanted}")
        status = td.td_file_section(&self.file, name_at, <td.td_element> <int> _ELEMENTS[wanted],
                                    &data, &count)
        if status != td.TD_OK:
            _raise(status, f'Section "{name}" has another element type than {wanted}.')
        if data == NULL:
            return None
        result = np.empty(count, dtype=wanted)
        if count > 0:
            out = result.view(np.uint8)
            memcpy(&out[0], data, count * <size_t> wanted.itemsize)
        return result


cdef class Encoder:
    """A checked encoder file: text to word pieces and unit vectors.

    Args:
        source: a path, which is mapped read-only and shared between processes, or the bytes of a
            file, which are copied.
        level: the instruction set to compute with, one of LEVELS; None means what the environment
            variable TINYDANCER_KERNEL_LEVEL says, else the greatest that this processor can run.
            The vectors do not depend on it.

    Raises:
        FileFormatError: if the bytes are not an intact encoder of this version.
        InvalidInputError: for a level that is unknown, or that this processor cannot run.
        OSError: if the path cannot be read.
    """

    cdef td.td_encoder encoder
    cdef _Content _content

    def __cinit__(self, source, *, level=None):
        cdef _Content content = _Content(source)
        cdef td.td_status status

        self._content = content
        with nogil:
            status = td.td_encoder_open(content.start, content.size, &self.encoder)
        if status != td.TD_OK:
            content.refuse(status)
        self.encoder.level = _chosen_level(level)

    @property
    def level(self):
        """The instruction set it computes with, one of LEVELS."""
        return LEVELS[self.encoder.level]

    def verify(self):
        """Check what a file promises beyond what is needed to read it safely.

        Raises:
            FileFormatError: if weights are too large for one of the levels, or sums are wrong.
        """
        cdef td.td_status status

        with nogil:
            status = td.td_encoder_verify(&self.encoder)
        if status != td.TD_OK:
            self._content.refuse(status)

    @property
    def path(self):
        """The path as given, None for bytes."""
        return self._content.path

    @property
    def id(self):
        """The id, which pins the content: "static-1"."""
        return (<bytes> self.encoder.file.id).decode("ascii")

    @property
    def kind(self):
        """What it is: "static" or "bert"."""
        return _KIND_NAMES[self.encoder.file.kind]

    @property
    def dim(self):
        """Length of its vectors."""
        return self.encoder.dim

    @property
    def max_tokens(self):
        """Word pieces read of a text."""
        return self.encoder.max_tokens

    @property
    def fit_mu(self):
        """Similarity at which fit is 0.5."""
        return <double> self.encoder.fit_mu

    @property
    def fit_s(self):
        """Similarity over which fit rises from 0.5 to 0.73."""
        return <double> self.encoder.fit_s

    @property
    def checksum(self):
        """XXH64 of the content, 16 hexadecimal digits."""
        return f"{self.encoder.file.checksum:016x}"

    @property
    def about(self):
        """Provenance and licence, for people."""
        cdef const void *data = NULL
        cdef size_t count = 0
        cdef td.td_status status

        status = td.td_file_section(&self.encoder.file, b"about", td.TD_U8, &data, &count)
        if status != td.TD_OK:
            _raise(status)
        if count == 0:
            return ""
        return PyUnicode_DecodeUTF8(<const char *> data, count, b"replace")

    def __repr__(self):
        return f"<Encoder {self.id} ({self.kind}, {self.dim} dimensions)>"

    def __reduce__(self):
        if self.path is None:
            raise TypeError("cannot pickle an encoder made from bytes")
        return (type(self), (self.path,))

    def pieces(self):
        """Return the word pieces as list[str], in id order."""
        cdef const td.td_vocab *vocab = &self.encoder.vocab
        cdef uint32_t i
        cdef size_t start
        cdef size_t end
        cdef list result = []

        for i in range(vocab.size):
            start = vocab.base[i >> 8] + vocab.offset[i]
            end = vocab.base[(i + 1) >> 8] + vocab.offset[i + 1]
            result.append(
                PyUnicode_DecodeUTF8(<const char *> vocab.text + start, end - start, b"replace")
            )
        return result

    cdef size_t _count(self, bytes encoded) except? 0:
        cdef const char *p = encoded
        cdef size_t n = len(encoded)
        cdef td.td_token_count count
        cdef td.td_status status

        with nogil:
            status = td.td_text_tokenize(&self.encoder.vocab, p, n, NULL, 0, &count)
        if status != td.TD_OK:
            _raise(status)
        return count.n_total

    def count_tokens(self, text):
        """Return how many word pieces the whole text has, without [CLS] and [SEP].

        Raises:
            TextEncodingError: for a lone surrogate.
        """
        return self._count(_utf8(text))

    def tokenize(self, text):
        """Split a whole text into word pieces, without [CLS] and [SEP].

        Returns:
            Ids, (n,) uint32.

        Raises:
            TextEncodingError: for a lone surrogate.
        """
        cdef bytes encoded = _utf8(text)
        cdef const char *p = encoded
        cdef size_t n = len(encoded)
        cdef size_t capacity = self._count(encoded)
        cdef uint32_t[::1] ids
        cdef uint32_t *out
        cdef td.td_token_count count
        cdef td.td_status status

        result = np.empty(capacity, dtype=np.uint32)
        if capacity == 0:
            return result
        ids = result
        out = &ids[0]
        with nogil:
            status = td.td_text_tokenize(&self.encoder.vocab, p, n, out, capacity, &count)
        if status != td.TD_OK:
            _raise(status)
        return result

    def embed(self, texts, *, threads=1):
        """Turn texts into unit vectors, without holding the GIL.

        Long lists are worth while: several short texts go through a transformer together.  A text
        has the same vector, to the bit, in whatever company and with however many threads.
        A text without a word that a static encoder knows gives zeros.

        Args:
            texts: a str, or a sequence of n of them.
            threads: how many work at once; worth while up to the number of processors.

        Returns:
            (n, dim) float32; n is 1 for a str.

        Raises:
            EmptyRequestError: for a text of nothing but white space and control characters; the
                detail has its number, counted from 1.
            InvalidInputError: for fewer than one thread.
            TextEncodingError: for a lone surrogate.
        """
        cdef list given = [texts] if isinstance(texts, str) else list(texts)
        cdef list encoded = [_utf8(text) for text in given]
        cdef Py_ssize_t n = len(encoded)
        cdef Py_ssize_t workers = operator.index(threads)

        if workers < 1:
            raise errors.InvalidInputError("threads must be at least 1", f"It is {workers}.")
        result = np.empty((n, self.encoder.dim), dtype=np.float32)
        # A thread costs some ten microseconds to start.
        workers = min(workers, (n + 15) // 16)
        if workers <= 1:
            self._embed_some(encoded, 0, n, result)
            return result
        from concurrent.futures import ThreadPoolExecutor

        # Slices finer than one a thread even out texts of unequal length, and end soon on Ctrl-C.
        step = min(256, max(16, n // (8 * workers)))
        pool = ThreadPoolExecutor(workers)
        try:
            jobs = [
                pool.submit(self._embed_some, encoded, start, min(start + step, n), result)
                for start in range(0, n, step)
            ]
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
        return result

    def _embed_some(self, list encoded, Py_ssize_t start, Py_ssize_t stop, result):
        """Embed texts start .. stop - 1 into the same rows of result."""
        cdef float[:, ::1] out = result
        cdef const char *texts[td.TD_EMBED_MAX_TEXTS]
        cdef size_t lens[td.TD_EMBED_MAX_TEXTS]
        cdef td.td_embed_job job
        cdef td.td_status status
        cdef size_t n
        cdef size_t i
        cdef bytes text
        cdef size_t longest = 0
        cdef _Scratch scratch

        if start >= stop:
            return
        if stop - start > 1:
            longest = SIZE_MAX
        else:
            longest = len(<bytes> encoded[start])
        scratch = _Scratch(td.td_embed_scratch_size(&self.encoder, longest))
        while start < stop:
            n = min(stop - start, td.TD_EMBED_MAX_TEXTS)
            for i in range(n):
                text = encoded[start + <Py_ssize_t> i]
                texts[i] = text
                lens[i] = len(text)
            with nogil:
                status = td.td_embed_begin(&job, &self.encoder, texts, lens, n, scratch.start,
                                           scratch.size)
                if status == td.TD_OK:
                    while td.td_embed_step(&job):
                        pass
                    td.td_embed_end(&job, &out[start, 0])
            if status != td.TD_OK:
                job.n_texts = 1
            for i in range(job.n_texts):
                if status == td.TD_OK:
                    status = job.status[i]
                if status != td.TD_OK:
                    number = start + <Py_ssize_t> i + 1
                    total = len(encoded)
                    _raise(status,
                           f"Text {number} of {total} cannot be embedded." if total > 1 else None)
            start += <Py_ssize_t> job.n_texts
            # A million texts take seconds, and Ctrl-C should not wait for them.
            PyErr_CheckSignals()

    def embed_info(self, text):
        """Turn one text into a unit vector and say how much of it was read.

        Returns:
            The vector, (dim,) float32; n_tokens, word pieces of the whole text; n_used, how many
            were read; n_known, how many of those carry a vector of their own.

        Raises:
            EmptyRequestError: for a text of nothing but white space and control characters.
            TextEncodingError: for a lone surrogate.
        """
        cdef bytes encoded = _utf8(text)
        cdef const char *p = encoded
        cdef size_t n = len(encoded)
        cdef _Scratch scratch = _Scratch(td.td_embed_scratch_size(&self.encoder, n))
        cdef float[::1] out
        cdef td.td_embed_info info
        cdef td.td_status status

        result = np.empty(self.encoder.dim, dtype=np.float32)
        out = result
        with nogil:
            status = td.td_embed_text(&self.encoder, p, n, &out[0], &info, scratch.start,
                                      scratch.size)
        if status != td.TD_OK:
            _raise(status)
        return result, info.n_tokens, info.n_used, info.n_known


# ------------------------------------------------------------------ FastGRNN


cdef object _aligned(object shape, object dtype):
    """An empty array that starts at a multiple of 64, where a register is one cache line."""
    room = np.empty(int(np.prod(shape)) * np.dtype(dtype).itemsize + 63, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start:room.size - 63 + start].view(dtype).reshape(shape)


cdef object _aligned_copy(object array):
    result = _aligned(array.shape, array.dtype)
    result[...] = array
    return result


cdef object _weights(object array, str what, int n_dimensions):
    """A float32 copy of a parameter, checked."""
    result = _aligned_copy(np.asarray(array, dtype=np.float32))
    if result.ndim != n_dimensions:
        raise errors.ShapeError(
            f"{what} has the wrong number of dimensions",
            f"Expected {n_dimensions}, got {result.ndim}.",
        )
    if not np.isfinite(result).all():
        raise errors.NonFiniteError(f"{what} contains NaN or infinity")
    return result


cdef object _bind_matrix(td.td_matrix *matrix, object array, bint int8, list keep):
    """Point a td_matrix at a parameter, quantising its rows if int8; keep owns the memory."""
    cdef float[:, ::1] values = array
    cdef int8_t[:, ::1] rows
    cdef float[::1] scales
    cdef Py_ssize_t i

    memset(matrix, 0, sizeof(td.td_matrix))
    if not int8:
        keep.append(array)
        matrix.f32 = &values[0, 0]
        return None
    quantised = _aligned(array.shape, np.int8)
    row_scales = np.empty(array.shape[0], dtype=np.float32)
    rows = quantised
    scales = row_scales
    for i in range(values.shape[0]):
        scales[i] = td.td_vec_quantise(&values[i, 0], values.shape[1], &rows[i, 0])
    keep.extend((quantised, row_scales))
    matrix.i8 = &rows[0, 0]
    matrix.scales = &scales[0]
    return None


cdef object _bind_factors(td.td_factored *factors, object given, str what, object n_hidden,
                          object n_columns, bint int8, list keep):
    """Point a td_factored at a full matrix or a pair; returns (n_hidden, n_columns, rank)."""
    memset(factors, 0, sizeof(td.td_factored))
    rank = 0
    if isinstance(given, tuple):
        if len(given) != 2:
            raise errors.ShapeError(
                f"{what} has the wrong number of factors", f"Expected 2, got {len(given)}."
            )
        left = _weights(given[0], f"first factor of {what}", 2)
        right = _weights(given[1], f"second factor of {what}", 2)
        rank = right.shape[0]
        shape = (left.shape[0], right.shape[1])
        if left.shape[1] != rank or rank == 0:
            raise errors.ShapeError(
                f"factors of {what} do not fit together",
                f"The first has {left.shape[1]} columns, the second {rank} rows.",
            )
    else:
        right = _weights(given, what, 2)
        left = None
        shape = right.shape
    wanted = (
        shape[0] if n_hidden is None else n_hidden,
        shape[1] if n_columns is None else n_columns,
    )
    if shape != wanted or 0 in shape:
        raise errors.ShapeError(
            f"{what} has the wrong shape",
            f"Expected {wanted[0]}x{wanted[1]}, got {shape[0]}x{shape[1]}.",
        )
    if left is not None:
        _bind_matrix(&factors.left, left, int8, keep)
    _bind_matrix(&factors.right, right, int8, keep)
    return shape[0], shape[1], rank


@cython.final
cdef class FastGRNN:
    """A FastGRNN cell (Kusupati et al. 2018, arXiv:1901.02358).

    z = sigmoid(W x + U h + b_z), c = tanh(W_h x + U_h h + b_h),
    h' = (zeta (1 - z) + nu) c + z h.

    Args:
        W: (n_hidden, n_in), or a pair (n_hidden, rank), (rank, n_in) whose product it is.
        U: (n_hidden, n_hidden), or a pair.
        b_z: (n_hidden,), bias of the gate.
        b_h: (n_hidden,), bias of the candidate.
        zeta: in [0, 1], as used in the formula.
        nu: in [0, 1], as used in the formula.
        W_h: like W, for the candidate; None (with U_h None): W and U serve both (tied).
        U_h: like U, for the candidate.
        int8: keep the matrices as int8 with one scale per row; inputs are then quantised too.
        level: the instruction set to compute with, as for ``matvec``.

    Parameters are copied as float32.

    Raises:
        ShapeError: if shapes or ranks contradict each other, or zeta or nu lies outside [0, 1].
        NonFiniteError: for a NaN or an infinity in a parameter.
        InvalidInputError: for a level that is unknown, or that this processor cannot run.
    """

    cdef td.td_fastgrnn cell
    cdef list _keep

    def __cinit__(
        self,
        W,
        U,
        b_z,
        b_h,
        double zeta,
        double nu,
        W_h=None,
        U_h=None,
        bint int8=False,
        level=None,
    ):
        cdef td.td_fastgrnn *cell = &self.cell
        cdef float[::1] gate_bias
        cdef float[::1] candidate_bias

        self._keep = []
        memset(cell, 0, sizeof(td.td_fastgrnn))
        if (W_h is None) != (U_h is None):
            raise errors.ShapeError(
                "one matrix of the candidate is missing",
                "W_h and U_h are both given, or both left out for a tied cell.",
            )
        n_hidden, n_in, rank_w = _bind_factors(&cell.w, W, "W", None, None, int8, self._keep)
        _, _, rank_u = _bind_factors(&cell.u, U, "U", n_hidden, n_hidden, int8, self._keep)
        if W_h is not None:
            _, _, rank_w_h = _bind_factors(&cell.w_h, W_h, "W_h", n_hidden, n_in, int8, self._keep)
            _, _, rank_u_h = _bind_factors(&cell.u_h, U_h, "U_h", n_hidden, n_hidden, int8,
                                           self._keep)
            if (rank_w_h, rank_u_h) != (rank_w, rank_u):
                raise errors.ShapeError(
                    "gate and candidate have different ranks",
                    f"W and U have {rank_w} and {rank_u}, W_h and U_h {rank_w_h} and {rank_u_h}.",
                )
        biases = [_weights(b_z, "b_z", 1), _weights(b_h, "b_h", 1)]
        for bias in biases:
            _same_length(bias.shape[0], n_hidden)
        self._keep.extend(biases)
        gate_bias = biases[0]
        candidate_bias = biases[1]
        for name, value in (("zeta", zeta), ("nu", nu)):
            if not 0.0 <= value <= 1.0:
                raise errors.ShapeError(f"{name} is outside of 0 to 1", f"It is {value}.")

        cell.n_in = n_in
        cell.n_hidden = n_hidden
        cell.rank_w = rank_w
        cell.rank_u = rank_u
        cell.tied = W_h is None
        cell.level = _chosen_level(level)
        cell.weights = td.TD_WEIGHTS_I8 if int8 else td.TD_WEIGHTS_F32
        cell.b_z = &gate_bias[0]
        cell.b_h = &candidate_bias[0]
        cell.zeta = <float> zeta
        cell.nu = <float> nu
        # The rest of what td_fastgrnn_step() checks, found now instead of at the first step.
        self.forward(np.empty((0, n_in), dtype=np.float32))

    @property
    def n_in(self):
        """Length of an input."""
        return self.cell.n_in

    @property
    def n_hidden(self):
        """Length of the hidden state."""
        return self.cell.n_hidden

    @property
    def rank_w(self):
        """Rank of the factors of W; 0: a full matrix."""
        return self.cell.rank_w

    @property
    def rank_u(self):
        """Rank of the factors of U; 0: a full matrix."""
        return self.cell.rank_u

    @property
    def tied(self):
        """Whether W and U serve gate and candidate."""
        return bool(self.cell.tied)

    @property
    def int8(self):
        """Whether the matrices are int8."""
        return self.cell.weights == td.TD_WEIGHTS_I8

    @property
    def level(self):
        """The instruction set it computes with, one of LEVELS."""
        return LEVELS[self.cell.level]

    def __repr__(self):
        return (
            f"<FastGRNN {self.n_in} -> {self.n_hidden}, {'tied' if self.tied else 'untied'}, "
            f"{'int8' if self.int8 else 'float32'}>"
        )

    cdef _Scratch _scratch(self):
        return _Scratch(td.td_fastgrnn_scratch_size(&self.cell))

    cdef object _state(self, object h):
        """A fresh array for the state: a copy of h, or zeros."""
        cdef const float[::1] view

        if h is None:
            return np.zeros(self.cell.n_hidden, dtype=np.float32)
        view = _floats(h, "h")
        _same_length(view.shape[0], self.cell.n_hidden)
        return np.array(view, dtype=np.float32)

    cdef int _check(self, td.td_status status) except -1:
        if status == td.TD_ERR_NONFINITE:
            _raise(status, "It is an input, a state, or a result of weights that are too large.")
        if status == td.TD_ERR_SHAPE:
            _raise(
                status,
                f"The cell has {self.n_in} inputs, {self.n_hidden} hidden units and ranks "
                f"{self.rank_w} and {self.rank_u}.",
            )
        if status != td.TD_OK:
            _raise(status)
        return 0

    def step(self, x, h):
        """Return the state after one step.

        Args:
            x: (n_in,) float32, contiguous.
            h: (n_hidden,) float32, contiguous, the state before; not changed.

        Returns:
            (n_hidden,) float32.

        Raises:
            ShapeError: for other shapes or element types.
            NonFiniteError: for a NaN or an infinity.
        """
        cdef const float[::1] values = _floats(x, "x")
        cdef _Scratch scratch = self._scratch()
        cdef float[::1] state
        cdef const float *p = _float_at(values)
        cdef float *q
        cdef td.td_status status

        _same_length(values.shape[0], self.cell.n_in)
        result = self._state(h)
        state = result
        q = &state[0]
        with nogil:
            status = td.td_fastgrnn_step(&self.cell, p, q, scratch.start, scratch.size)
        self._check(status)
        return result

    def forward(self, x, h=None):
        """Return the state after a sequence.

        Args:
            x: (n_steps, n_in) float32, contiguous.
            h: (n_hidden,) float32, contiguous, the state before, not changed; None: zeros.

        Returns:
            (n_hidden,) float32.

        Raises:
            ShapeError: for other shapes or element types.
            NonFiniteError: for a NaN or an infinity.
        """
        cdef const float[:, ::1] values = _float_rows(x, "x")
        cdef _Scratch scratch = self._scratch()
        cdef float[::1] state
        cdef size_t n = values.shape[0]
        cdef const float *p = NULL
        cdef float *q
        cdef td.td_status status

        _same_length(values.shape[1], self.cell.n_in)
        result = self._state(h)
        state = result
        q = &state[0]
        if n > 0:
            p = &values[0, 0]
        with nogil:
            status = td.td_fastgrnn_forward(&self.cell, p, n, q, scratch.start, scratch.size)
        self._check(status)
        return result

    def forward_single(self, x):
        """Return the state after one step from zeros.

        Args:
            x: (n_in,) float32, contiguous.

        Returns:
            (n_hidden,) float32.

        Raises:
            ShapeError: for another shape or element type.
            NonFiniteError: for a NaN or an infinity.
        """
        cdef const float[::1] values = _floats(x, "x")
        cdef _Scratch scratch = self._scratch()
        cdef float[::1] state
        cdef const float *p = _float_at(values)
        cdef float *q
        cdef td.td_status status

        _same_length(values.shape[0], self.cell.n_in)
        result = np.empty(self.cell.n_hidden, dtype=np.float32)
        state = result
        q = &state[0]
        with nogil:
            status = td.td_fastgrnn_forward_single(&self.cell, p, q, scratch.start, scratch.size)
        self._check(status)
        return result

    def forward_batch(self, x):
        """Return the states after one step from zeros, for many inputs.

        Args:
            x: (n, n_in) float32, contiguous.

        Returns:
            (n, n_hidden) float32.

        Raises:
            ShapeError: for another shape or element type.
            NonFiniteError: for a NaN or an infinity.
        """
        cdef const float[:, ::1] values = _float_rows(x, "x")
        cdef _Scratch scratch = self._scratch()
        cdef float[:, ::1] states
        cdef size_t n = values.shape[0]
        cdef const float *p
        cdef float *q
        cdef td.td_status status

        _same_length(values.shape[1], self.cell.n_in)
        result = np.empty((n, self.cell.n_hidden), dtype=np.float32)
        if n == 0:
            return result
        states = result
        p = &values[0, 0]
        q = &states[0, 0]
        with nogil:
            status = td.td_fastgrnn_forward_batch(&self.cell, p, n, q, scratch.start, scratch.size)
        self._check(status)
        return result


# ------------------------------------------------------------------ scoring


cdef object _frozen(object array, object dtype, str what):
    """A contiguous copy that nobody changes."""
    result = np.array(array, dtype=dtype, order="C", copy=True)
    if result.ndim != 1:
        raise _wrong_array(what, array, f"{np.dtype(dtype).name} of 1 dimension")
    result.flags.writeable = False
    return result


@cython.final
cdef class Registry:
    """Agents and their phrases, packed for the kernel.

    Args:
        agents: (n,) AGENT_DTYPE, in byte order of the agents' names; an absent figure is NaN.
        capabilities: (c,) uint32, ids, ascending within each agent.
        rows: (p, dim) int8, each phrase's ``quantise``d unit vector.
        scales: (p,) float32, their scales.
        phrases: p str, the phrases themselves, for ``Scores.reason``.
        level: the instruction set to compute with, as for ``matvec``.

    Raises:
        ShapeError: if shapes contradict each other or an agent points outside of the arrays.
        InvalidAgentError: for a figure that is not one.
        InvalidInputError: for a level that is unknown, or that this processor cannot run.
    """

    cdef td.td_registry registry
    cdef readonly object agents
    cdef object _arrays
    cdef list _phrases

    def __cinit__(self, agents, capabilities, rows, scales, phrases, *, level=None):
        cdef const uint8_t[::1] agent_bytes
        cdef const int8_t[:, ::1] row_view = _int8_rows(rows, "rows")
        cdef const uint32_t[::1] capability_view
        cdef const float[::1] scale_view

        if np.asarray(agents).dtype != AGENT_DTYPE:
            raise _wrong_array("agents", agents, "AGENT_DTYPE of 1 dimension")
        self.agents = _frozen(agents, AGENT_DTYPE, "agents")
        capabilities = _frozen(capabilities, np.uint32, "capabilities")
        scales = _frozen(scales, np.float32, "scales")
        rows = _aligned_copy(np.asarray(row_view))
        self._phrases = [_utf8(phrase) for phrase in phrases]
        n_phrases = rows.shape[0]
        if scales.shape[0] != n_phrases or len(self._phrases) != n_phrases:
            raise errors.ShapeError(
                f"different numbers of rows, scales and phrases {n_phrases}, {scales.shape[0]} "
                f"and {len(self._phrases)}"
            )
        if not 0 < rows.shape[1] <= MAX_I8:
            raise errors.ShapeError(
                "phrases have an impossible dimension", f"It is {rows.shape[1]}."
            )
        if not np.isfinite(scales).all():
            raise errors.NonFiniteError("scales contain NaN or infinity")
        for first, count, size in (
            ("first_phrase", "n_phrases", n_phrases),
            ("first_capability", "n_capabilities", capabilities.shape[0]),
        ):
            ends = self.agents[first].astype(np.uint64) + self.agents[count]
            if (ends > size).any():
                raise errors.ShapeError(
                    "an agent points outside of the registry",
                    f"Its {first} + {count} is {int(ends.max())}, there are {size}.",
                )
        for name in ("expected_output_tokens", "quality_score", "success_rate"):
            if not np.isfinite(self.agents[name]).all():
                raise errors.InvalidAgentError(f"{name} of an agent is not a finite number")

        self._arrays = (self.agents, capabilities, rows, scales)
        self.registry.n_agents = self.agents.shape[0]
        self.registry.n_phrases = n_phrases
        self.registry.dim = rows.shape[1]
        self.registry.level = _chosen_level(level)
        self.registry.agents = NULL
        self.registry.phrase_rows = NULL
        self.registry.phrase_scales = NULL
        self.registry.capabilities = NULL
        if self.registry.n_agents > 0:
            agent_bytes = self.agents.view(np.uint8)
            self.registry.agents = <const td.td_agent *> &agent_bytes[0]
        if n_phrases > 0:
            row_view = rows
            scale_view = scales
            self.registry.phrase_rows = &row_view[0, 0]
            self.registry.phrase_scales = &scale_view[0]
        if capabilities.shape[0] > 0:
            capability_view = capabilities
            self.registry.capabilities = &capability_view[0]

    @property
    def arrays(self):
        """What it was made of, frozen: agents, capabilities, rows, scales."""
        return self._arrays

    @property
    def capabilities(self):
        """(c,) uint32, ids, ascending within each agent."""
        return self._arrays[1]

    @property
    def n_agents(self):
        """How many agents."""
        return self.registry.n_agents

    @property
    def n_phrases(self):
        """How many phrases."""
        return self.registry.n_phrases

    @property
    def dim(self):
        """Length of a phrase's vector."""
        return self.registry.dim

    def score(
        self,
        embedding,
        *,
        double mu,
        double s,
        double cost_weight=0.0,
        double latency_weight=0.0,
        double quality_weight=0.0,
        double fit_weight=0.0,
        bint per_dollar=False,
        double cost_scale=0.001,
        double latency_scale=1000.0,
        double input_tokens=0.0,
        required=(),
        excluded=(),
        pool=None,
        double max_cost=INFINITY,
        double budget_remaining=INFINITY,
        double max_latency_ms=INFINITY,
        double min_quality=-INFINITY,
        double min_expected_quality=-INFINITY,
        outputs=None,
        probabilities=None,
    ):
        """Score every agent for one request.

        Args:
            embedding: (dim,) float32, unit length or zero.
            mu: similarity at which fit is 0.5, from the encoder.
            s: the slope of fit, from the encoder, above 0.
            cost_weight: weight of cost_utility in the objective.
            latency_weight: weight of latency_utility.
            quality_weight: weight of quality.
            fit_weight: weight of fit.
            per_dollar: divide by cost + cost_scale.
            cost_scale: USD at which cost_utility is 0.5, above 0.
            latency_scale: ms at which latency_utility is 0.5, above 0.
            input_tokens: word pieces of the whole text, 0 without text.
            required: ids of capabilities; NONE for one that no agent has.
            excluded: numbers of agents.
            pool: id of the pool to stay in, None: any; NONE: one that no agent is in.
            max_cost: USD for this request.
            budget_remaining: USD.
            max_latency_ms: ms.
            min_quality: of the registered quality_score.
            min_expected_quality: of expected quality.
            outputs: (n_agents,) uint32, the number of each agent's output of a quality model, NONE
                for one that it does not cover; None: no model.
            probabilities: (n_out,) float32, what that model says of the request; with outputs.

        Returns:
            Scores.

        Raises:
            ShapeError: for another shape or element type, or a scale that is not positive.
            DimensionError: for an embedding of another length.
            NonFiniteError: for a NaN or an infinity in the embedding.
        """
        cdef const float[::1] vector = _floats(embedding, "embedding")
        cdef const uint32_t[::1] required_view
        cdef const uint32_t[::1] excluded_view
        cdef uint8_t[::1] candidate_bytes
        cdef uint32_t[::1] order_view
        cdef const uint32_t[::1] output_view
        cdef const float[::1] probability_view
        cdef double[::1] predicted_view
        cdef Scores result
        cdef td.td_request *request
        cdef td.td_policy policy
        cdef _Scratch scratch = _Scratch(td.td_score_scratch_size(&self.registry))
        cdef td.td_candidate *candidates = NULL
        cdef uint32_t *order = NULL
        cdef uint32_t n = self.registry.n_agents
        cdef uint32_t best = td.TD_NONE
        cdef uint32_t n_eligible = 0
        cdef td.td_status status

        if vector.shape[0] != self.registry.dim:
            _raise(
                td.TD_ERR_DIMENSION,
                f"The encoder makes {self.registry.dim}, the argument has {vector.shape[0]}.",
            )
        for name, value in (("s", s), ("cost_scale", cost_scale), ("latency_scale", latency_scale)):
            if not value > 0.0:
                raise errors.InvalidInputError(f"{name} must be positive", f"It is {value}.")

        result = Scores.__new__(Scores)
        result._registry = self
        request = &result.request
        memset(request, 0, sizeof(td.td_request))
        vector_copy = _frozen(vector, np.float32, "embedding")
        required = _frozen(required, np.uint32, "required")
        excluded = _frozen(excluded, np.uint32, "excluded")
        vector = vector_copy
        request.embedding = &vector[0]
        request.input_tokens = input_tokens
        if required.shape[0] > 0:
            required_view = required
            request.required = &required_view[0]
            request.n_required = required_view.shape[0]
        if excluded.shape[0] > 0:
            excluded_view = excluded
            request.excluded = &excluded_view[0]
            request.n_excluded = excluded_view.shape[0]
        if pool is not None:
            request.has_pool = 1
            request.pool = pool
        request.max_cost = max_cost
        request.budget_remaining = budget_remaining
        request.max_latency_ms = max_latency_ms
        request.min_quality = min_quality
        request.min_expected_quality = min_expected_quality
        policy.cost_weight = cost_weight
        policy.latency_weight = latency_weight
        policy.quality_weight = quality_weight
        policy.fit_weight = fit_weight
        policy.cost_scale = cost_scale
        policy.latency_scale = latency_scale
        policy.per_dollar = per_dollar

        result.candidates = np.zeros(n, dtype=CANDIDATE_DTYPE)
        result.order = np.zeros(n, dtype=np.uint32)
        predicted = np.zeros(n, dtype=np.float64)
        if outputs is not None and n > 0:
            outputs = _frozen(outputs, np.uint32, "outputs")
            probability_view = _floats(probabilities, "probabilities")
            covered = outputs[outputs != NONE]
            if outputs.shape[0] != n or (covered >= probability_view.shape[0]).any():
                raise errors.ShapeError(
                    "outputs of the model do not fit the agents",
                    f"There are {outputs.shape[0]} for {n} agents.",
                )
            output_view = outputs
            predicted_view = predicted
            if covered.size > 0 and td.td_score_predict(
                &self.registry, &output_view[0], &probability_view[0], &predicted_view[0]
            ):
                request.predicted = &predicted_view[0]
                request.outputs = &output_view[0]
        result._arrays = (vector_copy, required, excluded, predicted, outputs)
        if n > 0:
            candidate_bytes = result.candidates.view(np.uint8)
            candidates = <td.td_candidate *> &candidate_bytes[0]
            order_view = result.order
            order = &order_view[0]
        with nogil:
            status = td.td_score_agents(&self.registry, mu, s, &policy, request, candidates,
                                        scratch.start, scratch.size)
            if status == td.TD_OK:
                best = td.td_score_best(candidates, n, &n_eligible)
                td.td_score_rank(candidates, n, order)
        if status == td.TD_ERR_NONFINITE:
            _raise(status, _first_nonfinite(vector))
        if status != td.TD_OK:
            _raise(status)
        result.candidates.flags.writeable = False
        result.order.flags.writeable = False
        result.best = None if best == td.TD_NONE else int(best)
        result.n_eligible = n_eligible
        return result

    def products(self, embeddings):
        """The products of several requests with every phrase, before they are cut to cosines.

        Args:
            embeddings: (n, dim) float32, unit length or zero.

        Returns:
            (n, n_phrases) float32: cosines of the quantised vectors.

        Raises:
            ShapeError: for another shape or element type.
            NonFiniteError: for a NaN or an infinity.
        """
        cdef const float[:, ::1] rows = _float_rows(embeddings, "embeddings")
        cdef Py_ssize_t n = rows.shape[0]
        cdef _Scratch scratch = _Scratch(td.td_score_products_scratch_size(&self.registry))
        cdef const float *row[td.TD_SCORE_TOGETHER]
        cdef float[:, ::1] out
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t count
        cdef Py_ssize_t i
        cdef td.td_status status = td.TD_OK

        if rows.shape[1] != self.registry.dim:
            raise errors.ShapeError(
                "embeddings must be rows of the registry's dimension",
                f"They have {rows.shape[1]} elements, phrases {self.registry.dim}.",
            )
        result = np.empty((n, self.registry.n_phrases), dtype=np.float32)
        if result.size == 0:
            return result
        out = result
        with nogil:
            while first < n:
                count = min(n - first, <Py_ssize_t> td.TD_SCORE_TOGETHER)
                for i in range(count):
                    row[i] = &rows[first + i, 0]
                status = td.td_score_products(&self.registry, row, count, &out[first, 0],
                                              scratch.start, scratch.size)
                if status != td.TD_OK:
                    break
                first += count
        if status == td.TD_ERR_NONFINITE:
            _raise(status, "There is one in the embeddings.")
        if status != td.TD_OK:
            _raise(status)
        return result

    def relevance(self, queries, phrase, names, *, double mu, double s):
        """How much a request asks for each capability, and when in the course of the work.

        Args:
            queries: (1 + parts, dim) float32, vectors of the request and of its parts.
            phrase: (c,) uint32, the number of each capability's phrase, NONE for none.
            names: c str, their names, folded.
            mu: similarity at which fit is 0.5, from the encoder.
            s: the slope of fit, from the encoder, above 0.

        Returns:
            (c,) RELEVANCE_DTYPE.

        Raises:
            ShapeError: for another shape, or more parts than team_parts() makes.
            NonFiniteError: for a NaN or an infinity in a vector.
        """
        cdef const float[:, ::1] query_view = _float_rows(queries, "queries")
        cdef _Names folded = _Names(names)
        cdef const uint32_t[::1] phrase_view
        cdef uint8_t[::1] out_bytes
        cdef _Scratch scratch = _Scratch(td.td_score_scratch_size(&self.registry))
        cdef td.td_status status

        phrase = _frozen(phrase, np.uint32, "phrase")
        if phrase.shape[0] != folded.n:
            raise errors.ShapeError(
                f"different numbers of capabilities {phrase.shape[0]} and {folded.n}"
            )
        if query_view.shape[0] < 1 or query_view.shape[1] != self.registry.dim:
            raise errors.ShapeError(
                "queries must be rows of the registry's dimension",
                f"They have {query_view.shape[1]} elements, phrases {self.registry.dim}.",
            )
        known = phrase[phrase != NONE]
        if (known >= self.registry.n_phrases).any():
            raise errors.ShapeError("a capability's phrase is outside of the registry")
        if query_view.shape[0] > 1 + td.TD_PARTS_MAX:
            raise errors.ShapeError("too many parts", f"There are {query_view.shape[0] - 1}.")
        out = np.zeros(folded.n, dtype=RELEVANCE_DTYPE)
        if folded.n == 0:
            return out
        phrase_view = phrase
        out_bytes = out.view(np.uint8)
        with nogil:
            status = td.td_team_relevance(
                &self.registry, mu, s, folded.n, &phrase_view[0], folded.strings,
                &query_view[0, 0], <uint32_t> (query_view.shape[0] - 1),
                <td.td_relevance *> &out_bytes[0], scratch.start, scratch.size)
        if status != td.TD_OK:
            _raise(status)
        return out

    def prior(self, double input_tokens, double max_latency_ms=INFINITY):
        """Choices for a request of which only the length is known.

        Args:
            input_tokens: word pieces.
            max_latency_ms: ms; slower agents are left out.

        Returns:
            (k,) CHOICE_DTYPE in ascending cost and quality.
        """
        cdef uint8_t[::1] out_bytes
        cdef uint32_t n = 0

        out = np.zeros(self.registry.n_agents, dtype=CHOICE_DTYPE)
        if self.registry.n_agents == 0:
            return out
        out_bytes = out.view(np.uint8)
        with nogil:
            td.td_choice_prior(&self.registry, input_tokens, max_latency_ms,
                               <td.td_choice *> &out_bytes[0], &n)
        return out[:n].copy()


@cython.final
cdef class Scores:
    """Every agent scored for one request; made by ``Registry.score``.

    Attributes:
        candidates: (n,) CANDIDATE_DTYPE, in agent order.
        order: (n,) uint32, agent numbers: eligible ones best first, then the rejected ones.
        best: number of the chosen agent, None when all were rejected.
        n_eligible: how many agents passed every limit.
    """

    cdef td.td_request request
    cdef Registry _registry
    cdef tuple _arrays
    cdef readonly object candidates
    cdef readonly object order
    cdef readonly object best
    cdef readonly uint32_t n_eligible

    def __init__(self):
        raise TypeError("Scores are made by Registry.score()")

    def reason(self, uint32_t agent, str objective, uint32_t rank, info=None):
        """Say in one line why an agent was chosen, or what rejected it and by how much.

        Args:
            agent: its number.
            objective: the name of the objective.
            rank: its place among the eligible ones, from 1.
            info: (n_tokens, n_used, n_known) as from ``Encoder.embed_info``, None for a vector.

        Raises:
            IndexError: for a number that no agent has.
        """
        cdef const uint8_t[::1] candidate_bytes
        cdef const td.td_candidate *candidate
        cdef const td.td_agent *registered
        cdef bytes name = _utf8(objective)
        cdef const char *name_at = name
        cdef bytes phrase
        cdef const char *phrase_at = NULL
        cdef size_t phrase_size = 0
        cdef td.td_embed_info embed_info
        cdef td.td_embed_info *info_at = NULL
        cdef char[td.TD_REASON_SIZE] out
        cdef size_t written

        if agent >= self._registry.registry.n_agents:
            raise IndexError(f"no agent has number {agent}")
        candidate_bytes = self.candidates.view(np.uint8)
        candidate = <const td.td_candidate *> &candidate_bytes[0] + agent
        registered = self._registry.registry.agents + agent
        if candidate.phrase != td.TD_NONE:
            phrase = <bytes> self._registry._phrases[candidate.phrase]
            phrase_at = phrase
            phrase_size = len(phrase)
        if info is not None:
            embed_info.n_tokens, embed_info.n_used, embed_info.n_known = info
            info_at = &embed_info
        written = td.td_reason(candidate, registered, &self.request, phrase_at, phrase_size,
                               name_at, rank, self.n_eligible, info_at, out, td.TD_REASON_SIZE)
        return PyUnicode_DecodeUTF8(out, written, b"replace")

    def choices(self, bint hull_only, bint needs_cost):
        """Agents worth considering when many requests are decided together.

        Args:
            hull_only: keep what lies on the hull of quality over cost only.
            needs_cost: leave out agents of unknown cost.

        Returns:
            (k,) CHOICE_DTYPE in ascending cost and quality, and the best candidate as another one
            (0-dimensional; meaningless when k is 0 or ``best`` is None).
        """
        cdef const uint8_t[::1] candidate_bytes
        cdef uint8_t[::1] out_bytes
        cdef uint8_t[::1] fallback_bytes
        cdef uint32_t preferred = td.TD_NONE
        cdef uint32_t n = self._registry.registry.n_agents
        cdef uint32_t n_out = 0
        cdef td.td_status status

        out = np.zeros(n, dtype=CHOICE_DTYPE)
        fallback = np.zeros(1, dtype=CHOICE_DTYPE)
        if n == 0:
            return out, fallback[0]
        if self.best is not None:
            preferred = self.best
        candidate_bytes = self.candidates.view(np.uint8)
        out_bytes = out.view(np.uint8)
        fallback_bytes = fallback.view(np.uint8)
        with nogil:
            status = td.td_choice_frontier(
                <const td.td_candidate *> &candidate_bytes[0], n, hull_only, needs_cost, preferred,
                <td.td_choice *> &out_bytes[0], &n_out, <td.td_choice *> &fallback_bytes[0])
        if status != td.TD_OK:
            _raise(status)
        return out[:n_out].copy(), fallback[0]

    def team(
        self,
        strategy,
        uint32_t n_wanted,
        relevance,
        names,
        *,
        required=(),
        double max_cost=INFINITY,
        double max_latency_ms=INFINITY,
    ):
        """Choose several agents; see td_team_choose() in tinydancer.h.

        Args:
            strategy: one of ``STRATEGIES``.
            n_wanted: members, from 1 to ``MAX_TEAM``.
            relevance: (c,) RELEVANCE_DTYPE of all capabilities, from ``Registry.relevance``.
            names: c str, the folded names of the capabilities.
            required: ids of capabilities that the team must have together, without doubles.
            max_cost: USD of the whole team.
            max_latency_ms: ms of the whole.

        Raises:
            ShapeError: for numbers out of bounds.
        """
        cdef td.td_team_request request
        cdef int number
        cdef uint8_t[::1] relevance_bytes
        cdef const uint8_t[::1] candidate_bytes
        cdef const uint32_t[::1] required_view
        cdef _Scratch scratch = _Scratch(td.td_team_scratch_size(&self._registry.registry))
        cdef Team result = Team.__new__(Team)
        cdef const td.td_candidate *candidates = NULL
        cdef td.td_status status

        result._names = _Names(names)
        result._scores = self
        relevance = np.ascontiguousarray(relevance, dtype=RELEVANCE_DTYPE)
        if relevance.shape != (result._names.n,):
            raise errors.ShapeError("different numbers of capabilities and relevances")
        # Ids that the agents have are below the number of relevances; see Registry.
        if self._registry._arrays[1].size and self._registry._arrays[1].max() >= result._names.n:
            raise errors.ShapeError("an agent has a capability without relevance")
        required = _frozen(required, np.uint32, "required")
        if (required[required != NONE] >= result._names.n).any():
            raise errors.ShapeError("a required capability has no relevance")
        memset(&request, 0, sizeof(request))
        number = STRATEGIES.index(strategy)
        request.strategy = <td.td_strategy> number
        request.n_wanted = n_wanted
        request.max_cost = max_cost
        request.max_latency_ms = max_latency_ms
        request.n_capabilities = result._names.n
        if required.shape[0] > 0:
            required_view = required
            request.required = &required_view[0]
            request.n_required = required_view.shape[0]
        if result._names.n > 0:
            relevance_bytes = relevance.view(np.uint8)
            request.relevance = <const td.td_relevance *> &relevance_bytes[0]
        if self._registry.registry.n_agents > 0:
            candidate_bytes = self.candidates.view(np.uint8)
            candidates = <const td.td_candidate *> &candidate_bytes[0]
        with nogil:
            status = td.td_team_choose(&self._registry.registry, candidates, &request,
                                       &result.team, scratch.start, scratch.size)
        if status != td.TD_OK:
            _raise(status)
        return result

    def reason_plan(self, choice, double latency, goal, Plan plan, uint32_t n, info=None):
        """Say in one line what was decided for one of ``n`` requests together.

        Args:
            choice: an element of CHOICE_DTYPE.
            latency: ms of its agent, NaN: unknown.
            goal: "least_cost" or "most_quality".
            plan: what solve_plan() made of them all.
            n: how many requests.
            info: as for ``reason``.
        """
        cdef td.td_candidate candidate
        cdef td.td_goal wanted = td.TD_LEAST_COST if goal == "least_cost" else td.TD_MOST_QUALITY
        cdef bytes phrase
        cdef const char *phrase_at = NULL
        cdef size_t phrase_size = 0
        cdef td.td_embed_info embed_info
        cdef td.td_embed_info *info_at = NULL
        cdef char[td.TD_REASON_SIZE] out
        cdef size_t written

        memset(&candidate, 0, sizeof(candidate))
        candidate.agent = choice["agent"]
        candidate.phrase = choice["phrase"]
        candidate.similarity = choice["similarity"]
        candidate.expected_quality = choice["quality"]
        candidate.cost = choice["cost"] if choice["is_known"] else NAN
        candidate.latency = latency
        if candidate.phrase != td.TD_NONE:
            phrase = <bytes> self._registry._phrases[candidate.phrase]
            phrase_at = phrase
            phrase_size = len(phrase)
        if info is not None:
            embed_info.n_tokens, embed_info.n_used, embed_info.n_known = info
            info_at = &embed_info
        written = td.td_reason_plan(&candidate, wanted, &plan.plan, n, phrase_at, phrase_size,
                                    info_at, out, td.TD_REASON_SIZE)
        return PyUnicode_DecodeUTF8(out, written, b"replace")


# ------------------------------------------------------------------ several agents, many requests

include "_teams.pxi"

# ------------------------------------------------------------------ semantic routes

include "_routes.pxi"
include "_nearest.pxi"


# ------------------------------------------------------------------ trained models

include "_models.pxi"


# ------------------------------------------------------------------ blocks of requests

include "_etl.pxi"
include "_etl_route.pxi"
include "_etl_match.pxi"
