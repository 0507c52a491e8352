/*
 * td_sql_embed.c - ruvector_embed() and ruvector_cosine_similarity(), and what the scripts need to
 * know of the active encoder.
 *
 * In: text or vectors.  Out: vectors as real[], cosines.  Called from SQL.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "td_compat.h"
#include "td_datum.h"
#include "td_error.h"
#include "td_registry.h"

/* The vector of a text as real[]; one without words is an error, or zeros. */
static Datum
embed_datum(const td_encoder *encoder, TdText text, bool empty_is_zero)
{
	float *out = palloc(sizeof(float) * encoder->dim);
	size_t size = td_embed_scratch_size(encoder);
	void *scratch = (void *) TYPEALIGN(64, palloc(size + 64));
	td_embed_info info;
	td_status status = td_embed_text(encoder, text.data, text.len, out, &info, scratch, size);

	if (status == TD_ERR_EMPTY && empty_is_zero)
		memset(out, 0, sizeof(float) * encoder->dim);
	else if (status != TD_OK)
		tdpg_error(status);
	return tdpg_vector_datum(out, (int) encoder->dim);
}

/* The active encoder, held until the statement ends. */
static const td_encoder *
statement_encoder(FunctionCallInfo fcinfo)
{
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = tdpg_registry_encoder(fcinfo->flinfo->fn_mcxt);
	return tdpg_active_encoder_view(fcinfo->flinfo->fn_extra);
}

PG_FUNCTION_INFO_V1(ruvector_embed);

/* With the active encoder of the database. */
Datum
ruvector_embed(PG_FUNCTION_ARGS)
{
	return embed_datum(statement_encoder(fcinfo), tdpg_text(PG_GETARG_DATUM(0)), false);
}

static void
unpin_encoder(void *arg)
{
	tdpg_encoder_unpin(arg);
}

/* An encoder held until the statement ends, with the id that it was asked for by. */
typedef struct HeldEncoder
{
	char *id;
	TdEncoderFile *file;
} HeldEncoder;

PG_FUNCTION_INFO_V1(ruvector_embed_with);

/* With the encoder named in the second argument, whatever the active one is. */
Datum
ruvector_embed_with(PG_FUNCTION_ARGS)
{
	const char *id = tdpg_encoder_id(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	HeldEncoder *held = fcinfo->flinfo->fn_extra;

	if (held == NULL || strcmp(held->id, id) != 0)
	{
		MemoryContext context = fcinfo->flinfo->fn_mcxt;
		MemoryContextCallback *callback;
		TdEncoderFault fault;
		TdEncoderFile *file = tdpg_encoder_open(id, 0, &fault);

		if (file == NULL)
			tdpg_encoder_raise(&fault);
		callback = MemoryContextAlloc(context, sizeof(MemoryContextCallback));
		callback->func = unpin_encoder;
		callback->arg = file;
		MemoryContextRegisterResetCallback(context, callback);
		held = MemoryContextAlloc(context, sizeof(HeldEncoder));
		held->id = MemoryContextStrdup(context, id);
		held->file = file;
		fcinfo->flinfo->fn_extra = held;
	}
	return embed_datum(tdpg_encoder_view(held->file), tdpg_text(PG_GETARG_DATUM(0)), false);
}

PG_FUNCTION_INFO_V1(ruvector_cosine_similarity);

Datum
ruvector_cosine_similarity(PG_FUNCTION_ARGS)
{
	int n_a;
	int n_b;
	const float *a = tdpg_vector(PG_GETARG_DATUM(0), &n_a);
	const float *b = tdpg_vector(PG_GETARG_DATUM(1), &n_b);

	if (n_a != n_b)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("different vector dimensions %d and %d", n_a, n_b),
						errdetail("Only vectors of the same encoder can be compared."),
						errhint("Embed both texts with ruvector_embed().")));
	if (td_vec_check(a, n_a) != TD_OK || td_vec_check(b, n_b) != TD_OK)
		tdpg_error(TD_ERR_NONFINITE);
	PG_RETURN_FLOAT4(td_vec_cosine(a, b, n_a));
}

PG_FUNCTION_INFO_V1(tinydancer_embed_phrase);

/* The vector that the registry compares requests with; a phrase without words gets zeros. */
Datum
tinydancer_embed_phrase(PG_FUNCTION_ARGS)
{
	char *kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TdText text = tdpg_text(PG_GETARG_DATUM(1));

	if (strcmp(kind, "capability") == 0)
		text = tdpg_words_of(text);
	return embed_datum(statement_encoder(fcinfo), text, true);
}

PG_FUNCTION_INFO_V1(tinydancer_fold_capability);

/* What two spellings of a capability have in common. */
Datum
tinydancer_fold_capability(PG_FUNCTION_ARGS)
{
	TdText folded = tdpg_fold(tdpg_words_of(tdpg_text(PG_GETARG_DATUM(0))));

	PG_RETURN_DATUM(tdpg_text_datum(folded.data, folded.len));
}

PG_FUNCTION_INFO_V1(tinydancer_unit_vector);

Datum
tinydancer_unit_vector(PG_FUNCTION_ARGS)
{
	int dim = tdpg_registry_encoder(CurrentMemoryContext)->dim;
	float *out = palloc(sizeof(float) * dim);

	tdpg_unit_vector(PG_GETARG_DATUM(0), dim, out);
	PG_RETURN_DATUM(tdpg_vector_datum(out, dim));
}

PG_FUNCTION_INFO_V1(tinydancer_active_encoder);

/* (id, dim, checksum, fit_mu, fit_s) of the active encoder: what the first stored vector pins. */
Datum
tinydancer_active_encoder(PG_FUNCTION_ARGS)
{
	const td_encoder *encoder =
		tdpg_active_encoder_view(tdpg_registry_encoder(CurrentMemoryContext));
	TupleDesc desc;
	Datum values[5];
	bool nulls[5] = {0};
	char checksum[17];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	snprintf(checksum, sizeof(checksum), "%016llx",
			 (unsigned long long) encoder->file.checksum);
	values[0] = CStringGetTextDatum(encoder->file.id);
	values[1] = Int32GetDatum((int32) encoder->dim);
	values[2] = CStringGetTextDatum(checksum);
	values[3] = Float8GetDatum((double) encoder->fit_mu);
	values[4] = Float8GetDatum((double) encoder->fit_s);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
