/*
 * td_bert.c - the BERT encoder: where things lie, which set of code runs, what comes out.
 *
 * In: a job whose word pieces are in its scratch.  Out: one vector a text.  Called by td_embed.c;
 * the arithmetic of the layers is in td_bert_body.h.
 */
#include <string.h>

#include "td_bert.h"

#define ALIGNMENT 64

/* Rounded up to whole vectors. */
static size_t
padded(size_t n)
{
	return (n + 15) & ~(size_t) 15;
}

static size_t
chunk_rows(size_t n_rows)
{
	return n_rows < TD_BERT_CHUNK ? n_rows : TD_BERT_CHUNK;
}

/* Rows of the inner buffer are those of its widest user. */
static size_t
inner_width(const td_encoder *encoder)
{
	return encoder->bert.n_inner > encoder->dim ? encoder->bert.n_inner : encoder->dim;
}

/* The next size bytes behind start, which is NULL where only sizes are wanted. */
static void *
take(uint8_t *start, size_t *offset, size_t size)
{
	void *taken = start != NULL ? start + *offset : NULL;

	*offset += (size + ALIGNMENT - 1) & ~(size_t) (ALIGNMENT - 1);
	return taken;
}

/* Lays everything out for n_rows from start on; returns the size. */
static size_t
lay_out(const td_encoder *encoder, size_t n_rows, uint8_t *start, td_bert_work *work)
{
	const size_t dim = encoder->dim;
	const size_t chunk = chunk_rows(n_rows);
	size_t offset = 0;

	work->n_rows = (uint32_t) n_rows;
	work->ids = take(start, &offset, n_rows * sizeof(uint32_t));
	work->hidden = take(start, &offset, n_rows * dim * sizeof(float));
	work->qkv = take(start, &offset, n_rows * 3 * dim * sizeof(float));
	work->quant = take(start, &offset, n_rows * dim);
	work->scale = take(start, &offset, n_rows * sizeof(float));
	work->zero = take(start, &offset, n_rows * sizeof(int32_t));
	work->keys = take(start, &offset, dim / encoder->bert.n_heads * padded(n_rows) * sizeof(float));
	work->weights = take(start, &offset, 4 * padded(n_rows) * sizeof(float));
	work->inner = take(start, &offset, chunk * inner_width(encoder) * sizeof(float));
	work->inner_q = take(start, &offset, chunk * encoder->bert.n_inner);
	return offset;
}

size_t
td_bert_scratch_size(const td_encoder *encoder, size_t n_rows)
{
	td_bert_work work;

	return lay_out(encoder, n_rows, NULL, &work);
}

size_t
td_bert_capacity(const td_encoder *encoder, size_t scratch_size)
{
	size_t low = 0;
	size_t high = (size_t) encoder->max_tokens + 2;

	/* The greatest number of rows whose size fits; sizes grow with it. */
	while (low < high)
	{
		size_t middle = high - (high - low) / 2;

		if (td_bert_scratch_size(encoder, middle) <= scratch_size)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

void
td_bert_layout(const td_embed_job *job, td_bert_work *work)
{
	(void) lay_out(job->encoder, job->capacity, job->scratch, work);
	work->n_rows = job->start[job->n_texts];
}

int
td_bert_step(td_embed_job *job)
{
	switch (job->encoder->level)
	{
#if defined(__x86_64__) && defined(__GNUC__)
		case TD_LEVEL_AVX512_VNNI:
			return td_bert_step_avx512(job);
		case TD_LEVEL_AVX2:
			return td_bert_step_avx2(job);
		case TD_LEVEL_SSE2:
			return td_bert_step_sse2(job);
#endif
		default:
			return td_bert_step_portable(job);
	}
}

td_status
td_bert_pool(const td_embed_job *job, size_t text, float *out)
{
	const size_t dim = job->encoder->dim;
	td_bert_work work;
	size_t row;
	size_t j;

	td_bert_layout(job, &work);
	row = job->start[text];
	memcpy(out, work.hidden + row * dim, dim * sizeof(float));
	if (job->encoder->bert.pooling == TD_POOLING_MEAN)
	{
		/* The sum has the direction of the mean. */
		for (row++; row < job->start[text + 1]; row++)
			for (j = 0; j < dim; j++)
				out[j] += work.hidden[row * dim + j];
	}
	return td_vec_normalise(out, dim);
}
