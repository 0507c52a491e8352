/*
 * td_topk.c - the rows nearest to a query by cosine.
 *
 * A float query and int8 rows in, row numbers and cosines out, best first; called by both shells
 * for route matching and capability search.  The query is quantised once, so the sums are exact
 * integers and ties are decided by row number, not by rounding.
 */
#include "td_dot.h"
#include "tinydancer.h"

#define MAX_DIM 131072u

/* Found rows: parallel arrays lent by the caller, kept as a heap whose root is the worst. */
typedef struct heap
{
	uint32_t *index;
	float *score;
} heap;

static inline int
is_worse(const heap *h, size_t a, size_t b)
{
	if (h->score[a] != h->score[b])
		return h->score[a] < h->score[b];
	return h->index[a] > h->index[b];
}

static inline void
swap(heap *h, size_t a, size_t b)
{
	uint32_t index = h->index[a];
	float score = h->score[a];

	h->index[a] = h->index[b];
	h->score[a] = h->score[b];
	h->index[b] = index;
	h->score[b] = score;
}

static void
sift_up(heap *h, size_t child)
{
	while (child > 0)
	{
		size_t parent = (child - 1) / 2;

		if (!is_worse(h, child, parent))
			return;
		swap(h, child, parent);
		child = parent;
	}
}

static void
sift_down(heap *h, size_t size)
{
	size_t parent = 0;
	size_t child;

	while ((child = 2 * parent + 1) < size)
	{
		if (child + 1 < size && is_worse(h, child + 1, child))
			child++;
		if (!is_worse(h, child, parent))
			return;
		swap(h, child, parent);
		parent = child;
	}
}

size_t
td_topk_scratch_size(size_t dim)
{
	/* More is refused by td_topk_cosine(); the limit keeps the size from wrapping. */
	return dim > MAX_DIM ? 0 : dim * (sizeof(int16_t) + sizeof(int8_t));
}

td_status
td_topk_cosine(const float *query, const int8_t *rows, const float *scales, size_t n_rows,
			   size_t dim, size_t k, uint32_t *index, float *score, size_t *n_found, void *scratch,
			   size_t scratch_size)
{
	heap found = {index, score};
	int16_t *wide = scratch;
	int8_t *quantised = (int8_t *) (wide + dim);
	float query_scale;
	size_t size = 0;
	size_t row;

	if (dim == 0 || dim > MAX_DIM || n_rows > UINT32_MAX)
		return TD_ERR_SHAPE;
	if (scratch_size < td_topk_scratch_size(dim))
		return TD_ERR_BUFFER;
	if (td_vec_check(query, dim) != TD_OK)
		return TD_ERR_NONFINITE;

	query_scale = td_vec_quantise(query, dim, quantised);
	td_widen(quantised, dim, wide);
	for (row = 0; row < n_rows && k > 0; row++)
	{
		int32_t dot = td_dot_wide(wide, rows + row * dim, dim);
		float cosine = (float) dot * (query_scale * scales[row]);

		/* Written so that a NaN, from a scale that is none, ranks last instead of anywhere. */
		cosine = cosine > -1.0f ? cosine : -1.0f;
		cosine = cosine < 1.0f ? cosine : 1.0f;

		if (size < k)
		{
			index[size] = (uint32_t) row;
			score[size] = cosine;
			sift_up(&found, size++);
		}
		else if (cosine > score[0])
		{
			/* An equal cosine loses: its row number is higher than all those found. */
			index[0] = (uint32_t) row;
			score[0] = cosine;
			sift_down(&found, size);
		}
	}

	/* Moving the worst to the end, again and again, leaves the best first. */
	*n_found = size;
	while (size > 1)
	{
		swap(&found, 0, --size);
		sift_down(&found, size);
	}
	return TD_OK;
}
