/*
 * td_math.c - exp in double precision.
 *
 * A number in, a number out; called for logistics and weights of models, routes and teams.  Its
 * bits depend on IEEE arithmetic alone, unlike those of libm.
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
	int i;

	if (x != x)
		return x;
	if (x > TD_EXP_MOST)
		return scale_double(1023) * 2.0;
	if (x < -745.1332191019412)
		return 0.0;

	k = x * TD_LOG2_E + TD_ROUND_MAGIC_DOUBLE;
	k = k - TD_ROUND_MAGIC_DOUBLE;
	exponent = (int) k;
	high = x - k * TD_LN2_HIGH;
	low = k * TD_LN2_LOW;
	r = high - low;

	p = td_exp_series[0];
	for (i = 1; i < TD_EXP_TERMS; i++)
		p = p * r + td_exp_series[i];
	p = 1.0 + (high - (low - r * r * p));

	/* In two factors, so that neither leaves the range of a double where the result does not. */
	half = exponent / 2;
	return p * scale_double(half) * scale_double(exponent - half);
}
