/*
 * td_bert_lanes.h - sixteen lanes at a time, whatever the processor has.
 *
 * Vector types of GCC and Clang, which compile to one, two, four or sixteen instructions an
 * operation; each lane does the same IEEE operation everywhere, so all levels give the same bits.
 * Internal: included by td_bert_<level>.c behind their choice of instruction set.
 */
#ifndef TD_BERT_LANES_H
#define TD_BERT_LANES_H

#include <stdint.h>
#include <string.h>

#include "td_math.h"

#define LANES 16

typedef float v16f __attribute__((vector_size(64), may_alias));
typedef int32_t v16i __attribute__((vector_size(64), may_alias));
typedef uint32_t v16u __attribute__((vector_size(64), may_alias));
typedef int8_t v16i8 __attribute__((vector_size(16), may_alias));
typedef uint8_t v16u8 __attribute__((vector_size(16), may_alias));

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
	float lane[LANES];
	int l;

	memcpy(lane, &x, sizeof(lane));
	for (l = 0; l < 8; l++)
		lane[l] += lane[l + 8];
	for (l = 0; l < 4; l++)
		lane[l] += lane[l + 4];
	return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/* Lane by lane a < b ? a : b, and a > b ? a : b: with a NaN in a, what b is. */
#ifndef TD_LANES_MIN_MAX
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

/* The low byte of each lane. */
#ifndef TD_LANES_NARROW
static TD_INLINE void
lanes_narrow(v16u x, uint8_t *out)
{
	v16u8 narrow = __builtin_convertvector(x, v16u8);

	memcpy(out, &narrow, sizeof(narrow));
}
#endif

static TD_INLINE float
lanes_least(v16f x)
{
	float lane[LANES];
	float least;
	int l;

	memcpy(lane, &x, sizeof(lane));
	least = lane[0];
	for (l = 1; l < LANES; l++)
		least = lane[l] < least ? lane[l] : least;
	return least;
}

static TD_INLINE float
lanes_greatest(v16f x)
{
	float lane[LANES];
	float greatest;
	int l;

	memcpy(lane, &x, sizeof(lane));
	greatest = lane[0];
	for (l = 1; l < LANES; l++)
		greatest = lane[l] > greatest ? lane[l] : greatest;
	return greatest;
}

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
	v16f p = splat(1.450923621e-03f);

	p = p * t - 4.203605931e-03f;
	p = p * t + 5.382139701e-03f;
	p = p * t - 7.428802084e-03f;
	p = p * t + 1.386801340e-02f;
	p = p * t - 2.219509520e-02f;
	p = p * t + 3.072066233e-02f;
	p = p * t - 4.056455195e-02f;
	p = p * t + 5.290402472e-02f;
	p = p * t - 7.297982275e-02f;
	p = p * t + 1.472127885e-01f;
	return x * (held * p + 0.5f);
}

#endif /* TD_BERT_LANES_H */
