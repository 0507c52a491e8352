/*
 * td_bert_avx2.c - the layers of a BERT encoder for processors with AVX2.
 *
 * In and out: see td_bert_body.h.  Called by td_bert_step().
 */
#include "tinydancer.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <string.h>

#include "td_bert.h"
#include "td_math.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define LANES_SSE2
#include "td_lanes.h"

/*
 * 32 channels of one to three rows.  maddubs adds two products in 16 bits, which the pairs of
 * weights allow (see td_encoder), and madd the two pairs of a quad in 32.
 */
static TD_INLINE void
half_panel(const uint8_t *a, size_t stride, int rows, const int8_t *weight, size_t n_quads,
		   int32_t *sums)
{
	const __m256i ones = _mm256_set1_epi16(1);
	__m256i acc[3][4];
	size_t quad;
	int r;
	int v;

	for (r = 0; r < rows; r++)
		for (v = 0; v < 4; v++)
			acc[r][v] = _mm256_setzero_si256();
	for (quad = 0; quad < n_quads; quad++, weight += 4 * TD_BERT_PANEL)
	{
		for (r = 0; r < rows; r++)
		{
			int32_t four;
			__m256i x;

			memcpy(&four, a + (size_t) r * stride + 4 * quad, sizeof(four));
			x = _mm256_set1_epi32(four);
			for (v = 0; v < 4; v++)
			{
				__m256i w = _mm256_load_si256((const __m256i *) (weight + 32 * v));
				__m256i pairs = _mm256_maddubs_epi16(x, w);

				acc[r][v] = _mm256_add_epi32(acc[r][v], _mm256_madd_epi16(pairs, ones));
			}
		}
	}
	for (r = 0; r < rows; r++)
		for (v = 0; v < 4; v++)
			_mm256_store_si256((__m256i *) (sums + r * TD_BERT_PANEL + 8 * v), acc[r][v]);
}

static void
product_block(const uint8_t *a, size_t stride, size_t rows, const int8_t *weight, size_t n_quads,
			  const int8_t *ahead, int32_t *sums)
{
	size_t row;
	size_t c;

	(void) ahead;
	for (row = 0; row < rows; row += 2)
	{
		for (c = 0; c < TD_BERT_PANEL; c += 32)
		{
			const uint8_t *x = a + row * stride;
			int32_t *out = sums + row * TD_BERT_PANEL + c;

			if (row + 1 < rows)
				half_panel(x, stride, 2, weight + 4 * c, n_quads, out);
			else
				half_panel(x, stride, 1, weight + 4 * c, n_quads, out);
		}
	}
}

#include "td_bert_body.h"

int
td_bert_step_avx2(td_embed_job *job)
{
	return step(job);
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
