/*
 * td_fdw_make_plan.c - the plan of the path that the planner has chosen.
 *
 * In: the path and its clauses.  Out: a plan whose fdw_exprs compute the inputs, and whose filter keeps
 * every clause that supplies none.  Called by the planner.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "optimizer/optimizer.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"

#include "td_compat.h"
#include "td_fdw_clauses.h"

/* The outputs that the query reads, as an int list. */
static List *
outputs_read(RelOptInfo *rel, const TdTable *table, List *clauses)
{
	Bitmapset *attributes = NULL;
	List *outputs = NIL;
	bool whole_row;
	int i;

	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &attributes);
	pull_varattnos((Node *) clauses, rel->relid, &attributes);
	whole_row = bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, attributes);
	for (i = 0; i < table->n_columns; i++)
	{
		if (table->columns[i].role == TD_COLUMN_OUTPUT &&
			(whole_row ||
			 bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber, attributes)))
			outputs = lappend_int(outputs, table->columns[i].which);
	}
	return outputs;
}

ForeignScan *
tdGetForeignPlan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *best_path, List *tlist,
				 List *scan_clauses, Plan *outer_plan)
{
	const TdTable *table = tdpg_plan_table(rel);
	bool supplied[TD_MAX_INPUTS];
	TdClause *matches;
	bool can_run = linitial_int(best_path->fdw_private) != 0;
	List *clauses = extract_actual_clauses(scan_clauses, false);
	List *local = NIL;
	List *recheck = NIL;
	List *exprs = NIL;
	List *inputs = NIL;
	List *no_limit = NIL;
	int array = -1;
	bool is_equality;
	ListCell *lc;

	matches = tdpg_match_clauses(root, rel, table, clauses, supplied);
	foreach (lc, clauses)
	{
		Expr *clause = lfirst(lc);
		TdClause match = matches[foreach_current_index(lc)];

		if (!can_run || !tdpg_clause_supplies(&match))
		{
			local = lappend(local, clause);
			continue;
		}
		if (match.says_more)
			local = lappend(local, clause);
		else
			recheck = lappend(recheck, clause);
		if (match.kind == TD_CLAUSE_NULL)
		{
			no_limit = lappend_int(no_limit, match.input);
			continue;
		}
		if (match.kind == TD_CLAUSE_ARRAY)
			array = list_length(exprs);
		exprs = lappend(exprs, match.source);
		inputs = lappend_int(inputs, match.input);
	}

	foreach (lc, local)
	{
		Expr *bound = tdpg_rank_bound(root, rel, table, lfirst(lc), &is_equality);

		if (bound == NULL)
			continue;
		exprs = lappend(exprs, bound);
		inputs = lappend_int(inputs, TD_RANK_BOUND);
	}

	return make_foreignscan(tlist, local, rel->relid, exprs,
							list_make5(inputs, no_limit, list_make1_int(array),
									   list_make1_int(can_run ? 1 : 0),
									   outputs_read(rel, table, local)),
							NIL, recheck, outer_plan);
}
