/*
 * td_embed.c - a text becomes a unit vector.
 *
 * In: UTF-8 text and a checked encoder.  Out: float32[dim] and what was read of the text.
 * Called by both shells for requests and for the phrases of the registry.  A static encoder is done
 * here, in one go; the layers of a BERT encoder are in td_bert.c.
 */
#include <string.h>

#include "td_bert.h"
#include "tinydancer.h"

/* [CLS] and [SEP]. */
#define SPECIAL_ROWS 2

static int
is_bert(const td_encoder *encoder)
{
	return encoder->file.kind == TD_FILE_BERT_ENCODER;
}

size_t
td_embed_scratch_size(const td_encoder *encoder, size_t len)
{
	/* No text has more word pieces than bytes. */
	size_t n_tokens = len < encoder->max_tokens ? len : encoder->max_tokens;

	if (is_bert(encoder))
		return td_bert_scratch_size(encoder, n_tokens + SPECIAL_ROWS);
	return n_tokens * sizeof(uint32_t);
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

/* The sum of the rows of ids[n] into out. */
static void
static_sum(const td_encoder *encoder, const uint32_t *ids, size_t n, float *out)
{
	const size_t dim = encoder->dim;
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
	}
}

/* How many of ids[n] have a vector of their own. */
static size_t
count_known(const td_encoder *encoder, const uint32_t *ids, size_t n)
{
	size_t known = 0;
	size_t i;

	for (i = 0; i < n; i++)
		known += ids[i] >= encoder->first_row && ids[i] != encoder->vocab.unk_id;
	return known;
}

/* The word pieces of text number i to ids[capacity]; says in *fits whether nothing is missing. */
static td_status
read_text(td_embed_job *job, size_t i, const char *text, size_t len, uint32_t *ids, size_t capacity,
		  int *fits)
{
	const td_encoder *encoder = job->encoder;
	size_t limit = encoder->max_tokens < capacity ? encoder->max_tokens : capacity;
	td_token_count count;
	td_status status = td_text_tokenize(&encoder->vocab, text, len, ids, limit, &count);

	memset(&job->info[i], 0, sizeof(job->info[i]));
	*fits = 1;
	if (status != TD_OK)
		return status;
	if (count.n_total == 0)
		return TD_ERR_EMPTY;
	*fits = count.n_stored == count.n_total || count.n_stored == encoder->max_tokens;
	job->info[i].n_tokens = count.n_total;
	job->info[i].n_used = count.n_stored;
	job->info[i].n_known = count_known(encoder, ids, count.n_stored);
	return TD_OK;
}

/* Texts of a BERT encoder, one below the other with their [CLS] and [SEP], as many as fit. */
static td_status
read_bert_texts(td_embed_job *job, const char *const *texts, const size_t *lens, size_t n)
{
	uint32_t *ids = job->scratch;
	uint32_t row = 0;
	size_t i;

	for (i = 0; i < n && i < TD_EMBED_MAX_TEXTS; i++)
	{
		size_t room = job->capacity - row;
		int fits;

		/* Rows beyond those of one text are there only to share the weights. */
		if (i > 0 && (room <= SPECIAL_ROWS || row >= 2 * TD_BERT_CHUNK))
			break;
		job->status[i] =
			read_text(job, i, texts[i], lens[i], ids + row + 1, room - SPECIAL_ROWS, &fits);
		if (!fits)
		{
			if (i == 0)
				return TD_ERR_BUFFER;
			break;
		}
		if (job->status[i] == TD_OK)
		{
			ids[row] = job->encoder->vocab.cls_id;
			row += (uint32_t) job->info[i].n_used + SPECIAL_ROWS;
			ids[row - 1] = job->encoder->vocab.sep_id;
		}
		job->start[i + 1] = row;
	}
	job->n_texts = i;
	return TD_OK;
}

td_status
td_embed_begin(td_embed_job *job, const td_encoder *encoder, const char *const *texts,
			   const size_t *lens, size_t n, void *scratch, size_t scratch_size)
{
	td_status status;

	job->encoder = encoder;
	job->scratch = scratch;
	job->n_texts = 1;
	job->start[0] = 0;
	job->layer = 0;
	job->stage = 0;
	job->position = 0;
	if (is_bert(encoder))
	{
		job->capacity = td_bert_capacity(encoder, scratch_size);
		if (job->capacity <= SPECIAL_ROWS)
			return n > 0 && lens[0] == 0 ? TD_ERR_EMPTY : TD_ERR_BUFFER;
		status = read_bert_texts(job, texts, lens, n);
	}
	else
	{
		int fits;

		job->capacity = scratch_size / sizeof(uint32_t);
		job->status[0] = read_text(job, 0, texts[0], lens[0], scratch, job->capacity, &fits);
		job->start[1] = (uint32_t) job->info[0].n_used;
		status = fits ? TD_OK : TD_ERR_BUFFER;
	}
	if (status == TD_OK && n == 1)
		status = job->status[0];
	return status;
}

int
td_embed_step(td_embed_job *job)
{
	if (!is_bert(job->encoder) || job->start[job->n_texts] == 0)
		return 0;
	return td_bert_step(job);
}

void
td_embed_end(td_embed_job *job, float *out)
{
	const size_t dim = job->encoder->dim;
	size_t i;

	for (i = 0; i < job->n_texts; i++, out += dim)
	{
		if (job->status[i] == TD_OK)
		{
			if (is_bert(job->encoder))
				job->status[i] = td_bert_pool(job, i, out);
			else
			{
				static_sum(job->encoder, job->scratch, job->start[1], out);
				job->status[i] = td_vec_normalise(out, dim);
			}
		}
		if (job->status[i] != TD_OK)
			memset(out, 0, dim * sizeof(float));
	}
}

td_status
td_embed_text(const td_encoder *encoder, const char *text, size_t len, float *out,
			  td_embed_info *info, void *scratch, size_t scratch_size)
{
	td_embed_job job;
	td_status status = td_embed_begin(&job, encoder, &text, &len, 1, scratch, scratch_size);

	if (status != TD_OK)
		return status;
	while (td_embed_step(&job))
		;
	td_embed_end(&job, out);
	*info = job.info[0];
	return job.status[0];
}
