/*
 * td_score_avx2.c - scoring many agents at a time for processors with AVX2.
 *
 * In and out: see td_score_code.h.  Chosen by td_score.c.
 */
#include "tinydancer.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,popcnt")
#endif

#define VECTOR 32
#include "td_score_body.h"

/*
 * Sixteen requests in the lanes of two registers would need products of int16, since those of int8
 * saturate: no faster for 128 elements a row, slower for 384.
 */
static void
products(const int8_t *rows, const float *scales, size_t n_rows, size_t n,
		 const td_operand *operands, size_t n_queries, void *packed, float *out)
{
	(void) packed;
	tiled_products(&td_code_avx2, rows, scales, n_rows, n, operands, n_queries, out);
}

const td_score_code td_score_avx2 = {fit, score, products};

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
