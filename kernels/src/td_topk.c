/*
 * td_topk.c - the rows nearest to a query by cosine.
 *
 * A float query and int8 rows in, row numbers and cosines out, best first; called by both shells
 * for route matching and capability search.  The query is quantised once, so the sums are exact
 * integers and ties are decided by row number, not by rounding.
 */
#include <math.h>
#include <string.h>

#include "td_matvec.h"

/* Rows whose products are looked through together. */
#define BLOCK 256

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
	return dim > TD_MATVEC_MAX ? 0 : td_operand_size(dim);
}

/* Offer the cosines of rows first .. first + n - 1, of which size are kept; returns the new size.
 */
static size_t
offer(const td_code *code, heap *found, size_t size, size_t k, const float *product, size_t first,
	  size_t n)
{
	size_t i = 0;

	for (; i < n && size < k; i++)
	{
		found->index[size] = (uint32_t) (first + i);
		found->score[size] = td_as_cosine(product[i]);
		sift_up(found, size++);
	}
	/* An equal cosine loses: its row number is higher than all those found.  None is above 1. */
	while (i < n && found->score[0] < 1.0f &&
		   (i = code->first_above(product, i, n, found->score[0])) < n)
	{
		found->index[0] = (uint32_t) (first + i);
		found->score[0] = td_as_cosine(product[i++]);
		sift_down(found, size);
	}
	return size;
}

/* Moving the worst to the end, again and again, leaves the best first. */
static void
put_best_first(heap *found, size_t size)
{
	while (size > 1)
	{
		swap(found, 0, --size);
		sift_down(found, size);
	}
}

static int
is_there(const heap *h, size_t size, uint32_t row)
{
	size_t i;

	for (i = 0; i < size; i++)
		if (h->index[i] == row)
			return 1;
	return 0;
}

size_t
td_topk_among(const td_code *code, const td_operand *query, const int8_t *rows, const float *scales,
			  const uint32_t *candidate, size_t n, size_t dim, size_t k, uint32_t *index,
			  float *score, size_t size)
{
	heap found = {index, score};
	size_t i;

	for (i = 0; i < n && k > 0; i++)
	{
		uint32_t row = candidate[i];
		float product;

		code->rows_i8(rows + (size_t) row * dim, scales + row, 1, dim, query, &product);
		product = td_as_cosine(product);
		if (size < k)
		{
			if (is_there(&found, size, row))
				continue;
			index[size] = row;
			score[size] = product;
			sift_up(&found, size++);
		}
		else if ((product > score[0] || (product == score[0] && row < index[0])) &&
				 !is_there(&found, size, row))
		{
			index[0] = row;
			score[0] = product;
			sift_down(&found, size);
		}
	}
	return size;
}

void
td_topk_finish(uint32_t *index, float *score, size_t size)
{
	heap found = {index, score};

	put_best_first(&found, size);
}

td_status
td_topk_cosine(uint32_t level, const float *query, const int8_t *rows, const float *scales,
			   size_t n_rows, size_t dim, size_t k, uint32_t *index, float *score, size_t *n_found,
			   void *scratch, size_t scratch_size)
{
	const td_code *code = td_code_of(level);
	heap found = {index, score};
	float product[BLOCK];
	td_operand operand;
	size_t size = 0;
	size_t row;

	if (dim == 0 || dim > TD_MATVEC_MAX || n_rows > UINT32_MAX)
		return TD_ERR_SHAPE;
	if (scratch_size < td_topk_scratch_size(dim))
		return TD_ERR_BUFFER;
	if (code->check(query, dim) != TD_OK)
		return TD_ERR_NONFINITE;

	code->make_operand(query, dim, scratch, &operand);
	for (row = 0; row < n_rows && k > 0; row += BLOCK)
	{
		size_t n = n_rows - row < BLOCK ? n_rows - row : BLOCK;

		code->rows_i8(rows + row * dim, scales + row, n, dim, &operand, product);
		size = offer(code, &found, size, k, product, row, n);
	}

	*n_found = size;
	put_best_first(&found, size);
	return TD_OK;
}

/* ---------------------------------------------------------------- packed rows */

size_t
td_pack_size(size_t n_rows, size_t dim)
{
	return (n_rows + TD_PACK_ROWS - 1) / TD_PACK_ROWS * td_pack_block(dim);
}

void
td_pack_make(const int8_t *rows, size_t n_rows, size_t dim, void *packed)
{
	uint8_t *bytes = packed;
	size_t row;
	size_t i;

	/* What is behind the last row, or behind a row's last element, is zero. */
	memset(bytes, 128, td_pack_size(n_rows, dim));
	for (row = 0; row < n_rows; row++, rows += dim)
	{
		uint8_t *block = bytes + row / TD_PACK_ROWS * td_pack_block(dim);

		for (i = 0; i < dim; i++)
			block[(i / 4 * TD_PACK_ROWS + row % TD_PACK_ROWS) * 4 + i % 4] =
				(uint8_t) (rows[i] + 128);
	}
}

td_status
td_topk_packed(uint32_t level, const float *query, const void *packed, const float *scales,
			   size_t n_rows, size_t dim, size_t k, uint32_t *index, float *score, size_t *n_found,
			   void *scratch, size_t scratch_size)
{
	const td_code *code = td_code_of(level);
	size_t n_blocks = (n_rows + TD_PACK_ROWS - 1) / TD_PACK_ROWS;
	heap found = {index, score};
	float product[TD_PACK_ROWS];
	td_operand operand;
	size_t size = 0;
	size_t block = 0;

	if (dim == 0 || dim > TD_MATVEC_MAX || n_rows > UINT32_MAX)
		return TD_ERR_SHAPE;
	if (scratch_size < td_topk_scratch_size(dim))
		return TD_ERR_BUFFER;
	if (code->check(query, dim) != TD_OK)
		return TD_ERR_NONFINITE;

	code->make_operand(query, dim, scratch, &operand);
	memset((int8_t *) scratch + dim, 0, (dim + 3) / 4 * 4 - dim);
	while (block < n_blocks && k > 0)
	{
		size_t row;
		size_t n;

		/* As long as there is room, every row is kept. */
		if (size < k)
			(void) code->packed_above(packed, scales, n_rows, dim, &operand, block, block + 1,
									  INFINITY, product);
		else
			block = code->packed_above(packed, scales, n_rows, dim, &operand, block, n_blocks,
									   found.score[0], product);
		if (block == n_blocks)
			break;
		row = block++ * TD_PACK_ROWS;
		n = n_rows - row < TD_PACK_ROWS ? n_rows - row : TD_PACK_ROWS;
		size = offer(code, &found, size, k, product, row, n);
	}

	*n_found = size;
	put_best_first(&found, size);
	return TD_OK;
}
