# Trained models over NumPy: part of _kernels.pyx, which includes this file.  Used by
# tinydancer.train, tinydancer.route and tinydancer.model_file; the meaning of everything is in
# tinydancer.h.

TASKS = tuple(td.td_task_name(i).decode("ascii") for i in range(td.TD_N_TASKS))
MAX_PIECES = int(td.TD_WORDS_MAX_PIECES)


@cython.final
cdef class Model:
    """A checked model: vectors and texts to probabilities.

    Args:
        source: a path, which is mapped read-only, or the bytes of a file, which are copied.
        level: the instruction set to compute with, as for ``matvec``.

    Raises:
        FileFormatError: if the bytes are not an intact model of this version.
        InvalidInputError: for a level that is unknown, or that this processor cannot run.
        OSError: if the path cannot be read.
        ShapeError: if one application would take too long.
    """

    cdef td.td_model model
    cdef _Content _content
    cdef readonly tuple names

    def __cinit__(self, source, *, level=None):
        cdef uint32_t chosen = _chosen_level(level)
        cdef _Content content = _Content(source)
        cdef td.td_status status
        cdef const char *name
        cdef uint32_t i

        self._content = content
        with nogil:
            status = td.td_model_open(content.start, content.size, &self.model)
        if status != td.TD_OK:
            what = "The bytes given" if content.path is None else f'File "{content.path}"'
            _raise(
                status,
                f"{what} cannot be used as a model ({content.size} bytes).",
                "Train it again, or export it again with tinydancer model export.",
            )
        self.model.level = chosen
        for i in range(self.model.n_members):
            self.model.members[i].cell.level = chosen
        names = []
        name = self.model.names
        for i in range(self.model.n_out):
            names.append(PyUnicode_DecodeUTF8(name, strlen(name), NULL))
            name += strlen(name) + 1
        self.names = tuple(names)

    @property
    def task(self):
        """What it says: one of TASKS, which is the kind of its row in tinydancer.model."""
        return TASKS[self.model.task]

    @property
    def encoder_id(self):
        """Whose vectors it reads: "static-1"."""
        return (<bytes> self.model.encoder_id).decode("ascii", "replace")

    @property
    def encoder_checksum(self):
        """XXH64 of that encoder's file, 16 hexadecimal digits."""
        return f"{self.model.encoder_checksum:016x}"

    @property
    def checksum(self):
        """XXH64 of the content, 16 hexadecimal digits."""
        return f"{self.model.file.checksum:016x}"

    @property
    def dim(self):
        """Length of the vectors that it reads."""
        return self.model.dim

    @property
    def n_out(self):
        """How many outputs."""
        return self.model.n_out

    @property
    def n_rows(self):
        """How many vectors of training requests it holds."""
        return self.model.n_rows

    @property
    def reads_text(self):
        """Whether a member reads words, so that a request's text changes what it says."""
        return bool(self.model.reads_text)

    @property
    def prior(self):
        """Base rate of each output, (n_out,) float32."""
        return np.array([self.model.prior[i] for i in range(self.model.n_out)], np.float32)

    @property
    def support(self):
        """Labels of each output that training has seen, (n_out,) uint32; 0: not covered."""
        return np.array([self.model.support[i] for i in range(self.model.n_out)], np.uint32)

    def apply(self, vectors, texts=None, Encoder encoder=None):
        """Return the probability of each output, without holding the GIL.

        Args:
            vectors: (n, dim) float32, contiguous, of unit length or zero.
            texts: a sequence of n texts whose words are read as well; None: only vectors are
                known.  One of them may be None.
            encoder: the model's; needed with texts where the model reads them.

        Returns:
            (n, n_out) float32.

        Raises:
            DimensionError: for vectors of another length.
            NonFiniteError: for a NaN or an infinity in a vector.
            ShapeError: for another shape or element type, or an encoder that does not fit.
            TextEncodingError: for a lone surrogate.
        """
        cdef const float[:, ::1] rows = _float_rows(vectors, "vectors")
        cdef Py_ssize_t n = rows.shape[0]
        cdef float[:, ::1] out
        cdef _Scratch scratch = _Scratch(td.td_model_scratch_size(&self.model))
        cdef const td.td_encoder *words = NULL
        cdef const char *text
        cdef bytes encoded
        cdef size_t length
        cdef td.td_status status
        cdef Py_ssize_t i

        if rows.shape[1] != <Py_ssize_t> self.model.dim:
            _raise(td.TD_ERR_DIMENSION,
                   f"The model expects {self.model.dim}, the vectors have {rows.shape[1]}.")
        if texts is not None and len(texts) != n:
            raise errors.ShapeError(f"{n} vectors and {len(texts)} texts")
        if encoder is not None:
            words = &encoder.encoder
        if texts is not None and self.model.reads_text and encoder is None:
            raise errors.InvalidInputError(
                "a model that reads words needs the encoder whose word pieces they are",
                f'It was trained with encoder "{self.encoder_id}".',
            )
        result = np.empty((n, self.model.n_out), dtype=np.float32)
        out = result
        for i in range(n):
            encoded = None if texts is None or texts[i] is None else _utf8(texts[i])
            text = NULL
            length = 0
            if encoded is not None:
                text = encoded
                length = len(encoded)
            with nogil:
                status = td.td_model_apply(&self.model, words, text, length, &rows[i, 0],
                                           &out[i, 0], scratch.start, scratch.size)
            if status != td.TD_OK:
                _raise(status, f"Request {i + 1} of {n} cannot be worked with.")
            if i % 256 == 255:
                PyErr_CheckSignals()
        return result

    def __repr__(self):
        return f"<Model {self.task} of {self.model.n_out} outputs for {self.encoder_id}>"


def word_features(Encoder encoder, texts, n_buckets, features):
    """Return the hashed word-piece features of texts as rows of a sparse matrix.

    Args:
        encoder: whose word pieces they are.
        texts: a sequence of n texts; the first MAX_PIECES pieces of each are read.
        n_buckets: a power of two, at most 2**20.
        features: sum of WORDS_UNIGRAMS 1, WORDS_BIGRAMS 2, WORDS_LENGTH 4.

    Returns:
        indptr (n + 1,) int64, indices (nnz,) int32 ascending in each row, and values (nnz,)
        float32, the square roots of the counts: the parts of a scipy.sparse.csr_matrix.

    Raises:
        InvalidInputError: for a number of buckets that is no power of two.
        TextEncodingError: for a lone surrogate.
    """
    cdef uint32_t buckets_wanted = n_buckets
    cdef uint32_t kinds = features
    cdef uint32_t ids[td.TD_WORDS_MAX_PIECES]
    cdef uint32_t found[td.TD_WORDS_MAX_FEATURES]
    cdef float values[td.TD_WORDS_MAX_FEATURES]
    cdef td.td_token_count count
    cdef td.td_status status
    cdef bytes encoded
    cdef const char *text
    cdef size_t length
    cdef size_t n
    cdef list all_buckets = []
    cdef list all_values = []

    if buckets_wanted == 0 or buckets_wanted & (buckets_wanted - 1) != 0:
        raise errors.InvalidInputError(
            "the number of buckets must be a power of two", f"It is {n_buckets}."
        )
    indptr = np.zeros(len(texts) + 1, np.int64)
    for i, given in enumerate(texts):
        encoded = _utf8(given)
        text = encoded
        length = len(encoded)
        with nogil:
            status = td.td_text_tokenize(&encoder.encoder.vocab, text, length, ids,
                                         td.TD_WORDS_MAX_PIECES, &count)
            n = 0
            if status == td.TD_OK:
                n = td.td_words_features(ids, count.n_stored, buckets_wanted, kinds, found, values)
        if status != td.TD_OK:
            _raise(status, f"Text {i + 1} of {len(texts)} cannot be read.")
        indptr[i + 1] = indptr[i] + n
        all_buckets.append(np.array(<uint32_t[:td.TD_WORDS_MAX_FEATURES]> found)[:n].copy())
        all_values.append(np.array(<float[:td.TD_WORDS_MAX_FEATURES]> values)[:n].copy())
        if i % 256 == 255:
            PyErr_CheckSignals()
    if not all_buckets:
        return indptr, np.empty(0, np.int32), np.empty(0, np.float32)
    return indptr, np.concatenate(all_buckets).astype(np.int32), np.concatenate(all_values)


@cython.final
@cython.internal
cdef class _Prediction:
    """What a quality model says of one request after another, without the GIL."""

    cdef const td.td_model *model
    cdef const td.td_encoder *words
    cdef const uint32_t *outputs
    cdef _Scratch scratch
    cdef _Scratch room
    cdef float *probability
    cdef double *predicted
    cdef object _arrays

    def __cinit__(self, Registry registry, Model model, outputs, words):
        cdef const uint32_t[::1] view
        cdef Py_ssize_t n = registry.registry.n_agents
        cdef size_t probabilities = (model.model.n_out * sizeof(float) + 63) & ~<size_t> 63

        outputs = _frozen(outputs, np.uint32, "outputs")
        covered = outputs[outputs != NONE]
        if outputs.shape[0] != n or (covered >= model.model.n_out).any():
            raise errors.ShapeError(
                "outputs of the model do not fit the agents",
                f"There are {outputs.shape[0]} for {n} agents.",
            )
        if model.model.dim != registry.registry.dim:
            _raise(td.TD_ERR_DIMENSION,
                   f"The model expects {model.model.dim}, phrases have {registry.registry.dim}.")
        self._arrays = (outputs, model, words)
        self.model = &model.model
        self.words = NULL
        # Words of another encoder than the model's are left out, as the server leaves them out.
        if words is not None and not (model.reads_text and words.dim != model.dim):
            self.words = &(<Encoder?> words).encoder
        self.scratch = _Scratch(td.td_model_scratch_size(self.model))
        self.room = _Scratch(probabilities + n * sizeof(double))
        self.probability = <float *> self.room.start
        self.predicted = <double *> (<char *> self.room.start + probabilities)
        if n > 0:
            view = outputs
            self.outputs = &view[0]

    cdef td.td_status read(self, const td.td_registry *registry, const char *text, size_t length,
                           td.td_request *request) noexcept nogil:
        """Let the request have what the model predicts; text is NULL where there is none."""
        cdef td.td_status status

        request.predicted = NULL
        request.outputs = self.outputs
        if self.outputs == NULL:
            return td.TD_OK
        status = td.td_model_apply(self.model, self.words, text if self.words != NULL else NULL,
                                   length, request.embedding, self.probability,
                                   self.scratch.start, self.scratch.size)
        if status == td.TD_OK and td.td_score_predict(registry, self.outputs, self.probability,
                                                      self.predicted):
            request.predicted = self.predicted
        return status
