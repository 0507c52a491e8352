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

/* How the rows of one request are ordered by an output. */
typedef enum TdOrder
{
	TD_UNORDERED,
	TD_ASCENDING, /* NULLs last */
	TD_DESCENDING /* without NULLs */
} TdOrder;

/* A column that a kind of table knows. */
typedef struct TdColumnKind
{
	const char *name;
	Oid type;
	const char *preset; /* an input's value where none is given, as an option has it; NULL: none */
	bool is_option;		/* an input that OPTIONS may give a default */
	TdOrder order;		/* of an output */
} TdColumnKind;

/* A scan's answers; each kind has its own struct that begins with this one. */
typedef struct TdAnswers
{
	const bool *wanted; /* [n_outputs]: what the query reads; others may be NULL */
	uint64 n_requests;	/* answered so far */
	uint64 n_scored;	/* agents, routes or categories that were scored for them */
} TdAnswers;

/* What one of the foreign tables takes and answers. */
typedef struct TdTableKind
{
	const char *name;
	int n_inputs;
	const TdColumnKind *inputs; /* [n_inputs] */
	int embedding;				/* which of them is a vector instead of the request */
	int objective;				/* which of them says what is best, or -1 */
	int most_rows;				/* which of them bounds the rows of a request, or -1 */
	int n_outputs;
	const TdColumnKind *outputs; /* [n_outputs] */
	int key;					 /* the output that tells the rows of a request apart */
	const char *keys;			 /* the registry's table of keys, NULL: none */
	int rank;					 /* the output that is the row's number, or NULL; -1: none */
	int task;					 /* the td_task of the model that it may use, or -1 */

	/* Raise the errors about inputs that can be told when a table is made; NULL: there are none. */
	void (*check)(const TdInputs *inputs);
	/* Rows of a request, for the planner. */
	double (*rows)(void);
	/* Answers that live in the context, with the snapshot that they are made from. */
	TdAnswers *(*begin)(MemoryContext context, const bool *wanted);
	/*
	 * Answer a request.  What is allocated in the current context, and the inputs, stay until the next
	 * one.  Raises errors about the inputs.
	 */
	void (*ask)(TdAnswers *answers, const TdInputs *inputs);
	/* The next row of the request: values[n_outputs], nulls[n_outputs]; false after the last. */
	bool (*next)(TdAnswers *answers, Datum *values, bool *nulls);

	/* What EXPLAIN calls the figures of TdAnswers. */
	const char *requests_label;
	const char *scored_label;
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

/* Instead of an input in TD_PRIVATE_INPUTS: an expression that no wanted row's rank exceeds. */
#define TD_RANK_BOUND (-1)

/* Positions in ForeignScan.fdw_private. */
typedef enum TdScanPrivate
{
	TD_PRIVATE_INPUTS,		/* int list: the input of each expression in fdw_exprs */
	TD_PRIVATE_NO_LIMIT,	/* int list: inputs that a clause says are NULL */
	TD_PRIVATE_ARRAY,		/* int list of one: which expression is an array of requests, or -1 */
	TD_PRIVATE_HAS_REQUEST, /* int list of one: 0 for the plan that fails when it is run */
	TD_PRIVATE_OUTPUTS		/* int list: the outputs that the query reads */
} TdScanPrivate;

/* For ForeignScanState.fdw_state. */
typedef struct TdScanState
{
	const TdTable *table;
	TdAnswers *answers; /* NULL: only explained */
	List *exprs;		/* ExprState, in the order of fdw_exprs */
	List *inputs;		/* their inputs, or TD_RANK_BOUND */
	List *no_limit;		/* inputs set to NULL */
	int array;			/* which expression is an array of requests, or -1 */
	bool has_request;
	bool wanted[TD_MAX_OUTPUTS];

	bool started;				   /* the inputs of this (re)scan are evaluated */
	bool answering;				   /* a request may have more rows */
	TdInputs values;			   /* of this rescan */
	MemoryContext rescan_context;  /* of values and requests */
	MemoryContext request_context; /* of what ask() allocates */
	Datum *requests;			   /* the distinct elements of the array */
	int n_requests;
	int next;		/* request */
	int64 n_rows;	/* of this request so far */
	int64 most_rows; /* of a request that the query can want */
} TdScanState;

/* in td_fdw_options.c: the kinds of tables, what a table's definition says, and the validator */
#define TD_N_KINDS 4
extern const TdTableKind *const tdpg_table_kinds[TD_N_KINDS];
/* The definition of a foreign table as the catalog has it, in the current memory context. */
extern TdTable *tdpg_fdw_read_table(Oid relid);

/* in td_fdw_cache.c */
/* The same as long as the current memory context is not reset; not to be changed. */
extern TdTable *tdpg_fdw_table(Oid relid);
extern int tdpg_find_option(const TdTableKind *kind, const char *name);
extern _Noreturn void tdpg_unknown_option(const char *name, const TdTableKind *const *kinds,
										  int n_kinds, bool by_import);

/* in td_fdw_import.c */
extern List *tdImportForeignSchema(ImportForeignSchemaStmt *stmt, Oid server);

/* in td_fdw_route.c, td_fdw_candidates.c, td_fdw_matches.c, td_fdw_classes.c */
extern const TdColumnKind tdpg_route_inputs[TD_N_INPUTS];
extern const TdTableKind tdpg_route_results;
extern const TdTableKind tdpg_route_candidates;
extern const TdTableKind tdpg_semantic_matches;
extern const TdTableKind tdpg_request_classes;

/* in td_fdw_stats.c; the first once per backend */
extern void tdpg_fdw_stats_init(void);
extern double tdpg_registry_rows(const char *table);

/* in td_fdw_plan.c */
extern void tdGetForeignRelSize(PlannerInfo *root, RelOptInfo *rel, Oid relid);
extern void tdGetForeignPaths(PlannerInfo *root, RelOptInfo *rel, Oid relid);
extern bool tdIsForeignScanParallelSafe(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte);
/* The definition of a planned table. */
extern const TdTable *tdpg_plan_table(const RelOptInfo *rel);
/* The expected number of different values of a column of a planned table; 0: nothing is known. */
extern double tdpg_plan_distinct(const RelOptInfo *rel, AttrNumber attribute);

/* in td_fdw_make_plan.c */
extern ForeignScan *tdGetForeignPlan(PlannerInfo *root, RelOptInfo *rel, Oid relid,
									 ForeignPath *best_path, List *tlist, List *scan_clauses,
									 Plan *outer_plan);

/* in td_fdw_scan.c */
extern void tdBeginForeignScan(ForeignScanState *node, int eflags);
extern TupleTableSlot *tdIterateForeignScan(ForeignScanState *node);
extern void tdReScanForeignScan(ForeignScanState *node);
extern void tdEndForeignScan(ForeignScanState *node);
extern bool tdRecheckForeignScan(ForeignScanState *node, TupleTableSlot *slot);

/* in td_fdw_array.c */
extern Datum *tdpg_distinct_texts(Datum array, int *n_texts);

/* in td_fdw_explain.c */
extern void tdExplainForeignScan(ForeignScanState *node, struct ExplainState *es);

#endif /* TD_FDW_H */
