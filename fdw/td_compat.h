/*
 * td_compat.h - the differences between the server versions we build for (15 to 18).
 *
 * Every PG_VERSION_NUM test of the module stands in this file.  Included after postgres.h by the
 * files that need one of these names.
 */
#ifndef TD_COMPAT_H
#define TD_COMPAT_H

#include "access/stratnum.h"
#include "fmgr.h"
#include "optimizer/pathnode.h"
#include "utils/selfuncs.h"

#if PG_VERSION_NUM < 150000
#error "tinydancer needs Postgres 15 or later"
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#define TD_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "tinydancer", .version = TD_EXTVERSION)
#else
#define TD_MODULE_MAGIC PG_MODULE_MAGIC
#endif

static inline bool
tdpg_is_ascending(const PathKey *pathkey)
{
#if PG_VERSION_NUM >= 180000
	return pathkey->pk_cmptype == COMPARE_LT;
#else
	return pathkey->pk_strategy == BTLessStrategyNumber;
#endif
}

static inline ForeignPath *
tdpg_create_foreignscan_path(PlannerInfo *root, RelOptInfo *rel, double rows, int disabled_nodes,
							 Cost startup_cost, Cost total_cost, List *pathkeys,
							 Relids required_outer, List *fdw_private)
{
#if PG_VERSION_NUM >= 180000
	return create_foreignscan_path(root, rel, NULL, rows, disabled_nodes, startup_cost, total_cost,
								   pathkeys, required_outer, NULL, NIL, fdw_private);
#elif PG_VERSION_NUM >= 170000
	(void) disabled_nodes;
	return create_foreignscan_path(root, rel, NULL, rows, startup_cost, total_cost, pathkeys,
								   required_outer, NULL, NIL, fdw_private);
#else
	(void) disabled_nodes;
	return create_foreignscan_path(root, rel, NULL, rows, startup_cost, total_cost, pathkeys,
								   required_outer, NULL, fdw_private);
#endif
}

static inline double
tdpg_estimate_array_length(PlannerInfo *root, Node *array)
{
#if PG_VERSION_NUM >= 170000
	return estimate_array_length(root, array);
#else
	(void) root;
	return estimate_array_length(array);
#endif
}

#endif /* TD_COMPAT_H */
