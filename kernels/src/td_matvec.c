/*
 * td_matvec.c - a matrix times a vector, by the code of the level that the caller names.
 *
 * Weights and a float vector in, a float vector out; called by both shells for the heads of models.
 */
#include "td_cpu.h"
#include "td_dot.h"
#include "td_matvec.h"

const td_code *
td_code_of(uint32_t level)
{
	switch (level)
	{
#if defined(__x86_64__) && defined(__GNUC__)
		case TD_LEVEL_AVX512_VNNI:
			return TD_CPU_HAS(AVX512_VPOPCNTDQ, "avx512vpopcntdq") ? &td_code_avx512_popcnt
																   : &td_code_avx512;
		case TD_LEVEL_AVX2:
			return &td_code_avx2;
#endif
		/* Plain C becomes SSE2 where there is nothing better. */
		default:
			return &td_code_portable;
	}
}

td_query
td_query_of_row(uint32_t level, const int8_t *row, float scale, size_t n, int16_t *wide)
{
	td_query query = {td_code_of(level), {row, wide, 0, scale}};
	size_t i;

	td_widen(row, n, wide);
	for (i = 0; i < n; i++)
		query.operand.sum += row[i];
	return query;
}

void
td_products_begin(td_products *products, const td_query *query, const int8_t *rows,
				  const float *scales, size_t n_rows, size_t dim)
{
	products->query = query;
	products->rows = rows;
	products->scales = scales;
	products->dim = dim;
	products->end = n_rows;
	products->first = 0;
	products->n = 0;
	products->value = products->ahead;
}

void
td_products_ahead(td_products *products, size_t row)
{
	size_t n = row < products->end ? products->end - row : 1;

	products->first = row;
	products->n = n < TD_AHEAD ? n : TD_AHEAD;
	products->query->code->rows_i8(products->rows + row * products->dim, products->scales + row,
								   products->n, products->dim, &products->query->operand,
								   products->ahead);
}

size_t
td_matvec_scratch_size(size_t n_in)
{
	/* More is refused by td_matvec(); the limit keeps the size from wrapping. */
	return n_in > TD_MATVEC_MAX ? 0 : td_operand_size(n_in);
}

td_status
td_matvec(uint32_t level, const td_matrix *matrix, uint32_t weights, size_t n_out, size_t n_in,
		  const float *x, float *y, void *scratch, size_t scratch_size)
{
	const td_code *code = td_code_of(level);
	td_operand operand;

	if (n_in == 0 || n_in > TD_MATVEC_MAX ||
		(weights != TD_WEIGHTS_F32 && weights != TD_WEIGHTS_I8))
		return TD_ERR_SHAPE;
	if (n_out > 0 && (weights == TD_WEIGHTS_I8 ? matrix->i8 == NULL || matrix->scales == NULL
											   : matrix->f32 == NULL))
		return TD_ERR_SHAPE;
	if (scratch_size < td_matvec_scratch_size(n_in))
		return TD_ERR_BUFFER;
	if (code->check(x, n_in) != TD_OK)
		return TD_ERR_NONFINITE;
	if (weights == TD_WEIGHTS_F32)
	{
		code->rows_f32(matrix->f32, n_out, n_in, x, y);
		return TD_OK;
	}
	code->make_operand(x, n_in, scratch, &operand);
	code->rows_i8(matrix->i8, matrix->scales, n_out, n_in, &operand, y);
	return TD_OK;
}
