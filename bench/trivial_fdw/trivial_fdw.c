/*
 * trivial_fdw.c - a foreign table that does nothing but return its request.
 *
 * In: an equality on column "request".  Out: one row that echoes it.  Built by bench/join.py for a
 * throw-away server: what a join through any wrapper costs at least.  Paths and plan are made as
 * tinydancer_fdw makes them, so that the executor does the same around both.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

/* The other side of "request = something", or NULL. */
static Expr *
request_of(RelOptInfo *rel, Expr *clause)
{
	OpExpr *op = (OpExpr *) clause;
	int side;

	if (!IsA(clause, OpExpr) || list_length(op->args) != 2 ||
		strcmp(get_opname(op->opno), "=") != 0)
		return NULL;
	for (side = 0; side < 2; side++)
	{
		Var *var = list_nth(op->args, side);

		if (IsA(var, Var) && var->varno == (int) rel->relid && var->varattno == 1)
			return list_nth(op->args, 1 - side);
	}
	return NULL;
}

static void
get_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	rel->rows = rel->tuples = 1;
}

static bool
member_is_request(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec, EquivalenceMember *em,
				  void *arg)
{
	Var *var = (Var *) em->em_expr;

	return IsA(var, Var) && var->varno == (int) rel->relid && var->varattno == 1;
}

static void
add(RelOptInfo *rel, PlannerInfo *root, Cost cost, Relids outer)
{
#if PG_VERSION_NUM >= 180000
	add_path(rel, (Path *) create_foreignscan_path(root, rel, NULL, 1, 0, 0, cost, NIL, outer, NULL,
												   NIL, NIL));
#elif PG_VERSION_NUM >= 170000
	add_path(rel, (Path *) create_foreignscan_path(root, rel, NULL, 1, 0, cost, NIL, outer, NULL,
												   NIL, NIL));
#else
	add_path(rel, (Path *) create_foreignscan_path(root, rel, NULL, 1, 0, cost, NIL, outer, NULL,
												   NIL));
#endif
}

static void
get_paths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	List *clauses = generate_implied_equalities_for_column(root, rel, member_is_request, NULL,
														   rel->lateral_referencers);
	ListCell *lc;

	add(rel, root, clauses == NIL ? 1 : 1e15, rel->lateral_relids);
	foreach (lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

		add(rel, root, 1, bms_del_member(bms_copy(rinfo->clause_relids), rel->relid));
	}
}

static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid relid, ForeignPath *path, List *tlist,
		 List *scan_clauses, Plan *outer_plan)
{
	List *local = NIL;
	List *requests = NIL;
	ListCell *lc;

	foreach (lc, extract_actual_clauses(scan_clauses, false))
	{
		Expr *request = requests == NIL ? request_of(rel, lfirst(lc)) : NULL;

		if (request != NULL)
			requests = list_make1(request);
		else
			local = lappend(local, lfirst(lc));
	}
	if (requests == NIL)
		ereport(ERROR, (errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
						errmsg("the trivial table needs a request"),
						errdetail("It returns what it is asked."),
						errhint("Add WHERE request = '...' or join on it.")));
	return make_foreignscan(tlist, local, rel->relid, requests, NIL, NIL, NIL, outer_plan);
}

typedef struct TrivialState
{
	ExprState *request;
	bool done;
} TrivialState;

static void
begin_scan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	TrivialState *state = palloc0(sizeof(TrivialState));

	state->request = ExecInitExpr(linitial(plan->fdw_exprs), (PlanState *) node);
	node->fdw_state = state;
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	TrivialState *state = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	ExecClearTuple(slot);
	if (state->done)
		return slot;
	state->done = true;
	slot->tts_values[0] =
		ExecEvalExpr(state->request, node->ss.ps.ps_ExprContext, &slot->tts_isnull[0]);
	return slot->tts_isnull[0] ? slot : ExecStoreVirtualTuple(slot);
}

static void
rescan(ForeignScanState *node)
{
	((TrivialState *) node->fdw_state)->done = false;
}

static void
end_scan(ForeignScanState *node)
{
}

PG_FUNCTION_INFO_V1(trivial_fdw_handler);

Datum
trivial_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = get_rel_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = iterate_scan;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_scan;
	PG_RETURN_POINTER(routine);
}
