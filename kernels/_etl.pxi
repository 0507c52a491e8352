# Many requests at a time over Arrow's buffers: part of _kernels.pyx, which includes this file.  Used
# by tinydancer.etl.  Texts are read where they lie, no Python object is made for a request, and the
# GIL is held only between steps, to look at signals.

# What route_block() and match_block() say of a request besides a td_status.
NO_REQUEST = -1

# Columns of the limits and policies that route_block() takes.
BLOCK_LIMITS = (
    "max_cost", "budget_remaining", "max_latency_ms", "min_quality", "min_expected_quality"
)
BLOCK_WEIGHTS = ("cost_weight", "latency_weight", "quality_weight", "fit_weight", "per_dollar")

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


@cython.final
@cython.internal
cdef class _Terms:
    """Objective and limits of each request of a block, or of all of them."""

    cdef Py_ssize_t step
    cdef const double *limits
    cdef const uint32_t *objective
    cdef const double *weights
    cdef Py_ssize_t n_objectives
    cdef double cost_scale
    cdef double latency_scale
    cdef const int64_t *pool
    cdef const int64_t *required_from
    cdef const uint32_t *required
    cdef const int64_t *excluded_from
    cdef const uint32_t *excluded
    cdef object _arrays

    def __cinit__(self, Py_ssize_t n, limits, objective, weights, pool, required, excluded,
                  double cost_scale, double latency_scale):
        cdef Py_ssize_t rows = objective.shape[0]
        cdef const double[:, ::1] limit_view = limits
        cdef const uint32_t[::1] objective_view = objective
        cdef const double[:, ::1] weight_view = weights
        cdef const int64_t[::1] pool_view = pool

        if rows != 1 and rows != n:
            raise errors.ShapeError(
                "limits must be of one request or of all", f"There are {rows} for {n} requests."
            )
        if not (cost_scale > 0.0 and latency_scale > 0.0):
            raise errors.InvalidInputError("cost_scale and latency_scale must be positive")
        _block_shape("limits", limits, (rows, len(BLOCK_LIMITS)))
        _block_shape("pool", pool, (rows,))
        _block_shape("weights", weights, (weights.shape[0], len(BLOCK_WEIGHTS)))
        if rows > 0 and int(objective.max()) >= weights.shape[0]:
            raise errors.ShapeError("an objective is outside of the weights")
        self._arrays = (limits, objective, weights, pool, required, excluded)
        self.step = 1 if rows == n else 0
        self.cost_scale = cost_scale
        self.latency_scale = latency_scale
        if rows > 0:
            self.limits = &limit_view[0, 0]
            self.objective = &objective_view[0]
            self.weights = &weight_view[0, 0]
            self.pool = &pool_view[0]
        self._bind_lists(rows, required, &self.required_from, &self.required)
        self._bind_lists(rows, excluded, &self.excluded_from, &self.excluded)

    cdef int _bind_lists(self, Py_ssize_t rows, object given, const int64_t **first,
                         const uint32_t **ids) except -1:
        cdef const int64_t[::1] first_view
        cdef const uint32_t[::1] id_view

        first[0] = NULL
        ids[0] = NULL
        if given is None:
            return 0
        first_view, id_view = given
        _block_shape("offsets", given[0], (rows + 1,))
        if (first_view[0] < 0 or (np.diff(given[0]) < 0).any()
                or first_view[rows] > id_view.shape[0]):
            raise errors.ShapeError("offsets of names point outside of their list")
        first[0] = &first_view[0]
        if id_view.shape[0] > 0:
            ids[0] = &id_view[0]
        return 0

    cdef void fill(self, Py_ssize_t i, td.td_request *request, td.td_policy *policy) noexcept nogil:
        """Objective and limits of request i."""
        cdef Py_ssize_t row = i * self.step
        cdef const double *limits = self.limits + row * 5
        cdef const double *weights = self.weights + self.objective[row] * 5

        request.max_cost = limits[0]
        request.budget_remaining = limits[1]
        request.max_latency_ms = limits[2]
        request.min_quality = limits[3]
        request.min_expected_quality = limits[4]
        request.has_pool = self.pool[row] >= 0
        request.pool = <uint32_t> self.pool[row]
        request.n_required = 0
        request.n_excluded = 0
        if self.required_from != NULL:
            request.required = self.required + self.required_from[row]
            request.n_required = self.required_from[row + 1] - self.required_from[row]
        if self.excluded_from != NULL:
            request.excluded = self.excluded + self.excluded_from[row]
            request.n_excluded = self.excluded_from[row + 1] - self.excluded_from[row]
        policy.cost_weight = weights[0]
        policy.latency_weight = weights[1]
        policy.quality_weight = weights[2]
        policy.fit_weight = weights[3]
        policy.per_dollar = weights[4] != 0.0
        policy.cost_scale = self.cost_scale
        policy.latency_scale = self.latency_scale


@cython.final
@cython.internal
cdef class _Reasons:
    """Sentences one behind the other, as Arrow keeps strings."""

    cdef list _objectives
    cdef list _phrases
    cdef _Scratch text
    cdef char *at
    cdef object offsets
    cdef int64_t *ends
    cdef int64_t used
    cdef _Scratch pointers
    cdef const char **objective
    cdef const char **phrase
    cdef size_t *phrase_size

    def __cinit__(self, Registry registry, Py_ssize_t n, names):
        cdef Py_ssize_t n_names
        cdef Py_ssize_t n_phrases = len(registry._phrases)
        cdef Py_ssize_t i

        self._objectives = [_utf8(name) for name in names]
        self._phrases = registry._phrases
        n_names = len(self._objectives)
        # Pages that are not written to take no memory.
        self.text = _Scratch(n * td.TD_REASON_SIZE)
        self.at = <char *> self.text.start
        self.offsets = np.zeros(n + 1, dtype=np.int64)
        self.ends = <int64_t *> <uintptr_t> self.offsets.ctypes.data
        self.pointers = _Scratch((n_names + 2 * n_phrases) * sizeof(void *))
        self.objective = <const char **> self.pointers.start
        self.phrase = self.objective + n_names
        self.phrase_size = <size_t *> (self.phrase + n_phrases)
        for i in range(n_names):
            self.objective[i] = <const char *> <bytes> self._objectives[i]
        for i in range(n_phrases):
            self.phrase[i] = <const char *> <bytes> self._phrases[i]
            self.phrase_size[i] = len(<bytes> self._phrases[i])

    cdef void write(self, const td.td_candidate *candidate, const td.td_agent *agent,
                    const td.td_request *request, uint32_t objective, uint32_t n_eligible,
                    const td.td_embed_info *info) noexcept nogil:
        cdef const char *phrase = NULL
        cdef size_t size = 0

        if candidate.phrase != td.TD_NONE:
            phrase = self.phrase[candidate.phrase]
            size = self.phrase_size[candidate.phrase]
        self.used += <int64_t> td.td_reason(
            candidate, agent, request, phrase, size, self.objective[objective], 1, n_eligible,
            info, self.at + self.used, td.TD_REASON_SIZE)

    cdef object taken(self):
        """Offsets, (n + 1,) int64, and the bytes."""
        data = np.empty(self.used, dtype=np.uint8)
        if self.used > 0:
            memcpy(<void *> <uintptr_t> data.ctypes.data, self.text.start, self.used)
        return self.offsets, data


def route_block(
    Registry registry not None,
    encoder,
    *,
    texts=None,
    vectors=None,
    double mu,
    double s,
    limits,
    objective,
    objectives,
    weights,
    pool,
    required=None,
    excluded=None,
    double cost_scale=0.001,
    double latency_scale=1000.0,
    bint reasoning=False,
):
    """Choose an agent for each of many requests, without holding the GIL.

    Args:
        registry: the agents.
        encoder: what makes vectors of texts and counts their word pieces; None without texts.
        texts: of n requests as (data, offsets, has_text): uint8, (n + 1,) int64 and (n,) uint8; None:
            no request has one.
        vectors: of n requests as (rows, has_vector): (n, dim) float32 and (n,) uint8, in place of
            those of the texts; they are scaled to unit length.  None: no request has one.
        mu: similarity at which fit is 0.5.
        s: the slope of fit, above 0.
        limits: (m, 5) float64, BLOCK_LIMITS of each request; m is n, or 1 for all of them.
        objective: (m,) uint32, its row of weights.
        objectives: p str, the names of the objectives.
        weights: (p, 5) float64, BLOCK_WEIGHTS of each objective.
        pool: (m,) int64, ids of pools, NONE for one that no agent is in; -1: no limit.
        required: ids of capabilities as (offsets, ids): (m + 1,) int64 and uint32; None: no limit.
        excluded: numbers of agents, likewise.
        cost_scale: USD at which cost_utility is 0.5, above 0.
        latency_scale: ms at which latency_utility is 0.5, above 0.
        reasoning: whether sentences are wanted.

    Returns:
        A dict of arrays of n: "status" (int32: a td_status, or NO_REQUEST), "agent" (uint32, NONE: no
        agent was eligible), "similarity" (float32), "expected_quality", "cost", "latency" (float64;
        NaN: unknown), and "reasoning" as (offsets, bytes), or None.

    Raises:
        ShapeError: if shapes contradict each other.
    """
    cdef _Requests requests = _Requests(registry.registry.dim, encoder, texts, vectors)
    cdef Py_ssize_t n = requests.n
    cdef _Terms terms = _Terms(n, limits, objective, weights, pool, required, excluded, cost_scale,
                               latency_scale)
    cdef _Scratch candidates = _Scratch(registry.registry.n_agents * sizeof(td.td_candidate))
    cdef _Scratch scratch = _Scratch(td.td_score_scratch_size(&registry.registry))
    cdef td.td_candidate *scored = <td.td_candidate *> candidates.start
    cdef _Reasons reasons = _Reasons(registry, n, objectives) if reasoning else None
    cdef bint wanted = reasoning
    cdef int[::1] status
    cdef uint32_t[::1] agent
    cdef float[::1] similarity
    cdef double[::1] quality
    cdef double[::1] cost
    cdef double[::1] latency
    cdef td.td_request request
    cdef td.td_policy policy
    cdef td.td_embed_info *info
    cdef uint32_t best
    cdef uint32_t n_eligible = 0
    cdef Py_ssize_t first
    cdef Py_ssize_t i
    cdef Py_ssize_t slot
    cdef Py_ssize_t step

    if not s > 0.0:
        raise errors.InvalidInputError("s must be positive", f"The value is {s}.")
    if len(objectives) != weights.shape[0]:
        raise errors.ShapeError("different numbers of objectives and weights")
    result = {
        "status": np.zeros(n, dtype=np.int32),
        "agent": np.full(n, td.TD_NONE, dtype=np.uint32),
        "similarity": np.full(n, np.nan, dtype=np.float32),
        "expected_quality": np.full(n, np.nan),
        "cost": np.full(n, np.nan),
        "latency": np.full(n, np.nan),
    }
    status = result["status"]
    agent = result["agent"]
    similarity = result["similarity"]
    quality = result["expected_quality"]
    cost = result["cost"]
    latency = result["latency"]
    memset(&request, 0, sizeof(request))
    for first in range(0, n, STEP):
        step = min(STEP, n - first)
        with nogil:
            requests.read(first, step)
            for slot in range(step):
                i = first + slot
                status[i] = requests.status[slot]
                if status[i] == td.TD_OK:
                    terms.fill(i, &request, &policy)
                    request.embedding = requests.vectors + slot * requests.dim
                    request.input_tokens = <double> requests.info[slot].n_tokens
                    status[i] = td.td_score_agents(&registry.registry, mu, s, &policy, &request,
                                                   scored, scratch.start, scratch.size)
                if status[i] == td.TD_OK:
                    best = td.td_score_best(scored, registry.registry.n_agents, &n_eligible)
                    if best != td.TD_NONE:
                        agent[i] = best
                        similarity[i] = scored[best].similarity
                        quality[i] = scored[best].expected_quality
                        cost[i] = scored[best].cost
                        latency[i] = scored[best].latency
                        if wanted:
                            info = &requests.info[slot]
                            if requests.has_vector != NULL and requests.has_vector[i]:
                                info = NULL
                            reasons.write(&scored[best], registry.registry.agents + best, &request,
                                          terms.objective[i * terms.step], n_eligible, info)
                if wanted:
                    reasons.ends[i + 1] = reasons.used
        PyErr_CheckSignals()
    result["reasoning"] = reasons.taken() if wanted else None
    return result


def embed_block(encoder, Py_ssize_t dim, *, texts=None, vectors=None, bint quantised=False):
    """Turn a block of requests into unit vectors, without holding the GIL.

    Args:
        encoder: as for route_block().
        dim: length of its vectors.
        texts: as for route_block().
        vectors: as for route_block().
        quantised: whether the vectors are wanted as int8 times a scale too.

    Returns:
        Vectors, (n, dim) float32, zeros where there is none; status, (n,) int32, as of route_block();
        what int8 makes of the vectors, (n, dim) float32, or None.

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


@cython.final
@cython.internal
cdef class _Shortlist:
    """For each request, the routes that it is worth while to score, packed like all routes."""

    cdef td.td_routes view
    cdef _Scratch routes
    cdef const int64_t *first
    cdef const uint32_t *ids
    cdef const float *cut
    cdef float least_threshold
    cdef object _arrays

    def __cinit__(self, Routes routes, Py_ssize_t n, first, ids, cut):
        cdef const int64_t[::1] first_view = first
        cdef const uint32_t[::1] id_view = ids
        cdef const float[::1] cut_view = cut

        _block_shape("offsets", first, (n + 1,))
        _block_shape("cut", cut, (n,))
        sizes = np.diff(first)
        if first_view[0] < 0 or (sizes < 0).any() or first_view[n] > id_view.shape[0]:
            raise errors.ShapeError("offsets of a shortlist point outside of it")
        if ids.size and int(ids.max()) >= routes.n_routes:
            raise errors.ShapeError("a shortlist has a route that there is not")
        if routes.view.scorer not in (td.TD_SCORER_NEAREST, td.TD_SCORER_TOP3):
            raise errors.InvalidInputError(
                f'scorer "{SCORER_NAMES[routes.view.scorer]}" takes no shortlist',
                "It does not go by a route's nearest utterances.",
            )
        self._arrays = (first, ids, cut)
        self.view = routes.view
        self.routes = _Scratch(max(sizes.max(initial=0), 1) * sizeof(td.td_route))
        self.view.routes = <const td.td_route *> self.routes.start
        self.first = &first_view[0]
        self.ids = &id_view[0] if id_view.shape[0] > 0 else NULL
        self.cut = &cut_view[0] if n > 0 else NULL
        self.least_threshold = routes.routes["threshold"].min(initial=np.inf)

    cdef void take(self, const td.td_routes *whole, Py_ssize_t i, const uint8_t *open,
                   uint8_t *open_here) noexcept nogil:
        """Make the view that of request i."""
        cdef td.td_route *here = <td.td_route *> self.routes.start
        cdef const uint32_t *ids = self.ids + self.first[i]
        cdef uint32_t n = <uint32_t> (self.first[i + 1] - self.first[i])
        cdef uint32_t j

        for j in range(n):
            here[j] = whole.routes[ids[j]]
            open_here[j] = open[ids[j]]
        self.view.n_routes = n

    cdef bint is_enough(self, Py_ssize_t i, const float *scores, const uint32_t *index,
                        size_t n_found, size_t k) noexcept nogil:
        """Whether no route that is not on the list could take or move a place."""
        cdef float least = INFINITY
        cdef size_t j

        if n_found < k:
            return self.cut[i] < self.least_threshold
        for j in range(n_found):
            least = min(least, scores[index[j]])
        return self.cut[i] < least - td.TD_NEAR_TIE


def match_block(Routes routes not None, vectors, wanted, *, Py_ssize_t k, open=None, shortlist=None):
    """Find the best ``k`` routes of each of many requests, without holding the GIL.

    Args:
        routes: the routes.
        vectors: (n, dim) float32 of unit length, from embed_block().
        wanted: (n,) uint8, which of them are requests.
        k: how many at most, at least 1.
        open: (n_routes,) bool, which routes may match; None: all.
        shortlist: for "nearest" and "top3": (offsets, ids, cut), (n + 1,) int64, ascending numbers of
            routes, uint32, and (n,) float32, which no utterance of a route that is not on the list
            exceeds; None: all routes are scored.  A request whose list does not suffice is scored
            against all routes: the matches are those without a list.

    Returns:
        A dict: "offsets" (n + 1,) int64 into "route" (uint32), "score" (float32) and "confidence"
        (float64), best first; and "n_whole", how many requests were scored against all routes.

    Raises:
        ShapeError: if shapes contradict each other.
        InvalidInputError: for a shortlist with another scorer.
    """
    cdef const float[:, ::1] rows = _float_rows(vectors, "vectors")
    cdef const uint8_t[::1] wanted_view = wanted
    cdef Py_ssize_t n = rows.shape[0]
    cdef size_t places = min(<size_t> k, <size_t> routes.view.n_routes)
    cdef _Shortlist short = None
    cdef bint has_list = shortlist is not None
    cdef _Scratch scratch = _Scratch(
        max(td.td_routes_scratch_size(&routes.view), td.td_routes_select_scratch_size(&routes.view))
    )
    cdef _Scratch scores = _Scratch(routes.view.n_routes * sizeof(float))
    cdef _Scratch open_here = _Scratch(routes.view.n_routes)
    cdef float *score_at = <float *> scores.start
    cdef const uint8_t[::1] open_view
    cdef const uint8_t *open_at = NULL
    cdef int64_t[::1] offsets
    cdef uint32_t *route_at
    cdef float *out_at
    cdef double *confidence_at
    cdef uint32_t *found
    cdef size_t n_found = 0
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t n_whole = 0
    cdef Py_ssize_t first
    cdef Py_ssize_t i
    cdef Py_ssize_t j
    cdef Py_ssize_t stop
    cdef bint done
    cdef td.td_status status = td.TD_OK

    if k < 1:
        raise errors.ShapeError("number of routes must be at least 1", f"k is {k}.")
    _block_shape("vectors", vectors, (n, routes.view.dim))
    _block_shape("wanted", wanted, (n,))
    if open is None:
        open = np.ones(routes.view.n_routes, dtype=np.uint8)
    open = np.ascontiguousarray(open, dtype=np.uint8)
    _block_shape("open", open, (routes.view.n_routes,))
    if has_list:
        short = _Shortlist(routes, n, *shortlist)
    result = {
        "offsets": np.zeros(n + 1, dtype=np.int64),
        "route": np.zeros(n * places, dtype=np.uint32),
        "score": np.zeros(n * places, dtype=np.float32),
        "confidence": np.zeros(n * places),
    }
    offsets = result["offsets"]
    route_at = <uint32_t *> <uintptr_t> result["route"].ctypes.data
    out_at = <float *> <uintptr_t> result["score"].ctypes.data
    confidence_at = <double *> <uintptr_t> result["confidence"].ctypes.data
    if places > 0:
        open_view = open
        open_at = &open_view[0]
    for first in range(0, n if places > 0 else 0, STEP):
        stop = min(first + STEP, n)
        with nogil:
            for i in range(first, stop):
                n_found = 0
                found = route_at + at
                done = not wanted_view[i]
                if not done and has_list:
                    short.take(&routes.view, i, open_at, <uint8_t *> open_here.start)
                    status = _match_one(&short.view, &rows[i, 0], score_at,
                                        <uint8_t *> open_here.start, places, found, &n_found,
                                        scratch.start, scratch.size)
                    if status != td.TD_OK:
                        break
                    done = short.is_enough(i, score_at, found, n_found, places)
                    if done:
                        for j in range(<Py_ssize_t> n_found):
                            out_at[at + j] = score_at[found[j]]
                            found[j] = short.ids[short.first[i] + found[j]]
                if not done:
                    n_whole += 1
                    status = _match_one(&routes.view, &rows[i, 0], score_at, open_at, places, found,
                                        &n_found, scratch.start, scratch.size)
                    if status != td.TD_OK:
                        break
                    for j in range(<Py_ssize_t> n_found):
                        out_at[at + j] = score_at[found[j]]
                for j in range(at, at + <Py_ssize_t> n_found):
                    confidence_at[j] = td.td_routes_confidence(&routes.view, out_at[j])
                at += <Py_ssize_t> n_found
                offsets[i + 1] = at
        if status != td.TD_OK:
            _raise(status)
        PyErr_CheckSignals()
    for name in ("route", "score", "confidence"):
        result[name] = result[name][:at]
    result["n_whole"] = n_whole
    return result


cdef td.td_status _match_one(const td.td_routes *routes, const float *query, float *scores,
                             const uint8_t *open, size_t k, uint32_t *found, size_t *n_found,
                             void *scratch, size_t scratch_size) noexcept nogil:
    cdef td.td_status status = td.td_routes_score(routes, query, scores, scratch, scratch_size)

    if status != td.TD_OK:
        return status
    return td.td_routes_select(routes, scores, open, k, found, n_found, scratch, scratch_size)
