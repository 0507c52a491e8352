/*
 * td_math.h - transcendental functions of the kernel, written here because those of libm change
 * their last bits between versions and machines, and every result must be the same in both shells.
 *
 * Numbers in, numbers out.  Internal: called by td_vec.c and td_score_body.h, among others.
 *
 * The float functions are inline and without branches, so that a loop over them is vectorised; a
 * vectorised loop does the same IEEE operations on each element and so gives the same bits.
 * They need round-to-nearest mode and arithmetic in the type itself, as on every 64-bit host.
 */
#ifndef TD_MATH_H
#define TD_MATH_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#error "the kernel needs float and double arithmetic without excess precision"
#endif

/*
 * exp(x), error below 1 ulp (at most 0.86 measured); +infinity above 709.782713, 0 below
 * -745.133219, gradual underflow between, NaN for NaN.
 */
double td_exp(double x);

/*
 * The parts of td_exp(), which td_score_body.h applies to several numbers at once.
 *
 * x = k ln 2 + r with |r| <= ln(2) / 2, k by adding TD_ROUND_MAGIC_DOUBLE.  The high part of ln 2
 * has 33 bits, so its product with k is exact (fdlibm, e_exp.c).  The series, from the
 * highest power down, is (exp(r) - 1 - r) / r^2 by Taylor; what is left out is below 2^-60.
 */
#define TD_EXP_MOST 709.782712893384
#define TD_LOG2_E 0x1.71547652b82fep+0
#define TD_LN2_HIGH 0x1.62e42feep-1
#define TD_LN2_LOW 0x1.a39ef35793c76p-33
#define TD_ROUND_MAGIC_DOUBLE 0x1.8p52
#define TD_EXP_TERMS 12
static const double td_exp_series[TD_EXP_TERMS] = {
	1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
	1.0 / 362880.0,		1.0 / 40320.0,	   1.0 / 5040.0,	 1.0 / 720.0,
	1.0 / 120.0,		1.0 / 24.0,		   1.0 / 6.0,		 0.5,
};

static inline uint32_t
td_float_bits(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	return bits;
}

static inline float
td_float_of_bits(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

/*
 * Adding this rounds a float of magnitude below 2^22 to an integer, halves to even, and leaves that
 * integer in the low bits of the representation.
 */
#define TD_ROUND_MAGIC 0x1.8p23f
#define TD_ROUND_MAGIC_BITS 0x4b400000u

/* 2^k as a float for k in [-126, 127], from the bits of TD_ROUND_MAGIC + k. */
static inline float
td_float_scale(uint32_t magic_bits)
{
	return td_float_of_bits((magic_bits << 23) + 0x3f800000u);
}

/* One of two floats by a mask of all ones or all zeros: a choice without a branch. */
static inline float
td_float_choose(uint32_t mask, float yes, float no)
{
	return td_float_of_bits((td_float_bits(yes) & mask) | (td_float_bits(no) & ~mask));
}

/* All ones when a > b, else zeros, for bits of floats without sign: those order as integers. */
static inline uint32_t
td_bits_above(uint32_t a, uint32_t b)
{
	return (int32_t) a > (int32_t) b ? 0xffffffffu : 0u;
}

/*
 * exp(-x) for x >= 0, error at most 1.5 ulp, subnormal results included; NaN for NaN.
 *
 * -x = k ln 2 + r with |r| <= ln(2) / 2.  ln 2 is split so that k times its high part is exact, and
 * exp(r) = 1 + r + r^2 p(r) with the minimax p of Cephes' expf (Moshier, public domain).
 * 2^k is applied in two factors, both of them normal numbers.
 */
static inline float
td_exp_minus(float x)
{
	uint32_t bits = td_float_bits(x);
	uint32_t nan = td_bits_above(bits, 0x7f800000u);
	float clamped;
	float k;
	float half;
	float r;
	float p;

	/* exp(-104) is below half the least subnormal float.  NaN stays NaN. */
	clamped = -td_float_choose(td_bits_above(bits, td_float_bits(104.0f)) & ~nan, 104.0f, x);
	k = (clamped * 0x1.715476p+0f + TD_ROUND_MAGIC) - TD_ROUND_MAGIC;
	r = clamped - k * 0x1.63p-1f;
	r = r - k * -0x1.bd0106p-13f;
	p = 1.9875691500e-4f;
	p = p * r + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	p = (r * r) * p + r + 1.0f;
	half = k * 0.5f + TD_ROUND_MAGIC;
	k = k - (half - TD_ROUND_MAGIC);
	return p * td_float_scale(td_float_bits(half)) *
		   td_float_scale(td_float_bits(k + TD_ROUND_MAGIC));
}

/*
 * 1 / (1 + exp(-x)), error at most 3 ulp (2.28 measured over every 97th float).
 *
 * With e = exp(-|x|) it is 1 / (1 + e), or e / (1 + e) for negative x, which keeps its digits down
 * to the least subnormal.
 */
static inline float
td_sigmoid(float x)
{
	uint32_t bits = td_float_bits(x);
	float e = td_exp_minus(td_float_of_bits(bits & 0x7fffffffu));

	return td_float_choose(0u - (bits >> 31), e, 1.0f) / (1.0f + e);
}

/*
 * tanh(x), error at most 2 ulp (1.50 measured over every 97th float).
 *
 * Below 0.625 the odd polynomial of Cephes' tanhf (Moshier, public domain), else
 * (1 - e) / (1 + e) with e = exp(-2 |x|).
 */
static inline float
td_tanh(float x)
{
	uint32_t sign = td_float_bits(x) & 0x80000000u;
	uint32_t bits = td_float_bits(x) & 0x7fffffffu;
	float magnitude = td_float_of_bits(bits);
	float e = td_exp_minus(2.0f * magnitude);
	float large = (1.0f - e) / (1.0f + e);
	float z = magnitude * magnitude;
	float p;
	float small;
	float y;

	p = -5.70498872745e-3f;
	p = p * z + 2.06390887954e-2f;
	p = p * z + -5.37397155531e-2f;
	p = p * z + 1.33314422036e-1f;
	p = p * z + -3.33332819422e-1f;
	small = p * z * magnitude + magnitude;
	y = td_float_choose(td_bits_above(td_float_bits(0.625f), bits), small, large);
	return td_float_of_bits(td_float_bits(y) | sign);
}

#endif /* TD_MATH_H */
