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

#endif /* TD_FDW_CLAUSES_H */
