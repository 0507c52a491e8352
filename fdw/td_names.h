/*
 * td_names.h - many names, or rows that belong to them: order, look-up, grouping, all in time that
 * grows with their number alone.
 */
#ifndef TD_NAMES_H
#define TD_NAMES_H

#include "td_datum.h"

/* Names by their bytes, for look-up; in the memory context in which it was made. */
typedef struct TdNames
{
	const char *const *names; /* [n], NUL-terminated, all different; the caller's */
	uint32 n;
	uint32 mask;   /* number of slots - 1 */
	uint32 *slots; /* position + 1; 0: empty */
	uint32 last;   /* what was found last: rows of one owner often follow each other */
} TdNames;

extern TdNames *tdpg_names_create(const char *const *names, uint32 n);

/* The position of a name, or TD_NONE. */
extern uint32 tdpg_names_find(TdNames *names, TdText bytes);

/* The positions of names[n] in byte order. */
extern uint32 *tdpg_names_order(const char *const *names, uint32 n);

/*
 * The positions of n rows by owner, in their own order within each; owners[i] < n_owners.  *first
 * gets where each owner's begin, [n_owners + 1].
 */
extern uint32 *tdpg_group_rows(const uint32 *owners, uint32 n, uint32 n_owners, uint32 **first);

#endif /* TD_NAMES_H */
