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

/* Blocks of rows that are summed at a time. */
#define TURNS 4

typedef struct weighted_rows_of
{
	const void *rows; /* [n][n_out] */
	int narrow;		  /* int8, else float */
	const float *weight;
	size_t n;
	size_t n_out;
} weighted_rows_of;

/* Sixteen values from number at on of size, which are int8 or float; behind the end, zeros. */
static TD_INLINE v16f
values_at(const void *values, int narrow, size_t at, size_t size)
{
	const int8_t *narrow_value = (const int8_t *) values + at;
	const float *value = (const float *) values + at;
	float end[LANES] = {0.0f};
	v16f sixteen;
	size_t i;

	if (at + LANES > size)
	{
		for (i = 0; i < size - at; i++)
			end[i] = narrow ? (float) narrow_value[i] : value[i];
		value = end;
	}
	else if (narrow)
		return lanes_widen(narrow_value);
	memcpy(&sixteen, value, sizeof(sixteen));
	return sixteen;
}

/*
 * Sixteen columns of some whole blocks of rows.  One block is a chain of additions, each of which
 * waits for the one before, so the blocks take turns.
 */
static TD_INLINE void
weighted_columns(const weighted_rows_of *w, size_t first, int blocks, size_t block, size_t column,
				 v16f *sum)
{
	size_t i;
	int b;

#pragma GCC unroll 4
	for (b = 0; b < blocks; b++)
		sum[b] = splat(0.0f);
	for (i = first; i < first + block; i++)
#pragma GCC unroll 4
		for (b = 0; b < blocks; b++)
		{
			size_t row = i + b * block;

			sum[b] += splat(w->weight[row]) *
					  values_at(w->rows, w->narrow, row * w->n_out + column, w->n * w->n_out);
		}
}

static TD_INLINE void
add_weighted_rows(const weighted_rows_of *w, double *y)
{
	size_t column;

	for (column = 0; column < w->n_out; column += LANES)
	{
		size_t n = w->n_out - column < LANES ? w->n_out - column : LANES;
		size_t row = 0;
		v16f sum[TURNS];

		while (row < w->n)
		{
			int blocks = w->n - row < TURNS * TD_SUM_BLOCK ? 1 : TURNS;
			size_t block = w->n - row < TD_SUM_BLOCK ? w->n - row : TD_SUM_BLOCK;
			size_t j;
			int b;

			if (blocks == TURNS)
				weighted_columns(w, row, TURNS, TD_SUM_BLOCK, column, sum);
			else
				weighted_columns(w, row, 1, block, column, sum);
			for (b = 0; b < blocks; b++)
				for (j = 0; j < n; j++)
					y[column + j] += (double) sum[b][j];
			row += (size_t) blocks * block;
		}
	}
}

static void
weighted_rows_i8(const int8_t *rows, const float *weight, size_t n, size_t n_out, double *y)
{
	const weighted_rows_of w = {rows, 1, weight, n, n_out};

	add_weighted_rows(&w, y);
}

static void
weighted_rows_f32(const float *rows, const float *weight, size_t n, size_t n_out, double *y)
{
	const weighted_rows_of w = {rows, 0, weight, n, n_out};

	add_weighted_rows(&w, y);
}

static void
exp_minus(const float *x, float *y, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] = td_exp_minus(x[i]);
}

#define CODE(few_signs)                                                                            \
	{check,                                                                                        \
	 make_operand,                                                                                 \
	 rows_f32,                                                                                     \
	 rows_i8,                                                                                      \
	 weighted_rows_f32,                                                                            \
	 weighted_rows_i8,                                                                             \
	 first_above,                                                                                  \
	 few_signs,                                                                                    \
	 sigmoid,                                                                                      \
	 hyperbolic_tangent,                                                                           \
	 exp_minus}
