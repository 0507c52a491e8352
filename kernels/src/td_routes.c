/*
 * td_routes.c - which semantic routes a request matches.
 *
 * In: the packed routes, a query vector.  Out: a score for each route, the best ones, and a score
 * as a probability.  Called by both shells for every match, and by td_tune.c.
 */
#include <math.h>
#include <string.h>

#include "td_math.h"
#include "td_routes.h"

static const char *const scorer_names[TD_N_SCORERS] = {"nearest", "centroid", "top3", "ridge"};

const char *
td_scorer_name(unsigned i)
{
	return i < TD_N_SCORERS ? scorer_names[i] : "";
}

void
td_routes_nearest(td_products *products, uint32_t first, uint32_t n, uint32_t skip,
				  td_nearest *found)
{
	float best = -2.0f;
	float second = -2.0f;
	float third = -2.0f;
	uint32_t count = 0;
	uint32_t i;

	for (i = first; i < first + n; i++)
	{
		float cosine;

		if (i == skip)
			continue;
		cosine = td_as_cosine(td_product(products, i));
		count++;
		if (cosine <= third)
			continue;
		if (cosine > best)
		{
			third = second;
			second = best;
			best = cosine;
		}
		else if (cosine > second)
		{
			third = second;
			second = cosine;
		}
		else
			third = cosine;
	}
	found->cosine[0] = best;
	found->cosine[1] = second;
	found->cosine[2] = third;
	found->n = count < 3 ? count : 3;
}

float
td_nearest_mean(const td_nearest *nearest)
{
	switch (nearest->n)
	{
		case 0:
			return -INFINITY;
		case 1:
			return nearest->cosine[0];
		case 2:
			return (nearest->cosine[0] + nearest->cosine[1]) / 2.0f;
		default:
			return (nearest->cosine[0] + nearest->cosine[1] + nearest->cosine[2]) / 3.0f;
	}
}

float
td_routes_less_negatives(const td_routes *routes, uint32_t route, td_products *negatives,
						 float positive, float score)
{
	const td_route *r = &routes->routes[route];
	td_nearest negative;

	if (r->n_negatives == 0)
		return score;
	td_routes_nearest(negatives, r->first_negative, r->n_negatives, TD_NONE, &negative);
	if (negative.n == 0 || negative.cosine[0] <= positive)
		return score;
	if (1.0f - negative.cosine[0] < (1.0f - positive) / 2.0f)
		return -INFINITY;
	return score - (negative.cosine[0] - positive);
}

static int
bad_dim(const td_routes *routes)
{
	return routes->dim == 0 || routes->dim > TD_ROUTES_MAX_DIM;
}

size_t
td_routes_centroids_scratch_size(const td_routes *routes)
{
	return bad_dim(routes) ? 0
						   : td_part(routes->dim * sizeof(double)) + routes->dim * sizeof(float);
}

td_status
td_routes_centroids(const td_routes *routes, int8_t *rows, float *scales, void *scratch,
					size_t scratch_size)
{
	const size_t dim = routes->dim;
	double *sum = scratch;
	float *mean = (float *) ((char *) scratch + td_part(dim * sizeof(double)));
	uint32_t r;
	uint32_t i;
	size_t j;

	if (bad_dim(routes))
		return TD_ERR_SHAPE;
	if (scratch_size < td_routes_centroids_scratch_size(routes))
		return TD_ERR_BUFFER;
	for (r = 0; r < routes->n_routes; r++)
	{
		const td_route *route = &routes->routes[r];

		memset(sum, 0, dim * sizeof(double));
		for (i = route->first_row; i < route->first_row + route->n_rows; i++)
		{
			const int8_t *row = routes->rows + i * dim;
			double scale = routes->scales[i];

			for (j = 0; j < dim; j++)
				sum[j] += scale * row[j];
		}
		for (j = 0; j < dim; j++)
			mean[j] = (float) sum[j];
		if (td_vec_normalise(mean, dim) != TD_OK)
			return TD_ERR_NONFINITE;
		scales[r] = td_vec_quantise(mean, dim, rows + r * dim);
	}
	return TD_OK;
}

size_t
td_routes_scratch_size(const td_routes *routes)
{
	if (bad_dim(routes))
		return 0;
	return td_part(td_ridge_landmarks(routes) * sizeof(float)) + td_operand_size(routes->dim);
}

/* What the scoring of the routes reads, in their order. */
typedef struct reader
{
	td_products rows;
	td_products negatives;
	td_products centroids;
	const float *features;
	uint32_t n_landmarks;
	int reads_rows; /* of every route */
} reader;

/* The score of a route before its negative examples, and its nearest utterance where that was read.
 */
static float
score_by_rows(const td_routes *routes, uint32_t r, reader *in, float *positive)
{
	const td_route *route = &routes->routes[r];
	td_nearest nearest = {{0.0f, 0.0f, 0.0f}, 0};

	if (in->reads_rows || route->n_negatives > 0)
	{
		if (!in->reads_rows)
			in->rows.end = (size_t) route->first_row + route->n_rows;
		td_routes_nearest(&in->rows, route->first_row, route->n_rows, TD_NONE, &nearest);
	}
	*positive = nearest.cosine[0];
	switch (routes->scorer)
	{
		case TD_SCORER_CENTROID:
			return td_as_cosine(td_product(&in->centroids, r));
		case TD_SCORER_TOP3:
			return td_nearest_mean(&nearest);
		case TD_SCORER_RIDGE:
			return td_vec_dot(routes->weights + (size_t) r * in->n_landmarks, in->features,
							  in->n_landmarks);
		default:
			return nearest.cosine[0];
	}
}

td_status
td_routes_score(const td_routes *routes, const float *query, float *scores, void *scratch,
				size_t scratch_size)
{
	const uint32_t n_landmarks = td_ridge_landmarks(routes);
	float *features = scratch;
	td_query q;
	reader in;
	uint32_t r;

	if (bad_dim(routes) || routes->scorer >= TD_N_SCORERS ||
		(routes->scorer == TD_SCORER_CENTROID && routes->centroid_rows == NULL) ||
		(routes->scorer == TD_SCORER_RIDGE && n_landmarks > 0 && routes->weights == NULL))
		return TD_ERR_SHAPE;
	if (scratch_size < td_routes_scratch_size(routes))
		return TD_ERR_BUFFER;
	q.code = td_code_of(routes->level);
	if (q.code->check(query, routes->dim) != TD_OK)
		return TD_ERR_NONFINITE;

	q.code->make_operand(query, routes->dim,
						 (char *) scratch + td_part(n_landmarks * sizeof(float)), &q.operand);
	td_products_begin(&in.rows, &q, routes->rows, routes->scales, routes->n_rows, routes->dim);
	td_products_begin(&in.negatives, &q, routes->negative_rows, routes->negative_scales,
					  routes->n_negatives, routes->dim);
	td_products_begin(&in.centroids, &q, routes->centroid_rows, routes->centroid_scales,
					  routes->n_routes, routes->dim);
	in.features = features;
	in.n_landmarks = n_landmarks;
	in.reads_rows = routes->scorer == TD_SCORER_NEAREST || routes->scorer == TD_SCORER_TOP3;
	if (routes->scorer == TD_SCORER_RIDGE)
		td_ridge_features(routes, &q, n_landmarks, features);
	for (r = 0; r < routes->n_routes; r++)
	{
		float positive;
		float score;

		scores[r] = -INFINITY;
		if (routes->routes[r].n_rows == 0)
			continue;
		score = score_by_rows(routes, r, &in, &positive);
		scores[r] = td_routes_less_negatives(routes, r, &in.negatives, positive, score);
	}
	return TD_OK;
}

/* ---------------------------------------------------------------- the best */

size_t
td_routes_select_scratch_size(const td_routes *routes)
{
	return (size_t) routes->n_routes * sizeof(uint32_t) + 1;
}

/* Whether route a goes before route b: by score, or in a near-tie by priority first. */
static int
goes_before(const td_routes *routes, const float *scores, uint32_t a, uint32_t b, int near_tie)
{
	if (near_tie && routes->routes[a].priority != routes->routes[b].priority)
		return routes->routes[a].priority > routes->routes[b].priority;
	if (scores[a] != scores[b])
		return scores[a] > scores[b];
	return a < b;
}

/* Restore the heap below root: what goes last on top. */
static void
sift_down(const td_routes *routes, const float *scores, uint32_t *list, size_t root, size_t n,
		  int near_tie)
{
	for (;;)
	{
		size_t child = 2 * root + 1;
		uint32_t held;

		if (child >= n)
			return;
		if (child + 1 < n && goes_before(routes, scores, list[child], list[child + 1], near_tie))
			child++;
		if (!goes_before(routes, scores, list[root], list[child], near_tie))
			return;
		held = list[root];
		list[root] = list[child];
		list[child] = held;
		root = child;
	}
}

/* Heap sort, since qsort() may allocate. */
static void
sort_routes(const td_routes *routes, const float *scores, uint32_t *list, size_t n, int near_tie)
{
	size_t i;

	for (i = n / 2; i-- > 0;)
		sift_down(routes, scores, list, i, n, near_tie);
	for (i = n; i-- > 1;)
	{
		uint32_t last = list[0];

		list[0] = list[i];
		list[i] = last;
		sift_down(routes, scores, list, 0, i, near_tie);
	}
}

static int
may_match(const td_routes *routes, const float *scores, const uint8_t *open, uint32_t r)
{
	return (open == NULL || open[r]) && scores[r] > -INFINITY &&
		   scores[r] >= routes->routes[r].threshold;
}

/*
 * The k-th greatest score among those that may match, by a heap of k in list; -INFINITY when there
 * are fewer.
 */
static float
kth_score(const td_routes *routes, const float *scores, const uint8_t *open, size_t k,
		  uint32_t *list)
{
	size_t n = 0;
	uint32_t r;

	for (r = 0; r < routes->n_routes; r++)
	{
		if (!may_match(routes, scores, open, r))
			continue;
		if (n < k)
		{
			list[n++] = r;
			if (n == k)
			{
				size_t i;

				for (i = n / 2; i-- > 0;)
					sift_down(routes, scores, list, i, n, 0);
			}
		}
		else if (scores[r] > scores[list[0]])
		{
			list[0] = r;
			sift_down(routes, scores, list, 0, k, 0);
		}
	}
	return n < k ? -INFINITY : scores[list[0]];
}

td_status
td_routes_select(const td_routes *routes, const float *scores, const uint8_t *open, size_t k,
				 uint32_t *index, size_t *n_found, void *scratch, size_t scratch_size)
{
	uint32_t *list = scratch;
	float least = -INFINITY;
	size_t n = 0;
	size_t from;
	size_t i;
	uint32_t r;

	*n_found = 0;
	if (scratch_size < td_routes_select_scratch_size(routes))
		return TD_ERR_BUFFER;
	if (k == 0)
		return TD_OK;
	/* What can reach one of k places is in a near-tie with the k-th score, or above it. */
	if (k < routes->n_routes)
		least = kth_score(routes, scores, open, k, list) - TD_NEAR_TIE;
	for (r = 0; r < routes->n_routes; r++)
	{
		if (may_match(routes, scores, open, r) && scores[r] >= least)
			list[n++] = r;
	}
	sort_routes(routes, scores, list, n, 0);
	for (from = 0; from < n && from < k;)
	{
		size_t to = from;

		while (to < n && scores[list[to]] >= scores[list[from]] - TD_NEAR_TIE)
			to++;
		sort_routes(routes, scores, list + from, to - from, 1);
		from = to;
	}
	*n_found = n < k ? n : k;
	for (i = 0; i < *n_found; i++)
		index[i] = list[i];
	return TD_OK;
}

double
td_routes_confidence(const td_routes *routes, float score)
{
	return 1.0 / (1.0 + td_exp(-((double) score - routes->mu) / routes->s));
}
