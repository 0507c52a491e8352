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
#include "utils/date.h"
#include "utils/memutils.h"

#include "td_route_read.h"
#include "td_table_scan.h"

static int
route_compare(const void *a, const void *b)
{
	return strcmp(((const TdRouteRow *) a)->info.name, ((const TdRouteRow *) b)->info.name);
}

static int64
get_time(TableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? -1 : (int64) DatumGetTimeADT(value);
}

/* No element is NULL: a check of the table. */
static char **
get_names(TableScan *t, AttrNumber number, int *n)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);
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
	TableScan t;
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

	scan_begin(&t, "route", snapshot);
	name = column(&t, "name");
	description = column(&t, "description");
	target_agent = column(&t, "target_agent");
	priority = column(&t, "priority");
	threshold = column(&t, "threshold");
	time_start = column(&t, "time_start");
	time_end = column(&t, "time_end");
	user_tiers = column(&t, "user_tiers");
	rate_limit = column(&t, "rate_limit_per_minute");
	active = column(&t, "active");
	while (scan_next(&t))
	{
		TdRouteRow *row;
		bool isnull;
		Datum value;

		if (!get_bool(&t, active))
			continue;
		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(TdRouteRow) * room);
		}
		row = &rows[n++];
		memset(row, 0, sizeof(*row));
		row->info.name = get_cstring(&t, name);
		row->info.target_agent = get_cstring(&t, target_agent);
		row->info.time_start = get_time(&t, time_start);
		row->info.time_end = get_time(&t, time_end);
		row->info.user_tiers = get_names(&t, user_tiers, &row->info.n_user_tiers);
		value = slot_getattr(t.slot, rate_limit, &isnull);
		row->info.rate_limit = isnull ? -1 : DatumGetInt32(value);
		row->description = get_text(&t, description);
		row->priority = DatumGetInt32(slot_getattr(t.slot, priority, &isnull));
		row->threshold = (float) get_double(&t, threshold, -INFINITY);
	}
	scan_end(&t);
	qsort(rows, n, sizeof(TdRouteRow), route_compare);
	*n_routes = n;
	return rows;
}

static int
utterance_compare(const void *a, const void *b)
{
	const TdUtteranceRow *x = a;
	const TdUtteranceRow *y = b;

	if (x->route != y->route)
		return x->route < y->route ? -1 : 1;
	if (x->negative != y->negative)
		return x->negative ? 1 : -1;
	return x->position < y->position ? -1 : x->position > y->position ? 1 : 0;
}

TdUtteranceRow *
tdpg_read_utterances(Snapshot snapshot, const TdRouteRow *routes, int n_routes,
					 const char *encoder_id, int dim, int *n_utterances)
{
	TableScan t;
	AttrNumber route_name;
	AttrNumber position;
	AttrNumber utterance;
	AttrNumber embedding;
	AttrNumber encoder;
	AttrNumber negative;
	int room = 64;
	TdUtteranceRow *rows = palloc(sizeof(TdUtteranceRow) * room);
	int n = 0;

	scan_begin(&t, "route_utterance", snapshot);
	route_name = column(&t, "route_name");
	position = column(&t, "position");
	utterance = column(&t, "utterance");
	embedding = column(&t, "embedding");
	encoder = column(&t, "encoder");
	negative = column(&t, "negative");
	while (scan_next(&t))
	{
		TdUtteranceRow *row;
		TdRouteRow key;
		const TdRouteRow *route;
		char *made_by = get_cstring(&t, encoder);
		bool isnull;
		Datum value;

		key.info.name = get_cstring(&t, route_name);
		route = bsearch(&key, routes, n_routes, sizeof(TdRouteRow), route_compare);
		if (route == NULL)
			continue;
		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(TdUtteranceRow) * room);
		}
		row = &rows[n++];
		row->route = (int) (route - routes);
		row->position = DatumGetInt32(slot_getattr(t.slot, position, &isnull));
		row->negative = get_bool(&t, negative);
		row->text = get_text(&t, utterance);
		row->vector = NULL;
		value = slot_getattr(t.slot, embedding, &isnull);
		if (!isnull && made_by != NULL && strcmp(made_by, encoder_id) == 0)
		{
			int found;
			const float *values = tdpg_vector(value, &found);

			/* A vector that does not fit is as good as none: the text is embedded again. */
			if (found == dim)
			{
				float *copy = palloc(sizeof(float) * dim);

				memcpy(copy, values, sizeof(float) * dim);
				if (td_vec_normalise(copy, dim) == TD_OK)
					row->vector = copy;
			}
		}
	}
	scan_end(&t);
	qsort(rows, n, sizeof(TdUtteranceRow), utterance_compare);
	*n_utterances = n;
	return rows;
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
	TableScan t;
	AttrNumber encoder;
	AttrNumber scorer;
	AttrNumber mu;
	AttrNumber s;
	AttrNumber fingerprint;
	AttrNumber weights;
	bool found = false;

	scan_begin(&t, "route_scorer", snapshot);
	encoder = column(&t, "encoder");
	scorer = column(&t, "scorer");
	mu = column(&t, "confidence_mu");
	s = column(&t, "confidence_s");
	fingerprint = column(&t, "fingerprint");
	weights = column(&t, "weights");
	while (!found && scan_next(&t))
	{
		bool isnull;
		Datum value;

		if (strcmp(get_cstring(&t, encoder), encoder_id) != 0)
			continue;
		found = true;
		row->scorer = scorer_number(get_cstring(&t, scorer));
		row->mu = get_double(&t, mu, 0.0);
		row->s = get_double(&t, s, 1.0);
		row->fingerprint = strtoull(get_cstring(&t, fingerprint), NULL, 16);
		row->weights = NULL;
		row->weights_size = 0;
		value = slot_getattr(t.slot, weights, &isnull);
		if (!isnull)
		{
			bytea *bytes = DatumGetByteaPCopy(value);

			row->weights = VARDATA(bytes);
			row->weights_size = VARSIZE(bytes) - VARHDRSZ;
		}
	}
	scan_end(&t);
	return found;
}
