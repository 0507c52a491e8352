/*
 * td_matvec.c - a matrix times a vector, by the code of the level that the caller names.
 *
 * Weights and a float vector in, a float vector out; called by both shells for the heads of models.
 */
#include "td_matvec.h"

const td_code *
td_code_of(uint32_t level)
{
	switch (level)
	{
#if defined(__x86_64__) && defined(__GNUC__)
		case TD_LEVEL_AVX512_VNNI:
			return &td_code_avx512;
		case TD_LEVEL_AVX2:
			return &td_code_avx2;
#endif
		/* Plain C becomes SSE2 where there is nothing better. */
		default:
			return &td_code_portable;
	}
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
