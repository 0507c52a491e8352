/*
 * td_names.c - many names, or rows that belong to them: order, look-up, grouping.
 *
 * In: names as the tables have them.  Out: positions, in the current memory context.  Called by
 * td_registry_read.c and td_route_read.c: with ten thousand agents a binary search for each row, and
 * a sort that moves whole rows, miss the processor's caches at every step.
 */
#include "postgres.h"

#include "port/pg_bswap.h"

#include "td_compat.h"
#include "td_names.h"
#include "tinydancer.h"

TdNames *
tdpg_names_create(const char *const *names, uint32 n)
{
	TdNames *result = palloc(sizeof(TdNames));
	uint32 n_slots = 16;
	uint32 i;

	while (n_slots < 2 * n)
		n_slots *= 2;
	result->names = names;
	result->n = n;
	result->mask = n_slots - 1;
	result->last = TD_NONE;
	result->slots = palloc_extended(sizeof(uint32) * n_slots, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (i = 0; i < n; i++)
	{
		uint32 slot = (uint32) td_hash64(names[i], strlen(names[i]), 0);

		while (result->slots[slot & result->mask] != 0)
			slot++;
		result->slots[slot & result->mask] = i + 1;
	}
	return result;
}

static bool
is_name(const char *name, TdText bytes)
{
	return strncmp(name, bytes.data, bytes.len) == 0 && name[bytes.len] == '\0';
}

uint32
tdpg_names_find(TdNames *names, TdText bytes)
{
	uint32 slot;

	if (names->last != TD_NONE && is_name(names->names[names->last], bytes))
		return names->last;
	slot = (uint32) td_hash64(bytes.data, bytes.len, 0);
	for (; names->slots[slot & names->mask] != 0; slot++)
	{
		uint32 found = names->slots[slot & names->mask] - 1;

		if (is_name(names->names[found], bytes))
		{
			names->last = found;
			return found;
		}
	}
	return TD_NONE;
}

/* A name's first bytes beside its position: most comparisons need no other memory. */
typedef struct SortKey
{
	uint64 start;
	uint32 position;
} SortKey;

static int
key_compare(const void *a, const void *b, void *names)
{
	const SortKey *x = a;
	const SortKey *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return strcmp(((const char *const *) names)[x->position],
				  ((const char *const *) names)[y->position]);
}

uint32 *
tdpg_names_order(const char *const *names, uint32 n)
{
	SortKey *keys = palloc_extended(sizeof(SortKey) * Max(n, 1), MCXT_ALLOC_HUGE);
	uint32 *order = palloc_extended(sizeof(uint32) * Max(n, 1), MCXT_ALLOC_HUGE);
	uint32 i;

	for (i = 0; i < n; i++)
	{
		char start[sizeof(uint64)] = {0};

		memcpy(start, names[i], strnlen(names[i], sizeof(start)));
		memcpy(&keys[i].start, start, sizeof(start));
		keys[i].start = pg_ntoh64(keys[i].start);
		keys[i].position = i;
	}
	qsort_arg(keys, n, sizeof(SortKey), key_compare, (void *) names);
	for (i = 0; i < n; i++)
		order[i] = keys[i].position;
	pfree(keys);
	return order;
}

uint32 *
tdpg_group_rows(const uint32 *owners, uint32 n, uint32 n_owners, uint32 **first)
{
	uint32 *start = palloc_extended(sizeof(uint32) * ((Size) n_owners + 2),
									MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	uint32 *order = palloc_extended(sizeof(uint32) * Max(n, 1), MCXT_ALLOC_HUGE);
	uint32 i;

	/* One place further on, so that what counts upwards below ends as where each owner begins. */
	for (i = 0; i < n; i++)
		start[owners[i] + 2]++;
	for (i = 2; i <= n_owners + 1; i++)
		start[i] += start[i - 1];
	for (i = 0; i < n; i++)
		order[start[owners[i] + 1]++] = i;
	*first = start;
	return order;
}
