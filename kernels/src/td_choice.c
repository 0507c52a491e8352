/*
 * td_choice.c - the agents worth considering for one request among many.
 *
 * In: scored candidates.  Out: choices that no other choice beats in cost and quality at once, in
 * ascending cost.  Called by both shells before td_knapsack.c decides for all requests together.
 */
#include <math.h>
#include <string.h>

#include "td_knapsack.h"

/* USD; a price whose product with tokens has no finite value counts as this, so that sums have one.
 */
#define DEAREST_COST 1e290

/* Relative; see td_knapsack.c: 0.3 pays for three times 0.1. */
#define ROUNDING 1e-12

/* A total order: cheaper first, better first among equally cheap ones, then the lower number. */
static int
stands_before(const td_choice *a, const td_choice *b)
{
	if (a->cost != b->cost)
		return a->cost < b->cost;
	if (a->quality != b->quality)
		return a->quality > b->quality;
	return a->agent < b->agent;
}

/* Restore the heap below root: the last in order on top. */
static void
sift_down(td_choice *heap, uint32_t root, uint32_t n)
{
	for (;;)
	{
		uint32_t child = 2 * root + 1;
		td_choice held;

		if (child >= n)
			return;
		if (child + 1 < n && stands_before(&heap[child], &heap[child + 1]))
			child++;
		if (!stands_before(&heap[root], &heap[child]))
			return;
		held = heap[root];
		heap[root] = heap[child];
		heap[child] = held;
		root = child;
	}
}

static void
sort_choices(td_choice *choices, uint32_t n)
{
	uint32_t i;

	for (i = n / 2; i-- > 0;)
		sift_down(choices, i, n);
	for (i = n; i-- > 1;)
	{
		td_choice last = choices[0];

		choices[0] = choices[i];
		choices[i] = last;
		sift_down(choices, 0, i);
	}
}

/* Sorted choices become those that cost more only where they are better. */
static uint32_t
drop_beaten(td_choice *choices, uint32_t n)
{
	uint32_t kept = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		if (kept == 0 || choices[i].quality > choices[kept - 1].quality)
			choices[kept++] = choices[i];
	}
	return kept;
}

/* Drop the choices below the hull, in place; see td_knapsack_hull(). */
static uint32_t
drop_inner(td_choice *choices, uint32_t n)
{
	uint32_t kept = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		while (kept >= 2 && td_step_gain(&choices[kept - 1], &choices[i]) >=
								td_step_gain(&choices[kept - 2], &choices[kept - 1]))
			kept--;
		choices[kept++] = choices[i];
	}
	return kept;
}

uint32_t
td_knapsack_hull(const td_choice *choices, uint32_t n, uint32_t *hull)
{
	uint32_t kept = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		while (kept >= 2 && td_step_gain(&choices[hull[kept - 1]], &choices[i]) >=
								td_step_gain(&choices[hull[kept - 2]], &choices[hull[kept - 1]]))
			kept--;
		hull[kept++] = i;
	}
	return kept;
}

static void
set_choice(td_choice *choice, const td_candidate *c, double dearest)
{
	memset(choice, 0, sizeof(*choice));
	choice->is_known = !isnan(c->cost);
	choice->cost = isnan(c->cost) ? dearest : c->cost;
	if (choice->cost > DEAREST_COST)
		choice->cost = DEAREST_COST;
	choice->quality = c->expected_quality;
	choice->similarity = c->similarity;
	choice->agent = c->agent;
	choice->phrase = c->phrase;
}

td_status
td_choice_frontier(const td_candidate *candidates, uint32_t n, int hull_only, int needs_cost,
				   uint32_t preferred, td_choice *out, uint32_t *n_out, td_choice *fallback)
{
	double dearest = 0.0;
	uint32_t kept = 0;
	uint32_t next = TD_NONE;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		if (candidates[i].rejected_by == 0 && candidates[i].cost > dearest)
			dearest = candidates[i].cost;
	}
	for (i = 0; i < n; i++)
	{
		if (candidates[i].rejected_by == 0 && !(needs_cost && isnan(candidates[i].cost)))
			set_choice(&out[kept++], &candidates[i], dearest);
	}
	sort_choices(out, kept);
	kept = drop_beaten(out, kept);
	if (hull_only)
		kept = drop_inner(out, kept);
	*n_out = kept;
	/* A cap on the sum leaves the preferred one out too: then the next best of known cost. */
	for (i = 0; needs_cost && preferred < n && isnan(candidates[preferred].cost) && i < n; i++)
	{
		if (candidates[i].rejected_by == 0 && !isnan(candidates[i].cost) &&
			(next == TD_NONE || candidates[i].score > candidates[next].score))
			next = i;
	}
	if (next != TD_NONE)
		preferred = next;
	if (fallback != NULL && preferred < n)
		set_choice(fallback, &candidates[preferred], dearest);
	return TD_OK;
}

td_status
td_choice_prior(const td_registry *registry, double input_tokens, double max_latency_ms,
				td_choice *out, uint32_t *n_out)
{
	uint32_t kept = 0;
	uint32_t i;

	for (i = 0; i < registry->n_agents; i++)
	{
		const td_agent *agent = &registry->agents[i];
		td_candidate c;

		/* Written so that an unknown latency (NaN) breaks a limit that is set. */
		if (!agent->active ||
			(max_latency_ms < INFINITY && !(agent->avg_latency_ms <= max_latency_ms)))
			continue;
		memset(&c, 0, sizeof(c));
		c.agent = i;
		c.phrase = TD_NONE;
		c.cost = td_score_cost(agent, input_tokens);
		c.expected_quality = agent->quality_score * agent->success_rate;
		if (!isnan(c.cost))
			set_choice(&out[kept++], &c, 0.0);
	}
	sort_choices(out, kept);
	*n_out = drop_beaten(out, kept);
	return TD_OK;
}

td_status
td_choice_afford(const td_choice *choices, uint32_t n, double budget, td_choice *best,
				 double *times)
{
	uint32_t i = n;

	if (n == 0)
		return TD_ERR_SHAPE;
	while (i > 0 && !(choices[i - 1].cost <= budget * (1.0 + ROUNDING)))
		i--;
	*best = choices[i > 0 ? i - 1 : 0];
	*times = best->cost > 0.0 ? floor(budget * (1.0 + ROUNDING) / best->cost) : INFINITY;
	return i > 0 ? TD_OK : TD_ERR_SHAPE;
}
