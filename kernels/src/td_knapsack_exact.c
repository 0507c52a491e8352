/*
 * td_knapsack_exact.c - the optimum for a few requests.
 *
 * In: a feasible plan.  Out: the best one, found by a branch and bound over all choices whose bound
 * is the linear relaxation of what is not yet decided.  Called by td_knapsack.c.  Rounding to one
 * request is nothing among thousands, but a third of the bill among three.
 */
#include <math.h>
#include <string.h>

#include "td_knapsack.h"

/* Bounds computed at most: some 20 ms for the greatest case. */
#define NODE_BUDGET 20000

/* Choices of all items together up to which the search is tried. */
#define MAX_CHOICES 1024

typedef struct search
{
	const td_knapsack *k;
	td_goal goal;
	double limit;
	double best; /* cost, or quality with its sign turned: less is better */
	uint32_t *level;
	td_step *steps; /* of items, in the order in which the relaxation takes them */
	uint32_t n_steps;
	uint32_t nodes;
	/* Sums of the items from i on at the relaxation's first choice. */
	double price_after[TD_KNAPSACK_EXACT_ITEMS + 1];
	double gain_after[TD_KNAPSACK_EXACT_ITEMS + 1];
	uint32_t current[TD_KNAPSACK_EXACT_ITEMS];
} search;

/* Less is better: what a choice costs, or the quality it gives with its sign turned. */
static double
price(const search *s, const td_choice *c)
{
	return s->goal == TD_LEAST_COST ? c->cost : -c->quality;
}

/* What the limit wants enough of: quality, or cost with its sign turned. */
static double
gain(const search *s, const td_choice *c)
{
	return s->goal == TD_LEAST_COST ? c->quality : -c->cost;
}

static const td_choice *
choices_of(const search *s, uint32_t item, uint32_t *n)
{
	uint32_t g = s->k->group[item];

	*n = s->k->first[g + 1] - s->k->first[g];
	return s->k->choices + s->k->first[g];
}

size_t
td_knapsack_exact_size(const td_knapsack *knapsack)
{
	return knapsack->n_items > 0 && knapsack->n_items <= TD_KNAPSACK_EXACT_ITEMS
			   ? MAX_CHOICES * (2 * sizeof(td_step) + sizeof(uint32_t))
			   : 0;
}

/* The least price of items from..n - 1 that gains at least wanted; infinite when none does. */
static double
relaxed(const search *s, uint32_t from, double wanted)
{
	double total = s->price_after[from];
	double got = s->gain_after[from];
	uint32_t i;

	for (i = 0; i < s->n_steps && got < wanted; i++)
	{
		const td_step *step = &s->steps[s->goal == TD_LEAST_COST ? i : s->n_steps - 1 - i];
		const td_choice *choices;
		double change;
		double cost;
		uint32_t n;

		if (step->group < from)
			continue;
		choices = choices_of(s, step->group, &n);
		change = fabs(gain(s, &choices[step->to]) - gain(s, &choices[step->from]));
		cost = fabs(price(s, &choices[step->to]) - price(s, &choices[step->from]));
		if (got + change >= wanted)
			return total + cost * ((wanted - got) / change);
		got += change;
		total += cost;
	}
	return got >= wanted ? total : INFINITY;
}

/* The gain that the limit wants of all items together. */
static double
wanted_gain(const search *s)
{
	return s->goal == TD_LEAST_COST ? s->limit * s->k->n_items : -s->limit;
}

/*
 * Depth first over items, choices in ascending cost.  spent and got are sums in the order of the
 * items, so that a leaf is judged by the same sums as the rows.
 */
static void
descend(search *s, uint32_t item, double spent, double got)
{
	/* Less than the rounding of the bound, which must not cut off the optimum. */
	double margin = 1e-12 * (fabs(s->best) + fabs(spent));
	const td_choice *choices;
	uint32_t n;
	uint32_t i;

	if (item == s->k->n_items)
	{
		if (spent < s->best && td_knapsack_reached(s->goal, s->limit, s->k->n_items,
												   s->goal == TD_LEAST_COST ? got : -got))
		{
			s->best = spent;
			memcpy(s->level, s->current, sizeof(uint32_t) * s->k->n_items);
		}
		return;
	}
	if (s->nodes >= NODE_BUDGET)
		return;
	s->nodes++;
	if (spent + relaxed(s, item, wanted_gain(s) - got - 1e-12 * (fabs(got) + 1e-3)) >=
		s->best - margin)
		return;
	choices = choices_of(s, item, &n);
	for (i = 0; i < n; i++)
	{
		s->current[item] = i;
		descend(s, item + 1, spent + price(s, &choices[i]), got + gain(s, &choices[i]));
	}
}

int
td_knapsack_improve(const td_knapsack *knapsack, td_goal goal, double limit, uint32_t *level,
					void *scratch)
{
	search s;
	uint32_t *hull;
	uint32_t total = 0;
	uint32_t item;
	double cost;
	double quality;

	memset(&s, 0, sizeof(s));
	s.k = knapsack;
	s.goal = goal;
	s.limit = limit;
	s.level = level;
	s.steps = scratch;
	hull = (uint32_t *) (s.steps + 2 * MAX_CHOICES);

	for (item = 0; item < knapsack->n_items; item++)
	{
		uint32_t n;

		(void) choices_of(&s, item, &n);
		total += n;
	}
	if (total > MAX_CHOICES)
		return 0;
	for (item = knapsack->n_items; item-- > 0;)
	{
		uint32_t n;
		uint32_t i;
		const td_choice *choices = choices_of(&s, item, &n);
		const td_choice *start = &choices[goal == TD_LEAST_COST ? 0 : n - 1];
		uint32_t on_hull = td_knapsack_hull(choices, n, hull);

		for (i = 1; i < on_hull; i++)
		{
			td_step *step = &s.steps[s.n_steps++];

			step->from = hull[i - 1];
			step->to = hull[i];
			step->gain = td_step_gain(&choices[step->from], &choices[step->to]);
			step->group = item;
			step->first_item = item;
		}
		s.price_after[item] = price(&s, start) + s.price_after[item + 1];
		s.gain_after[item] = gain(&s, start) + s.gain_after[item + 1];
	}
	td_knapsack_sort(s.steps, s.n_steps, s.steps + MAX_CHOICES);
	td_knapsack_sums(knapsack, level, &cost, &quality);
	s.best = goal == TD_LEAST_COST ? cost : -quality;
	descend(&s, 0, 0.0, 0.0);
	return s.nodes < NODE_BUDGET;
}
