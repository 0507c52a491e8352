/*
 * td_knapsack.h - what td_choice.c, td_knapsack.c and td_knapsack_exact.c share.
 *
 * A step goes from one choice of a hull to the next: it buys quality for USD.  The linear
 * relaxation of a knapsack takes the steps of all its groups in one order, dearest quality last.
 */
#ifndef TD_KNAPSACK_H
#define TD_KNAPSACK_H

#include "tinydancer.h"

/* Quality gained per USD; both differences are positive. */
static inline double
td_step_gain(const td_choice *from, const td_choice *to)
{
	return (to->quality - from->quality) / (to->cost - from->cost);
}

typedef struct td_step
{
	double gain;	/* per USD */
	uint32_t group; /* or an item, in td_knapsack_exact.c */
	uint32_t from;	/* numbers of choices within the group */
	uint32_t to;
	uint32_t first_item; /* of the group */
} td_step;

/*
 * The hull of n choices in ascending cost and quality: their numbers into hull[n].  Returns how
 * many; the first and the last choice always are.
 */
uint32_t td_knapsack_hull(const td_choice *choices, uint32_t n, uint32_t *hull);

/* Sort steps: greatest gain first, equal ones by lower first item, then by lower choice.  spare:
 * [n]. */
void td_knapsack_sort(td_step *steps, uint32_t n, td_step *spare);

/* Whether a sum, of quality or of cost, keeps the limit for n_items items. */
int td_knapsack_reached(td_goal goal, double limit, uint32_t n_items, double sum);

/* The sums of a plan in the order of the items, as SQL's sum() makes them. */
void td_knapsack_sums(const td_knapsack *knapsack, const uint32_t *level, double *cost,
					  double *quality);

/*
 * Improve a feasible plan of at most TD_KNAPSACK_EXACT_ITEMS items to the optimum.  Returns 1 when
 * it is proved.  scratch: td_knapsack_exact_size() bytes.
 */
size_t td_knapsack_exact_size(const td_knapsack *knapsack);
int td_knapsack_improve(const td_knapsack *knapsack, td_goal goal, double limit, uint32_t *level,
						void *scratch);

#endif /* TD_KNAPSACK_H */
