/*
 * td_sql_multi.c - ruvector_route_multi().
 *
 * In: a request, how many agents, a strategy, and limits.  Out: one row per member of the team.
 * Called from SQL.  As with ruvector_route(), router and buffers live in fn_extra until the
 * statement ends.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "td_compat.h"
#include "td_error.h"
#include "td_lent.h"
#include "td_route.h"

/* The arguments of ruvector_route_multi(), in their order. */
enum
{
	ARG_REQUEST,
	ARG_NUM_AGENTS,
	ARG_STRATEGY,
	ARG_REQUIRED_CAPABILITIES,
	ARG_MAX_COST,
	ARG_MAX_LATENCY_MS,
	ARG_MIN_QUALITY,
	ARG_EXCLUDED_AGENTS,
	ARG_BUDGET_REMAINING,
	ARG_EMBEDDING,
	ARG_POOL,
	ARG_MIN_EXPECTED_QUALITY,
	ARG_OPTIMIZE_FOR
};

/* Its columns. */
enum
{
	COL_STEP,
	COL_AGENT_NAME,
	COL_ROLE,
	COL_CONFIDENCE,
	COL_ESTIMATED_COST,
	COL_ESTIMATED_LATENCY_MS,
	COL_EXPECTED_QUALITY,
	COL_SIMILARITY,
	COL_REASONING,
	COL_WEIGHT,
	COL_CAPABILITIES,
	COL_N
};

#define DEFAULT_NUM_AGENTS 3

/* What one statement needs for all of its calls. */
typedef struct MultiState
{
	TdRouter *router;
	td_string *names; /* [n_capabilities], UTF-8, folded */
	td_relevance *relevance;
	float *queries; /* [1 + TD_PARTS_MAX][dim] */
	void *scratch;
	size_t scratch_size;
	td_team team;
} MultiState;

static MultiState *
statement_state(FunctionCallInfo fcinfo)
{
	MemoryContext before;
	MultiState *state = fcinfo->flinfo->fn_extra;
	const TdRegistry *registry;
	int i;

	if (state != NULL)
		return state;
	before = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	state = palloc0(sizeof(MultiState));
	state->router = tdpg_router_create(fcinfo->flinfo->fn_mcxt);
	registry = state->router->registry;
	state->names = palloc(sizeof(td_string) * Max(registry->n_capabilities, 1));
	for (i = 0; i < registry->n_capabilities; i++)
	{
		state->names[i].data = registry->capabilities[i].data;
		state->names[i].len = registry->capabilities[i].len;
	}
	state->relevance = palloc(sizeof(td_relevance) * Max(registry->n_capabilities, 1));
	state->queries = palloc(sizeof(float) * registry->view.dim * (1 + TD_PARTS_MAX));
	state->scratch_size =
		Max(td_team_scratch_size(&registry->view), td_score_scratch_size(&registry->view));
	state->scratch = tdpg_lent(CurrentMemoryContext, state->scratch_size);
	MemoryContextSwitchTo(before);
	fcinfo->flinfo->fn_extra = state;
	return state;
}

static td_strategy
strategy_argument(FunctionCallInfo fcinfo)
{
	const char *names[TD_N_STRATEGIES];
	const char *closest;
	char *name;
	int i;

	if (PG_ARGISNULL(ARG_STRATEGY))
		return TD_PIPELINE;
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_STRATEGY));
	for (i = 0; i < TD_N_STRATEGIES; i++)
	{
		names[i] = td_strategy_name((td_strategy) i);
		if (strcmp(name, names[i]) == 0)
			return (td_strategy) i;
	}
	closest = tdpg_closest(name, names, TD_N_STRATEGIES);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown strategy \"%s\"", name),
			 errdetail("Known strategies are pipeline, parallel, ensemble."),
			 closest != NULL ? errhint("Perhaps you meant \"%s\".", closest)
							 : errhint("A pipeline works step by step, in parallel each agent does a "
									   "share, an ensemble votes.")));
	return TD_PIPELINE;
}

static uint32
num_agents_argument(FunctionCallInfo fcinfo)
{
	int32 n;

	if (PG_ARGISNULL(ARG_NUM_AGENTS))
		return DEFAULT_NUM_AGENTS;
	n = PG_GETARG_INT32(ARG_NUM_AGENTS);
	if (n < 1 || n > TD_TEAM_MAX)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("num_agents must be between 1 and %d", TD_TEAM_MAX),
						errdetail("The value is %d.", n),
						errhint("Pass how many agents the request should go to.")));
	return (uint32) n;
}

/* A voter answers the whole request and needs every capability; other teams need them together. */
static void
inputs_of_call(FunctionCallInfo fcinfo, td_strategy strategy, TdInputs *inputs)
{
	static const int arguments[TD_N_INPUTS] = {
		[TD_IN_REQUEST] = ARG_REQUEST,
		[TD_IN_OPTIMIZE_FOR] = ARG_OPTIMIZE_FOR,
		[TD_IN_REQUIRED_CAPABILITIES] = ARG_REQUIRED_CAPABILITIES,
		[TD_IN_MAX_COST] = ARG_MAX_COST,
		[TD_IN_MAX_LATENCY_MS] = ARG_MAX_LATENCY_MS,
		[TD_IN_MIN_QUALITY] = ARG_MIN_QUALITY,
		[TD_IN_EXCLUDED_AGENTS] = ARG_EXCLUDED_AGENTS,
		[TD_IN_BUDGET_REMAINING] = ARG_BUDGET_REMAINING,
		[TD_IN_EMBEDDING] = ARG_EMBEDDING,
		[TD_IN_POOL] = ARG_POOL,
		[TD_IN_MIN_EXPECTED_QUALITY] = ARG_MIN_EXPECTED_QUALITY,
	};
	int i;

	for (i = 0; i < TD_N_INPUTS; i++)
	{
		inputs->values[i].isnull = PG_ARGISNULL(arguments[i]);
		inputs->values[i].value =
			inputs->values[i].isnull ? (Datum) 0 : PG_GETARG_DATUM(arguments[i]);
	}
	if (strategy != TD_ENSEMBLE)
		inputs->values[TD_IN_REQUIRED_CAPABILITIES].isnull = true;
}

/* The ids of the capabilities that the team must have together, each once. */
static uint32 *
required_together(FunctionCallInfo fcinfo, const TdRegistry *registry, size_t *n_required)
{
	TdText *names;
	uint32 *ids;
	int n;
	int i;

	*n_required = 0;
	if (PG_ARGISNULL(ARG_REQUIRED_CAPABILITIES))
		return NULL;
	names = tdpg_text_array(PG_GETARG_DATUM(ARG_REQUIRED_CAPABILITIES), "required_capabilities", &n);
	ids = palloc(sizeof(uint32) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		uint32 id = tdpg_registry_capability(registry, tdpg_fold(names[i]));
		size_t j = 0;

		while (j < *n_required && ids[j] != id)
			j++;
		if (j == *n_required)
			ids[(*n_required)++] = id;
	}
	if (*n_required > TD_NEEDS_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("too many required_capabilities for one team"),
						errdetail("There are %zu, the limit is %d.", *n_required, TD_NEEDS_MAX),
						errhint("Route the parts of the request by themselves.")));
	return ids;
}

/* How much the request that was scored asks for each capability. */
static void
set_relevance(FunctionCallInfo fcinfo, MultiState *state)
{
	TdRouter *router = state->router;
	const TdRegistry *registry = router->registry;
	Size dim = registry->view.dim;
	td_string parts[TD_PARTS_MAX];
	uint32 n_parts = 0;
	uint32 i;
	td_status status;

	memcpy(state->queries, router->request.embedding, sizeof(float) * dim);
	/* A vector stands for the text, and so for its parts. */
	if (!PG_ARGISNULL(ARG_REQUEST) && PG_ARGISNULL(ARG_EMBEDDING))
	{
		TdText text = tdpg_text(PG_GETARG_DATUM(ARG_REQUEST));

		n_parts = td_team_parts(text.data, text.len, parts);
		for (i = 0; i < n_parts; i++)
		{
			TdText part = {parts[i].data, parts[i].len};

			(void) tdpg_router_embed(router, part, state->queries + dim * (1 + i));
		}
	}
	status = td_team_relevance(&registry->view, registry->encoder->fit_mu,
							   registry->encoder->fit_s, (uint32) registry->n_capabilities,
							   registry->capability_phrases, state->names, state->queries, n_parts,
							   state->relevance, state->scratch, state->scratch_size);
	if (status != TD_OK)
		tdpg_error(status);
}

/* The capabilities that a member is there for, as text[]. */
static Datum
capabilities_of(const MultiState *state, const td_member *member)
{
	const TdRegistry *registry = state->router->registry;
	Datum names[TD_NEEDS_MAX];
	int n = 0;
	uint32 need;

	for (need = 0; need < state->team.n_needs; need++)
	{
		if (member->needs >> need & 1)
		{
			TdText name = registry->capabilities[state->team.need[need]];

			names[n++] = tdpg_text_datum(name.data, name.len);
		}
	}
	if (member->needs == 0 && member->own != TD_NONE)
	{
		TdText name = registry->capabilities[member->own];

		names[n++] = tdpg_text_datum(name.data, name.len);
	}
	return PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
put_member(MultiState *state, uint32 number, ReturnSetInfo *result)
{
	TdRouter *router = state->router;
	const TdRegistry *registry = router->registry;
	const td_member *member = &state->team.member[number];
	const td_candidate *candidate = &router->candidates[member->agent];
	TdText objective = tdpg_utf8(router->objective->name, strlen(router->objective->name));
	TdText phrase = {NULL, 0};
	char buffer[TD_REASON_SIZE];
	size_t len;
	Datum outputs[TD_N_OUTPUTS];
	bool output_nulls[TD_N_OUTPUTS];
	Datum values[COL_N];
	bool nulls[COL_N] = {0};
	static const struct
	{
		int column;
		TdOutput output;
	} same[] = {{COL_AGENT_NAME, TD_OUT_AGENT_NAME},
				{COL_CONFIDENCE, TD_OUT_CONFIDENCE},
				{COL_ESTIMATED_COST, TD_OUT_ESTIMATED_COST},
				{COL_ESTIMATED_LATENCY_MS, TD_OUT_ESTIMATED_LATENCY_MS},
				{COL_EXPECTED_QUALITY, TD_OUT_EXPECTED_QUALITY},
				{COL_SIMILARITY, TD_OUT_SIMILARITY}};
	size_t i;

	tdpg_router_outputs(router, candidate, 0, false, outputs, output_nulls);
	for (i = 0; i < lengthof(same); i++)
	{
		values[same[i].column] = outputs[same[i].output];
		nulls[same[i].column] = output_nulls[same[i].output];
	}
	values[COL_STEP] = Int32GetDatum((int32) number + 1);
	len = td_team_role(&state->team, number, state->names, buffer, sizeof(buffer) - 1);
	buffer[len] = '\0';
	values[COL_ROLE] = tdpg_text_datum(buffer, len);
	if (candidate->phrase != TD_NONE)
		phrase = registry->phrases[candidate->phrase];
	len = td_reason_member(candidate, &state->team, number, phrase.data, phrase.len,
						   objective.data, router->has_info ? &router->info : NULL, buffer,
						   sizeof(buffer) - 1);
	buffer[len] = '\0';
	values[COL_REASONING] = tdpg_text_datum(buffer, len);
	nulls[COL_WEIGHT] = isnan(member->weight);
	values[COL_WEIGHT] = Float8GetDatum(member->weight);
	values[COL_CAPABILITIES] = capabilities_of(state, member);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(ruvector_route_multi);

Datum
ruvector_route_multi(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MultiState *state;
	TdRouter *router;
	TdInputs inputs;
	td_team_request wanted;
	td_status status;
	uint32 i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	memset(&wanted, 0, sizeof(wanted));
	wanted.strategy = strategy_argument(fcinfo);
	wanted.n_wanted = num_agents_argument(fcinfo);
	inputs_of_call(fcinfo, wanted.strategy, &inputs);
	/* No request, no row, whatever the state of registry and encoder. */
	if (PG_ARGISNULL(ARG_REQUEST) && PG_ARGISNULL(ARG_EMBEDDING))
		return (Datum) 0;

	state = statement_state(fcinfo);
	router = state->router;
	if (!tdpg_router_score(router, &inputs))
		return (Datum) 0;
	set_relevance(fcinfo, state);
	if (wanted.strategy != TD_ENSEMBLE)
		wanted.required = required_together(fcinfo, router->registry, &wanted.n_required);
	wanted.max_cost = Min(router->request.max_cost, router->request.budget_remaining);
	wanted.max_latency_ms = router->request.max_latency_ms;
	wanted.n_capabilities = (uint32) router->registry->n_capabilities;
	wanted.relevance = state->relevance;
	status = td_team_choose(&router->registry->view, router->candidates, &wanted, &state->team,
							state->scratch, state->scratch_size);
	if (status != TD_OK)
		tdpg_error(status);
	for (i = 0; i < state->team.n_members; i++)
		put_member(state, i, result);
	return (Datum) 0;
}
