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

/* The option that names the kind of a table. */
#define TABLE_OPTION "table"

/* The first is the one of a table that does not say. */
const TdTableKind *const tdpg_table_kinds[TD_N_KINDS] = {
	&tdpg_route_results,
	&tdpg_route_candidates,
	&tdpg_semantic_matches,
	&tdpg_request_classes,
};

int
tdpg_find_option(const TdTableKind *kind, const char *name)
{
	int i;

	for (i = 0; i < kind->n_inputs; i++)
	{
		if (kind->inputs[i].is_option && strcmp(kind->inputs[i].name, name) == 0)
			return i;
	}
	return -1;
}

/* The value of an option as the datum of its column; raises the type's own error. */
static Datum
option_datum(const TdTableKind *kind, int input, const char *value)
{
	Oid input_function;
	Oid io_param;

	getTypeInputInfo(kind->inputs[input].type, &input_function, &io_param);
	return OidInputFunctionCall(input_function, unconstify(char *, value), io_param, -1);
}

/* The first kind that has such an option, or NULL. */
static const TdTableKind *
kind_with_option(const char *name)
{
	int i;

	for (i = 0; i < TD_N_KINDS; i++)
	{
		if (tdpg_find_option(tdpg_table_kinds[i], name) >= 0)
			return tdpg_table_kinds[i];
	}
	return NULL;
}

void
tdpg_unknown_option(const char *name, const TdTableKind *const *kinds, int n_kinds, bool by_import)
{
	const char *names[TD_N_KINDS * TD_MAX_INPUTS + 1];
	const TdTableKind *other = kind_with_option(name);
	const char *closest;
	StringInfoData list;
	int n = 0;
	int i;
	int j;

	/* IMPORT FOREIGN SCHEMA is told which tables in another way. */
	if (!by_import)
		names[n++] = TABLE_OPTION;
	for (i = 0; i < n_kinds; i++)
	{
		for (j = 0; j < kinds[i]->n_inputs; j++)
		{
			const TdColumnKind *input = &kinds[i]->inputs[j];
			bool told = false;
			int k;

			for (k = 0; k < i; k++)
				told = told || tdpg_find_option(kinds[k], input->name) >= 0;
			if (input->is_option && !told)
				names[n++] = input->name;
		}
	}
	initStringInfo(&list);
	for (i = 0; i < n; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", names[i]);
	closest = tdpg_closest(name, names, n);
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
			 n_kinds == 1 ? errdetail("Options of the table %s are %s.", kinds[0]->name, list.data)
						  : errdetail("Options of these tables are %s.", list.data),
			 closest != NULL ? errhint("Perhaps you meant the option \"%s\".", closest)
			 : other != NULL ? errhint("It is an option of the table %s.", other->name)
							 : errhint("Limits of one query are set by equality: WHERE max_cost = "
									   "0.01.")));
	pg_unreachable();
}

/* The kind of table that the options name. */
static const TdTableKind *
kind_of(List *options)
{
	const char *names[TD_N_KINDS];
	const char *wanted = NULL;
	const char *closest;
	StringInfoData list;
	ListCell *lc;
	int i;

	foreach (lc, options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, TABLE_OPTION) == 0)
			wanted = defGetString(option);
	}
	if (wanted == NULL)
		return tdpg_table_kinds[0];
	initStringInfo(&list);
	for (i = 0; i < TD_N_KINDS; i++)
	{
		names[i] = tdpg_table_kinds[i]->name;
		if (strcmp(names[i], wanted) == 0)
			return tdpg_table_kinds[i];
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", names[i]);
	}
	closest = tdpg_closest(wanted, names, TD_N_KINDS);
	ereport(ERROR, (errcode(ERRCODE_FDW_TABLE_NOT_FOUND), errmsg("unknown table \"%s\"", wanted),
					errdetail("Tables of tinydancer_fdw are %s.", list.data),
					closest != NULL ? errhint("Perhaps you meant \"%s\".", closest)
									: errhint("Leave the option out for %s.", names[0])));
	pg_unreachable();
}

/* What the inputs are where no clause says. */
static void
set_defaults(const TdTableKind *kind, List *options, TdInputs *defaults)
{
	ListCell *lc;
	int i;

	for (i = 0; i < kind->n_inputs; i++)
	{
		NullableDatum *value = &defaults->values[i];

		value->isnull = kind->inputs[i].preset == NULL;
		if (!value->isnull)
			value->value = option_datum(kind, i, kind->inputs[i].preset);
	}
	foreach (lc, options)
	{
		DefElem *option = lfirst_node(DefElem, lc);
		int input = tdpg_find_option(kind, option->defname);

		if (input >= 0)
		{
			defaults->values[input].isnull = false;
			defaults->values[input].value =
				option_datum(kind, input, defGetString(option));
		}
	}
}

PG_FUNCTION_INFO_V1(tinydancer_fdw_validator);

Datum
tinydancer_fdw_validator(PG_FUNCTION_ARGS)
{
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	bool for_table = PG_GETARG_OID(1) == ForeignTableRelationId;
	const TdTableKind *kind;
	TdInputs defaults;
	ListCell *lc;

	if (options != NIL && !for_table)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("invalid option \"%s\"", linitial_node(DefElem, options)->defname),
						errdetail("Only foreign tables of tinydancer_fdw have options."),
						errhint("Limits of one query are set by equality: WHERE max_cost = "
								"0.01.")));
	kind = kind_of(options);
	foreach (lc, options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, TABLE_OPTION) != 0 &&
			tdpg_find_option(kind, option->defname) < 0)
			tdpg_unknown_option(option->defname, &kind, 1, false);
	}
	set_defaults(kind, options, &defaults);
	if (kind->check != NULL)
		kind->check(&defaults);
	PG_RETURN_VOID();
}

static int
find_column(const TdColumnKind *columns, int n, const char *name)
{
	int i;

	for (i = 0; i < n; i++)
	{
		if (strcmp(columns[i].name, name) == 0)
			return i;
	}
	return -1;
}

static _Noreturn void
unknown_column(const TdTableKind *kind, const char *table, const char *name)
{
	const TdTableKind *other = NULL;
	int i;

	for (i = 0; i < TD_N_KINDS && other == NULL; i++)
	{
		if (find_column(tdpg_table_kinds[i]->inputs, tdpg_table_kinds[i]->n_inputs, name) >= 0 ||
			find_column(tdpg_table_kinds[i]->outputs, tdpg_table_kinds[i]->n_outputs, name) >= 0)
			other = tdpg_table_kinds[i];
	}
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_COLUMN_NAME),
					errmsg("foreign table \"%s\" has an unknown column \"%s\"", table, name),
					errdetail("Its columns have the names that those of %s have.", kind->name),
					other != NULL
						? errhint("%s has such a column: CREATE FOREIGN TABLE ... OPTIONS (%s '%s').", other->name,
								  TABLE_OPTION, other->name)
						: errhint("Use IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (%s) FROM SERVER "
								  "tinydancer INTO ...",
								  kind->name)));
	pg_unreachable();
}

static void
set_role(TdColumn *column, Form_pg_attribute attribute, const TdTableKind *kind, const char *table)
{
	const char *name = NameStr(attribute->attname);
	const TdColumnKind *known;

	column->role = TD_COLUMN_INPUT;
	column->which = find_column(kind->inputs, kind->n_inputs, name);
	if (column->which < 0)
	{
		column->role = TD_COLUMN_OUTPUT;
		column->which = find_column(kind->outputs, kind->n_outputs, name);
	}
	if (column->which < 0)
		unknown_column(kind, table, name);
	known = column->role == TD_COLUMN_INPUT ? &kind->inputs[column->which]
											: &kind->outputs[column->which];
	if (attribute->atttypid != known->type)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_DATA_TYPE),
						errmsg("column \"%s\" of foreign table \"%s\" has the wrong type", name,
							   table),
						errdetail("It is %s and must be %s.",
								  format_type_be(attribute->atttypid),
								  format_type_be(known->type)),
						errhint("Cast in the query or in a view over the foreign table.")));
}

TdTable *
tdpg_fdw_read_table(Oid relid)
{
	TdTable *table = palloc0(sizeof(TdTable));
	Relation relation = table_open(relid, NoLock);
	TupleDesc desc = RelationGetDescr(relation);
	List *options = GetForeignTable(relid)->options;
	int i;

	/* An option there would be gone after a dump and restore. */
	if (options != NIL && OidIsValid(getExtensionOfObject(RelationRelationId, relid)))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("foreign table \"%s\" cannot have options",
							   RelationGetRelationName(relation)),
						errdetail("It belongs to the extension, whose options are not dumped."),
						errhint("Drop the options and make a foreign table of your own with "
								"them.")));

	table->kind = kind_of(options);
	table->n_columns = desc->natts;
	table->columns = palloc0(sizeof(TdColumn) * Max(desc->natts, 1));
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped)
			set_role(&table->columns[i], attribute, table->kind,
					 RelationGetRelationName(relation));
	}
	table_close(relation, NoLock);
	set_defaults(table->kind, options, &table->defaults);
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
	routine->ImportForeignSchema = tdImportForeignSchema;
	PG_RETURN_POINTER(routine);
}
