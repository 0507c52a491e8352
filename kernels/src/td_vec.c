/*
 * td_vec.c - dot products, lengths, cosines, quantisation and activations of plain vectors.
 *
 * Float and int8 arrays in, numbers or arrays out; called by every other part of the kernel that
 * touches a vector, and by both shells.
 *
 * Float sums are kept in a fixed number of lanes: element i goes to lane i mod LANES in order of i,
 * and the lanes are added by halves at the end.  That is the order a vectoriser wants, and since it
 * is written down in C, the result is the same whether or not the compiler uses vectors.
 */
#include <math.h>

#include "td_dot.h"
#include "td_math.h"
#include "tinydancer.h"

#define LANES 16
#define WIDE_BLOCK 512

float
td_vec_dot(const float *a, const float *b, size_t n)
{
	float lane[LANES] = {0.0f};
	size_t whole = n - n % LANES;
	size_t i;
	size_t l;

	for (i = 0; i < whole; i += LANES)
		for (l = 0; l < LANES; l++)
			lane[l] += a[i + l] * b[i + l];
	for (l = 0; i + l < n; l++)
		lane[l] += a[i + l] * b[i + l];

	for (l = 0; l < 8; l++)
		lane[l] += lane[l + 8];
	for (l = 0; l < 4; l++)
		lane[l] += lane[l + 4];
	return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/*
 * The same sum in double, where the product of two floats is exact and no float is large or small
 * enough to overflow or underflow; used where a length is wanted.
 */
static double
dot_wide(const float *a, const float *b, size_t n)
{
	double lane[LANES] = {0.0};
	size_t whole = n - n % LANES;
	size_t i;
	size_t l;

	for (i = 0; i < whole; i += LANES)
		for (l = 0; l < LANES; l++)
			lane[l] += (double) a[i + l] * (double) b[i + l];
	for (l = 0; i + l < n; l++)
		lane[l] += (double) a[i + l] * (double) b[i + l];

	for (l = 0; l < 8; l++)
		lane[l] += lane[l + 8];
	for (l = 0; l < 4; l++)
		lane[l] += lane[l + 4];
	return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

float
td_vec_norm(const float *a, size_t n)
{
	return (float) sqrt(dot_wide(a, a, n));
}

float
td_vec_cosine(const float *a, const float *b, size_t n)
{
	double lengths = sqrt(dot_wide(a, a, n)) * sqrt(dot_wide(b, b, n));
	double cosine;

	if (lengths == 0.0)
		return 0.0f;
	cosine = dot_wide(a, b, n) / lengths;
	cosine = cosine > 1.0 ? 1.0 : cosine;
	cosine = cosine < -1.0 ? -1.0 : cosine;
	return (float) cosine;
}

td_status
td_vec_check(const float *a, size_t n)
{
	uint32_t seen = 0;
	size_t i;

	/* An exponent of all ones is infinity or NaN; adding one to it carries into the sign bit. */
	for (i = 0; i < n; i++)
		seen |= (td_float_bits(a[i]) & 0x7f800000u) + 0x00800000u;
	return (seen & 0x80000000u) ? TD_ERR_NONFINITE : TD_OK;
}

td_status
td_vec_normalise(float *a, size_t n)
{
	double length;
	double inverse;
	size_t i;

	if (td_vec_check(a, n) != TD_OK)
		return TD_ERR_NONFINITE;
	length = sqrt(dot_wide(a, a, n));

	/*
	 * Rounding leaves a result within 2^-24 of unit length, so what was scaled once is not scaled
	 * again: a vector that is stored and read keeps its bits.
	 */
	if (length == 0.0 || fabs(length - 1.0) <= 0x1p-23)
		return TD_OK;
	inverse = 1.0 / length;
	for (i = 0; i < n; i++)
		a[i] = (float) (a[i] * inverse);
	return TD_OK;
}

float
td_vec_quantise(const float *a, size_t n, int8_t *q)
{
	uint32_t greatest = 0;
	float scale;
	size_t i;

	/* Magnitudes order as their bits do, and an integer maximum is associative. */
	for (i = 0; i < n; i++)
	{
		uint32_t magnitude = td_float_bits(a[i]) & 0x7fffffffu;

		greatest = magnitude > greatest ? magnitude : greatest;
	}
	scale = td_float_of_bits(greatest) / 127.0f;
	if (!(scale > 0.0f))
	{
		for (i = 0; i < n; i++)
			q[i] = 0;
		return 0.0f;
	}

	/*
	 * A subnormal scale is so coarse that the quotient may pass 127: hence the limits.  The integer
	 * is read from the bits of the sum, because converting a float to int8 is undefined for what
	 * does not fit.
	 */
	for (i = 0; i < n; i++)
	{
		int32_t x = (int32_t) (td_float_bits(a[i] / scale + TD_ROUND_MAGIC) - TD_ROUND_MAGIC_BITS);

		x = x > 127 ? 127 : x;
		x = x < -127 ? -127 : x;
		q[i] = (int8_t) x;
	}
	return scale;
}

int32_t
td_vec_dot_i8(const int8_t *a, const int8_t *b, size_t n)
{
	int16_t wide[WIDE_BLOCK];
	uint32_t sum = 0;

	/* Unsigned, because nothing but -128 against -128 at the greatest length leaves int32. */
	while (n > 0)
	{
		size_t block = n < WIDE_BLOCK ? n : WIDE_BLOCK;

		td_widen(a, block, wide);
		sum += (uint32_t) td_dot_wide(wide, b, block);
		a += block;
		b += block;
		n -= block;
	}
	return (int32_t) sum;
}

void
td_vec_sigmoid(const float *x, float *y, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] = td_sigmoid(x[i]);
}

void
td_vec_tanh(const float *x, float *y, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] = td_tanh(x[i]);
}
