/*
 * td_team.h - what td_team.c, td_team_search.c and td_team_jobs.c share.
 */
#ifndef TD_TEAM_H
#define TD_TEAM_H

#include "tinydancer.h"

/* Candidates looked at: the best by score, and some that limits or needs can ask for. */
#define TD_POOL_BEST 192
#define TD_POOL_MAX (TD_POOL_BEST + 2 * TD_NEEDS_MAX + 2 * TD_TEAM_MAX)

typedef struct td_pool
{
	const td_team_request *request;
	uint64_t required;			 /* needs that a team must have */
	double weight[TD_NEEDS_MAX]; /* of a covered need */
	uint32_t n_needs;
	uint32_t n;					 /* candidates, best score first */
	uint32_t agent[TD_POOL_MAX]; /* numbers */
	double score[TD_POOL_MAX];
	double cost[TD_POOL_MAX];	 /* USD, 0 when unknown */
	double latency[TD_POOL_MAX]; /* ms, 0 when unknown */
	uint64_t needs[TD_POOL_MAX]; /* that the agent has */
	const float *overlap;		 /* [n][n], NULL but in an ensemble */
} td_pool;

/* How good a team is; see td_team_choose(). */
typedef struct td_team_value
{
	int is_feasible;
	double covered;
	double score;
	double cost;
	double latency;
	uint64_t needs;
} td_team_value;

/* The value of a team: k ascending places in the pool. */
void td_team_evaluate(const td_pool *pool, const uint32_t *team, uint32_t k, td_team_value *value);

/*
 * The best team of k: ascending places in the pool into team[k].  nodes counts down what the search
 * may still look at, over several calls.  Returns whether there is a team; is_exact says if it is
 * proved to be the best, or that there is none.
 */
int td_team_search(const td_pool *pool, uint32_t k, uint32_t *team, uint32_t *nodes, int *is_exact);

/* Whether an agent has a capability. */
int td_team_has(const td_registry *registry, uint32_t agent, uint32_t capability);

/* Jobs, order and weights of the members, which stand in the order of their places in the pool. */
void td_team_assign(const td_registry *registry, const td_pool *pool,
					const td_candidate *candidates, const uint32_t *place, td_team *team);

#endif /* TD_TEAM_H */
