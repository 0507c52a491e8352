/*
 * td_fdw_scan.c - running a foreign scan: inputs in, rows out.
 *
 * In: the plan's expressions.  Out: the rows that the table's kind answers for each request.  Called
 * by the executor.
 *
 * What a row needs is allocated in the executor's per-tuple context, which it resets before the next;
 * what the rows of a request share, until the next request; inputs, and an array of requests, until
 * the rescan.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "td_activity.h"
#include "td_compat.h"
#include "td_fdw.h"

void
tdBeginForeignScan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	TdScanState *state = palloc0(sizeof(TdScanState));
	MemoryContext context = node->ss.ps.state->es_query_cxt;
	ListCell *lc;

	node->fdw_state = state;
	state->table = tdpg_fdw_table(RelationGetRelid(node->ss.ss_currentRelation));
	state->inputs = list_nth(plan->fdw_private, TD_PRIVATE_INPUTS);
	state->no_limit = list_nth(plan->fdw_private, TD_PRIVATE_NO_LIMIT);
	state->array = linitial_int(list_nth(plan->fdw_private, TD_PRIVATE_ARRAY));
	state->has_request = linitial_int(list_nth(plan->fdw_private, TD_PRIVATE_HAS_REQUEST)) != 0;
	foreach (lc, (List *) list_nth(plan->fdw_private, TD_PRIVATE_OUTPUTS))
		state->wanted[lfirst_int(lc)] = true;
	/* EXPLAIN embeds nothing and reads no registry. */
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) || !state->has_request)
		return;

	state->exprs = ExecInitExprList(plan->fdw_exprs, (PlanState *) node);
	/* Begun here, so that a cursor sees one registry from its first row to its last. */
	state->answers = state->table->kind->begin(context, state->wanted);
	state->rescan_context = AllocSetContextCreate(context, "tinydancer inputs of a scan",
												  ALLOCSET_SMALL_SIZES);
	state->request_context = AllocSetContextCreate(context, "tinydancer request",
												   ALLOCSET_SMALL_SIZES);
}

/* Detoasted once, since the echo may be compared and the kernel reads it too. */
static Datum
detoast(const TdColumnKind *input, Datum value)
{
	if (input->type == TEXTOID || input->type == TEXTARRAYOID || input->type == FLOAT4ARRAYOID)
		return PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
	return value;
}

/*
 * Evaluate the inputs, in the rescan's context.  False when one of them is NULL: "= NULL" is true of
 * no row.
 */
static bool
evaluate_inputs(ForeignScanState *node, TdScanState *state)
{
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	MemoryContext before = MemoryContextSwitchTo(state->rescan_context);
	bool known = true;
	int position = 0;
	ListCell *expr;
	ListCell *input;
	ListCell *lc;

	MemoryContextReset(state->rescan_context);
	tdpg_activity.inputs_evaluated++;
	state->values = state->table->defaults;
	foreach (lc, state->no_limit)
		state->values.values[lfirst_int(lc)].isnull = true;
	state->n_requests = 1;
	state->most_rows = PG_INT64_MAX;
	forboth (expr, state->exprs, input, state->inputs)
	{
		int which = lfirst_int(input);
		bool isnull;
		Datum value = ExecEvalExpr((ExprState *) lfirst(expr), econtext, &isnull);

		known = known && !isnull;
		if (!known)
			break;
		if (which == TD_RANK_BOUND)
			state->most_rows = Min(state->most_rows, DatumGetInt64(value));
		else if (position == state->array)
			state->requests = tdpg_distinct_texts(value, &state->n_requests);
		else
		{
			state->values.values[which].isnull = false;
			state->values.values[which].value = detoast(&state->table->kind->inputs[which], value);
		}
		position++;
	}
	MemoryContextSwitchTo(before);
	return known;
}

static void
ask(TdScanState *state)
{
	MemoryContext before = MemoryContextSwitchTo(state->request_context);

	MemoryContextReset(state->request_context);
	state->table->kind->ask(state->answers, &state->values);
	state->n_rows = 0;
	MemoryContextSwitchTo(before);
}

/* The next row of the request into the slot; false, and the slot is empty, after the last one. */
static bool
store_row(TdScanState *state, TupleTableSlot *slot)
{
	Datum outputs[TD_MAX_OUTPUTS];
	bool nulls[TD_MAX_OUTPUTS];
	int i;

	ExecClearTuple(slot);
	/* Row n has rank n, or none. */
	if (state->n_rows >= state->most_rows ||
		!state->table->kind->next(state->answers, outputs, nulls))
		return false;
	state->n_rows++;
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
	return true;
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

	if (!state->started)
	{
		state->started = true;
		state->answering = false;
		state->next = 0;
		if (!evaluate_inputs(node, state))
			state->n_requests = 0;
	}
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (state->answering && store_row(state, slot))
			return slot;
		state->answering = false;
		if (state->next == state->n_requests)
			return ExecClearTuple(slot);
		if (state->array >= 0)
		{
			state->values.values[TD_REQUEST].isnull = false;
			state->values.values[TD_REQUEST].value = state->requests[state->next];
		}
		state->next++;
		ask(state);
		state->answering = true;
	}
}

void
tdReScanForeignScan(ForeignScanState *node)
{
	TdScanState *state = node->fdw_state;

	state->started = false;
}

void
tdEndForeignScan(ForeignScanState *node)
{
	/* Everything, the pin on the registry included, goes with the query's context. */
}

/* ---------------------------------------------------------------- waiting for another session */

/* A text that a row has in a column of the table, or NULL. */
static text *
text_of(const TdTable *table, TupleTableSlot *slot, TdColumnRole role, int which)
{
	int i;

	for (i = 0; i < table->n_columns; i++)
	{
		bool isnull;
		Datum value;

		if (table->columns[i].role != role || table->columns[i].which != which)
			continue;
		value = slot_getattr(slot, i + 1, &isnull);
		return isnull ? NULL : DatumGetTextPCopy(value);
	}
	return NULL;
}

static bool
same_text(text *a, text *b)
{
	return a != NULL && b != NULL && VARSIZE(a) == VARSIZE(b) &&
		   memcmp(VARDATA(a), VARDATA(b), VARSIZE(a) - VARHDRSZ) == 0;
}

/* Of an array of requests, the one that a row has answered; false when it is an element no more. */
static bool
keep_request(TdScanState *state, text *request)
{
	int i;

	for (i = 0; i < state->n_requests; i++)
	{
		if (!same_text(request, DatumGetTextPCopy(state->requests[i])))
			continue;
		state->values.values[TD_REQUEST].isnull = false;
		state->values.values[TD_REQUEST].value = state->requests[i];
		return true;
	}
	return false;
}

/*
 * A row of the query was changed by another session while this one waited for it: answer again, from
 * the inputs as they are now, so that UPDATE ... FROM stores the decision of the new text.  Where the
 * query's filter leaves one row of the new answer, that is the row; else it is the one with the key
 * that the row had.
 */
bool
tdRecheckForeignScan(ForeignScanState *node, TupleTableSlot *slot)
{
	TdScanState *state = node->fdw_state;
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	const TdTable *table = state->table;
	text *key;
	text *request;
	HeapTuple chosen = NULL;
	bool by_key = false;
	int n_passed = 0;

	if (!state->has_request)
		return true;
	/* MERGE stores the row that it had, whatever we put into the slot: it matches or it does not. */
	if (node->ss.ps.state->es_plannedstmt->commandType == CMD_MERGE)
		return true;
	key = text_of(table, slot, TD_COLUMN_OUTPUT, table->kind->key);
	request = text_of(table, slot, TD_COLUMN_INPUT, TD_REQUEST);
	if (!evaluate_inputs(node, state))
		return false;
	if (state->array >= 0 && !keep_request(state, request))
		return false;
	ask(state);
	econtext->ecxt_scantuple = slot;
	while (store_row(state, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!ExecQual(node->ss.ps.qual, econtext))
			continue;
		n_passed++;
		if (same_text(key, text_of(table, slot, TD_COLUMN_OUTPUT, table->kind->key)))
			by_key = true;
		else if (chosen != NULL)
			continue;
		chosen = ExecCopySlotHeapTuple(slot);
		if (by_key)
			break;
	}
	ExecClearTuple(slot);
	if (!by_key && n_passed != 1)
		return false;
	ExecForceStoreHeapTuple(chosen, slot, false);
	return true;
}
