/*
 * td_fdw_cache.c - definitions of foreign tables, kept from one statement to the next.
 *
 * In: the oid of a foreign table.  Out: its TdTable, which stays until the caller's memory context goes.
 * Called when a scan is planned and when it begins; reading the catalog each time would cost as much
 * as a tenth of a decision.  A relcache invalidation, which every change of columns or options sends,
 * makes a definition stale; it is freed when the last scan that uses it is over.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "td_fdw.h"

typedef struct Definition
{
	MemoryContext context;
	TdTable *table;
	int pins;
	bool stale;
} Definition;

typedef struct Entry
{
	Oid relid;
	Definition *definition; /* NULL: stale */
} Entry;

static HTAB *entries = NULL;

/* How many invalidations came, so that one in the middle of reading the catalog is noticed. */
static uint64 generation = 0;

static void
drop(Definition *definition)
{
	definition->stale = true;
	if (definition->pins == 0)
		MemoryContextDelete(definition->context);
}

static void
unpin(void *arg)
{
	Definition *definition = arg;

	definition->pins--;
	if (definition->stale && definition->pins == 0)
		MemoryContextDelete(definition->context);
}

static void
forget(Entry *entry)
{
	Definition *definition = entry->definition;

	entry->definition = NULL;
	if (definition != NULL)
		drop(definition);
}

static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	Entry *entry;

	generation++;
	if (OidIsValid(relid))
	{
		entry = hash_search(entries, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			forget(entry);
		return;
	}
	hash_seq_init(&status, entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		forget(entry);
}

static void
make_entries(void)
{
	HASHCTL info = {.keysize = sizeof(Oid), .entrysize = sizeof(Entry), .hcxt = CacheMemoryContext};

	entries = hash_create("tinydancer foreign tables", 8, &info,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

/* Read the catalog; the context goes with an error. */
static Definition *
define(Oid relid)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "tinydancer foreign table", ALLOCSET_SMALL_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	Definition *definition = palloc0(sizeof(Definition));

	definition->context = context;
	definition->table = tdpg_fdw_read_table(relid);
	MemoryContextSwitchTo(before);
	MemoryContextSetParent(context, CacheMemoryContext);
	return definition;
}

TdTable *
tdpg_fdw_table(Oid relid)
{
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));
	Definition *definition = NULL;
	Entry *entry;
	bool found;

	if (entries == NULL)
		make_entries();
	entry = hash_search(entries, &relid, HASH_FIND, NULL);
	if (entry != NULL)
		definition = entry->definition;
	if (definition == NULL)
	{
		uint64 read_at = generation;

		definition = define(relid);
		definition->stale = generation != read_at;
		if (!definition->stale)
		{
			entry = hash_search(entries, &relid, HASH_ENTER, &found);
			entry->definition = definition;
		}
	}
	definition->pins++;
	callback->func = unpin;
	callback->arg = definition;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	return definition->table;
}
