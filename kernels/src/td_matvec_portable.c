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
products_i8(const int8_t *rows, size_t n_rows, size_t n, const td_operand *operand, int32_t *sums)
{
	size_t row;

	for (row = 0; row < n_rows; row++)
		sums[row] = td_dot_wide(operand->wide, rows + row * n, n);
}

#include "td_matvec_body.h"

const td_code td_code_portable = CODE;
