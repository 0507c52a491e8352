/*
 * td_score_body.h - fits and scores of a block of agents, as every instruction set works them out.
 *
 * See td_score_code.h.  Included by td_score_<level>.c, which define VECTOR, the bytes of a
 * register.
 *
 * Vector types of GCC and Clang: each lane does to one agent the IEEE operations that its equation
 * says, in that order.
 */
#include <math.h>
#include <string.h>

#include "td_math.h"
#include "td_score_code.h"

#define AT_ONCE (VECTOR / 8)

typedef double doubles __attribute__((vector_size(VECTOR), may_alias, aligned(8)));
typedef int64_t choices __attribute__((vector_size(VECTOR), may_alias, aligned(8)));
typedef float floats __attribute__((vector_size(VECTOR / 2), may_alias, aligned(4)));

/* Lane by lane one of two, by a comparison. */
static inline doubles
choose(choices which, doubles yes, doubles no)
{
	return (doubles) (((choices) yes & which) | ((choices) no & ~which));
}

/* 2^k from TD_ROUND_MAGIC_DOUBLE + k, k in [-1022, 1023]. */
static inline doubles
scale_of(doubles magic)
{
	return (doubles) (((choices) magic << 52) + 0x3ff0000000000000);
}

/*
 * 1 / (1 + td_exp(x)).  td_exp() without branches: where its result would be less than what it is
 * cut to, the sum with 1 is 1 all the same; where it would be infinite, the quotient is 0.
 */
static inline doubles
logistic_of_minus(doubles x)
{
	const doubles zero = {0.0};
	doubles t = choose(x > TD_EXP_MOST, zero + TD_EXP_MOST, x);
	doubles k;
	doubles half;
	doubles high;
	doubles low;
	doubles r;
	doubles p;
	int i;

	t = choose(t < -708.0, zero - 708.0, t);
	k = (t * TD_LOG2_E + TD_ROUND_MAGIC_DOUBLE) - TD_ROUND_MAGIC_DOUBLE;
	high = t - k * TD_LN2_HIGH;
	low = k * TD_LN2_LOW;
	r = high - low;
	p = zero + td_exp_series[0];
#pragma GCC unroll 12
	for (i = 1; i < TD_EXP_TERMS; i++)
		p = p * r + td_exp_series[i];
	p = 1.0 + (high - (low - r * r * p));
	half = k * 0.5 + TD_ROUND_MAGIC_DOUBLE;
	k = k - (half - TD_ROUND_MAGIC_DOUBLE);
	p = p * scale_of(half) * scale_of(k + TD_ROUND_MAGIC_DOUBLE);
	return 1.0 / (1.0 + choose(x > TD_EXP_MOST, zero + INFINITY, p));
}

static void
fit(const float *similarity, size_t n, double mu, double s, double *out)
{
	size_t i;

	for (i = 0; i < n; i += AT_ONCE)
	{
		doubles x = __builtin_convertvector(*(const floats *) (similarity + i), doubles);

		*(doubles *) (out + i) = logistic_of_minus(-((x - mu) / s));
	}
}

static void
score(td_score_block *b, size_t n, const td_score_terms *terms)
{
	const td_policy p = terms->policy;
	const double *by = terms->predicted ? b->expected : b->fit;
	const doubles dearest = (doubles) {0.0} + terms->dearest;
	const doubles slowest = (doubles) {0.0} + terms->slowest;
	size_t i;

	for (i = 0; i < n; i += AT_ONCE)
	{
		doubles cost = *(const doubles *) (b->cost + i);
		doubles latency = *(const doubles *) (b->latency + i);
		doubles sum;

		/* What is not equal to itself is NaN. */
		cost = choose(cost != cost, dearest, cost);
		latency = choose(latency != latency, slowest, latency);
		sum = p.cost_weight * (1.0 / (1.0 + cost / p.cost_scale)) +
			  p.latency_weight * (1.0 / (1.0 + latency / p.latency_scale)) +
			  p.quality_weight * *(const doubles *) (b->quality + i) +
			  p.fit_weight * *(const doubles *) (b->fit + i);
		sum *= *(const doubles *) (by + i);
		if (p.per_dollar)
			sum /= cost + p.cost_scale;
		*(doubles *) (b->score + i) = sum;
	}
}

/* Rows that stay in the nearest cache while one request after the other is multiplied with them. */
#define TILE_BYTES 16384

/* The products of several requests by the code for one, so that far rows are read once for all. */
static inline void
tiled_products(const td_code *code, const int8_t *rows, const float *scales, size_t n_rows,
			   size_t n, const td_operand *operands, size_t n_queries, float *out)
{
	size_t tile = n < TILE_BYTES / 4 ? TILE_BYTES / n / 4 * 4 : 4;
	size_t row;
	size_t q;

	for (row = 0; row < n_rows; row += tile)
	{
		size_t count = n_rows - row < tile ? n_rows - row : tile;

		for (q = 0; q < n_queries; q++)
			code->rows_i8(rows + row * n, scales + row, count, n, &operands[q],
						  out + q * n_rows + row);
	}
}
