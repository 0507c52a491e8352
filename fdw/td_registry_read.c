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

#include "td_registry_read.h"
#include "td_table_scan.h"

void
tdpg_read_settings(Snapshot snapshot, TdSettings *settings)
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

bool
tdpg_has_vectors_of_another(Snapshot snapshot, const char *table, const char *id)
{
	TableScan t;
	AttrNumber encoder;
	bool found = false;

	scan_begin(&t, table, snapshot);
	encoder = column(&t, "encoder");
	while (!found && scan_next(&t))
	{
		char *made_by = get_cstring(&t, encoder);

		/* A check of the table has it that a vector has an encoder. */
		found = made_by != NULL && strcmp(made_by, id) != 0;
		if (made_by != NULL)
			pfree(made_by);
	}
	scan_end(&t);
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
	return strcmp(((const TdAgentRow *) a)->name, ((const TdAgentRow *) b)->name);
}

TdAgentRow *
tdpg_read_agents(Snapshot snapshot, int *n_agents)
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
	TdAgentRow *rows = palloc(sizeof(TdAgentRow) * room);
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
		TdAgentRow *row;
		bool isnull;
		Datum array;

		if (n == room)
		{
			room *= 2;
			rows = repalloc_huge(rows, sizeof(TdAgentRow) * room);
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
	qsort(rows, n, sizeof(TdAgentRow), agent_compare);
	*n_agents = n;
	return rows;
}

static int
find_agent(const TdAgentRow *agents, int n, const char *name)
{
	TdAgentRow key;
	const TdAgentRow *found;

	key.name = unconstify(char *, name);
	found = bsearch(&key, agents, n, sizeof(TdAgentRow), agent_compare);
	return found == NULL ? -1 : (int) (found - agents);
}

static TdPhraseKind
phrase_kind(const char *kind)
{
	if (strcmp(kind, "capability") == 0)
		return TD_KIND_CAPABILITY;
	if (strcmp(kind, "description") == 0)
		return TD_KIND_DESCRIPTION;
	if (strcmp(kind, "example") == 0)
		return TD_KIND_EXAMPLE;
	if (strcmp(kind, "caller") == 0)
		return TD_KIND_CALLER;
	return TD_KIND_UNKNOWN;
}

static int
stored_compare(const void *a, const void *b)
{
	const TdPhraseRow *x = a;
	const TdPhraseRow *y = b;

	if (x->agent != y->agent)
		return x->agent < y->agent ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position ? 1 : 0;
}

/* The stored phrases in the order agent, kind, position. */
TdPhraseRow *
tdpg_read_phrases(Snapshot snapshot, const TdAgentRow *agents, int n_agents, const char *encoder_id,
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
	TdPhraseRow *rows = palloc(sizeof(TdPhraseRow) * room);
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
		TdPhraseRow *row;
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
			rows = repalloc_huge(rows, sizeof(TdPhraseRow) * room);
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
	qsort(rows, n, sizeof(TdPhraseRow), stored_compare);
	*n_phrases = n;
	return rows;
}
