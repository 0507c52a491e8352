/*
 * td_route_set.c - each backend's snapshot of the semantic routes.
 *
 * In: the tables route, route_utterance and route_scorer.  Out: the current TdRouteSet, pinned.
 * td_registry.c says when it is stale; td_match.c and the SQL functions call
 * tdpg_route_set_acquire().  It is built when the first statement asks for it.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "td_embedder.h"
#include "td_error.h"
#include "td_guc.h"
#include "td_lent.h"
#include "td_registry.h"
#include "td_registry_read.h"
#include "td_route_read.h"
#include "td_route_set.h"

static TdRouteSet *current = NULL;

/* How often this backend has read the routes: for tests of what makes it do so. */
static uint64 builds = 0;

/* ---------------------------------------------------------------- packing */

/* The vectors of one kind, positive or negative, growing. */
typedef struct Pack
{
	int8_t *rows;
	float *scales;
	uint32 n;
	uint32 room;
} Pack;

/* What the packing of one set needs. */
typedef struct Packer
{
	TdRouteSet *set;
	const td_encoder *encoder; /* NULL: texts without a stored vector are left out */
	TdEmbedder *embedder;
	float *vector; /* [dim] */
	Pack positive;
	Pack negative;
} Packer;

/* Room for one more vector. */
static void
make_room(Packer *packer, Pack *pack)
{
	MemoryContext context = packer->set->context;
	size_t dim = packer->set->view.dim;

	if (pack->n < pack->room)
		return;
	pack->room = Max(pack->room * 2, 16);
	if (pack->rows == NULL)
	{
		pack->rows = MemoryContextAllocHuge(context, pack->room * dim);
		pack->scales = MemoryContextAllocHuge(context, pack->room * sizeof(float));
	}
	else
	{
		pack->rows = repalloc_huge(pack->rows, pack->room * dim);
		pack->scales = repalloc_huge(pack->scales, pack->room * sizeof(float));
	}
}

/* Add the vector of a text; one that holds nothing to encode gets zeros. */
static void
pack_text(Packer *packer, Pack *pack, TdText text)
{
	size_t dim = packer->set->view.dim;
	td_embed_info info;

	if (packer->encoder == NULL)
		return;
	if (tdpg_embed(packer->embedder, packer->encoder, text, packer->vector, &info) != TD_OK)
		memset(packer->vector, 0, sizeof(float) * dim);
	make_room(packer, pack);
	pack->scales[pack->n] = td_vec_quantise(packer->vector, dim, pack->rows + pack->n * dim);
	pack->n++;
}

/* Add the vector of an utterance, the stored one if there is. */
static void
pack_utterance(Packer *packer, Pack *pack, const TdUtteranceRow *utterance)
{
	size_t dim = packer->set->view.dim;

	if (utterance->vector == NULL)
	{
		pack_text(packer, pack, utterance->text);
		return;
	}
	make_room(packer, pack);
	memcpy(pack->rows + pack->n * dim, utterance->vector, dim);
	pack->scales[pack->n] = utterance->scale;
	pack->n++;
}

/* Rows that start where a cache line does are read faster, and growing left room over. */
static void
settle_pack(Packer *packer, Pack *pack)
{
	size_t size = pack->n * packer->set->view.dim;
	int8_t *rows;

	if (pack->rows == NULL)
		return;
	rows = tdpg_lent(packer->set->context, size);
	memcpy(rows, pack->rows, size);
	pfree(pack->rows);
	pack->rows = rows;
}

static bool
is_blank(TdText text)
{
	size_t i;

	for (i = 0; i < text.len; i++)
	{
		if (text.data[i] != ' ')
			return false;
	}
	return true;
}

/*
 * The utterances of one route: the vector that a caller passed alone, else the texts, else the
 * description, so that an UPDATE of it is never answered with the vector of the old one.
 */
static void
pack_utterances(Packer *packer, const TdRouteRow *row, const TdUtteranceRow *utterances, int n)
{
	uint32 before = packer->positive.n;
	int i;

	for (i = 0; i < n; i++)
	{
		if (!utterances[i].negative && is_blank(utterances[i].text) && utterances[i].vector != NULL)
		{
			pack_utterance(packer, &packer->positive, &utterances[i]);
			break;
		}
	}
	if (packer->positive.n == before)
	{
		for (i = 0; i < n; i++)
		{
			if (!utterances[i].negative && !is_blank(utterances[i].text))
				pack_utterance(packer, &packer->positive, &utterances[i]);
		}
	}
	if (packer->positive.n == before && row->description.data != NULL && !is_blank(row->description))
		pack_text(packer, &packer->positive, row->description);
	for (i = 0; i < n; i++)
	{
		if (utterances[i].negative)
			pack_utterance(packer, &packer->negative, &utterances[i]);
	}
}

static void
keep_info(MemoryContext context, const TdRouteInfo *from, TdRouteInfo *to)
{
	int i;

	*to = *from;
	to->name = MemoryContextStrdup(context, from->name);
	if (from->target_agent != NULL)
		to->target_agent = MemoryContextStrdup(context, from->target_agent);
	if (from->n_user_tiers > 0)
		to->user_tiers = MemoryContextAlloc(context, sizeof(char *) * from->n_user_tiers);
	for (i = 0; i < from->n_user_tiers; i++)
		to->user_tiers[i] = MemoryContextStrdup(context, from->user_tiers[i]);
}

/* The weights of the regression: stored ones if they are of these utterances, else made here. */
static void
set_weights(TdRouteSet *set, const TdScorerRow *scorer)
{
	td_routes *view = &set->view;
	size_t size = (size_t) view->n_routes * td_ridge_landmarks(view) * sizeof(float);
	float *weights = tdpg_lent(set->context, size);
	void *state;
	size_t state_size;
	uint32 more = 1;
	td_status status;

	view->weights = weights;
	if (size == 0)
		return;
	if (scorer->weights_size == size && scorer->fingerprint == td_routes_fingerprint(view))
	{
		memcpy(weights, scorer->weights, size);
		return;
	}
	state_size = td_ridge_size(view);
	state = tdpg_lent(CurrentMemoryContext, state_size);
	status = td_ridge_begin(view, state, state_size);
	while (status == TD_OK && more)
	{
		CHECK_FOR_INTERRUPTS();
		status = td_ridge_step(state, &more);
	}
	if (status != TD_OK)
		tdpg_error(status);
	memcpy(weights, td_ridge_weights(state), size);
}

static void
set_scorer(TdRouteSet *set, Snapshot snapshot)
{
	td_routes *view = &set->view;
	TdScorerRow scorer;

	view->scorer = TD_SCORER_NEAREST;
	view->mu = set->encoder->fit_mu;
	view->s = set->encoder->fit_s;
	if (!tdpg_read_scorer(snapshot, set->encoder->id, &scorer))
		return;
	view->scorer = scorer.scorer;
	view->mu = scorer.mu;
	view->s = scorer.s;
	if (view->scorer == TD_SCORER_CENTROID)
	{
		size_t scratch_size = td_routes_centroids_scratch_size(view);
		int8_t *rows = tdpg_lent(set->context, (size_t) view->n_routes * view->dim);
		float *scales = tdpg_lent(set->context, view->n_routes * sizeof(float));
		td_status status =
			td_routes_centroids(view, rows, scales, tdpg_lent(CurrentMemoryContext, scratch_size),
								scratch_size);

		if (status != TD_OK)
			tdpg_error(status);
		view->centroid_rows = rows;
		view->centroid_scales = scales;
	}
	else if (view->scorer == TD_SCORER_RIDGE)
		set_weights(set, &scorer);
}

static void
pack_routes(TdRouteSet *set, const TdRouteRow *rows, int n_routes, const TdUtteranceRow *utterances,
			const uint32 *first)
{
	td_route *routes = MemoryContextAllocHuge(set->context, sizeof(td_route) * Max(n_routes, 1));
	Packer packer;
	int i;

	memset(&packer, 0, sizeof(packer));
	packer.set = set;
	packer.encoder = set->encoder->file != NULL ? tdpg_encoder_view(set->encoder->file) : NULL;
	packer.embedder = tdpg_embedder_create(CurrentMemoryContext);
	packer.vector = palloc(sizeof(float) * set->view.dim);
	set->infos = MemoryContextAllocHuge(set->context, sizeof(TdRouteInfo) * Max(n_routes, 1));
	for (i = 0; i < n_routes; i++)
	{
		routes[i].first_row = packer.positive.n;
		routes[i].first_negative = packer.negative.n;
		pack_utterances(&packer, &rows[i], utterances + first[i], first[i + 1] - first[i]);
		routes[i].n_rows = packer.positive.n - routes[i].first_row;
		routes[i].n_negatives = packer.negative.n - routes[i].first_negative;
		routes[i].priority = rows[i].priority;
		routes[i].threshold = rows[i].threshold;
		keep_info(set->context, &rows[i].info, &set->infos[i]);
		if (rows[i].info.time_start >= 0 || rows[i].info.time_end >= 0 ||
			rows[i].info.n_user_tiers > 0 || rows[i].info.rate_limit >= 0)
			set->has_conditions = true;
	}
	set->view.n_routes = n_routes;
	set->view.routes = routes;
	settle_pack(&packer, &packer.positive);
	settle_pack(&packer, &packer.negative);
	set->view.n_rows = packer.positive.n;
	set->view.rows = packer.positive.rows;
	set->view.scales = packer.positive.scales;
	set->view.n_negatives = packer.negative.n;
	set->view.negative_rows = packer.negative.rows;
	set->view.negative_scales = packer.negative.scales;
}

/* The result's context is a child of the current one: an error on the way frees everything. */
static TdRouteSet *
build(Snapshot snapshot)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "tinydancer routes", ALLOCSET_SMALL_SIZES);
	MemoryContext work =
		AllocSetContextCreate(CurrentMemoryContext, "tinydancer routes build",
							  ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(work);
	TdRouteSet *set = MemoryContextAllocZero(context, sizeof(TdRouteSet));
	TdSettings settings;
	TdRouteRow *rows;
	TdUtteranceRow *utterances;
	uint32 *first;
	int n_routes;

	set->context = context;
	tdpg_read_settings(snapshot, &settings);
	set->encoder = tdpg_active_encoder_open(&settings, context);
	set->view.dim = set->encoder->dim;
	rows = tdpg_read_routes(snapshot, &n_routes);
	utterances = tdpg_read_utterances(snapshot, rows, n_routes, set->encoder->id,
									  (int) set->view.dim, &first);
	pack_routes(set, rows, n_routes, utterances, first);
	set_scorer(set, snapshot);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(work);
	return set;
}

/* ---------------------------------------------------------------- validity */

static void
unpin(void *arg)
{
	TdRouteSet *set = arg;

	set->pins--;
	if (set->pins == 0 && set != current)
		MemoryContextDelete(set->context);
}

static void
rebuild(void)
{
	static TimestampTz last = 0;
	uint64 read_at = tdpg_route_generation();
	TdRouteSet *old = current;
	TdRouteSet *new;
	Snapshot snapshot = RegisterSnapshot(tdpg_route_snapshot());

	new = build(snapshot);
	UnregisterSnapshot(snapshot);
	new->generation = read_at;
	MemoryContextSetParent(new->context, CacheMemoryContext);
	current = new;
	builds++;
	if (old != NULL && old->pins == 0)
		MemoryContextDelete(old->context);
	tdpg_give_back(new->context, &last);
}

TdRouteSet *
tdpg_route_set_acquire(MemoryContext owner)
{
	MemoryContextCallback *callback = MemoryContextAlloc(owner, sizeof(MemoryContextCallback));

	AcceptInvalidationMessages();
	if (current == NULL || current->generation != tdpg_route_generation() ||
		!tdpg_encoder_is_current(current->encoder->file, current->encoder->id))
		rebuild();
	callback->func = unpin;
	callback->arg = current;
	current->pins++;
	MemoryContextRegisterResetCallback(owner, callback);
	current->view.level = tdpg_kernel_level();
	return current;
}

PG_FUNCTION_INFO_V1(tinydancer_route_builds);

Datum
tinydancer_route_builds(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) builds);
}
