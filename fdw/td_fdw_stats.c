/*
 * td_fdw_stats.c - what the planner may know of the columns of a foreign table, which stores no rows
 * that ANALYZE could count.
 *
 * In: the number of different values of a column, as td_fdw_plan.c worked it out from what the
 * column is joined with.  Out: a row of pg_statistic that exists only while a query is planned, so
 * that joins, semi-joins and groups are estimated by the planner's own rules.  Called through the
 * hook that the server has for this.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_statistic.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/selfuncs.h"
#include "utils/syscache.h"

#include "td_fdw.h"

/* Agents, routes or categories, as long as nobody has counted them. */
#define REGISTRY_GUESS 20.0

static get_relation_stats_hook_type next_hook = NULL;

/* The rows of a table of the registry at its last ANALYZE; NULL: of a list that no table has. */
double
tdpg_registry_rows(const char *table)
{
	double rows = REGISTRY_GUESS;
	HeapTuple tuple;
	Oid relid;

	if (table == NULL)
		return rows;
	relid = get_relname_relid(table, get_namespace_oid("tinydancer", true));
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (HeapTupleIsValid(tuple))
	{
		double analysed = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;

		if (analysed > 0)
			rows = analysed;
		ReleaseSysCache(tuple);
	}
	return rows;
}

/* Statistics that say nothing but how many different values a column has. */
static HeapTuple
statistics(Oid relid, AttrNumber attribute, double n_distinct)
{
	Relation catalog = table_open(StatisticRelationId, AccessShareLock);
	Datum values[Natts_pg_statistic] = {0};
	bool nulls[Natts_pg_statistic] = {0};
	HeapTuple tuple;
	int slot;

	values[Anum_pg_statistic_starelid - 1] = ObjectIdGetDatum(relid);
	values[Anum_pg_statistic_staattnum - 1] = Int16GetDatum(attribute);
	values[Anum_pg_statistic_stadistinct - 1] = Float4GetDatum((float4) n_distinct);
	for (slot = 0; slot < STATISTIC_NUM_SLOTS; slot++)
	{
		nulls[Anum_pg_statistic_stanumbers1 - 1 + slot] = true;
		nulls[Anum_pg_statistic_stavalues1 - 1 + slot] = true;
	}
	tuple = heap_form_tuple(RelationGetDescr(catalog), values, nulls);
	table_close(catalog, AccessShareLock);
	return tuple;
}

static bool
foreign_column_stats(PlannerInfo *root, RangeTblEntry *rte, AttrNumber attribute,
					 VariableStatData *variable)
{
	RelOptInfo *rel = variable->rel;
	double n_distinct;

	if (rel != NULL && rel->fdwroutine != NULL && rel->fdw_private != NULL &&
		rel->fdwroutine->GetForeignRelSize == tdGetForeignRelSize)
	{
		n_distinct = tdpg_plan_distinct(rel, attribute);
		if (n_distinct > 0.0)
		{
			variable->statsTuple = statistics(rte->relid, attribute, n_distinct);
			variable->freefunc = heap_freetuple;
			variable->acl_ok = true;
			return true;
		}
	}
	return next_hook != NULL && next_hook(root, rte, attribute, variable);
}

void
tdpg_fdw_stats_init(void)
{
	next_hook = get_relation_stats_hook;
	get_relation_stats_hook = foreign_column_stats;
}
