/*
 * td_rank.c - which scored candidate is the best, and the order of all of them.
 *
 * In: the candidates of td_score.c.  Out: a number, or all numbers in order.  Called by both shells
 * where more than the decision is wanted.
 */
#include <math.h>

#include "tinydancer.h"

/* Whether a is the better choice of the two; a total order, so that the decision is unique. */
static int
is_better(const td_candidate *a, const td_candidate *b)
{
	if ((a->rejected_by == 0) != (b->rejected_by == 0))
		return a->rejected_by == 0;
	if (a->score != b->score)
		return a->score > b->score;
	if (isnan(a->cost) != isnan(b->cost))
		return !isnan(a->cost);
	if (!isnan(a->cost) && a->cost != b->cost)
		return a->cost < b->cost;
	return a->agent < b->agent;
}

uint32_t
td_score_best(const td_candidate *candidates, uint32_t n, uint32_t *n_eligible)
{
	uint32_t best = TD_NONE;
	uint32_t eligible = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		if (candidates[i].rejected_by != 0)
			continue;
		eligible++;
		if (best == TD_NONE || is_better(&candidates[i], &candidates[best]))
			best = i;
	}
	if (n_eligible != NULL)
		*n_eligible = eligible;
	return best;
}

/* Restore the heap below root: the worst candidate on top. */
static void
sift_down(const td_candidate *candidates, uint32_t *order, uint32_t root, uint32_t n)
{
	for (;;)
	{
		uint32_t child = 2 * root + 1;
		uint32_t held;

		if (child >= n)
			return;
		if (child + 1 < n && is_better(&candidates[order[child]], &candidates[order[child + 1]]))
			child++;
		if (!is_better(&candidates[order[root]], &candidates[order[child]]))
			return;
		held = order[root];
		order[root] = order[child];
		order[child] = held;
		root = child;
	}
}

void
td_score_rank(const td_candidate *candidates, uint32_t n, uint32_t *order)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		order[i] = i;
	/* Heap sort, since qsort() may allocate. */
	for (i = n / 2; i-- > 0;)
		sift_down(candidates, order, i, n);
	for (i = n; i-- > 1;)
	{
		uint32_t worst = order[0];

		order[0] = order[i];
		order[i] = worst;
		sift_down(candidates, order, 0, i);
	}
}
