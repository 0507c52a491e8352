/*
 * td_bert_avx512.c - the layers of a BERT encoder for processors with AVX-512 VNNI.
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
#pragma clang attribute push(                                                                      \
	__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#define LANES_AVX512
#include "td_lanes.h"

/* With the number of rows known, all 24 sums stay in registers. */
static TD_INLINE void
whole_panel(const uint8_t *a, size_t stride, int rows, const int8_t *weight, size_t n_quads,
			const int8_t *ahead, int32_t *sums)
{
	__m512i acc[6][4];
	size_t quad;
	int r;
	int v;

#pragma GCC unroll 6
	for (r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (v = 0; v < 4; v++)
			acc[r][v] = _mm512_setzero_si512();
	for (quad = 0; quad < n_quads; quad++, weight += 4 * TD_BERT_PANEL)
	{
		__m512i w[4];

		_mm_prefetch((const char *) (ahead + 128 * quad), _MM_HINT_T1);
		_mm_prefetch((const char *) (ahead + 128 * quad + 64), _MM_HINT_T1);
#pragma GCC unroll 4
		for (v = 0; v < 4; v++)
			w[v] = _mm512_load_si512(weight + 64 * v);
#pragma GCC unroll 6
		for (r = 0; r < rows; r++)
		{
			int32_t four;
			__m512i x;

			memcpy(&four, a + (size_t) r * stride + 4 * quad, sizeof(four));
			x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
			for (v = 0; v < 4; v++)
				acc[r][v] = _mm512_dpbusd_epi32(acc[r][v], x, w[v]);
		}
	}
#pragma GCC unroll 6
	for (r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (v = 0; v < 4; v++)
			_mm512_store_si512(sums + r * TD_BERT_PANEL + 16 * v, acc[r][v]);
}

static void
product_block(const uint8_t *a, size_t stride, size_t rows, const int8_t *weight, size_t n_quads,
			  const int8_t *ahead, int32_t *sums)
{
	switch (rows)
	{
		case 1:
			whole_panel(a, stride, 1, weight, n_quads, ahead, sums);
			break;
		case 2:
			whole_panel(a, stride, 2, weight, n_quads, ahead, sums);
			break;
		case 3:
			whole_panel(a, stride, 3, weight, n_quads, ahead, sums);
			break;
		case 4:
			whole_panel(a, stride, 4, weight, n_quads, ahead, sums);
			break;
		case 5:
			whole_panel(a, stride, 5, weight, n_quads, ahead, sums);
			break;
		default:
			whole_panel(a, stride, 6, weight, n_quads, ahead, sums);
			break;
	}
}

#include "td_bert_body.h"

int
td_bert_step_avx512(td_embed_job *job)
{
	return step(job);
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
