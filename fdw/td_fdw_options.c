/*
 * td_fdw_options.c - handler, validator, and what the columns and options of a foreign table mean.
 *
 * In: catalog entries.  Out: a TdTable that planning and scanning read.  Called by the server at
 * DDL time (validator) and by the planner and executor for every foreign scan.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "td_error.h"
#include "td_fdw.h"

/* The kind of every table so far. */
static const TdTableKind *const route_results = &tdpg_route_results;

/* A limit or objective can have a default in OPTIONS; what is routed cannot. */
static bool
may_be_option(int which)
{
	return which != TD_REQUEST && which != route_results->embedding;
}

static int
find_option(const char *name)
{
	int i;

	for (i = 0; i < route_results->n_inputs; i++)
	{
		if (may_be_option(i) && strcmp(route_results->inputs[i].name, name) == 0)
			return i;
	}
	return -1;
}

/* The value of an option as the datum of its column; raises the type's own error. */
static Datum
option_datum(int which, char *value)
{
	Oid input_function;
	Oid io_param;

	getTypeInputInfo(route_results->inputs[which].type, &input_function, &io_param);
	return OidInputFunctionCall(input_function, value, io_param, -1);
}

static void
unknown_option(const char *name, bool for_table)
{
	const char *names[TD_MAX_INPUTS];
	const char *closest;
	StringInfoData list;
	int n = 0;
	int i;

	initStringInfo(&list);
	for (i = 0; i < route_results->n_inputs; i++)
	{
		if (!may_be_option(i))
			continue;
		appendStringInfo(&list, "%s%s", n > 0 ? ", " : "", route_results->inputs[i].name);
		names[n++] = route_results->inputs[i].name;
	}
	closest = for_table ? tdpg_closest(name, names, n) : NULL;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
			 for_table ? errdetail("Options of a foreign table are %s.", list.data)
					   : errdetail("Only foreign tables of tinydancer_fdw have options."),
			 closest != NULL ? errhint("Perhaps you meant the option \"%s\".", closest)
							 : errhint("Limits of one query are set by equality: WHERE max_cost = "
									   "0.01.")));
}

PG_FUNCTION_INFO_V1(tinydancer_fdw_validator);

Datum
tinydancer_fdw_validator(PG_FUNCTION_ARGS)
{
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	bool for_table = PG_GETARG_OID(1) == ForeignTableRelationId;
	ListCell *lc;

	foreach (lc, options)
	{
		DefElem *option = lfirst_node(DefElem, lc);
		int which = find_option(option->defname);

		if (which < 0 || !for_table)
			unknown_option(option->defname, for_table);
		(void) option_datum(which, defGetString(option));
	}
	PG_RETURN_VOID();
}

static void
set_role(TdColumn *column, Form_pg_attribute attribute, const char *table)
{
	const char *name = NameStr(attribute->attname);
	const TdColumnKind *kind = NULL;
	int i;

	for (i = 0; i < route_results->n_inputs; i++)
	{
		if (strcmp(route_results->inputs[i].name, name) == 0)
		{
			column->role = TD_COLUMN_INPUT;
			column->which = i;
			kind = &route_results->inputs[i];
		}
	}
	for (i = 0; i < route_results->n_outputs; i++)
	{
		if (strcmp(route_results->outputs[i].name, name) == 0)
		{
			column->role = TD_COLUMN_OUTPUT;
			column->which = i;
			kind = &route_results->outputs[i];
		}
	}
	if (kind == NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_COLUMN_NAME),
						errmsg("foreign table \"%s\" has an unknown column \"%s\"", table, name),
						errdetail("A foreign table of tinydancer_fdw has columns of the names "
								  "that route_results has."),
						errhint("Use CREATE FOREIGN TABLE ... (LIKE route_results) SERVER "
								"tinydancer.")));
	if (attribute->atttypid != kind->type)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
				 errmsg("column \"%s\" of foreign table \"%s\" has the wrong type", name, table),
				 errdetail("It is %s and must be %s.", format_type_be(attribute->atttypid),
						   format_type_be(kind->type)),
				 errhint("Cast in the query or in a view over the foreign table.")));
}

TdTable *
tdpg_fdw_table(Oid relid)
{
	TdTable *table = palloc0(sizeof(TdTable));
	Relation relation = table_open(relid, NoLock);
	TupleDesc desc = RelationGetDescr(relation);
	List *options = GetForeignTable(relid)->options;
	ListCell *lc;
	int i;

	/* An option there would be gone after a dump and restore. */
	if (options != NIL && OidIsValid(getExtensionOfObject(RelationRelationId, relid)))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("foreign table \"%s\" cannot have options",
							   RelationGetRelationName(relation)),
						errdetail("It belongs to the extension, whose options are not dumped."),
						errhint("Drop the options and make a foreign table of your own with "
								"them.")));

	table->kind = route_results;
	table->n_columns = desc->natts;
	table->columns = palloc0(sizeof(TdColumn) * Max(desc->natts, 1));
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped)
			set_role(&table->columns[i], attribute, RelationGetRelationName(relation));
	}
	table_close(relation, NoLock);

	for (i = 0; i < route_results->n_inputs; i++)
		table->defaults.values[i].isnull = true;
	/* Named, since an input column echoes what was used. */
	table->defaults.values[TD_IN_OPTIMIZE_FOR].isnull = false;
	table->defaults.values[TD_IN_OPTIMIZE_FOR].value = CStringGetTextDatum(TD_DEFAULT_OBJECTIVE);
	foreach (lc, options)
	{
		DefElem *option = lfirst_node(DefElem, lc);
		int which = find_option(option->defname);

		if (which >= 0)
		{
			table->defaults.values[which].isnull = false;
			table->defaults.values[which].value = option_datum(which, defGetString(option));
		}
	}
	return table;
}

PG_FUNCTION_INFO_V1(tinydancer_fdw_handler);

Datum
tinydancer_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = tdGetForeignRelSize;
	routine->GetForeignPaths = tdGetForeignPaths;
	routine->GetForeignPlan = tdGetForeignPlan;
	routine->IsForeignScanParallelSafe = tdIsForeignScanParallelSafe;
	routine->BeginForeignScan = tdBeginForeignScan;
	routine->IterateForeignScan = tdIterateForeignScan;
	routine->ReScanForeignScan = tdReScanForeignScan;
	routine->EndForeignScan = tdEndForeignScan;
	routine->RecheckForeignScan = tdRecheckForeignScan;
	routine->ExplainForeignScan = tdExplainForeignScan;
	PG_RETURN_POINTER(routine);
}
