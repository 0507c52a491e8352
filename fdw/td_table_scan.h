/*
 * td_table_scan.h - a table of schema tinydancer, row by row, with columns by name.
 *
 * In: an MVCC snapshot.  Out: values of C, in the current memory context.  Used by td_registry_read.c
 * and td_route_read.c.
 *
 * Tables are scanned directly rather than through SPI: no plan, no search_path, no privilege of the
 * caller is involved, and a first decision in a new backend stays cheap.
 */
#ifndef TD_TABLE_SCAN_H
#define TD_TABLE_SCAN_H

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "td_compat.h"
#include "td_datum.h"

typedef struct TableScan
{
	Relation relation;
	TableScanDesc scan;
	TupleTableSlot *slot;
} TableScan;

static inline void
scan_begin(TableScan *t, const char *table, Snapshot snapshot)
{
	Oid relid = get_relname_relid(table, get_namespace_oid("tinydancer", false));

	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table tinydancer.%s does not exist", table),
						errdetail("The extension's objects are incomplete."),
						errhint("Run CREATE EXTENSION tinydancer, or ALTER EXTENSION tinydancer "
								"UPDATE after an upgrade.")));
	t->relation = table_open(relid, AccessShareLock);
	t->slot = table_slot_create(t->relation, NULL);
	t->scan = table_beginscan(t->relation, snapshot, 0, NULL);
}

static inline bool
scan_next(TableScan *t)
{
	return table_scan_getnextslot(t->scan, ForwardScanDirection, t->slot);
}

static inline void
scan_end(TableScan *t)
{
	table_endscan(t->scan);
	ExecDropSingleTupleTableSlot(t->slot);
	table_close(t->relation, AccessShareLock);
}

/* From the relation's own description: the catalog cache of a new session is empty. */
static inline AttrNumber
column(const TableScan *t, const char *name)
{
	TupleDesc desc = RelationGetDescr(t->relation);
	AttrNumber number = InvalidAttrNumber;
	int i;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			number = attribute->attnum;
	}
	if (number == InvalidAttrNumber)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column tinydancer.%s.%s does not exist",
							   RelationGetRelationName(t->relation), name),
						errdetail("The extension's script and its module are of different "
								  "versions."),
						errhint("Run ALTER EXTENSION tinydancer UPDATE.")));
	return number;
}

static inline double
get_double(TableScan *t, AttrNumber number, double when_null)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? when_null : DatumGetFloat8(value);
}

static inline bool
get_bool(TableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return !isnull && DatumGetBool(value);
}

static inline char *
get_cstring(TableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* A copy in UTF-8; data is NULL for SQL NULL. */
static inline TdText
get_text(TableScan *t, AttrNumber number)
{
	char *string = get_cstring(t, number);
	TdText none = {NULL, 0};

	return string == NULL ? none : tdpg_utf8(string, strlen(string));
}

#endif /* TD_TABLE_SCAN_H */
