/*
 * td_fdw_rows.c - what the planner may know of a foreign table's rows: their order and number.
 *
 * In: the order that the query wants, and its clauses.  Out: pathkeys, expressions that end a request's
 * rows early, estimates.  Called by td_fdw_plan.c.
 *
 * The rows of a request come in the order of their rank: row n has rank n, or none where it was
 * rejected.  Rows of several requests come one request after the other, which is no order.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "td_compat.h"
#include "td_fdw_clauses.h"

/* Whether the rows of one request are in the order of a pathkey. */
static bool
has_order(RelOptInfo *rel, const TdTable *table, const PathKey *pathkey)
{
	ListCell *lc;

	if (pathkey->pk_eclass->ec_has_volatile)
		return false;
	foreach (lc, pathkey->pk_eclass->ec_members)
	{
		const EquivalenceMember *member = lfirst_node(EquivalenceMember, lc);
		const TdColumnKind *column;
		int output;

		if (!bms_equal(member->em_relids, rel->relids))
			continue;
		output = tdpg_output_of(rel, table, (Node *) member->em_expr);
		if (output < 0)
			continue;
		column = &table->kind->outputs[output];
		if (pathkey->pk_opfamily !=
			lookup_type_cache(column->type, TYPECACHE_BTREE_OPFAMILY)->btree_opf)
			continue;
		if (tdpg_is_ascending(pathkey))
		{
			if (column->order == TD_ASCENDING && !pathkey->pk_nulls_first)
				return true;
		}
		else if (column->order == TD_DESCENDING)
			return true;
	}
	return false;
}

/*
 * Each output with an order is monotone along the rows, so that any list of them is their order too.
 */
List *
tdpg_answer_pathkeys(PlannerInfo *root, RelOptInfo *rel, const TdTable *table)
{
	List *pathkeys = NIL;
	ListCell *lc;

	foreach (lc, root->query_pathkeys)
	{
		if (!has_order(rel, table, lfirst_node(PathKey, lc)))
			break;
		pathkeys = lappend(pathkeys, lfirst(lc));
	}
	return pathkeys;
}

Expr *
tdpg_rank_bound(PlannerInfo *root, RelOptInfo *rel, const TdTable *table, Expr *clause,
				bool *is_equality)
{
	OpExpr *op = (OpExpr *) clause;
	Node *bound;
	Oid operator;
	Oid family;
	int strategy;

	if (table->kind->rank < 0 || !IsA(clause, OpExpr) || list_length(op->args) != 2)
		return NULL;
	operator = op->opno;
	bound = lsecond(op->args);
	if (tdpg_output_of(rel, table, linitial(op->args)) != table->kind->rank)
	{
		if (tdpg_output_of(rel, table, bound) != table->kind->rank)
			return NULL;
		operator = get_commutator(operator);
		bound = linitial(op->args);
	}
	family = lookup_type_cache(INT4OID, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	strategy = OidIsValid(operator) ? get_op_opfamily_strategy(operator, family) : 0;
	if ((strategy != BTLessStrategyNumber && strategy != BTLessEqualStrategyNumber &&
		 strategy != BTEqualStrategyNumber) ||
		!tdpg_is_outside(root, rel, bound))
		return NULL;
	*is_equality = strategy == BTEqualStrategyNumber;
	return tdpg_as_type(bound, INT8OID);
}

double
tdpg_answered_rows(const TdTable *table, const TdClause *matches, int n_clauses)
{
	const TdTableKind *kind = table->kind;
	NullableDatum most = {0, true};
	int i;

	if (kind->most_rows < 0)
		return kind->rows();
	most = table->defaults.values[kind->most_rows];
	for (i = 0; i < n_clauses; i++)
	{
		const TdClause *match = &matches[i];

		if (match->kind != TD_CLAUSE_VALUE || match->input != kind->most_rows)
			continue;
		most.isnull = !IsA(match->source, Const) || ((Const *) match->source)->constisnull;
		if (!most.isnull)
			most.value = ((Const *) match->source)->constvalue;
	}
	return most.isnull ? kind->rows() : Max(DatumGetInt32(most.value), 1);
}

double
tdpg_kept_share(PlannerInfo *root, RelOptInfo *rel, const TdTable *table, double answered,
				const TdClause *matches)
{
	double rows = answered;
	List *filters = NIL;
	ListCell *lc;

	foreach (lc, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);
		bool is_equality;
		Expr *bound;

		if (matches[foreach_current_index(lc)].kind != TD_CLAUSE_NONE)
			continue;
		bound = tdpg_rank_bound(root, rel, table, rinfo->clause, &is_equality);
		if (bound == NULL || (!is_equality && !IsA(bound, Const)))
			filters = lappend(filters, rinfo);
		else if (is_equality)
			rows = Min(rows, 1.0);
		else if (!((Const *) bound)->constisnull)
			rows = Min(rows, Max(DatumGetInt64(((Const *) bound)->constvalue), 0));
	}
	return rows / answered * clauselist_selectivity(root, filters, 0, JOIN_INNER, NULL);
}
