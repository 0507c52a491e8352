/*
 * td_score_portable.c - scoring many agents at a time in plain C: for any processor, and the
 * measure of the others.
 *
 * In and out: see td_score_code.h.  Chosen by td_score.c.
 */
#define VECTOR 16
#include "td_score_body.h"

static void
products(const int8_t *rows, const float *scales, size_t n_rows, size_t n,
		 const td_operand *operands, size_t n_queries, void *packed, float *out)
{
	(void) packed;
	tiled_products(&td_code_portable, rows, scales, n_rows, n, operands, n_queries, out);
}

const td_score_code td_score_portable = {fit, score, products};
