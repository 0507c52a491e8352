/*
 * td_sql_encoder.c - what the scripts ask about encoders: which is active, what another one is, and
 * that nobody switches meanwhile.
 *
 * In: nothing or a name.  Out: (id, dim, checksum, fit_mu, fit_s).  Called by tinydancer.pin_encoder()
 * and tinydancer.use_encoder().
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "td_compat.h"
#include "td_registry.h"

/* One row of facts; the checksum is NULL where callers pass every vector. */
static Datum
facts_of(FunctionCallInfo fcinfo, const TdActiveEncoder *active)
{
	TupleDesc desc;
	Datum values[5];
	bool nulls[5] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(active->id);
	values[1] = Int32GetDatum(active->dim);
	nulls[2] = tdpg_active_encoder_is_external(active);
	values[2] = (Datum) 0;
	if (!nulls[2])
	{
		char checksum[17];

		snprintf(checksum, sizeof(checksum), "%016llx",
				 (unsigned long long) tdpg_active_encoder_view(active)->file.checksum);
		values[2] = CStringGetTextDatum(checksum);
	}
	values[3] = Float8GetDatum(active->fit_mu);
	values[4] = Float8GetDatum(active->fit_s);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

PG_FUNCTION_INFO_V1(tinydancer_active_encoder);

/* Of the active encoder: what the first stored vector pins. */
Datum
tinydancer_active_encoder(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(facts_of(fcinfo, tdpg_registry_encoder(CurrentMemoryContext)));
}

PG_FUNCTION_INFO_V1(tinydancer_encoder_facts);

/* Of an encoder by name, whatever the active one is; raises what is against using it. */
Datum
tinydancer_encoder_facts(PG_FUNCTION_ARGS)
{
	const char *id = tdpg_encoder_id(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_DATUM(facts_of(fcinfo, tdpg_registry_other_encoder(id, CurrentMemoryContext)));
}

PG_FUNCTION_INFO_V1(tinydancer_hold_encoder);

Datum
tinydancer_hold_encoder(PG_FUNCTION_ARGS)
{
	tdpg_registry_hold_encoder();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(tinydancer_check_switched);

Datum
tinydancer_check_switched(PG_FUNCTION_ARGS)
{
	tdpg_registry_check_switched(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}
