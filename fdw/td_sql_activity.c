/*
 * td_sql_activity.c - tinydancer.session_activity(): what this session has worked out so far.
 *
 * In: the counters that embedding, routing and foreign scans raise.  Out: one row.  Called from SQL.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "td_activity.h"
#include "td_compat.h"

TdActivity tdpg_activity;

PG_FUNCTION_INFO_V1(tinydancer_session_activity);

Datum
tinydancer_session_activity(PG_FUNCTION_ARGS)
{
	const uint64 counts[] = {tdpg_activity.inputs_evaluated, tdpg_activity.texts_embedded,
							 tdpg_activity.requests_routed, tdpg_activity.requests_matched,
							 tdpg_activity.requests_classified};
	Datum values[lengthof(counts)];
	bool nulls[lengthof(counts)] = {0};
	TupleDesc desc;
	int i;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (i = 0; i < (int) lengthof(counts); i++)
		values[i] = Int64GetDatum((int64) counts[i]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
