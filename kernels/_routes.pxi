# Semantic routes over NumPy: part of _kernels.pyx, which includes this file.  Used by
# tinydancer.matcher; the meaning of everything is in tinydancer.h.

ROUTE_DTYPE = np.dtype(
    [
        ("first_row", "u4"),
        ("n_rows", "u4"),
        ("first_negative", "u4"),
        ("n_negatives", "u4"),
        ("priority", "i4"),
        ("threshold", "f4"),
    ],
    align=True,
)
ROUTE_REPORT_DTYPE = np.dtype(
    [
        ("threshold", "f4"),
        ("confused_with", "u4"),
        ("confusion", "f8"),
        ("precision", "f8"),
        ("coverage", "f8"),
    ],
    align=True,
)
SCORER_NAMES = tuple(td.td_scorer_name(i).decode("ascii") for i in range(td.TD_N_SCORERS))
NEAR_TIE = float(td.TD_NEAR_TIE)


cdef int _check_route_layout() except -1:
    cdef td.td_route route
    cdef td.td_route_report report

    if (
        ROUTE_DTYPE.itemsize != sizeof(td.td_route)
        or ROUTE_DTYPE.fields["threshold"][1] != <char *> &route.threshold - <char *> &route
        or ROUTE_REPORT_DTYPE.itemsize != sizeof(td.td_route_report)
        or ROUTE_REPORT_DTYPE.fields["coverage"][1] != <char *> &report.coverage - <char *> &report
    ):
        raise ImportError("the structs of tinydancer.h have another layout than their NumPy types")
    return 0


_check_route_layout()


cdef object _scorer_number(object scorer):
    try:
        return SCORER_NAMES.index(scorer)
    except ValueError:
        raise errors.InvalidInputError(
            f'unknown scorer "{scorer}"', f"Known scorers are {', '.join(SCORER_NAMES)}."
        ) from None


@cython.final
cdef class Routes:
    """Semantic routes, packed for the kernel, and how they are scored.

    Args:
        routes: (n,) ROUTE_DTYPE, in byte order of the routes' names.
        rows: (u, dim) int8, each utterance's ``quantise``d unit vector, in the order of the routes.
        scales: (u,) float32, their scales.
        negative_rows: (v, dim) int8, the negative examples, in the order of the routes.
        negative_scales: (v,) float32, their scales.
        scorer: one of SCORER_NAMES.
        mu: score at which confidence is 0.5.
        s: the slope of confidence, above 0.
        weights: (n, n_landmarks) float32 of an earlier fit, for "ridge"; None: fit them.
        level: the instruction set to compute with, as for ``matvec``.

    Raises:
        ShapeError: if shapes contradict each other or a route points outside of the arrays.
        NonFiniteError: for a scale or a constant that is not a finite number.
    """

    cdef td.td_routes view
    cdef readonly object routes
    cdef readonly object weights
    cdef object _arrays

    def __cinit__(self, routes, rows, scales, negative_rows, negative_scales, *, scorer="nearest",
                  double mu=0.5, double s=0.1, weights=None, level=None):
        if np.asarray(routes).dtype != ROUTE_DTYPE:
            raise _wrong_array("routes", routes, "ROUTE_DTYPE of 1 dimension")
        self.routes = _frozen(routes, ROUTE_DTYPE, "routes")
        rows, scales = self._checked_rows(rows, scales, "n_rows", "first_row")
        negative_rows, negative_scales = self._checked_rows(
            negative_rows, negative_scales, "n_negatives", "first_negative"
        )
        if not 0 < rows.shape[1] <= MAX_I8 or rows.shape[1] != negative_rows.shape[1]:
            raise errors.ShapeError(
                "utterances have an impossible dimension",
                f"They have {rows.shape[1]}, negative examples {negative_rows.shape[1]}.",
            )
        if not (np.isfinite(mu) and np.isfinite(s) and s > 0):
            raise errors.NonFiniteError(
                "a constant of confidence is not one", f"mu is {mu}, s is {s}."
            )
        if np.isnan(self.routes["threshold"]).any():
            raise errors.NonFiniteError("a threshold is NaN")
        self.view.n_routes = self.routes.shape[0]
        self.view.n_rows = rows.shape[0]
        self.view.n_negatives = negative_rows.shape[0]
        self.view.dim = rows.shape[1]
        self.view.level = _chosen_level(level)
        self.view.scorer = _scorer_number(scorer)
        self.view.mu = mu
        self.view.s = s
        self.view.routes = <const td.td_route *> <uintptr_t> self.routes.ctypes.data
        self.view.rows = <const int8_t *> <uintptr_t> rows.ctypes.data
        self.view.scales = <const float *> <uintptr_t> scales.ctypes.data
        self.view.negative_rows = <const int8_t *> <uintptr_t> negative_rows.ctypes.data
        self.view.negative_scales = <const float *> <uintptr_t> negative_scales.ctypes.data
        self._arrays = [rows, scales, negative_rows, negative_scales]
        if self.view.scorer == td.TD_SCORER_CENTROID:
            self._set_centroids()
        self.weights = None
        if self.view.scorer == td.TD_SCORER_RIDGE:
            self._set_weights(weights)

    cdef object _checked_rows(self, rows, scales, count, first):
        cdef const int8_t[:, ::1] view = _int8_rows(rows, "rows")

        rows = _aligned_copy(np.asarray(view))
        scales = _frozen(scales, np.float32, "scales")
        if scales.shape[0] != rows.shape[0]:
            raise errors.ShapeError(
                f"different numbers of rows and scales {rows.shape[0]} and {scales.shape[0]}"
            )
        if not np.isfinite(scales).all():
            raise errors.NonFiniteError("scales contain NaN or infinity")
        ends = np.cumsum(self.routes[count], dtype=np.uint64)
        starts = ends - self.routes[count]
        if (starts != self.routes[first]).any() or (ends[-1:] != rows.shape[0]).any():
            raise errors.ShapeError(
                "routes do not follow each other in the arrays",
                f"{first} and {count} must cover the {rows.shape[0]} rows in order.",
            )
        if ends.shape[0] == 0 and rows.shape[0] > 0:
            raise errors.ShapeError("there are rows without a route")
        return rows, scales

    cdef int _set_centroids(self) except -1:
        cdef _Scratch scratch = _Scratch(td.td_routes_centroids_scratch_size(&self.view))
        cdef td.td_status status

        rows = _aligned((self.view.n_routes, self.view.dim), np.int8)
        scales = np.zeros(self.view.n_routes, dtype=np.float32)
        status = td.td_routes_centroids(
            &self.view, <int8_t *> <uintptr_t> rows.ctypes.data,
            <float *> <uintptr_t> scales.ctypes.data, scratch.start, scratch.size)
        if status != td.TD_OK:
            _raise(status)
        self.view.centroid_rows = <const int8_t *> <uintptr_t> rows.ctypes.data
        self.view.centroid_scales = <const float *> <uintptr_t> scales.ctypes.data
        self._arrays += [rows, scales]
        return 0

    cdef int _set_weights(self, weights) except -1:
        shape = (self.view.n_routes, td.td_ridge_landmarks(&self.view))
        if weights is None:
            weights = self._fit(shape)
        else:
            weights = np.array(_float_rows(weights, "weights"), dtype=np.float32, order="C")
        if weights.shape != shape:
            raise errors.ShapeError(
                "weights have the wrong shape", f"Expected {shape}, got {weights.shape}."
            )
        weights.flags.writeable = False
        self.weights = weights
        self.view.weights = <const float *> <uintptr_t> weights.ctypes.data
        return 0

    cdef object _fit(self, shape):
        cdef _Scratch state
        cdef uint32_t more = 1
        cdef td.td_status status

        weights = np.zeros(shape, dtype=np.float32)
        if weights.size == 0:
            return weights
        state = _Scratch(td.td_ridge_size(&self.view))
        status = td.td_ridge_begin(&self.view, state.start, state.size)
        while status == td.TD_OK and more:
            with nogil:
                status = td.td_ridge_step(state.start, &more)
            PyErr_CheckSignals()
        if status != td.TD_OK:
            _raise(status)
        memcpy(<void *> <uintptr_t> weights.ctypes.data, td.td_ridge_weights(state.start),
               weights.nbytes)
        return weights

    @property
    def n_routes(self):
        """How many routes."""
        return self.view.n_routes

    @property
    def dim(self):
        """Length of an utterance's vector."""
        return self.view.dim

    @property
    def arrays(self):
        """What it was made of: rows and scales of utterances, then of negative examples."""
        return tuple(self._arrays[:4])

    @property
    def n_landmarks(self):
        """How many utterances the ridge regression compares a request with."""
        return td.td_ridge_landmarks(&self.view)

    @property
    def fingerprint(self):
        """What the weights of "ridge" depend on, in 64 bits."""
        return td.td_routes_fingerprint(&self.view)

    def score(self, query):
        """Score every route for one request.

        Args:
            query: (dim,) float32, unit length or zero.

        Returns:
            (n,) float32; -inf: excluded by a negative example, or without utterances.

        Raises:
            ShapeError: for another shape or element type.
            DimensionError: for a query of another length.
            NonFiniteError: for a NaN or an infinity in the query.
        """
        cdef const float[::1] q = _floats(query, "query")
        cdef const float *query_at = _float_at(q)
        cdef _Scratch scratch = _Scratch(td.td_routes_scratch_size(&self.view))
        cdef float *out
        cdef td.td_status status

        if q.shape[0] != self.view.dim:
            _raise(
                td.TD_ERR_DIMENSION,
                f"The encoder makes {self.view.dim}, the argument has {q.shape[0]}.",
            )
        scores = np.empty(self.view.n_routes, dtype=np.float32)
        out = <float *> <uintptr_t> scores.ctypes.data
        with nogil:
            status = td.td_routes_score(&self.view, query_at, out, scratch.start, scratch.size)
        if status != td.TD_OK:
            _raise(status, _first_nonfinite(q) if status == td.TD_ERR_NONFINITE else None)
        return scores

    def select(self, scores, Py_ssize_t k, open=None):
        """Return the numbers of the best ``k`` routes that are open and reach their thresholds.

        Args:
            scores: (n,) float32, from ``score``.
            k: how many at most.
            open: (n,) bool, which routes may match; None: all.

        Returns:
            (at most k,) uint32, best first.

        Raises:
            ShapeError: for another shape or element type, or a negative ``k``.
        """
        cdef const float[::1] view = _floats(scores, "scores")
        cdef const float *scores_at = _float_at(view)
        cdef _Scratch scratch = _Scratch(td.td_routes_select_scratch_size(&self.view))
        cdef const uint8_t *open_at = NULL
        cdef uint32_t *out
        cdef size_t found = 0
        cdef size_t wanted
        cdef td.td_status status

        if view.shape[0] != self.view.n_routes:
            raise errors.ShapeError(
                f"different numbers of routes and scores {self.view.n_routes} and {view.shape[0]}"
            )
        if k < 0:
            raise errors.ShapeError("number of routes is negative", f"k is {k}.")
        if open is not None:
            open = np.ascontiguousarray(open, dtype=np.uint8)
            if open.shape != (self.view.n_routes,):
                raise _wrong_array("open", open, f"bool {self.view.n_routes}")
            open_at = <const uint8_t *> <uintptr_t> open.ctypes.data
        wanted = min(<size_t> k, <size_t> self.view.n_routes)
        index = np.empty(wanted, dtype=np.uint32)
        out = <uint32_t *> <uintptr_t> index.ctypes.data
        status = td.td_routes_select(&self.view, scores_at, open_at, wanted, out, &found,
                                     scratch.start, scratch.size)
        if status != td.TD_OK:
            _raise(status)
        return index[:found]

    def confidence(self, float score):
        """Return a score as the probability that the route is right."""
        return td.td_routes_confidence(&self.view, score)

    def tune(self, *, scorer=None, precision=None, coverage=None):
        """Choose scorer, constants of confidence and thresholds by leave-one-out.

        Args:
            scorer: one of SCORER_NAMES; None: the most accurate.
            precision: wanted of each route's answers, 0 to 1; None: not wanted.
            coverage: wanted share of each route's requests, 0 to 1; None: not wanted.

        Returns:
            A dict with "scorer", "mu", "s", "fitted", "n_left_out", "n_short", "accuracy" (by name
            of scorer, NaN: not tried) and "weights" ((n, n_landmarks) float32, None unless
            "ridge" was tried); and the reports, (n,) ROUTE_REPORT_DTYPE.

        Raises:
            ShapeError: for a share outside of 0 to 1, or both wanted.
            InvalidInputError: for an unknown scorer.
        """
        cdef td.td_tune_options options
        cdef td.td_tune_result result
        cdef _Scratch state
        cdef uint32_t more = 1
        cdef const float *found
        cdef td.td_status status

        options.scorer = td.TD_NONE if scorer is None else _scorer_number(scorer)
        options.precision = np.nan if precision is None else precision
        options.coverage = np.nan if coverage is None else coverage
        state = _Scratch(td.td_tune_size(&self.view, &options))
        status = td.td_tune_begin(&self.view, &options, state.start, state.size)
        while status == td.TD_OK and more:
            with nogil:
                status = td.td_tune_step(state.start, &more)
            PyErr_CheckSignals()
        if status != td.TD_OK:
            _raise(status)
        reports = np.zeros(self.view.n_routes, dtype=ROUTE_REPORT_DTYPE)
        td.td_tune_report(state.start, &result,
                          <td.td_route_report *> <uintptr_t> reports.ctypes.data)
        weights = None
        found = td.td_tune_weights(state.start)
        if found != NULL:
            weights = np.zeros((self.view.n_routes, self.n_landmarks), dtype=np.float32)
            memcpy(<void *> <uintptr_t> weights.ctypes.data, found, weights.nbytes)
        return {
            "scorer": SCORER_NAMES[result.scorer],
            "mu": result.mu,
            "s": result.s,
            "fitted": bool(result.fitted),
            "n_left_out": result.n_left_out,
            "n_short": result.n_short,
            "accuracy": {name: result.accuracy[i] for i, name in enumerate(SCORER_NAMES)},
            "weights": weights,
        }, reports
