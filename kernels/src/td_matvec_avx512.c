/*
 * td_matvec_avx512.c - one vector against many rows for processors with AVX-512 VNNI.
 *
 * In and out: see td_matvec.h.  Chosen by td_code_of().
 */
#include "tinydancer.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include "td_matvec.h"

#ifdef __clang__
#pragma clang attribute push(                                                                      \
	__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#define LANES_AVX512
#include "td_lanes.h"

#define VECTOR 64
/* One stream is read at the speed of the cache, two are not; rows overlap by themselves. */
#define ROWS 1
#define WIDE_OPERAND 0

/*
 * 64 elements of a row against 64 of the operand.  vpdpbusd multiplies unsigned by signed: the row
 * is offset by 128, and 128 times the sum of the operand is taken off at the end.  What overflows
 * on the way comes back, since int32 sums wrap.
 */
static TD_INLINE __m512i
add_products(__m512i acc, __m512i row, __m512i x)
{
	return _mm512_dpbusd_epi32(acc, _mm512_xor_si512(row, _mm512_set1_epi8((char) 0x80)), x);
}

/* Neighbours of a and b added: their 32-bit halves alternate. */
static TD_INLINE __m512i
fold_32(__m512i a, __m512i b)
{
	return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

static TD_INLINE __m512i
fold_64(__m512i a, __m512i b)
{
	return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

static TD_INLINE __m512i
fold_128(__m512i a, __m512i b)
{
	return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/*
 * One or two rows.  More at a time are read slower: the processor follows few streams, and rows of
 * 384 bytes end before it has found out where the others go.
 */
static TD_INLINE void
two_rows(const int8_t *rows, int count, size_t n, const td_operand *operand, __m512i *acc)
{
	const size_t whole = n - n % 64;
	size_t i;
	int r;

#pragma GCC unroll 2
	for (r = 0; r < count; r++)
		acc[r] = _mm512_setzero_si512();
	for (i = 0; i < whole; i += 64)
	{
		__m512i x = _mm512_loadu_si512(operand->narrow + i);

#pragma GCC unroll 2
		for (r = 0; r < count; r++)
			acc[r] = add_products(acc[r], _mm512_loadu_si512(rows + r * n + i), x);
	}
	if (whole < n)
	{
		__mmask64 rest = ((__mmask64) 1 << (n - whole)) - 1;
		__m512i x = _mm512_maskz_loadu_epi8(rest, operand->narrow + whole);

#pragma GCC unroll 2
		for (r = 0; r < count; r++)
			acc[r] = add_products(acc[r], _mm512_maskz_loadu_epi8(rest, rows + r * n + whole), x);
	}
}

/* Four rows: their sums, in parts, in the four places of each 128 bits. */
static TD_INLINE __m512i
four_rows(const int8_t *rows, size_t n, const td_operand *operand)
{
	__m512i acc[4];

	two_rows(rows, 2, n, operand, acc);
	two_rows(rows + 2 * n, 2, n, operand, acc + 2);
	return fold_64(fold_32(acc[0], acc[1]), fold_32(acc[2], acc[3]));
}

static void
rows_i8(const int8_t *rows, const float *scales, size_t n_rows, size_t n, const td_operand *operand,
		float *y)
{
	const __m512i offset = _mm512_set1_epi32(128 * operand->sum);
	const __m512 scale = _mm512_set1_ps(operand->scale);
	size_t row = 0;

	for (; row + 16 <= n_rows; row += 16)
	{
		__m512 row_scales = _mm512_mul_ps(scale, _mm512_loadu_ps(scales + row));
		__m512i four[4];
		int i;

#pragma GCC unroll 1
		for (i = 0; i < 4; i++, rows += 4 * n)
			four[i] = four_rows(rows, n, operand);
		four[0] = fold_128(fold_128(four[0], four[1]), fold_128(four[2], four[3]));
		four[0] = _mm512_sub_epi32(four[0], offset);
		_mm512_storeu_ps(y + row, _mm512_mul_ps(_mm512_cvtepi32_ps(four[0]), row_scales));
	}
	for (; row + 4 <= n_rows; row += 4, rows += 4 * n)
	{
		__m512i four = four_rows(rows, n, operand);
		__m128 row_scales = _mm_mul_ps(_mm512_castps512_ps128(scale), _mm_loadu_ps(scales + row));

		four = _mm512_add_epi32(four, _mm512_shuffle_i32x4(four, four, 0x4e));
		four = _mm512_add_epi32(four, _mm512_shuffle_i32x4(four, four, 0xb1));
		four = _mm512_sub_epi32(four, offset);
		_mm_storeu_ps(y + row,
					  _mm_mul_ps(_mm_cvtepi32_ps(_mm512_castsi512_si128(four)), row_scales));
	}
	for (; row < n_rows; row++, rows += n)
	{
		__m512i one;

		two_rows(rows, 1, n, operand, &one);
		one = _mm512_sub_epi32(one, _mm512_set1_epi32(8 * operand->sum));
		y[row] = (float) _mm512_reduce_add_epi32(one) * (operand->scale * scales[row]);
	}
}

/* Sixteen rows by four elements of a pack, and those of the operand. */
static TD_INLINE __m512i
add_packed(__m512i acc, const uint8_t *packed, const int8_t *x)
{
	int32_t four;

	memcpy(&four, x, sizeof(four));
	return _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(packed), _mm512_set1_epi32(four));
}

/*
 * A row stays in its place of the register, so nothing is added across.  Rows are offset by 128 in
 * the pack.  What is read at once is one stream, which the second cache gives at its full speed.
 */
static TD_INLINE void
pack_sums(const uint8_t *block, size_t n, const td_operand *operand, int32_t *sum)
{
	const int8_t *x = operand->narrow;
	__m512i acc[4];
	size_t i = 0;
	int a;

	acc[0] = _mm512_set1_epi32((int32_t) (-128 * (uint32_t) operand->sum));
#pragma GCC unroll 4
	for (a = 1; a < 4; a++)
		acc[a] = _mm512_setzero_si512();
	for (; i + 16 <= n; i += 16, block += 16 * TD_PACK_ROWS)
	{
#pragma GCC unroll 4
		for (a = 0; a < 4; a++)
			acc[a] = add_packed(acc[a], block + 64 * a, x + i + 4 * a);
	}
	for (; i < n; i += 4, block += 4 * TD_PACK_ROWS)
		acc[0] = add_packed(acc[0], block, x + i);
	acc[0] = _mm512_add_epi32(acc[0], acc[1]);
	acc[2] = _mm512_add_epi32(acc[2], acc[3]);
	_mm512_storeu_si512(sum, _mm512_add_epi32(acc[0], acc[2]));
}

static TD_INLINE uint32_t
lanes_above(const float *y, float limit)
{
	return _mm512_cmp_ps_mask(_mm512_loadu_ps(y), _mm512_set1_ps(limit), _CMP_GT_OQ);
}

/*
 * The bits of each word counted: for a byte, its halves are looked up.  Processors with VNNI but
 * without VPOPCNTDQ have this at half the speed of memory or better.
 */
static TD_INLINE __m512i
count_bits(__m512i x)
{
	const __m512i counts =
		_mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
	const __m512i half = _mm512_set1_epi8(0x0f);
	__m512i low = _mm512_shuffle_epi8(counts, _mm512_and_si512(x, half));
	__m512i high = _mm512_shuffle_epi8(counts, _mm512_and_si512(_mm512_srli_epi16(x, 4), half));

	return _mm512_add_epi8(low, high);
}

static TD_INLINE uint32_t
signs_below(const uint64_t *words, size_t n_words, const uint64_t *signs, uint32_t limit,
			uint64_t *differ)
{
	__m512i sum = _mm512_setzero_si512();
	uint32_t bits;
	size_t w = 0;

	while (w < n_words)
	{
		__m512i bytes = _mm512_setzero_si512();
		size_t until = n_words - w < 31 ? n_words : w + 31;

		/* At most 8 a word: 31 words fit in a byte. */
		for (; w < until; w++)
		{
			__m512i word = _mm512_loadu_si512(words + w * TD_SKETCH_GROUP);

			bytes = _mm512_add_epi8(
				bytes, count_bits(_mm512_xor_si512(word, _mm512_set1_epi64((int64_t) signs[w]))));
		}
		sum = _mm512_add_epi64(sum, _mm512_sad_epu8(bytes, _mm512_setzero_si512()));
	}
	bits = _mm512_cmplt_epu64_mask(sum, _mm512_set1_epi64(limit));
	if (bits != 0)
		_mm512_storeu_si512(differ, sum);
	return bits;
}

#include "td_matvec_body.h"

const td_code td_code_avx512 = CODE(few_signs);
const td_code td_code_avx512_popcnt = CODE(td_few_signs_popcnt);

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
