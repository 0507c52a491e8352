/*
 * td_sketch.c - the rows nearest to a query among very many, most of which are passed over.
 *
 * A float query, int8 rows and a sketch of them in, row numbers and cosines out; called by
 * kernels/_kernels.pyx and td_routes.c for large sets.  The sketch is the sign of each element of
 * the rotated row: of two unit vectors at an angle, each sign differs with a chance of angle / pi
 * (Charikar 2002), so rows of few differing signs are the candidates, and their int8 products
 * decide.
 *
 * The sketch is read in parts, each twice as long as the one before.  How many signs may differ is
 * guessed for a part from the k-th cosine that was found before it, boldly for the short ones.  At
 * the end the k-th cosine says how many signs it would have taken; parts that were guessed too
 * boldly are read again.
 */
#include <math.h>
#include <string.h>

#include "td_matvec.h"

/* Rows of a group, whose words stand side by side: a register of 64-bit words. */
#define GROUP TD_SKETCH_GROUP

/* Parts of the sketch. */
#define PARTS 12

/*
 * How many standard deviations of the count of differing signs are held to be enough: a row as
 * near as the k-th is passed over in some hundredths of the cases, nearer ones in fewer.
 * bench/kernels.py measures how often, on vectors of CLINC150 and Banking77.
 */
#define DEVIATIONS 2.25f

/*
 * The same for the first half of the signs, where that is read apart: those it lets through are
 * read from all over the memory, which costs more than reading on.
 */
#define FIRST_DEVIATIONS 2.5f

/* Deviations by which the guess for a part falls short, for each part that comes after it. */
#define BOLDNESS 0.3f

/* Before anything is known: deviations by which rows are nearer than most. */
#define NEARER 1.5f

/* Where more rows of a part are let through, a guess is one deviation bolder from there on. */
#define ALLOWED(n_rows) (16 + (n_rows) / 128)

/* Where more than one in so many rows would be compared, comparing all in order is faster. */
#define COMPARED_SHARE 16

/* Rows whose signs were few, before they are compared. */
#define ROOM 128

typedef struct search
{
	const td_code *code;
	const td_operand *operand;
	td_sketch sketch;
	const float *scales;
	size_t n_rows;
	size_t k;
	uint32_t *index; /* the nearest found, as by td_topk_among() */
	float *score;
	size_t n_found;
	size_t n_compared;
} search;

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

/* Words of a row that are read first: half of them, unless they are too few to say anything. */
static size_t
n_first(size_t dim)
{
	return n_words(dim) < 4 ? n_words(dim) : (n_words(dim) + 1) / 2;
}

void
td_sketch_make(const int8_t *rows, size_t n_rows, size_t dim, void *sketch)
{
	const td_code *code = td_code_of(td_level_best());
	uint64_t *words = sketch;
	uint64_t signs[TD_MATVEC_MAX / 64];
	size_t row;
	size_t w;

	memset(sketch, 0, td_sketch_size(n_rows, dim));
	for (row = 0; row < n_rows; row++)
	{
		code->signs(rows + row * dim, dim, signs);
		for (w = 0; w < n_words(dim); w++)
		{
			size_t at = w < n_first(dim) ? 0 : n_groups(n_rows) * n_first(dim);
			size_t of = w < n_first(dim) ? n_first(dim) : n_words(dim) - n_first(dim);

			at += row / GROUP * of + (w < n_first(dim) ? w : w - n_first(dim));
			words[at * GROUP + row % GROUP] = signs[w];
		}
	}
}

size_t
td_topk_sketched_scratch_size(size_t dim, size_t k)
{
	if (dim == 0 || dim > TD_MATVEC_MAX || k > UINT32_MAX)
		return 0;
	return (td_operand_size(dim) + 63) / 64 * 64 + n_words(dim) * sizeof(uint64_t);
}

/* Differing signs that a row as near as cosine has less than, but for a chance. */
static uint32_t
limit_of(float cosine, float deviations, size_t dim)
{
	float near = cosine < 0.0f ? -cosine : cosine;
	float angle;
	float chance;

	/* Abramowitz and Stegun 1964, 4.4.45: error at most 7e-5. */
	angle = ((-0.0187293f * near + 0.0742610f) * near - 0.2121144f) * near + 1.5707288f;
	chance = sqrtf(1.0f - near) * angle * 0.318309886f;
	chance = cosine < 0.0f ? 1.0f - chance : chance;
	angle = (float) dim * chance + deviations * sqrtf((float) dim * chance * (1.0f - chance));
	return angle < 0.0f ? 1u : (uint32_t) angle + 1u;
}

static td_sketch_limit
limits_of(const search *s, float cosine, float deviations)
{
	size_t dim = s->sketch.dim;
	td_sketch_limit limit;

	limit.all = limit_of(cosine, deviations, dim);
	limit.first =
		s->sketch.n_rest == 0
			? limit.all
			: limit_of(cosine, deviations + FIRST_DEVIATIONS - DEVIATIONS, 64 * s->sketch.n_first);
	return limit;
}

/* Compare the rows of groups from *at on that are within the limit, up to end or about so many. */
static void
look_through(search *s, size_t *at, size_t end, const td_sketch_limit *limit, size_t allowed)
{
	size_t compared = 0;

	while (*at < end && compared < allowed)
	{
		uint32_t index[ROOM];
		size_t room = allowed - compared < ROOM ? allowed - compared : ROOM;
		size_t n =
			s->code->few_signs(&s->sketch, limit, at, end, index, room < GROUP ? GROUP : room);

		/* Behind the last row of the last group there is nothing. */
		while (n > 0 && index[n - 1] >= s->n_rows)
			n--;
		s->n_found = td_topk_among(s->code, s->operand, s->sketch.rows, s->scales, index, n,
								   s->sketch.dim, s->k, s->index, s->score, s->n_found);
		compared += n;
	}
	s->n_compared += compared;
}

/* Look through a part by a guess; the least limit of it out. */
static td_sketch_limit
guess(search *s, size_t at, size_t end, float deviations)
{
	td_sketch_limit least = {UINT32_MAX, UINT32_MAX};

	while (at < end)
	{
		td_sketch_limit limit = s->n_found < s->k
									? limits_of(s, 0.0f, deviations - DEVIATIONS - NEARER)
									: limits_of(s, s->score[0], deviations);

		least.first = limit.first < least.first ? limit.first : least.first;
		least.all = limit.all < least.all ? limit.all : least.all;
		look_through(s, &at, end, &limit, ALLOWED((end - at) * GROUP));
		deviations -= 1.0f;
	}
	return least;
}

/* Whether the k nearest were found without comparing too many. */
static int
find(search *s)
{
	const size_t most = s->n_rows / COMPARED_SHARE;
	size_t begin[PARTS + 1] = {0};
	td_sketch_limit limit[PARTS];
	int part;

	for (part = 0; part < PARTS; part++)
	{
		begin[part + 1] = n_groups(s->n_rows) >> (PARTS - 1 - part);
		limit[part] = guess(s, begin[part], begin[part + 1],
							DEVIATIONS - BOLDNESS * (float) (PARTS - 1 - part));
	}
	if (s->n_found < s->k)
		return 0;
	for (part = 0; part < PARTS && s->n_compared <= most; part++)
	{
		td_sketch_limit needed = limits_of(s, s->score[0], DEVIATIONS);
		size_t at = begin[part];

		if (needed.all > limit[part].all || needed.first > limit[part].first)
			look_through(s, &at, begin[part + 1], &needed, most);
	}
	return s->n_compared <= most;
}

td_status
td_topk_sketched(uint32_t level, const float *query, const int8_t *rows, const float *scales,
				 const void *sketch, size_t n_rows, size_t dim, size_t k, uint32_t *index,
				 float *score, size_t *n_found, uint32_t *is_exact, void *scratch,
				 size_t scratch_size)
{
	const td_code *code = td_code_of(level);
	td_operand operand;

	if (dim == 0 || dim > TD_MATVEC_MAX || n_rows > UINT32_MAX - GROUP || k > UINT32_MAX)
		return TD_ERR_SHAPE;
	if (scratch_size < td_topk_sketched_scratch_size(dim, k))
		return TD_ERR_BUFFER;
	if (code->check(query, dim) != TD_OK)
		return TD_ERR_NONFINITE;

	*is_exact = 1;
	if (k > 0 && k <= n_rows / COMPARED_SHARE)
	{
		uint64_t *signs = (uint64_t *) ((char *) scratch + (td_operand_size(dim) + 63) / 64 * 64);
		const uint64_t *first = sketch;
		search s = {code,
					&operand,
					{first, first + n_groups(n_rows) * n_first(dim) * GROUP, n_first(dim),
					 n_words(dim) - n_first(dim), signs, rows, dim},
					scales,
					n_rows,
					k,
					index,
					score,
					0,
					0};

		code->make_operand(query, dim, scratch, &operand);
		code->signs(operand.narrow, dim, signs);
		if (find(&s))
		{
			td_topk_finish(index, score, k);
			*n_found = k;
			*is_exact = 0;
			return TD_OK;
		}
	}
	return td_topk_cosine(level, query, rows, scales, n_rows, dim, k, index, score, n_found,
						  scratch, scratch_size);
}
