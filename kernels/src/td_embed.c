/*
 * td_embed.c - a text becomes a unit vector.
 *
 * In: UTF-8 text and a checked encoder.  Out: float32[dim] and what was read of the text.
 * Called by both shells for requests and for the phrases of the registry.
 */
#include <string.h>

#include "tinydancer.h"

size_t
td_embed_scratch_size(const td_encoder *encoder)
{
	return (size_t) encoder->max_tokens * sizeof(uint32_t);
}

/* How many rows ahead of the sum are asked for, and of how many bytes a cache line is. */
#define ROWS_AHEAD 12
#define LINE_SIZE 64

/* Ask for the row of id.  A row that is not in the cache takes longer to come than to be added. */
static inline void
prefetch_row(const td_encoder *encoder, uint32_t id)
{
#if defined(__GNUC__)
	if (id >= encoder->first_row)
	{
		const size_t dim = encoder->dim;
		const int8_t *row = encoder->static_rows + (id - encoder->first_row) * dim;
		size_t j;

		for (j = 0; j < dim; j += LINE_SIZE)
			__builtin_prefetch(row + j);
	}
#else
	(void) encoder;
	(void) id;
#endif
}

/* The sum of the rows of ids[n] into out; returns how many of them have a row. */
static size_t
static_sum(const td_encoder *encoder, const uint32_t *ids, size_t n, float *out)
{
	const size_t dim = encoder->dim;
	size_t n_known = 0;
	size_t i;
	size_t j;

	for (i = 0; i < n && i < ROWS_AHEAD; i++)
		prefetch_row(encoder, ids[i]);
	memset(out, 0, dim * sizeof(float));
	for (i = 0; i < n; i++)
	{
		const int8_t *row;
		float scale;
		size_t r;

		if (n - i > ROWS_AHEAD)
			prefetch_row(encoder, ids[i + ROWS_AHEAD]);
		if (ids[i] < encoder->first_row || ids[i] == encoder->vocab.unk_id)
			continue;
		r = ids[i] - encoder->first_row;
		row = encoder->static_rows + r * dim;
		scale = encoder->static_scales[encoder->static_codes[r]];
		/* Each column is a sum of its own in text order: vectorising cannot reorder it. */
		for (j = 0; j < dim; j++)
			out[j] += scale * (float) row[j];
		n_known++;
	}
	return n_known;
}

td_status
td_embed_text(const td_encoder *encoder, const char *text, size_t len, float *out,
			  td_embed_info *info, void *scratch, size_t scratch_size)
{
	uint32_t *ids = scratch;
	td_token_count count;
	td_status status;

	if (scratch_size < td_embed_scratch_size(encoder))
		return TD_ERR_BUFFER;
	status = td_text_tokenize(&encoder->vocab, text, len, ids, encoder->max_tokens, &count);
	if (status != TD_OK)
		return status;
	if (count.n_total == 0)
		return TD_ERR_EMPTY;

	info->n_tokens = count.n_total;
	info->n_used = count.n_stored;
	info->n_known = static_sum(encoder, ids, count.n_stored, out);
	return td_vec_normalise(out, encoder->dim);
}
