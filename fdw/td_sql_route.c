/*
 * td_sql_route.c - ruvector_route() and ruvector_explain_route().
 *
 * In: a request and limits.  Out: the decision, or every agent with the parts of its score.
 * Called from SQL.  The router, and with it one pinned registry, lives in fn_extra until the
 * statement ends, so that a lateral join over a log sees one registry.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "td_compat.h"
#include "td_route.h"

/* Columns of ruvector_explain_route(). */
enum
{
	EX_AGENT_NAME,
	EX_RANK,
	EX_ELIGIBLE,
	EX_REJECTED_BY,
	EX_SCORE,
	EX_SIMILARITY,
	EX_CLOSEST_PHRASE,
	EX_FIT,
	EX_QUALITY,
	EX_EXPECTED_QUALITY,
	EX_ESTIMATED_COST,
	EX_COST_UTILITY,
	EX_ESTIMATED_LATENCY_MS,
	EX_LATENCY_UTILITY,
	EX_REASONING,
	EX_N
};

static TdRouter *
statement_router(FunctionCallInfo fcinfo)
{
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = tdpg_router_create(fcinfo->flinfo->fn_mcxt);
	return fcinfo->flinfo->fn_extra;
}

/* A call with fewer arguments than this module knows comes from an older script version. */
static void
inputs_of_call(FunctionCallInfo fcinfo, TdInputs *inputs)
{
	int i;

	for (i = 0; i < TD_N_INPUTS; i++)
	{
		inputs->values[i].isnull = i >= PG_NARGS() || PG_ARGISNULL(i);
		inputs->values[i].value = inputs->values[i].isnull ? (Datum) 0 : PG_GETARG_DATUM(i);
	}
}

PG_FUNCTION_INFO_V1(ruvector_route);

Datum
ruvector_route(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TdRouter *router;
	TdInputs inputs;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	inputs_of_call(fcinfo, &inputs);
	/* No request, no row, whatever the state of registry and encoder. */
	if (inputs.values[TD_IN_REQUEST].isnull && inputs.values[TD_IN_EMBEDDING].isnull)
		return (Datum) 0;
	router = statement_router(fcinfo);
	if (tdpg_router_score(router, &inputs))
	{
		uint32 best = td_score_best(router->candidates, router->registry->view.n_agents,
									&router->n_eligible);

		if (best != TD_NONE)
		{
			Datum values[TD_N_OUTPUTS];
			bool nulls[TD_N_OUTPUTS];

			tdpg_router_outputs(router, &router->candidates[best], 1, true, values, nulls);
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}

static void
put_explained(TdRouter *router, const td_candidate *c, uint32 rank, ReturnSetInfo *result)
{
	Datum outputs[TD_N_OUTPUTS];
	bool output_nulls[TD_N_OUTPUTS];
	Datum values[EX_N];
	bool nulls[EX_N] = {0};

	tdpg_router_outputs(router, c, rank, true, outputs, output_nulls);
	values[EX_AGENT_NAME] = outputs[TD_OUT_AGENT_NAME];
	values[EX_RANK] = Int32GetDatum((int32) rank);
	nulls[EX_RANK] = rank == 0;
	values[EX_ELIGIBLE] = BoolGetDatum(c->rejected_by == 0);
	nulls[EX_REJECTED_BY] = c->rejected_by == 0;
	values[EX_REJECTED_BY] =
		nulls[EX_REJECTED_BY] ? (Datum) 0 : CStringGetTextDatum(tdpg_rejected_by(c));
	values[EX_SCORE] = Float8GetDatum(c->score);
	values[EX_SIMILARITY] = outputs[TD_OUT_SIMILARITY];
	values[EX_CLOSEST_PHRASE] = tdpg_closest_phrase(router, c, &nulls[EX_CLOSEST_PHRASE]);
	values[EX_FIT] = Float8GetDatum(c->fit);
	values[EX_QUALITY] = Float8GetDatum(c->quality);
	values[EX_EXPECTED_QUALITY] = Float8GetDatum(c->expected_quality);
	values[EX_ESTIMATED_COST] = outputs[TD_OUT_ESTIMATED_COST];
	nulls[EX_ESTIMATED_COST] = output_nulls[TD_OUT_ESTIMATED_COST];
	values[EX_COST_UTILITY] = Float8GetDatum(c->cost_utility);
	values[EX_ESTIMATED_LATENCY_MS] = outputs[TD_OUT_ESTIMATED_LATENCY_MS];
	nulls[EX_ESTIMATED_LATENCY_MS] = output_nulls[TD_OUT_ESTIMATED_LATENCY_MS];
	values[EX_LATENCY_UTILITY] = Float8GetDatum(c->latency_utility);
	values[EX_REASONING] = outputs[TD_OUT_REASONING];
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(ruvector_explain_route);

Datum
ruvector_explain_route(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TdRouter *router;
	TdInputs inputs;
	uint32 *order;
	uint32 n;
	uint32 i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	inputs_of_call(fcinfo, &inputs);
	if (inputs.values[TD_IN_REQUEST].isnull && inputs.values[TD_IN_EMBEDDING].isnull)
		return (Datum) 0;
	router = statement_router(fcinfo);
	if (!tdpg_router_score(router, &inputs))
		return (Datum) 0;

	n = router->registry->view.n_agents;
	(void) td_score_best(router->candidates, n, &router->n_eligible);
	order = palloc(sizeof(uint32) * Max(n, 1));
	td_score_rank(router->candidates, n, order);
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		put_explained(router, &router->candidates[order[i]],
					  i < router->n_eligible ? i + 1 : 0, result);
	}
	return (Datum) 0;
}
