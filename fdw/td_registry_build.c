/*
 * td_registry_build.c - the rows of the registry become one packed snapshot.
 *
 * In: an MVCC snapshot.  Out: a TdRegistry in a memory context of its own.  Called by
 * td_registry.c when the old one is stale; td_registry_read.c reads the tables.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "td_compat.h"
#include "td_embedder.h"
#include "td_lent.h"
#include "td_names.h"
#include "td_registry_build.h"
#include "td_registry_read.h"

/* A text that gets a vector: from the table if it has one for this encoder, else made here. */
typedef struct PhraseRow
{
	TdText text;
	const int8_t *vector; /* quantised; NULL: not stored for the active encoder */
	float scale;
} PhraseRow;

int
tdpg_text_compare(const void *a, const void *b)
{
	const TdText *x = a;
	const TdText *y = b;
	int order = memcmp(x->data, y->data, Min(x->len, y->len));

	if (order != 0)
		return order;
	return x->len < y->len ? -1 : x->len > y->len ? 1 : 0;
}

/* The phrases that count, growing in a work list. */
typedef struct PhraseList
{
	PhraseRow *rows;
	int n;
	int room;
	Size size;		/* of the texts, each with a NUL */
	bool can_embed; /* texts without a stored vector get one here */
} PhraseList;

/* Add a text with the vector of a stored phrase, which may be NULL or have none. */
static void
add_phrase(PhraseList *list, TdText text, const TdPhraseRow *stored)
{
	PhraseRow *row;

	if ((stored == NULL || stored->vector == NULL) && !list->can_embed)
		return;
	if (list->n == list->room)
	{
		list->room *= 2;
		list->rows = repalloc_huge(list->rows, sizeof(PhraseRow) * list->room);
	}
	row = &list->rows[list->n++];
	row->text = text;
	row->vector = stored != NULL ? stored->vector : NULL;
	row->scale = row->vector != NULL ? stored->scale : 0.0f;
	list->size += text.len + 1;
}

/* The stored phrase with a text of the agent, or NULL. */
static const TdPhraseRow *
stored_phrase(const TdPhraseRow *const *stored, int n, TdPhraseKind kind, TdText text)
{
	int i;

	for (i = 0; i < n; i++)
	{
		if (stored[i]->kind == kind && tdpg_text_compare(&stored[i]->text, &text) == 0)
			return stored[i];
	}
	return NULL;
}

/*
 * A vector that stands alone: as the caller passed it, or with a phrase, which is the description that
 * it was made from when the encoder was switched.
 */
static void
add_callers_phrase(const TdAgentRow *agent, const TdPhraseRow *row, PhraseList *list)
{
	static const char label[] = "the caller's vector";
	TdText text = row->text;

	if (text.len == 0 || !list->can_embed)
	{
		text.data = text.len > 0 ? text.data : label;
		text.len = text.len > 0 ? text.len : strlen(label);
		add_phrase(list, text, row);
	}
	else if (agent->description.len == 0 || tdpg_text_compare(&agent->description, &text) == 0)
		add_phrase(list, text, row);
	else
		add_phrase(list, agent->description, NULL);
}

/*
 * The phrases of one agent.  The agent's own columns say which texts count, so an UPDATE of
 * tinydancer.agent is never answered with vectors of the old text; the table only saves embedding.
 */
static void
collect_phrases(const TdAgentRow *agent, const TdPhraseRow *const *stored, int n_stored,
				PhraseList *list)
{
	int i;

	for (i = 0; i < n_stored; i++)
	{
		const TdPhraseRow *row = stored[i];

		if (row->kind == TD_KIND_CALLER && (row->vector != NULL || row->text.len > 0))
		{
			add_callers_phrase(agent, row, list);
			return;
		}
	}
	for (i = 0; i < agent->n_capabilities; i++)
		add_phrase(list, tdpg_words_of(agent->capabilities[i]),
				   stored_phrase(stored, n_stored, TD_KIND_CAPABILITY, agent->capabilities[i]));
	if (agent->description.data != NULL && agent->description.len > 0)
		add_phrase(list, agent->description,
				   stored_phrase(stored, n_stored, TD_KIND_DESCRIPTION, agent->description));
	for (i = 0; i < n_stored; i++)
	{
		if (stored[i]->kind == TD_KIND_EXAMPLE)
			add_phrase(list, stored[i]->text, stored[i]);
	}
}

/* A copy of a text, NUL-terminated, in the block at *at, which it moves behind the copy. */
static TdText
keep_text(char **at, TdText text)
{
	char *copy = *at;
	TdText out = {copy, text.len};

	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	*at += text.len + 1;
	return out;
}

static char *
keep_string(char **at, const char *string)
{
	TdText text = {string, strlen(string)};

	return unconstify(char *, keep_text(at, text).data);
}

/* Embed the phrases at places[n] and quantise the vectors. */
static void
pack_texts(const PhraseList *list, const int *places, int n, TdEmbedder *embedder,
		   const td_encoder *encoder, float *vectors, int8_t *rows, float *scales)
{
	TdText texts[TD_EMBED_MAX_TEXTS];
	td_status status[TD_EMBED_MAX_TEXTS];
	size_t dim = encoder->dim;
	int i;

	for (i = 0; i < n; i++)
		texts[i] = list->rows[places[i]].text;
	/* A text that cannot be embedded keeps a vector of zeros. */
	tdpg_embed_many(embedder, encoder, texts, n, vectors, NULL, status);
	for (i = 0; i < n; i++)
		scales[places[i]] = td_vec_quantise(vectors + i * dim, dim, rows + places[i] * dim);
}

/* The vectors of the phrases, quantised. */
static void
pack_phrases(TdRegistry *registry, const PhraseList *list, const td_encoder *encoder)
{
	size_t dim = registry->view.dim;
	int8_t *rows = tdpg_lent(registry->context, list->n * dim);
	float *scales = MemoryContextAllocHuge(registry->context, sizeof(float) * Max(list->n, 1));
	float *vectors = palloc(sizeof(float) * dim * TD_EMBED_MAX_TEXTS);
	TdEmbedder *embedder = tdpg_embedder_create(CurrentMemoryContext);
	int missing[TD_EMBED_MAX_TEXTS];
	int n_missing = 0;
	/* A block for all texts: a chunk for each would be larger. */
	char *texts = MemoryContextAllocHuge(registry->context, list->size + 1);
	int i;

	registry->phrases = MemoryContextAllocHuge(registry->context, sizeof(TdText) * Max(list->n, 1));
	for (i = 0; i < list->n; i++)
	{
		const PhraseRow *phrase = &list->rows[i];

		registry->phrases[i] = keep_text(&texts, phrase->text);
		if (phrase->vector != NULL)
		{
			memcpy(rows + i * dim, phrase->vector, dim);
			scales[i] = phrase->scale;
		}
		else
			missing[n_missing++] = i;
		if (n_missing == TD_EMBED_MAX_TEXTS || (n_missing > 0 && i == list->n - 1))
		{
			pack_texts(list, missing, n_missing, embedder, encoder, vectors, rows, scales);
			n_missing = 0;
		}
	}
	registry->view.n_phrases = list->n;
	registry->view.phrase_rows = rows;
	registry->view.phrase_scales = scales;
}

static int
u32_compare(const void *a, const void *b)
{
	uint32 x = *(const uint32 *) a;
	uint32 y = *(const uint32 *) b;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* An agent's phrases begin with its capabilities, unless a vector stands for them. */
static void
note_phrase(TdRegistry *registry, const TdAgentRow *agent, int position, uint32 id)
{
	TdText words = tdpg_words_of(agent->capabilities[position]);
	uint32 phrase = agent->figures.first_phrase + (uint32) position;

	if (registry->capability_phrases[id] == TD_NONE &&
		(uint32) position < agent->figures.n_phrases &&
		tdpg_text_compare(&registry->phrases[phrase], &words) == 0)
		registry->capability_phrases[id] = phrase;
}

/* Capabilities become ids of one sorted dictionary. */
static void
pack_capabilities(TdRegistry *registry, TdAgentRow *const *agents, int n_agents)
{
	int total = 0;
	int n = 0;
	Size size = 0;
	int i;
	int j;
	char *texts;
	TdText *all;
	uint32 *ids;
	uint32 at = 0;

	for (i = 0; i < n_agents; i++)
		total += agents[i]->n_capabilities;
	all = palloc_extended(sizeof(TdText) * Max(total, 1), MCXT_ALLOC_HUGE);
	for (i = 0; i < n_agents; i++)
	{
		for (j = 0; j < agents[i]->n_capabilities; j++)
			all[n++] = tdpg_fold(agents[i]->capabilities[j]);
	}
	qsort(all, n, sizeof(TdText), tdpg_text_compare);
	n = 0;
	for (i = 0; i < total; i++)
	{
		if (n > 0 && tdpg_text_compare(&all[i], &all[n - 1]) == 0)
			continue;
		all[n++] = all[i];
		size += all[i].len + 1;
	}
	registry->n_capabilities = n;
	registry->capabilities = MemoryContextAllocHuge(registry->context, sizeof(TdText) * Max(n, 1));
	texts = MemoryContextAllocHuge(registry->context, size + 1);
	for (i = 0; i < n; i++)
		registry->capabilities[i] = keep_text(&texts, all[i]);

	ids = MemoryContextAllocHuge(registry->context, sizeof(uint32) * Max(total, 1));
	registry->capability_phrases =
		MemoryContextAllocHuge(registry->context, sizeof(uint32) * Max(n, 1));
	for (i = 0; i < n; i++)
		registry->capability_phrases[i] = TD_NONE;
	for (i = 0; i < n_agents; i++)
	{
		TdAgentRow *agent = agents[i];

		agent->figures.first_capability = at;
		agent->figures.n_capabilities = agent->n_capabilities;
		for (j = 0; j < agent->n_capabilities; j++)
		{
			ids[at + j] = tdpg_registry_capability(registry, tdpg_fold(agent->capabilities[j]));
			note_phrase(registry, agent, j, ids[at + j]);
		}
		qsort(ids + at, agent->n_capabilities, sizeof(uint32), u32_compare);
		at += agent->n_capabilities;
	}
	registry->view.capabilities = ids;
}

static int
string_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Names, figures and pools. */
static void
pack_agents(TdRegistry *registry, TdAgentRow *const *agents, int n_agents)
{
	MemoryContext context = registry->context;
	td_agent *figures = MemoryContextAllocHuge(context, sizeof(td_agent) * Max(n_agents, 1));
	char **pools = palloc_extended(sizeof(char *) * Max(n_agents, 1), MCXT_ALLOC_HUGE);
	Size size = 0;
	char *strings;
	TdNames *index;
	int n = 0;
	int i;

	registry->agent_names = MemoryContextAllocHuge(context, sizeof(char *) * Max(n_agents, 1));
	for (i = 0; i < n_agents; i++)
	{
		size += strlen(agents[i]->name) + 1;
		if (agents[i]->pool != NULL)
			pools[n++] = agents[i]->pool;
	}
	qsort(pools, n, sizeof(char *), string_compare);
	registry->pools = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		if (i == 0 || strcmp(pools[i], pools[i - 1]) != 0)
			registry->pools[registry->n_pools++] = MemoryContextStrdup(context, pools[i]);
	}
	index = tdpg_names_create((const char *const *) registry->pools, registry->n_pools);
	strings = MemoryContextAllocHuge(context, size + 1);
	for (i = 0; i < n_agents; i++)
	{
		TdText pool = {agents[i]->pool, agents[i]->pool != NULL ? strlen(agents[i]->pool) : 0};

		figures[i] = agents[i]->figures;
		figures[i].pool = pool.data != NULL ? tdpg_names_find(index, pool) : TD_NONE;
		registry->agent_names[i] = keep_string(&strings, agents[i]->name);
	}
	registry->view.n_agents = n_agents;
	registry->view.agents = figures;
}

TdRegistry *
tdpg_registry_build(Snapshot snapshot, Oid *epoch)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "tinydancer registry", ALLOCSET_SMALL_SIZES);
	MemoryContext work =
		AllocSetContextCreate(CurrentMemoryContext, "tinydancer registry build",
							  ALLOCSET_DEFAULT_SIZES);
	MemoryContext before;
	TdRegistry *registry = MemoryContextAllocZero(context, sizeof(TdRegistry));
	TdSettings settings;
	TdAgentRow **agents;
	const TdPhraseRow **stored;
	PhraseList list;
	uint32 *first;
	int n_agents;
	int i;

	registry->context = context;
	*epoch = get_relname_relid("epoch", get_namespace_oid("tinydancer", false));

	before = MemoryContextSwitchTo(work);
	tdpg_read_settings(snapshot, &settings);
	registry->encoder = tdpg_active_encoder_open(&settings, context);
	registry->view.dim = registry->encoder->dim;
	agents = tdpg_read_agents(snapshot, &n_agents);
	stored = tdpg_read_phrases(snapshot, agents, n_agents, registry->encoder->id,
							   (int) registry->view.dim, &first);

	list.n = 0;
	list.size = 0;
	list.room = 64;
	list.can_embed = registry->encoder->file != NULL;
	list.rows = palloc(sizeof(PhraseRow) * list.room);
	for (i = 0; i < n_agents; i++)
	{
		agents[i]->figures.first_phrase = list.n;
		collect_phrases(agents[i], stored + first[i], first[i + 1] - first[i], &list);
		agents[i]->figures.n_phrases = list.n - agents[i]->figures.first_phrase;
	}
	pack_phrases(registry, &list,
				 registry->encoder->file != NULL ? tdpg_encoder_view(registry->encoder->file) : NULL);
	pack_capabilities(registry, agents, n_agents);
	pack_agents(registry, agents, n_agents);

	MemoryContextSwitchTo(context);
	tdpg_read_policies(snapshot, registry);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(work);
	return registry;
}
