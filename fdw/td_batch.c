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
	batch->per_request = AllocSetContextCreate(CurrentMemoryContext, "tinydancer request of a batch",
											   ALLOCSET_DEFAULT_SIZES);
}

uint32
tdpg_batch_number(TdBatch *batch, int i, bool *is_new)
{
	text *t = DatumGetTextPP(batch->texts[i]);
	TdText key = {VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t)};
	bool found;
	DistinctText *entry = texts_insert(batch->distinct, key, &found);

	if (!found)
		entry->number = batch->n_distinct++;
	*is_new = !found;
	return entry->number;
}

static void
name_element(void *arg)
{
	errcontext("routing element %d of requests", ((TdBatch *) arg)->at + 1);
}

void
tdpg_batch_score(TdBatch *batch, int i)
{
	ErrorContextCallback callback;

	CHECK_FOR_INTERRUPTS();
	batch->at = i;
	callback.callback = name_element;
	callback.arg = batch;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	batch->inputs.values[TD_IN_REQUEST].value = batch->texts[i];
	batch->inputs.values[TD_IN_REQUEST].isnull = false;
	(void) tdpg_router_score(batch->router, &batch->inputs);
	error_context_stack = callback.previous;
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
