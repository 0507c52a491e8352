/*
 * td_sql_version.c - tinydancer.registry_version(): whether a copy of the registry is still good.
 *
 * In: nothing.  Out: (registry, routes, models), texts that are compared for equality.  Called by programs
 * that keep a copy of the tables between queries, such as tinydancer.multicorn.
 *
 * A backend counts the changes that it hears of, so its own name and start are part of a version:
 * behind a connection pooler another backend answers, and the copy is read again.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "td_compat.h"
#include "td_registry.h"

static Datum
version(uint64 generation)
{
	return CStringGetTextDatum(psprintf("%d." INT64_FORMAT "." UINT64_FORMAT, MyProcPid,
										(int64) MyStartTimestamp, generation));
}

PG_FUNCTION_INFO_V1(tinydancer_registry_version);

Datum
tinydancer_registry_version(PG_FUNCTION_ARGS)
{
	TupleDesc desc;
	Datum values[3];
	bool nulls[3] = {0};
	uint64 registry;
	uint64 routes;
	uint64 models;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	tdpg_registry_generations(&registry, &routes, &models);
	values[0] = version(registry);
	values[1] = version(routes);
	values[2] = version(models);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
