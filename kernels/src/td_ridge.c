/*
 * td_ridge.c - kernel ridge regression from utterances to routes, in closed form.
 *
 * In: the quantised utterances of every route.  Out: one weight for each route and landmark, and
 * what the regression would say of an utterance that it had not seen.  Called by both shells for a
 * registry whose scorer is "ridge", and by td_tune.c.
 *
 * Everything follows from M, the inverse of the Cholesky factor of the system's matrix A, which is
 * built row by row in place of A: with l = M a for the next row a of A and d^2 = A_ii - l.l, the
 * next row of M is (-l'M, 1) / d.  Then the weights are M'M b, and A^-1 has the diagonal that
 * leave-one-out needs.  Sums are double, in a fixed order.
 */
#include <math.h>
#include <string.h>

#include "td_math.h"
#include "td_routes.h"

/*
 * exp(-GAMMA (1 - cosine)) and a penalty of LAMBDA.  Of gamma 2, 4, 6, 8, 12 and lambda 0.03, 0.1,
 * 0.3, few-shot accuracy on CLINC150 and Banking77 differed by less than 0.3 points between gamma 2
 * and 4 and between the lambdas, and fell above gamma 6.
 */
#define GAMMA 3.0f
#define LAMBDA 0.1

/* A request costs landmarks * (dim + n_routes) products: at most this many, some 0.1 ms. */
#define MAX_PRODUCTS 1048576u

#define LANES 8

/* Utterances whose products are added to A together, to read A less often. */
#define BLOCK 8

/* Products done in one step, a few milliseconds. */
#define STEP 8000000.0

enum
{
	GRAM, /* A, and for a sampled fit b */
	FACTOR,
	SOLVE,
	DIAGONAL,
	DONE
};

typedef struct ridge
{
	const td_routes *routes;
	uint32_t n_landmarks;
	uint32_t exact; /* every utterance is a landmark */
	uint32_t phase;
	uint32_t next;	  /* row or route to go on with */
	uint32_t route;	  /* of row next, in phase GRAM */
	double *a;		  /* [n_landmarks][n_landmarks], lower triangle: A, then M */
	double *b;		  /* [n_routes][n_landmarks], sampled: sums of features */
	double *work;	  /* [2][n_landmarks] */
	double *diagonal; /* [n_landmarks] of A^-1, exact */
	float *weights;	  /* [n_routes][n_landmarks] */
	float *features;  /* [BLOCK][n_landmarks] */
	int16_t *wide;	  /* [dim] */
} ridge;

uint32_t
td_ridge_landmarks(const td_routes *routes)
{
	uint64_t most = MAX_PRODUCTS / ((uint64_t) routes->dim + routes->n_routes);
	uint64_t n = routes->n_rows;

	if (n > TD_RIDGE_EXACT || n > most)
		n = n < TD_RIDGE_SAMPLED ? n : TD_RIDGE_SAMPLED;
	if (n > most)
		n = most;
	/* More routes than that are not told apart by so few landmarks. */
	return (uint32_t) n;
}

/* Landmark number i of n, evenly spaced: utterances stand by route, so each route has its share. */
static size_t
landmark_row(const td_routes *routes, uint32_t i, uint32_t n)
{
	return (size_t) ((uint64_t) i * routes->n_rows / n);
}

void
td_ridge_features(const td_routes *routes, const td_query *query, uint32_t n_landmarks,
				  float *features)
{
	td_products products;
	uint32_t i;

	td_products_begin(&products, query, routes->rows, routes->scales, routes->n_rows, routes->dim);
	for (i = 0; i < n_landmarks; i++)
	{
		size_t row = landmark_row(routes, i, n_landmarks);

		/* Where landmarks are a sample, those between them are not wanted. */
		if (n_landmarks < routes->n_rows)
			products.end = row + 1;
		features[i] = td_as_cosine(td_product(&products, row));
	}
	/* In a loop of its own, which is vectorised. */
	for (i = 0; i < n_landmarks; i++)
		features[i] = td_exp_minus(GAMMA * (1.0f - features[i]));
}

uint64_t
td_routes_fingerprint(const td_routes *routes)
{
	const float constants[2] = {GAMMA, (float) LAMBDA};
	uint64_t hash = td_hash64(constants, sizeof(constants), td_ridge_landmarks(routes));
	uint32_t r;

	hash = td_hash64(routes->rows, (size_t) routes->n_rows * routes->dim, hash);
	hash = td_hash64(routes->scales, routes->n_rows * sizeof(float), hash);
	for (r = 0; r < routes->n_routes; r++)
		hash = td_hash64(&routes->routes[r].n_rows, sizeof(uint32_t), hash);
	return hash;
}

/* ---------------------------------------------------------------- sums */

static double
dot(const double *a, const double *b, size_t n)
{
	double lane[LANES] = {0.0};
	size_t whole = n - n % LANES;
	size_t i;
	size_t l;

	for (i = 0; i < whole; i += LANES)
		for (l = 0; l < LANES; l++)
			lane[l] += a[i + l] * b[i + l];
	for (l = 0; i + l < n; l++)
		lane[l] += a[i + l] * b[i + l];
	return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
		   ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* y += factor * x */
static void
add_scaled(double *y, double factor, const double *x, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] += factor * x[i];
}

/* out = M x; out may not overlap x. */
static void
multiply(const ridge *s, const double *x, double *out)
{
	size_t m = s->n_landmarks;
	size_t i;

	for (i = 0; i < m; i++)
		out[i] = dot(s->a + i * m, x, i + 1);
}

/* out = M'x */
static void
multiply_transposed(const ridge *s, const double *x, double *out)
{
	size_t m = s->n_landmarks;
	size_t i;

	memset(out, 0, m * sizeof(double));
	for (i = 0; i < m; i++)
		add_scaled(out, x[i], s->a + i * m, i + 1);
}

/* ---------------------------------------------------------------- state */

/* The parts of the state, one after the other; returns the size, and sets pointers when s is there.
 */
static size_t
lay_out(const td_routes *routes, ridge *s)
{
	size_t m = td_ridge_landmarks(routes);
	size_t n_routes = routes->n_routes;
	int exact = m == routes->n_rows;
	size_t size = td_part(sizeof(ridge));
	char *at = (char *) s;

#define TD_PLACE(field, type, count)                                                               \
	do                                                                                             \
	{                                                                                              \
		if (s != NULL)                                                                             \
			s->field = (type *) (at + size);                                                       \
		size += td_part((count) * sizeof(type));                                                   \
	} while (0)

	TD_PLACE(a, double, m *m);
	TD_PLACE(b, double, exact ? 0 : n_routes * m);
	TD_PLACE(work, double, 2 * m);
	TD_PLACE(diagonal, double, exact ? m : 0);
	TD_PLACE(weights, float, n_routes *m);
	TD_PLACE(features, float, BLOCK *m);
	TD_PLACE(wide, int16_t, routes->dim);
#undef TD_PLACE
	return size;
}

size_t
td_ridge_size(const td_routes *routes)
{
	return lay_out(routes, NULL);
}

td_status
td_ridge_begin(const td_routes *routes, void *state, size_t size)
{
	ridge *s = state;

	if (routes->dim == 0 || routes->dim > TD_ROUTES_MAX_DIM || td_ridge_landmarks(routes) == 0)
		return TD_ERR_SHAPE;
	if (size < td_ridge_size(routes))
		return TD_ERR_BUFFER;
	memset(s, 0, sizeof(*s));
	s->routes = routes;
	s->n_landmarks = td_ridge_landmarks(routes);
	s->exact = s->n_landmarks == routes->n_rows;
	(void) lay_out(routes, s);
	if (!s->exact)
	{
		memset(s->a, 0, sizeof(double) * s->n_landmarks * s->n_landmarks);
		memset(s->b, 0, sizeof(double) * s->n_landmarks * routes->n_routes);
	}
	return TD_OK;
}

/* Utterance i as a query. */
static td_query
query_of_row(ridge *s, uint32_t i)
{
	const td_routes *routes = s->routes;

	return td_query_of_row(routes->level, routes->rows + (size_t) i * routes->dim,
						   routes->scales[i], routes->dim, s->wide);
}

/* ---------------------------------------------------------------- steps */

/* Row i of A in the exact fit: kernel values, with the penalty on the diagonal. */
static void
exact_row(ridge *s, uint32_t i)
{
	double *row = s->a + (size_t) i * s->n_landmarks;
	const td_query query = query_of_row(s, i);
	uint32_t j;

	td_ridge_features(s->routes, &query, s->n_landmarks, s->features);
	for (j = 0; j <= i; j++)
		row[j] = s->features[j];
	row[i] += LAMBDA;
}

/* Add the products of the features of utterances first .. first + n - 1 to A, themselves to b. */
static void
sampled_rows(ridge *s, uint32_t first, uint32_t n)
{
	const size_t m = s->n_landmarks;
	uint32_t k;
	size_t i;
	size_t j;

	for (k = 0; k < n; k++)
	{
		const td_route *route = &s->routes->routes[s->route];
		const td_query query = query_of_row(s, first + k);
		float *features = s->features + k * m;
		double *sum;

		while (first + k >= route->first_row + route->n_rows)
			route = &s->routes->routes[++s->route];
		sum = s->b + s->route * m;
		td_ridge_features(s->routes, &query, s->n_landmarks, features);
		for (j = 0; j < m; j++)
			sum[j] += features[j];
	}
	for (; k < BLOCK; k++)
		memset(s->features + k * m, 0, m * sizeof(float));
	for (i = 0; i < m; i++)
	{
		double *row = s->a + i * m;
		const float *f = s->features;
		double c[BLOCK];

		for (k = 0; k < BLOCK; k++)
			c[k] = f[k * m + i];
		for (j = 0; j <= i; j++)
			row[j] +=
				((c[0] * f[j] + c[1] * f[m + j]) + (c[2] * f[2 * m + j] + c[3] * f[3 * m + j])) +
				((c[4] * f[4 * m + j] + c[5] * f[5 * m + j]) +
				 (c[6] * f[6 * m + j] + c[7] * f[7 * m + j]));
	}
}

/* Row i of A becomes row i of M. */
static void
factor_row(ridge *s, uint32_t i)
{
	const size_t m = s->n_landmarks;
	double *row = s->a + i * m;
	double *l = s->work;
	double *sum = s->work + m;
	double square;
	double inverse;
	uint32_t j;

	if (!s->exact)
		row[i] += LAMBDA;
	for (j = 0; j < i; j++)
		l[j] = dot(s->a + j * m, row, j + 1);
	square = row[i] - dot(l, l, i);
	/* At least LAMBDA but for rounding. */
	inverse = 1.0 / sqrt(square > LAMBDA / 1024 ? square : LAMBDA / 1024);
	memset(sum, 0, i * sizeof(double));
	for (j = 0; j < i; j++)
		add_scaled(sum, l[j], s->a + j * m, j + 1);
	for (j = 0; j < i; j++)
		row[j] = -sum[j] * inverse;
	row[i] = inverse;
}

/* The weights of route r: M'M b, where b of an exact fit is 1 for its utterances and 0 elsewhere.
 */
static void
solve_route(ridge *s, uint32_t r)
{
	const size_t m = s->n_landmarks;
	const td_route *route = &s->routes->routes[r];
	double *z = s->work;
	double *w = s->work + m;
	float *weights = s->weights + r * m;
	size_t i;
	uint32_t j;

	if (s->exact)
	{
		for (i = 0; i < m; i++)
		{
			const double *row = s->a + i * m;

			z[i] = 0.0;
			for (j = route->first_row; j < route->first_row + route->n_rows && j <= i; j++)
				z[i] += row[j];
		}
	}
	else
		multiply(s, s->b + r * m, z);
	multiply_transposed(s, z, w);
	for (i = 0; i < m; i++)
		weights[i] = (float) w[i];
}

/* The diagonal of A^-1 = M'M. */
static void
find_diagonal(ridge *s)
{
	const size_t m = s->n_landmarks;
	size_t i;
	size_t j;

	memset(s->diagonal, 0, m * sizeof(double));
	for (i = 0; i < m; i++)
		for (j = 0; j <= i; j++)
			s->diagonal[j] += s->a[i * m + j] * s->a[i * m + j];
}

/* Do one piece of the phase, and say what it cost; next is where the phase goes on. */
static double
work_piece(ridge *s, uint32_t *end)
{
	const double m = s->n_landmarks;
	uint32_t n;

	switch (s->phase)
	{
		case GRAM:
			*end = s->routes->n_rows;
			if (s->exact)
			{
				exact_row(s, s->next++);
				return m * s->routes->dim / 4;
			}
			n = *end - s->next < BLOCK ? *end - s->next : BLOCK;
			sampled_rows(s, s->next, n);
			s->next += n;
			return BLOCK * m * (m / 2 + s->routes->dim / 4.0);
		case FACTOR:
			*end = s->n_landmarks;
			n = s->next++;
			factor_row(s, n);
			return (double) n * n;
		case SOLVE:
			*end = s->routes->n_routes;
			solve_route(s, s->next++);
			return m * m;
		default:
			*end = 1;
			if (s->exact)
				find_diagonal(s);
			s->next++;
			return m * m / 2;
	}
}

td_status
td_ridge_step(void *state, uint32_t *more)
{
	ridge *s = state;
	double done = 0.0;

	while (s->phase != DONE && done < STEP)
	{
		uint32_t end = 0;

		done += work_piece(s, &end);
		if (s->next >= end)
		{
			s->phase++;
			s->next = 0;
		}
	}
	*more = s->phase != DONE;
	return TD_OK;
}

const float *
td_ridge_weights(const void *state)
{
	return ((const ridge *) state)->weights;
}

/* ---------------------------------------------------------------- what it says */

void
td_ridge_leave_out(void *state, uint32_t row, uint32_t own, const td_query *query, float *scores)
{
	ridge *s = state;
	const size_t m = s->n_landmarks;
	double *features = s->work;
	double *z = s->work + m;
	double h;
	size_t i;
	uint32_t r;

	if (s->exact)
	{
		/* Without it the residual is its weight over the diagonal (equation 5.12). */
		for (r = 0; r < s->routes->n_routes; r++)
			scores[r] =
				(float) ((r == own ? 1.0 : 0.0) - s->weights[r * m + row] / s->diagonal[row]);
		return;
	}
	td_ridge_features(s->routes, query, s->n_landmarks, s->features);
	for (i = 0; i < m; i++)
		features[i] = s->features[i];
	multiply(s, features, z);
	/* Below 1 by the penalty; the limit is for rounding. */
	h = dot(z, z, m);
	h = h < 1.0 - 1e-9 ? h : 1.0 - 1e-9;
	for (r = 0; r < s->routes->n_routes; r++)
	{
		double said = td_vec_dot(s->weights + r * m, s->features, m);

		scores[r] = (float) ((said - (r == own ? h : 0.0)) / (1.0 - h));
	}
}
