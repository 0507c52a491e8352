/*
 * td_matvec_avx2.c - one vector against many rows for processors with AVX2.
 *
 * In and out: see td_matvec.h.  Chosen by td_code_of().
 */
#include "tinydancer.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include "td_matvec.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,popcnt")
#endif

#define LANES_SSE2
#include "td_lanes.h"

#define VECTOR 32
#define ROWS 4
#define WIDE_OPERAND 0

/*
 * One to four rows.  maddubs multiplies unsigned by signed: the row's magnitude by the operand with
 * the row's sign.  Two such products are at most 2 * 128 * 127 and fit in 16 bits.
 */
static TD_INLINE void
some_rows_i8(const int8_t *rows, const float *scales, int count, size_t n,
			 const td_operand *operand, float *y)
{
	const __m256i ones = _mm256_set1_epi16(1);
	__m256i acc[4];
	size_t whole = n - n % 32;
	size_t i;
	int r;

	for (r = 0; r < count; r++)
		acc[r] = _mm256_setzero_si256();
	for (i = 0; i < whole; i += 32)
	{
		__m256i x = _mm256_loadu_si256((const __m256i *) (operand->narrow + i));

		for (r = 0; r < count; r++)
		{
			__m256i row = _mm256_loadu_si256((const __m256i *) (rows + r * n + i));
			__m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(row), _mm256_sign_epi8(x, row));

			acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(pairs, ones));
		}
	}
	for (r = 0; r < count; r++)
	{
		__m128i four =
			_mm_add_epi32(_mm256_castsi256_si128(acc[r]), _mm256_extracti128_si256(acc[r], 1));
		int32_t sum;

		four = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
		four = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
		sum = _mm_cvtsi128_si32(four);
		for (i = whole; i < n; i++)
			sum += operand->narrow[i] * rows[r * n + i];
		y[r] = (float) sum * (operand->scale * scales[r]);
	}
}

static void
rows_i8(const int8_t *rows, const float *scales, size_t n_rows, size_t n, const td_operand *operand,
		float *y)
{
	size_t row = 0;

	for (; row + 4 <= n_rows; row += 4)
		some_rows_i8(rows + row * n, scales + row, 4, n, operand, y + row);
	for (; row < n_rows; row++)
		some_rows_i8(rows + row * n, scales + row, 1, n, operand, y + row);
}

/* Of 32 bytes of a pack, eight rows: the products with four elements of the operand, added. */
static TD_INLINE __m256i
four_products(const uint8_t *packed, __m256i x)
{
	__m256i row = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *) packed),
								   _mm256_set1_epi8((char) 0x80));
	__m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(row), _mm256_sign_epi8(x, row));

	return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static TD_INLINE void
pack_sums(const uint8_t *block, size_t n, const td_operand *operand, int32_t *sum)
{
	__m256i low = _mm256_setzero_si256();
	__m256i high = _mm256_setzero_si256();
	size_t i;

	for (i = 0; i < n; i += 4, block += 4 * TD_PACK_ROWS)
	{
		int32_t four;
		__m256i x;

		memcpy(&four, operand->narrow + i, sizeof(four));
		x = _mm256_set1_epi32(four);
		low = _mm256_add_epi32(low, four_products(block, x));
		high = _mm256_add_epi32(high, four_products(block + 32, x));
	}
	_mm256_storeu_si256((__m256i *) sum, low);
	_mm256_storeu_si256((__m256i *) (sum + 8), high);
}

static TD_INLINE uint32_t
lanes_above(const float *y, float limit)
{
	const __m256 least = _mm256_set1_ps(limit);
	__m256 low = _mm256_cmp_ps(_mm256_loadu_ps(y), least, _CMP_GT_OQ);
	__m256 high = _mm256_cmp_ps(_mm256_loadu_ps(y + 8), least, _CMP_GT_OQ);

	return (uint32_t) _mm256_movemask_ps(low) | (uint32_t) _mm256_movemask_ps(high) << 8;
}

static TD_INLINE uint32_t
signs_below(const uint64_t *words, size_t n_words, const uint64_t *signs, uint32_t limit,
			uint64_t *differ)
{
	uint32_t bits = 0;
	size_t w;
	int l;

	memset(differ, 0, TD_SKETCH_GROUP * sizeof(*differ));
	for (w = 0; w < n_words; w++, words += TD_SKETCH_GROUP)
		for (l = 0; l < TD_SKETCH_GROUP; l++)
			differ[l] += (uint64_t) __builtin_popcountll(words[l] ^ signs[w]);
	for (l = 0; l < TD_SKETCH_GROUP; l++)
		bits |= (uint32_t) (differ[l] < limit) << l;
	return bits;
}

#include "td_matvec_body.h"

const td_code td_code_avx2 = CODE(few_signs);

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
