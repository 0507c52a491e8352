/*
 * td_route_read.c - the tables of semantic routes become rows in C.
 *
 * In: an MVCC snapshot.  Out: arrays of structs, in the current memory context.  Called by
 * td_route_set.c, which packs them for the kernel.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"

#include "td_names.h"
#include "td_route_read.h"
#include "td_table_scan.h"

/* The rows by name in byte order, moved once. */
static TdRouteRow *
sort_routes(TdRouteRow *rows, int n)
{
	TdRouteRow *sorted = palloc_extended(sizeof(TdRouteRow) * Max(n, 1), MCXT_ALLOC_HUGE);
	const char **names = palloc_extended(sizeof(char *) * Max(n, 1), MCXT_ALLOC_HUGE);
	uint32 *order;
	int i;

	for (i = 0; i < n; i++)
		names[i] = rows[i].info.name;
	order = tdpg_names_order(names, n);
	for (i = 0; i < n; i++)
		sorted[i] = rows[order[i]];
	pfree(order);
	pfree(names);
	pfree(rows);
	return sorted;
}

static int64
get_time(TdTableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = tdpg_scan_datum(t, number, &isnull);

	return isnull ? -1 : (int64) DatumGetTimeADT(value);
}

/* No element is NULL: a check of the table. */
static char **
get_names(TdTableScan *t, AttrNumber number, int *n)
{
	bool isnull;
	Datum value = tdpg_scan_datum(t, number, &isnull);
	Datum *elements;
	bool *nulls;
	char **names;
	int i;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, n);
	names = palloc(sizeof(char *) * Max(*n, 1));
	for (i = 0; i < *n; i++)
		names[i] = TextDatumGetCString(elements[i]);
	return names;
}

TdRouteRow *
tdpg_read_routes(Snapshot snapshot, int *n_routes)
{
	TdTableScan t;
	AttrNumber name;
	AttrNumber description;
	AttrNumber target_agent;
	AttrNumber priority;
	AttrNumber threshold;
	AttrNumber time_start;
	AttrNumber time_end;
	AttrNumber user_tiers;
	AttrNumber rate_limit;
	AttrNumber active;
	int room = 16;
	TdRouteRow *rows = palloc(sizeof(TdRouteRow) * room);
	int n = 0;

	tdpg_scan_begin(&t, "route", snapshot);
	name = tdpg_scan_column(&t, "name");
	description = tdpg_scan_column(&t, "description");
	target_agent = tdpg_scan_column(&t, "target_agent");
	priority = tdpg_scan_column(&t, "priority");
	threshold = tdpg_scan_column(&t, "threshold");
	time_start = tdpg_scan_column(&t, "time_start");
	time_end = tdpg_scan_column(&t, "time_end");
	user_tiers = tdpg_scan_column(&t, "user_tiers");
	rate_limit = tdpg_scan_column(&t, "rate_limit_per_minute");
	active = tdpg_scan_column(&t, "active");
	while (tdpg_scan_next(&t))
	{
		TdRouteRow *row;

		if (!tdpg_scan_bool(&t, active))
			continue;
		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(TdRouteRow) * room);
		}
		row = &rows[n++];
		memset(row, 0, sizeof(*row));
		row->info.name = tdpg_scan_cstring(&t, name);
		row->info.target_agent = tdpg_scan_cstring(&t, target_agent);
		row->info.time_start = get_time(&t, time_start);
		row->info.time_end = get_time(&t, time_end);
		row->info.user_tiers = get_names(&t, user_tiers, &row->info.n_user_tiers);
		row->info.rate_limit = tdpg_scan_int(&t, rate_limit, -1);
		row->description = tdpg_scan_text(&t, description);
		row->priority = tdpg_scan_int(&t, priority, 0);
		row->threshold = (float) tdpg_scan_double(&t, threshold, -INFINITY);
	}
	tdpg_scan_end(&t);
	*n_routes = n;
	return sort_routes(rows, n);
}

static int
utterance_compare(const void *a, const void *b)
{
	const TdUtteranceRow *x = a;
	const TdUtteranceRow *y = b;

	if (x->negative != y->negative)
		return x->negative ? 1 : -1;
	return x->position < y->position ? -1 : x->position > y->position ? 1 : 0;
}

/* The rows in the order route, positive before negative, position. */
static TdUtteranceRow *
sort_utterances(TdUtteranceRow *rows, const uint32 *owners, uint32 n, uint32 n_routes,
				uint32 **first)
{
	TdUtteranceRow *sorted = palloc_extended(sizeof(TdUtteranceRow) * Max(n, 1), MCXT_ALLOC_HUGE);
	uint32 *order = tdpg_group_rows(owners, n, n_routes, first);
	uint32 i;

	for (i = 0; i < n; i++)
		sorted[i] = rows[order[i]];
	for (i = 0; i < n_routes; i++)
		qsort(sorted + (*first)[i], (*first)[i + 1] - (*first)[i], sizeof(TdUtteranceRow),
			  utterance_compare);
	pfree(order);
	pfree(rows);
	return sorted;
}

TdUtteranceRow *
tdpg_read_utterances(Snapshot snapshot, const TdRouteRow *routes, int n_routes,
					 const char *encoder_id, int dim, uint32 **first)
{
	const char **names = palloc_extended(sizeof(char *) * Max(n_routes, 1), MCXT_ALLOC_HUGE);
	uint32 room = 64;
	TdUtteranceRow *rows = palloc(sizeof(TdUtteranceRow) * room);
	uint32 *owners = palloc(sizeof(uint32) * room);
	uint32 n = 0;
	TdNames *index;
	TdTableScan t;
	AttrNumber route_name;
	AttrNumber position;
	AttrNumber utterance;
	AttrNumber embedding;
	AttrNumber encoder;
	AttrNumber negative;
	int i;

	for (i = 0; i < n_routes; i++)
		names[i] = routes[i].info.name;
	index = tdpg_names_create(names, n_routes);
	tdpg_scan_begin(&t, "route_utterance", snapshot);
	route_name = tdpg_scan_column(&t, "route_name");
	position = tdpg_scan_column(&t, "position");
	utterance = tdpg_scan_column(&t, "utterance");
	embedding = tdpg_scan_column(&t, "embedding");
	encoder = tdpg_scan_column(&t, "encoder");
	negative = tdpg_scan_column(&t, "negative");
	while (tdpg_scan_next(&t))
	{
		uint32 route = tdpg_names_find(index, tdpg_scan_bytes(&t, route_name));
		TdUtteranceRow *row;

		if (route == TD_NONE)
			continue;
		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(TdUtteranceRow) * room);
			owners = repalloc_huge(owners, sizeof(uint32) * room);
		}
		owners[n] = route;
		row = &rows[n++];
		row->position = tdpg_scan_int(&t, position, 0);
		row->negative = tdpg_scan_bool(&t, negative);
		row->text = tdpg_scan_text(&t, utterance);
		/* Without a vector that fits, the text is embedded again. */
		row->vector = tdpg_scan_is(&t, encoder, encoder_id)
						  ? tdpg_scan_quantised(&t, embedding, dim, &row->scale)
						  : NULL;
	}
	tdpg_scan_end(&t);
	pfree(names);
	return sort_utterances(rows, owners, n, n_routes, first);
}

static uint32
scorer_number(const char *name)
{
	uint32 i;

	for (i = 0; i < TD_N_SCORERS; i++)
	{
		if (strcmp(td_scorer_name(i), name) == 0)
			return i;
	}
	return TD_SCORER_NEAREST;
}

bool
tdpg_read_scorer(Snapshot snapshot, const char *encoder_id, TdScorerRow *row)
{
	TdTableScan t;
	AttrNumber encoder;
	AttrNumber scorer;
	AttrNumber mu;
	AttrNumber s;
	AttrNumber fingerprint;
	AttrNumber weights;
	bool found = false;

	tdpg_scan_begin(&t, "route_scorer", snapshot);
	encoder = tdpg_scan_column(&t, "encoder");
	scorer = tdpg_scan_column(&t, "scorer");
	mu = tdpg_scan_column(&t, "confidence_mu");
	s = tdpg_scan_column(&t, "confidence_s");
	fingerprint = tdpg_scan_column(&t, "fingerprint");
	weights = tdpg_scan_column(&t, "weights");
	while (!found && tdpg_scan_next(&t))
	{
		bool isnull;
		Datum value;

		if (!tdpg_scan_is(&t, encoder, encoder_id))
			continue;
		found = true;
		row->scorer = scorer_number(tdpg_scan_cstring(&t, scorer));
		row->mu = tdpg_scan_double(&t, mu, 0.0);
		row->s = tdpg_scan_double(&t, s, 1.0);
		row->fingerprint = strtoull(tdpg_scan_cstring(&t, fingerprint), NULL, 16);
		row->weights = NULL;
		row->weights_size = 0;
		value = tdpg_scan_datum(&t, weights, &isnull);
		if (!isnull)
		{
			bytea *bytes = DatumGetByteaPCopy(value);

			row->weights = VARDATA(bytes);
			row->weights_size = VARSIZE(bytes) - VARHDRSZ;
		}
	}
	tdpg_scan_end(&t);
	return found;
}
