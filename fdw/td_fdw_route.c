/*
 * td_fdw_route.c - the foreign table route_results: one decision for each request.
 *
 * Read through tdpg_route_results by planning and scanning.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "td_fdw.h"

static const TdColumnKind inputs[TD_N_INPUTS] = {
	[TD_IN_REQUEST] = {"request", TEXTOID},
	[TD_IN_OPTIMIZE_FOR] = {"optimize_for", TEXTOID},
	[TD_IN_REQUIRED_CAPABILITIES] = {"required_capabilities", TEXTARRAYOID},
	[TD_IN_MAX_COST] = {"max_cost", FLOAT8OID},
	[TD_IN_MAX_LATENCY_MS] = {"max_latency_ms", FLOAT8OID},
	[TD_IN_MIN_QUALITY] = {"min_quality", FLOAT8OID},
	[TD_IN_EXCLUDED_AGENTS] = {"excluded_agents", TEXTARRAYOID},
	[TD_IN_BUDGET_REMAINING] = {"budget_remaining", FLOAT8OID},
	[TD_IN_EMBEDDING] = {"embedding", FLOAT4ARRAYOID},
	[TD_IN_POOL] = {"pool", TEXTOID},
	[TD_IN_MIN_EXPECTED_QUALITY] = {"min_expected_quality", FLOAT8OID},
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

const TdTableKind tdpg_route_results = {
	.name = "route_results",
	.n_inputs = TD_N_INPUTS,
	.inputs = inputs,
	.embedding = TD_IN_EMBEDDING,
	.n_outputs = TD_N_OUTPUTS,
	.outputs = outputs,
};
