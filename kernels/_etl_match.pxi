# Semantic routes of many requests at a time: part of _kernels.pyx, which includes this file.  Used
# by tinydancer.etl.  Vectors come from embed_block() of _etl.pxi.


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
    cdef size_t scratch_size
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
        # What the kernel asks for does not only grow with the number of routes.
        self.view.n_routes = 0
        self.scratch_size = td.td_routes_scratch_size(&self.view)
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


def match_block(
    Routes routes not None, vectors, wanted, *, Py_ssize_t k, open=None, shortlist=None
):
    """Find the best ``k`` routes of each of many requests, without holding the GIL.

    Args:
        routes: the routes.
        vectors: (n, dim) float32 of unit length, from embed_block().
        wanted: (n,) uint8, which of them are requests.
        k: how many at most, at least 1.
        open: (n_routes,) bool, which routes may match; None: all.
        shortlist: for "nearest" and "top3": (offsets, ids, cut), (n + 1,) int64, ascending numbers
            of routes, uint32, and (n,) float32, which no utterance of a route that is not on the
            list exceeds; None: all routes are scored.  A request whose list does not suffice is
            scored against all routes: the matches are those without a list.

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
    cdef size_t scratch_size = max(td.td_routes_scratch_size(&routes.view),
                                   td.td_routes_select_scratch_size(&routes.view))
    cdef _Scratch scratch
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
        scratch_size = max(scratch_size, short.scratch_size)
    scratch = _Scratch(scratch_size)
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
