/*
 * td_sql_semantic.c - ruvector_semantic_route(), and what ruvector_tune_routes() is made of.
 *
 * In: a request, or what is wanted of the routes.  Out: the routes that match, or a report for each.
 * Called from SQL.  The matcher, and with it one pinned set of routes, lives in fn_extra until the
 * statement ends, so that a lateral join over a log sees one set.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "td_compat.h"
#include "td_error.h"
#include "td_lent.h"
#include "td_match.h"

/* Columns of tinydancer.tune_report(). */
enum
{
	TUNE_ROUTE_NAME,
	TUNE_UTTERANCES,
	TUNE_THRESHOLD,
	TUNE_PRECISION,
	TUNE_COVERAGE,
	TUNE_CONFUSED_WITH,
	TUNE_CONFUSION,
	TUNE_IS_SHORT,
	TUNE_ENCODER,
	TUNE_SCORER,
	TUNE_FITTED,
	TUNE_MU,
	TUNE_S,
	TUNE_ACCURACY,
	TUNE_FINGERPRINT,
	TUNE_WEIGHTS,
	TUNE_N
};

PG_FUNCTION_INFO_V1(ruvector_semantic_route);

Datum
ruvector_semantic_route(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	NullableDatum inputs[TD_N_MATCH_INPUTS];
	TdMatcher *matcher;
	size_t n;
	size_t i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	/* A call with fewer arguments than this module knows comes from an older script version. */
	for (i = 0; i < TD_N_MATCH_INPUTS; i++)
	{
		inputs[i].isnull = (int) i >= PG_NARGS() || PG_ARGISNULL(i);
		inputs[i].value = inputs[i].isnull ? (Datum) 0 : PG_GETARG_DATUM(i);
	}
	/* No request, no row, whatever the state of routes and encoder. */
	if (inputs[TD_MATCH_QUERY].isnull && inputs[TD_MATCH_EMBEDDING].isnull)
		return (Datum) 0;
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = tdpg_matcher_create(fcinfo->flinfo->fn_mcxt);
	matcher = fcinfo->flinfo->fn_extra;
	n = tdpg_matcher_match(matcher, inputs);
	for (i = 0; i < n; i++)
	{
		Datum values[TD_N_MATCH_OUTPUTS];
		bool nulls[TD_N_MATCH_OUTPUTS];

		tdpg_matcher_outputs(matcher, matcher->index[i], values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---------------------------------------------------------------- tuning */

/* A wanted share; NULL is none. */
static double
share_of(FunctionCallInfo fcinfo, int i, const char *what)
{
	double share;

	if (PG_ARGISNULL(i))
		return NAN;
	share = PG_GETARG_FLOAT8(i);
	if (!(share >= 0.0 && share <= 1.0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must be between 0 and 1", what),
						errdetail("The value is %g.", share),
						errhint("Pass NULL when none is wanted.")));
	return share;
}

static uint32
scorer_of(FunctionCallInfo fcinfo, int i)
{
	const char *names[TD_N_SCORERS];
	const char *closest;
	char *name;
	uint32 scorer;

	if (PG_ARGISNULL(i))
		return TD_NONE;
	name = text_to_cstring(PG_GETARG_TEXT_PP(i));
	for (scorer = 0; scorer < TD_N_SCORERS; scorer++)
	{
		names[scorer] = td_scorer_name(scorer);
		if (strcmp(names[scorer], name) == 0)
			return scorer;
	}
	closest = tdpg_closest(name, names, TD_N_SCORERS);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown scorer \"%s\"", name),
					errdetail("Known scorers are %s, %s, %s, %s.", names[0], names[1], names[2],
							  names[3]),
					closest != NULL
						? errhint("Perhaps you meant \"%s\".", closest)
						: errhint("Pass NULL to have the most accurate one chosen.")));
	return TD_NONE;
}

static Datum
known_float8(double value, bool *isnull)
{
	*isnull = isnan(value) || isinf(value);
	return *isnull ? (Datum) 0 : Float8GetDatum(value);
}

/* Tune, looking at interrupts between the steps; the state is in the current memory context. */
static void *
tune(const td_routes *view, const td_tune_options *options)
{
	size_t size = td_tune_size(view, options);
	void *state = tdpg_lent(CurrentMemoryContext, size);
	uint32_t more = 1;
	td_status status = td_tune_begin(view, options, state, size);

	while (status == TD_OK && more)
	{
		CHECK_FOR_INTERRUPTS();
		status = td_tune_step(state, &more);
	}
	if (status != TD_OK)
		tdpg_error(status);
	return state;
}

static bytea *
weights_of(const td_routes *view, const void *state)
{
	size_t size = (size_t) view->n_routes * td_ridge_landmarks(view) * sizeof(float);
	bytea *bytes = MemoryContextAllocHuge(CurrentMemoryContext, VARHDRSZ + size);

	SET_VARSIZE(bytes, VARHDRSZ + size);
	memcpy(VARDATA(bytes), td_tune_weights(state), size);
	return bytes;
}

PG_FUNCTION_INFO_V1(tinydancer_tune_report);

/*
 * What leave-one-out says, a row for each route; facts of the whole registry are the same in each
 * row, the weights in the first one alone.
 */
Datum
tinydancer_tune_report(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *srf = (ReturnSetInfo *) fcinfo->resultinfo;
	td_tune_options options;
	TdRouteSet *set;
	td_tune_result result;
	td_route_report *reports;
	char fingerprint[17];
	void *state;
	uint32 i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	options.precision = share_of(fcinfo, 0, "target_precision");
	options.coverage = share_of(fcinfo, 1, "target_coverage");
	options.scorer = scorer_of(fcinfo, 2);
	if (!isnan(options.precision) && !isnan(options.coverage))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("target_precision and target_coverage cannot both be wanted"),
						errdetail("A threshold that raises one lowers the other."),
						errhint("Pass one of them; the report has both.")));
	set = tdpg_route_set_acquire(CurrentMemoryContext);
	if (set->view.n_routes == 0)
		return (Datum) 0;
	state = tune(&set->view, &options);
	reports = palloc(sizeof(td_route_report) * set->view.n_routes);
	td_tune_report(state, &result, reports);
	snprintf(fingerprint, sizeof(fingerprint), "%016llx",
			 (unsigned long long) td_routes_fingerprint(&set->view));

	for (i = 0; i < set->view.n_routes; i++)
	{
		const td_route_report *report = &reports[i];
		Datum values[TUNE_N];
		bool nulls[TUNE_N] = {0};

		values[TUNE_ROUTE_NAME] = CStringGetTextDatum(set->infos[i].name);
		values[TUNE_UTTERANCES] = Int32GetDatum((int32) set->view.routes[i].n_rows);
		/* Nothing that the table would refuse: a regression may say a little more than 1. */
		values[TUNE_THRESHOLD] = known_float8(report->threshold, &nulls[TUNE_THRESHOLD]);
		if (!nulls[TUNE_THRESHOLD])
			values[TUNE_THRESHOLD] =
				Float8GetDatum(Max(Min((double) report->threshold, 1.0), -1.0));
		values[TUNE_PRECISION] = known_float8(report->precision, &nulls[TUNE_PRECISION]);
		values[TUNE_COVERAGE] = known_float8(report->coverage, &nulls[TUNE_COVERAGE]);
		nulls[TUNE_CONFUSED_WITH] = report->confused_with == TD_NONE;
		values[TUNE_CONFUSED_WITH] =
			nulls[TUNE_CONFUSED_WITH]
				? (Datum) 0
				: CStringGetTextDatum(set->infos[report->confused_with].name);
		values[TUNE_CONFUSION] = Float8GetDatum(report->confusion);
		values[TUNE_IS_SHORT] = BoolGetDatum(report->precision < options.precision ||
											 report->coverage < options.coverage);
		values[TUNE_ENCODER] = CStringGetTextDatum(set->encoder->id);
		values[TUNE_SCORER] = CStringGetTextDatum(td_scorer_name(result.scorer));
		values[TUNE_FITTED] = BoolGetDatum(result.fitted != 0);
		values[TUNE_MU] = Float8GetDatum(result.mu);
		values[TUNE_S] = Float8GetDatum(result.s);
		values[TUNE_ACCURACY] =
			known_float8(result.accuracy[result.scorer], &nulls[TUNE_ACCURACY]);
		values[TUNE_FINGERPRINT] = CStringGetTextDatum(fingerprint);
		nulls[TUNE_WEIGHTS] = i > 0 || result.scorer != TD_SCORER_RIDGE;
		values[TUNE_WEIGHTS] =
			nulls[TUNE_WEIGHTS] ? (Datum) 0 : PointerGetDatum(weights_of(&set->view, state));
		tuplestore_putvalues(srf->setResult, srf->setDesc, values, nulls);
	}
	return (Datum) 0;
}
