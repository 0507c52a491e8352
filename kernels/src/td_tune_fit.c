/*
 * td_tune_fit.c - what the outcomes of leave-one-out teach: accuracy, confidence, thresholds.
 *
 * In: for each utterance the routes that it could go to.  Out: constants and a report for each
 * route. Called by td_tune.c.
 */
#include <math.h>
#include <string.h>

#include "td_math.h"
#include "td_tune.h"

/* Fewer right or wrong answers than this say too little of where wrong becomes right. */
#define LEAST_OF_A_KIND 5

/* Newton's method on a convex function of two variables; stops far earlier. */
#define MAX_ROUNDS 100

/* A threshold that nothing seen so far reaches: this far above the greatest score. */
#define ABOVE 0x1p-16f

double
td_tune_accuracy(const td_left_out *left, const td_outcomes *outcomes)
{
	uint32_t n = 0;
	uint32_t right = 0;
	uint32_t q;

	for (q = 0; q < left->routes->n_rows; q++)
	{
		if (!td_tune_counts(left, q))
			continue;
		n++;
		right += outcomes->hits[(size_t) q * TD_TUNE_DEPTH].route == left->owner[q];
	}
	return n > 0 ? (double) right / n : NAN;
}

/* ---------------------------------------------------------------- confidence */

/* The gradient and the Hessian of the loss of logistic(a x + b) against targets t. */
typedef struct slope
{
	double a;
	double b;
	double aa;
	double ab;
	double bb;
} slope;

static slope
slope_at(const double *x, const double *t, uint32_t n, double a, double b)
{
	/* A weak pull to 0 keeps the Hessian regular where all scores are equal. */
	slope s = {1e-9 * a, 1e-9 * b, 1e-9, 0.0, 1e-9};
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		double p = 1.0 / (1.0 + td_exp(-(a * x[i] + b)));
		double weight = p * (1.0 - p);

		s.a += (p - t[i]) * x[i];
		s.b += p - t[i];
		s.aa += weight * x[i] * x[i];
		s.ab += weight * x[i];
		s.bb += weight;
	}
	return s;
}

static double
steepness(slope s)
{
	return s.a * s.a + s.b * s.b;
}

/*
 * Platt's fit: logistic((x - mu) / s) to outcomes whose t is 1 or 0, with his targets.  0 when the
 * scores do not rise with the outcomes.  x and t are overwritten.
 */
static int
fit_logistic(double *x, double *t, uint32_t n, double *mu, double *s)
{
	double right = 0.0;
	double mean = 0.0;
	double spread = 0.0;
	double a = 0.0;
	double b = 0.0;
	slope here;
	uint32_t i;
	int round;

	for (i = 0; i < n; i++)
	{
		right += t[i];
		mean += x[i];
	}
	mean /= n;
	for (i = 0; i < n; i++)
		spread += (x[i] - mean) * (x[i] - mean);
	spread = sqrt(spread / n);
	if (!(spread > 0.0))
		return 0;
	for (i = 0; i < n; i++)
	{
		x[i] = (x[i] - mean) / spread;
		t[i] = t[i] > 0.5 ? (right + 1.0) / (right + 2.0) : 1.0 / (n - right + 2.0);
	}

	here = slope_at(x, t, n, a, b);
	for (round = 0; round < MAX_ROUNDS; round++)
	{
		double determinant = here.aa * here.bb - here.ab * here.ab;
		double step_a = (here.bb * here.a - here.ab * here.b) / determinant;
		double step_b = (here.aa * here.b - here.ab * here.a) / determinant;
		double factor = 1.0;
		slope there = here;

		/* A whole step may overshoot where the function is flat. */
		for (; factor > 1e-6; factor /= 2.0)
		{
			there = slope_at(x, t, n, a - factor * step_a, b - factor * step_b);
			if (steepness(there) < steepness(here))
				break;
		}
		if (!(factor > 1e-6))
			break;
		a -= factor * step_a;
		b -= factor * step_b;
		here = there;
	}
	if (!(a > 1e-3))
		return 0;
	*s = spread / a;
	*mu = mean - b * spread / a;
	return 1;
}

int
td_tune_confidence(const td_left_out *left, const td_outcomes *outcomes, double *mu, double *s)
{
	double *x = left->values;
	double *t = left->values + left->routes->n_rows;
	uint32_t n = 0;
	uint32_t right = 0;
	uint32_t q;

	for (q = 0; q < left->routes->n_rows; q++)
	{
		const td_hit *best = outcomes->hits + (size_t) q * TD_TUNE_DEPTH;

		if (!td_tune_counts(left, q) || best->route == TD_NONE)
			continue;
		x[n] = best->score;
		t[n] = best->route == left->owner[q];
		right += t[n] > 0.5;
		n++;
	}
	if (right >= LEAST_OF_A_KIND && n - right >= LEAST_OF_A_KIND && fit_logistic(x, t, n, mu, s))
		return 1;

	/*
	 * Nearly all right, say: then every other utterance speaks for its own route, and the next one
	 * for the best of the wrong ones.
	 */
	n = 0;
	for (q = 0; q < left->routes->n_rows; q++)
	{
		const td_hit *hits = outcomes->hits + (size_t) q * TD_TUNE_DEPTH;
		const td_hit *other = hits[0].route == left->owner[q] ? hits + 1 : hits;
		int own = q % 2 == 0;

		if (!td_tune_counts(left, q) ||
			(own ? !(outcomes->own[q] > -INFINITY) : other->route == TD_NONE))
			continue;
		x[n] = own ? outcomes->own[q] : other->score;
		t[n++] = own;
	}
	return n >= 2 ? fit_logistic(x, t, n, mu, s) : 0;
}

/* ---------------------------------------------------------------- thresholds */

/* Whether utterance a goes before b: greater score first. */
static int
goes_before(const float *score, uint32_t a, uint32_t b)
{
	return score[a] != score[b] ? score[a] > score[b] : a < b;
}

static void
sift_down(const float *score, uint32_t *order, uint32_t root, uint32_t n)
{
	for (;;)
	{
		uint32_t child = 2 * root + 1;
		uint32_t held;

		if (child >= n)
			return;
		if (child + 1 < n && goes_before(score, order[child], order[child + 1]))
			child++;
		if (!goes_before(score, order[root], order[child]))
			return;
		held = order[root];
		order[root] = order[child];
		order[child] = held;
		root = child;
	}
}

/* Put the n utterances of order into the order of their scores, greatest first. */
static void
sort_utterances(const float *score, uint32_t *order, uint32_t n)
{
	uint32_t i;

	for (i = n / 2; i-- > 0;)
		sift_down(score, order, i, n);
	for (i = n; i-- > 1;)
	{
		uint32_t last = order[0];

		order[0] = order[i];
		order[i] = last;
		sift_down(score, order, 0, i);
	}
}

/*
 * The route that each utterance is given at the thresholds, into answered and score, and in order
 * those that are given one, greatest score first.
 */
static uint32_t
answer(td_left_out *left, const td_outcomes *outcomes, const td_route_report *reports)
{
	uint32_t n = 0;
	uint32_t q;
	unsigned i;

	for (q = 0; q < left->routes->n_rows; q++)
	{
		const td_hit *hits = outcomes->hits + (size_t) q * TD_TUNE_DEPTH;

		left->answered[q] = TD_NONE;
		if (!td_tune_counts(left, q))
			continue;
		for (i = 0; i < TD_TUNE_DEPTH && hits[i].route != TD_NONE; i++)
		{
			if (hits[i].score >= reports[hits[i].route].threshold)
				break;
		}
		if (i == TD_TUNE_DEPTH || hits[i].route == TD_NONE)
			continue;
		left->answered[q] = hits[i].route;
		left->score[q] = hits[i].score;
		left->order[n++] = q;
	}
	sort_utterances(left->score, left->order, n);
	return n;
}

static int
is_right(const td_left_out *left, uint32_t q)
{
	return left->answered[q] == left->owner[q];
}

/*
 * One round: each route's threshold rises to the least score at which its precision, judged with
 * that of all routes, is what is wanted.  Whether any rose.
 */
static int
raise_thresholds(td_left_out *left, uint32_t n, double wanted, td_route_report *reports)
{
	const uint32_t n_routes = left->routes->n_routes;
	uint32_t *given = left->counts;
	uint32_t *right = left->counts + n_routes;
	uint32_t *reached = left->counts + 2 * (size_t) n_routes;
	float *least = (float *) (left->counts + 3 * (size_t) n_routes);
	uint32_t all_right = 0;
	float pooled = INFINITY;
	int rose = 0;
	uint32_t i;

	memset(left->counts, 0, 4 * (size_t) n_routes * sizeof(uint32_t));
	for (i = 0; i < n; i++)
	{
		uint32_t q = left->order[i];
		uint32_t r = left->answered[q];
		double precision;

		given[r]++;
		right[r] += is_right(left, q);
		all_right += is_right(left, q);
		precision = (double) all_right / (i + 1);
		if (precision >= wanted)
			pooled = left->score[q];
		if (given[r] == 1)
			least[r] = left->score[q] + ABOVE;
		if (right[r] + TD_TUNE_POOLED * precision >= wanted * (given[r] + TD_TUNE_POOLED))
		{
			reached[r] = 1;
			least[r] = left->score[q];
		}
	}
	for (i = 0; i < n_routes; i++)
	{
		float threshold = given[i] > 0 ? least[i] : pooled;

		if (threshold < INFINITY && threshold > reports[i].threshold)
		{
			reports[i].threshold = threshold;
			rose = 1;
		}
	}
	return rose;
}

static void
no_thresholds(const td_left_out *left, td_route_report *reports)
{
	uint32_t i;

	for (i = 0; i < left->routes->n_routes; i++)
		reports[i].threshold = -INFINITY;
}

void
td_tune_for_precision(td_left_out *left, const td_outcomes *outcomes, double wanted,
					  td_route_report *reports)
{
	int round;

	/* What one route no longer takes may go to the next, whose precision falls: hence again. */
	no_thresholds(left, reports);
	for (round = 0; round < MAX_ROUNDS; round++)
	{
		if (!raise_thresholds(left, answer(left, outcomes, reports), wanted, reports))
			return;
	}
}

/* The number of a share of n, from above; rounding must not ask for one more than a share can be.
 */
static uint32_t
share_of(double share, uint32_t n)
{
	return (uint32_t) ceil(share * n - 1e-9);
}

void
td_tune_for_coverage(td_left_out *left, const td_outcomes *outcomes, double wanted,
					 td_route_report *reports)
{
	const uint32_t n_routes = left->routes->n_routes;
	uint32_t *needed = left->counts;
	uint32_t *taken = left->counts + n_routes;
	float *found = (float *) (left->counts + 2 * (size_t) n_routes);
	uint32_t n;
	uint32_t i;

	no_thresholds(left, reports);
	n = answer(left, outcomes, reports);
	memset(left->counts, 0, 4 * (size_t) n_routes * sizeof(uint32_t));
	for (i = 0; i < n_routes; i++)
	{
		needed[i] = share_of(wanted, left->routes->routes[i].n_rows);
		found[i] = needed[i] == 0 ? 1.0f : -INFINITY;
	}
	for (i = 0; i < n; i++)
	{
		uint32_t q = left->order[i];
		uint32_t r = left->answered[q];

		if (is_right(left, q) && ++taken[r] == needed[r])
			found[r] = left->score[q];
	}
	for (i = 0; i < n_routes; i++)
		reports[i].threshold = found[i];
}

void
td_tune_carry_over(td_left_out *left, const td_outcomes *before, const td_outcomes *after,
				   td_route_report *reports)
{
	const uint32_t n_routes = left->routes->n_routes;
	uint32_t *passed = left->counts;
	uint32_t *taken = left->counts + n_routes;
	uint32_t n = 0;
	uint32_t q;
	uint32_t i;

	memset(left->counts, 0, 4 * (size_t) n_routes * sizeof(uint32_t));
	for (q = 0; q < left->routes->n_rows; q++)
	{
		uint32_t r = left->owner[q];

		/* Without another utterance there is nothing to carry it over by. */
		if (!td_tune_counts(left, q) || !(reports[r].threshold > -INFINITY))
			continue;
		passed[r] += before->own[q] >= reports[r].threshold;
		left->order[n++] = q;
	}
	sort_utterances(after->own, left->order, n);
	for (i = 0; i < n; i++)
	{
		uint32_t r = left->owner[left->order[i]];
		float score = after->own[left->order[i]];

		taken[r]++;
		if (taken[r] == 1 && passed[r] == 0)
			reports[r].threshold = score + ABOVE;
		else if (taken[r] == passed[r])
			reports[r].threshold = score;
	}
}

/* ---------------------------------------------------------------- report */

void
td_tune_describe(td_left_out *left, const td_outcomes *outcomes, td_route_report *reports)
{
	const uint32_t n_routes = left->routes->n_routes;
	uint32_t *given = left->counts;
	uint32_t *right = left->counts + n_routes;
	uint32_t *lost = left->counts + 2 * (size_t) n_routes;
	uint32_t n = answer(left, outcomes, reports);
	uint32_t i;
	uint32_t r;

	memset(left->counts, 0, 4 * (size_t) n_routes * sizeof(uint32_t));
	for (i = 0; i < n; i++)
	{
		given[left->answered[left->order[i]]]++;
		right[left->answered[left->order[i]]] += is_right(left, left->order[i]);
	}
	for (r = 0; r < n_routes; r++)
	{
		const td_route *route = &left->routes->routes[r];
		td_route_report *report = &reports[r];
		uint32_t most = 0;

		report->confused_with = TD_NONE;
		report->confusion = 0.0;
		report->precision = given[r] > 0 ? (double) right[r] / given[r] : NAN;
		report->coverage = route->n_rows >= 2 ? (double) right[r] / route->n_rows : NAN;
		if (route->n_rows < 2)
			continue;
		/* Confusion is about the routes, whatever the thresholds. */
		for (i = route->first_row; i < route->first_row + route->n_rows; i++)
		{
			uint32_t best = outcomes->hits[(size_t) i * TD_TUNE_DEPTH].route;

			if (best != r && best != TD_NONE)
				lost[best]++;
		}
		for (i = route->first_row; i < route->first_row + route->n_rows; i++)
		{
			uint32_t best = outcomes->hits[(size_t) i * TD_TUNE_DEPTH].route;

			if (best == r || best == TD_NONE)
				continue;
			if (lost[best] > most || (lost[best] == most && best < report->confused_with))
			{
				most = lost[best];
				report->confused_with = best;
			}
		}
		for (i = route->first_row; i < route->first_row + route->n_rows; i++)
		{
			uint32_t best = outcomes->hits[(size_t) i * TD_TUNE_DEPTH].route;

			if (best != TD_NONE)
				lost[best] = 0;
		}
		report->confusion = (double) most / route->n_rows;
	}
}
