/*
 * td_tune.c - the scorer, the confidence and the thresholds of a registry of routes, by
 * leave-one-out.
 *
 * In: the packed routes and what is wanted.  Out: a td_tune_result and a report for each route.
 * Called by both shells for ruvector_tune_routes(), in steps of some milliseconds; td_tune_fit.c
 * learns from the outcomes that are made here.
 */
#include <math.h>
#include <string.h>

#include "td_math.h"
#include "td_routes.h"
#include "td_tune.h"

/* Fewer outcomes say nothing about scorers or constants. */
#define LEAST_LEFT_OUT 10

/* Products of one step, some milliseconds. */
#define STEP 16000000.0

enum
{
	COSINES, /* outcomes of the scorers that are cosines */
	FIT,	 /* the regression */
	RIDGE,	 /* its outcomes */
	LEARN,
	DONE
};

typedef struct tune
{
	const td_routes *routes;
	td_tune_options options;
	uint32_t with_ridge;
	uint32_t before; /* the routes' scorer */
	uint32_t phase;
	uint32_t next; /* utterance to go on with */
	td_tune_result result;
	td_left_out left;
	td_outcomes outcomes[TD_N_SCORERS];
	int8_t *centroid_rows;
	float *centroid_scales;
	td_route_report *reports;
	float *scores;		 /* [n_routes] */
	double *sum;		 /* [dim], of the utterances of one route */
	uint32_t summed;	 /* the route, TD_NONE: none yet */
	float *rest;		 /* [dim], what is left of it without one */
	int8_t *rest_row;	 /* [dim] */
	void *centroid_work; /* of td_routes_centroids() */
	int16_t *wide;		 /* [dim] */
	void *ridge;
} tune;

/* Whether the regression is tried; the routes' own scorer is, to say what its thresholds cover. */
static int
wants_ridge(const td_routes *routes, const td_tune_options *options)
{
	return (options->scorer == TD_NONE || options->scorer == TD_SCORER_RIDGE ||
			routes->scorer == TD_SCORER_RIDGE) &&
		   td_ridge_landmarks(routes) > 0;
}

/* Outcomes of a scorer can be had, which of a regression over no utterances they cannot. */
static int
usable(const tune *s, uint32_t scorer)
{
	return scorer < TD_N_SCORERS && (scorer != TD_SCORER_RIDGE || s->with_ridge);
}

/* The parts of the state, one after the other; returns the size, and sets pointers when s is there.
 */
static size_t
lay_out(const td_routes *routes, const td_tune_options *options, tune *s)
{
	size_t n_routes = routes->n_routes;
	size_t n_rows = routes->n_rows;
	size_t dim = routes->dim;
	size_t size = td_part(sizeof(tune));
	char *at = (char *) s;
	unsigned i;

#define TD_PLACE(field, type, count)                                                               \
	do                                                                                             \
	{                                                                                              \
		if (s != NULL)                                                                             \
			s->field = (type *) (at + size);                                                       \
		size += td_part((count) * sizeof(type));                                                   \
	} while (0)

	for (i = 0; i < TD_N_SCORERS; i++)
	{
		TD_PLACE(outcomes[i].hits, td_hit, n_rows * TD_TUNE_DEPTH);
		TD_PLACE(outcomes[i].own, float, n_rows);
	}
	TD_PLACE(left.owner, uint32_t, n_rows);
	TD_PLACE(left.order, uint32_t, n_rows);
	TD_PLACE(left.values, double, 2 * n_rows);
	TD_PLACE(left.answered, uint32_t, n_rows);
	TD_PLACE(left.score, float, n_rows);
	TD_PLACE(left.counts, uint32_t, 4 * n_routes);
	TD_PLACE(centroid_rows, int8_t, n_routes *dim);
	TD_PLACE(centroid_scales, float, n_routes);
	TD_PLACE(reports, td_route_report, n_routes);
	TD_PLACE(scores, float, 3 * n_routes);
	TD_PLACE(sum, double, dim);
	TD_PLACE(rest, float, dim);
	TD_PLACE(rest_row, int8_t, dim);
	TD_PLACE(wide, int16_t, dim);
	TD_PLACE(centroid_work, void *, td_routes_centroids_scratch_size(routes) / sizeof(void *) + 1);
#undef TD_PLACE
	if (wants_ridge(routes, options))
	{
		if (s != NULL)
			s->ridge = at + size;
		size += td_ridge_size(routes);
	}
	return size;
}

size_t
td_tune_size(const td_routes *routes, const td_tune_options *options)
{
	return lay_out(routes, options, NULL);
}

/* Written so that NaN, which stands for "not wanted", passes. */
static int
bad_share(double share)
{
	return share < 0.0 || share > 1.0;
}

td_status
td_tune_begin(const td_routes *routes, const td_tune_options *options, void *state, size_t size)
{
	tune *s = state;
	td_status status;
	uint32_t r;
	uint32_t i;

	if (routes->dim == 0 || routes->dim > TD_ROUTES_MAX_DIM || routes->scorer >= TD_N_SCORERS ||
		(options->scorer != TD_NONE && options->scorer >= TD_N_SCORERS) ||
		bad_share(options->precision) || bad_share(options->coverage) ||
		(!isnan(options->precision) && !isnan(options->coverage)))
		return TD_ERR_SHAPE;
	if (size < td_tune_size(routes, options))
		return TD_ERR_BUFFER;

	memset(s, 0, sizeof(*s));
	s->routes = routes;
	s->options = *options;
	s->with_ridge = wants_ridge(routes, options);
	s->before = usable(s, routes->scorer) ? routes->scorer : (uint32_t) TD_SCORER_NEAREST;
	s->summed = TD_NONE;
	(void) lay_out(routes, options, s);
	s->left.routes = routes;
	for (r = 0; r < routes->n_routes; r++)
	{
		const td_route *route = &routes->routes[r];

		for (i = 0; i < route->n_rows; i++)
			s->left.owner[route->first_row + i] = r;
		if (route->n_rows >= 2)
			s->result.n_left_out += route->n_rows;
	}
	status = td_routes_centroids(routes, s->centroid_rows, s->centroid_scales, s->centroid_work,
								 td_routes_centroids_scratch_size(routes));
	if (s->ridge != NULL && status == TD_OK)
		status = td_ridge_begin(routes, s->ridge, td_ridge_size(routes));
	return status;
}

/* ---------------------------------------------------------------- outcomes */

/* The best of the scores, equals by route number, and the score of the utterance's own route. */
static void
keep_outcome(tune *s, td_scorer scorer, uint32_t q, const float *scores)
{
	td_hit *hits = s->outcomes[scorer].hits + (size_t) q * TD_TUNE_DEPTH;
	uint32_t n = 0;
	uint32_t r;
	uint32_t at;

	for (r = 0; r < s->routes->n_routes; r++)
	{
		/* Also what is -INFINITY is no hit. */
		if (!(scores[r] > -INFINITY) ||
			(n == TD_TUNE_DEPTH && scores[r] <= hits[TD_TUNE_DEPTH - 1].score))
			continue;
		if (n < TD_TUNE_DEPTH)
			n++;
		for (at = n - 1; at > 0 && scores[r] > hits[at - 1].score; at--)
			hits[at] = hits[at - 1];
		hits[at].route = r;
		hits[at].score = scores[r];
	}
	for (at = n; at < TD_TUNE_DEPTH; at++)
	{
		hits[at].route = TD_NONE;
		hits[at].score = -INFINITY;
	}
	s->outcomes[scorer].own[q] = scores[s->left.owner[q]];
}

/* Utterance q as a query. */
static td_query
query_of(tune *s, uint32_t q)
{
	const td_routes *routes = s->routes;

	return td_query_of_row(routes->level, routes->rows + (size_t) q * routes->dim,
						   routes->scales[q], routes->dim, s->wide);
}

/* The cosine of utterance q and the centroid of the others of its route, made as those are. */
static float
centroid_without(tune *s, uint32_t q, const td_query *query)
{
	const td_routes *routes = s->routes;
	const size_t dim = routes->dim;
	uint32_t own = s->left.owner[q];
	const td_route *route = &routes->routes[own];
	float scale;
	size_t i;
	size_t j;

	if (s->summed != own)
	{
		memset(s->sum, 0, dim * sizeof(double));
		for (i = route->first_row; i < route->first_row + route->n_rows; i++)
			for (j = 0; j < dim; j++)
				s->sum[j] += (double) routes->scales[i] * routes->rows[i * dim + j];
		s->summed = own;
	}
	for (j = 0; j < dim; j++)
		s->rest[j] = (float) (s->sum[j] - (double) query->operand.scale * query->operand.wide[j]);
	(void) td_vec_normalise(s->rest, dim);
	scale = td_vec_quantise(s->rest, dim, s->rest_row);
	return td_query_cosine(query, s->rest_row, &scale, 0, dim);
}

static void
begin_products(const tune *s, const td_query *query, td_products *rows, td_products *negatives)
{
	const td_routes *routes = s->routes;

	td_products_begin(rows, query, routes->rows, routes->scales, routes->n_rows, routes->dim);
	td_products_begin(negatives, query, routes->negative_rows, routes->negative_scales,
					  routes->n_negatives, routes->dim);
}

static void
cosine_outcomes(tune *s, uint32_t q)
{
	const td_routes *routes = s->routes;
	const td_query query = query_of(s, q);
	td_products rows;
	td_products negatives;
	td_products centroids;
	float *nearest_scores = s->scores;
	float *top3_scores = s->scores + routes->n_routes;
	float *centroid_scores = s->scores + 2 * (size_t) routes->n_routes;
	uint32_t r;

	begin_products(s, &query, &rows, &negatives);
	td_products_begin(&centroids, &query, s->centroid_rows, s->centroid_scales, routes->n_routes,
					  routes->dim);
	for (r = 0; r < routes->n_routes; r++)
	{
		const td_route *route = &routes->routes[r];
		int own = r == s->left.owner[q];
		td_nearest nearest;
		float centroid;
		float less;

		td_routes_nearest(&rows, route->first_row, route->n_rows, q, &nearest);
		nearest_scores[r] = top3_scores[r] = centroid_scores[r] = -INFINITY;
		if (nearest.n == 0)
			continue;
		centroid = own ? centroid_without(s, q, &query) : td_as_cosine(td_product(&centroids, r));
		less = td_routes_less_negatives(routes, r, &negatives, nearest.cosine[0], 0.0f);
		nearest_scores[r] = nearest.cosine[0] + less;
		top3_scores[r] = td_nearest_mean(&nearest) + less;
		centroid_scores[r] = centroid + less;
	}
	keep_outcome(s, TD_SCORER_NEAREST, q, nearest_scores);
	keep_outcome(s, TD_SCORER_TOP3, q, top3_scores);
	keep_outcome(s, TD_SCORER_CENTROID, q, centroid_scores);
}

static void
ridge_outcome(tune *s, uint32_t q)
{
	const td_routes *routes = s->routes;
	const td_query query = query_of(s, q);
	td_products rows;
	td_products negatives;
	uint32_t r;

	begin_products(s, &query, &rows, &negatives);
	td_ridge_leave_out(s->ridge, q, s->left.owner[q], &query, s->scores);
	for (r = 0; r < routes->n_routes; r++)
	{
		const td_route *route = &routes->routes[r];
		td_nearest nearest;

		if (route->n_rows == 0)
			s->scores[r] = -INFINITY;
		if (route->n_negatives == 0 || route->n_rows == 0)
			continue;
		rows.end = (size_t) route->first_row + route->n_rows;
		td_routes_nearest(&rows, route->first_row, route->n_rows, q, &nearest);
		s->scores[r] =
			td_routes_less_negatives(routes, r, &negatives, nearest.cosine[0], s->scores[r]);
	}
	keep_outcome(s, TD_SCORER_RIDGE, q, s->scores);
}

/* ---------------------------------------------------------------- steps */

static int
can_learn(const tune *s)
{
	return s->result.n_left_out >= LEAST_LEFT_OUT && s->routes->n_routes >= 2;
}

static void
set_thresholds(tune *s, const td_outcomes *chosen)
{
	if (!isnan(s->options.precision))
		td_tune_for_precision(&s->left, chosen, s->options.precision, s->reports);
	else if (!isnan(s->options.coverage))
		td_tune_for_coverage(&s->left, chosen, s->options.coverage, s->reports);
	else if (s->result.scorer != s->before)
		td_tune_carry_over(&s->left, &s->outcomes[s->before], chosen, s->reports);
}

static void
learn(tune *s)
{
	const td_routes *routes = s->routes;
	td_tune_result *result = &s->result;
	const td_outcomes *chosen;
	uint32_t i;

	result->scorer = usable(s, s->options.scorer) ? s->options.scorer : s->before;
	result->mu = routes->mu;
	result->s = routes->s;
	for (i = 0; i < TD_N_SCORERS; i++)
		result->accuracy[i] = usable(s, i) ? td_tune_accuracy(&s->left, &s->outcomes[i]) : NAN;
	if (can_learn(s) && s->options.scorer == TD_NONE)
	{
		/* The first of equals: they stand in the order of their costs. */
		result->scorer = TD_SCORER_NEAREST;
		for (i = 1; i < TD_N_SCORERS; i++)
		{
			if (result->accuracy[i] > result->accuracy[result->scorer])
				result->scorer = i;
		}
	}
	chosen = &s->outcomes[result->scorer];
	if (can_learn(s))
		result->fitted = (uint32_t) td_tune_confidence(&s->left, chosen, &result->mu, &result->s);
	if (!result->fitted && s->options.scorer == TD_NONE)
	{
		result->scorer = s->before;
		chosen = &s->outcomes[s->before];
	}

	for (i = 0; i < routes->n_routes; i++)
		s->reports[i].threshold = routes->routes[i].threshold;
	/* Thresholds from a handful of outcomes would be worse than those that are there. */
	if (result->fitted)
		set_thresholds(s, chosen);
	td_tune_describe(&s->left, chosen, s->reports);
	for (i = 0; i < routes->n_routes; i++)
	{
		if (s->reports[i].precision < s->options.precision ||
			s->reports[i].coverage < s->options.coverage)
			result->n_short++;
	}
}

/* Make the outcomes of a few queries; the phase is over when all have been made. */
static void
make_outcomes(tune *s, void (*make)(tune *, uint32_t), double cost)
{
	double done = 0.0;

	for (; s->next < s->routes->n_rows && done < STEP; s->next++, done += cost)
		make(s, s->next);
	if (s->next == s->routes->n_rows)
	{
		s->phase++;
		s->next = 0;
	}
}

td_status
td_tune_step(void *state, uint32_t *more)
{
	tune *s = state;
	const double m = td_ridge_landmarks(s->routes);
	td_status status = TD_OK;
	uint32_t fitting;

	switch (s->phase)
	{
		case COSINES:
			make_outcomes(s, cosine_outcomes,
						  ((double) s->routes->n_rows + s->routes->n_routes) * s->routes->dim + 1);
			break;
		case FIT:
			fitting = 0;
			if (s->with_ridge)
				status = td_ridge_step(s->ridge, &fitting);
			if (!fitting)
				s->phase++;
			break;
		case RIDGE:
			if (s->with_ridge)
				make_outcomes(s, ridge_outcome,
							  m * (m / 2 + s->routes->n_routes + s->routes->dim) + 1);
			else
				s->phase++;
			break;
		case LEARN:
			learn(s);
			s->phase++;
			break;
		default:
			break;
	}
	*more = s->phase != DONE;
	return status;
}

void
td_tune_report(const void *state, td_tune_result *result, td_route_report *reports)
{
	const tune *s = state;

	*result = s->result;
	memcpy(reports, s->reports, s->routes->n_routes * sizeof(td_route_report));
}

const float *
td_tune_weights(const void *state)
{
	const tune *s = state;

	return s->with_ridge ? td_ridge_weights(s->ridge) : NULL;
}
