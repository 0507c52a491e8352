/*
 * td_registry_build.c - the tables of schema tinydancer become one packed snapshot.
 *
 * In: an MVCC snapshot.  Out: a TdRegistry in a memory context of its own.  Called by
 * td_registry.c when the old one is stale.
 *
 * Tables are scanned directly rather than through SPI: no plan, no search_path, no privilege of the
 * caller is involved, and a first decision in a new backend stays cheap.
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "td_compat.h"
#include "td_registry_build.h"

/* A text that gets a vector: from the table if it has one for this encoder, else made here. */
typedef struct PhraseRow
{
	TdText text;
	const float *vector; /* NULL: not stored for the active encoder */
} PhraseRow;

typedef struct AgentRow
{
	char *name;
	td_agent figures;
	TdText description; /* data NULL: none */
	int n_capabilities;
	TdText *capabilities;
	char *pool; /* NULL: none */
} AgentRow;

typedef struct Settings
{
	char *encoder; /* NULL: not pinned yet */
	uint64 checksum;
	int dim;
	double fit_mu;
	double fit_s;
} Settings;

/* One table scan with columns by name. */
typedef struct TableScan
{
	Relation relation;
	TableScanDesc scan;
	TupleTableSlot *slot;
} TableScan;

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

static void
scan_begin(TableScan *t, const char *table, Snapshot snapshot)
{
	Oid relid = get_relname_relid(table, get_namespace_oid("tinydancer", false));

	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table tinydancer.%s does not exist", table),
						errdetail("The extension's objects are incomplete."),
						errhint("Run CREATE EXTENSION tinydancer, or ALTER EXTENSION tinydancer "
								"UPDATE after an upgrade.")));
	t->relation = table_open(relid, AccessShareLock);
	t->slot = table_slot_create(t->relation, NULL);
	t->scan = table_beginscan(t->relation, snapshot, 0, NULL);
}

static bool
scan_next(TableScan *t)
{
	return table_scan_getnextslot(t->scan, ForwardScanDirection, t->slot);
}

static void
scan_end(TableScan *t)
{
	table_endscan(t->scan);
	ExecDropSingleTupleTableSlot(t->slot);
	table_close(t->relation, AccessShareLock);
}

static AttrNumber
column(const TableScan *t, const char *name)
{
	AttrNumber number = get_attnum(RelationGetRelid(t->relation), name);

	if (number == InvalidAttrNumber)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column tinydancer.%s.%s does not exist",
							   RelationGetRelationName(t->relation), name),
						errdetail("The extension's script and its module are of different "
								  "versions."),
						errhint("Run ALTER EXTENSION tinydancer UPDATE.")));
	return number;
}

static double
get_double(TableScan *t, AttrNumber number, double when_null)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? when_null : DatumGetFloat8(value);
}

static bool
get_bool(TableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return !isnull && DatumGetBool(value);
}

static char *
get_cstring(TableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* A copy in UTF-8; data is NULL for SQL NULL. */
static TdText
get_text(TableScan *t, AttrNumber number)
{
	char *string = get_cstring(t, number);
	TdText none = {NULL, 0};

	return string == NULL ? none : tdpg_utf8(string, strlen(string));
}

static void
read_settings(Snapshot snapshot, Settings *settings)
{
	TableScan t;
	AttrNumber name;
	AttrNumber value;

	memset(settings, 0, sizeof(*settings));
	scan_begin(&t, "setting", snapshot);
	name = column(&t, "name");
	value = column(&t, "value");
	while (scan_next(&t))
	{
		char *key = get_cstring(&t, name);
		char *content = get_cstring(&t, value);

		if (key == NULL || content == NULL)
			continue;
		if (strcmp(key, "encoder") == 0)
			settings->encoder = content;
		else if (strcmp(key, "encoder_checksum") == 0)
			settings->checksum = strtoull(content, NULL, 16);
		else if (strcmp(key, "encoder_dim") == 0)
			settings->dim = atoi(content);
		else if (strcmp(key, "encoder_fit_mu") == 0)
			settings->fit_mu = strtod(content, NULL);
		else if (strcmp(key, "encoder_fit_s") == 0)
			settings->fit_s = strtod(content, NULL);
	}
	scan_end(&t);
}

static int
policy_compare(const void *a, const void *b)
{
	return strcmp(((const TdPolicy *) a)->name, ((const TdPolicy *) b)->name);
}

static void
read_policies(Snapshot snapshot, TdRegistry *registry)
{
	TableScan t;
	AttrNumber name;
	AttrNumber cost;
	AttrNumber latency;
	AttrNumber quality;
	AttrNumber fit;
	AttrNumber builtin;
	int room = 8;
	TdPolicy *policy;

	registry->policies = palloc(sizeof(TdPolicy) * room);
	scan_begin(&t, "policy", snapshot);
	name = column(&t, "name");
	cost = column(&t, "cost_weight");
	latency = column(&t, "latency_weight");
	quality = column(&t, "quality_weight");
	fit = column(&t, "fit_weight");
	builtin = column(&t, "builtin");
	while (scan_next(&t))
	{
		/* One more stays free for quality_per_dollar. */
		if (registry->n_policies + 1 == room)
		{
			room *= 2;
			registry->policies = repalloc(registry->policies, sizeof(TdPolicy) * room);
		}
		policy = &registry->policies[registry->n_policies++];
		policy->name = get_cstring(&t, name);
		policy->cost_weight = get_double(&t, cost, 0.0);
		policy->latency_weight = get_double(&t, latency, 0.0);
		policy->quality_weight = get_double(&t, quality, 0.0);
		policy->fit_weight = get_double(&t, fit, 0.0);
		policy->per_dollar = false;
		policy->builtin = get_bool(&t, builtin);
	}
	scan_end(&t);

	/* Not a weighted sum, so not a row. */
	policy = &registry->policies[registry->n_policies++];
	memset(policy, 0, sizeof(*policy));
	policy->name = "quality_per_dollar";
	policy->quality_weight = 1.0;
	policy->per_dollar = true;
	policy->builtin = true;
	qsort(registry->policies, registry->n_policies, sizeof(TdPolicy), policy_compare);
}

static int
agent_compare(const void *a, const void *b)
{
	return strcmp(((const AgentRow *) a)->name, ((const AgentRow *) b)->name);
}

static AgentRow *
read_agents(Snapshot snapshot, int *n_agents)
{
	TableScan t;
	AttrNumber name;
	AttrNumber description;
	AttrNumber capabilities;
	AttrNumber pool;
	AttrNumber active;
	AttrNumber figures[8];
	static const char *const figure_names[8] = {
		"cost_per_1k_tokens", "cost_per_1k_output_tokens", "cost_per_call", "cost_per_second",
		"expected_output_tokens", "avg_latency_ms", "quality_score", "success_rate"};
	int room = 16;
	AgentRow *rows = palloc(sizeof(AgentRow) * room);
	int n = 0;
	int i;

	scan_begin(&t, "agent", snapshot);
	name = column(&t, "name");
	description = column(&t, "description");
	capabilities = column(&t, "capabilities");
	pool = column(&t, "pool");
	active = column(&t, "active");
	for (i = 0; i < 8; i++)
		figures[i] = column(&t, figure_names[i]);

	while (scan_next(&t))
	{
		AgentRow *row;
		bool isnull;
		Datum array;

		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(AgentRow) * room);
		}
		row = &rows[n++];
		memset(row, 0, sizeof(*row));
		row->name = get_cstring(&t, name);
		row->description = get_text(&t, description);
		row->pool = get_cstring(&t, pool);
		row->figures.active = get_bool(&t, active);
		row->figures.cost_per_1k_tokens = get_double(&t, figures[0], NAN);
		row->figures.cost_per_1k_output_tokens = get_double(&t, figures[1], NAN);
		row->figures.cost_per_call = get_double(&t, figures[2], NAN);
		row->figures.cost_per_second = get_double(&t, figures[3], NAN);
		row->figures.expected_output_tokens = get_double(&t, figures[4], 0.0);
		row->figures.avg_latency_ms = get_double(&t, figures[5], NAN);
		row->figures.quality_score = get_double(&t, figures[6], 0.0);
		row->figures.success_rate = get_double(&t, figures[7], 1.0);

		array = slot_getattr(t.slot, capabilities, &isnull);
		if (!isnull)
		{
			/* The slot's buffer goes with the next row: copy what points into the array. */
			array = PointerGetDatum(DatumGetArrayTypePCopy(array));
			row->capabilities = tdpg_text_array(array, "capabilities", &row->n_capabilities);
		}
	}
	scan_end(&t);
	qsort(rows, n, sizeof(AgentRow), agent_compare);
	*n_agents = n;
	return rows;
}

static int
find_agent(const AgentRow *agents, int n, const char *name)
{
	AgentRow key;
	const AgentRow *found;

	key.name = unconstify(char *, name);
	found = bsearch(&key, agents, n, sizeof(AgentRow), agent_compare);
	return found == NULL ? -1 : (int) (found - agents);
}

typedef enum PhraseKind
{
	KIND_CAPABILITY,
	KIND_DESCRIPTION,
	KIND_EXAMPLE,
	KIND_CALLER,
	KIND_UNKNOWN
} PhraseKind;

typedef struct StoredPhrase
{
	int agent;
	PhraseKind kind;
	int position;
	TdText text;
	const float *vector; /* NULL: of another encoder */
} StoredPhrase;

static PhraseKind
phrase_kind(const char *kind)
{
	if (strcmp(kind, "capability") == 0)
		return KIND_CAPABILITY;
	if (strcmp(kind, "description") == 0)
		return KIND_DESCRIPTION;
	if (strcmp(kind, "example") == 0)
		return KIND_EXAMPLE;
	if (strcmp(kind, "caller") == 0)
		return KIND_CALLER;
	return KIND_UNKNOWN;
}

static int
stored_compare(const void *a, const void *b)
{
	const StoredPhrase *x = a;
	const StoredPhrase *y = b;

	if (x->agent != y->agent)
		return x->agent < y->agent ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position ? 1 : 0;
}

/* The stored phrases in the order agent, kind, position. */
static StoredPhrase *
read_phrases(Snapshot snapshot, const AgentRow *agents, int n_agents, const char *encoder_id,
			 int dim, int *n_phrases)
{
	TableScan t;
	AttrNumber agent_name;
	AttrNumber kind;
	AttrNumber position;
	AttrNumber phrase;
	AttrNumber embedding;
	AttrNumber encoder;
	int room = 64;
	StoredPhrase *rows = palloc(sizeof(StoredPhrase) * room);
	int n = 0;

	scan_begin(&t, "agent_phrase", snapshot);
	agent_name = column(&t, "agent_name");
	kind = column(&t, "kind");
	position = column(&t, "position");
	phrase = column(&t, "phrase");
	embedding = column(&t, "embedding");
	encoder = column(&t, "encoder");
	while (scan_next(&t))
	{
		StoredPhrase *row;
		char *owner = get_cstring(&t, agent_name);
		char *made_by = get_cstring(&t, encoder);
		int agent = find_agent(agents, n_agents, owner);
		bool isnull;
		Datum value;

		if (agent < 0)
			continue;
		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(StoredPhrase) * room);
		}
		row = &rows[n++];
		row->agent = agent;
		row->kind = phrase_kind(get_cstring(&t, kind));
		row->position = DatumGetInt32(slot_getattr(t.slot, position, &isnull));
		row->text = get_text(&t, phrase);
		row->vector = NULL;
		value = slot_getattr(t.slot, embedding, &isnull);
		if (!isnull && made_by != NULL && strcmp(made_by, encoder_id) == 0)
		{
			int found;
			float *copy = palloc(sizeof(float) * dim);
			const float *values = tdpg_vector(value, &found);

			/* A vector that does not fit is as good as none: the text is embedded again. */
			if (found == dim)
			{
				memcpy(copy, values, sizeof(float) * dim);
				if (td_vec_normalise(copy, dim) == TD_OK)
					row->vector = copy;
			}
		}
	}
	scan_end(&t);
	qsort(rows, n, sizeof(StoredPhrase), stored_compare);
	*n_phrases = n;
	return rows;
}

/* The phrases that count, growing in a work list. */
typedef struct PhraseList
{
	PhraseRow *rows;
	int n;
	int room;
} PhraseList;

static void
add_phrase(PhraseList *list, TdText text, const float *vector)
{
	if (list->n == list->room)
	{
		list->room *= 2;
		list->rows = repalloc_huge(list->rows, sizeof(PhraseRow) * list->room);
	}
	list->rows[list->n].text = text;
	list->rows[list->n].vector = vector;
	list->n++;
}

/* The stored vector of a text of the agent, when the table has it. */
static const float *
stored_vector(const StoredPhrase *stored, int n, PhraseKind kind, TdText text)
{
	int i;

	for (i = 0; i < n; i++)
	{
		if (stored[i].kind == kind && tdpg_text_compare(&stored[i].text, &text) == 0)
			return stored[i].vector;
	}
	return NULL;
}

/*
 * The phrases of one agent.  The agent's own columns say which texts count, so an UPDATE of
 * tinydancer.agent is never answered with vectors of the old text; the table only saves embedding.
 */
static void
collect_phrases(const AgentRow *agent, const StoredPhrase *stored, int n_stored, PhraseList *list)
{
	int i;

	for (i = 0; i < n_stored; i++)
	{
		if (stored[i].kind == KIND_CALLER && stored[i].vector != NULL)
		{
			TdText label = {"the caller's vector", strlen("the caller's vector")};

			add_phrase(list, stored[i].text.len > 0 ? stored[i].text : label, stored[i].vector);
			return;
		}
	}
	for (i = 0; i < agent->n_capabilities; i++)
		add_phrase(list, tdpg_words_of(agent->capabilities[i]),
				   stored_vector(stored, n_stored, KIND_CAPABILITY, agent->capabilities[i]));
	if (agent->description.data != NULL && agent->description.len > 0)
		add_phrase(list, agent->description,
				   stored_vector(stored, n_stored, KIND_DESCRIPTION, agent->description));
	for (i = 0; i < n_stored; i++)
	{
		if (stored[i].kind == KIND_EXAMPLE)
			add_phrase(list, stored[i].text, stored[i].vector);
	}
}

static TdText
keep_text(MemoryContext context, TdText text)
{
	char *copy = MemoryContextAlloc(context, text.len + 1);
	TdText out = {copy, text.len};

	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	return out;
}

/* The vectors of the phrases, quantised; a text that cannot be embedded keeps a zero vector. */
static void
pack_phrases(TdRegistry *registry, const PhraseList *list, const td_encoder *encoder)
{
	int dim = (int) registry->view.dim;
	int8_t *rows = MemoryContextAllocHuge(registry->context, Max((Size) list->n * dim, 1));
	float *scales = MemoryContextAlloc(registry->context, sizeof(float) * Max(list->n, 1));
	float *vector = palloc(sizeof(float) * dim);
	size_t scratch_size = encoder != NULL ? td_embed_scratch_size(encoder) : 0;
	void *scratch = (void *) TYPEALIGN(64, palloc(scratch_size + 64));
	int i;

	registry->phrases = MemoryContextAlloc(registry->context, sizeof(TdText) * Max(list->n, 1));
	for (i = 0; i < list->n; i++)
	{
		const PhraseRow *phrase = &list->rows[i];
		const float *source = phrase->vector;
		td_embed_info info;

		if (source == NULL)
		{
			source = vector;
			if (encoder == NULL || td_embed_text(encoder, phrase->text.data, phrase->text.len,
												 vector, &info, scratch, scratch_size) != TD_OK)
				memset(vector, 0, sizeof(float) * dim);
		}
		scales[i] = td_vec_quantise(source, dim, rows + (size_t) i * dim);
		registry->phrases[i] = keep_text(registry->context, phrase->text);
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

/* Capabilities become ids of one sorted dictionary. */
static void
pack_capabilities(TdRegistry *registry, AgentRow *agents, int n_agents)
{
	int total = 0;
	int n = 0;
	int i;
	int j;
	TdText *all;
	uint32 *ids;
	uint32 at = 0;

	for (i = 0; i < n_agents; i++)
		total += agents[i].n_capabilities;
	all = palloc(sizeof(TdText) * Max(total, 1));
	for (i = 0; i < n_agents; i++)
	{
		for (j = 0; j < agents[i].n_capabilities; j++)
			all[n++] = tdpg_fold(agents[i].capabilities[j]);
	}
	qsort(all, n, sizeof(TdText), tdpg_text_compare);
	registry->capabilities = MemoryContextAlloc(registry->context, sizeof(TdText) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		if (i == 0 || tdpg_text_compare(&all[i], &all[i - 1]) != 0)
			registry->capabilities[registry->n_capabilities++] =
				keep_text(registry->context, all[i]);
	}

	ids = MemoryContextAlloc(registry->context, sizeof(uint32) * Max(total, 1));
	for (i = 0; i < n_agents; i++)
	{
		AgentRow *agent = &agents[i];

		agent->figures.first_capability = at;
		agent->figures.n_capabilities = agent->n_capabilities;
		for (j = 0; j < agent->n_capabilities; j++)
			ids[at + j] = tdpg_registry_capability(registry, tdpg_fold(agent->capabilities[j]));
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
pack_agents(TdRegistry *registry, const AgentRow *agents, int n_agents)
{
	MemoryContext context = registry->context;
	td_agent *figures = MemoryContextAllocHuge(context, sizeof(td_agent) * Max(n_agents, 1));
	char **pools = palloc(sizeof(char *) * Max(n_agents, 1));
	int n = 0;
	int i;

	registry->agent_names = MemoryContextAlloc(context, sizeof(char *) * Max(n_agents, 1));
	for (i = 0; i < n_agents; i++)
	{
		if (agents[i].pool != NULL)
			pools[n++] = agents[i].pool;
	}
	qsort(pools, n, sizeof(char *), string_compare);
	registry->pools = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		if (i == 0 || strcmp(pools[i], pools[i - 1]) != 0)
			registry->pools[registry->n_pools++] = MemoryContextStrdup(context, pools[i]);
	}
	for (i = 0; i < n_agents; i++)
	{
		figures[i] = agents[i].figures;
		figures[i].pool =
			agents[i].pool != NULL ? tdpg_registry_pool(registry, agents[i].pool) : TD_NONE;
		registry->agent_names[i] = MemoryContextStrdup(context, agents[i].name);
	}
	registry->view.n_agents = n_agents;
	registry->view.agents = figures;
}

/* The encoder, or the reason why it cannot be had beside what the settings say of it. */
static void
choose_encoder(TdRegistry *registry, const Settings *settings)
{
	const char *id = settings->encoder != NULL ? settings->encoder : tdpg_encoder_default_id();

	registry->encoder_id = MemoryContextStrdup(registry->context, id);
	registry->encoder = tdpg_encoder_open(id, settings->checksum, &registry->fault);
	if (registry->encoder != NULL)
	{
		const td_encoder *encoder = tdpg_encoder_view(registry->encoder);

		registry->view.dim = encoder->dim;
		registry->fit_mu = encoder->fit_mu;
		registry->fit_s = encoder->fit_s;
	}
	else if (settings->dim > 0 && settings->dim <= (int) TD_MAX_DIM && settings->fit_s > 0)
	{
		registry->view.dim = settings->dim;
		registry->fit_mu = settings->fit_mu;
		registry->fit_s = settings->fit_s;
	}
	else
		/* Nothing is stored yet, so there is nothing to decide from either. */
		tdpg_encoder_raise(&registry->fault);
}

/* The pin on the mapping goes with the context, also when a build ends in an error. */
static void
release_encoder(void *arg)
{
	TdRegistry *registry = arg;

	if (registry->encoder != NULL)
	{
		tdpg_encoder_unpin(registry->encoder);
		registry->encoder = NULL;
	}
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
	MemoryContextCallback *callback;
	TdRegistry *registry = MemoryContextAllocZero(context, sizeof(TdRegistry));
	Settings settings;
	AgentRow *agents;
	StoredPhrase *stored;
	PhraseList list;
	int n_agents;
	int n_stored;
	int at = 0;
	int i;

	registry->context = context;
	callback = MemoryContextAlloc(context, sizeof(MemoryContextCallback));
	callback->func = release_encoder;
	callback->arg = registry;
	MemoryContextRegisterResetCallback(context, callback);
	*epoch = get_relname_relid("epoch", get_namespace_oid("tinydancer", false));

	before = MemoryContextSwitchTo(work);
	read_settings(snapshot, &settings);
	choose_encoder(registry, &settings);
	agents = read_agents(snapshot, &n_agents);
	stored = read_phrases(snapshot, agents, n_agents, registry->encoder_id,
						  (int) registry->view.dim, &n_stored);

	list.n = 0;
	list.room = 64;
	list.rows = palloc(sizeof(PhraseRow) * list.room);
	for (i = 0; i < n_agents; i++)
	{
		int from = at;

		while (at < n_stored && stored[at].agent == i)
			at++;
		agents[i].figures.first_phrase = list.n;
		collect_phrases(&agents[i], stored + from, at - from, &list);
		agents[i].figures.n_phrases = list.n - agents[i].figures.first_phrase;
	}
	pack_phrases(registry, &list,
				 registry->encoder != NULL ? tdpg_encoder_view(registry->encoder) : NULL);
	pack_capabilities(registry, agents, n_agents);
	pack_agents(registry, agents, n_agents);

	MemoryContextSwitchTo(context);
	read_policies(snapshot, registry);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(work);
	return registry;
}
