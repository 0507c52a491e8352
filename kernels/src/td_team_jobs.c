/*
 * td_team_jobs.c - who does what in a team.
 *
 * In: the members that td_team_search.c found.  Out: the needs of each, their order, and weights.
 * Called by td_team.c.
 */
#include <math.h>

#include "td_team.h"

int
td_team_has(const td_registry *registry, uint32_t agent, uint32_t capability)
{
	const td_agent *a = &registry->agents[agent];
	const uint32_t *own = registry->capabilities + a->first_capability;
	uint32_t i;

	for (i = 0; i < a->n_capabilities; i++)
	{
		if (own[i] == capability)
			return 1;
	}
	return 0;
}

static uint32_t
count_bits(uint64_t bits)
{
	uint32_t n = 0;

	for (; bits != 0; bits &= bits - 1)
		n++;
	return n;
}

/* A member without a need takes one that it has from a member that has several. */
static void
take_over(const td_pool *pool, const uint32_t *place, td_team *team, uint32_t member)
{
	uint32_t chosen = TD_NONE;
	uint32_t owner = 0;
	uint32_t need;
	uint32_t i;

	for (need = 0; need < team->n_needs; need++)
	{
		if ((pool->needs[place[member]] >> need & 1) == 0)
			continue;
		for (i = 0; i < team->n_members; i++)
		{
			if ((team->member[i].needs >> need & 1) && count_bits(team->member[i].needs) > 1 &&
				(chosen == TD_NONE || pool->weight[need] > pool->weight[chosen]))
			{
				chosen = need;
				owner = i;
			}
		}
	}
	if (chosen == TD_NONE)
		return;
	team->member[owner].needs &= ~((uint64_t) 1 << chosen);
	team->member[member].needs |= (uint64_t) 1 << chosen;
}

/* Whether a member of the team does a capability already. */
static int
is_taken(const td_team *team, uint32_t capability)
{
	uint32_t i;
	uint32_t need;

	for (i = 0; i < team->n_members; i++)
	{
		if (team->member[i].needs == 0 && team->member[i].own == capability)
			return 1;
		for (need = 0; need < team->n_needs; need++)
		{
			if ((team->member[i].needs >> need & 1) && team->need[need] == capability)
				return 1;
		}
	}
	return 0;
}

/* The member's capability that is closest to the request, one that nobody does if there is any. */
static uint32_t
closest_own(const td_registry *registry, const td_relevance *relevance, const td_team *team,
			uint32_t agent)
{
	const td_agent *a = &registry->agents[agent];
	uint32_t best = TD_NONE;
	int best_is_taken = 1;
	uint32_t i;

	for (i = 0; i < a->n_capabilities; i++)
	{
		uint32_t capability = registry->capabilities[a->first_capability + i];
		int taken = team->strategy != TD_ENSEMBLE && is_taken(team, capability);

		if (best == TD_NONE || taken < best_is_taken ||
			(taken == best_is_taken &&
			 relevance[capability].similarity > relevance[best].similarity))
		{
			best = capability;
			best_is_taken = taken;
		}
	}
	return best;
}

/* The one capability that a member does, TD_NONE when it does none or several. */
static uint32_t
single_job(const td_team *team, const td_member *member)
{
	uint32_t need;

	if (member->needs == 0)
		return member->own;
	if (count_bits(member->needs) > 1)
		return TD_NONE;
	for (need = 0; (member->needs >> need & 1) == 0; need++)
		;
	return team->need[need];
}

static void
number_shares(td_team *team)
{
	uint32_t i;
	uint32_t j;

	for (i = 0; i < team->n_members; i++)
	{
		td_member *m = &team->member[i];

		m->n_shared = 1;
		m->share = 1;
		if (count_bits(m->needs) > 1)
			continue;
		for (j = 0; j < team->n_members; j++)
		{
			const td_member *other = &team->member[j];

			if (j == i || count_bits(other->needs) > 1 ||
				single_job(team, other) != single_job(team, m))
				continue;
			m->n_shared++;
			m->share += (uint32_t) (j < i);
		}
	}
}

static void
set_jobs(const td_registry *registry, const td_pool *pool, const uint32_t *place, td_team *team)
{
	uint32_t need;
	uint32_t i;

	for (need = 0; need < team->n_needs; need++)
	{
		/* Members stand in the order of their scores: the first one that has it. */
		for (i = 0; i < team->n_members; i++)
		{
			if (pool->needs[place[i]] >> need & 1)
			{
				team->member[i].needs |= (uint64_t) 1 << need;
				team->covered |= (uint64_t) 1 << need;
				break;
			}
		}
	}
	for (i = 0; i < team->n_members; i++)
	{
		if (team->member[i].needs == 0)
			take_over(pool, place, team, i);
	}
	for (i = 0; i < team->n_members; i++)
	{
		if (team->member[i].needs == 0)
			team->member[i].own =
				closest_own(registry, pool->request->relevance, team, team->member[i].agent);
	}
}

/* Where in the course of the work a member belongs. */
static double
position(const td_team_request *request, const td_team *team, const td_member *member)
{
	double first = INFINITY;
	uint32_t need;

	for (need = 0; need < team->n_needs; need++)
	{
		double at =
			request->n_required > 0 ? (double) need : request->relevance[team->need[need]].position;

		if ((member->needs >> need & 1) && at < first)
			first = at;
		/* Who repeats what another one does comes right after it. */
		if (request->n_required > 0 && member->needs == 0 && member->own == team->need[need])
			return at + 0.5;
	}
	if (member->needs != 0)
		return first;
	return (double) request->n_required +
		   (member->own == TD_NONE ? 0.5 : request->relevance[member->own].position);
}

/* Pipelines run in the order of the work; equal positions stay in the order of scores. */
static void
order_members(const td_team_request *request, td_team *team)
{
	uint32_t i;

	for (i = 1; i < team->n_members; i++)
	{
		td_member held = team->member[i];
		double at = position(request, team, &held);
		uint32_t j = i;

		while (j > 0 && position(request, team, &team->member[j - 1]) > at)
		{
			team->member[j] = team->member[j - 1];
			j--;
		}
		team->member[j] = held;
	}
}

/* What a member's vote, or its share of the work, weighs before all are scaled to sum to 1. */
static double
raw_weight(const td_pool *pool, const td_candidate *candidates, const td_team *team,
		   const td_member *member)
{
	double sum = 0.0;
	uint32_t need;

	if (team->strategy == TD_ENSEMBLE)
		return candidates[member->agent].expected_quality;
	for (need = 0; need < team->n_needs; need++)
	{
		if (member->needs >> need & 1)
			sum += pool->weight[need];
	}
	if (member->needs == 0 && member->own != TD_NONE)
		sum = pool->request->relevance[member->own].fit;
	return sum / member->n_shared;
}

static void
set_weights(const td_pool *pool, const td_candidate *candidates, td_team *team)
{
	double sum = 0.0;
	uint32_t i;

	for (i = 0; i < team->n_members; i++)
	{
		team->member[i].weight = raw_weight(pool, candidates, team, &team->member[i]);
		sum += team->member[i].weight;
	}
	for (i = 0; i < team->n_members; i++)
	{
		if (team->strategy == TD_PIPELINE)
			team->member[i].weight = NAN;
		else
			team->member[i].weight =
				sum > 0.0 ? team->member[i].weight / sum : 1.0 / team->n_members;
	}
}

void
td_team_assign(const td_registry *registry, const td_pool *pool, const td_candidate *candidates,
			   const uint32_t *place, td_team *team)
{
	set_jobs(registry, pool, place, team);
	if (team->strategy == TD_PIPELINE)
		order_members(pool->request, team);
	number_shares(team);
	set_weights(pool, candidates, team);
}
