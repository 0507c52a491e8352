/*
 * td_tune.h - the outcomes of leave-one-out, between the file that makes them and the one that
 * learns from them.
 *
 * Internal: td_tune.c fills a td_outcomes, td_tune_fit.c reads it.
 */
#ifndef TD_TUNE_H
#define TD_TUNE_H

#include "tinydancer.h"

/* Routes kept of each utterance: thresholds that cut more than this many better ones leave no
 * answer.
 */
#define TD_TUNE_DEPTH 8

/* A route that an utterance could go to. */
typedef struct td_hit
{
	uint32_t route; /* TD_NONE: no more */
	float score;
} td_hit;

/* Outcomes of one scorer: where each utterance would go by the others. */
typedef struct td_outcomes
{
	td_hit *hits; /* [n_rows][TD_TUNE_DEPTH], best first */
	float *own;	  /* [n_rows], the score of the utterance's own route */
} td_outcomes;

/* What the outcomes are about. */
typedef struct td_left_out
{
	const td_routes *routes;
	uint32_t *owner;	/* [n_rows], the route that the utterance belongs to */
	uint32_t *order;	/* [n_rows], to sort in */
	double *values;		/* [2][n_rows] */
	uint32_t *answered; /* [n_rows], the route that it is given, TD_NONE: none */
	float *score;		/* [n_rows], its score there */
	uint32_t *counts;	/* [4][n_routes] */
} td_left_out;

/* Whether utterance q counts: its route has others. */
static inline int
td_tune_counts(const td_left_out *left, uint32_t q)
{
	return left->routes->routes[left->owner[q]].n_rows >= 2;
}

/* Share of left-out utterances whose best route is their own; NaN when there is none. */
double td_tune_accuracy(const td_left_out *left, const td_outcomes *outcomes);

/*
 * The constants of confidence; 0 when the outcomes do not say, mu and s are untouched then.
 */
int td_tune_confidence(const td_left_out *left, const td_outcomes *outcomes, double *mu, double *s);

/* Thresholds for a wanted precision or coverage, into reports[].threshold. */
void td_tune_for_precision(td_left_out *left, const td_outcomes *outcomes, double wanted,
						   td_route_report *reports);
void td_tune_for_coverage(td_left_out *left, const td_outcomes *outcomes, double wanted,
						  td_route_report *reports);

/* The thresholds that cover what the present ones do, with the outcomes of another scorer. */
void td_tune_carry_over(td_left_out *left, const td_outcomes *before, const td_outcomes *after,
						td_route_report *reports);

/* Precision, coverage and confusion at the thresholds. */
void td_tune_describe(td_left_out *left, const td_outcomes *outcomes, td_route_report *reports);

#endif /* TD_TUNE_H */
