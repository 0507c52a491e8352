/*
 * td_team_search.c - the best team of a given size.
 *
 * In: a pool of candidates, best score first.  Out: the places of the team's members.  Called by
 * td_team.c for one size after the other.  A greedy team with exchanges comes first, so that the
 * branch and bound that follows can cut most of its tree.
 */
#include <math.h>
#include <string.h>

#include "td_team.h"

/* Rounds in which one member is exchanged for a better one. */
#define MAX_EXCHANGES 32

/* Relative: what sums in another order differ by at most. */
#define ROUNDING 1e-12

static double
add_latency(const td_pool *pool, double so_far, double latency)
{
	if (pool->request->strategy == TD_PIPELINE)
		return so_far + latency;
	return latency > so_far ? latency : so_far;
}

static double
covered_weight(const td_pool *pool, uint64_t needs)
{
	double sum = 0.0;
	uint32_t i;

	for (i = 0; i < pool->n_needs; i++)
	{
		if (needs >> i & 1)
			sum += pool->weight[i];
	}
	return sum;
}

void
td_team_evaluate(const td_pool *pool, const uint32_t *team, uint32_t k, td_team_value *value)
{
	uint32_t i;
	uint32_t j;

	memset(value, 0, sizeof(*value));
	for (i = 0; i < k; i++)
	{
		uint32_t a = team[i];
		double score = pool->score[a];

		if (pool->overlap != NULL && k > 1)
		{
			double overlap = 0.0;

			for (j = 0; j < k; j++)
				overlap += j == i ? 0.0 : (double) pool->overlap[(size_t) a * pool->n + team[j]];
			score *= 1.0 - 0.5 * overlap / (k - 1);
		}
		value->score += score;
		value->cost += pool->cost[a];
		value->latency = add_latency(pool, value->latency, pool->latency[a]);
		value->needs |= pool->needs[a];
	}
	value->covered = covered_weight(pool, value->needs);
	value->is_feasible = td_knapsack_within(value->cost, pool->request->max_cost) &&
						 td_knapsack_within(value->latency, pool->request->max_latency_ms) &&
						 (pool->required & ~value->needs) == 0;
}

/* Whether team a is better than b; both are feasible.  Places ascend with score, not with number.
 */
static int
is_better(const td_team_value *a, const td_team_value *b)
{
	if (a->covered != b->covered)
		return a->covered > b->covered;
	if (a->score != b->score)
		return a->score > b->score;
	return a->cost < b->cost;
}

/* ---------------------------------------------------------------- pruning */

/* Whether a can stand in for b in every team: no worse in anything, and before it in the pool. */
static int
stands_in(const td_pool *pool, uint32_t a, uint32_t b)
{
	return a < b && pool->score[a] >= pool->score[b] && pool->cost[a] <= pool->cost[b] &&
		   pool->latency[a] <= pool->latency[b] && (pool->needs[b] & ~pool->needs[a]) == 0;
}

/* Whether two candidates overlap alike with everybody: they have the same capabilities. */
static int
are_alike(const td_pool *pool, uint32_t a, uint32_t b)
{
	return pool->overlap == NULL || pool->overlap[(size_t) a * pool->n + b] == 1.0f;
}

/*
 * A candidate for which k others can stand in is in no better team than they are: one of them is
 * always free.  Places that remain into kept; returns how many.
 */
static uint32_t
prune(const td_pool *pool, uint32_t k, uint32_t *kept)
{
	uint32_t n = 0;
	uint32_t i;
	uint32_t j;

	for (i = 0; i < pool->n; i++)
	{
		uint32_t others = 0;

		for (j = 0; j < i && others < k; j++)
			others += (uint32_t) (stands_in(pool, j, i) && are_alike(pool, j, i));
		if (others < k)
			kept[n++] = i;
	}
	return n;
}

/* ---------------------------------------------------------------- greedy, and exchanges */

static int
contains(const uint32_t *team, uint32_t k, uint32_t place)
{
	uint32_t i;

	for (i = 0; i < k; i++)
	{
		if (team[i] == place)
			return 1;
	}
	return 0;
}

/* Put a place into an ascending list of k. */
static void
insert(uint32_t *team, uint32_t k, uint32_t place)
{
	while (k > 0 && team[k - 1] > place)
	{
		team[k] = team[k - 1];
		k--;
	}
	team[k] = place;
}

/* One member after the other: the most new coverage, then the best sum of scores. */
static int
greedy(const td_pool *pool, const uint32_t *kept, uint32_t n, uint32_t k, uint32_t *team)
{
	double cheapest = INFINITY;
	double fastest = INFINITY;
	uint32_t size;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		if (pool->cost[kept[i]] < cheapest)
			cheapest = pool->cost[kept[i]];
		if (pool->latency[kept[i]] < fastest)
			fastest = pool->latency[kept[i]];
	}
	for (size = 0; size < k; size++)
	{
		td_team_value best;
		uint32_t chosen = TD_NONE;

		memset(&best, 0, sizeof(best));
		for (i = 0; i < n; i++)
		{
			uint32_t trial[TD_TEAM_MAX];
			td_team_value value;
			double latency;

			if (contains(team, size, kept[i]))
				continue;
			memcpy(trial, team, sizeof(uint32_t) * size);
			insert(trial, size, kept[i]);
			td_team_evaluate(pool, trial, size + 1, &value);
			latency = value.latency;
			if (pool->request->strategy == TD_PIPELINE)
				latency += (k - size - 1) * fastest;
			if (!td_knapsack_within(value.cost + (k - size - 1) * cheapest,
									pool->request->max_cost) ||
				!td_knapsack_within(latency, pool->request->max_latency_ms))
				continue;
			if (chosen == TD_NONE || is_better(&value, &best))
			{
				chosen = kept[i];
				best = value;
			}
		}
		if (chosen == TD_NONE)
			return 0;
		insert(team, size, chosen);
	}
	return 1;
}

/* Exchange members as long as one exchange makes the team better. */
static void
exchange(const td_pool *pool, const uint32_t *kept, uint32_t n, uint32_t k, uint32_t *team)
{
	td_team_value now;
	uint32_t round;

	td_team_evaluate(pool, team, k, &now);
	for (round = 0; round < MAX_EXCHANGES; round++)
	{
		uint32_t best_team[TD_TEAM_MAX];
		td_team_value best = now;
		int found = 0;
		uint32_t out;
		uint32_t i;

		for (out = 0; out < k; out++)
		{
			for (i = 0; i < n; i++)
			{
				uint32_t trial[TD_TEAM_MAX];
				td_team_value value;

				if (contains(team, k, kept[i]))
					continue;
				memcpy(trial, team, sizeof(uint32_t) * out);
				memcpy(trial + out, team + out + 1, sizeof(uint32_t) * (k - out - 1));
				insert(trial, k - 1, kept[i]);
				td_team_evaluate(pool, trial, k, &value);
				if (value.is_feasible && (!best.is_feasible || is_better(&value, &best)))
				{
					best = value;
					memcpy(best_team, trial, sizeof(uint32_t) * k);
					found = 1;
				}
			}
		}
		if (!found)
			return;
		now = best;
		memcpy(team, best_team, sizeof(uint32_t) * k);
	}
}

/* ---------------------------------------------------------------- branch and bound */

typedef struct search
{
	const td_pool *pool;
	const uint32_t *kept;
	uint32_t n;
	uint32_t k;
	uint32_t *nodes;
	uint32_t *best;
	td_team_value best_value; /* is_feasible 0: no team yet */
	uint32_t current[TD_TEAM_MAX];
	/* Of the kept candidates from a place on. */
	uint64_t needs_after[TD_POOL_MAX + 1];
	double cheapest_after[TD_POOL_MAX + 1];
	double fastest_after[TD_POOL_MAX + 1];
} search;

/* The greatest sum of scores of the team so far with the best that can follow. */
static double
score_bound(const search *s, uint32_t size, uint32_t from, double score)
{
	uint32_t i;

	for (i = 0; i < s->k - size; i++)
		score += s->pool->score[s->kept[from + i]];
	return score;
}

/* What the scores of the team so far come to at most: members to come only add overlap. */
static double
partial_score(const search *s, uint32_t size)
{
	const td_pool *pool = s->pool;
	double sum = 0.0;
	uint32_t i;
	uint32_t j;

	for (i = 0; i < size; i++)
	{
		uint32_t a = s->current[i];
		double overlap = 0.0;

		for (j = 0; pool->overlap != NULL && j < size; j++)
			overlap += j == i ? 0.0 : (double) pool->overlap[(size_t) a * pool->n + s->current[j]];
		sum += pool->score[a] * (s->k > 1 ? 1.0 - 0.5 * overlap / (s->k - 1) : 1.0);
	}
	return sum;
}

static int
can_win(const search *s, uint32_t size, uint32_t from, const td_team_value *so_far)
{
	const td_pool *pool = s->pool;
	uint32_t missing = s->k - size;
	uint64_t needs = so_far->needs | s->needs_after[from];
	double latency = so_far->latency;
	double covered;
	double score;

	if (from + missing > s->n || (pool->required & ~needs) != 0)
		return 0;
	if (!td_knapsack_within(so_far->cost + missing * s->cheapest_after[from],
							pool->request->max_cost))
		return 0;
	if (pool->request->strategy == TD_PIPELINE)
		latency += missing * s->fastest_after[from];
	if (!td_knapsack_within(latency, pool->request->max_latency_ms))
		return 0;
	if (!s->best_value.is_feasible)
		return 1;
	covered = covered_weight(pool, needs);
	if (covered != s->best_value.covered)
		return covered > s->best_value.covered;
	score = score_bound(s, size, from, partial_score(s, size));
	/* Sums in another order differ by their rounding: keep what may be equal. */
	return score >= s->best_value.score * (1.0 - ROUNDING);
}

static void
descend(search *s, uint32_t size, uint32_t from, const td_team_value *so_far)
{
	const td_pool *pool = s->pool;
	uint32_t i;

	if (size == s->k)
	{
		td_team_value value;

		td_team_evaluate(pool, s->current, s->k, &value);
		if (value.is_feasible && (!s->best_value.is_feasible || is_better(&value, &s->best_value)))
		{
			s->best_value = value;
			memcpy(s->best, s->current, sizeof(uint32_t) * s->k);
		}
		return;
	}
	for (i = from; i < s->n; i++)
	{
		td_team_value next = *so_far;
		uint32_t place = s->kept[i];

		if (*s->nodes == 0 || !can_win(s, size, i, so_far))
			return;
		(*s->nodes)--;
		s->current[size] = place;
		next.cost += pool->cost[place];
		next.latency = add_latency(pool, next.latency, pool->latency[place]);
		next.needs |= pool->needs[place];
		if (size + 1 == s->k || can_win(s, size + 1, i + 1, &next))
			descend(s, size + 1, i + 1, &next);
	}
}

int
td_team_search(const td_pool *pool, uint32_t k, uint32_t *team, uint32_t *nodes, int *is_exact)
{
	uint32_t kept[TD_POOL_MAX];
	td_team_value nobody;
	search s;
	uint32_t i;

	memset(&s, 0, sizeof(s));
	s.pool = pool;
	s.kept = kept;
	s.n = prune(pool, k, kept);
	s.k = k;
	s.nodes = nodes;
	s.best = team;
	s.cheapest_after[s.n] = INFINITY;
	s.fastest_after[s.n] = INFINITY;
	for (i = s.n; i-- > 0;)
	{
		s.needs_after[i] = s.needs_after[i + 1] | pool->needs[kept[i]];
		s.cheapest_after[i] = fmin(s.cheapest_after[i + 1], pool->cost[kept[i]]);
		s.fastest_after[i] = fmin(s.fastest_after[i + 1], pool->latency[kept[i]]);
	}
	if (greedy(pool, kept, s.n, k, team))
	{
		exchange(pool, kept, s.n, k, team);
		td_team_evaluate(pool, team, k, &s.best_value);
	}
	memset(&nobody, 0, sizeof(nobody));
	descend(&s, 0, 0, &nobody);
	*is_exact = *nodes > 0;
	return s.best_value.is_feasible;
}
