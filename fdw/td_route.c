/*
 * td_route.c - SQL inputs become a kernel request, the kernel's candidate becomes SQL outputs.
 *
 * In: datums.  Out: datums.  Called by td_sql_route.c and the foreign tables.  Buffers are made once per
 * statement, so a join over a million requests allocates nothing that grows.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "td_activity.h"
#include "td_compat.h"
#include "td_error.h"
#include "td_guc.h"
#include "td_lent.h"
#include "td_route.h"

TdRouter *
tdpg_router_create(MemoryContext context)
{
	TdRouter *router = MemoryContextAllocZero(context, sizeof(TdRouter));
	TdRegistry *registry = tdpg_registry_acquire(context);

	router->context = context;
	router->registry = registry;
	router->embedding = tdpg_lent(context, sizeof(float) * registry->view.dim);
	router->embedder = tdpg_embedder_create(context);
	router->score_scratch_size = td_score_scratch_size(&registry->view);
	router->score_scratch = tdpg_lent(context, router->score_scratch_size);
	router->model = tdpg_model_acquire(TD_TASK_QUALITY, registry->encoder, context);
	if (router->model != NULL)
	{
		const td_model *model = &router->model->view;

		/* A copy: a cursor keeps its registry while later statements have others mapped. */
		router->outputs = tdpg_lent(context, sizeof(uint32) * registry->view.n_agents);
		memcpy(router->outputs, tdpg_model_outputs(router->model, registry),
			   sizeof(uint32) * registry->view.n_agents);
		router->probability = tdpg_lent(context, sizeof(float) * model->n_out);
		router->predicted = tdpg_lent(context, sizeof(double) * registry->view.n_agents);
		router->model_scratch_size = td_model_scratch_size(model);
		router->model_scratch = tdpg_lent(context, router->model_scratch_size);
	}
	return router;
}

/* What the quality model says of the request whose vector is there; text.data is NULL without text. */
static void
predict(TdRouter *router, TdText text)
{
	TdRegistry *registry = router->registry;
	td_status status;

	router->request.predicted = NULL;
	router->request.outputs = router->outputs;
	if (router->model == NULL)
		return;
	status = tdpg_model_apply(router->model, tdpg_active_encoder_counter(registry->encoder), text,
							  router->request.embedding, router->probability,
							  router->model_scratch,
							  router->model_scratch_size);
	if (status != TD_OK)
		tdpg_error(status);
	if (td_score_predict(&registry->view, router->outputs, router->probability, router->predicted))
		router->request.predicted = router->predicted;
}

static bool
has(const TdInputs *inputs, TdInput which)
{
	return !inputs->values[which].isnull;
}

/* A limit on cost or latency; NULL is none. */
static double
ceiling(const TdInputs *inputs, TdInput which, const char *what, bool may_be_negative)
{
	double value;

	if (!has(inputs, which))
		return INFINITY;
	value = DatumGetFloat8(inputs->values[which].value);
	if (isnan(value) || (value < 0 && !may_be_negative))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						isnan(value) ? errmsg("%s must not be NaN", what)
									 : errmsg("%s must not be negative", what),
						errdetail("The value is %g.", value),
						errhint("Pass NULL or 'Infinity' for no limit.")));
	return value;
}

/* A limit on a quality; NULL is none. */
static double
floor_limit(const TdInputs *inputs, TdInput which, const char *what)
{
	double value;

	if (!has(inputs, which))
		return -INFINITY;
	value = DatumGetFloat8(inputs->values[which].value);
	if (value == -INFINITY)
		return value;
	if (!(value >= 0.0 && value <= 1.0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must be between 0 and 1", what),
						errdetail("The value is %g.", value),
						errhint("Pass NULL or '-Infinity' for no limit.")));
	return value;
}

static void
set_limits(td_request *request, const TdInputs *inputs)
{
	request->max_cost = ceiling(inputs, TD_IN_MAX_COST, "max_cost", false);
	request->max_latency_ms = ceiling(inputs, TD_IN_MAX_LATENCY_MS, "max_latency_ms", false);
	/* An overspent budget is a fact, not a mistake. */
	request->budget_remaining =
		ceiling(inputs, TD_IN_BUDGET_REMAINING, "budget_remaining", true);
	request->min_quality = floor_limit(inputs, TD_IN_MIN_QUALITY, "min_quality");
	request->min_expected_quality =
		floor_limit(inputs, TD_IN_MIN_EXPECTED_QUALITY, "min_expected_quality");
}

void
tdpg_check_limits(const TdInputs *inputs)
{
	td_request request;
	int n;

	set_limits(&request, inputs);
	if (has(inputs, TD_IN_REQUIRED_CAPABILITIES))
		(void) tdpg_text_array(inputs->values[TD_IN_REQUIRED_CAPABILITIES].value,
							   "required_capabilities", &n);
}

static void
set_required(TdRouter *router, const TdInputs *inputs)
{
	TdText *names;
	uint32 *ids;
	int n;
	int i;

	router->request.n_required = 0;
	if (!has(inputs, TD_IN_REQUIRED_CAPABILITIES))
		return;
	names = tdpg_text_array(inputs->values[TD_IN_REQUIRED_CAPABILITIES].value,
							"required_capabilities", &n);
	ids = palloc(sizeof(uint32) * Max(n, 1));
	for (i = 0; i < n; i++)
		ids[i] = tdpg_registry_capability(router->registry, tdpg_fold(names[i]));
	router->request.required = ids;
	router->request.n_required = n;
}

/* Names that no agent has exclude nobody. */
static void
set_excluded(TdRouter *router, const TdInputs *inputs)
{
	ArrayType *array;
	Datum *elements;
	bool *nulls;
	uint32 *agents;
	int n;
	int i;
	int found = 0;

	router->request.n_excluded = 0;
	if (!has(inputs, TD_IN_EXCLUDED_AGENTS))
		return;
	array = DatumGetArrayTypeP(inputs->values[TD_IN_EXCLUDED_AGENTS].value);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	agents = palloc(sizeof(uint32) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		uint32 agent =
			nulls[i] ? TD_NONE : tdpg_registry_agent(router->registry, TextDatumGetCString(elements[i]));

		if (agent != TD_NONE)
			agents[found++] = agent;
	}
	router->request.excluded = agents;
	router->request.n_excluded = found;
}

/* The request's vector and its count of word pieces. */
static void
set_embedding(TdRouter *router, const TdInputs *inputs)
{
	TdRegistry *registry = router->registry;
	TdText text;
	td_status status;

	router->has_info = false;
	router->request.input_tokens = 0.0;
	router->request.embedding = router->embedding;
	if (has(inputs, TD_IN_EMBEDDING))
	{
		const td_encoder *counter = tdpg_active_encoder_counter(registry->encoder);
		size_t n_pieces;

		tdpg_unit_vector(inputs->values[TD_IN_EMBEDDING].value, registry->encoder,
						 router->embedding);
		if (!has(inputs, TD_IN_REQUEST) || counter == NULL)
			return;
		text = tdpg_text(inputs->values[TD_IN_REQUEST].value);
		status = tdpg_count_pieces(counter, text, &n_pieces);
		if (status != TD_OK)
			tdpg_error(status);
		router->request.input_tokens = (double) n_pieces;
		return;
	}

	text = tdpg_text(inputs->values[TD_IN_REQUEST].value);
	status = tdpg_embed(router->embedder, tdpg_active_encoder_view(registry->encoder), text,
						router->embedding, &router->info);
	if (status != TD_OK)
		tdpg_error(status);
	router->has_info = true;
	router->request.input_tokens = (double) router->info.n_tokens;
}

bool
tdpg_router_embed(TdRouter *router, TdText text, float *out)
{
	td_embed_info info;
	td_status status = tdpg_embed(
		router->embedder, tdpg_active_encoder_view(router->registry->encoder), text, out, &info);

	if (status == TD_ERR_EMPTY)
		memset(out, 0, sizeof(float) * router->registry->view.dim);
	else if (status != TD_OK)
		tdpg_error(status);
	return status == TD_OK;
}

void
tdpg_router_set_terms(TdRouter *router, const TdInputs *inputs)
{
	TdRegistry *registry = router->registry;
	td_request *request = &router->request;
	td_policy *policy = &router->policy;

	router->objective = tdpg_registry_policy(
		registry, has(inputs, TD_IN_OPTIMIZE_FOR)
					  ? TextDatumGetCString(inputs->values[TD_IN_OPTIMIZE_FOR].value)
					  : TD_DEFAULT_OBJECTIVE);
	policy->cost_weight = router->objective->cost_weight;
	policy->latency_weight = router->objective->latency_weight;
	policy->quality_weight = router->objective->quality_weight;
	policy->fit_weight = router->objective->fit_weight;
	policy->per_dollar = router->objective->per_dollar;
	policy->cost_scale = tdpg_cost_scale;
	policy->latency_scale = tdpg_latency_scale;

	set_limits(request, inputs);
	request->has_pool = has(inputs, TD_IN_POOL);
	if (request->has_pool)
		request->pool =
			tdpg_registry_pool(registry, TextDatumGetCString(inputs->values[TD_IN_POOL].value));
	set_required(router, inputs);
	set_excluded(router, inputs);
}

/* Terms and vector of a request; false when there is nothing to route. */
static bool
set_request(TdRouter *router, const TdInputs *inputs)
{
	TdText text = {NULL, 0};

	if (!has(inputs, TD_IN_REQUEST) && !has(inputs, TD_IN_EMBEDDING))
		return false;
	tdpg_router_set_terms(router, inputs);
	set_embedding(router, inputs);
	router->request.products = NULL;
	if (router->model != NULL && has(inputs, TD_IN_REQUEST))
		text = tdpg_text(inputs->values[TD_IN_REQUEST].value);
	predict(router, text);
	return true;
}

void
tdpg_router_set_read(TdRouter *router, TdText text, const float *embedding,
					 const td_embed_info *info, const float *products)
{
	router->request.embedding = embedding;
	router->request.input_tokens = (double) info->n_tokens;
	router->request.products = products;
	router->info = *info;
	router->has_info = true;
	predict(router, text);
}

void
tdpg_router_score_all(TdRouter *router)
{
	const TdRegistry *registry = router->registry;
	td_status status;

	if (router->candidates == NULL)
		router->candidates =
			tdpg_lent(router->context, sizeof(td_candidate) * registry->view.n_agents);
	status = td_score_agents(&registry->view, registry->encoder->fit_mu, registry->encoder->fit_s,
							 &router->policy, &router->request, router->candidates,
							 router->score_scratch, router->score_scratch_size);
	if (status != TD_OK)
		tdpg_error(status);
	tdpg_activity.requests_routed++;
}

void
tdpg_router_decide_one(TdRouter *router)
{
	const TdRegistry *registry = router->registry;
	td_status status =
		td_score_decide(&registry->view, registry->encoder->fit_mu, registry->encoder->fit_s,
						&router->policy, &router->request, &router->chosen, &router->n_eligible,
						router->score_scratch, router->score_scratch_size);

	if (status != TD_OK)
		tdpg_error(status);
	tdpg_activity.requests_routed++;
}

bool
tdpg_router_score(TdRouter *router, const TdInputs *inputs)
{
	if (!set_request(router, inputs))
		return false;
	tdpg_router_score_all(router);
	return true;
}

bool
tdpg_router_decide(TdRouter *router, const TdInputs *inputs)
{
	router->chosen.agent = TD_NONE;
	if (!set_request(router, inputs))
		return false;
	tdpg_router_decide_one(router);
	return true;
}

static Datum
known_float8(double value, bool *isnull)
{
	*isnull = isnan(value);
	return *isnull ? (Datum) 0 : Float8GetDatum(value);
}

static Datum
reasoning(const TdRouter *router, const td_candidate *candidate, uint32 rank)
{
	const TdRegistry *registry = router->registry;
	TdText phrase = {NULL, 0};
	TdText objective = tdpg_utf8(router->objective->name, strlen(router->objective->name));
	char buffer[TD_REASON_SIZE];
	size_t len;

	if (candidate->phrase != TD_NONE)
		phrase = registry->phrases[candidate->phrase];
	len = td_reason(candidate, &registry->view.agents[candidate->agent], &router->request,
					phrase.data, phrase.len, objective.data, rank, router->n_eligible,
					router->has_info ? &router->info : NULL, buffer, sizeof(buffer) - 1);
	buffer[len] = '\0';
	return tdpg_text_datum(buffer, len);
}

void
tdpg_router_outputs(const TdRouter *router, const td_candidate *candidate, uint32 rank,
					bool with_reasoning, Datum *values, bool *nulls)
{
	memset(nulls, 0, sizeof(bool) * TD_N_OUTPUTS);
	values[TD_OUT_AGENT_NAME] =
		CStringGetTextDatum(router->registry->agent_names[candidate->agent]);
	values[TD_OUT_CONFIDENCE] = Float8GetDatum(candidate->expected_quality);
	values[TD_OUT_ESTIMATED_COST] = known_float8(candidate->cost, &nulls[TD_OUT_ESTIMATED_COST]);
	values[TD_OUT_ESTIMATED_LATENCY_MS] =
		known_float8(candidate->latency, &nulls[TD_OUT_ESTIMATED_LATENCY_MS]);
	values[TD_OUT_EXPECTED_QUALITY] = Float8GetDatum(candidate->expected_quality);
	values[TD_OUT_SIMILARITY] = Float8GetDatum((double) candidate->similarity);
	nulls[TD_OUT_REASONING] = !with_reasoning;
	values[TD_OUT_REASONING] = with_reasoning ? reasoning(router, candidate, rank) : (Datum) 0;
}

char *
tdpg_rejected_by(const td_candidate *candidate)
{
	StringInfoData list;
	unsigned i;

	initStringInfo(&list);
	for (i = 0; i < TD_N_LIMITS; i++)
	{
		if (candidate->rejected_by & (1u << i))
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", td_limit_name(i));
	}
	return list.data;
}

Datum
tdpg_closest_phrase(const TdRouter *router, const td_candidate *candidate, bool *isnull)
{
	TdText phrase;

	*isnull = candidate->phrase == TD_NONE;
	if (*isnull)
		return (Datum) 0;
	phrase = router->registry->phrases[candidate->phrase];
	return tdpg_text_datum(phrase.data, phrase.len);
}

void
tdpg_router_explained(const TdRouter *router, const td_candidate *candidate, uint32 rank,
					  const bool *wanted, Datum *values, bool *nulls)
{
	Datum outputs[TD_N_OUTPUTS];
	bool output_nulls[TD_N_OUTPUTS];

	tdpg_router_outputs(router, candidate, rank, wanted[TD_EX_REASONING], outputs, output_nulls);
	memset(nulls, 0, sizeof(bool) * TD_N_EXPLAINED);
	values[TD_EX_AGENT_NAME] = outputs[TD_OUT_AGENT_NAME];
	values[TD_EX_RANK] = Int32GetDatum((int32) rank);
	nulls[TD_EX_RANK] = rank == 0;
	values[TD_EX_ELIGIBLE] = BoolGetDatum(candidate->rejected_by == 0);
	nulls[TD_EX_REJECTED_BY] = candidate->rejected_by == 0 || !wanted[TD_EX_REJECTED_BY];
	values[TD_EX_REJECTED_BY] = nulls[TD_EX_REJECTED_BY]
									? (Datum) 0
									: CStringGetTextDatum(tdpg_rejected_by(candidate));
	values[TD_EX_SCORE] = Float8GetDatum(candidate->score);
	values[TD_EX_SIMILARITY] = outputs[TD_OUT_SIMILARITY];
	nulls[TD_EX_CLOSEST_PHRASE] = true;
	if (wanted[TD_EX_CLOSEST_PHRASE])
		values[TD_EX_CLOSEST_PHRASE] =
			tdpg_closest_phrase(router, candidate, &nulls[TD_EX_CLOSEST_PHRASE]);
	values[TD_EX_FIT] = Float8GetDatum(candidate->fit);
	values[TD_EX_QUALITY] = Float8GetDatum(candidate->quality);
	values[TD_EX_EXPECTED_QUALITY] = Float8GetDatum(candidate->expected_quality);
	values[TD_EX_ESTIMATED_COST] = outputs[TD_OUT_ESTIMATED_COST];
	nulls[TD_EX_ESTIMATED_COST] = output_nulls[TD_OUT_ESTIMATED_COST];
	values[TD_EX_COST_UTILITY] = Float8GetDatum(candidate->cost_utility);
	values[TD_EX_ESTIMATED_LATENCY_MS] = outputs[TD_OUT_ESTIMATED_LATENCY_MS];
	nulls[TD_EX_ESTIMATED_LATENCY_MS] = output_nulls[TD_OUT_ESTIMATED_LATENCY_MS];
	values[TD_EX_LATENCY_UTILITY] = Float8GetDatum(candidate->latency_utility);
	nulls[TD_EX_REASONING] = output_nulls[TD_OUT_REASONING];
	values[TD_EX_REASONING] = outputs[TD_OUT_REASONING];
}
