/*
 * td_registry_read.c - the tables of schema tinydancer become rows in C.
 *
 * In: an MVCC snapshot.  Out: arrays of structs, in the current memory context.  Called by
 * td_registry_build.c, which packs them for the kernel.
 */
#include "postgres.h"

#include <math.h>

#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "td_names.h"
#include "td_registry_read.h"
#include "td_table_scan.h"

void
tdpg_read_settings(Snapshot snapshot, TdSettings *settings)
{
	TdTableScan t;
	AttrNumber name;
	AttrNumber value;

	memset(settings, 0, sizeof(*settings));
	tdpg_scan_begin(&t, "setting", snapshot);
	name = tdpg_scan_column(&t, "name");
	value = tdpg_scan_column(&t, "value");
	while (tdpg_scan_next(&t))
	{
		char *content = tdpg_scan_cstring(&t, value);

		if (content == NULL)
			continue;
		if (tdpg_scan_is(&t, name, "encoder"))
			settings->encoder = content;
		else if (tdpg_scan_is(&t, name, "encoder_checksum"))
			settings->checksum = strtoull(content, NULL, 16);
		else if (tdpg_scan_is(&t, name, "encoder_dim"))
			settings->dim = atoi(content);
		else if (tdpg_scan_is(&t, name, "encoder_fit_mu"))
			settings->fit_mu = strtod(content, NULL);
		else if (tdpg_scan_is(&t, name, "encoder_fit_s"))
			settings->fit_s = strtod(content, NULL);
	}
	tdpg_scan_end(&t);
}

bool
tdpg_has_vectors_of_another(Snapshot snapshot, const char *table, const char *id)
{
	TdTableScan t;
	AttrNumber encoder;
	bool found = false;

	tdpg_scan_begin(&t, table, snapshot);
	encoder = tdpg_scan_column(&t, "encoder");
	while (!found && tdpg_scan_next(&t))
	{
		/* A check of the table has it that a vector has an encoder. */
		found = tdpg_scan_bytes(&t, encoder).data != NULL && !tdpg_scan_is(&t, encoder, id);
	}
	tdpg_scan_end(&t);
	return found;
}

static int
policy_compare(const void *a, const void *b)
{
	return strcmp(((const TdPolicy *) a)->name, ((const TdPolicy *) b)->name);
}

void
tdpg_read_policies(Snapshot snapshot, TdRegistry *registry)
{
	TdTableScan t;
	AttrNumber name;
	AttrNumber cost;
	AttrNumber latency;
	AttrNumber quality;
	AttrNumber fit;
	AttrNumber builtin;
	int room = 8;
	TdPolicy *policy;

	registry->policies = palloc(sizeof(TdPolicy) * room);
	tdpg_scan_begin(&t, "policy", snapshot);
	name = tdpg_scan_column(&t, "name");
	cost = tdpg_scan_column(&t, "cost_weight");
	latency = tdpg_scan_column(&t, "latency_weight");
	quality = tdpg_scan_column(&t, "quality_weight");
	fit = tdpg_scan_column(&t, "fit_weight");
	builtin = tdpg_scan_column(&t, "builtin");
	while (tdpg_scan_next(&t))
	{
		/* One more stays free for quality_per_dollar. */
		if (registry->n_policies + 1 == room)
		{
			room *= 2;
			registry->policies = repalloc(registry->policies, sizeof(TdPolicy) * room);
		}
		policy = &registry->policies[registry->n_policies++];
		policy->name = tdpg_scan_cstring(&t, name);
		policy->cost_weight = tdpg_scan_double(&t, cost, 0.0);
		policy->latency_weight = tdpg_scan_double(&t, latency, 0.0);
		policy->quality_weight = tdpg_scan_double(&t, quality, 0.0);
		policy->fit_weight = tdpg_scan_double(&t, fit, 0.0);
		policy->per_dollar = false;
		policy->builtin = tdpg_scan_bool(&t, builtin);
	}
	tdpg_scan_end(&t);

	/* Not a weighted sum, so not a row. */
	policy = &registry->policies[registry->n_policies++];
	memset(policy, 0, sizeof(*policy));
	policy->name = "quality_per_dollar";
	policy->quality_weight = 1.0;
	policy->per_dollar = true;
	policy->builtin = true;
	qsort(registry->policies, registry->n_policies, sizeof(TdPolicy), policy_compare);
}

/* The rows by name in byte order. */
static TdAgentRow **
sort_agents(TdAgentRow *rows, int n)
{
	TdAgentRow **sorted = palloc_extended(sizeof(TdAgentRow *) * Max(n, 1), MCXT_ALLOC_HUGE);
	const char **names = palloc_extended(sizeof(char *) * Max(n, 1), MCXT_ALLOC_HUGE);
	uint32 *order;
	int i;

	for (i = 0; i < n; i++)
		names[i] = rows[i].name;
	order = tdpg_names_order(names, n);
	for (i = 0; i < n; i++)
		sorted[i] = &rows[order[i]];
	pfree(order);
	pfree(names);
	return sorted;
}

/* Copies of the capabilities of the current row. */
static TdText *
read_capabilities(TdTableScan *t, AttrNumber number, int *n)
{
	bool isnull;
	Datum array = tdpg_scan_datum(t, number, &isnull);
	MemoryContext before;
	TdText *found;
	TdText *copies;
	Size size = 0;
	char *at;
	int i;

	*n = 0;
	if (isnull)
		return NULL;
	before = MemoryContextSwitchTo(t->row);
	found = tdpg_text_array(array, "capabilities", n);
	MemoryContextSwitchTo(before);
	for (i = 0; i < *n; i++)
		size += found[i].len;
	copies = palloc(sizeof(TdText) * *n + size + 1);
	at = (char *) (copies + *n);
	for (i = 0; i < *n; i++)
	{
		memcpy(at, found[i].data, found[i].len);
		copies[i].data = at;
		copies[i].len = found[i].len;
		at += found[i].len;
	}
	return copies;
}

TdAgentRow **
tdpg_read_agents(Snapshot snapshot, int *n_agents)
{
	TdTableScan t;
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
	TdAgentRow *rows = palloc(sizeof(TdAgentRow) * room);
	int n = 0;
	int i;

	tdpg_scan_begin(&t, "agent", snapshot);
	name = tdpg_scan_column(&t, "name");
	description = tdpg_scan_column(&t, "description");
	capabilities = tdpg_scan_column(&t, "capabilities");
	pool = tdpg_scan_column(&t, "pool");
	active = tdpg_scan_column(&t, "active");
	for (i = 0; i < 8; i++)
		figures[i] = tdpg_scan_column(&t, figure_names[i]);

	while (tdpg_scan_next(&t))
	{
		TdAgentRow *row;

		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(TdAgentRow) * room);
		}
		row = &rows[n++];
		memset(row, 0, sizeof(*row));
		row->name = tdpg_scan_cstring(&t, name);
		row->description = tdpg_scan_text(&t, description);
		row->pool = tdpg_scan_cstring(&t, pool);
		row->figures.active = tdpg_scan_bool(&t, active);
		row->figures.cost_per_1k_tokens = tdpg_scan_double(&t, figures[0], NAN);
		row->figures.cost_per_1k_output_tokens = tdpg_scan_double(&t, figures[1], NAN);
		row->figures.cost_per_call = tdpg_scan_double(&t, figures[2], NAN);
		row->figures.cost_per_second = tdpg_scan_double(&t, figures[3], NAN);
		row->figures.expected_output_tokens = tdpg_scan_double(&t, figures[4], 0.0);
		row->figures.avg_latency_ms = tdpg_scan_double(&t, figures[5], NAN);
		row->figures.quality_score = tdpg_scan_double(&t, figures[6], 0.0);
		row->figures.success_rate = tdpg_scan_double(&t, figures[7], 1.0);
		row->capabilities = read_capabilities(&t, capabilities, &row->n_capabilities);
	}
	tdpg_scan_end(&t);
	*n_agents = n;
	return sort_agents(rows, n);
}

static TdPhraseKind
phrase_kind(TdTableScan *t, AttrNumber kind)
{
	if (tdpg_scan_is(t, kind, "capability"))
		return TD_KIND_CAPABILITY;
	if (tdpg_scan_is(t, kind, "description"))
		return TD_KIND_DESCRIPTION;
	if (tdpg_scan_is(t, kind, "example"))
		return TD_KIND_EXAMPLE;
	if (tdpg_scan_is(t, kind, "caller"))
		return TD_KIND_CALLER;
	return TD_KIND_UNKNOWN;
}

static int
stored_compare(const void *a, const void *b)
{
	const TdPhraseRow *x = *(const TdPhraseRow *const *) a;
	const TdPhraseRow *y = *(const TdPhraseRow *const *) b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position ? 1 : 0;
}

/* The rows in the order agent, kind, position. */
static const TdPhraseRow **
sort_phrases(const TdPhraseRow *rows, const uint32 *owners, uint32 n, uint32 n_agents,
			 uint32 **first)
{
	const TdPhraseRow **sorted =
		palloc_extended(sizeof(TdPhraseRow *) * Max(n, 1), MCXT_ALLOC_HUGE);
	uint32 *order = tdpg_group_rows(owners, n, n_agents, first);
	uint32 i;

	for (i = 0; i < n; i++)
		sorted[i] = &rows[order[i]];
	for (i = 0; i < n_agents; i++)
		qsort(sorted + (*first)[i], (*first)[i + 1] - (*first)[i], sizeof(TdPhraseRow *),
			  stored_compare);
	pfree(order);
	return sorted;
}

const TdPhraseRow **
tdpg_read_phrases(Snapshot snapshot, TdAgentRow *const *agents, int n_agents,
				  const char *encoder_id, int dim, uint32 **first)
{
	const char **names = palloc_extended(sizeof(char *) * Max(n_agents, 1), MCXT_ALLOC_HUGE);
	uint32 room = 64;
	TdPhraseRow *rows = palloc(sizeof(TdPhraseRow) * room);
	uint32 *owners = palloc(sizeof(uint32) * room);
	uint32 n = 0;
	TdNames *index;
	TdTableScan t;
	AttrNumber agent_name;
	AttrNumber kind;
	AttrNumber position;
	AttrNumber phrase;
	AttrNumber embedding;
	AttrNumber encoder;
	int i;

	for (i = 0; i < n_agents; i++)
		names[i] = agents[i]->name;
	index = tdpg_names_create(names, n_agents);
	tdpg_scan_begin(&t, "agent_phrase", snapshot);
	agent_name = tdpg_scan_column(&t, "agent_name");
	kind = tdpg_scan_column(&t, "kind");
	position = tdpg_scan_column(&t, "position");
	phrase = tdpg_scan_column(&t, "phrase");
	embedding = tdpg_scan_column(&t, "embedding");
	encoder = tdpg_scan_column(&t, "encoder");
	while (tdpg_scan_next(&t))
	{
		uint32 agent = tdpg_names_find(index, tdpg_scan_bytes(&t, agent_name));
		TdPhraseRow *row;

		if (agent == TD_NONE)
			continue;
		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(TdPhraseRow) * room);
			owners = repalloc_huge(owners, sizeof(uint32) * room);
		}
		owners[n] = agent;
		row = &rows[n++];
		row->kind = phrase_kind(&t, kind);
		row->position = tdpg_scan_int(&t, position, 0);
		row->text = tdpg_scan_text(&t, phrase);
		/* Without a vector that fits, the text is embedded again. */
		row->vector = tdpg_scan_is(&t, encoder, encoder_id)
						  ? tdpg_scan_quantised(&t, embedding, dim, &row->scale)
						  : NULL;
	}
	tdpg_scan_end(&t);
	pfree(names);
	return sort_phrases(rows, owners, n, n_agents, first);
}
