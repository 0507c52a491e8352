/*
 * td_table_scan.c - a table of schema tinydancer, row by row, with columns by name.
 *
 * In: an MVCC snapshot.  Out: values of C.  Used by td_registry_read.c, td_route_read.c and
 * td_models.c.
 *
 * Tables are scanned directly rather than through SPI: no plan, no search_path, no privilege of the
 * caller is involved, and a first decision in a new backend stays cheap.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "td_compat.h"
#include "td_table_scan.h"

void
tdpg_scan_begin(TdTableScan *t, const char *table, Snapshot snapshot)
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
	t->row = AllocSetContextCreate(CurrentMemoryContext, "tinydancer row", ALLOCSET_SMALL_SIZES);
}

bool
tdpg_scan_next(TdTableScan *t)
{
	MemoryContextReset(t->row);
	return table_scan_getnextslot(t->scan, ForwardScanDirection, t->slot);
}

void
tdpg_scan_end(TdTableScan *t)
{
	table_endscan(t->scan);
	ExecDropSingleTupleTableSlot(t->slot);
	table_close(t->relation, AccessShareLock);
	MemoryContextDelete(t->row);
}

/* From the relation's own description: the catalog cache of a new session is empty. */
AttrNumber
tdpg_scan_column(const TdTableScan *t, const char *name)
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

double
tdpg_scan_double(TdTableScan *t, AttrNumber number, double when_null)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? when_null : DatumGetFloat8(value);
}

bool
tdpg_scan_bool(TdTableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return !isnull && DatumGetBool(value);
}

int32
tdpg_scan_int(TdTableScan *t, AttrNumber number, int32 when_null)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? when_null : DatumGetInt32(value);
}

char *
tdpg_scan_cstring(TdTableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

TdText
tdpg_scan_text(TdTableScan *t, AttrNumber number)
{
	char *string = tdpg_scan_cstring(t, number);
	TdText none = {NULL, 0};

	return string == NULL ? none : tdpg_utf8(string, strlen(string));
}

TdText
tdpg_scan_bytes(TdTableScan *t, AttrNumber number)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);
	TdText bytes = {NULL, 0};
	MemoryContext before;
	text *detoasted;

	if (isnull)
		return bytes;
	before = MemoryContextSwitchTo(t->row);
	detoasted = DatumGetTextPP(value);
	MemoryContextSwitchTo(before);
	bytes.data = VARDATA_ANY(detoasted);
	bytes.len = VARSIZE_ANY_EXHDR(detoasted);
	return bytes;
}

bool
tdpg_scan_is(TdTableScan *t, AttrNumber number, const char *string)
{
	TdText bytes = tdpg_scan_bytes(t, number);

	return bytes.data != NULL && bytes.len == strlen(string) &&
		   memcmp(bytes.data, string, bytes.len) == 0;
}

const int8_t *
tdpg_scan_quantised(TdTableScan *t, AttrNumber number, int dim, float *scale)
{
	bool isnull;
	Datum value = slot_getattr(t->slot, number, &isnull);
	MemoryContext before;
	const float *values;
	float *unit;
	int8_t *quantised;
	int n;

	if (isnull)
		return NULL;
	before = MemoryContextSwitchTo(t->row);
	values = tdpg_vector(value, &n);
	unit = palloc(sizeof(float) * dim);
	MemoryContextSwitchTo(before);
	if (n != dim)
		return NULL;
	memcpy(unit, values, sizeof(float) * dim);
	if (td_vec_normalise(unit, dim) != TD_OK)
		return NULL;
	quantised = palloc(dim);
	*scale = td_vec_quantise(unit, dim, quantised);
	return quantised;
}
