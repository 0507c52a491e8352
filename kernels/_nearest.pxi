# Nearest rows of a large set over NumPy: part of _kernels.pyx, which includes this file.  Used by
# bench/kernels.py; the meaning of everything is in tinydancer.h.


@cython.final
cdef class Nearest:
    """Rows to be searched many times by cosine, with a sketch by which most are passed over.

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
    cdef const int8_t *rows_at
    cdef const float *scales_at
    cdef const void *sketch_at
    cdef size_t n
    cdef size_t dim
    cdef uint32_t level_number

    def __cinit__(self, rows, scales, *, level=None):
        cdef const int8_t[:, ::1] view = _int8_rows(rows)
        cdef void *sketch_at

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
        self._rows = _aligned_copy(np.asarray(view))
        self._sketch = _aligned((td.td_sketch_size(self.n, self.dim),), np.uint8)
        self.rows_at = <const int8_t *> <uintptr_t> self._rows.ctypes.data
        self.scales_at = <const float *> <uintptr_t> self._scales.ctypes.data
        sketch_at = <void *> <uintptr_t> self._sketch.ctypes.data
        with nogil:
            td.td_sketch_make(self.rows_at, self.n, self.dim, sketch_at)
        self.sketch_at = sketch_at

    @property
    def sketch_size(self):
        """Bytes of the sketch, which a search reads."""
        return self._sketch.nbytes

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
        cdef const float *query_at = _float_at(q)
        cdef uint32_t[::1] index_view
        cdef float[::1] score_view
        cdef uint32_t *index_at = NULL
        cdef float *score_at = NULL
        cdef uint32_t is_exact = 0
        cdef size_t found = 0
        cdef size_t wanted
        cdef _Scratch scratch
        cdef td.td_status status

        _same_length(self.dim, q.shape[0])
        if k < 0:
            raise errors.ShapeError("number of neighbours is negative", f"k is {k}.")
        wanted = min(<size_t> k, self.n)
        index = np.empty(wanted, dtype=np.uint32)
        score = np.empty(wanted, dtype=np.float32)
        if wanted > 0:
            index_view = index
            score_view = score
            index_at = &index_view[0]
            score_at = &score_view[0]
        scratch = _Scratch(td.td_topk_sketched_scratch_size(self.dim, wanted))
        with nogil:
            status = td.td_topk_sketched(
                self.level_number, query_at, self.rows_at, self.scales_at, self.sketch_at, self.n,
                self.dim, wanted, index_at, score_at, &found, &is_exact, scratch.start,
                scratch.size)
        if status != td.TD_OK:
            _raise(status, _first_nonfinite(q))
        return index, score, bool(is_exact)
