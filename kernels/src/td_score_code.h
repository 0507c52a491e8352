/*
 * td_score_code.h - what scoring does for many agents at a time, by the code of one instruction
 * set.
 *
 * Figures of a block of agents in, their fits and scores out; vectors of several requests and rows
 * of phrases in, their products out.  Internal: called by td_score.c; written once in
 * td_score_body.h and compiled by td_score_<level>.c.
 *
 * All sets give the same bits: the operations on one agent are the same everywhere, and integer
 * sums are exact.
 */
#ifndef TD_SCORE_CODE_H
#define TD_SCORE_CODE_H

#include "td_matvec.h"

/* Agents that are scored together: their figures stay in the nearest cache. */
#define TD_SCORE_BLOCK 64u

/* Arrays of numbers of agents have room for a multiple of this, and zeros behind the last. */
#define TD_SCORE_LANES 8u

/* Figures of some agents, each in an array of its own. */
typedef struct td_score_block
{
	double cost[TD_SCORE_BLOCK];	/* USD, NaN: unknown */
	double latency[TD_SCORE_BLOCK]; /* ms, NaN: unknown */
	double quality[TD_SCORE_BLOCK];
	double expected[TD_SCORE_BLOCK]; /* quality, with regard to the request */
	double fit[TD_SCORE_BLOCK];
	double score[TD_SCORE_BLOCK];
} td_score_block;

/* What is the same for every agent of a request. */
typedef struct td_score_terms
{
	td_policy policy;
	double dearest; /* USD, for agents of unknown cost */
	double slowest; /* ms, likewise */
	int predicted;	/* expected qualities are those of a model */
} td_score_terms;

typedef struct td_score_code
{
	/*
	 * fit[i] = 1 / (1 + td_exp(-(similarity[i] - mu) / s)), with td_exp's bits.  Here and below
	 * arrays are read and written up to a multiple of TD_SCORE_LANES.
	 */
	void (*fit)(const float *similarity, size_t n, double mu, double s, double *fit);

	/* The scores of the first n agents of a block from its other figures. */
	void (*score)(td_score_block *block, size_t n, const td_score_terms *terms);

	/*
	 * out[q][r] = the product of operands[q] and row r as rows_i8() of td_code works it out, for
	 * n_queries at most TD_SCORE_TOGETHER; out has n_rows columns.  packed is lent,
	 * td_score_packed_size(n) bytes, aligned to 64.
	 */
	void (*products)(const int8_t *rows, const float *scales, size_t n_rows, size_t n,
					 const td_operand *operands, size_t n_queries, void *packed, float *out);
} td_score_code;

extern const td_score_code td_score_portable;
extern const td_score_code td_score_avx2;
extern const td_score_code td_score_avx512;

static inline size_t
td_score_packed_size(size_t n)
{
	/* Of the requests, and of as many rows. */
	return 2 * ((n + 3) / 4 * 4 * TD_SCORE_TOGETHER);
}

#endif /* TD_SCORE_CODE_H */
