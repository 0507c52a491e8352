/*
 * td_knapsack.c - one choice for each of many requests, under one limit on all of them.
 *
 * In: choices of each group of equal requests, a goal and its limit.  Out: a choice for each
 * request, and how near it is to the bound.  Called by both shells for batches and budgets.  Sums
 * are made in the order of the items whenever a limit is judged, so that SQL's sum() and avg() over
 * the rows agree with it.
 */
#include <math.h>
#include <string.h>

#include "td_knapsack.h"

/* Relative, far above what the rounding of sums comes to and far below any price that matters. */
#define ROUNDING 1e-12

/* Steps that are sorted in place before runs are merged. */
#define FIRST_RUN 16

/* ---------------------------------------------------------------- steps */

static int
comes_before(const td_step *a, const td_step *b)
{
	if (a->gain != b->gain)
		return a->gain > b->gain;
	if (a->first_item != b->first_item)
		return a->first_item < b->first_item;
	return a->to < b->to;
}

/* Merge two sorted runs, from..middle and middle..end, of one array into another. */
static void
merge(const td_step *from, uint32_t begin, uint32_t middle, uint32_t end, td_step *to)
{
	uint32_t left = begin;
	uint32_t right = middle;
	uint32_t at;

	for (at = begin; at < end; at++)
	{
		if (left < middle && (right == end || !comes_before(&from[right], &from[left])))
			to[at] = from[left++];
		else
			to[at] = from[right++];
	}
}

void
td_knapsack_sort(td_step *steps, uint32_t n, td_step *spare)
{
	td_step *from = steps;
	td_step *to = spare;
	size_t run;
	uint32_t i;

	/* Short runs in place, then passes that read and write in order: millions of steps fit no
	 * cache. */
	for (i = 1; i < n; i++)
	{
		td_step held = steps[i];
		uint32_t j = i;

		for (; j % FIRST_RUN != 0 && comes_before(&held, &steps[j - 1]); j--)
			steps[j] = steps[j - 1];
		steps[j] = held;
	}
	for (run = FIRST_RUN; run < n; run *= 2)
	{
		size_t begin;
		td_step *other = from;

		for (begin = 0; begin < n; begin += 2 * run)
		{
			size_t middle = begin + run < n ? begin + run : n;
			size_t end = begin + 2 * run < n ? begin + 2 * run : n;

			merge(from, (uint32_t) begin, (uint32_t) middle, (uint32_t) end, to);
		}
		from = to;
		to = other;
	}
	if (from != steps)
		memcpy(steps, from, sizeof(td_step) * n);
}

/* What the scratch buffer holds. */
typedef struct workspace
{
	td_step *steps; /* [n_choices] */
	td_step *spare; /* [n_choices], for sorting */
	uint32_t *hull; /* [n_choices] */
	uint32_t *head; /* [n_groups]: the first item of the group */
	uint32_t *next; /* [n_items]: the next item of the same group, TD_NONE: the last one */
	void *exact;	/* td_knapsack_exact_size() bytes */
	uint32_t n_steps;
} workspace;

static size_t
round_up(size_t size)
{
	return (size + 63) & ~(size_t) 63;
}

size_t
td_knapsack_scratch_size(const td_knapsack *knapsack)
{
	size_t n_choices = knapsack->n_groups > 0 ? knapsack->first[knapsack->n_groups] : 0;

	return 2 * round_up(n_choices * sizeof(td_step)) + round_up(n_choices * sizeof(uint32_t)) +
		   round_up((size_t) knapsack->n_groups * sizeof(uint32_t)) +
		   round_up((size_t) knapsack->n_items * sizeof(uint32_t)) +
		   td_knapsack_exact_size(knapsack) + 64;
}

static td_status
set_workspace(const td_knapsack *k, workspace *w, void *scratch, size_t scratch_size)
{
	size_t n_choices = k->n_groups > 0 ? k->first[k->n_groups] : 0;
	char *at = scratch;
	uint32_t g;
	uint32_t i;

	if (scratch_size < td_knapsack_scratch_size(k))
		return TD_ERR_BUFFER;
	w->steps = (td_step *) at;
	at += round_up(n_choices * sizeof(td_step));
	w->spare = (td_step *) at;
	at += round_up(n_choices * sizeof(td_step));
	w->hull = (uint32_t *) at;
	at += round_up(n_choices * sizeof(uint32_t));
	w->head = (uint32_t *) at;
	at += round_up((size_t) k->n_groups * sizeof(uint32_t));
	w->next = (uint32_t *) at;
	at += round_up((size_t) k->n_items * sizeof(uint32_t));
	w->exact = at;

	for (g = 0; g < k->n_groups; g++)
	{
		if (k->first[g] >= k->first[g + 1])
			return TD_ERR_SHAPE;
		w->head[g] = TD_NONE;
	}
	for (i = k->n_items; i-- > 0;)
	{
		if (k->group[i] >= k->n_groups)
			return TD_ERR_SHAPE;
		w->next[i] = w->head[k->group[i]];
		w->head[k->group[i]] = i;
	}

	w->n_steps = 0;
	for (g = 0; g < k->n_groups; g++)
	{
		const td_choice *choices = k->choices + k->first[g];
		uint32_t n = td_knapsack_hull(choices, k->first[g + 1] - k->first[g], w->hull);

		for (i = 1; i < n; i++)
		{
			td_step *step = &w->steps[w->n_steps++];

			step->from = w->hull[i - 1];
			step->to = w->hull[i];
			step->gain = td_step_gain(&choices[step->from], &choices[step->to]);
			step->group = g;
			step->first_item = k->n_items > 0 ? w->head[g] : g;
		}
	}
	td_knapsack_sort(w->steps, w->n_steps, w->spare);
	return TD_OK;
}

/* Where quality is given up, the last items of a group give it up first. */
static void
reverse_groups(const td_knapsack *k, workspace *w)
{
	uint32_t i;

	for (i = 0; i < k->n_groups; i++)
		w->head[i] = TD_NONE;
	for (i = 0; i < k->n_items; i++)
	{
		w->next[i] = w->head[k->group[i]];
		w->head[k->group[i]] = i;
	}
}

/* ---------------------------------------------------------------- sums and limits */

static const td_choice *
chosen(const td_knapsack *k, uint32_t item, uint32_t level)
{
	uint32_t g = k->group[item];

	return level == TD_NONE ? &k->fallback[g] : &k->choices[k->first[g] + level];
}

void
td_knapsack_sums(const td_knapsack *k, const uint32_t *level, double *cost, double *quality)
{
	uint32_t i;

	*cost = 0.0;
	*quality = 0.0;
	for (i = 0; i < k->n_items; i++)
	{
		const td_choice *choice = chosen(k, i, level[i]);

		*cost += choice->cost;
		*quality += choice->quality;
	}
}

int
td_knapsack_within(double sum, double limit)
{
	return !(limit < INFINITY) || sum <= limit + ROUNDING * fabs(limit);
}

int
td_knapsack_reached(td_goal goal, double limit, uint32_t n_items, double sum)
{
	return goal == TD_LEAST_COST ? sum / (double) n_items >= limit - ROUNDING
								 : td_knapsack_within(sum, limit);
}

/* The sum that the limit is about. */
static double
limited_sum(const td_knapsack *k, td_goal goal, const uint32_t *level)
{
	double cost;
	double quality;

	td_knapsack_sums(k, level, &cost, &quality);
	return goal == TD_LEAST_COST ? quality : cost;
}

/* Every item at its cheapest choice, or at its best one. */
static void
set_extreme(const td_knapsack *k, int best, uint32_t *level)
{
	uint32_t i;

	for (i = 0; i < k->n_items; i++)
	{
		uint32_t g = k->group[i];

		level[i] = best ? k->first[g + 1] - k->first[g] - 1 : 0;
	}
}

/* What a step does to the limited sum, taken forwards for quality and backwards for cost. */
static double
step_change(const td_knapsack *k, td_goal goal, const td_step *step)
{
	const td_choice *choices = k->choices + k->first[step->group];

	return goal == TD_LEAST_COST ? choices[step->to].quality - choices[step->from].quality
								 : choices[step->from].cost - choices[step->to].cost;
}

/* ---------------------------------------------------------------- the plan */

/* The linear relaxation divides one item; bound gets its value, the plan rounds it to be feasible.
 */
static int
take_steps(const td_knapsack *k, td_goal goal, double limit, const workspace *w, uint32_t *level,
		   double *bound)
{
	double sum;
	double other; /* the sum that is optimised */
	double cost;
	double quality;
	uint32_t s;
	uint32_t i;

	set_extreme(k, goal == TD_MOST_QUALITY, level);
	td_knapsack_sums(k, level, &cost, &quality);
	sum = goal == TD_LEAST_COST ? quality : cost;
	other = goal == TD_LEAST_COST ? cost : quality;
	*bound = other;
	if (td_knapsack_reached(goal, limit, k->n_items, sum))
		return 1;
	for (s = 0; s < w->n_steps; s++)
	{
		const td_step *step = &w->steps[goal == TD_LEAST_COST ? s : w->n_steps - 1 - s];
		double change = step_change(k, goal, step);
		const td_choice *choices = k->choices + k->first[step->group];
		double price = goal == TD_LEAST_COST
						   ? choices[step->to].cost - choices[step->from].cost
						   : choices[step->from].quality - choices[step->to].quality;

		for (i = w->head[step->group]; i != TD_NONE; i = w->next[i])
		{
			double before = sum;

			level[i] = goal == TD_LEAST_COST ? step->to : step->from;
			sum += change;
			if (td_knapsack_reached(goal, limit, k->n_items, sum))
			{
				double wanted = goal == TD_LEAST_COST ? limit * k->n_items : limit;
				double part = (wanted - before) / change;

				*bound = other + (part < 0.0 ? 0.0 : part > 1.0 ? 1.0 : part) * price;
				/* The running sum has rounding of its own; the rows are what counts. */
				sum = limited_sum(k, goal, level);
				if (td_knapsack_reached(goal, limit, k->n_items, sum))
					return 1;
			}
			other += price;
			*bound = other;
		}
	}
	return td_knapsack_reached(goal, limit, k->n_items, limited_sum(k, goal, level));
}

/* Undo every step that the limit does not need, the worst bargain first. */
static void
undo_steps(const td_knapsack *k, td_goal goal, double limit, const workspace *w, uint32_t *level)
{
	double sum = limited_sum(k, goal, level);
	/* More than what the rounding of two orders of summation can differ by. */
	double slack = 2.3e-16 * k->n_items * fabs(sum);
	uint32_t s;
	uint32_t i;

	for (s = w->n_steps; s-- > 0;)
	{
		const td_step *step = &w->steps[goal == TD_LEAST_COST ? s : w->n_steps - 1 - s];
		uint32_t taken = goal == TD_LEAST_COST ? step->to : step->from;
		uint32_t before = goal == TD_LEAST_COST ? step->from : step->to;
		double change = step_change(k, goal, step);

		for (i = w->head[step->group]; i != TD_NONE; i = w->next[i])
		{
			double after = sum - change;

			if (level[i] == taken &&
				td_knapsack_reached(goal, limit, k->n_items,
									goal == TD_LEAST_COST ? after - slack : after + slack))
			{
				level[i] = before;
				sum = after;
			}
		}
	}
}

/* Take the fallback for every item where it keeps the limit and beats the plan. */
static void
prefer_fallback(const td_knapsack *k, td_goal goal, double limit, uint32_t *level, td_plan *plan)
{
	double cost = 0.0;
	double quality = 0.0;
	uint32_t i;

	if (k->fallback == NULL)
		return;
	for (i = 0; i < k->n_items; i++)
	{
		cost += k->fallback[k->group[i]].cost;
		quality += k->fallback[k->group[i]].quality;
	}
	if (!td_knapsack_reached(goal, limit, k->n_items, goal == TD_LEAST_COST ? quality : cost))
		return;
	if (goal == TD_LEAST_COST ? cost >= plan->cost : quality <= plan->quality)
		return;
	for (i = 0; i < k->n_items; i++)
		level[i] = TD_NONE;
	plan->cost = cost;
	plan->quality = quality;
}

static double
fallback_mean(const td_knapsack *k)
{
	double sum = 0.0;
	uint32_t i;

	for (i = 0; i < k->n_items; i++)
		sum += k->fallback[k->group[i]].quality;
	return sum / (double) k->n_items;
}

td_status
td_knapsack_solve(const td_knapsack *knapsack, td_goal goal, double limit, uint32_t *level,
				  td_plan *plan, void *scratch, size_t scratch_size)
{
	workspace w;
	double cost;
	double quality;
	td_status status = set_workspace(knapsack, &w, scratch, scratch_size);

	if (status != TD_OK)
		return status;
	memset(plan, 0, sizeof(*plan));
	if (isnan(limit) && (goal != TD_LEAST_COST || knapsack->fallback == NULL))
		return TD_ERR_SHAPE;
	plan->limit = isnan(limit) && knapsack->n_items > 0 ? fallback_mean(knapsack) : limit;
	plan->is_exact = 1;
	plan->is_feasible = 1;
	if (knapsack->n_items == 0)
		return TD_OK;

	if (goal == TD_MOST_QUALITY)
		reverse_groups(knapsack, &w);
	set_extreme(knapsack, goal == TD_LEAST_COST, level);
	td_knapsack_sums(knapsack, level, &cost, &quality);
	plan->reachable = goal == TD_LEAST_COST ? quality / knapsack->n_items : cost;

	plan->is_feasible = (uint32_t) take_steps(knapsack, goal, plan->limit, &w, level, &plan->bound);
	if (plan->is_feasible)
	{
		undo_steps(knapsack, goal, plan->limit, &w, level);
		plan->is_exact = knapsack->n_items <= TD_KNAPSACK_EXACT_ITEMS &&
						 td_knapsack_improve(knapsack, goal, plan->limit, level, w.exact);
	}
	td_knapsack_sums(knapsack, level, &plan->cost, &plan->quality);
	if (plan->is_feasible && !plan->is_exact)
		prefer_fallback(knapsack, goal, plan->limit, level, plan);
	return TD_OK;
}

/* ---------------------------------------------------------------- kinds of requests */

static void
allot(const td_choice *choice, double count, td_allotment *allotted, td_plan *plan)
{
	td_allotment *to = &allotted[choice->agent];

	to->requests += count;
	to->cost += count * choice->cost;
	to->quality += count * choice->quality;
	plan->cost += count * choice->cost;
	plan->quality += count * choice->quality;
}

td_status
td_knapsack_divide(const td_knapsack *knapsack, const double *count, double budget,
				   td_allotment *allotted, uint32_t n_agents, td_plan *plan, void *scratch,
				   size_t scratch_size)
{
	td_knapsack kinds = *knapsack;
	workspace w;
	td_status status;
	double left;
	uint32_t *level;
	uint32_t dearest = 0;
	uint32_t s;
	uint32_t g;

	kinds.n_items = 0;
	status = set_workspace(&kinds, &w, scratch, scratch_size);
	if (status != TD_OK)
		return status;
	memset(plan, 0, sizeof(*plan));
	memset(allotted, 0, sizeof(*allotted) * n_agents);
	plan->limit = budget;
	/* Without items, the place of their heads is free. */
	level = w.head;
	for (g = 0; g < kinds.n_groups; g++)
	{
		level[g] = 0;
		plan->reachable += count[g] * kinds.choices[kinds.first[g]].cost;
	}
	left = budget - plan->reachable;
	plan->is_feasible = left >= -ROUNDING * budget;

	for (s = 0; s < w.n_steps && plan->is_feasible; s++)
	{
		const td_step *step = &w.steps[s];
		const td_choice *from = &kinds.choices[kinds.first[step->group] + step->from];
		const td_choice *to = &kinds.choices[kinds.first[step->group] + step->to];
		double price = to->cost - from->cost;
		double whole = floor((left + ROUNDING * budget) / price);

		if (whole < 0.0)
			whole = 0.0;
		if (whole >= count[step->group])
		{
			level[step->group] = step->to;
			left -= count[step->group] * price;
			continue;
		}
		/* The one kind that is divided; cheaper steps may come after it, but none as good. */
		allot(to, whole, allotted, plan);
		allot(from, count[step->group] - whole, allotted, plan);
		level[step->group] = TD_NONE;
		break;
	}
	for (g = 0; g < kinds.n_groups; g++)
	{
		if (level[g] != TD_NONE)
			allot(&kinds.choices[kinds.first[g] + level[g]], count[g], allotted, plan);
	}
	/* What rounding puts over the budget comes off the dearest part: a budget is never exceeded. */
	for (s = 1; s < n_agents; s++)
	{
		if (allotted[s].cost > allotted[dearest].cost)
			dearest = s;
	}
	if (plan->is_feasible && plan->cost > budget)
		allotted[dearest].cost -= plan->cost - budget;
	plan->bound = plan->quality;
	return TD_OK;
}
