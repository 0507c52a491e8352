/*
 * td_module.c - the module's entry: magic block and start-up.
 *
 * Called by the server when it loads the library, in the first statement of a backend that uses
 * one of our functions.
 */
#include "postgres.h"

#include "td_compat.h"
#include "td_fdw.h"
#include "td_guc.h"
#include "td_model_cache.h"
#include "td_registry.h"

TD_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	tdpg_guc_init();
	tdpg_model_cache_init();
	tdpg_registry_init();
	tdpg_fdw_stats_init();
}
