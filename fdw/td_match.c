/*
 * td_match.c - which semantic routes a request matches, here and now.
 *
 * In: datums.  Out: route numbers and datums.  Called by td_sql_semantic.c and td_fdw_matches.c.  Texts
 * and scores are the kernel's; this file adds the conditions that only the server knows: the time, the
 * user's tier, and how often a route was taken in the last minute.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "access/table.h"
#include "td_activity.h"
#include "td_compat.h"
#include "td_error.h"
#include "td_lent.h"
#include "td_match.h"

TdMatcher *
tdpg_matcher_create(MemoryContext context)
{
	TdMatcher *matcher = MemoryContextAllocZero(context, sizeof(TdMatcher));
	TdRouteSet *set = tdpg_route_set_acquire(context);
	size_t n = set->view.n_routes;

	matcher->set = set;
	matcher->embedder = tdpg_embedder_create(context);
	matcher->vector = tdpg_lent(context, sizeof(float) * set->view.dim);
	matcher->scores = tdpg_lent(context, sizeof(float) * n);
	matcher->open = tdpg_lent(context, n);
	matcher->index = tdpg_lent(context, sizeof(uint32) * n);
	matcher->score_scratch_size = td_routes_scratch_size(&set->view);
	matcher->score_scratch = tdpg_lent(context, matcher->score_scratch_size);
	matcher->select_scratch_size = td_routes_select_scratch_size(&set->view);
	matcher->select_scratch = tdpg_lent(context, matcher->select_scratch_size);
	return matcher;
}

/* ---------------------------------------------------------------- inputs */

static size_t
top_k_of(const NullableDatum *input)
{
	int32 k = input->isnull ? TD_MATCH_DEFAULT_TOP_K : DatumGetInt32(input->value);

	if (k < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("top_k must be at least 1"), errdetail("The value is %d.", k),
						errhint("Pass NULL for the default of %d.", TD_MATCH_DEFAULT_TOP_K)));
	return k;
}

/* The time that conditions are judged at. */
static TimestampTz
time_of(const NullableDatum *input)
{
	TimestampTz at = input->isnull ? GetCurrentTransactionStartTimestamp()
								   : DatumGetTimestampTz(input->value);

	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("at must be a finite time"),
						errdetail("The value is %s.", at > 0 ? "infinity" : "-infinity"),
						errhint("Pass NULL for now.")));
	return at;
}

void
tdpg_matcher_check(const NullableDatum *inputs)
{
	(void) top_k_of(&inputs[TD_MATCH_TOP_K]);
	(void) time_of(&inputs[TD_MATCH_AT]);
}

/* Microseconds after midnight in the session's time zone. */
static int64
time_of_day(TimestampTz at)
{
	struct pg_tm tm;
	fsec_t fraction;
	int zone;

	if (timestamp2tm(at, &zone, &tm, &fraction, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	return ((int64) tm.tm_hour * 3600 + tm.tm_min * 60 + tm.tm_sec) * USECS_PER_SEC + fraction;
}

/* From start, included, to end, excluded; a start after the end goes over midnight. */
static bool
in_window(const TdRouteInfo *info, int64 time)
{
	int64 start = Max(info->time_start, 0);
	int64 end = info->time_end < 0 ? USECS_PER_DAY : info->time_end;

	if (start < end)
		return time >= start && time < end;
	return time >= start || time < end;
}

static bool
admits(const TdRouteInfo *info, const char *tier)
{
	int i;

	if (info->n_user_tiers == 0)
		return true;
	for (i = 0; tier != NULL && i < info->n_user_tiers; i++)
	{
		if (strcmp(info->user_tiers[i], tier) == 0)
			return true;
	}
	return false;
}

static void
set_vector(TdMatcher *matcher, const NullableDatum *inputs)
{
	td_embed_info info;
	td_status status;

	if (!inputs[TD_MATCH_EMBEDDING].isnull)
	{
		tdpg_unit_vector(inputs[TD_MATCH_EMBEDDING].value, matcher->set->encoder,
						 matcher->vector);
		return;
	}
	status = tdpg_embed(matcher->embedder, tdpg_active_encoder_view(matcher->set->encoder),
						tdpg_text(inputs[TD_MATCH_QUERY].value), matcher->vector, &info);
	if (status != TD_OK)
		tdpg_error(status);
}

/* ---------------------------------------------------------------- rate limits */

#define N_RATE_PARAMETERS 3

/* Operators are named with their schema: the caller's search_path may hold others. */
static const char rate_query[] =
	"SELECT d.route_name, pg_catalog.count(*) FROM tinydancer.decision d "
	"WHERE d.route_name OPERATOR(pg_catalog.=) ANY ($1) "
	"AND d.decided_at OPERATOR(pg_catalog.>) $2 AND d.decided_at OPERATOR(pg_catalog.<=) $3 "
	"GROUP BY d.route_name";

static SPIPlanPtr rate_plan = NULL;

/* The owner of the log, as whom it is read: the privilege is that on the function. */
static Oid
log_owner(void)
{
	Oid relid = get_relname_relid("decision", get_namespace_oid("tinydancer", false));
	Relation relation = table_open(relid, AccessShareLock);
	Oid owner = relation->rd_rel->relowner;

	table_close(relation, AccessShareLock);
	return owner;
}

/* Close the limited ones of the routes that were taken as often as they may be in the minute. */
static void
close_exhausted(TdMatcher *matcher, const uint32 *limited, int n, TimestampTz from, TimestampTz to)
{
	const TdRouteInfo *infos = matcher->set->infos;
	Oid types[N_RATE_PARAMETERS] = {TEXTARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[N_RATE_PARAMETERS];
	Datum *names = palloc(sizeof(Datum) * n);
	Oid owner = log_owner();
	Oid user;
	int context;
	uint64 row;
	int i;

	for (i = 0; i < n; i++)
		names[i] = CStringGetTextDatum(infos[limited[i]].name);
	values[0] =
		PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT));
	values[1] = TimestampTzGetDatum(from);
	values[2] = TimestampTzGetDatum(to);

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (rate_plan == NULL)
	{
		SPIPlanPtr plan = SPI_prepare(rate_query, N_RATE_PARAMETERS, types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the count of decisions");
		rate_plan = plan;
	}
	if (SPI_execute_plan(rate_plan, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count decisions");
	for (row = 0; row < SPI_processed; row++)
	{
		HeapTuple tuple = SPI_tuptable->vals[row];
		bool isnull;
		char *name = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1);
		int64 count = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull));

		for (i = 0; i < n; i++)
		{
			if (strcmp(infos[limited[i]].name, name) == 0 && count >= infos[limited[i]].rate_limit)
				matcher->open[limited[i]] = 0;
		}
	}
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	/* A limit of 0 closes a route that nobody has taken too. */
	for (i = 0; i < n; i++)
	{
		if (infos[limited[i]].rate_limit == 0)
			matcher->open[limited[i]] = 0;
	}
}

/* ---------------------------------------------------------------- matching */

static size_t
select_best(TdMatcher *matcher, size_t k)
{
	size_t n;
	td_status status =
		td_routes_select(&matcher->set->view, matcher->scores,
						 matcher->set->has_conditions ? matcher->open : NULL, k, matcher->index, &n,
						 matcher->select_scratch, matcher->select_scratch_size);

	if (status != TD_OK)
		tdpg_error(status);
	return n;
}

/* Time windows and tiers. */
static void
open_routes(TdMatcher *matcher, TimestampTz at, const NullableDatum *tier)
{
	const char *name = tier->isnull ? NULL : TextDatumGetCString(tier->value);
	int64 time = -1;
	uint32 i;

	for (i = 0; i < matcher->set->view.n_routes; i++)
	{
		const TdRouteInfo *info = &matcher->set->infos[i];

		matcher->open[i] = admits(info, name);
		if (info->time_start < 0 && info->time_end < 0)
			continue;
		if (time < 0)
			time = time_of_day(at);
		if (!in_window(info, time))
			matcher->open[i] = 0;
	}
}

/*
 * The log is read only when a route that matches has a limit, and then once for all of them; what
 * it closes makes room for others, which may have limits too.
 */
static size_t
select_within_limits(TdMatcher *matcher, size_t k, TimestampTz at, bool is_now)
{
	uint32 n_routes = matcher->set->view.n_routes;
	bool *counted = NULL;
	uint32 *limited = palloc(sizeof(uint32) * Max(n_routes, 1));

	for (;;)
	{
		size_t n = select_best(matcher, k);
		int n_limited = 0;
		size_t i;

		for (i = 0; i < n; i++)
		{
			uint32 route = matcher->index[i];

			if (matcher->set->infos[route].rate_limit < 0 || (counted != NULL && counted[route]))
				continue;
			if (counted == NULL)
				counted = palloc0(sizeof(bool) * n_routes);
			counted[route] = true;
			limited[n_limited++] = route;
		}
		if (n_limited == 0)
			return n;
		/* Others' decisions since this transaction began count as well. */
		close_exhausted(matcher, limited, n_limited, at - USECS_PER_MINUTE,
						is_now ? DT_NOEND : at);
	}
}

size_t
tdpg_matcher_match(TdMatcher *matcher, const NullableDatum *inputs)
{
	TdRouteSet *set = matcher->set;
	size_t k = top_k_of(&inputs[TD_MATCH_TOP_K]);
	TimestampTz at = time_of(&inputs[TD_MATCH_AT]);
	td_status status;

	if (inputs[TD_MATCH_QUERY].isnull && inputs[TD_MATCH_EMBEDDING].isnull)
		return 0;
	set_vector(matcher, inputs);
	status = td_routes_score(&set->view, matcher->vector, matcher->scores, matcher->score_scratch,
							 matcher->score_scratch_size);
	if (status != TD_OK)
		tdpg_error(status);
	tdpg_activity.requests_matched++;
	k = Min(k, set->view.n_routes);
	if (!set->has_conditions)
		return select_best(matcher, k);
	open_routes(matcher, at, &inputs[TD_MATCH_USER_TIER]);
	return select_within_limits(matcher, k, at, inputs[TD_MATCH_AT].isnull);
}

void
tdpg_matcher_outputs(const TdMatcher *matcher, uint32 route, Datum *values, bool *nulls)
{
	const TdRouteInfo *info = &matcher->set->infos[route];
	double similarity = matcher->scores[route];

	memset(nulls, 0, sizeof(bool) * TD_N_MATCH_OUTPUTS);
	values[TD_MATCH_ROUTE_NAME] = CStringGetTextDatum(info->name);
	/* A regression may say a little more than 1. */
	values[TD_MATCH_SIMILARITY] = Float8GetDatum(Max(Min(similarity, 1.0), -1.0));
	nulls[TD_MATCH_TARGET_AGENT] = info->target_agent == NULL;
	values[TD_MATCH_TARGET_AGENT] =
		info->target_agent == NULL ? (Datum) 0 : CStringGetTextDatum(info->target_agent);
	values[TD_MATCH_CONFIDENCE] =
		Float8GetDatum(td_routes_confidence(&matcher->set->view, matcher->scores[route]));
}
