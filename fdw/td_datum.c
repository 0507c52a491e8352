/*
 * td_datum.c - datums to C values and back.
 *
 * In: what SQL passed.  Out: UTF-8 texts, float vectors, lists, all checked.  Called by the SQL
 * functions and the foreign scan; results live in the current memory context.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "td_compat.h"
#include "td_datum.h"
#include "td_error.h"

TdText
tdpg_utf8(const char *string, size_t len)
{
	TdText out;

	out.data = pg_server_to_any(string, (int) len, PG_UTF8);
	out.len = out.data == string ? len : strlen(out.data);
	return out;
}

TdText
tdpg_text(Datum value)
{
	text *t = DatumGetTextPP(value);

	return tdpg_utf8(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

Datum
tdpg_text_datum(const char *utf8, size_t len)
{
	char *converted;

	if (GetDatabaseEncoding() == PG_UTF8)
		return PointerGetDatum(cstring_to_text_with_len(utf8, (int) len));
	converted = pg_any_to_server(utf8, (int) len, PG_UTF8);
	if (converted == utf8)
		return PointerGetDatum(cstring_to_text_with_len(utf8, (int) len));
	return PointerGetDatum(cstring_to_text(converted));
}

const float *
tdpg_vector(Datum value, int *n)
{
	ArrayType *array = DatumGetArrayTypeP(value);

	if (ARR_ELEMTYPE(array) != FLOAT4OID)
		elog(ERROR, "expected real[]");
	if (ARR_NDIM(array) > 1)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("vector must be a one-dimensional array"),
						errdetail("The array has %d dimensions.", ARR_NDIM(array)),
						errhint("Pass one vector at a time.")));
	if (array_contains_nulls(array))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("vector must not contain NULL"),
						errdetail("Every element must be a finite number."),
						errhint("Check where the vector comes from, or pass a text and let the "
								"server embed it.")));
	*n = ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[0];
	return (const float *) ARR_DATA_PTR(array);
}

void
tdpg_unit_vector(Datum value, const TdActiveEncoder *encoder, float *out)
{
	int n;
	const float *values = tdpg_vector(value, &n);
	td_status status;

	if (n != encoder->dim)
		tdpg_error_dimension(encoder->id, encoder->dim, n);
	memcpy(out, values, sizeof(float) * n);
	status = td_vec_normalise(out, n);
	if (status != TD_OK)
		tdpg_error(status);
}

Datum
tdpg_vector_datum(const float *values, int n)
{
	size_t size = ARR_OVERHEAD_NONULLS(1) + sizeof(float) * n;
	ArrayType *array = palloc0(size);

	SET_VARSIZE(array, size);
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = FLOAT4OID;
	ARR_DIMS(array)[0] = n;
	ARR_LBOUND(array)[0] = 1;
	memcpy(ARR_DATA_PTR(array), values, sizeof(float) * n);
	return PointerGetDatum(array);
}

TdText *
tdpg_text_array(Datum value, const char *what, int *n)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	Datum *elements;
	bool *nulls;
	TdText *out;
	int i;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, n);
	out = palloc(sizeof(TdText) * Max(*n, 1));
	for (i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("%s must not contain NULL", what),
							errdetail("Element %d is NULL.", i + 1),
							errhint("Use array_remove(..., NULL).")));
		out[i] = tdpg_text(elements[i]);
	}
	return out;
}

TdText
tdpg_fold(TdText text)
{
	size_t capacity = td_text_fold_size(text.len);
	char *buffer = palloc(Max(capacity, 1));
	TdText out;
	td_status status;

	status = td_text_fold(text.data, text.len, buffer, capacity, &out.len);
	if (status != TD_OK)
		tdpg_error(status);
	out.data = buffer;
	return out;
}

TdText
tdpg_words_of(TdText text)
{
	char *copy = palloc(text.len + 1);
	TdText out = {copy, text.len};
	size_t i;

	for (i = 0; i < text.len; i++)
		copy[i] = text.data[i] == '-' || text.data[i] == '_' ? ' ' : text.data[i];
	copy[text.len] = '\0';
	return out;
}
