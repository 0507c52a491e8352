/*
 * td_fdw_import.c - IMPORT FOREIGN SCHEMA tinydancer: a foreign table of each kind.
 *
 * In: the statement.  Out: CREATE FOREIGN TABLE commands, which the server runs in the schema that the
 * statement names.  Called by the server.
 *
 * OPTIONS of the statement become those of the tables that know them.
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "td_error.h"
#include "td_fdw.h"

/* The one schema that there is to import. */
#define REMOTE_SCHEMA "tinydancer"

/* LIMIT TO and EXCEPT name tables; the server itself would take a misspelled one for none. */
static void
check_names(List *tables)
{
	const char *names[TD_N_KINDS];
	StringInfoData list;
	ListCell *lc;
	int i;

	initStringInfo(&list);
	for (i = 0; i < TD_N_KINDS; i++)
	{
		names[i] = tdpg_table_kinds[i]->name;
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", names[i]);
	}
	foreach (lc, tables)
	{
		const char *name = lfirst_node(RangeVar, lc)->relname;
		const char *closest;
		bool known = false;

		for (i = 0; i < TD_N_KINDS; i++)
			known = known || strcmp(names[i], name) == 0;
		if (known)
			continue;
		closest = tdpg_closest(name, names, TD_N_KINDS);
		ereport(ERROR, (errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
						errmsg("remote table \"%s\" does not exist", name),
						errdetail("Remote schema \"%s\" has %s.", REMOTE_SCHEMA, list.data),
						closest != NULL ? errhint("Perhaps you meant \"%s\".", closest)
										: errhint("Leave LIMIT TO and EXCEPT out for all of "
												  "them.")));
	}
}

static void
append_column(StringInfo command, const TdColumnKind *column)
{
	appendStringInfo(command, "%s\n    %s %s", command->data[command->len - 1] == '(' ? "" : ",",
					 quote_identifier(column->name), format_type_be(column->type));
}

/* The command that makes a table of a kind: the request, what is answered, and the other inputs. */
static char *
create_command(const TdTableKind *kind, const char *server, List *options)
{
	StringInfoData command;
	ListCell *lc;
	int i;

	initStringInfo(&command);
	appendStringInfo(&command, "CREATE FOREIGN TABLE %s (", quote_identifier(kind->name));
	append_column(&command, &kind->inputs[TD_REQUEST]);
	for (i = 0; i < kind->n_outputs; i++)
		append_column(&command, &kind->outputs[i]);
	for (i = TD_REQUEST + 1; i < kind->n_inputs; i++)
		append_column(&command, &kind->inputs[i]);
	appendStringInfo(&command, "\n) SERVER %s OPTIONS (\"table\" %s", quote_identifier(server),
					 quote_literal_cstr(kind->name));
	foreach (lc, options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (tdpg_find_option(kind, option->defname) >= 0)
			appendStringInfo(&command, ", %s %s", quote_identifier(option->defname),
							 quote_literal_cstr(defGetString(option)));
	}
	appendStringInfoChar(&command, ')');
	return command.data;
}

/* Whether the statement wants a table, as the server itself judges the commands. */
static bool
is_wanted(const ImportForeignSchemaStmt *stmt, const char *name)
{
	bool named = false;
	ListCell *lc;

	foreach (lc, stmt->table_list)
		named = named || strcmp(lfirst_node(RangeVar, lc)->relname, name) == 0;
	switch (stmt->list_type)
	{
		case FDW_IMPORT_SCHEMA_LIMIT_TO:
			return named;
		case FDW_IMPORT_SCHEMA_EXCEPT:
			return !named;
		case FDW_IMPORT_SCHEMA_ALL:
			break;
	}
	return true;
}

List *
tdImportForeignSchema(ImportForeignSchemaStmt *stmt, Oid server)
{
	const char *server_name = GetForeignServer(server)->servername;
	const TdTableKind *wanted[TD_N_KINDS];
	List *commands = NIL;
	int n_wanted = 0;
	ListCell *lc;
	int i;

	if (strcmp(stmt->remote_schema, REMOTE_SCHEMA) != 0)
		ereport(ERROR, (errcode(ERRCODE_FDW_SCHEMA_NOT_FOUND),
						errmsg("remote schema \"%s\" does not exist", stmt->remote_schema),
						errdetail("Server \"%s\" has one schema, \"%s\".", server_name,
								  REMOTE_SCHEMA),
						errhint("Write IMPORT FOREIGN SCHEMA %s FROM SERVER %s INTO %s.",
								REMOTE_SCHEMA, quote_identifier(server_name),
								quote_identifier(stmt->local_schema))));
	check_names(stmt->table_list);
	for (i = 0; i < TD_N_KINDS; i++)
	{
		if (is_wanted(stmt, tdpg_table_kinds[i]->name))
			wanted[n_wanted++] = tdpg_table_kinds[i];
	}
	foreach (lc, stmt->options)
	{
		DefElem *option = lfirst_node(DefElem, lc);
		bool known = false;

		for (i = 0; i < n_wanted; i++)
			known = known || tdpg_find_option(wanted[i], option->defname) >= 0;
		if (!known)
			tdpg_unknown_option(option->defname, wanted, n_wanted, true);
	}
	for (i = 0; i < n_wanted; i++)
		commands = lappend(commands, create_command(wanted[i], server_name, stmt->options));
	return commands;
}
