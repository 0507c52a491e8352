/*
 * td_fdw_route.c - the foreign table route_results: one decision for each request.
 *
 * In: the inputs of a decision.  Out: the row of the agent that is chosen, or none.  Reached through
 * tdpg_route_results by planning and scanning.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "td_fdw.h"

const TdColumnKind tdpg_route_inputs[TD_N_INPUTS] = {
	[TD_IN_REQUEST] = {"request", TEXTOID},
	/* Named, since an input column echoes what was used. */
	[TD_IN_OPTIMIZE_FOR] = {"optimize_for", TEXTOID, TD_DEFAULT_OBJECTIVE, .is_option = true},
	[TD_IN_REQUIRED_CAPABILITIES] = {"required_capabilities", TEXTARRAYOID, .is_option = true},
	[TD_IN_MAX_COST] = {"max_cost", FLOAT8OID, .is_option = true},
	[TD_IN_MAX_LATENCY_MS] = {"max_latency_ms", FLOAT8OID, .is_option = true},
	[TD_IN_MIN_QUALITY] = {"min_quality", FLOAT8OID, .is_option = true},
	[TD_IN_EXCLUDED_AGENTS] = {"excluded_agents", TEXTARRAYOID, .is_option = true},
	[TD_IN_BUDGET_REMAINING] = {"budget_remaining", FLOAT8OID, .is_option = true},
	[TD_IN_EMBEDDING] = {"embedding", FLOAT4ARRAYOID},
	[TD_IN_POOL] = {"pool", TEXTOID, .is_option = true},
	[TD_IN_MIN_EXPECTED_QUALITY] = {"min_expected_quality", FLOAT8OID, .is_option = true},
};

static const TdColumnKind outputs[TD_N_OUTPUTS] = {
	[TD_OUT_AGENT_NAME] = {"agent_name", TEXTOID},
	[TD_OUT_CONFIDENCE] = {"confidence", FLOAT8OID},
	[TD_OUT_ESTIMATED_COST] = {"estimated_cost", FLOAT8OID},
	[TD_OUT_ESTIMATED_LATENCY_MS] = {"estimated_latency_ms", FLOAT8OID},
	[TD_OUT_EXPECTED_QUALITY] = {"expected_quality", FLOAT8OID},
	[TD_OUT_SIMILARITY] = {"similarity", FLOAT8OID},
	[TD_OUT_REASONING] = {"reasoning", TEXTOID},
};

typedef struct Decisions
{
	TdAnswers base;
	TdRouter *router;
	bool has_row; /* somebody was chosen, and the row is not out */
} Decisions;

static double
rows_of_decision(void)
{
	return 1.0;
}

static TdAnswers *
begin_decisions(MemoryContext context, const bool *wanted)
{
	Decisions *decisions = MemoryContextAllocZero(context, sizeof(Decisions));

	decisions->base.wanted = wanted;
	decisions->router = tdpg_router_create(context);
	return &decisions->base;
}

static void
ask_decision(TdAnswers *answers, const TdInputs *inputs)
{
	Decisions *decisions = (Decisions *) answers;
	TdRouter *router = decisions->router;

	decisions->has_row = false;
	if (!tdpg_router_decide(router, inputs))
		return;
	answers->n_requests++;
	answers->n_scored += router->registry->view.n_agents;
	decisions->has_row = router->chosen.agent != TD_NONE;
}

static bool
next_decision(TdAnswers *answers, Datum *values, bool *nulls)
{
	Decisions *decisions = (Decisions *) answers;

	if (!decisions->has_row)
		return false;
	decisions->has_row = false;
	tdpg_router_outputs(decisions->router, &decisions->router->chosen, 1,
						answers->wanted[TD_OUT_REASONING], values, nulls);
	return true;
}

const TdTableKind tdpg_route_results = {
	.name = "route_results",
	.n_inputs = TD_N_INPUTS,
	.inputs = tdpg_route_inputs,
	.embedding = TD_IN_EMBEDDING,
	.objective = TD_IN_OPTIMIZE_FOR,
	.most_rows = -1,
	.n_outputs = TD_N_OUTPUTS,
	.outputs = outputs,
	.key = TD_OUT_AGENT_NAME,
	.keys = "agent",
	.rank = -1,
	.task = TD_TASK_QUALITY,
	.check = tdpg_check_limits,
	.rows = rows_of_decision,
	.begin = begin_decisions,
	.ask = ask_decision,
	.next = next_decision,
	.requests_label = "Requests Routed",
	.scored_label = "Agents Scored",
};
