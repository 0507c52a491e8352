/*
 * td_sql_embed.c - ruvector_embed() and ruvector_cosine_similarity(), and what the scripts need to
 * embed phrases.
 *
 * In: text or vectors.  Out: vectors as real[], cosines.  Called from SQL.  td_sql_encoder.c has
 * what they need to know of the encoder itself.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "td_compat.h"
#include "td_datum.h"
#include "td_embedder.h"
#include "td_error.h"
#include "td_registry.h"

/*
 * What a call keeps in fn_extra until its statement ends: an encoder and the scratch memory.  PL/pgSQL
 * keeps fn_extra of simple expressions for the whole transaction, in which the encoder may be
 * switched; there a new statement shows in the snapshot.
 */
typedef struct Held
{
	TdEmbedder *embedder;
	MemoryContext context; /* of the pin on the encoder */
	char *id;			   /* asked for by name; NULL: the active one */
	TdActiveEncoder *active;
	TdEncoderFile *file;
	TransactionId xmax; /* of the snapshot that the encoder was opened under */
	uint32 xcnt;
	CommandId curcid;
} Held;

static Held *
held_by(FunctionCallInfo fcinfo)
{
	MemoryContext context = fcinfo->flinfo->fn_mcxt;
	Held *held = fcinfo->flinfo->fn_extra;

	if (held == NULL)
	{
		held = MemoryContextAllocZero(context, sizeof(Held));
		held->embedder = tdpg_embedder_create(context);
		held->context =
			AllocSetContextCreate(context, "tinydancer encoder", ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = held;
	}
	return held;
}

static bool
is_same_statement(const Held *held)
{
	Snapshot snapshot = ActiveSnapshotSet() ? GetActiveSnapshot() : NULL;

	return snapshot == NULL || (held->xmax == snapshot->xmax && held->xcnt == snapshot->xcnt &&
								held->curcid == snapshot->curcid);
}

/* The active encoder, held until the statement ends. */
static TdActiveEncoder *
statement_encoder(Held *held)
{
	if (held->active == NULL || !is_same_statement(held))
	{
		Snapshot snapshot = ActiveSnapshotSet() ? GetActiveSnapshot() : NULL;

		held->active = NULL;
		MemoryContextReset(held->context);
		held->active = tdpg_registry_encoder(held->context);
		held->xmax = snapshot != NULL ? snapshot->xmax : InvalidTransactionId;
		held->xcnt = snapshot != NULL ? snapshot->xcnt : 0;
		held->curcid = snapshot != NULL ? snapshot->curcid : 0;
	}
	return held->active;
}

/* The vector of a text as real[]; one without words is an error, or zeros. */
static Datum
embed_datum(Held *held, const td_encoder *encoder, TdText text, bool empty_is_zero)
{
	float *out = palloc(sizeof(float) * encoder->dim);
	td_embed_info info;
	td_status status = tdpg_embed(held->embedder, encoder, text, out, &info);

	if (status == TD_ERR_EMPTY && empty_is_zero)
		memset(out, 0, sizeof(float) * encoder->dim);
	else if (status != TD_OK)
		tdpg_error(status);
	return tdpg_vector_datum(out, (int) encoder->dim);
}

PG_FUNCTION_INFO_V1(ruvector_embed);

/* With the active encoder of the database. */
Datum
ruvector_embed(PG_FUNCTION_ARGS)
{
	Held *held = held_by(fcinfo);
	const td_encoder *encoder = tdpg_active_encoder_view(statement_encoder(held));

	return embed_datum(held, encoder, tdpg_text(PG_GETARG_DATUM(0)), false);
}

static void
unpin_encoder(void *arg)
{
	tdpg_encoder_unpin(arg);
}

PG_FUNCTION_INFO_V1(ruvector_embed_with);

/* With the encoder named in the second argument, whatever the active one is. */
Datum
ruvector_embed_with(PG_FUNCTION_ARGS)
{
	const char *id = tdpg_encoder_id(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	Held *held = held_by(fcinfo);

	if (held->file == NULL || strcmp(held->id, id) != 0)
	{
		MemoryContextCallback *callback;
		TdEncoderFault fault;
		TdEncoderFile *file;

		held->file = NULL;
		MemoryContextReset(held->context);
		callback = MemoryContextAlloc(held->context, sizeof(MemoryContextCallback));
		held->id = MemoryContextStrdup(held->context, id);
		file = tdpg_encoder_open(id, 0, &fault);
		if (file == NULL)
			tdpg_encoder_raise(&fault);
		callback->func = unpin_encoder;
		callback->arg = file;
		MemoryContextRegisterResetCallback(held->context, callback);
		held->file = file;
	}
	return embed_datum(held, tdpg_encoder_view(held->file), tdpg_text(PG_GETARG_DATUM(0)), false);
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

/* A phrase as the registry compares it. */
static TdText
phrase_of(const char *kind, TdText text)
{
	return strcmp(kind, "capability") == 0 ? tdpg_words_of(text) : text;
}

PG_FUNCTION_INFO_V1(tinydancer_embed_phrase);

/*
 * The vector that the registry compares requests with; a phrase without words gets zeros, and NULL
 * where callers pass every vector.
 */
Datum
tinydancer_embed_phrase(PG_FUNCTION_ARGS)
{
	char *kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Held *held = held_by(fcinfo);
	TdActiveEncoder *active = statement_encoder(held);

	if (tdpg_active_encoder_is_external(active))
		PG_RETURN_NULL();
	return embed_datum(held, tdpg_active_encoder_view(active),
					   phrase_of(kind, tdpg_text(PG_GETARG_DATUM(1))), true);
}

PG_FUNCTION_INFO_V1(tinydancer_embed_phrases);

/* tinydancer_embed_phrase() for as many phrases as kinds, one row each, in order. */
Datum
tinydancer_embed_phrases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int n;
	int n_kinds;
	TdText *kinds = tdpg_text_array(PG_GETARG_DATUM(0), "kinds", &n_kinds);
	TdText *phrases = tdpg_text_array(PG_GETARG_DATUM(1), "phrases", &n);
	Held *held = held_by(fcinfo);
	const td_encoder *encoder = tdpg_active_encoder_view(statement_encoder(held));
	float *vectors = MemoryContextAllocHuge(CurrentMemoryContext,
											sizeof(float) * Max(n, 1) * encoder->dim);
	td_status *status = palloc(sizeof(td_status) * Max(n, 1));
	int i;

	if (n != n_kinds)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("different numbers of kinds and phrases"),
						errdetail("There are %d kinds and %d phrases.", n_kinds, n),
						errhint("Pass a kind for each phrase.")));
	for (i = 0; i < n; i++)
		phrases[i] = phrase_of(pnstrdup(kinds[i].data, kinds[i].len), phrases[i]);
	tdpg_embed_many(held->embedder, encoder, phrases, n, vectors, NULL, status);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (i = 0; i < n; i++)
	{
		Datum value;
		bool isnull = false;

		if (status[i] != TD_OK && status[i] != TD_ERR_EMPTY)
			tdpg_error(status[i]);
		value = tdpg_vector_datum(vectors + (size_t) i * encoder->dim, (int) encoder->dim);
		tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
		pfree(DatumGetPointer(value));
	}
	return (Datum) 0;
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
	TdActiveEncoder *active = tdpg_registry_encoder(CurrentMemoryContext);
	float *out = palloc(sizeof(float) * active->dim);

	tdpg_unit_vector(PG_GETARG_DATUM(0), active, out);
	PG_RETURN_DATUM(tdpg_vector_datum(out, active->dim));
}
