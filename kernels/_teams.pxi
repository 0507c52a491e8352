# Several agents for one request, and many requests together, over NumPy: part of _kernels.pyx,
# which includes this file.  Used by tinydancer.route_multi and tinydancer.route_batch; what it all
# means is in tinydancer.h.


@cython.final
@cython.internal
cdef class _Names:
    """Texts as the kernel reads them."""

    cdef list _texts
    cdef td.td_string *strings
    cdef uint32_t n

    def __cinit__(self, names):
        cdef uint32_t i
        cdef bytes text

        self._texts = [_utf8(name) for name in names]
        self.n = len(self._texts)
        self.strings = <td.td_string *> PyMem_RawMalloc(sizeof(td.td_string) * (self.n + 1))
        if self.strings == NULL:
            raise MemoryError()
        for i in range(self.n):
            text = <bytes> self._texts[i]
            self.strings[i].data = text
            self.strings[i].len = len(text)

    def __dealloc__(self):
        PyMem_RawFree(self.strings)


def team_parts(text):
    """Split a request where one task ends and another begins; see td_team_parts().

    Args:
        text: str.

    Returns:
        The parts, at most eight; none when the request is all one.
    """
    cdef bytes utf8 = _utf8(text)
    cdef td.td_string[td.TD_PARTS_MAX] parts
    cdef uint32_t n = td.td_team_parts(utf8, len(utf8), parts)

    return [parts[i].data[:parts[i].len].decode("utf-8") for i in range(n)]


@cython.final
cdef class Team:
    """Agents that were chosen together; made by ``Scores.team``.

    Attributes of a member are given by its number, from 0, in the order of the steps.
    """

    cdef td.td_team team
    cdef _Names _names
    cdef Scores _scores

    def __init__(self):
        raise TypeError("Teams are made by Scores.team()")

    def __len__(self):
        return self.team.n_members

    @property
    def is_exact(self):
        """Whether the team is proved to be the best one."""
        return bool(self.team.is_exact)

    @property
    def needs(self):
        """Ids of the capabilities that the request needs, and which of them are covered."""
        return [
            (self.team.need[i], bool(self.team.covered >> i & 1)) for i in range(self.team.n_needs)
        ]

    @property
    def cost(self):
        """USD of the whole."""
        return self.team.cost

    @property
    def latency_ms(self):
        """Latency of the whole in ms."""
        return self.team.latency_ms

    cdef uint32_t _member(self, member) except? 4294967295:
        if not 0 <= member < self.team.n_members:
            raise IndexError(f"no member has number {member}")
        return member

    def agent(self, member):
        """The number of its agent."""
        return self.team.member[self._member(member)].agent

    def weight(self, member):
        """Weight of its vote or share of the work; NaN in a pipeline."""
        return self.team.member[self._member(member)].weight

    def capabilities(self, member):
        """Ids of the capabilities that it is there for."""
        cdef td.td_member *m = &self.team.member[self._member(member)]

        if m.needs == 0:
            return [] if m.own == td.TD_NONE else [m.own]
        return [self.team.need[i] for i in range(self.team.n_needs) if m.needs >> i & 1]

    def role(self, member):
        """What it is for."""
        cdef char[td.TD_REASON_SIZE] out
        cdef size_t written = td.td_team_role(&self.team, self._member(member),
                                              self._names.strings, out, td.TD_REASON_SIZE)

        return PyUnicode_DecodeUTF8(out, written, b"replace")

    def reason(self, member, str objective, info=None):
        """Say in one line why it is in the team; see ``Scores.reason``."""
        cdef const uint8_t[::1] candidate_bytes = self._scores.candidates.view(np.uint8)
        cdef uint32_t number = self._member(member)
        cdef const td.td_candidate *candidate
        cdef bytes name = _utf8(objective)
        cdef const char *name_at = name
        cdef bytes phrase
        cdef const char *phrase_at = NULL
        cdef size_t phrase_size = 0
        cdef td.td_embed_info embed_info
        cdef td.td_embed_info *info_at = NULL
        cdef char[td.TD_REASON_SIZE] out
        cdef size_t written

        candidate = (<const td.td_candidate *> &candidate_bytes[0]
                     + self.team.member[number].agent)
        if candidate.phrase != td.TD_NONE:
            phrase = <bytes> self._scores._registry._phrases[candidate.phrase]
            phrase_at = phrase
            phrase_size = len(phrase)
        if info is not None:
            embed_info.n_tokens, embed_info.n_used, embed_info.n_known = info
            info_at = &embed_info
        written = td.td_reason_member(candidate, &self.team, number, phrase_at, phrase_size,
                                      name_at, info_at, out, td.TD_REASON_SIZE)
        return PyUnicode_DecodeUTF8(out, written, b"replace")


@cython.final
cdef class Plan:
    """What was decided for many requests together; made by solve_plan() and divide_budget()."""

    cdef td.td_plan plan

    def __init__(self):
        raise TypeError("Plans are made by solve_plan() and divide_budget()")

    @property
    def cost(self):
        """USD of all requests."""
        return self.plan.cost

    @property
    def quality(self):
        """Expected quality of all requests, summed."""
        return self.plan.quality

    @property
    def bound(self):
        """Least cost, or greatest quality, of the linear relaxation."""
        return self.plan.bound

    @property
    def reachable(self):
        """Greatest mean quality, or least total cost, of any plan."""
        return self.plan.reachable

    @property
    def limit(self):
        """The limit that was used."""
        return self.plan.limit

    @property
    def is_feasible(self):
        """Whether the plan keeps the limit."""
        return bool(self.plan.is_feasible)

    @property
    def is_exact(self):
        """Whether it is proved to be the optimum over the given choices."""
        return bool(self.plan.is_exact)


@cython.final
@cython.internal
cdef class _Knapsack:
    """Checked arrays of a knapsack, and the views that keep them."""

    cdef td.td_knapsack knapsack
    cdef tuple _arrays
    cdef _Scratch scratch

    def __cinit__(self, first, choices, group, fallback):
        cdef const uint32_t[::1] first_view
        cdef const uint32_t[::1] group_view
        cdef const uint8_t[::1] choice_bytes
        cdef const uint8_t[::1] fallback_bytes

        first = _frozen(first, np.uint32, "first")
        group = _frozen(group, np.uint32, "group")
        choices = _frozen(choices, CHOICE_DTYPE, "choices")
        n_groups = first.shape[0] - 1
        if n_groups < 1 or first[0] != 0 or first[n_groups] != choices.shape[0]:
            raise errors.ShapeError("first must begin with 0 and end with the number of choices")
        if (np.diff(first.astype(np.int64)) < 1).any():
            raise errors.ShapeError("every group needs a choice")
        if (group >= n_groups).any():
            raise errors.ShapeError("an item is of no group")
        if fallback is not None:
            fallback = _frozen(fallback, CHOICE_DTYPE, "fallback")
            if fallback.shape[0] != n_groups:
                raise errors.ShapeError("fallback must have a choice for each group")
            fallback_bytes = fallback.view(np.uint8)
            self.knapsack.fallback = <const td.td_choice *> &fallback_bytes[0]
        self._arrays = (first, choices, group, fallback)
        first_view = first
        choice_bytes = choices.view(np.uint8)
        self.knapsack.n_groups = n_groups
        self.knapsack.n_items = group.shape[0]
        self.knapsack.first = &first_view[0]
        self.knapsack.choices = <const td.td_choice *> &choice_bytes[0]
        if group.shape[0] > 0:
            group_view = group
            self.knapsack.group = &group_view[0]
        self.scratch = _Scratch(td.td_knapsack_scratch_size(&self.knapsack))


def solve_plan(first, choices, group, goal, double limit, fallback=None):
    """Choose for many requests under one limit on all of them; see td_knapsack_solve().

    Args:
        first: (g + 1,) uint32; choices first[i] .. first[i + 1] - 1 are those of group i.
        choices: (c,) CHOICE_DTYPE, in each group as ``Scores.choices`` returns them.
        group: (n,) uint32, the group of each request.
        goal: "least_cost" or "most_quality".
        limit: mean quality, or USD; NaN with "least_cost": the mean quality of the fallback.
        fallback: (g,) CHOICE_DTYPE, a plan to take where it is better; None: none.

    Returns:
        (n,) uint32 numbers within the groups, NONE for the fallback; and a Plan.

    Raises:
        ShapeError: for arrays that contradict each other.
    """
    cdef _Knapsack arrays = _Knapsack(first, choices, group, fallback)
    cdef td.td_goal wanted = td.TD_LEAST_COST if goal == "least_cost" else td.TD_MOST_QUALITY
    cdef Plan plan = Plan.__new__(Plan)
    cdef uint32_t[::1] level_view
    cdef td.td_status status

    if goal not in ("least_cost", "most_quality"):
        raise errors.InvalidInputError(f'unknown goal "{goal}"')
    level = np.zeros(max(arrays.knapsack.n_items, 1), dtype=np.uint32)
    level_view = level
    with nogil:
        status = td.td_knapsack_solve(&arrays.knapsack, wanted, limit, &level_view[0], &plan.plan,
                                      arrays.scratch.start, arrays.scratch.size)
    if status != td.TD_OK:
        _raise(status)
    return level[:arrays.knapsack.n_items], plan


def divide_budget(first, choices, count, double budget, uint32_t n_agents):
    """Divide a budget over kinds of requests; see td_knapsack_divide().

    Args:
        first: (g + 1,) uint32, as for solve_plan().
        choices: (c,) CHOICE_DTYPE.
        count: (g,) float64, how often each kind comes, whole numbers.
        budget: USD.
        n_agents: how many agents the registry has.

    Returns:
        (n_agents,) with the fields cost, requests and quality; and a Plan.

    Raises:
        ShapeError: for arrays that contradict each other.
    """
    cdef _Knapsack arrays = _Knapsack(first, choices, (), None)
    cdef Plan plan = Plan.__new__(Plan)
    cdef const double[::1] count_view
    cdef uint8_t[::1] out_bytes
    cdef td.td_status status

    count = _frozen(count, np.float64, "count")
    if count.shape[0] != arrays.knapsack.n_groups:
        raise errors.ShapeError("count must have a number for each group")
    if n_agents == 0 or (np.asarray(choices)["agent"] >= n_agents).any():
        raise errors.ShapeError("a choice is of no agent")
    allotted = np.zeros(n_agents, dtype=_ALLOTMENT_DTYPE)
    count_view = count
    out_bytes = allotted.view(np.uint8)
    with nogil:
        status = td.td_knapsack_divide(&arrays.knapsack, &count_view[0], budget,
                                       <td.td_allotment *> &out_bytes[0], n_agents, &plan.plan,
                                       arrays.scratch.start, arrays.scratch.size)
    if status != td.TD_OK:
        _raise(status)
    return allotted, plan
