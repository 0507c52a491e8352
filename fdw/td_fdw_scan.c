/*
 * td_fdw_scan.c - running a foreign scan: inputs in, decisions out.
 *
 * In: the plan's expressions.  Out: one row for each request that some agent can take.  Called by
 * the executor.
 *
 * What one request needs is allocated in the executor's per-tuple context, which it resets before
 * the next; an array of requests, and the inputs beside it, live in a context of their own until the
 * rescan.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "td_compat.h"
#include "td_fdw.h"

/* For ForeignScanState.fdw_state. */
typedef struct TdScanState
{
	TdTable *table;
	TdRouter *router;
	List *exprs;	/* ExprState, in the order of fdw_exprs */
	List *inputs;	/* their TdInput */
	List *no_limit; /* inputs set to NULL */
	int array;		/* which expression is an array of requests, or -1 */
	bool has_request;
	bool with_reasoning;

	bool started;		   /* the inputs of this (re)scan are evaluated */
	TdInputs values;	   /* of this rescan */
	MemoryContext context; /* of the array and the inputs beside it, reset at rescan */
	Datum *requests;	   /* its distinct elements */
	int n_requests;
	int next;
} TdScanState;

void
tdBeginForeignScan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	TdScanState *state = palloc0(sizeof(TdScanState));

	node->fdw_state = state;
	state->inputs = list_nth(plan->fdw_private, TD_PRIVATE_INPUTS);
	state->no_limit = list_nth(plan->fdw_private, TD_PRIVATE_NO_LIMIT);
	state->array = linitial_int(list_nth(plan->fdw_private, TD_PRIVATE_ARRAY));
	state->has_request = linitial_int(list_nth(plan->fdw_private, TD_PRIVATE_HAS_REQUEST)) != 0;
	state->with_reasoning =
		linitial_int(list_nth(plan->fdw_private, TD_PRIVATE_WITH_REASONING)) != 0;
	/* EXPLAIN embeds nothing and reads no registry. */
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) || !state->has_request)
		return;

	state->table = tdpg_fdw_table(RelationGetRelid(node->ss.ss_currentRelation));
	state->exprs = ExecInitExprList(plan->fdw_exprs, (PlanState *) node);
	/* Pinned here, so that a cursor sees one registry from its first row to its last. */
	state->router = tdpg_router_create(node->ss.ps.state->es_query_cxt);
	state->context = AllocSetContextCreate(node->ss.ps.state->es_query_cxt,
										   "tinydancer array of requests", ALLOCSET_SMALL_SIZES);
}

/* Two texts by bytes, then by position, so that the first of equal ones comes first. */
typedef struct TdElement
{
	Datum value;
	int position;
} TdElement;

static int
element_compare(const void *a, const void *b)
{
	const TdElement *x = a;
	const TdElement *y = b;
	text *s = (text *) DatumGetPointer(x->value);
	text *t = (text *) DatumGetPointer(y->value);
	size_t s_len = VARSIZE_ANY_EXHDR(s);
	size_t t_len = VARSIZE_ANY_EXHDR(t);
	int order = memcmp(VARDATA_ANY(s), VARDATA_ANY(t), Min(s_len, t_len));

	if (order != 0)
		return order;
	if (s_len != t_len)
		return s_len < t_len ? -1 : 1;
	return 0;
}

static int
element_order(const void *a, const void *b)
{
	int order = element_compare(a, b);
	int x = ((const TdElement *) a)->position;
	int y = ((const TdElement *) b)->position;

	return order != 0 ? order : x < y ? -1 : x > y ? 1 : 0;
}

static int
position_order(const void *a, const void *b)
{
	int x = ((const TdElement *) a)->position;
	int y = ((const TdElement *) b)->position;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* The distinct elements of an array of requests, in the array's order, NULLs left out. */
static void
spread_array(TdScanState *state, Datum array)
{
	ArrayType *copy = DatumGetArrayTypePCopy(array);
	Datum *elements;
	bool *nulls;
	TdElement *distinct;
	int n;
	int kept = 0;
	int unique = 0;
	int i;

	deconstruct_array(copy, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	distinct = palloc(sizeof(TdElement) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			continue;
		distinct[kept].value = elements[i];
		distinct[kept].position = i;
		kept++;
	}
	qsort(distinct, kept, sizeof(TdElement), element_order);
	for (i = 0; i < kept; i++)
	{
		if (i == 0 || element_compare(&distinct[i], &distinct[unique - 1]) != 0)
			distinct[unique++] = distinct[i];
	}
	qsort(distinct, unique, sizeof(TdElement), position_order);
	state->requests = palloc(sizeof(Datum) * Max(unique, 1));
	for (i = 0; i < unique; i++)
		state->requests[i] = distinct[i].value;
	state->n_requests = unique;
}

/* Detoasted once, since the echo may be compared and the kernel reads it too. */
static Datum
detoast(int input, Datum value)
{
	Oid type = tdpg_route_results.inputs[input].type;

	if (type == FLOAT8OID)
		return value;
	return PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
}

/*
 * Evaluate the inputs.  False when one of them is NULL: "= NULL" is true of no row.
 * Results are in the current context.
 */
static bool
evaluate_inputs_here(ForeignScanState *node, TdScanState *state)
{
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	ListCell *expr;
	ListCell *input;
	ListCell *lc;
	int position = 0;

	state->values = state->table->defaults;
	foreach (lc, state->no_limit)
		state->values.values[lfirst_int(lc)].isnull = true;
	state->n_requests = 1;
	forboth (expr, state->exprs, input, state->inputs)
	{
		int which = lfirst_int(input);
		bool isnull;
		Datum value = ExecEvalExpr((ExprState *) lfirst(expr), econtext, &isnull);

		if (isnull)
			return false;
		if (position++ == state->array)
		{
			spread_array(state, value);
			continue;
		}
		state->values.values[which].isnull = false;
		state->values.values[which].value = detoast(which, value);
	}
	return true;
}

/*
 * The same; with an array all inputs live as long as the array does, since the executor resets its
 * per-tuple context after the first request.
 */
static bool
evaluate_inputs(ForeignScanState *node, TdScanState *state)
{
	MemoryContext before;
	bool result;

	if (state->array < 0)
		return evaluate_inputs_here(node, state);
	MemoryContextReset(state->context);
	before = MemoryContextSwitchTo(state->context);
	result = evaluate_inputs_here(node, state);
	MemoryContextSwitchTo(before);
	return result;
}

/* Route one request into the slot; leaves the slot empty when no agent passes the limits. */
static void
store_decision(TdScanState *state, TupleTableSlot *slot)
{
	TdRouter *router = state->router;
	Datum outputs[TD_N_OUTPUTS];
	bool nulls[TD_N_OUTPUTS];
	uint32 best;
	int i;

	ExecClearTuple(slot);
	if (!tdpg_router_score(router, &state->values))
		return;
	best = td_score_best(router->candidates, router->registry->view.n_agents,
						 &router->n_eligible);
	if (best == TD_NONE)
		return;
	tdpg_router_outputs(router, &router->candidates[best], 1, state->with_reasoning, outputs,
						nulls);
	for (i = 0; i < state->table->n_columns; i++)
	{
		const TdColumn *column = &state->table->columns[i];

		switch (column->role)
		{
			case TD_COLUMN_INPUT:
				slot->tts_values[i] = state->values.values[column->which].value;
				slot->tts_isnull[i] = state->values.values[column->which].isnull;
				break;
			case TD_COLUMN_OUTPUT:
				slot->tts_values[i] = outputs[column->which];
				slot->tts_isnull[i] = nulls[column->which];
				break;
			case TD_COLUMN_NONE:
				slot->tts_values[i] = (Datum) 0;
				slot->tts_isnull[i] = true;
				break;
		}
	}
	ExecStoreVirtualTuple(slot);
}

TupleTableSlot *
tdIterateForeignScan(ForeignScanState *node)
{
	TdScanState *state = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	if (!state->has_request)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION),
				 errmsg("\"%s\" needs a request to route",
						RelationGetRelationName(node->ss.ss_currentRelation)),
				 errdetail("The foreign table makes a decision for each request that the query "
						   "names; it stores none."),
				 errhint("Add WHERE request = '...' or join on it. A FULL or RIGHT JOIN cannot "
						 "pass requests to it: use an inner or LEFT JOIN from the table of "
						 "requests.")));

	ExecClearTuple(slot);
	if (!state->started)
	{
		state->started = true;
		state->next = 0;
		if (!evaluate_inputs(node, state))
			state->n_requests = 0;
	}
	while (TupIsNull(slot) && state->next < state->n_requests)
	{
		CHECK_FOR_INTERRUPTS();
		if (state->array >= 0)
		{
			state->values.values[TD_IN_REQUEST].isnull = false;
			state->values.values[TD_IN_REQUEST].value = state->requests[state->next];
		}
		state->next++;
		store_decision(state, slot);
	}
	return slot;
}

void
tdReScanForeignScan(ForeignScanState *node)
{
	TdScanState *state = node->fdw_state;

	state->started = false;
	if (state->context != NULL)
		MemoryContextReset(state->context);
}

void
tdEndForeignScan(ForeignScanState *node)
{
	/* Everything, the pin on the registry included, goes with the query's context. */
}

/* Of an array of requests, the one that a row has answered; false when it is an element no more. */
static bool
keep_request(TdScanState *state, TupleTableSlot *slot)
{
	NullableDatum *request = &state->values.values[TD_REQUEST];
	int i;

	for (i = 0; i < state->table->n_columns; i++)
	{
		const TdColumn *column = &state->table->columns[i];

		if (column->role == TD_COLUMN_INPUT && column->which == TD_REQUEST)
			request->value = slot_getattr(slot, i + 1, &request->isnull);
	}
	for (i = 0; i < state->n_requests; i++)
	{
		TdElement old = {request->value, 0};
		TdElement new = {state->requests[i], 0};

		if (!request->isnull && element_compare(&old, &new) == 0)
		{
			request->value = state->requests[i];
			return true;
		}
	}
	return false;
}

/*
 * A row of the query was changed by another session while this one waited for it: decide again,
 * from the inputs as they are now, so that UPDATE ... FROM stores the decision of the new text.
 */
bool
tdRecheckForeignScan(ForeignScanState *node, TupleTableSlot *slot)
{
	TdScanState *state = node->fdw_state;

	if (!state->has_request)
		return true;
	/* MERGE stores the row that it had, whatever we put into the slot: it matches or it does not. */
	if (node->ss.ps.state->es_plannedstmt->commandType == CMD_MERGE)
		return true;
	if (!evaluate_inputs(node, state))
		return false;
	if (state->array >= 0 && !keep_request(state, slot))
		return false;
	store_decision(state, slot);
	return !TupIsNull(slot);
}

static char *
input_name(int input)
{
	return unconstify(char *, tdpg_route_results.inputs[input].name);
}

void
tdExplainForeignScan(ForeignScanState *node, ExplainState *es)
{
	TdScanState *state = node->fdw_state;
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	ListCell *lc;
	ListCell *input;

	if (!state->has_request)
	{
		ExplainPropertyText("Request", "none: fails when it is run", es);
		return;
	}
	if (es->verbose)
	{
		List *names = NIL;

		forboth (lc, plan->fdw_exprs, input, state->inputs)
			names = lappend(names, input_name(lfirst_int(input)));
		foreach (lc, state->no_limit)
			names = lappend(names, psprintf("%s (none)", input_name(lfirst_int(lc))));
		ExplainPropertyList("Inputs", names, es);
	}
	if (es->analyze && state->router != NULL)
	{
		ExplainPropertyInteger("Requests Routed", NULL, (int64) state->router->n_requests, es);
		ExplainPropertyInteger("Agents Scored", NULL,
							   (int64) (state->router->n_requests *
										state->router->registry->view.n_agents),
							   es);
	}
}
