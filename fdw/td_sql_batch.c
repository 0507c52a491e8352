/*
 * td_sql_batch.c - ruvector_batch_route().
 *
 * In: a text[] of requests, an objective and limits.  Out: one row per request that some agent can
 * take.  Called from SQL.  Objectives of ruvector_route() decide each request alone and keep one
 * candidate for each different text; total_cost keeps the choices of all of them and decides once.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "td_batch.h"
#include "td_compat.h"
#include "td_error.h"
#include "td_lent.h"

/* The arguments of ruvector_batch_route(), in their order. */
enum
{
	ARG_REQUESTS,
	ARG_OPTIMIZE_FOR,
	ARG_REQUIRED_CAPABILITIES,
	ARG_MAX_COST,
	ARG_MAX_LATENCY_MS,
	ARG_MIN_QUALITY,
	ARG_EXCLUDED_AGENTS,
	ARG_BUDGET_REMAINING,
	ARG_POOL,
	ARG_MIN_EXPECTED_QUALITY,
	ARG_MAX_TOTAL_COST
};

/* Its columns before those of a decision. */
enum
{
	COL_REQUEST_INDEX,
	COL_REQUEST,
	COL_DECISION,
	COL_N = COL_DECISION + TD_N_OUTPUTS
};

/* The objective that decides for all requests together. */
#define TOTAL_COST "total_cost"

/* What is kept of a text: how it was read, and the candidate that goes into its rows. */
typedef struct TextResult
{
	td_embed_info info;
	td_candidate best; /* agent TD_NONE: no agent is left */
	uint32 n_eligible;
	uint32 group; /* of the plan */
} TextResult;

typedef struct BatchCall
{
	TdBatch batch;
	TextResult *results; /* [n_distinct] */
	Size room;
	uint32 *number; /* [n]: which text a request is; TD_NONE: NULL */
	ReturnSetInfo *result;
} BatchCall;

/* Limits of one request, as ruvector_route() takes them; of_all: those that total_cost sets on the sum. */
static void
inputs_of_call(FunctionCallInfo fcinfo, bool of_all, TdInputs *inputs)
{
	static const struct
	{
		TdInput input;
		int argument;
		bool is_of_all;
	} map[] = {{TD_IN_OPTIMIZE_FOR, ARG_OPTIMIZE_FOR, true},
			   {TD_IN_REQUIRED_CAPABILITIES, ARG_REQUIRED_CAPABILITIES, false},
			   {TD_IN_MAX_COST, ARG_MAX_COST, false},
			   {TD_IN_MAX_LATENCY_MS, ARG_MAX_LATENCY_MS, false},
			   {TD_IN_MIN_QUALITY, ARG_MIN_QUALITY, true},
			   {TD_IN_EXCLUDED_AGENTS, ARG_EXCLUDED_AGENTS, false},
			   {TD_IN_BUDGET_REMAINING, ARG_BUDGET_REMAINING, true},
			   {TD_IN_POOL, ARG_POOL, false},
			   {TD_IN_MIN_EXPECTED_QUALITY, ARG_MIN_EXPECTED_QUALITY, false}};
	size_t i;

	for (i = 0; i < TD_N_INPUTS; i++)
		inputs->values[i].isnull = true;
	for (i = 0; i < lengthof(map); i++)
	{
		NullableDatum *value = &inputs->values[map[i].input];

		value->isnull = PG_ARGISNULL(map[i].argument) || (of_all && map[i].is_of_all);
		value->value = value->isnull ? (Datum) 0 : PG_GETARG_DATUM(map[i].argument);
	}
}

/* A figure about all requests; absent when NULL. */
static double
figure(FunctionCallInfo fcinfo, int argument, double absent)
{
	return PG_ARGISNULL(argument) ? absent : PG_GETARG_FLOAT8(argument);
}

static bool
has_policy(const TdRegistry *registry, const char *name)
{
	int i;

	for (i = 0; i < registry->n_policies; i++)
	{
		if (strcmp(registry->policies[i].name, name) == 0)
			return true;
	}
	return false;
}

/* Whether the objective is total_cost; a misspelling of it is told here, others by the registry. */
static bool
is_total_cost(FunctionCallInfo fcinfo, const TdRegistry *registry)
{
	static const char *const names[] = {TOTAL_COST};
	bool has_cap = !PG_ARGISNULL(ARG_MAX_TOTAL_COST);
	char *name;

	if (PG_ARGISNULL(ARG_OPTIMIZE_FOR))
		return has_cap;
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_OPTIMIZE_FOR));
	if (strcmp(name, TOTAL_COST) == 0)
		return true;
	if (!has_policy(registry, name) && tdpg_closest(name, names, 1) != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("unknown optimization target \"%s\"", name),
						errdetail("Besides the targets of ruvector_route(), a batch knows "
								  "\"" TOTAL_COST "\"."),
						errhint("Perhaps you meant \"" TOTAL_COST "\".")));
	if (has_cap)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_total_cost needs the optimization target \"" TOTAL_COST "\""),
				 errdetail("The target is \"%s\", which decides each request alone.", name),
				 errhint("Pass optimize_for := '" TOTAL_COST "', or leave max_total_cost out.")));
	return false;
}

/* ---------------------------------------------------------------- rows */

static void
put_row(BatchCall *call, int i, const td_candidate *candidate, const char *reason, size_t len)
{
	Datum values[COL_N];
	bool nulls[COL_N] = {0};
	MemoryContext before = MemoryContextSwitchTo(call->batch.per_request);

	values[COL_REQUEST_INDEX] = Int32GetDatum(i + 1);
	values[COL_REQUEST] = call->batch.texts[i];
	tdpg_router_outputs(call->batch.router, candidate, 1, reason == NULL, values + COL_DECISION,
						nulls + COL_DECISION);
	if (reason != NULL)
	{
		values[COL_DECISION + TD_OUT_REASONING] = tdpg_text_datum(reason, len);
		nulls[COL_DECISION + TD_OUT_REASONING] = false;
	}
	tuplestore_putvalues(call->result->setResult, call->result->setDesc, values, nulls);
	MemoryContextSwitchTo(before);
	MemoryContextReset(call->batch.per_request);
}

/* The place of a text's result; a new one says that no agent is left. */
static TextResult *
result_of(BatchCall *call, int i, bool *is_new)
{
	uint32 number = tdpg_batch_number(&call->batch, i, is_new);

	call->number[i] = number;
	if (*is_new)
	{
		call->results = tdpg_grow(call->results, number, &call->room, sizeof(TextResult));
		memset(&call->results[number], 0, sizeof(TextResult));
		call->results[number].best.agent = TD_NONE;
		call->results[number].group = TD_NONE;
	}
	return &call->results[number];
}

/* Score request i, or decide it, in memory that its own context holds. */
static void
answer(BatchCall *call, int i, void (*how) (TdBatch *batch, int i))
{
	MemoryContext before = MemoryContextSwitchTo(call->batch.per_request);

	how(&call->batch, i);
	MemoryContextSwitchTo(before);
}

/* ---------------------------------------------------------------- each alone */

static void
decide_each(BatchCall *call)
{
	TdRouter *router = call->batch.router;
	int i;

	for (i = 0; i < call->batch.n; i++)
	{
		TextResult *kept;
		bool is_new;

		CHECK_FOR_INTERRUPTS();
		if (call->batch.nulls[i])
			continue;
		kept = result_of(call, i, &is_new);
		if (is_new)
		{
			answer(call, i, tdpg_batch_decide);
			kept->best = router->chosen;
			kept->n_eligible = router->n_eligible;
			kept->info = router->info;
		}
		if (kept->best.agent == TD_NONE)
		{
			MemoryContextReset(call->batch.per_request);
			continue;
		}
		router->n_eligible = kept->n_eligible;
		router->info = kept->info;
		put_row(call, i, &kept->best, NULL, 0);
	}
}

/* ---------------------------------------------------------------- all together */

/* Six digits that do not promise more than there is. */
#define ROUND_DOWN(x) (floor((x) * 1e6) / 1e6)

static void
error_quality(double wanted, double reachable, uint32 n)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("no plan reaches a mean expected quality of %g", wanted),
			 errdetail("The eligible agents reach %.6f on average; requests: %u.",
					   ROUND_DOWN(reachable), n),
			 errhint("With the target \"" TOTAL_COST "\", min_quality is the mean of "
					 "expected_quality; lower it, or register agents that fit the requests "
					 "better.")));
}

static void
error_cost(const char *what, double limit, double needed, double quality, uint32 n)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("no plan stays within %s %.15g", what, limit),
			 quality > 0.0
				 ? errdetail("A mean expected quality of %g for the %u requests costs %.15g USD.",
							 quality, n, needed)
				 : errdetail("The cheapest agents for the %u requests cost %.15g USD together.", n,
							 needed),
			 errhint("Raise %s, lower min_quality, or pass fewer requests.", what)));
}

/* The limits of the whole, and what they make of the request for the least cost. */
typedef struct JointLimits
{
	td_goal goal;
	double min_quality; /* NaN: that of balanced */
	double max_cost;	/* INFINITY: none */
	const char *cost_name;
} JointLimits;

static void
joint_limits(FunctionCallInfo fcinfo, JointLimits *limits)
{
	double cap = figure(fcinfo, ARG_MAX_TOTAL_COST, INFINITY);
	double budget = figure(fcinfo, ARG_BUDGET_REMAINING, INFINITY);

	limits->min_quality = figure(fcinfo, ARG_MIN_QUALITY, NAN);
	if (!PG_ARGISNULL(ARG_MIN_QUALITY) && limits->min_quality != -INFINITY &&
		!(limits->min_quality >= 0.0 && limits->min_quality <= 1.0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("min_quality must be between 0 and 1"),
						errdetail("The value is %g.", limits->min_quality),
						errhint("Pass NULL for what the target \"balanced\" would reach.")));
	if (isnan(cap) || cap < 0.0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						isnan(cap) ? errmsg("max_total_cost must not be NaN")
								   : errmsg("max_total_cost must not be negative"),
						errdetail("The value is %g.", cap),
						errhint("Pass NULL or 'Infinity' for no limit.")));
	if (isnan(budget))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("budget_remaining must not be NaN"),
						errdetail("The value is %g.", budget),
						errhint("Pass NULL or 'Infinity' for no limit.")));
	limits->goal = PG_ARGISNULL(ARG_MAX_TOTAL_COST) ? TD_LEAST_COST : TD_MOST_QUALITY;
	limits->max_cost = Min(cap, budget);
	limits->cost_name = cap <= budget ? "max_total_cost" : "budget_remaining";
}

/* Decide for the items, or raise what is reachable. */
static void
solve(const td_knapsack *knapsack, const JointLimits *limits, uint32 *level, td_plan *plan)
{
	Size size = td_knapsack_scratch_size(knapsack);
	uint32 n = knapsack->n_items;
	td_status status =
		td_knapsack_solve(knapsack, limits->goal,
						  limits->goal == TD_LEAST_COST ? limits->min_quality : limits->max_cost,
						  level, plan, tdpg_lent(CurrentMemoryContext, size), size);

	if (status != TD_OK)
		tdpg_error(status);
	if (limits->goal == TD_LEAST_COST)
	{
		if (!plan->is_feasible)
			error_quality(plan->limit, plan->reachable, n);
		if (!td_knapsack_within(plan->cost, limits->max_cost))
			error_cost(limits->cost_name, limits->max_cost, plan->cost, plan->limit, n);
		return;
	}
	if (!plan->is_feasible)
		error_cost(limits->cost_name, limits->max_cost, plan->reachable, 0.0, n);
	if (!isnan(limits->min_quality) && plan->quality / n < limits->min_quality - 1e-12)
		error_quality(limits->min_quality, plan->quality / n, n);
}

static void
put_plan(BatchCall *call, const td_knapsack *knapsack, const JointLimits *limits,
		 const uint32 *level, const td_plan *plan)
{
	const TdRegistry *registry = call->batch.router->registry;
	uint32 item = 0;
	int i;

	for (i = 0; i < call->batch.n; i++)
	{
		const TextResult *kept;
		const td_choice *choice;
		td_candidate candidate;
		TdText phrase = {NULL, 0};
		char reason[TD_REASON_SIZE];
		size_t len;

		CHECK_FOR_INTERRUPTS();
		if (call->number[i] == TD_NONE)
			continue;
		kept = &call->results[call->number[i]];
		if (kept->group == TD_NONE)
			continue;
		choice = level[item] == TD_NONE
					 ? &knapsack->fallback[kept->group]
					 : &knapsack->choices[knapsack->first[kept->group] + level[item]];
		item++;
		memset(&candidate, 0, sizeof(candidate));
		candidate.agent = choice->agent;
		candidate.phrase = choice->phrase;
		candidate.similarity = choice->similarity;
		candidate.expected_quality = choice->quality;
		candidate.cost = choice->is_known ? choice->cost : NAN;
		candidate.latency = registry->view.agents[choice->agent].avg_latency_ms;
		if (choice->phrase != TD_NONE)
			phrase = registry->phrases[choice->phrase];
		len = td_reason_plan(&candidate, limits->goal, plan, knapsack->n_items, phrase.data,
							 phrase.len, &kept->info, reason, sizeof(reason) - 1);
		reason[len] = '\0';
		put_row(call, i, &candidate, reason, len);
	}
}

static void
decide_together(FunctionCallInfo fcinfo, BatchCall *call)
{
	TdRouter *router = call->batch.router;
	int n_asked = 0;
	JointLimits limits;
	TdChoices choices;
	td_choice *fallback;
	Size fallback_room = 64;
	td_knapsack knapsack;
	td_plan plan;
	uint32 *group;
	uint32 *level;
	uint32 n_items = 0;
	int i;

	joint_limits(fcinfo, &limits);
	if (call->batch.n > TD_BATCH_MAX_JOINT)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("too many requests for one plan"),
						errdetail("There are %d, the limit is %d.", call->batch.n,
								  TD_BATCH_MAX_JOINT),
						errhint("Call the function once for each part of the requests.")));
	for (i = 0; i < call->batch.n; i++)
		n_asked += !call->batch.nulls[i];
	tdpg_choices_init(&choices, router->registry->view.n_agents);
	fallback = palloc(sizeof(td_choice) * fallback_room);
	group = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint32) * Max(call->batch.n, 1));
	for (i = 0; i < call->batch.n; i++)
	{
		TextResult *kept;
		bool is_new;

		call->number[i] = TD_NONE;
		if (call->batch.nulls[i])
			continue;
		kept = result_of(call, i, &is_new);
		if (is_new)
		{
			answer(call, i, tdpg_batch_score);
			kept->info = router->info;
			fallback = tdpg_grow(fallback, choices.n_groups, &fallback_room, sizeof(td_choice));
			if (tdpg_choices_add(&choices, router, n_asked > TD_KNAPSACK_EXACT_ITEMS,
								 limits.max_cost < INFINITY, &fallback[choices.n_groups]))
				kept->group = choices.n_groups - 1;
			MemoryContextReset(call->batch.per_request);
		}
		if (kept->group != TD_NONE)
			group[n_items++] = kept->group;
	}
	if (n_items == 0)
		return;
	memset(&knapsack, 0, sizeof(knapsack));
	knapsack.n_groups = choices.n_groups;
	knapsack.n_items = n_items;
	knapsack.first = choices.first;
	knapsack.choices = choices.choices;
	knapsack.group = group;
	knapsack.fallback = fallback;
	level = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint32) * n_items);
	solve(&knapsack, &limits, level, &plan);
	put_plan(call, &knapsack, &limits, level, &plan);
}

PG_FUNCTION_INFO_V1(ruvector_batch_route);

Datum
ruvector_batch_route(PG_FUNCTION_ARGS)
{
	MemoryContext work;
	MemoryContext before;
	BatchCall call;
	TdRouter *router;
	bool together;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (PG_ARGISNULL(ARG_REQUESTS))
		return (Datum) 0;
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = tdpg_router_create(fcinfo->flinfo->fn_mcxt);
	router = fcinfo->flinfo->fn_extra;
	together = is_total_cost(fcinfo, router->registry);
	work = AllocSetContextCreate(CurrentMemoryContext, "tinydancer batch", ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(work);
	memset(&call, 0, sizeof(call));
	call.result = (ReturnSetInfo *) fcinfo->resultinfo;
	tdpg_batch_init(&call.batch, router, PG_GETARG_DATUM(ARG_REQUESTS), "requests");
	inputs_of_call(fcinfo, together, &call.batch.inputs);
	call.room = 64;
	call.results = palloc(sizeof(TextResult) * call.room);
	call.number =
		MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint32) * Max(call.batch.n, 1));
	if (together)
		decide_together(fcinfo, &call);
	else
		decide_each(&call);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(work);
	return (Datum) 0;
}
