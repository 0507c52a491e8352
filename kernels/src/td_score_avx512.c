/*
 * td_score_avx512.c - scoring many agents at a time for processors with AVX-512 VNNI.
 *
 * In and out: see td_score_code.h.  Chosen by td_score.c.
 */
#include "tinydancer.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(                                                                      \
	__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "td_lanes.h"
#define VECTOR 64
#include "td_score_body.h"

#if TD_SCORE_TOGETHER != 16
#error "one request a lane"
#endif

/* Sixteen rows of sixteen floats become sixteen columns. */
static TD_INLINE void
transpose(__m512 *x)
{
	__m512 t[16];
	int i;

#pragma GCC unroll 8
	for (i = 0; i < 8; i++)
	{
		t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
		t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
	}
#pragma GCC unroll 8
	for (i = 0; i < 8; i++)
	{
		__m512d a = _mm512_castps_pd(t[i / 2 * 4 + i % 2]);
		__m512d b = _mm512_castps_pd(t[i / 2 * 4 + i % 2 + 2]);

		x[2 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
		x[2 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
	}
#pragma GCC unroll 4
	for (i = 0; i < 4; i++)
	{
		t[i] = _mm512_shuffle_f32x4(x[i], x[4 + i], 0x88);
		t[4 + i] = _mm512_shuffle_f32x4(x[i], x[4 + i], 0xdd);
		t[8 + i] = _mm512_shuffle_f32x4(x[8 + i], x[12 + i], 0x88);
		t[12 + i] = _mm512_shuffle_f32x4(x[8 + i], x[12 + i], 0xdd);
	}
#pragma GCC unroll 8
	for (i = 0; i < 8; i++)
	{
		x[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
		x[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
	}
}

/* Four elements of each request side by side, and zeros where there is no request or element. */
static void
pack_requests(const td_operand *operands, size_t n_queries, size_t n, int8_t *packed)
{
	size_t q;
	size_t i;

	memset(packed, 0, td_score_packed_size(n) / 2);
	for (q = 0; q < n_queries; q++)
	{
		for (i = 0; i + 4 <= n; i += 4)
			memcpy(packed + i * 16 + q * 4, operands[q].narrow + i, 4);
		memcpy(packed + i * 16 + q * 4, operands[q].narrow + i, n - i);
	}
}

/* Up to sixteen rows, offset by 128, with zeros where there is none: as unsigned numbers. */
static void
pack_rows(const int8_t *rows, size_t count, size_t n, size_t stride, uint8_t *packed)
{
	const __m512i offset = _mm512_set1_epi8((char) 0x80);
	size_t r;
	size_t i;

	for (r = 0; r < count; r++, rows += n, packed += stride)
	{
		for (i = 0; i + 64 <= n; i += 64)
			_mm512_storeu_si512(packed + i, _mm512_xor_si512(_mm512_loadu_si512(rows + i), offset));
		if (i < n)
		{
			__mmask64 rest = ((__mmask64) 1 << (n - i)) - 1;
			__m512i x = _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, rows + i), offset);

			_mm512_mask_storeu_epi8(packed + i, ((__mmask64) 2 << (stride - i - 1)) - 1, x);
		}
	}
	memset(packed, 0, (16 - count) * stride);
}

/*
 * Sixteen requests are the lanes of a register, so that no sum is across lanes; sixteen rows are
 * multiplied at a time, their sums in registers.  vpdpbusd multiplies unsigned by signed: what the
 * offset of the rows adds is taken off at the end.
 */
static void
products(const int8_t *rows, const float *scales, size_t n_rows, size_t n,
		 const td_operand *operands, size_t n_queries, void *packed, float *out)
{
	const size_t stride = (n + 3) / 4 * 4;
	int8_t *requests = packed;
	uint8_t *sixteen = (uint8_t *) packed + td_score_packed_size(n) / 2;
	int32_t sums[16] = {0};
	float request_scales[16] = {0.0f};
	__m512i offset;
	__m512 scale;
	size_t row;
	size_t q;

	pack_requests(operands, n_queries, n, requests);
	for (q = 0; q < n_queries; q++)
	{
		sums[q] = 128 * operands[q].sum;
		request_scales[q] = operands[q].scale;
	}
	offset = _mm512_loadu_si512(sums);
	scale = _mm512_loadu_ps(request_scales);

	for (row = 0; row < n_rows; row += 16)
	{
		size_t count = n_rows - row < 16 ? n_rows - row : 16;
		__mmask16 there = (__mmask16) ((1u << count) - 1);
		__m512i acc[16];
		__m512 y[16];
		float row_scales[16];
		size_t i;
		int r;

		pack_rows(rows + row * n, count, n, stride, sixteen);
#pragma GCC unroll 16
		for (r = 0; r < 16; r++)
			acc[r] = _mm512_setzero_si512();
		for (i = 0; i < stride; i += 4)
		{
			__m512i x = _mm512_load_si512(requests + i * 16);

#pragma GCC unroll 16
			for (r = 0; r < 16; r++)
			{
				int32_t four;

				memcpy(&four, sixteen + (size_t) r * stride + i, sizeof(four));
				acc[r] = _mm512_dpbusd_epi32(acc[r], _mm512_set1_epi32(four), x);
			}
		}
		_mm512_storeu_ps(row_scales, _mm512_maskz_loadu_ps(there, scales + row));
#pragma GCC unroll 16
		for (r = 0; r < 16; r++)
			y[r] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(acc[r], offset)),
								 _mm512_mul_ps(scale, _mm512_set1_ps(row_scales[r])));
		transpose(y);
#pragma GCC unroll 16
		for (r = 0; r < 16; r++)
		{
			if ((size_t) r < n_queries)
				_mm512_mask_storeu_ps(out + (size_t) r * n_rows + row, there, y[r]);
		}
	}
}

const td_score_code td_score_avx512 = {fit, score, products};

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
