/*
 * td_fdw_clauses.c - which clauses on a foreign table supply the inputs of what it answers.
 *
 * In: clauses as the planner holds them.  Out: for each of them the input that it supplies, and the
 * expression that computes it.  Called by td_fdw_plan.c.
 *
 * An input column echoes the value that was used.  So a clause that supplies an input can leave the
 * local filter, and a second clause on the same column stays and compares the echo.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "td_compat.h"
#include "td_fdw_clauses.h"

static Node *
strip_relabel(Node *node)
{
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* What an expression is as a column of this table in a role, or -1. */
static int
column_of(RelOptInfo *rel, const TdTable *table, Node *node, TdColumnRole role)
{
	Var *var;

	node = strip_relabel(node);
	if (node == NULL || !IsA(node, Var))
		return -1;
	var = (Var *) node;
	if (var->varno != (int) rel->relid || var->varlevelsup != 0 || var->varattno < 1 ||
		var->varattno > table->n_columns)
		return -1;
	if (table->columns[var->varattno - 1].role != role)
		return -1;
	return table->columns[var->varattno - 1].which;
}

int
tdpg_input_of(RelOptInfo *rel, const TdTable *table, Node *node)
{
	return column_of(rel, table, node, TD_COLUMN_INPUT);
}

int
tdpg_output_of(RelOptInfo *rel, const TdTable *table, Node *node)
{
	return column_of(rel, table, node, TD_COLUMN_OUTPUT);
}

/* Whether an operator is equality as the column's type understands it. */
static bool
is_equality(const TdTable *table, Oid operator, int input)
{
	TypeCacheEntry *type;

	/* What nearly all queries say; the first look-up of a type in a session takes ten of the catalog. */
	if (operator == TextEqualOperator)
		return table->kind->inputs[input].type == TEXTOID;
	type = lookup_type_cache(table->kind->inputs[input].type, TYPECACHE_BTREE_OPFAMILY);
	return OidIsValid(type->btree_opf) &&
		   get_op_opfamily_strategy(operator, type->btree_opf) == BTEqualStrategyNumber;
}

bool
tdpg_is_outside(PlannerInfo *root, RelOptInfo *rel, Node *node)
{
	return !bms_is_member(rel->relid, pull_varnos(root, node)) && !contain_volatile_functions(node);
}

Expr *
tdpg_as_type(Node *node, Oid type)
{
	Oid from = exprType(node);

	if (from == type)
		return (Expr *) node;
	return (Expr *) coerce_to_target_type(NULL, node, from, type, -1, COERCION_EXPLICIT,
										  COERCE_IMPLICIT_CAST, -1);
}

/*
 * Under a nondeterministic collation different texts are equal, so the text that was asked for is
 * not the text that would be routed, and Memoize would take the answer of the one for the other.
 */
static void
check_collation(Oid collation)
{
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot route by a nondeterministic collation"),
						errdetail("Collation \"%s\" takes different texts for equal.",
								  get_collation_name(collation)),
						errhint("Use COLLATE \"C\".")));
}

/* How one of several alternatives, or one of the conditions in it, names requests. */
static TdClause
match_alternative(PlannerInfo *root, RelOptInfo *rel, const TdTable *table, Expr *clause)
{
	TdClause match = {TD_CLAUSE_NONE, -1, -1, NULL, false};
	ListCell *lc;

	if (!is_andclause(clause))
	{
		TdClause one = tdpg_match_clause(root, rel, table, clause);

		return one.input == TD_REQUEST && tdpg_clause_supplies(&one) ? one : match;
	}
	foreach (lc, ((BoolExpr *) clause)->args)
	{
		match = match_alternative(root, rel, table, lfirst(lc));
		if (match.kind != TD_CLAUSE_NONE)
			break;
	}
	match.says_more = true;
	return match;
}

/*
 * request = a OR request = b is request = ANY (ARRAY[a, b]): each distinct one is routed once.
 * Where an alternative has further conditions, the whole stays a filter of what these requests give.
 */
static TdClause
match_alternatives(PlannerInfo *root, RelOptInfo *rel, const TdTable *table, BoolExpr *clause)
{
	TdClause match = {TD_CLAUSE_NONE, -1, -1, NULL, false};
	ArrayExpr *values = makeNode(ArrayExpr);
	bool says_more = false;
	ListCell *lc;

	values->array_typeid = TEXTARRAYOID;
	values->array_collid = DEFAULT_COLLATION_OID;
	values->element_typeid = TEXTOID;
	values->multidims = false;
	values->location = -1;
	match.source = (Expr *) values;
	foreach (lc, clause->args)
	{
		TdClause one = match_alternative(root, rel, table, lfirst(lc));

		if (one.kind == TD_CLAUSE_NONE)
			return match;
		says_more = says_more || one.says_more;
		if (one.kind == TD_CLAUSE_VALUE)
			values->elements = lappend(values->elements, one.source);
		else
			match.source = (Expr *) makeFuncExpr(
				F_ARRAY_CAT, TEXTARRAYOID, list_make2(match.source, one.source),
				DEFAULT_COLLATION_OID, DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	}
	match.kind = TD_CLAUSE_ARRAY;
	match.input = TD_REQUEST;
	match.says_more = says_more;
	return match;
}

TdClause
tdpg_match_clause(PlannerInfo *root, RelOptInfo *rel, const TdTable *table, Expr *clause)
{
	TdClause match = {TD_CLAUSE_NONE, -1, -1, NULL, false};

	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr *op = (OpExpr *) clause;
		Node *left = linitial(op->args);
		Node *right = lsecond(op->args);
		int input = tdpg_input_of(rel, table, left);
		Node *other = right;

		if (input < 0)
		{
			input = tdpg_input_of(rel, table, right);
			other = left;
		}
		if (input < 0 || !is_equality(table, op->opno, input))
			return match;
		match.other = tdpg_input_of(rel, table, other);
		if (match.other >= 0 &&
			table->kind->inputs[match.other].type == table->kind->inputs[input].type)
		{
			match.kind = TD_CLAUSE_SAME;
			match.input = input;
			return match;
		}
		if (!tdpg_is_outside(root, rel, other))
			return match;
		match.source = tdpg_as_type(other, table->kind->inputs[input].type);
		if (match.source == NULL)
			return match;
		check_collation(op->inputcollid);
		match.kind = TD_CLAUSE_VALUE;
		match.input = input;
	}
	else if (IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr)
	{
		ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;
		Node *array = lsecond(op->args);
		int input = tdpg_input_of(rel, table, linitial(op->args));

		if (input != TD_REQUEST || !is_equality(table, op->opno, input) ||
			!tdpg_is_outside(root, rel, array))
			return match;
		match.source = tdpg_as_type(array, TEXTARRAYOID);
		if (match.source == NULL)
			return match;
		check_collation(op->inputcollid);
		match.kind = TD_CLAUSE_ARRAY;
		match.input = input;
	}
	else if (is_orclause(clause))
		return match_alternatives(root, rel, table, (BoolExpr *) clause);
	else if (IsA(clause, NullTest) && ((NullTest *) clause)->nulltesttype == IS_NULL)
	{
		int input = tdpg_input_of(rel, table, (Node *) ((NullTest *) clause)->arg);

		if (input < 0 || tdpg_is_request(table, input))
			return match;
		match.kind = TD_CLAUSE_NULL;
		match.input = input;
	}
	return match;
}

bool
tdpg_clause_supplies(const TdClause *match)
{
	return match->kind != TD_CLAUSE_NONE && match->kind != TD_CLAUSE_SAME;
}

/*
 * The planner turns "a = x AND b = x" into "a = x AND a = b": where one of two equal columns is
 * supplied, so is the other.  matches[n]; a TD_CLAUSE_SAME that is used becomes a TD_CLAUSE_VALUE
 * of the column that lacked one.
 */
static void
resolve_equal_columns(TdClause *matches, int n, bool *supplied, Expr **sources)
{
	bool changed = true;

	while (changed)
	{
		int i;

		changed = false;
		for (i = 0; i < n; i++)
		{
			TdClause *match = &matches[i];
			int from = match->input;
			int to = match->other;

			if (match->kind != TD_CLAUSE_SAME || supplied[from] == supplied[to])
				continue;
			if (supplied[to])
			{
				from = match->other;
				to = match->input;
			}
			/* "IS NULL" and an array are no value that another column could equal. */
			if (sources[from] == NULL)
				continue;
			match->kind = TD_CLAUSE_VALUE;
			match->input = to;
			match->source = sources[from];
			sources[to] = sources[from];
			supplied[to] = true;
			changed = true;
		}
	}
}

TdClause *
tdpg_match_clauses(PlannerInfo *root, RelOptInfo *rel, const TdTable *table, List *clauses,
				   bool *supplied)
{
	TdClause *matches = palloc(sizeof(TdClause) * Max(list_length(clauses), 1));
	Expr *sources[TD_MAX_INPUTS] = {0};
	ListCell *lc;

	memset(supplied, 0, sizeof(bool) * TD_MAX_INPUTS);
	foreach (lc, clauses)
	{
		Expr *clause = lfirst(lc);
		TdClause *match = &matches[foreach_current_index(lc)];

		if (IsA(clause, RestrictInfo))
			clause = ((RestrictInfo *) clause)->clause;
		*match = tdpg_match_clause(root, rel, table, clause);
		if (!tdpg_clause_supplies(match))
			continue;
		if (supplied[match->input])
		{
			match->kind = TD_CLAUSE_NONE;
			continue;
		}
		supplied[match->input] = true;
		if (match->kind == TD_CLAUSE_VALUE)
			sources[match->input] = match->source;
	}
	resolve_equal_columns(matches, list_length(clauses), supplied, sources);
	return matches;
}

bool
tdpg_supplies_request(const TdTable *table, const bool *supplied)
{
	return supplied[TD_REQUEST] || supplied[table->kind->embedding];
}
