/*
 * td_team.c - several agents for one request.
 *
 * In: scored candidates, and how much the request asks for each capability.  Out: a team within the
 * limits, and what each of its members is for.  Called by both shells for ruvector_route_multi().
 */
#include <math.h>
#include <string.h>

#include "td_team.h"

/* Fit from which on a request is taken to ask for a capability: as likely as not. */
#define ASKED_FOR 0.5

/* Steps of the branch and bound, for all sizes of a team together: some 20 ms. */
#define NODE_BUDGET 100000

static const char *const strategy_names[TD_N_STRATEGIES] = {"pipeline", "parallel", "ensemble"};

const char *
td_strategy_name(td_strategy strategy)
{
	return (unsigned) strategy < TD_N_STRATEGIES ? strategy_names[strategy] : "";
}

/* Of as many candidates as a pool can hold, or as there are. */
static size_t
overlap_size(const td_registry *registry)
{
	size_t n = registry->n_agents < TD_POOL_MAX ? registry->n_agents : TD_POOL_MAX;

	return (n * n * sizeof(float) + 63) & ~(size_t) 63;
}

size_t
td_team_scratch_size(const td_registry *registry)
{
	return ((sizeof(td_pool) + 63) & ~(size_t) 63) + overlap_size(registry) +
		   (size_t) registry->n_agents * sizeof(uint32_t) + 64;
}

/* ---------------------------------------------------------------- what the request needs */

static int
is_need(const td_team *team, uint32_t capability)
{
	uint32_t i;

	for (i = 0; i < team->n_needs; i++)
	{
		if (team->need[i] == capability)
			return 1;
	}
	return 0;
}

/* Put a capability into the list, the most asked for first, then the lower id. */
static void
add_need(td_team *team, const td_relevance *relevance, uint32_t capability)
{
	uint32_t at = team->n_needs;

	if (at == TD_NEEDS_MAX)
	{
		if (!(relevance[capability].fit > relevance[team->need[at - 1]].fit))
			return;
		at--;
	}
	else
		team->n_needs++;
	while (at > 0 && (relevance[capability].fit > relevance[team->need[at - 1]].fit ||
					  (relevance[capability].fit == relevance[team->need[at - 1]].fit &&
					   capability < team->need[at - 1])))
	{
		team->need[at] = team->need[at - 1];
		at--;
	}
	team->need[at] = capability;
}

/* The capabilities of the ranked agents that the request asks for, or the closest one. */
static void
infer_needs(const td_registry *registry, const uint32_t *order, const td_relevance *relevance,
			td_team *team)
{
	uint32_t closest = TD_NONE;
	uint32_t i;
	uint32_t j;

	for (i = 0; i < team->n_eligible; i++)
	{
		const td_agent *agent = &registry->agents[order[i]];

		for (j = 0; j < agent->n_capabilities; j++)
		{
			uint32_t capability = registry->capabilities[agent->first_capability + j];
			double fit = relevance[capability].fit;

			if (fit >= ASKED_FOR && !is_need(team, capability))
				add_need(team, relevance, capability);
			if (fit > 0.0 && (closest == TD_NONE || fit > relevance[closest].fit ||
							  (fit == relevance[closest].fit && capability < closest)))
				closest = capability;
		}
	}
	if (team->n_needs == 0 && closest != TD_NONE)
		add_need(team, relevance, closest);
}

/* ---------------------------------------------------------------- the pool */

static void
add_candidate(const td_registry *registry, const td_team *team, const td_candidate *c,
			  td_pool *pool)
{
	uint32_t need;
	uint32_t i;

	if (pool->n == TD_POOL_MAX)
		return;
	for (i = 0; i < pool->n; i++)
	{
		if (pool->agent[i] == c->agent)
			return;
	}
	i = pool->n++;
	pool->agent[i] = c->agent;
	pool->score[i] = c->score;
	pool->cost[i] = isnan(c->cost) ? 0.0 : c->cost;
	pool->latency[i] = isnan(c->latency) ? 0.0 : c->latency;
	pool->needs[i] = 0;
	for (need = 0; need < pool->n_needs; need++)
		pool->needs[i] |= (uint64_t) td_team_has(registry, c->agent, team->need[need]) << need;
}

/* Of the candidates that are not among the best: the first of each need, the cheapest, the fastest.
 */
static void
add_special(const td_registry *registry, const td_candidate *candidates, const uint32_t *order,
			const td_team *team, td_pool *pool)
{
	uint32_t need;
	uint32_t i;
	uint32_t round;

	for (need = 0; need < pool->n_needs; need++)
	{
		uint32_t first = TD_NONE;
		uint32_t cheapest = TD_NONE;

		for (i = 0; i < team->n_eligible; i++)
		{
			if (!td_team_has(registry, order[i], team->need[need]))
				continue;
			if (first == TD_NONE)
				first = order[i];
			if (cheapest == TD_NONE || candidates[order[i]].cost < candidates[cheapest].cost)
				cheapest = order[i];
		}
		if (first != TD_NONE)
		{
			add_candidate(registry, team, &candidates[first], pool);
			add_candidate(registry, team, &candidates[cheapest], pool);
		}
	}
	for (round = 0; round < pool->request->n_wanted; round++)
	{
		uint32_t cheapest = TD_NONE;
		uint32_t fastest = TD_NONE;
		uint32_t before = pool->n;

		/* Ranked agents in the pool are skipped, so each round finds the next one. */
		for (i = TD_POOL_BEST; i < team->n_eligible; i++)
		{
			const td_candidate *c = &candidates[order[i]];
			uint32_t j;

			for (j = TD_POOL_BEST; j < before && pool->agent[j] != order[i]; j++)
				;
			if (j < before)
				continue;
			if (cheapest == TD_NONE || c->cost < candidates[cheapest].cost)
				cheapest = order[i];
			if (fastest == TD_NONE || c->latency < candidates[fastest].latency)
				fastest = order[i];
		}
		if (cheapest != TD_NONE && pool->request->max_cost < INFINITY)
			add_candidate(registry, team, &candidates[cheapest], pool);
		if (fastest != TD_NONE && pool->request->max_latency_ms < INFINITY)
			add_candidate(registry, team, &candidates[fastest], pool);
	}
}

/* The share of common capabilities; two agents without any cannot be told apart. */
static float
overlap_of(const td_registry *registry, uint32_t a, uint32_t b)
{
	const td_agent *left = &registry->agents[a];
	uint32_t common = 0;
	uint32_t all;
	uint32_t i;

	for (i = 0; i < left->n_capabilities; i++)
		common +=
			(uint32_t) td_team_has(registry, b, registry->capabilities[left->first_capability + i]);
	all = left->n_capabilities + registry->agents[b].n_capabilities - common;
	return all == 0 ? 1.0f : (float) common / (float) all;
}

/* ---------------------------------------------------------------- the team */

td_status
td_team_choose(const td_registry *registry, const td_candidate *candidates,
			   const td_team_request *request, td_team *team, void *scratch, size_t scratch_size)
{
	td_pool *pool = scratch;
	float *overlap = (float *) ((char *) scratch + ((sizeof(td_pool) + 63) & ~(size_t) 63));
	uint32_t *order = (uint32_t *) ((char *) overlap + overlap_size(registry));
	uint32_t place[TD_TEAM_MAX];
	uint32_t nodes = NODE_BUDGET;
	uint64_t reachable = 0;
	td_team_value value;
	uint32_t size;
	uint32_t i;
	uint32_t j;
	int is_exact = 1;

	if (scratch_size < td_team_scratch_size(registry))
		return TD_ERR_BUFFER;
	if (request->n_wanted < 1 || request->n_wanted > TD_TEAM_MAX ||
		request->n_required > TD_NEEDS_MAX || (unsigned) request->strategy >= TD_N_STRATEGIES)
		return TD_ERR_SHAPE;
	memset(team, 0, sizeof(*team));
	memset(pool, 0, sizeof(*pool));
	team->strategy = request->strategy;
	pool->request = request;
	td_score_rank(candidates, registry->n_agents, order);
	while (team->n_eligible < registry->n_agents &&
		   candidates[order[team->n_eligible]].rejected_by == 0)
		team->n_eligible++;

	if (request->strategy != TD_ENSEMBLE)
	{
		for (i = 0; i < request->n_required; i++)
		{
			team->need[team->n_needs++] = request->required[i];
			pool->required |= (uint64_t) 1 << i;
		}
		if (request->n_required == 0)
			infer_needs(registry, order, request->relevance, team);
	}
	pool->n_needs = team->n_needs;
	for (i = 0; i < team->n_needs; i++)
		pool->weight[i] = request->n_required > 0 ? 1.0 : request->relevance[team->need[i]].fit;

	for (i = 0; i < team->n_eligible && i < TD_POOL_BEST; i++)
		add_candidate(registry, team, &candidates[order[i]], pool);
	if (team->n_eligible > TD_POOL_BEST)
		add_special(registry, candidates, order, team, pool);
	team->is_exact = pool->n == team->n_eligible;
	for (i = 0; i < pool->n; i++)
		reachable |= pool->needs[i];
	if ((pool->required & ~reachable) != 0)
		return TD_OK;
	if (request->strategy == TD_ENSEMBLE)
	{
		for (i = 0; i < pool->n; i++)
		{
			for (j = 0; j < pool->n; j++)
				overlap[(size_t) i * pool->n + j] =
					overlap_of(registry, pool->agent[i], pool->agent[j]);
		}
		pool->overlap = overlap;
	}

	size = request->n_wanted < pool->n ? request->n_wanted : pool->n;
	while (size > 0 && !td_team_search(pool, size, place, &nodes, &is_exact))
	{
		team->is_exact &= (uint32_t) is_exact;
		size--;
	}
	team->is_exact &= (uint32_t) is_exact;
	team->n_members = size;
	if (size == 0)
		return TD_OK;

	td_team_evaluate(pool, place, size, &value);
	team->cost = value.cost;
	team->latency_ms = value.latency;
	for (i = 0; i < size; i++)
	{
		team->member[i].agent = pool->agent[place[i]];
		team->member[i].own = TD_NONE;
	}
	td_team_assign(registry, pool, candidates, place, team);
	return TD_OK;
}
