/*
 * td_bert_sse2.c - the layers of a BERT encoder for any x86-64.
 *
 * In and out: see td_bert_body.h.  Called by td_bert_step().
 */
#include "tinydancer.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include "td_bert.h"
#define LANES_SSE2
#include "td_lanes.h"

/* Four activations as int16, twice. */
static TD_INLINE __m128i
widen_quad(const uint8_t *a)
{
	int32_t quad;
	__m128i v;

	memcpy(&quad, a, sizeof(quad));
	v = _mm_unpacklo_epi8(_mm_cvtsi32_si128(quad), _mm_setzero_si128());
	return _mm_unpacklo_epi64(v, v);
}

/*
 * Eight channels of one or two rows.  pmaddwd adds neighbours only, so a channel has two partial
 * sums, which are added at the end.
 */
static TD_INLINE void
eight_channels(const uint8_t *a, size_t stride, int rows, const int8_t *weight, size_t n_quads,
			   int32_t *sums)
{
	__m128i acc[2][4];
	size_t quad;
	int r;
	int v;

	for (r = 0; r < rows; r++)
		for (v = 0; v < 4; v++)
			acc[r][v] = _mm_setzero_si128();
	for (quad = 0; quad < n_quads; quad++, weight += 4 * TD_BERT_PANEL)
	{
		__m128i w[4];

		for (v = 0; v < 4; v += 2)
		{
			__m128i bytes = _mm_load_si128((const __m128i *) (weight + 8 * v));

			/* Each byte into the high half of 16 bits, and down again with its sign. */
			w[v] = _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
			w[v + 1] = _mm_srai_epi16(_mm_unpackhi_epi8(bytes, bytes), 8);
		}
		for (r = 0; r < rows; r++)
		{
			__m128i x = widen_quad(a + (size_t) r * stride + 4 * quad);

			for (v = 0; v < 4; v++)
				acc[r][v] = _mm_add_epi32(acc[r][v], _mm_madd_epi16(x, w[v]));
		}
	}
	for (r = 0; r < rows; r++)
	{
		for (v = 0; v < 4; v += 2)
		{
			__m128 low = _mm_castsi128_ps(acc[r][v]);
			__m128 high = _mm_castsi128_ps(acc[r][v + 1]);
			__m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0)));
			__m128i odd = _mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1)));

			_mm_store_si128((__m128i *) (sums + r * TD_BERT_PANEL + 2 * v),
							_mm_add_epi32(even, odd));
		}
	}
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
		for (c = 0; c < TD_BERT_PANEL; c += 8)
		{
			const uint8_t *x = a + row * stride;
			int32_t *out = sums + row * TD_BERT_PANEL + c;

			if (row + 1 < rows)
				eight_channels(x, stride, 2, weight + 4 * c, n_quads, out);
			else
				eight_channels(x, stride, 1, weight + 4 * c, n_quads, out);
		}
	}
}

#include "td_bert_body.h"

int
td_bert_step_sse2(td_embed_job *job)
{
	return step(job);
}

#endif
