/*
 * td_sketch.c - the rows nearest to a query among very many, most of which are passed over.
 *
 * A float query, int8 rows and a sketch of them in, row numbers and cosines out; called by
 * kernels/_kernels.pyx for large sets.  The sketch is the sign of each element: of two unit vectors
 * at an angle, each sign differs with a chance of angle / pi (Charikar 2002), so rows of few
 * differing signs are the candidates, and their int8 products decide.
 *
 * What was passed over had at least so many differing signs; whether a row as near as the k-th
 * found could be among it is judged by that chance.  When it could, all rows are compared.
 */
#include <math.h>
#include <string.h>

#include "td_matvec.h"

/* Rows of a group, whose words stand side by side: a register of 64-bit words. */
#define GROUP TD_SKETCH_GROUP

/*
 * Candidates are as many as have this many int8 elements: the fewer signs there are, the less they
 * say.  bench/kernels.py: of 100,000 vectors of CLINC150 and Banking77 with noise, the nearest is
 * found for 99.5 % of the held-out requests with 128 dimensions, and for all of 400 with 384.
 */
#define CANDIDATE_BYTES 49152u
#define LEAST_CANDIDATES 64u

/* How many standard deviations of the count of differing signs are held to be enough. */
#define DEVIATIONS 2.5f

/* Of so many groups one is looked at first, for a limit to begin with. */
#define SAMPLED 32

typedef struct found_rows
{
	uint32_t *index;
	uint32_t *distance; /* differing signs */
	size_t n;
	size_t wanted;
	uint32_t limit;	  /* rows at or beyond it are passed over */
	uint32_t *counts; /* [dim + 1]: how many rows have which distance */
} found_rows;

static size_t
n_words(size_t dim)
{
	return (dim + 63) / 64;
}

static size_t
n_groups(size_t n_rows)
{
	return (n_rows + GROUP - 1) / GROUP;
}

size_t
td_sketch_size(size_t n_rows, size_t dim)
{
	return n_groups(n_rows) * n_words(dim) * GROUP * sizeof(uint64_t);
}

/* The signs of 64 or fewer elements, 1: negative. */
static uint64_t
signs_of(const int8_t *row, size_t n)
{
	uint64_t signs = 0;
	size_t i;

	for (i = 0; i < n; i++)
		signs |= (uint64_t) (row[i] < 0) << i;
	return signs;
}

void
td_sketch_make(const int8_t *rows, size_t n_rows, size_t dim, void *sketch)
{
	uint64_t *words = sketch;
	size_t row;
	size_t w;

	memset(sketch, 0, td_sketch_size(n_rows, dim));
	for (row = 0; row < n_rows; row++)
	{
		for (w = 0; w < n_words(dim); w++)
		{
			size_t left = dim - 64 * w;

			words[(row / GROUP * n_words(dim) + w) * GROUP + row % GROUP] =
				signs_of(rows + row * dim + 64 * w, left < 64 ? left : 64);
		}
	}
}

static size_t
n_candidates(size_t dim, size_t k)
{
	size_t n = CANDIDATE_BYTES / dim > LEAST_CANDIDATES ? CANDIDATE_BYTES / dim : LEAST_CANDIDATES;

	return n > 8 * k ? n : 8 * k;
}

/* Where things lie in the scratch. */
static size_t
lay_out(size_t dim, size_t k, char *start, found_rows *found, uint64_t **query)
{
	size_t list = 2 * n_candidates(dim, k) * sizeof(uint32_t);
	size_t at = td_operand_size(dim);

	at = (at + 63) / 64 * 64;
	if (start != NULL)
	{
		*query = (uint64_t *) (start + at);
		found->index = (uint32_t *) (start + at + n_words(dim) * sizeof(uint64_t));
		found->distance = (uint32_t *) ((char *) found->index + list);
		found->counts = (uint32_t *) ((char *) found->distance + list);
	}
	return at + n_words(dim) * sizeof(uint64_t) + 2 * list + (dim + 1) * sizeof(uint32_t);
}

size_t
td_topk_sketched_scratch_size(size_t dim, size_t k)
{
	if (dim == 0 || dim > TD_MATVEC_MAX || k > UINT32_MAX)
		return 0;
	return lay_out(dim, k, NULL, NULL, NULL);
}

/* Keep the nearest of what was found, at most as many as wanted, and pass over what is as far. */
static void
keep_nearest(found_rows *found, size_t n_rows, size_t dim)
{
	uint32_t limit = 0;
	size_t kept = 0;
	size_t i;

	memset(found->counts, 0, (dim + 1) * sizeof(uint32_t));
	for (i = 0; i < found->n; i++)
		found->counts[found->distance[i]]++;
	for (i = 0; limit < found->limit && i + found->counts[limit] <= found->wanted; limit++)
		i += found->counts[limit];
	found->limit = limit;
	for (i = 0; i < found->n; i++)
	{
		/* Behind the last row of the last group there is nothing. */
		if (found->distance[i] >= limit || found->index[i] >= n_rows)
			continue;
		found->index[kept] = found->index[i];
		found->distance[kept++] = found->distance[i];
	}
	found->n = kept;
}

/*
 * A limit that some more rows than wanted are expected to be within.  Without it each row that is
 * nearer than those before would be kept for a while: thousands.
 */
static void
begin_with_sample(const td_code *code, const void *sketch, const uint64_t *signs, size_t n_rows,
				  size_t dim, found_rows *found)
{
	size_t group;

	if (n_groups(n_rows) / SAMPLED < found->wanted / TD_SKETCH_GROUP)
		return;
	memset(found->counts, 0, (dim + 1) * sizeof(uint32_t));
	for (group = 0; group < n_groups(n_rows); group += SAMPLED)
	{
		uint32_t index[GROUP];
		uint32_t distance[GROUP];
		size_t at = group;
		size_t n = code->few_signs(sketch, n_words(dim), signs, (uint32_t) dim + 1, &at, group + 1,
								   index, distance, GROUP);

		while (n-- > 0)
			found->counts[distance[n]]++;
	}
	found->limit = 0;
	for (group = 0; group < found->wanted * 3 / 2 / SAMPLED; found->limit++)
		group += found->counts[found->limit];
}

/*
 * Whether a row as near as cosine would have been found but for a chance of some thousandths: so
 * many standard deviations lie between the differing signs expected of it and the limit.
 */
static int
is_enough(float cosine, uint32_t limit, size_t dim)
{
	float angle;
	float chance;

	if (!(cosine >= 0.0f))
		return 0;
	/* Abramowitz and Stegun 1964, 4.4.45: error at most 7e-5. */
	angle = ((-0.0187293f * cosine + 0.0742610f) * cosine - 0.2121144f) * cosine + 1.5707288f;
	chance = sqrtf(1.0f - cosine) * angle * 0.318309886f;
	return (float) limit >=
		   (float) dim * chance + DEVIATIONS * sqrtf((float) dim * chance * (1.0f - chance));
}

td_status
td_topk_sketched(uint32_t level, const float *query, const int8_t *rows, const float *scales,
				 const void *sketch, size_t n_rows, size_t dim, size_t k, uint32_t *index,
				 float *score, size_t *n_found, uint32_t *is_exact, void *scratch,
				 size_t scratch_size)
{
	const td_code *code = td_code_of(level);
	found_rows found = {NULL, NULL, 0, 0, 0, NULL};
	uint64_t *signs = NULL;
	td_operand operand;
	size_t at = 0;
	size_t w;

	if (dim == 0 || dim > TD_MATVEC_MAX || n_rows > UINT32_MAX - GROUP || k > UINT32_MAX)
		return TD_ERR_SHAPE;
	if (scratch_size < td_topk_sketched_scratch_size(dim, k))
		return TD_ERR_BUFFER;
	if (code->check(query, dim) != TD_OK)
		return TD_ERR_NONFINITE;

	*is_exact = 1;
	(void) lay_out(dim, k, scratch, &found, &signs);
	found.wanted = n_candidates(dim, k);
	found.limit = (uint32_t) dim + 1;
	code->make_operand(query, dim, scratch, &operand);
	for (w = 0; w < n_words(dim); w++)
		signs[w] = signs_of(operand.narrow + 64 * w, dim - 64 * w < 64 ? dim - 64 * w : 64);
	begin_with_sample(code, sketch, signs, n_rows, dim, &found);
	while (at < n_groups(n_rows))
	{
		found.n += code->few_signs(sketch, n_words(dim), signs, found.limit, &at, n_groups(n_rows),
								   found.index + found.n, found.distance + found.n,
								   2 * found.wanted - found.n);
		if (at < n_groups(n_rows))
			keep_nearest(&found, n_rows, dim);
	}
	keep_nearest(&found, n_rows, dim);
	*n_found =
		td_topk_among(code, &operand, rows, scales, found.index, found.n, dim, k, index, score);
	if (found.n == n_rows)
		return TD_OK;
	if (*n_found == k && k > 0 && is_enough(score[k - 1], found.limit, dim))
	{
		*is_exact = 0;
		return TD_OK;
	}
	return td_topk_cosine(level, query, rows, scales, n_rows, dim, k, index, score, n_found,
						  scratch, scratch_size);
}
