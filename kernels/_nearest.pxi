# Nearest rows of a large set over NumPy: part of _kernels.pyx, which includes this file.  Used by
# bench/kernels.py; the meaning of everything is in tinydancer.h.


# A search of a thousand rows takes so little time that looking these up would show.
cdef object _empty = np.empty
cdef object _uint32 = np.dtype(np.uint32)
cdef object _float32 = np.dtype(np.float32)


@cython.final
cdef class Nearest:
    """Rows to be searched many times by cosine: few packed, many with a sketch of their signs.

    Args:
        rows: (n, dim) int8, each the ``quantise`` of a unit vector.
        scales: (n,) float32, the scales of the rows.
        level: the instruction set to compute with, as for ``matvec``.

    Raises:
        ShapeError: for other shapes or element types, or an impossible dimension.
        InvalidInputError: for a level that is unknown, or that this processor cannot run.
    """

    cdef object _rows
    cdef object _scales
    cdef object _sketch
    cdef const void *rows_at
    cdef const float *scales_at
    cdef const void *sketch_at
    cdef size_t n
    cdef size_t dim
    cdef uint32_t level_number

    def __cinit__(self, rows, scales, *, level=None):
        cdef const int8_t[:, ::1] view = _int8_rows(rows)
        cdef const int8_t *given = &view[0, 0] if view.size > 0 else NULL
        cdef void *at

        self.level_number = _chosen_level(level)
        self.n = view.shape[0]
        self.dim = view.shape[1]
        if not 0 < self.dim <= MAX_I8:
            raise errors.ShapeError("rows have an impossible dimension", f"It is {self.dim}.")
        self._scales = _frozen(scales, np.float32, "scales")
        if self._scales.shape[0] != view.shape[0]:
            raise errors.ShapeError(
                f"different numbers of rows and scales {self.n} and {self._scales.shape[0]}"
            )
        self.scales_at = <const float *> <uintptr_t> self._scales.ctypes.data
        self.sketch_at = NULL
        if self.n < td.TD_SKETCH_LEAST:
            self._rows = _aligned((td.td_pack_size(self.n, self.dim),), np.uint8)
            self._sketch = None
            at = <void *> <uintptr_t> self._rows.ctypes.data
            self.rows_at = at
            with nogil:
                td.td_pack_make(given, self.n, self.dim, at)
            return
        self._rows = _aligned_copy(np.asarray(view))
        self._sketch = _aligned((td.td_sketch_size(self.n, self.dim),), np.uint8)
        self.rows_at = <const void *> <uintptr_t> self._rows.ctypes.data
        at = <void *> <uintptr_t> self._sketch.ctypes.data
        with nogil:
            td.td_sketch_make(<const int8_t *> self.rows_at, self.n, self.dim, at)
        self.sketch_at = at

    @property
    def sketch_size(self):
        """Bytes of the sketch, which a search reads; 0 where there is none."""
        return 0 if self._sketch is None else self._sketch.nbytes

    def search(self, query, Py_ssize_t k):
        """Find the ``k`` rows nearest to a query by cosine.

        Args:
            query: (dim,) float32, unit length or zero.
            k: how many; fewer come back when there are fewer rows.

        Returns:
            Row numbers, (min(k, n),) uint32, greatest cosine first and equal ones by row number,
            their cosines, float32, and whether every row was compared.

        Raises:
            ShapeError: for another shape or element type, or a negative ``k``.
            NonFiniteError: for a NaN or an infinity in the query.
        """
        cdef const float[::1] q = _floats(query, "query")
        cdef uint32_t is_exact = 1
        cdef size_t found = 0
        cdef size_t wanted
        cdef _Scratch scratch
        cdef td.td_status status
        cdef const float *query_at = _float_at(q)
        cdef uint32_t *index_at
        cdef float *score_at

        _same_length(self.dim, q.shape[0])
        if k < 0:
            raise errors.ShapeError("number of neighbours is negative", f"k is {k}.")
        wanted = min(<size_t> k, self.n)
        index = _empty(wanted, _uint32)
        score = _empty(wanted, _float32)
        index_at = <uint32_t *> _data_of(index)
        score_at = <float *> _data_of(score)
        if self.sketch_at == NULL:
            scratch = _Scratch(td.td_topk_scratch_size(self.dim))
            with nogil:
                status = td.td_topk_packed(
                    self.level_number, query_at, self.rows_at, self.scales_at, self.n, self.dim,
                    wanted, index_at, score_at, &found, scratch.start, scratch.size)
        else:
            scratch = _Scratch(td.td_topk_sketched_scratch_size(self.dim, wanted))
            with nogil:
                status = td.td_topk_sketched(
                    self.level_number, query_at, <const int8_t *> self.rows_at, self.scales_at,
                    self.sketch_at, self.n, self.dim, wanted, index_at, score_at, &found,
                    &is_exact, scratch.start, scratch.size)
        if status != td.TD_OK:
            _raise(status, _first_nonfinite(q))
        return index, score, bool(is_exact)


cdef void *_data_of(array) except? NULL:
    """Where the elements of an array lie that lives longer than their use."""
    cdef Py_buffer buffer

    PyObject_GetBuffer(array, &buffer, PyBUF_SIMPLE | PyBUF_WRITABLE)
    PyBuffer_Release(&buffer)
    return buffer.buf
