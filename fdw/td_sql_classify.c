/*
 * td_sql_classify.c - ruvector_classify_request() and ruvector_classify_capabilities().
 *
 * In: a request.  Out: categories by probability, as JSON.  Called from SQL.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "td_compat.h"
#include "td_embedder.h"
#include "td_error.h"
#include "td_registry.h"

/* What a statement needs to embed requests. */
typedef struct Embedding
{
	TdActiveEncoder *encoder;
	TdEmbedder *embedder;
	float *vector;
} Embedding;

/* The vector of the request; raises the error of an empty one. */
static const float *
embed_request(FunctionCallInfo fcinfo)
{
	Embedding *e = fcinfo->flinfo->fn_extra;
	td_embed_info info;
	td_status status;

	if (e == NULL)
	{
		MemoryContext context = fcinfo->flinfo->fn_mcxt;

		e = MemoryContextAlloc(context, sizeof(Embedding));
		e->encoder = tdpg_registry_encoder(context);
		e->embedder = tdpg_embedder_create(context);
		e->vector = MemoryContextAlloc(context, sizeof(float) * e->encoder->dim);
		fcinfo->flinfo->fn_extra = e;
	}
	status = tdpg_embed(e->embedder, tdpg_active_encoder_view(e->encoder),
						tdpg_text(PG_GETARG_DATUM(0)), e->vector, &info);
	if (status != TD_OK)
		tdpg_error(status);
	return e->vector;
}

/* No model can be active yet: the module has no reader for one. */
static _Noreturn void
raise_no_classifier(FunctionCallInfo fcinfo, const char *what, const char *kind)
{
	Embedding *e = fcinfo->flinfo->fn_extra;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("no %s is active", what),
			 errdetail("Kind \"%s\" of tinydancer.model has no usable model for encoder \"%s\".",
					   kind, e->encoder->id),
			 errhint("Train one with the command tinydancer train classifier.")));
	pg_unreachable();
}

PG_FUNCTION_INFO_V1(ruvector_classify_request);

/* One category of the request: its kind of task. */
Datum
ruvector_classify_request(PG_FUNCTION_ARGS)
{
	(void) embed_request(fcinfo);
	raise_no_classifier(fcinfo, "task classifier", "classifier");
}

PG_FUNCTION_INFO_V1(ruvector_classify_capabilities);

/* Each capability that the request needs, by itself. */
Datum
ruvector_classify_capabilities(PG_FUNCTION_ARGS)
{
	(void) embed_request(fcinfo);
	raise_no_classifier(fcinfo, "capability classifier", "capabilities");
}

/* ---------------------------------------------------------------- the answer */

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, key);
	v.val.string.len = (int) strlen(key);
	pushJsonbValue(state, WJB_KEY, &v);
}

static void
push_text(JsonbParseState **state, JsonbIteratorToken token, text *value)
{
	JsonbValue v;

	v.type = jbvString;
	v.val.string.val = VARDATA_ANY(value);
	v.val.string.len = VARSIZE_ANY_EXHDR(value);
	pushJsonbValue(state, token, &v);
}

static void
push_number(JsonbParseState **state, JsonbIteratorToken token, double value)
{
	JsonbValue v;

	v.type = jbvNumeric;
	v.val.numeric =
		DatumGetNumeric(DirectFunctionCall1(float8_numeric, Float8GetDatum(value)));
	pushJsonbValue(state, token, &v);
}

PG_FUNCTION_INFO_V1(tinydancer_classification);

/*
 * The JSON of a classification, from categories and their probabilities in any order:
 * {"classifications": [{"category": ..., "probability": ...}, ...], "top_category": ...,
 * "confidence": ...}, most probable first, equals as they came.
 */
Datum
tinydancer_classification(PG_FUNCTION_ARGS)
{
	ArrayType *probability_array = PG_GETARG_ARRAYTYPE_P(1);
	JsonbParseState *state = NULL;
	Datum *categories;
	Datum *probabilities;
	bool *no_category;
	bool *no_probability;
	int *order;
	int n;
	int n_probabilities;
	int i;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &categories,
					  &no_category, &n);
	deconstruct_array(probability_array, FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &probabilities, &no_probability, &n_probabilities);
	if (n != n_probabilities)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("different numbers of categories and probabilities"),
						errdetail("There are %d categories and %d probabilities.", n,
								  n_probabilities),
						errhint("Pass one probability for each category.")));
	order = palloc(sizeof(int) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		double p = no_probability[i] ? NAN : DatumGetFloat8(probabilities[i]);
		int at;

		if (no_category[i] || !(p >= 0.0 && p <= 1.0))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("a category needs a name and a probability between 0 and 1"),
							errdetail("Element %d has none.", i + 1),
							errhint("Leave out what has no probability.")));
		for (at = i; at > 0 && p > DatumGetFloat8(probabilities[order[at - 1]]); at--)
			order[at] = order[at - 1];
		order[at] = i;
	}

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_key(&state, "classifications");
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (i = 0; i < n; i++)
	{
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_key(&state, "category");
		push_text(&state, WJB_VALUE, DatumGetTextPP(categories[order[i]]));
		push_key(&state, "probability");
		push_number(&state, WJB_VALUE, DatumGetFloat8(probabilities[order[i]]));
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	if (n > 0)
	{
		push_key(&state, "top_category");
		push_text(&state, WJB_VALUE, DatumGetTextPP(categories[order[0]]));
		push_key(&state, "confidence");
		push_number(&state, WJB_VALUE, DatumGetFloat8(probabilities[order[0]]));
	}
	else
	{
		JsonbValue none;

		none.type = jbvNull;
		push_key(&state, "top_category");
		pushJsonbValue(&state, WJB_VALUE, &none);
		push_key(&state, "confidence");
		pushJsonbValue(&state, WJB_VALUE, &none);
	}
	PG_RETURN_POINTER(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
