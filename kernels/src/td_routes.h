/*
 * td_routes.h - what the matching of routes and their tuning share.
 *
 * A quantised query in, cosines and scores out.  Internal: td_routes.c, td_ridge.c and td_tune.c.
 */
#ifndef TD_ROUTES_H
#define TD_ROUTES_H

#include "td_matvec.h"

#define TD_ROUTES_MAX_DIM TD_MATVEC_MAX

/* The cosine of a query and row i of rows[][dim]. */
static inline float
td_query_cosine(const td_query *query, const int8_t *rows, const float *scales, size_t i,
				size_t dim)
{
	float product;

	query->code->rows_i8(rows + i * dim, scales + i, 1, dim, &query->operand, &product);
	return td_as_cosine(product);
}

/* The three greatest of some cosines, in order, and how many of the three there are. */
typedef struct td_nearest
{
	float cosine[3];
	uint32_t n;
} td_nearest;

/*
 * The nearest of rows first .. first + n - 1, without row skip (TD_NONE: with all).  Through a
 * pointer: a struct of that size returned by value is put together from memory that was just
 * written in parts, which costs as much as the product of a row.
 */
void td_routes_nearest(td_products *products, uint32_t first, uint32_t n, uint32_t skip,
					   td_nearest *found);

/* Mean of what is there; -INFINITY when there is nothing. */
float td_nearest_mean(const td_nearest *nearest);

/*
 * A route's score after its negative examples, whose products are given; positive is its nearest
 * utterance.
 */
float td_routes_less_negatives(const td_routes *routes, uint32_t route, td_products *negatives,
							   float positive, float score);

/* The features of a query: kernel values to the landmarks, features[n_landmarks]. */
void td_ridge_features(const td_routes *routes, const td_query *query, uint32_t n_landmarks,
					   float *features);

/*
 * The scores[n_routes] of utterance row, whose route is own, by the regression without that row.
 * Valid when td_ridge_step() is done.
 */
void td_ridge_leave_out(void *state, uint32_t row, uint32_t own, const td_query *query,
						float *scores);

/* Sizes of parts of lent memory: a multiple of 64, so that each part is aligned. */
static inline size_t
td_part(size_t size)
{
	return (size + 63) / 64 * 64;
}

#endif /* TD_ROUTES_H */
