/*
 * td_fdw_candidates.c - the foreign table route_candidates: every agent for each request, ranked.
 *
 * In: the inputs of a decision.  Out: the rows of ruvector_explain_route(), in its order.  Reached
 * through tdpg_route_candidates by planning and scanning.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "td_fdw.h"
#include "td_lent.h"

static const TdColumnKind outputs[TD_N_EXPLAINED] = {
	[TD_EX_AGENT_NAME] = {"agent_name", TEXTOID},
	[TD_EX_RANK] = {"rank", INT4OID, .order = TD_ASCENDING},
	[TD_EX_ELIGIBLE] = {"eligible", BOOLOID, .order = TD_DESCENDING},
	[TD_EX_REJECTED_BY] = {"rejected_by", TEXTOID},
	[TD_EX_SCORE] = {"score", FLOAT8OID},
	[TD_EX_SIMILARITY] = {"similarity", FLOAT8OID},
	[TD_EX_CLOSEST_PHRASE] = {"closest_phrase", TEXTOID},
	[TD_EX_FIT] = {"fit", FLOAT8OID},
	[TD_EX_QUALITY] = {"quality", FLOAT8OID},
	[TD_EX_EXPECTED_QUALITY] = {"expected_quality", FLOAT8OID},
	[TD_EX_ESTIMATED_COST] = {"estimated_cost", FLOAT8OID},
	[TD_EX_COST_UTILITY] = {"cost_utility", FLOAT8OID},
	[TD_EX_ESTIMATED_LATENCY_MS] = {"estimated_latency_ms", FLOAT8OID},
	[TD_EX_LATENCY_UTILITY] = {"latency_utility", FLOAT8OID},
	[TD_EX_REASONING] = {"reasoning", TEXTOID},
};

typedef struct Candidates
{
	TdAnswers base;
	TdRouter *router;
	uint32 *order;	 /* [n_agents], best first; all of it from the second row on */
	uint32 position; /* of the next row */
	uint32 n;		 /* rows of the request */
} Candidates;

static double
rows_of_candidates(void)
{
	return tdpg_registry_rows("agent");
}

static TdAnswers *
begin_candidates(MemoryContext context, const bool *wanted)
{
	Candidates *candidates = MemoryContextAllocZero(context, sizeof(Candidates));

	candidates->base.wanted = wanted;
	candidates->router = tdpg_router_create(context);
	candidates->order =
		tdpg_lent(context, sizeof(uint32) * candidates->router->registry->view.n_agents);
	return &candidates->base;
}

static void
ask_candidates(TdAnswers *answers, const TdInputs *inputs)
{
	Candidates *candidates = (Candidates *) answers;
	TdRouter *router = candidates->router;
	uint32 n = router->registry->view.n_agents;

	candidates->position = 0;
	candidates->n = 0;
	if (!tdpg_router_score(router, inputs))
		return;
	answers->n_requests++;
	answers->n_scored += n;
	candidates->n = n;
	if (n == 0)
		return;
	candidates->order[0] = td_score_best(router->candidates, n, &router->n_eligible);
	if (candidates->order[0] == TD_NONE)
		td_score_rank(router->candidates, n, candidates->order);
}

static bool
next_candidate(TdAnswers *answers, Datum *values, bool *nulls)
{
	Candidates *candidates = (Candidates *) answers;
	TdRouter *router = candidates->router;
	uint32 position = candidates->position;

	if (position == candidates->n)
		return false;
	/* Who wants the best alone does not wait for the others to be sorted. */
	if (position == 1)
		td_score_rank(router->candidates, candidates->n, candidates->order);
	tdpg_router_explained(router, &router->candidates[candidates->order[position]],
						  position < router->n_eligible ? position + 1 : 0, answers->wanted, values,
						  nulls);
	candidates->position++;
	return true;
}

const TdTableKind tdpg_route_candidates = {
	.name = "route_candidates",
	.n_inputs = TD_N_INPUTS,
	.inputs = tdpg_route_inputs,
	.embedding = TD_IN_EMBEDDING,
	.objective = TD_IN_OPTIMIZE_FOR,
	.most_rows = -1,
	.n_outputs = TD_N_EXPLAINED,
	.outputs = outputs,
	.key = TD_EX_AGENT_NAME,
	.keys = "agent",
	.rank = TD_EX_RANK,
	.task = TD_TASK_QUALITY,
	.check = tdpg_check_limits,
	.rows = rows_of_candidates,
	.begin = begin_candidates,
	.ask = ask_candidates,
	.next = next_candidate,
	.requests_label = "Requests Routed",
	.scored_label = "Agents Scored",
};
