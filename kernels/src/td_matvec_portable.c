/*
 * td_matvec_portable.c - one vector against many rows in plain C: for any processor, and the
 * measure of the others.
 *
 * In and out: see td_matvec.h.  Chosen by td_code_of().
 */
#include "td_lanes.h"
#include "td_matvec.h"

#define VECTOR 16
#define ROWS 2
#define WIDE_OPERAND 1

#include "td_dot.h"

static void
rows_i8(const int8_t *rows, const float *scales, size_t n_rows, size_t n, const td_operand *operand,
		float *y)
{
	size_t row;

	for (row = 0; row < n_rows; row++)
		y[row] =
			(float) td_dot_wide(operand->wide, rows + row * n, n) * (operand->scale * scales[row]);
}

static TD_INLINE uint32_t
lanes_above(const float *y, float limit)
{
	uint32_t bits = 0;
	int l;

	for (l = 0; l < LANES; l++)
		bits |= (uint32_t) (y[l] > limit) << l;
	return bits;
}

#include "td_matvec_body.h"

const td_code td_code_portable = CODE;
