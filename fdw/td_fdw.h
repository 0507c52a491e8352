/*
 * td_fdw.h - what the files of the foreign data wrapper tell each other.
 *
 * A TdTableKind says what one of the foreign tables takes and answers; planning and scanning know
 * no more of it.  They meet in the plan's fdw_private and fdw_exprs; TdScanPrivate names the
 * positions.
 */
#ifndef TD_FDW_H
#define TD_FDW_H

#include "foreign/fdwapi.h"
#include "nodes/pathnodes.h"

#include "td_route.h"

/* Every kind of table has its request first. */
#define TD_REQUEST 0

/* At most so many inputs and outputs has a kind of table. */
#define TD_MAX_INPUTS TD_N_INPUTS
#define TD_MAX_OUTPUTS 16

/* A column that a kind of table knows. */
typedef struct TdColumnKind
{
	const char *name;
	Oid type;
} TdColumnKind;

/* What one of the foreign tables takes and answers. */
typedef struct TdTableKind
{
	const char *name;
	int n_inputs;
	const TdColumnKind *inputs; /* [n_inputs] */
	int embedding;				/* which of them is a vector instead of the request */
	int n_outputs;
	const TdColumnKind *outputs; /* [n_outputs]; the first one names the answer */
} TdTableKind;

/* What a column of a foreign table is. */
typedef enum TdColumnRole
{
	TD_COLUMN_NONE, /* dropped */
	TD_COLUMN_INPUT,
	TD_COLUMN_OUTPUT
} TdColumnRole;

typedef struct TdColumn
{
	TdColumnRole role;
	int which; /* input or output of the kind */
} TdColumn;

/* A foreign table as its definition says. */
typedef struct TdTable
{
	const TdTableKind *kind;
	int n_columns;
	TdColumn *columns; /* [n_columns], by attribute number - 1 */
	TdInputs defaults; /* from OPTIONS */
} TdTable;

/* Whether an input says what to answer, rather than how. */
static inline bool
tdpg_is_request(const TdTable *table, int input)
{
	return input == TD_REQUEST || input == table->kind->embedding;
}

/* Positions in ForeignScan.fdw_private. */
typedef enum TdScanPrivate
{
	TD_PRIVATE_INPUTS,		  /* int list: the input of each expression in fdw_exprs */
	TD_PRIVATE_NO_LIMIT,	  /* int list: inputs that a clause says are NULL */
	TD_PRIVATE_ARRAY,		  /* int list of one: which expression is an array of requests, or -1 */
	TD_PRIVATE_HAS_REQUEST,	  /* int list of one: 0 for the plan that fails when it is run */
	TD_PRIVATE_WITH_REASONING /* int list of one: whether the query reads reasoning */
} TdScanPrivate;

/* in td_fdw_options.c */
extern TdTable *tdpg_fdw_table(Oid relid);

/* in td_fdw_route.c */
extern const TdTableKind tdpg_route_results;

/* in td_fdw_stats.c; once per backend */
extern void tdpg_fdw_stats_init(void);

/* in td_fdw_plan.c */
extern void tdGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid relid);
extern void tdGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid relid);
extern ForeignScan *tdGetForeignPlan(PlannerInfo *root, RelOptInfo *rel, Oid relid,
									 ForeignPath *best_path, List *tlist, List *scan_clauses,
									 Plan *outer_plan);
extern bool tdIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte);
/* The expected number of different values of a column of a planned table; 0: nothing is known. */
extern double tdpg_plan_distinct(const RelOptInfo *rel, AttrNumber attribute);

/* in td_fdw_scan.c */
extern void tdBeginForeignScan(ForeignScanState *node, int eflags);
extern TupleTableSlot *tdIterateForeignScan(ForeignScanState *node);
extern void tdReScanForeignScan(ForeignScanState *node);
extern void tdEndForeignScan(ForeignScanState *node);
extern bool tdRecheckForeignScan(ForeignScanState *node, TupleTableSlot *slot);
extern void tdExplainForeignScan(ForeignScanState *node, struct ExplainState *es);

#endif /* TD_FDW_H */
