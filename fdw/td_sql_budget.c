/*
 * td_sql_budget.c - the optimisation behind ruvector_optimize_budget().
 *
 * In: kinds of requests with how often they come, a budget, thresholds.  Out: what each agent gets.
 * Called by the SQL function of that name, which reads the log; without a log, a request of the
 * average kind stands for all.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "td_batch.h"
#include "td_compat.h"
#include "td_error.h"
#include "td_lent.h"

/* The arguments of tinydancer.plan_budget(), in their order. */
enum
{
	ARG_REQUESTS,
	ARG_COUNTS,
	ARG_SCALE,
	ARG_MONTHLY_BUDGET,
	ARG_QUALITY_THRESHOLD,
	ARG_LATENCY_THRESHOLD_MS
};

/* Its columns. */
enum
{
	COL_AGENT,
	COL_ALLOCATED_BUDGET,
	COL_SHARE,
	COL_EXPECTED_REQUESTS,
	COL_EXPECTED_QUALITY,
	COL_N
};

/* Word pieces of a request of which nothing is known: a short paragraph. */
#define AVERAGE_TOKENS 100.0

typedef struct BudgetCall
{
	const TdRegistry *registry;
	double budget;
	double min_quality; /* -INFINITY: no threshold */
	double max_latency; /* INFINITY: no threshold */
	double scale;		/* of counts: a sample stands for so many times as much */
	td_allotment *allotted; /* [n_agents] */
	ReturnSetInfo *result;
} BudgetCall;

static void
check_arguments(FunctionCallInfo fcinfo, BudgetCall *call)
{
	if (PG_ARGISNULL(ARG_MONTHLY_BUDGET))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("monthly_budget must not be NULL"),
						errdetail("There is no plan without an amount to divide."),
						errhint("Pass monthly_budget := ....")));
	call->budget = PG_GETARG_FLOAT8(ARG_MONTHLY_BUDGET);
	if (!(call->budget >= 0.0 && call->budget < INFINITY))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("monthly_budget must be a finite number that is not negative"),
						errdetail("The value is %g.", call->budget),
						errhint("Pass an amount in USD, such as 100.")));
	call->min_quality = PG_ARGISNULL(ARG_QUALITY_THRESHOLD)
							? -INFINITY
							: PG_GETARG_FLOAT8(ARG_QUALITY_THRESHOLD);
	if (call->min_quality != -INFINITY && !(call->min_quality >= 0.0 && call->min_quality <= 1.0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("quality_threshold must be between 0 and 1"),
						errdetail("The value is %g.", call->min_quality),
						errhint("Pass NULL for no threshold.")));
	call->max_latency = PG_ARGISNULL(ARG_LATENCY_THRESHOLD_MS)
							? INFINITY
							: PG_GETARG_FLOAT8(ARG_LATENCY_THRESHOLD_MS);
	if (isnan(call->max_latency) || call->max_latency < 0.0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						isnan(call->max_latency)
							? errmsg("latency_threshold_ms must not be NaN")
							: errmsg("latency_threshold_ms must not be negative"),
						errdetail("The value is %g.", call->max_latency),
						errhint("Pass NULL for no threshold.")));
	call->scale = PG_ARGISNULL(ARG_SCALE) ? 1.0 : PG_GETARG_FLOAT8(ARG_SCALE);
	if (!(call->scale >= 1.0 && call->scale < 1e15))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("scale must be a number from 1 on"),
						errdetail("The value is %g.", call->scale),
						errhint("Call ruvector_optimize_budget(), which reads the log.")));
}

/* ---------------------------------------------------------------- what cannot be had */

static void
error_no_agent(const BudgetCall *call)
{
	const td_registry *view = &call->registry->view;
	double fastest = INFINITY;
	uint32 n_priced = 0;
	uint32 i;

	for (i = 0; i < view->n_agents; i++)
	{
		const td_agent *agent = &view->agents[i];

		if (!agent->active || isnan(td_score_cost(agent, AVERAGE_TOKENS)))
			continue;
		n_priced++;
		if (agent->avg_latency_ms < fastest)
			fastest = agent->avg_latency_ms;
	}
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 n_priced > 0 ? errmsg("no agent of known cost is within latency_threshold_ms %g",
								   call->max_latency)
						  : errmsg("no active agent has a known cost"),
			 n_priced == 0		  ? errdetail("A plan needs the cost of a request.")
			 : fastest < INFINITY ? errdetail("The fastest of %u takes %g ms.", n_priced, fastest)
								  : errdetail("None of %u has a known latency.", n_priced),
			 errhint("Raise the threshold, or register costs and latencies of the agents.")));
}

static void
error_budget(const BudgetCall *call, double needed, double n_requests)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("monthly_budget %.15g does not pay for the requests", call->budget),
			 n_requests > 0.0
				 ? errdetail("The cheapest agents for the %.0f requests of the last 30 days cost "
							 "%.15g USD.",
							 n_requests, needed)
				 : errdetail("One request of the average kind costs at least %.15g USD.", needed),
			 errhint("Raise monthly_budget, or register cheaper agents.")));
}

static void
error_quality(const BudgetCall *call, double reachable)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("quality_threshold %g cannot be reached", call->min_quality),
			 errdetail("Within %.15g USD a month the eligible agents reach a mean expected quality "
					   "of %.6f.",
					   call->budget, floor(reachable * 1e6) / 1e6),
			 errhint("Lower quality_threshold, raise monthly_budget or latency_threshold_ms, or "
					 "register agents that fit the requests better.")));
}

/* ---------------------------------------------------------------- rows */

/* A figure, or NULL where there is no finite one. */
static void
put_figure(Datum *values, bool *nulls, int column, double figure)
{
	nulls[column] = !isfinite(figure);
	values[column] = Float8GetDatum(figure);
}

/* Whether agent a gets more than b; names are in order already. */
static bool
gets_more(const td_allotment *a, const td_allotment *b)
{
	return a->cost != b->cost ? a->cost > b->cost : a->requests > b->requests;
}

/* One row for each agent that gets requests, the greatest part first. */
static void
put_rows(BudgetCall *call)
{
	uint32 n_agents = call->registry->view.n_agents;
	double cost = 0.0;
	double requests = 0.0;
	uint32 i;

	for (i = 0; i < n_agents; i++)
	{
		cost += call->allotted[i].cost;
		requests += call->allotted[i].requests;
	}
	for (;;)
	{
		uint32 next = TD_NONE;
		td_allotment *a;
		Datum values[COL_N];
		bool nulls[COL_N] = {0};

		for (i = 0; i < n_agents; i++)
		{
			if (call->allotted[i].requests > 0.0 &&
				(next == TD_NONE || gets_more(&call->allotted[i], &call->allotted[next])))
				next = i;
		}
		if (next == TD_NONE)
			return;
		a = &call->allotted[next];
		values[COL_AGENT] = CStringGetTextDatum(call->registry->agent_names[next]);
		values[COL_ALLOCATED_BUDGET] = Float8GetDatum(a->cost * call->scale);
		/* Where all of it is free, the shares are those of the requests. */
		values[COL_SHARE] = Float8GetDatum(cost > 0.0			 ? a->cost / cost
										   : requests < INFINITY ? a->requests / requests
																 : 1.0);
		put_figure(values, nulls, COL_EXPECTED_REQUESTS, a->requests * call->scale);
		values[COL_EXPECTED_QUALITY] = Float8GetDatum(a->quality);
		tuplestore_putvalues(call->result->setResult, call->result->setDesc, values, nulls);
		a->requests = 0.0;
	}
}

/* ---------------------------------------------------------------- the two plans */

/* Without a log: the best agent that the budget pays for, as often as it does. */
static void
plan_average(BudgetCall *call)
{
	const td_registry *view = &call->registry->view;
	td_choice *choices = palloc(sizeof(td_choice) * view->n_agents);
	td_choice best;
	double times;
	uint32 n;

	(void) td_choice_prior(view, AVERAGE_TOKENS, call->max_latency, choices, &n);
	if (n == 0)
		error_no_agent(call);
	if (td_choice_afford(choices, n, call->budget, &best, &times) != TD_OK)
		error_budget(call, best.cost, 0.0);
	if (best.quality < call->min_quality - 1e-12)
		error_quality(call, best.quality);
	call->allotted[best.agent].requests = times;
	call->allotted[best.agent].quality = best.quality;
	call->allotted[best.agent].cost =
		best.cost > 0.0 ? Min(best.cost * times, call->budget) : 0.0;
	put_rows(call);
}

/* How often each request comes; the arguments of a function that users do not call. */
static const double *
counts_of(Datum value, const TdBatch *batch)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	const double *counts = (const double *) ARR_DATA_PTR(array);
	bool good = ARR_NDIM(array) == 1 && !array_contains_nulls(array) &&
				ARR_DIMS(array)[0] == batch->n;
	int i;

	for (i = 0; good && i < batch->n; i++)
		good = !batch->nulls[i] && counts[i] >= 1.0 && counts[i] < 1e15;
	if (!good)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("counts must say how often each request comes"),
						errdetail("There are %d requests, and a count is a number from 1 on.",
								  batch->n),
						errhint("Call ruvector_optimize_budget(), which reads the log.")));
	return counts;
}

static void
plan_log(FunctionCallInfo fcinfo, BudgetCall *call, TdRouter *router)
{
	TdBatch batch;
	TdChoices choices;
	td_knapsack knapsack;
	td_plan plan;
	td_status status;
	const double *counts;
	double *kinds;
	double n_requests = 0.0;
	Size size;
	int n_kinds = 0;
	int i;

	memset(&batch, 0, sizeof(batch));
	tdpg_batch_init(&batch, router, PG_GETARG_DATUM(ARG_REQUESTS), "requests");
	/* Nothing but a check of the other arguments was wanted. */
	if (batch.n == 0)
		return;
	counts = counts_of(PG_GETARG_DATUM(ARG_COUNTS), &batch);
	for (i = 0; i < TD_N_INPUTS; i++)
		batch.inputs.values[i].isnull = true;
	if (call->max_latency < INFINITY)
	{
		batch.inputs.values[TD_IN_MAX_LATENCY_MS].isnull = false;
		batch.inputs.values[TD_IN_MAX_LATENCY_MS].value = Float8GetDatum(call->max_latency);
	}
	tdpg_choices_init(&choices, router->registry->view.n_agents);
	kinds = palloc(sizeof(double) * Max(batch.n, 1));
	for (i = 0; i < batch.n; i++)
	{
		MemoryContext before = MemoryContextSwitchTo(batch.per_request);

		tdpg_batch_score(&batch, i);
		MemoryContextSwitchTo(before);
		MemoryContextReset(batch.per_request);
		if (!tdpg_choices_add(&choices, router, true, true, NULL))
			continue;
		kinds[n_kinds++] = floor(counts[i]);
		n_requests += floor(counts[i]);
	}
	if (n_kinds == 0)
		error_no_agent(call);

	memset(&knapsack, 0, sizeof(knapsack));
	knapsack.n_groups = choices.n_groups;
	knapsack.first = choices.first;
	knapsack.choices = choices.choices;
	size = td_knapsack_scratch_size(&knapsack);
	status = td_knapsack_divide(&knapsack, kinds, call->budget / call->scale, call->allotted,
								router->registry->view.n_agents, &plan, tdpg_lent(CurrentMemoryContext, size),
								size);
	if (status != TD_OK)
		tdpg_error(status);
	if (!plan.is_feasible)
		error_budget(call, plan.reachable * call->scale, n_requests * call->scale);
	if (plan.quality / n_requests < call->min_quality - 1e-12)
		error_quality(call, plan.quality / n_requests);
	for (i = 0; i < (int) router->registry->view.n_agents; i++)
	{
		if (call->allotted[i].requests > 0.0)
			call->allotted[i].quality /= call->allotted[i].requests;
	}
	put_rows(call);
}

PG_FUNCTION_INFO_V1(tinydancer_plan_budget);

Datum
tinydancer_plan_budget(PG_FUNCTION_ARGS)
{
	BudgetCall call;
	TdRouter *router;
	uint32 n_active = 0;
	uint32 i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	memset(&call, 0, sizeof(call));
	check_arguments(fcinfo, &call);
	router = tdpg_router_create(CurrentMemoryContext);
	call.registry = router->registry;
	call.result = (ReturnSetInfo *) fcinfo->resultinfo;
	call.allotted = palloc0(sizeof(td_allotment) * Max(call.registry->view.n_agents, 1));
	for (i = 0; i < call.registry->view.n_agents; i++)
		n_active += call.registry->view.agents[i].active;
	/* No agents: no row, and no error, as with every decision. */
	if (n_active == 0)
		return (Datum) 0;
	if (PG_ARGISNULL(ARG_REQUESTS) || PG_ARGISNULL(ARG_COUNTS))
		plan_average(&call);
	else
		plan_log(fcinfo, &call, router);
	return (Datum) 0;
}
