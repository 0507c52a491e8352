/*
 * td_sketch_avx512.c - the rows of a sketch that differ from a query in few signs, for processors
 * that count the bits of eight words in one instruction.
 *
 * In and out: see td_matvec.h.  Chosen by td_code_of().
 */
#include "tinydancer.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include "td_lanes.h"
#include "td_matvec.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vpopcntdq"))),                   \
							 apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vpopcntdq")
#endif

static TD_INLINE uint32_t
signs_below(const uint64_t *words, size_t n_words, const uint64_t *signs, uint32_t limit,
			uint64_t *differ)
{
	__m512i sum = _mm512_setzero_si512();
	uint32_t bits;
	size_t w;

	for (w = 0; w < n_words; w++, words += TD_SKETCH_GROUP)
	{
		__m512i other =
			_mm512_xor_si512(_mm512_loadu_si512(words), _mm512_set1_epi64((int64_t) signs[w]));

		sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(other));
	}
	bits = _mm512_cmplt_epu64_mask(sum, _mm512_set1_epi64(limit));
	if (bits != 0)
		_mm512_storeu_si512(differ, sum);
	return bits;
}

#include "td_sketch_body.h"

size_t
td_few_signs_popcnt(const td_sketch *sketch, const td_sketch_limit *limit, size_t *at, size_t end,
					uint32_t *index, size_t room)
{
	return few_signs(sketch, limit, at, end, index, room);
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
