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

#include "td_classifier.h"
#include "td_compat.h"
#include "td_error.h"

/* The classifier of the statement, which all its calls share. */
static TdClassifier *
statement_classifier(FunctionCallInfo fcinfo, td_task task)
{
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = tdpg_classifier_create(task, fcinfo->flinfo->fn_mcxt);
	return fcinfo->flinfo->fn_extra;
}

static Datum classification(const TdText *categories, const double *probabilities, int n);

static Datum
classify(FunctionCallInfo fcinfo, td_task task)
{
	TdClassifier *c = statement_classifier(fcinfo, task);
	int n = (int) c->model->view.n_out;
	TdText *names;
	double *probabilities;
	int i;

	if (!tdpg_classify(c, fcinfo->args[0], fcinfo->args[1]))
		PG_RETURN_NULL();
	names = palloc(sizeof(TdText) * n);
	probabilities = palloc(sizeof(double) * n);
	for (i = 0; i < n; i++)
	{
		names[i].data = c->model->names[i];
		names[i].len = strlen(names[i].data);
		probabilities[i] = c->probability[i];
	}
	return classification(names, probabilities, n);
}

PG_FUNCTION_INFO_V1(ruvector_classify_request);

/* One category of the request: its kind of task. */
Datum
ruvector_classify_request(PG_FUNCTION_ARGS)
{
	return classify(fcinfo, TD_TASK_CLASSIFIER);
}

PG_FUNCTION_INFO_V1(ruvector_classify_capabilities);

/* Each capability that the request needs, by itself. */
Datum
ruvector_classify_capabilities(PG_FUNCTION_ARGS)
{
	return classify(fcinfo, TD_TASK_CAPABILITIES);
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
push_text(JsonbParseState **state, TdText value)
{
	JsonbValue v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, value.data);
	v.val.string.len = (int) value.len;
	pushJsonbValue(state, WJB_VALUE, &v);
}

static void
push_number(JsonbParseState **state, double value)
{
	/* People read it: a probability has no more than six places that mean anything. */
	int64 millionths = (int64) rint(value * 1e6);
	int places = 6;
	JsonbValue v;

	while (places > 0 && millionths % 10 == 0)
	{
		millionths /= 10;
		places--;
	}
	v.type = jbvNumeric;
	v.val.numeric = int64_div_fast_to_numeric(millionths, places);
	pushJsonbValue(state, WJB_VALUE, &v);
}

/*
 * The JSON of a classification, from n categories in any order: {"classifications": [{"category":
 * ..., "probability": ...}, ...], "top_category": ..., "confidence": ...}, most probable first, equals
 * as they came.
 */
static Datum
classification(const TdText *categories, const double *probabilities, int n)
{
	JsonbParseState *state = NULL;
	int *order = palloc(sizeof(int) * Max(n, 1));
	int i;

	for (i = 0; i < n; i++)
	{
		int at;

		for (at = i; at > 0 && probabilities[i] > probabilities[order[at - 1]]; at--)
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
		push_text(&state, categories[order[i]]);
		push_key(&state, "probability");
		push_number(&state, probabilities[order[i]]);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	if (n > 0)
	{
		push_key(&state, "top_category");
		push_text(&state, categories[order[0]]);
		push_key(&state, "confidence");
		push_number(&state, probabilities[order[0]]);
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
	return PointerGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

PG_FUNCTION_INFO_V1(tinydancer_classification);

/* The same from arrays of SQL. */
Datum
tinydancer_classification(PG_FUNCTION_ARGS)
{
	Datum *categories;
	Datum *given;
	TdText *names;
	double *probabilities;
	bool *no_category;
	bool *no_probability;
	int n;
	int n_probabilities;
	int i;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &categories,
					  &no_category, &n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &given, &no_probability, &n_probabilities);
	if (n != n_probabilities)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("different numbers of categories and probabilities"),
						errdetail("There are %d categories and %d probabilities.", n,
								  n_probabilities),
						errhint("Pass one probability for each category.")));
	names = palloc(sizeof(TdText) * Max(n, 1));
	probabilities = palloc(sizeof(double) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		probabilities[i] = no_probability[i] ? NAN : DatumGetFloat8(given[i]);
		if (no_category[i] || !(probabilities[i] >= 0.0 && probabilities[i] <= 1.0))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("a category needs a name and a probability between 0 and 1"),
							errdetail("Element %d has none.", i + 1),
							errhint("Leave out what has no probability.")));
		names[i] = tdpg_text(categories[i]);
	}
	return classification(names, probabilities, n);
}
