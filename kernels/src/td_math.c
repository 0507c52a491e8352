/*
 * td_math.c - exp in double precision.
 *
 * A number in, a number out; td_score.c calls it for the logistic of fit.  Its bits depend on IEEE
 * arithmetic alone, unlike those of libm.
 */
#include "td_math.h"

/* 2^k for k in [-1022, 1023]. */
static double
scale_double(int k)
{
	uint64_t bits = (uint64_t) (k + 1023) << 52;
	double x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

double
td_exp(double x)
{
	double k;
	double high;
	double low;
	double r;
	double p;
	int exponent;
	int half;

	if (x != x)
		return x;
	if (x > 709.782712893384)
		return scale_double(1023) * 2.0;
	if (x < -745.1332191019412)
		return 0.0;

	/* x = k ln 2 + r, |r| <= ln(2) / 2; adding 1.5 * 2^52 rounds to an integer. */
	k = x * 0x1.71547652b82fep+0 + 0x1.8p52;
	k = k - 0x1.8p52;
	exponent = (int) k;

	/* The high part of ln 2 has 33 bits, so its product with k is exact (fdlibm, e_exp.c). */
	high = x - k * 0x1.62e42feep-1;
	low = k * 0x1.a39ef35793c76p-33;
	r = high - low;

	/* (exp(r) - 1 - r) / r^2 by its Taylor series; what is left out is below 2^-60. */
	p = 1.0 / 6227020800.0;
	p = p * r + 1.0 / 479001600.0;
	p = p * r + 1.0 / 39916800.0;
	p = p * r + 1.0 / 3628800.0;
	p = p * r + 1.0 / 362880.0;
	p = p * r + 1.0 / 40320.0;
	p = p * r + 1.0 / 5040.0;
	p = p * r + 1.0 / 720.0;
	p = p * r + 1.0 / 120.0;
	p = p * r + 1.0 / 24.0;
	p = p * r + 1.0 / 6.0;
	p = p * r + 0.5;
	p = 1.0 + (high - (low - r * r * p));

	/* In two factors, so that neither leaves the range of a double where the result does not. */
	half = exponent / 2;
	return p * scale_double(half) * scale_double(exponent - half);
}
