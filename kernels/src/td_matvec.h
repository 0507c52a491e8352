/*
 * td_matvec.h - one vector against many rows, by the code of one instruction set.
 *
 * A vector and a row-major matrix in, their products out.  Internal: called by td_fastgrnn.c,
 * td_topk.c, td_routes.c, td_score.c and td_matvec.c; written once in td_matvec_body.h and compiled
 * by td_matvec_<level>.c, which add the one int8 product that is written for their instructions.
 *
 * All sets give the same bits: float sums keep the order of td_vec_dot(), integer sums are exact.
 *
 * Vocabulary
 *   code     the functions of one level, a whole set chosen once
 *   operand  a float vector quantised to int8, as the code of that level reads it
 */
#ifndef TD_MATVEC_H
#define TD_MATVEC_H

#include "tinydancer.h"

/* Rows that have at most so many elements have sums within int32. */
#define TD_MATVEC_MAX 131072u

/* Rows that are summed in float before they are added in double: the error stays that of a few. */
#define TD_SUM_BLOCK 32u

/* Rows whose signs stand side by side in a sketch. */
#define TD_SKETCH_GROUP 8

typedef struct td_operand
{
	const int8_t *narrow; /* [n], in [-127, 127] */
	const int16_t *wide;  /* [n], the same; NULL where the code does not read it */
	int32_t sum;		  /* of the n */
	float scale;
} td_operand;

typedef struct td_code
{
	/* TD_OK when all of x[n] are finite, as td_vec_check(). */
	td_status (*check)(const float *x, size_t n);

	/* As td_vec_quantise(); scratch of td_operand_size(n) bytes, aligned to 64, holds the operand.
	 */
	void (*make_operand)(const float *x, size_t n, void *scratch, td_operand *operand);

	/* y[r] = td_vec_dot(rows[r], x) for rows[n_rows][n]. */
	void (*rows_f32)(const float *rows, size_t n_rows, size_t n, const float *x, float *y);

	/*
	 * y[r] = (float) sum * (operand->scale * scales[r]), with the sum of the int8 products of row r
	 * and the operand; n at most TD_MATVEC_MAX.
	 */
	void (*rows_i8)(const int8_t *rows, const float *scales, size_t n_rows, size_t n,
					const td_operand *operand, float *y);

	/*
	 * y[j] += the sum of weight[r] * rows[r][j] for rows[n_rows][n_out]: TD_SUM_BLOCK rows in
	 * float, in their order, and such sums in double.
	 */
	void (*weighted_rows_f32)(const float *rows, const float *weight, size_t n_rows, size_t n_out,
							  double *y);
	void (*weighted_rows_i8)(const int8_t *rows, const float *weight, size_t n_rows, size_t n_out,
							 double *y);

	/* The first i from on with y[i] > limit; n when there is none. */
	size_t (*first_above)(const float *y, size_t from, size_t n, float limit);

	/*
	 * The rows of a sketch that differ from signs[n_words] in fewer than limit, from group *at on:
	 * index[room] and distance[room] out; returns how many.  Stops before end, with *at the next
	 * group, when there is no room for a group's rows; room is at least TD_SKETCH_GROUP.
	 */
	size_t (*few_signs)(const uint64_t *sketch, size_t n_words, const uint64_t *signs,
						uint32_t limit, size_t *at, size_t end, uint32_t *index, uint32_t *distance,
						size_t room);

	/* As td_vec_sigmoid() and td_vec_tanh(). */
	void (*sigmoid)(const float *x, float *y, size_t n);
	void (*hyperbolic_tangent)(const float *x, float *y, size_t n);

	/* exp(-x) of x >= 0, see td_math.h. */
	void (*exp_minus)(const float *x, float *y, size_t n);
} td_code;

extern const td_code td_code_portable;
extern const td_code td_code_avx2;
extern const td_code td_code_avx512;

/* The same but for few_signs(), which is td_few_signs_popcnt(): with VPOPCNTDQ. */
extern const td_code td_code_avx512_popcnt;
size_t td_few_signs_popcnt(const uint64_t *sketch, size_t n_words, const uint64_t *signs,
						   uint32_t limit, size_t *at, size_t end, uint32_t *index,
						   uint32_t *distance, size_t room);

/* The code of a td_level. */
const td_code *td_code_of(uint32_t level);

/* Bytes that hold an operand of n elements. */
static inline size_t
td_operand_size(size_t n)
{
	return (n + 63) / 64 * 64 + n * sizeof(int16_t);
}

/* A vector that is compared with rows, and the code that does it. */
typedef struct td_query
{
	const td_code *code;
	td_operand operand;
} td_query;

/* An int8 row as a query; wide[n] is lent. */
td_query td_query_of_row(uint32_t level, const int8_t *row, float scale, size_t n, int16_t *wide);

/* Rows whose products are worked out together when one of them is asked for. */
#define TD_AHEAD 64

/*
 * The products of a query and rows[...][dim] that are asked for by number, best in order.
 * Set up by td_products_begin(), read by td_product(); end may be changed between.
 */
typedef struct td_products
{
	const td_query *query;
	const int8_t *rows;
	const float *scales;
	size_t dim;
	size_t end;			/* greater numbers are not worked out ahead */
	size_t first;		/* number of values[0] */
	size_t n;			/* of the values that are there */
	const float *value; /* those of ahead[], or all */
	float ahead[TD_AHEAD];
} td_products;

void td_products_begin(td_products *products, const td_query *query, const int8_t *rows,
					   const float *scales, size_t n_rows, size_t dim);

/* Work out the products from row on. */
void td_products_ahead(td_products *products, size_t row);

static inline float
td_product(td_products *products, size_t row)
{
	if (row - products->first >= products->n)
		td_products_ahead(products, row);
	return products->value[row - products->first];
}

/* A product of unit vectors as a cosine: NaN, from a scale that is none, is farthest. */
static inline float
td_as_cosine(float product)
{
	product = product > -1.0f ? product : -1.0f;
	return product < 1.0f ? product : 1.0f;
}

/*
 * td_topk_cosine() among the rows candidate[n], ascending, for a query that is an operand; returns
 * how many were found.  In td_topk.c.
 */
size_t td_topk_among(const td_code *code, const td_operand *query, const int8_t *rows,
					 const float *scales, const uint32_t *candidate, size_t n, size_t dim, size_t k,
					 uint32_t *index, float *score);

#endif /* TD_MATVEC_H */
