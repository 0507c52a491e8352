# Decisions for many requests at a time: part of _kernels.pyx, which includes this file.  Used by
# tinydancer.etl.  Requests and their vectors are those of _etl.pxi.

# Columns of the limits and policies that route_block() takes.
BLOCK_LIMITS = (
    "max_cost", "budget_remaining", "max_latency_ms", "min_quality", "min_expected_quality"
)
BLOCK_WEIGHTS = ("cost_weight", "latency_weight", "quality_weight", "fit_weight", "per_dollar")


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


@cython.final
@cython.internal
cdef class _Products:
    """Products of several requests with all phrases, worked out together where that pays."""

    cdef bint pays
    cdef _Scratch scratch
    cdef _Scratch rows
    cdef const float *embeddings[td.TD_SCORE_TOGETHER]
    cdef const float *row[td.TD_SCORE_TOGETHER]

    def __cinit__(self, Registry registry):
        cdef size_t row = registry.registry.n_phrases * sizeof(float)

        self.pays = registry.registry.n_phrases >= td.TD_SCORE_TOGETHER_FROM
        if self.pays:
            self.scratch = _Scratch(td.td_score_products_scratch_size(&registry.registry))
            self.rows = _Scratch(td.TD_SCORE_TOGETHER * row)

    cdef void read(self, const td.td_registry *registry, _Requests requests, Py_ssize_t first,
                   Py_ssize_t step) noexcept nogil:
        """row[] of the requests from slot first on, before slot step."""
        cdef float *out
        cdef Py_ssize_t slot
        cdef size_t n = 0

        for slot in range(td.TD_SCORE_TOGETHER):
            self.row[slot] = NULL
        if not self.pays:
            return
        out = <float *> self.rows.start
        for slot in range(first, min(step, first + td.TD_SCORE_TOGETHER)):
            if requests.status[slot] == td.TD_OK:
                self.embeddings[n] = requests.vectors + slot * requests.dim
                self.row[slot - first] = out + n * registry.n_phrases
                n += 1
        if td.td_score_products(registry, self.embeddings, n, out, self.scratch.start,
                                self.scratch.size) != td.TD_OK:
            # Each of them says for itself what is wrong with it.
            for slot in range(td.TD_SCORE_TOGETHER):
                self.row[slot] = NULL


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
    model=None,
    outputs=None,
):
    """Choose an agent for each of many requests, without holding the GIL.

    Args:
        registry: the agents.
        encoder: what makes vectors of texts and counts their word pieces; None without texts.
        texts: of n requests as (data, offsets, has_text): uint8, (n + 1,) int64 and (n,) uint8;
            None: no request has one.
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
        model: a quality Model, whose predictions take the place of fit and quality; None: none.
        outputs: (n_agents,) uint32 with model: each agent's output, NONE: it is not covered.

    Returns:
        A dict of arrays of n: "status" (int32: a td_status, or NO_REQUEST), "agent" (uint32, NONE:
        no agent was eligible), "similarity" (float32), "expected_quality", "cost", "latency"
        (float64; NaN: unknown), and "reasoning" as (offsets, bytes), or None.

    Raises:
        ShapeError: if shapes contradict each other.
    """
    cdef _Requests requests = _Requests(registry.registry.dim, encoder, texts, vectors)
    cdef Py_ssize_t n = requests.n
    cdef _Terms terms = _Terms(n, limits, objective, weights, pool, required, excluded, cost_scale,
                               latency_scale)
    cdef _Scratch scratch = _Scratch(td.td_score_scratch_size(&registry.registry))
    cdef _Products products = _Products(registry)
    cdef td.td_candidate chosen
    cdef _Reasons reasons = _Reasons(registry, n, objectives) if reasoning else None
    cdef _Prediction prediction = None
    cdef bint predicts = model is not None
    cdef const char *text
    cdef size_t length
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
    if predicts:
        prediction = _Prediction(registry, model, outputs, encoder)
    for first in range(0, n, STEP):
        step = min(STEP, n - first)
        with nogil:
            requests.read(first, step)
            for slot in range(step):
                i = first + slot
                if slot % td.TD_SCORE_TOGETHER == 0:
                    products.read(&registry.registry, requests, slot, step)
                status[i] = requests.status[slot]
                if status[i] == td.TD_OK:
                    terms.fill(i, &request, &policy)
                    request.embedding = requests.vectors + slot * requests.dim
                    request.input_tokens = <double> requests.info[slot].n_tokens
                    request.products = products.row[slot % td.TD_SCORE_TOGETHER]
                    if predicts:
                        text = NULL
                        length = 0
                        if requests._is_text(i):
                            text = requests.data + requests.offsets[i]
                            length = requests.offsets[i + 1] - requests.offsets[i]
                        status[i] = prediction.read(&registry.registry, text, length, &request)
                if status[i] == td.TD_OK:
                    status[i] = td.td_score_decide(&registry.registry, mu, s, &policy, &request,
                                                   &chosen, &n_eligible, scratch.start,
                                                   scratch.size)
                if status[i] == td.TD_OK and chosen.agent != td.TD_NONE:
                    agent[i] = chosen.agent
                    similarity[i] = chosen.similarity
                    quality[i] = chosen.expected_quality
                    cost[i] = chosen.cost
                    latency[i] = chosen.latency
                    if wanted:
                        info = &requests.info[slot]
                        if requests.has_vector != NULL and requests.has_vector[i]:
                            info = NULL
                        reasons.write(&chosen, registry.registry.agents + chosen.agent, &request,
                                      terms.objective[i * terms.step], n_eligible, info)
                if wanted:
                    reasons.ends[i + 1] = reasons.used
        PyErr_CheckSignals()
    result["reasoning"] = reasons.taken() if wanted else None
    return result
