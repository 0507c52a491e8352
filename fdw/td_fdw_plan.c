/*
 * td_fdw_plan.c - the paths to a foreign table, and what they cost.
 *
 * In: the clauses on a foreign table.  Out: paths, whose fdw_private says whether they can be run.
 * Called by the planner.
 *
 * An input column echoes the value that was used.  So a clause that supplies an input can leave the
 * local filter, a second clause on the same column stays and compares the echo; but an equality that
 * could supply an input and does not must never be left to compare the echoed default: that would be
 * silently no rows.  Hence a path is parameterised by the other sides of ALL input columns or it is
 * the path that fails when it is run.
 */
#include "postgres.h"

#include <float.h>

#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "utils/selfuncs.h"

#include "td_compat.h"
#include "td_fdw_clauses.h"

/* More than any real plan costs, less than infinity, so that such a plan stays legal. */
#define FAILING_COST 1e15

/* One request takes about as long as a few hundred calls of a cheap function, and a row as a few. */
#define REQUEST_OPERATORS 500.0
#define ROW_OPERATORS 5.0

/* Since 17 disabled nodes count before cost: more than the disabled joins of any plan that works. */
#define FAILING_NODES 1000000

/* Ways to combine the other sides of several input columns that are worth a path each. */
#define MAX_PATHS 16

/* For RelOptInfo.fdw_private. */
typedef struct TdPlanState
{
	TdTable *table;
	bool supplied[TD_MAX_INPUTS]; /* by a clause on this table alone */
	bool has_array;				  /* of requests, in a clause on this table alone */
	double n_requests;			  /* expected length of an array of requests, else 1 */
	double answered;			  /* rows that are made for a request */
	double kept;				  /* share of them that the other clauses leave */
	double distinct[TD_MAX_INPUTS]; /* expected number of different values */
	List *joins[TD_MAX_INPUTS];		/* of Relids: other sides that can supply the input */
} TdPlanState;

const TdTable *
tdpg_plan_table(const RelOptInfo *rel)
{
	return ((const TdPlanState *) rel->fdw_private)->table;
}

/* The values of an input are those of the other side; the key names the answer. */
double
tdpg_plan_distinct(const RelOptInfo *rel, AttrNumber attribute)
{
	const TdPlanState *state = rel->fdw_private;
	const TdColumn *column;

	if (attribute < 1 || attribute > state->table->n_columns)
		return 0.0;
	column = &state->table->columns[attribute - 1];
	if (column->role == TD_COLUMN_INPUT)
		return state->distinct[column->which];
	if (column->role == TD_COLUMN_OUTPUT && column->which == state->table->kind->key)
		return tdpg_registry_rows(state->table->kind->keys);
	return 0.0;
}

/*
 * A join multiplies the rows of both sides with 1/ndistinct for each clause; with as many rows as
 * there are combinations of inputs, one for each row of the other side remains.
 */
static void
estimate_rows(RelOptInfo *rel, const TdPlanState *state)
{
	int i;

	rel->tuples = state->n_requests * state->answered;
	for (i = 0; i < state->table->kind->n_inputs; i++)
	{
		if (state->joins[i] != NIL)
			rel->tuples *= state->distinct[i];
	}
	rel->tuples = clamp_row_est(rel->tuples);
	rel->rows = clamp_row_est(rel->tuples * state->kept);
}

void
tdGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	TdPlanState *state = palloc0(sizeof(TdPlanState));
	TdClause *matches;
	ListCell *lc;
	int i;

	state->table = tdpg_fdw_table(relid);
	state->n_requests = 1.0;
	for (i = 0; i < TD_MAX_INPUTS; i++)
		state->distinct[i] = 1.0;
	rel->fdw_private = state;
	matches = tdpg_match_clauses(root, rel, state->table, rel->baserestrictinfo, state->supplied);
	foreach (lc, rel->baserestrictinfo)
	{
		const TdClause *match = &matches[foreach_current_index(lc)];

		if (!tdpg_clause_supplies(match))
			continue;
		/* Of the echo it is true; and to estimate it the planner may call the user's functions. */
		lfirst_node(RestrictInfo, lc)->norm_selec = 1.0;
		lfirst_node(RestrictInfo, lc)->outer_selec = 1.0;
		if (match->kind != TD_CLAUSE_ARRAY)
			continue;
		state->has_array = true;
		state->n_requests = Max(tdpg_estimate_array_length(root, (Node *) match->source), 1.0);
		state->distinct[TD_REQUEST] = state->n_requests;
	}
	state->answered = tdpg_answered_rows(state->table, matches, list_length(rel->baserestrictinfo));
	rel->tuples = state->n_requests * state->answered;
	state->kept = tdpg_kept_share(root, rel, state->table, state->answered, matches);
	estimate_rows(rel, state);
}

/* The argument of generate_implied_equalities_for_column(): the column that is looked for. */
typedef struct TdMemberSearch
{
	const TdTable *table;
	int input;
} TdMemberSearch;

static bool
member_is_input(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec, EquivalenceMember *em,
				void *arg)
{
	const TdMemberSearch *search = arg;

	return tdpg_input_of(rel, search->table, (Node *) em->em_expr) == search->input;
}

/* The number of different values of the other side of "column = expression". */
static double
count_values(PlannerInfo *root, Expr *source)
{
	VariableStatData variable;
	bool is_default;
	double n_distinct;

	examine_variable(root, (Node *) source, 0, &variable);
	n_distinct = get_variable_numdistinct(&variable, &is_default);
	ReleaseVariableStats(variable);
	return n_distinct;
}

/* How often a clause is true of any two rows. */
static double
join_selectivity(PlannerInfo *root, RestrictInfo *rinfo)
{
	SpecialJoinInfo join = {.type = T_SpecialJoinInfo, .jointype = JOIN_INNER};

	return clause_selectivity(root, (Node *) rinfo, 0, JOIN_INNER, &join);
}

/* Note the other side of a join clause that can supply an input. */
static void
note_join_clause(PlannerInfo *root, RelOptInfo *rel, TdPlanState *state, RestrictInfo *rinfo)
{
	TdClause match;
	Relids others;
	double n_distinct;
	ListCell *lc;

	if (!join_clause_is_movable_to(rinfo, rel))
		return;
	match = tdpg_match_clause(root, rel, state->table, rinfo->clause);
	if (match.kind != TD_CLAUSE_VALUE && match.kind != TD_CLAUSE_ARRAY)
		return;
	if (state->supplied[match.input])
		return;
	if (match.kind == TD_CLAUSE_VALUE)
		n_distinct = count_values(root, match.source);
	else
	{
		state->n_requests = Max(tdpg_estimate_array_length(root, (Node *) match.source), 1.0);
		n_distinct = 1.0 / Max(join_selectivity(root, rinfo), DBL_EPSILON);
	}
	state->distinct[match.input] = Max(state->distinct[match.input], n_distinct);
	others = bms_del_member(bms_copy(rinfo->clause_relids), rel->relid);
	foreach (lc, state->joins[match.input])
	{
		if (bms_equal(lfirst(lc), others))
			return;
	}
	state->joins[match.input] = lappend(state->joins[match.input], others);
}

static void
collect_join_clauses(PlannerInfo *root, RelOptInfo *rel, TdPlanState *state)
{
	ListCell *lc;
	int i;

	foreach (lc, rel->joininfo)
		note_join_clause(root, rel, state, lfirst_node(RestrictInfo, lc));
	if (!rel->has_eclass_joins)
		return;
	for (i = 0; i < state->table->kind->n_inputs; i++)
	{
		TdMemberSearch search = {state->table, i};
		List *clauses = generate_implied_equalities_for_column(root, rel, member_is_input, &search,
															   rel->lateral_referencers);

		foreach (lc, clauses)
			note_join_clause(root, rel, state, lfirst_node(RestrictInfo, lc));
	}
}

/*
 * A limit that is compared by anything but equality would compare the echoed default.  The request
 * has its own error, when the plan is run.
 */
static void
check_limit_clause(PlannerInfo *root, RelOptInfo *rel, const TdPlanState *state, Expr *clause)
{
	List *vars = pull_var_clause((Node *) clause, PVC_RECURSE_AGGREGATES |
													  PVC_RECURSE_WINDOWFUNCS |
													  PVC_RECURSE_PLACEHOLDERS);
	ListCell *lc;

	foreach (lc, vars)
	{
		int input = tdpg_input_of(rel, state->table, lfirst(lc));

		if (input < 0 || tdpg_is_request(state->table, input))
			continue;
		if (state->supplied[input] || state->joins[input] != NIL)
			continue;
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("input column \"%s\" can only be set by equality",
							   state->table->kind->inputs[input].name),
						errdetail("The column says what a decision is made with; it holds no "
								  "values to search."),
						errhint("Write %s = value, or %s IS NULL to give none.",
								state->table->kind->inputs[input].name,
								state->table->kind->inputs[input].name)));
	}
}

static void
check_limit_clauses(PlannerInfo *root, RelOptInfo *rel, const TdPlanState *state)
{
	ListCell *lc;

	foreach (lc, rel->baserestrictinfo)
		check_limit_clause(root, rel, state, lfirst_node(RestrictInfo, lc)->clause);
	foreach (lc, rel->joininfo)
	{
		Expr *clause = lfirst_node(RestrictInfo, lc)->clause;

		/* "IS NULL" above an outer join looks for rows without an answer. */
		if (!IsA(clause, NullTest))
			check_limit_clause(root, rel, state, clause);
	}
	foreach (lc, root->eq_classes)
	{
		EquivalenceClass *class = lfirst_node(EquivalenceClass, lc);
		ListCell *member;

		/* With one member it is about the order of rows, with more a join clause not yet made. */
		if (list_length(class->ec_members) < 2 || !bms_is_member(rel->relid, class->ec_relids))
			continue;
		foreach (member, class->ec_members)
			check_limit_clause(root, rel, state,
							   lfirst_node(EquivalenceMember, member)->em_expr);
	}
}

/* Whether the clauses that come with a parameterisation supply every input that a join can. */
static bool
parameters_are_complete(PlannerInfo *root, RelOptInfo *rel, const TdPlanState *state,
						const ParamPathInfo *params)
{
	bool supplied[TD_MAX_INPUTS];
	List *clauses = list_copy(rel->baserestrictinfo);
	int i;

	if (params != NULL)
		clauses = list_concat(clauses, params->ppi_clauses);
	(void) tdpg_match_clauses(root, rel, state->table, clauses, supplied);
	for (i = 0; i < state->table->kind->n_inputs; i++)
	{
		if (state->joins[i] != NIL && !supplied[i])
			return false;
	}
	return tdpg_supplies_request(state->table, supplied);
}

static void
add_decision_path(PlannerInfo *root, RelOptInfo *rel, const TdPlanState *state,
				  Relids required_outer)
{
	ParamPathInfo *params = get_baserel_parampathinfo(root, rel, required_outer);
	Cost request_cost = REQUEST_OPERATORS * cpu_operator_cost;
	Cost row_cost = ROW_OPERATORS * cpu_operator_cost + cpu_tuple_cost;
	List *pathkeys = NIL;

	if (!parameters_are_complete(root, rel, state, params))
		return;
	/* The order of a parameterised path is of no use to a join above it. */
	if (!state->has_array && params == NULL)
		pathkeys = tdpg_answer_pathkeys(root, rel, state->table);
	add_path(rel, (Path *) tdpg_create_foreignscan_path(
					  root, rel,
					  clamp_row_est(state->n_requests * state->answered * state->kept), 0,
					  request_cost, state->n_requests * (request_cost + state->answered * row_cost), pathkeys,
					  required_outer, list_make1_int(1)));
}

/* Each way to choose one other side for every input column that a join supplies. */
static void
add_parameterised_paths(PlannerInfo *root, RelOptInfo *rel, const TdPlanState *state)
{
	List *choices = list_make1(bms_copy(rel->lateral_relids));
	ListCell *lc;
	int i;

	for (i = 0; i < state->table->kind->n_inputs; i++)
	{
		List *longer = NIL;
		ListCell *choice;

		if (state->joins[i] == NIL)
			continue;
		foreach (choice, choices)
		{
			foreach (lc, state->joins[i])
			{
				Relids both = bms_union(lfirst(choice), lfirst(lc));
				ListCell *seen;
				bool is_new = true;

				foreach (seen, longer)
				{
					if (bms_equal(lfirst(seen), both))
						is_new = false;
				}
				if (is_new && list_length(longer) < MAX_PATHS)
					longer = lappend(longer, both);
			}
		}
		choices = longer;
	}
	foreach (lc, choices)
		add_decision_path(root, rel, state, lfirst(lc));
}

void
tdGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid relid)
{
	TdPlanState *state = rel->fdw_private;
	bool joined = false;
	int i;

	collect_join_clauses(root, rel, state);
	check_limit_clauses(root, rel, state);
	for (i = 0; i < state->table->kind->n_inputs; i++)
		joined = joined || state->joins[i] != NIL;

	if (!joined)
		add_decision_path(root, rel, state, rel->lateral_relids);
	else
	{
		estimate_rows(rel, state);
		add_parameterised_paths(root, rel, state);
	}

	/* A join that cannot be parameterised needs some plan; this one says why it cannot be run. */
	if (joined || rel->pathlist == NIL)
		add_path(rel, (Path *) tdpg_create_foreignscan_path(
						  root, rel, rel->rows, FAILING_NODES, FAILING_COST, FAILING_COST, NIL,
						  rel->lateral_relids, list_make1_int(0)));
}

bool
tdIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte)
{
	/* Pure: a scan reads one snapshot of the registry and writes nothing. */
	return true;
}
