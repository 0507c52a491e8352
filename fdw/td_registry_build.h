/*
 * td_registry_build.h - reading the tables into a snapshot; used by td_registry.c alone.
 */
#ifndef TD_REGISTRY_BUILD_H
#define TD_REGISTRY_BUILD_H

#include "td_registry.h"
#include "utils/snapshot.h"

/*
 * Read the registry as the snapshot sees it.  The result's context is a child of the current one
 * until the caller moves it: an error on the way frees everything.  *epoch is set to the relation
 * whose invalidation makes the result stale.
 */
extern TdRegistry *tdpg_registry_build(Snapshot snapshot, Oid *epoch);

/* Byte order of two texts, like memcmp. */
extern int tdpg_text_compare(const void *a, const void *b);

#endif /* TD_REGISTRY_BUILD_H */
