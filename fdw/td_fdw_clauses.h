/*
 * td_fdw_clauses.h - which clauses on a foreign table supply the inputs of what it answers.
 */
#ifndef TD_FDW_CLAUSES_H
#define TD_FDW_CLAUSES_H

#include "td_fdw.h"

/* How a clause supplies an input. */
typedef enum TdClauseKind
{
	TD_CLAUSE_NONE,
	TD_CLAUSE_VALUE, /* column = expression */
	TD_CLAUSE_ARRAY, /* column = ANY (expression) */
	TD_CLAUSE_NULL,	 /* column IS NULL: no limit */
	TD_CLAUSE_SAME	 /* column = other column of this table */
} TdClauseKind;

typedef struct TdClause
{
	TdClauseKind kind;
	int input;
	int other;	  /* the other column of TD_CLAUSE_SAME */
	Expr *source; /* of the column's type, or an array of it */
	bool says_more; /* than the input: it must stay a filter too */
} TdClause;

/* The input that an expression is the column of, or -1. */
extern int tdpg_input_of(RelOptInfo *rel, const TdTable *table, Node *node);

/* The output that an expression is the column of, or -1. */
extern int tdpg_output_of(RelOptInfo *rel, const TdTable *table, Node *node);

/* A value that can be computed before the scan: nothing of this table, nothing volatile. */
extern bool tdpg_is_outside(PlannerInfo *root, RelOptInfo *rel, Node *node);

/* The expression as a type, or NULL when there is no cast. */
extern Expr *tdpg_as_type(Node *node, Oid type);

/* How one clause supplies an input.  Raises errors about collations. */
extern TdClause tdpg_match_clause(PlannerInfo *root, RelOptInfo *rel, const TdTable *table,
								  Expr *clause);

/* Whether a clause alone supplies its input. */
extern bool tdpg_clause_supplies(const TdClause *match);

/*
 * How each of the clauses supplies an input, in their order; the first clause on a column counts,
 * further ones get TD_CLAUSE_NONE.  supplied[TD_MAX_INPUTS] out.
 */
extern TdClause *tdpg_match_clauses(PlannerInfo *root, RelOptInfo *rel, const TdTable *table,
									List *clauses, bool *supplied);

/* Whether the inputs say what to answer. */
extern bool tdpg_supplies_request(const TdTable *table, const bool *supplied);

/* in td_fdw_rows.c: those of the query's pathkeys that the rows of one request are sorted by */
extern List *tdpg_answer_pathkeys(PlannerInfo *root, RelOptInfo *rel, const TdTable *table);

/*
 * in td_fdw_rows.c: a bigint that the rank of no row exceeds which passes the clause, or NULL;
 * is_equality: the rank is that, out
 */
extern Expr *tdpg_rank_bound(PlannerInfo *root, RelOptInfo *rel, const TdTable *table,
							 Expr *clause, bool *is_equality);

/* in td_fdw_rows.c: rows that are made for a request, as the input that bounds them says */
extern double tdpg_answered_rows(const TdTable *table, const TdClause *matches, int n_clauses);

/* in td_fdw_rows.c: the share of a request's rows that the clauses which supply no input keep */
extern double tdpg_kept_share(PlannerInfo *root, RelOptInfo *rel, const TdTable *table,
							  double answered, const TdClause *matches);

#endif /* TD_FDW_CLAUSES_H */
