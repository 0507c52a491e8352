/*
 * td_matvec_body.h - products of one vector with many rows, as every instruction set does them.
 *
 * See td_matvec.h.  Included by td_matvec_<level>.c, which define what is different:
 *
 *   VECTOR         bytes of a register, 16, 32 or 64
 *   ROWS           rows of floats that are multiplied at a time, their sums in registers
 *   WIDE_OPERAND   1: rows_i8() reads the operand as int16
 *   rows_i8()      the one of td_code, see td_matvec.h
 *   pack_sums()    the sums of the int8 products of the operand and each row of a block of a pack
 *   signs_below()  see td_sketch_body.h
 *   lanes_above()  a bit for each of sixteen floats, the first lowest: 1 where it is above a limit
 */
#include <string.h>

#include "td_dot.h"
#include "td_lanes.h"
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

static TD_INLINE uint32_t
one_block(const uint8_t *block, const float *scales, size_t n, const td_operand *operand,
		  float limit, float *y)
{
	v16f row_scales;
	v16i sum;
	v16f product;

	memcpy(&row_scales, scales, sizeof(row_scales));
	pack_sums(block, n, operand, (int32_t *) &sum);
	product = __builtin_convertvector(sum, v16f) * (operand->scale * row_scales);
	memcpy(y, &product, sizeof(product));
	return lanes_above(y, limit);
}

static size_t
packed_above(const uint8_t *packed, const float *scales, size_t n_rows, size_t n,
			 const td_operand *operand, size_t from, size_t end, float limit, float *y)
{
	const size_t size = td_pack_block(n);
	const size_t whole = n_rows / TD_PACK_ROWS;

	for (packed += from * size; from < end && from < whole; from++, packed += size)
		if (one_block(packed, scales + from * TD_PACK_ROWS, n, operand, limit, y) != 0)
			return from;
	if (from < end)
	{
		float last[TD_PACK_ROWS] = {0.0f};

		memcpy(last, scales + from * TD_PACK_ROWS, n_rows % TD_PACK_ROWS * sizeof(float));
		if (one_block(packed, last, n, operand, limit, y) != 0)
			return from;
	}
	return end;
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

/* Elements that are rotated together, at most. */
#define ROTATED 1024

/* Lanes of which bit is set in their number, turned, and to each the other of its pair added. */
#define PAIRED(x, bit, ...)                                                                        \
	(LANES_ORDER(x, __VA_ARGS__) +                                                                 \
	 ((x ^ -(((v16i) {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} & bit) / bit)) +       \
	  ((v16i) {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} & bit) / bit))

/*
 * Half of the signs turned, then the Walsh-Hadamard transform: of a power of two of elements, of
 * which as many are kept as came in.  Afterwards no element says more than others, as Charikar's
 * law wants it (Ailon and Chazelle 2009).  Returns how many lanes of turned[] there are.
 */
static TD_INLINE void
rotate(const int8_t *row, size_t n, v16i *turned)
{
	int32_t *elements = (int32_t *) turned;
	size_t width = LANES;
	size_t half;
	size_t i;
	size_t j;

	while (width < n)
		width *= 2;
	for (i = 0; i < n; i++)
	{
		uint32_t mixed = (uint32_t) i * 0x9e3779b1u;

		mixed = (mixed ^ mixed >> 15) * 0x85ebca77u;
		/* All ones or all zeros: the value turned, or as it is. */
		mixed = 0u - (mixed >> 31);
		elements[i] = (row[i] ^ (int32_t) mixed) - (int32_t) mixed;
	}
	memset(elements + n, 0, (width - n) * sizeof(*elements));
	for (half = width / LANES / 2; half > 0; half /= 2)
	{
		for (i = 0; i < width / LANES; i += 2 * half)
			for (j = i; j < i + half; j++)
			{
				v16i sum = turned[j] + turned[j + half];

				turned[j + half] = turned[j] - turned[j + half];
				turned[j] = sum;
			}
	}
	for (i = 0; i < width / LANES; i++)
	{
		v16i x = turned[i];

		x = PAIRED(x, 8, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
		x = PAIRED(x, 4, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
		x = PAIRED(x, 2, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
		turned[i] = PAIRED(x, 1, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
	}
}

static void
signs(const int8_t *row, size_t n, uint64_t *signs)
{
	v16i turned[ROTATED / LANES];
	size_t done;
	size_t i;

	memset(signs, 0, (n + 63) / 64 * sizeof(*signs));
	for (done = 0; done < n; done += ROTATED)
	{
		size_t part = n - done < ROTATED ? n - done : ROTATED;

		rotate(row + done, part, turned);
		for (i = 0; i < part; i += LANES)
		{
			v16f opposite = __builtin_convertvector(-turned[i / LANES], v16f);
			uint32_t bits = lanes_above((const float *) &opposite, 0.0f);

			if (part - i < LANES)
				bits &= (1u << (part - i)) - 1;
			signs[(done + i) / 64] |= (uint64_t) bits << (i % 64);
		}
	}
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
	{check,		   make_operand,	  rows_f32,			rows_i8,                                   \
	 packed_above, weighted_rows_f32, weighted_rows_i8, first_above,                               \
	 signs,		   few_signs,		  sigmoid,			hyperbolic_tangent,                        \
	 exp_minus}
