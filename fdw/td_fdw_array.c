/*
 * td_fdw_array.c - the distinct texts of an array of requests.
 *
 * In: a text[] datum.  Out: datums.  Called by td_fdw_scan.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "td_compat.h"
#include "td_fdw.h"

/* Two texts by bytes, then by position, so that the first of equal ones comes first. */
typedef struct TdElement
{
	Datum value;
	int position;
} TdElement;

static int
element_compare(const void *a, const void *b)
{
	const TdElement *x = a;
	const TdElement *y = b;
	text *s = (text *) DatumGetPointer(x->value);
	text *t = (text *) DatumGetPointer(y->value);
	size_t s_len = VARSIZE_ANY_EXHDR(s);
	size_t t_len = VARSIZE_ANY_EXHDR(t);
	int order = memcmp(VARDATA_ANY(s), VARDATA_ANY(t), Min(s_len, t_len));

	if (order != 0)
		return order;
	if (s_len != t_len)
		return s_len < t_len ? -1 : 1;
	return 0;
}

static int
element_order(const void *a, const void *b)
{
	int order = element_compare(a, b);
	int x = ((const TdElement *) a)->position;
	int y = ((const TdElement *) b)->position;

	return order != 0 ? order : x < y ? -1 : x > y ? 1 : 0;
}

static int
position_order(const void *a, const void *b)
{
	int x = ((const TdElement *) a)->position;
	int y = ((const TdElement *) b)->position;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* The distinct elements in the array's order, NULLs left out; in the current memory context. */
Datum *
tdpg_distinct_texts(Datum array, int *n_texts)
{
	ArrayType *copy = DatumGetArrayTypePCopy(array);
	Datum *texts;
	Datum *elements;
	bool *nulls;
	TdElement *distinct;
	int n;
	int kept = 0;
	int unique = 0;
	int i;

	deconstruct_array(copy, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	distinct = palloc(sizeof(TdElement) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			continue;
		distinct[kept].value = elements[i];
		distinct[kept].position = i;
		kept++;
	}
	qsort(distinct, kept, sizeof(TdElement), element_order);
	for (i = 0; i < kept; i++)
	{
		if (i == 0 || element_compare(&distinct[i], &distinct[unique - 1]) != 0)
			distinct[unique++] = distinct[i];
	}
	qsort(distinct, unique, sizeof(TdElement), position_order);
	texts = palloc(sizeof(Datum) * Max(unique, 1));
	for (i = 0; i < unique; i++)
		texts[i] = distinct[i].value;
	*n_texts = unique;
	return texts;
}
