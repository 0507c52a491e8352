/*
 * td_batch.c - many requests of one call.
 *
 * In: a text[].  Out: each different text scored once, and the choices of all of them packed for the
 * kernel.  Called by td_sql_batch.c and td_sql_budget.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "td_batch.h"
#include "td_compat.h"
#include "td_error.h"
#include "td_lent.h"

typedef struct DistinctText
{
	TdText text;
	uint32 hash;
	uint32 number;
	char status;
} DistinctText;

#define SH_PREFIX texts
#define SH_ELEMENT_TYPE DistinctText
#define SH_KEY_TYPE TdText
#define SH_KEY text
#define SH_HASH_KEY(table, key) ((uint32) td_hash64((key).data, (key).len, 0))
#define SH_EQUAL(table, a, b) ((a).len == (b).len && memcmp((a).data, (b).data, (a).len) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) (entry)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

void
tdpg_batch_init(TdBatch *batch, TdRouter *router, Datum array, const char *what)
{
	ArrayType *requests = DatumGetArrayTypeP(array);

	if (ARR_NDIM(requests) > 1)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("%s must be a one-dimensional array", what),
						errdetail("The array has %d dimensions.", ARR_NDIM(requests)),
						errhint("Write ARRAY['first request', 'second request'].")));
	batch->router = router;
	deconstruct_array(requests, TEXTOID, -1, false, TYPALIGN_INT, &batch->texts, &batch->nulls,
					  &batch->n);
	batch->distinct = texts_create(CurrentMemoryContext, 64, NULL);
	batch->context = CurrentMemoryContext;
	batch->per_request = AllocSetContextCreate(CurrentMemoryContext, "tinydancer request of a batch",
											   ALLOCSET_DEFAULT_SIZES);
}

/* The number of a text; a new one gets the next. */
static uint32
number_of(TdBatch *batch, int i)
{
	text *t = DatumGetTextPP(batch->texts[i]);
	TdText key = {VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t)};
	bool found;
	DistinctText *entry = texts_insert(batch->distinct, key, &found);

	if (!found)
		entry->number = batch->n_distinct++;
	return entry->number;
}

uint32
tdpg_batch_number(TdBatch *batch, int i, bool *is_new)
{
	uint32 number = number_of(batch, i);

	*is_new = number == batch->n_told;
	if (*is_new)
		batch->n_told++;
	return number;
}

static void
name_element(void *arg)
{
	errcontext("routing element %d of requests", ((TdBatch *) arg)->at + 1);
}

static void
make_ahead(TdBatch *batch)
{
	const td_registry *view = &batch->router->registry->view;
	TdAhead *ahead = &batch->ahead;

	ahead->embeddings = tdpg_lent(batch->context, sizeof(float) * TD_SCORE_TOGETHER * view->dim);
	if (view->n_phrases < TD_SCORE_TOGETHER_FROM)
		return;
	ahead->products =
		tdpg_lent(batch->context, sizeof(float) * TD_SCORE_TOGETHER * view->n_phrases);
	ahead->scratch_size = td_score_products_scratch_size(view);
	ahead->scratch = tdpg_lent(batch->context, ahead->scratch_size);
}

/* Which requests are asked for from i on. */
static void
look_ahead(TdBatch *batch, int i)
{
	TdAhead *ahead = &batch->ahead;

	ahead->at = 0;
	ahead->n = 1;
	ahead->request[0] = i;
	for (ahead->looked = i + 1; ahead->looked < batch->n && ahead->n < TD_SCORE_TOGETHER;
		 ahead->looked++)
	{
		int next = ahead->looked;
		uint32 n_known = batch->n_distinct;

		CHECK_FOR_INTERRUPTS();
		if (batch->nulls[next])
			continue;
		if (batch->n_told == 0 || number_of(batch, next) == n_known)
			ahead->request[ahead->n++] = next;
	}
}

/* Vectors of the requests from i on, and their products with the phrases. */
static void
read_ahead(TdBatch *batch, int i)
{
	TdRouter *router = batch->router;
	const TdRegistry *registry = router->registry;
	TdAhead *ahead = &batch->ahead;
	TdText texts[TD_SCORE_TOGETHER];
	const float *embeddings[TD_SCORE_TOGETHER];
	td_status status[TD_SCORE_TOGETHER];
	int slot;

	look_ahead(batch, i);
	for (slot = 0; slot < ahead->n; slot++)
	{
		batch->at = ahead->request[slot];
		texts[slot] = tdpg_text(batch->texts[batch->at]);
		embeddings[slot] = ahead->embeddings + (Size) slot * registry->view.dim;
	}
	batch->at = i;
	tdpg_embed_many(router->embedder, tdpg_active_encoder_view(registry->encoder), texts, ahead->n,
					ahead->embeddings, ahead->info, status);
	for (slot = 0; slot < ahead->n; slot++)
	{
		batch->at = ahead->request[slot];
		if (status[slot] != TD_OK)
			tdpg_error(status[slot]);
	}
	batch->at = i;
	if (ahead->products == NULL)
		return;
	status[0] = td_score_products(&registry->view, embeddings, ahead->n, ahead->products,
								  ahead->scratch, ahead->scratch_size);
	if (status[0] != TD_OK)
		tdpg_error(status[0]);
}

/* The router gets the limits, if it has none yet, and what was read of request i. */
static void
set_request(TdBatch *batch, int i)
{
	TdRouter *router = batch->router;
	const td_registry *view = &router->registry->view;
	TdAhead *ahead = &batch->ahead;
	TdText text = {NULL, 0};
	int slot;

	if (!batch->has_terms)
	{
		MemoryContext before = MemoryContextSwitchTo(batch->context);

		tdpg_router_set_terms(router, &batch->inputs);
		make_ahead(batch);
		MemoryContextSwitchTo(before);
		batch->has_terms = true;
	}
	if (ahead->at == ahead->n)
		read_ahead(batch, i);
	slot = ahead->at++;
	Assert(ahead->request[slot] == i);
	if (router->model != NULL)
		text = tdpg_text(batch->texts[i]);
	tdpg_router_set_read(router, text, ahead->embeddings + (Size) slot * view->dim,
						 &ahead->info[slot],
						 ahead->products == NULL ? NULL
												 : ahead->products + (Size) slot * view->n_phrases);
}

static void
answer(TdBatch *batch, int i, void (*how) (TdRouter *router))
{
	ErrorContextCallback callback;

	CHECK_FOR_INTERRUPTS();
	batch->at = i;
	callback.callback = name_element;
	callback.arg = batch;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	set_request(batch, i);
	how(batch->router);
	error_context_stack = callback.previous;
}

void
tdpg_batch_score(TdBatch *batch, int i)
{
	answer(batch, i, tdpg_router_score_all);
}

void
tdpg_batch_decide(TdBatch *batch, int i)
{
	answer(batch, i, tdpg_router_decide_one);
}

void *
tdpg_grow(void *array, Size n, Size *room, Size element)
{
	if (n < *room)
		return array;
	*room *= 2;
	return repalloc_huge(array, mul_size(*room, element));
}

void
tdpg_choices_init(TdChoices *choices, uint32 n_agents)
{
	memset(choices, 0, sizeof(*choices));
	choices->room = 64;
	choices->group_room = 64;
	choices->choices = palloc(sizeof(td_choice) * choices->room);
	choices->first = palloc(sizeof(uint32) * (choices->group_room + 1));
	choices->first[0] = 0;
	choices->scratch = palloc(sizeof(td_choice) * Max(n_agents, 1));
}

bool
tdpg_choices_add(TdChoices *choices, const TdRouter *router, bool hull_only, bool needs_cost,
				 td_choice *fallback)
{
	uint32 n_agents = router->registry->view.n_agents;
	uint32 n;
	uint32 i;

	(void) td_choice_frontier(router->candidates, n_agents, hull_only, needs_cost,
							  td_score_best(router->candidates, n_agents, NULL), choices->scratch,
							  &n, fallback);
	if (n == 0)
		return false;
	for (i = 0; i < n; i++)
	{
		choices->choices =
			tdpg_grow(choices->choices, choices->n_choices, &choices->room, sizeof(td_choice));
		choices->choices[choices->n_choices++] = choices->scratch[i];
	}
	/* One more than groups: where the last one ends. */
	choices->first =
		tdpg_grow(choices->first, choices->n_groups + 1, &choices->group_room, sizeof(uint32));
	choices->first[++choices->n_groups] = (uint32) choices->n_choices;
	return true;
}
