# Many requests at a time over Arrow's buffers, and their vectors: part of _kernels.pyx, which
# includes this file.  Used by tinydancer.etl.  Texts are read where they lie, no Python object is
# made for a request, and the GIL is held only between steps, to look at signals.

# What is said of a request besides a td_status.
NO_REQUEST = -1

# Requests between two looks at signals.
cdef enum:
    STEP = td.TD_EMBED_MAX_TEXTS


cdef const char *NO_BYTES = ""


cdef int _block_shape(str what, object array, tuple wanted) except -1:
    if array.shape != wanted:
        raise errors.ShapeError(
            f"{what} has the wrong shape or element type",
            f"Expected {wanted}, got {array.shape}.",
        )
    return 0


@cython.final
@cython.internal
cdef class _Requests:
    """Texts and vectors of one block, and where their vectors are made."""

    cdef Py_ssize_t n
    cdef Py_ssize_t dim
    cdef Encoder encoder
    cdef const char *data
    cdef const int64_t *offsets
    cdef const uint8_t *has_text
    cdef const float *given
    cdef const uint8_t *has_vector
    cdef _Scratch scratch
    cdef _Scratch rows
    cdef float *vectors
    cdef td.td_embed_info[td.TD_EMBED_MAX_TEXTS] info
    cdef int[td.TD_EMBED_MAX_TEXTS] status
    cdef object _arrays

    def __cinit__(self, Py_ssize_t dim, encoder, texts, vectors):
        cdef const uint8_t[::1] data
        cdef const int64_t[::1] offsets
        cdef const uint8_t[::1] has_text
        cdef const uint8_t[::1] has_vector
        cdef const float[:, ::1] given

        self.dim = dim
        self.encoder = encoder
        self.n = -1
        self._arrays = (texts, vectors)
        if texts is not None:
            data, offsets, has_text = texts
            self.n = has_text.shape[0]
            _block_shape("offsets", texts[1], (self.n + 1,))
            if self.n > 0:
                steps = np.diff(texts[1])
                if offsets[0] < 0 or (steps < 0).any() or offsets[self.n] > data.shape[0]:
                    raise errors.ShapeError("offsets of texts point outside of their bytes")
                self.offsets = &offsets[0]
                self.has_text = &has_text[0]
            # Where no text has a byte, there is no first one to take the address of.
            self.data = NO_BYTES
            if data.shape[0] > 0:
                self.data = <const char *> &data[0]
            if encoder is None:
                raise TypeError("texts need an encoder")
        if vectors is not None:
            given = _float_rows(vectors[0], "vectors")
            has_vector = vectors[1]
            if self.n < 0:
                self.n = has_vector.shape[0]
            _block_shape("vectors", vectors[0], (self.n, dim))
            _block_shape("has_vector", vectors[1], (self.n,))
            if self.n > 0:
                self.given = &given[0, 0]
                self.has_vector = &has_vector[0]
        if self.n < 0:
            raise TypeError("a block needs texts or vectors")
        if encoder is not None:
            self.scratch = _Scratch(td.td_embed_scratch_size(&self.encoder.encoder, SIZE_MAX))
        self.rows = _Scratch(STEP * dim * sizeof(float))
        self.vectors = <float *> self.rows.start

    cdef bint _is_text(self, Py_ssize_t i) noexcept nogil:
        return self.has_text != NULL and self.has_text[i]

    cdef void _take_vector(self, Py_ssize_t i, Py_ssize_t slot) noexcept nogil:
        """A caller's vector; with a text beside it, that is counted."""
        cdef float *row = self.vectors + slot * self.dim
        cdef td.td_token_count count

        memcpy(row, self.given + i * self.dim, self.dim * sizeof(float))
        self.status[slot] = td.td_vec_normalise(row, self.dim)
        if self.status[slot] == td.TD_OK and self._is_text(i):
            self.status[slot] = td.td_text_tokenize(
                &self.encoder.encoder.vocab, self.data + self.offsets[i],
                self.offsets[i + 1] - self.offsets[i], NULL, 0, &count)
            self.info[slot].n_tokens = count.n_total

    cdef void _embed(self, Py_ssize_t first, const uint8_t *slots, Py_ssize_t n) noexcept nogil:
        """Embed the texts of n slots, which are together in one step."""
        cdef const char *texts[td.TD_EMBED_MAX_TEXTS]
        cdef size_t lens[td.TD_EMBED_MAX_TEXTS]
        cdef float *out = <float *> self.rows.start
        cdef td.td_embed_job job
        cdef td.td_status status
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t together
        cdef Py_ssize_t i
        cdef Py_ssize_t at

        for i in range(n):
            at = first + slots[i]
            texts[i] = self.data + self.offsets[at]
            lens[i] = self.offsets[at + 1] - self.offsets[at]
        while done < n:
            # Vectors come one below the other, so texts with a gap between are embedded alone.
            together = n - done if slots[n - 1] - slots[done] == n - 1 - done else 1
            status = td.td_embed_begin(&job, &self.encoder.encoder, texts + done, lens + done,
                                       together, self.scratch.start, self.scratch.size)
            if status != td.TD_OK:
                job.n_texts = 1
                job.status[0] = status
            else:
                while td.td_embed_step(&job):
                    pass
                td.td_embed_end(&job, out + slots[done] * self.dim)
            for i in range(<Py_ssize_t> job.n_texts):
                self.status[slots[done + i]] = job.status[i]
                self.info[slots[done + i]] = job.info[i]
            done += <Py_ssize_t> job.n_texts

    cdef void read(self, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
        """Vectors, counts and outcomes of requests first .. first + n - 1 to slots 0 .. n - 1."""
        cdef uint8_t[td.TD_EMBED_MAX_TEXTS] slots
        cdef Py_ssize_t n_texts = 0
        cdef Py_ssize_t slot

        for slot in range(n):
            memset(&self.info[slot], 0, sizeof(td.td_embed_info))
            if self.has_vector != NULL and self.has_vector[first + slot]:
                self._take_vector(first + slot, slot)
            elif self._is_text(first + slot):
                slots[n_texts] = <uint8_t> slot
                n_texts += 1
            else:
                self.status[slot] = -1
        self._embed(first, slots, n_texts)


def embed_block(encoder, Py_ssize_t dim, *, texts=None, vectors=None, bint quantised=False):
    """Turn a block of requests into unit vectors, without holding the GIL.

    Args:
        encoder: as for route_block().
        dim: length of its vectors.
        texts: as for route_block().
        vectors: as for route_block().
        quantised: whether the vectors are wanted as int8 times a scale too.

    Returns:
        Vectors, (n, dim) float32, zeros where there is none; status, (n,) int32, as of
        route_block(); what int8 makes of the vectors, (n, dim) float32, or None.

    Raises:
        ShapeError: if shapes contradict each other.
    """
    cdef _Requests requests = _Requests(dim, encoder, texts, vectors)
    cdef _Scratch packed = _Scratch(dim)
    cdef int8_t *q = <int8_t *> packed.start
    cdef Py_ssize_t n = requests.n
    cdef int[::1] status_view
    cdef float *out
    cdef float *rounded = NULL
    cdef float *row
    cdef float scale
    cdef Py_ssize_t first
    cdef Py_ssize_t slot
    cdef Py_ssize_t step
    cdef Py_ssize_t j

    result = np.zeros((n, dim), dtype=np.float32)
    status = np.zeros(n, dtype=np.int32)
    rounded_result = np.zeros((n, dim), dtype=np.float32) if quantised else None
    status_view = status
    out = <float *> <uintptr_t> result.ctypes.data
    if quantised:
        rounded = <float *> <uintptr_t> rounded_result.ctypes.data
    for first in range(0, n, STEP):
        step = min(STEP, n - first)
        with nogil:
            requests.read(first, step)
            for slot in range(step):
                status_view[first + slot] = requests.status[slot]
                if requests.status[slot] != td.TD_OK:
                    continue
                row = requests.vectors + slot * dim
                memcpy(out + (first + slot) * dim, row, dim * sizeof(float))
                if rounded != NULL:
                    scale = td.td_vec_quantise(row, dim, q)
                    for j in range(dim):
                        rounded[(first + slot) * dim + j] = scale * <float> q[j]
        PyErr_CheckSignals()
    return result, status, rounded_result
