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
	if (tdpg_router_decide(router, &inputs) && router->chosen.agent != TD_NONE)
	{
		Datum values[TD_N_OUTPUTS];
		bool nulls[TD_N_OUTPUTS];

		tdpg_router_outputs(router, &router->chosen, 1, true, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
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
	bool wanted[TD_N_EXPLAINED];
	uint32 i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	inputs_of_call(fcinfo, &inputs);
	if (inputs.values[TD_IN_REQUEST].isnull && inputs.values[TD_IN_EMBEDDING].isnull)
		return (Datum) 0;
	memset(wanted, true, sizeof(wanted));
	router = statement_router(fcinfo);
	if (!tdpg_router_score(router, &inputs))
		return (Datum) 0;

	n = router->registry->view.n_agents;
	(void) td_score_best(router->candidates, n, &router->n_eligible);
	order = palloc(sizeof(uint32) * Max(n, 1));
	td_score_rank(router->candidates, n, order);
	for (i = 0; i < n; i++)
	{
		Datum values[TD_N_EXPLAINED];
		bool nulls[TD_N_EXPLAINED];

		CHECK_FOR_INTERRUPTS();
		tdpg_router_explained(router, &router->candidates[order[i]],
							  i < router->n_eligible ? i + 1 : 0, wanted, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
