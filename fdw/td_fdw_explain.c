/*
 * td_fdw_explain.c - what EXPLAIN says of a foreign scan.
 *
 * In: the plan, and after EXPLAIN ANALYZE the figures of the scan.  Out: properties.  Called by the
 * executor.
 *
 * VERBOSE shows the expressions of inputs and never their values: nothing is evaluated, embedded or
 * routed here.
 */
#include "postgres.h"

#include "commands/explain.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "td_compat.h"
#include "td_fdw.h"

/*
 * The nodes above a plan node, the nearest first, as far as they belong to the same plan tree: an
 * expression that a join passes down is told by the join's other side.
 */
static bool
find_ancestors(Plan *from, const Plan *wanted, List **ancestors)
{
	List *children = NIL;
	ListCell *lc;

	if (from == NULL || from == wanted)
		return from != NULL;
	check_stack_depth();
	if (IsA(from, Append))
		children = ((Append *) from)->appendplans;
	else if (IsA(from, MergeAppend))
		children = ((MergeAppend *) from)->mergeplans;
	else if (IsA(from, SubqueryScan))
		children = list_make1(((SubqueryScan *) from)->subplan);
	else
		children = list_make2(outerPlan(from), innerPlan(from));
	foreach (lc, children)
	{
		if (find_ancestors(lfirst(lc), wanted, ancestors))
		{
			*ancestors = lappend(*ancestors, from);
			return true;
		}
	}
	return false;
}

/* What deparse_expression() needs to know of the plan. */
static List *
deparse_context(const ForeignScan *plan, ExplainState *es)
{
	List *ancestors = NIL;
	ListCell *lc;

	if (!find_ancestors(es->pstmt->planTree, (const Plan *) plan, &ancestors))
	{
		foreach (lc, es->pstmt->subplans)
		{
			if (find_ancestors(lfirst(lc), (const Plan *) plan, &ancestors))
				break;
		}
	}
	return set_deparse_context_plan(es->deparse_cxt, unconstify(Plan *, (const Plan *) plan),
									ancestors);
}

/* The expression of an input as SQL, or NULL when there is none: no limit. */
static char *
source_of(const TdScanState *state, const ForeignScan *plan, int input, List *context)
{
	const TdColumnKind *column = &state->table->kind->inputs[input];
	const NullableDatum *preset = &state->table->defaults.values[input];
	ListCell *expr;
	ListCell *lc;
	int16 length;
	bool by_value;

	forboth (expr, plan->fdw_exprs, lc, state->inputs)
	{
		if (lfirst_int(lc) == input)
			return deparse_expression(lfirst(expr), context, true, false);
	}
	if (list_member_int(state->no_limit, input) || preset->isnull)
		return NULL;
	get_typlenbyval(column->type, &length, &by_value);
	return deparse_expression((Node *) makeConst(column->type, -1, get_typcollation(column->type),
												 length, preset->value, false, by_value),
							  context, false, false);
}

/* Which encoder and model will be used, as those that are active say. */
static void
explain_models(const TdTableKind *kind, ExplainState *es)
{
	const TdActiveEncoder *encoder = tdpg_registry_encoder(CurrentMemoryContext);
	const TdModel *model;

	ExplainPropertyText("Encoder", encoder->id, es);
	if (kind->task < 0)
		return;
	model = tdpg_model_acquire((td_task) kind->task, encoder, CurrentMemoryContext);
	if (model != NULL)
		ExplainPropertyText("Model",
							psprintf("%s %d%s", td_task_name((td_task) kind->task), model->version,
									 model->builtin ? " (built-in)" : ""),
							es);
	/* As the server does with what is usually not there: for programs only. */
	else if (es->format != EXPLAIN_FORMAT_TEXT)
		ExplainPropertyText("Model", "none", es);
}

static void
explain_inputs(const TdScanState *state, const ForeignScan *plan, ExplainState *es)
{
	const TdTableKind *kind = state->table->kind;
	List *context = deparse_context(plan, es);
	bool has_text = false;
	bool has_vector = false;
	List *names = NIL;
	List *limits = NIL;
	ListCell *lc;
	int i;

	foreach (lc, state->inputs)
	{
		int input = lfirst_int(lc);

		if (input == TD_RANK_BOUND)
			continue;
		has_text = has_text || input == TD_REQUEST;
		has_vector = has_vector || input == kind->embedding;
		names = lappend(names, pstrdup(kind->inputs[input].name));
	}
	foreach (lc, state->no_limit)
		names = lappend(names, psprintf("%s (none)", kind->inputs[lfirst_int(lc)].name));
	ExplainPropertyText("Request Kind",
						state->array >= 0		 ? "array of texts"
						: has_text && has_vector ? "text with its vector"
						: has_vector			 ? "vector"
												 : "text",
						es);
	ExplainPropertyList("Inputs", names, es);
	for (i = 0; i < kind->n_inputs; i++)
	{
		char *source;

		if (tdpg_is_request(state->table, i))
			continue;
		source = source_of(state, plan, i, context);
		if (source == NULL)
			continue;
		if (i == kind->objective)
			ExplainPropertyText("Objective", source, es);
		else
			limits = lappend(limits, psprintf("%s = %s", kind->inputs[i].name, source));
	}
	if (limits != NIL)
		ExplainPropertyList("Limits", limits, es);
	explain_models(kind, es);
}

void
tdExplainForeignScan(ForeignScanState *node, ExplainState *es)
{
	const TdScanState *state = node->fdw_state;
	const TdTableKind *kind = state->table->kind;

	if (!state->has_request)
	{
		ExplainPropertyText("Request", "none: fails when it is run", es);
		return;
	}
	if (es->verbose)
		explain_inputs(state, (ForeignScan *) node->ss.ps.plan, es);
	if (es->analyze && state->answers != NULL)
	{
		ExplainPropertyInteger(kind->requests_label, NULL, (int64) state->answers->n_requests, es);
		ExplainPropertyInteger(kind->scored_label, NULL, (int64) state->answers->n_scored, es);
	}
}
