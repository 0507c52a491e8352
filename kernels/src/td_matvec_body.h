/*
 * td_matvec_body.h - products of one vector with many rows, as every instruction set does them.
 *
 * See td_matvec.h.  Included by td_matvec_<level>.c, which define what is different:
 *
 *   VECTOR         bytes of a register, 16, 32 or 64
 *   ROWS           rows of floats that are multiplied at a time, their sums in registers
 *   WIDE_OPERAND   1: rows_i8() reads the operand as int16
 *   rows_i8()      the one of td_code, see td_matvec.h
 *   signs_below()  see td_sketch_body.h
 *   lanes_above()  a bit for each of sixteen floats, the first lowest: 1 where it is above a limit
 */
#include <string.h>

#include "td_dot.h"
#include "td_math.h"
#include "td_sketch_body.h"

#define PIECES (64 / VECTOR)

typedef float lane_part __attribute__((vector_size(VECTOR), may_alias, aligned(4)));

/* ROWS or fewer rows; with their number known, all sums stay in registers. */
static TD_INLINE void
some_rows_f32(const float *rows, int count, size_t n, const float *x, float *y)
{
	lane_part acc[ROWS][PIECES];
	size_t whole = n - n % LANES;
	size_t i;
	int r;
	int p;

#pragma GCC unroll 8
	for (r = 0; r < count; r++)
#pragma GCC unroll 4
		for (p = 0; p < PIECES; p++)
			acc[r][p] = (lane_part) {0.0f};
	for (i = 0; i < whole; i += LANES)
	{
#pragma GCC unroll 4
		for (p = 0; p < PIECES; p++)
		{
			const lane_part v = *(const lane_part *) (x + i + p * (VECTOR / 4));

#pragma GCC unroll 8
			for (r = 0; r < count; r++)
				acc[r][p] += *(const lane_part *) (rows + r * n + i + p * (VECTOR / 4)) * v;
		}
	}
	if (whole < n)
	{
		/* Zeros behind the end add nothing: no lane is ever -0. */
		float end[LANES] = {0.0f};
		float row_end[LANES] = {0.0f};

		memcpy(end, x + whole, (n - whole) * sizeof(float));
#pragma GCC unroll 8
		for (r = 0; r < count; r++)
		{
			memcpy(row_end, rows + r * n + whole, (n - whole) * sizeof(float));
#pragma GCC unroll 4
			for (p = 0; p < PIECES; p++)
				acc[r][p] += *(const lane_part *) (row_end + p * (VECTOR / 4)) *
							 *(const lane_part *) (end + p * (VECTOR / 4));
		}
	}
#pragma GCC unroll 8
	for (r = 0; r < count; r++)
	{
		v16f sum;

		memcpy(&sum, acc[r], sizeof(sum));
		y[r] = lanes_sum(sum);
	}
}

static void
rows_f32(const float *rows, size_t n_rows, size_t n, const float *x, float *y)
{
	size_t row = 0;

	for (; row + ROWS <= n_rows; row += ROWS)
		some_rows_f32(rows + row * n, ROWS, n, x, y + row);
	for (; row < n_rows; row++)
		some_rows_f32(rows + row * n, 1, n, x, y + row);
}

static size_t
first_above(const float *y, size_t from, size_t n, float limit)
{
	for (; from + LANES <= n; from += LANES)
	{
		uint32_t bits = lanes_above(y + from, limit);

		if (bits != 0)
			return from + (size_t) __builtin_ctz(bits);
	}
	while (from < n && !(y[from] > limit))
		from++;
	return from;
}

static td_status
check(const float *x, size_t n)
{
	uint32_t seen = 0;
	size_t i;

	/* As td_vec_check(). */
	for (i = 0; i < n; i++)
		seen |= (td_float_bits(x[i]) & 0x7f800000u) + 0x00800000u;
	return (seen & 0x80000000u) ? TD_ERR_NONFINITE : TD_OK;
}

/* As td_vec_quantise(), whose comments explain it. */
static void
make_operand(const float *x, size_t n, void *scratch, td_operand *operand)
{
	int8_t *narrow = scratch;
	int16_t *wide = (int16_t *) (narrow + (n + 63) / 64 * 64);
	uint32_t greatest = 0;
	int32_t sum = 0;
	float scale;
	size_t i;

	for (i = 0; i < n; i++)
	{
		uint32_t magnitude = td_float_bits(x[i]) & 0x7fffffffu;

		greatest = magnitude > greatest ? magnitude : greatest;
	}
	scale = td_float_of_bits(greatest) / 127.0f;
	operand->narrow = narrow;
	operand->wide = WIDE_OPERAND ? wide : NULL;
	operand->scale = scale > 0.0f ? scale : 0.0f;
	if (scale > 0.0f)
	{
		for (i = 0; i < n; i++)
		{
			int32_t q =
				(int32_t) (td_float_bits(x[i] / scale + TD_ROUND_MAGIC) - TD_ROUND_MAGIC_BITS);

			q = q > 127 ? 127 : q;
			q = q < -127 ? -127 : q;
			narrow[i] = (int8_t) q;
			sum += q;
		}
	}
	else
		memset(narrow, 0, n);
	operand->sum = sum;
	if (WIDE_OPERAND)
		td_widen(narrow, n, wide);
}

static void
sigmoid(const float *x, float *y, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] = td_sigmoid(x[i]);
}

static void
hyperbolic_tangent(const float *x, float *y, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] = td_tanh(x[i]);
}

#define CODE(few_signs)                                                                            \
	{check, make_operand, rows_f32, rows_i8, first_above, few_signs, sigmoid, hyperbolic_tangent}
