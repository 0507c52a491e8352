/*
 * td_table_scan.h - a table of schema tinydancer, row by row, with columns by name.
 */
#ifndef TD_TABLE_SCAN_H
#define TD_TABLE_SCAN_H

#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

#include "td_datum.h"

typedef struct TdTableScan
{
	Relation relation;
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext row; /* what was detoasted of the current row */
} TdTableScan;

extern void tdpg_scan_begin(TdTableScan *t, const char *table, Snapshot snapshot);
extern bool tdpg_scan_next(TdTableScan *t);
extern void tdpg_scan_end(TdTableScan *t);

/* The number of a column; raises the error of a script and a module that do not belong together. */
extern AttrNumber tdpg_scan_column(const TdTableScan *t, const char *name);

/* Values; those that are not NULL in any row need no default. */
extern double tdpg_scan_double(TdTableScan *t, AttrNumber number, double when_null);
extern bool tdpg_scan_bool(TdTableScan *t, AttrNumber number);
extern int32 tdpg_scan_int(TdTableScan *t, AttrNumber number, int32 when_null);

/* Copies in the current memory context: NUL-terminated, NULL for SQL NULL; in UTF-8, data NULL. */
extern char *tdpg_scan_cstring(TdTableScan *t, AttrNumber number);
extern TdText tdpg_scan_text(TdTableScan *t, AttrNumber number);

/* The bytes of a text in the database encoding, until the next row; data NULL for SQL NULL. */
extern TdText tdpg_scan_bytes(TdTableScan *t, AttrNumber number);

/* Whether a text is this string. */
extern bool tdpg_scan_is(TdTableScan *t, AttrNumber number, const char *string);

/*
 * A vector at length 1 and quantised, in the current context.  NULL for SQL NULL, for one that has not
 * dim elements and for one without a direction: it is as good as none.
 */
extern const int8_t *tdpg_scan_quantised(TdTableScan *t, AttrNumber number, int dim, float *scale);

/* What a column has, for types that only one table needs. */
static inline Datum
tdpg_scan_datum(TdTableScan *t, AttrNumber number, bool *isnull)
{
	return slot_getattr(t->slot, number, isnull);
}

#endif /* TD_TABLE_SCAN_H */
