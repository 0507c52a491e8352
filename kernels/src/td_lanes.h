/*
 * td_lanes.h - sixteen lanes at a time, whatever the processor has.
 *
 * Vector types of GCC and Clang, which compile to one, two, four or sixteen instructions an
 * operation; each lane does the same IEEE operation everywhere, so all levels give the same bits.
 * Internal: included by td_bert_<level>.c behind their choice of instruction set.  Where compilers
 * do badly, LANES_AVX512 or LANES_SSE2, defined by a file that has included the intrinsics, chooses
 * an instruction by name.
 */
#ifndef TD_LANES_H
#define TD_LANES_H

#include <stdint.h>
#include <string.h>

#include "td_math.h"

#define LANES 16

typedef float v16f __attribute__((vector_size(64), may_alias));
typedef float v8f __attribute__((vector_size(32), may_alias));
typedef float v4f __attribute__((vector_size(16), may_alias));
typedef int32_t v16i __attribute__((vector_size(64), may_alias));
typedef uint32_t v16u __attribute__((vector_size(64), may_alias));

/* What wide vectors are passed in would depend on the level, so none is ever passed. */
#define TD_INLINE inline __attribute__((always_inline))
#pragma GCC diagnostic ignored "-Wpsabi"

static TD_INLINE v16f
splat(float x)
{
	return (v16f) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

/* The lanes added, by halves. */
static TD_INLINE float
lanes_sum(v16f x)
{
	v8f half[2];
	v4f quarter[2];

	memcpy(half, &x, sizeof(half));
	half[0] += half[1];
	memcpy(quarter, &half[0], sizeof(quarter));
	quarter[0] += quarter[1];
	return (quarter[0][0] + quarter[0][2]) + (quarter[0][1] + quarter[0][3]);
}

/* Lane by lane a < b ? a : b, and a > b ? a : b: with a NaN, what b is. */
#ifdef LANES_AVX512
static TD_INLINE v16f
lanes_min(v16f a, v16f b)
{
	return (v16f) _mm512_min_ps((__m512) a, (__m512) b);
}

static TD_INLINE v16f
lanes_max(v16f a, v16f b)
{
	return (v16f) _mm512_max_ps((__m512) a, (__m512) b);
}
#else
static TD_INLINE v16f
lanes_min(v16f a, v16f b)
{
	v16i mask = a < b;

	return (v16f) (((v16i) a & mask) | ((v16i) b & ~mask));
}

static TD_INLINE v16f
lanes_max(v16f a, v16f b)
{
	v16i mask = a > b;

	return (v16f) (((v16i) a & mask) | ((v16i) b & ~mask));
}
#endif

/* The low byte of each lane.  Compilers take the plain conversion lane by lane. */
static TD_INLINE void
lanes_narrow(v16u x, uint8_t *out)
{
#if defined(LANES_AVX512)
	_mm_storeu_si128((__m128i *) out, _mm512_cvtepi32_epi8((__m512i) x));
#elif defined(LANES_SSE2)
	const v16u low = x & 0xffu;
	__m128i v[4];

	memcpy(v, &low, sizeof(v));
	v[0] = _mm_packs_epi32(v[0], v[1]);
	v[2] = _mm_packs_epi32(v[2], v[3]);
	_mm_storeu_si128((__m128i *) out, _mm_packus_epi16(v[0], v[2]));
#else
	int l;

	for (l = 0; l < LANES; l++)
		out[l] = (uint8_t) x[l];
#endif
}

/* The lanes in another order, all sixteen numbers written out. */
#ifdef __clang__
#define LANES_ORDER(x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define LANES_ORDER(x, ...) __builtin_shuffle(x, (v16i) {__VA_ARGS__})
#endif

/* Sixteen int8 as floats. */
static TD_INLINE v16f
lanes_widen(const int8_t *in)
{
#if defined(LANES_AVX512)
	return (v16f) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) in)));
#else
	v16i wide;
	int l;

	for (l = 0; l < LANES; l++)
		wide[l] = in[l];
	return __builtin_convertvector(wide, v16f);
#endif
}

/* The least and the greatest lane: of finite lanes the same in any order. */
#if defined(LANES_AVX512) || defined(LANES_SSE2)
static TD_INLINE float
lanes_least(v16f x)
{
	__m128 q[4];

	memcpy(q, &x, sizeof(q));
	q[0] = _mm_min_ps(_mm_min_ps(q[0], q[1]), _mm_min_ps(q[2], q[3]));
	q[0] = _mm_min_ps(q[0], _mm_movehl_ps(q[0], q[0]));
	return _mm_cvtss_f32(_mm_min_ss(q[0], _mm_shuffle_ps(q[0], q[0], 1)));
}

static TD_INLINE float
lanes_greatest(v16f x)
{
	__m128 q[4];

	memcpy(q, &x, sizeof(q));
	q[0] = _mm_max_ps(_mm_max_ps(q[0], q[1]), _mm_max_ps(q[2], q[3]));
	q[0] = _mm_max_ps(q[0], _mm_movehl_ps(q[0], q[0]));
	return _mm_cvtss_f32(_mm_max_ss(q[0], _mm_shuffle_ps(q[0], q[0], 1)));
}
#else
static TD_INLINE float
lanes_least(v16f x)
{
	float least = x[0];
	int l;

	for (l = 1; l < LANES; l++)
		least = x[l] < least ? x[l] : least;
	return least;
}

static TD_INLINE float
lanes_greatest(v16f x)
{
	float greatest = x[0];
	int l;

	for (l = 1; l < LANES; l++)
		greatest = x[l] > greatest ? x[l] : greatest;
	return greatest;
}
#endif

/*
 * exp(x) for x <= 0, relative error at most 2e-7 down to -87, and exp(-87), about 1.6e-38, below:
 * no result is subnormal.  As td_exp_minus(), whose polynomial it uses.
 */
static TD_INLINE v16f
lanes_exp(v16f x)
{
	v16f clamped = lanes_max(x, splat(-87.0f));
	v16f shifted = clamped * 0x1.715476p+0f + TD_ROUND_MAGIC;
	v16f k = shifted - TD_ROUND_MAGIC;
	v16f r = clamped - k * 0x1.63p-1f;
	v16f p;

	r = r - k * -0x1.bd0106p-13f;
	p = 1.9875691500e-4f * r + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	p = (r * r) * p + r + 1.0f;
	return p * (v16f) (((v16u) shifted << 23) + 0x3f800000u);
}

/*
 * GELU, x (1 + erf(x / sqrt 2)) / 2, absolute error at most 5e-6 up to |x| = 8, relative 1e-6
 * beyond; what comes out is rounded to 8 bits next.
 *
 * (Phi(x) - 1/2) / x is a polynomial in x^2 / 11.52 - 1, of least greatest error on |x| <= 4.8,
 * fitted by weighted least squares in Chebyshev's basis; outside it is held.
 */
static TD_INLINE v16f
lanes_gelu(v16f x)
{
	v16f held = lanes_min(lanes_max(x, splat(-4.8f)), splat(4.8f));
	v16f t = held * held * 0.0868055522441864f - 1.0f;
	v16f t2 = t * t;
	v16f t4 = t2 * t2;
	v16f p;
	v16f q;
	v16f r;

	/* Estrin's scheme: a chain of six operations instead of twenty. */
	p = (1.472127885e-01f - 7.297982275e-02f * t) + (5.290402472e-02f - 4.056455195e-02f * t) * t2;
	q = (3.072066233e-02f - 2.219509520e-02f * t) + (1.386801340e-02f - 7.428802084e-03f * t) * t2;
	r = (5.382139701e-03f - 4.203605931e-03f * t) + 1.450923621e-03f * t2;
	p = (p + q * t4) + r * (t4 * t4);
	return x * (held * p + 0.5f);
}

#endif /* TD_LANES_H */
