/*
 * td_bert_body.h - the layers of a BERT encoder, compiled once for each instruction set.
 *
 * In: a job with its word pieces in scratch.  Out: the hidden states of the last layer.  Internal:
 * included by td_bert_<level>.c, which call step() and define
 *
 *   product_block(a, stride, rows, weight, n_quads, ahead, sums)
 *       sums[rows][64] = exact sums over 4 n_quads inputs of a[rows][stride] (u8) times a panel
 *       weight[n_quads][64][4] (int8); rows is 1 to BLOCK_ROWS; ahead[n_quads][128] will be read
 *       soon and may be prefetched
 *
 * Devlin et al. 2018; layer norm after each part.  Activations are quantised per word piece,
 * x = scale * (q - zero) with q in 0..255, weights per output channel (int8), so
 *
 *   y[c] = scale * weight_scale[c] * (sum over k of q[k] w[c][k] - zero * sum over k of w[c][k])
 *          + bias[c]
 *
 * with exact integers in the brackets.  Float sums run over sixteen lanes and one fixed tree.
 */

#include <math.h>

#define BLOCK_ROWS 6

/* Stages of a layer, in order; td_embed_job.position counts within one. */
enum
{
	STAGE_QKV,	   /* a chunk */
	STAGE_ATTEND,  /* a head of every text */
	STAGE_OUT,	   /* a chunk */
	STAGE_FORWARD, /* a chunk */
	STAGE_N
};

/* x[n] as u8; n is a multiple of 16. */
static TD_INLINE void
quantise_row(const float *x, size_t n, uint8_t *q, float *scale, int32_t *zero)
{
	v16f low = {0};
	v16f high = {0};
	v16f shift;
	float least;
	float span;
	float inverse;
	float offset;
	size_t j;

	for (j = 0; j < n; j += LANES)
	{
		v16f v = *(const v16f *) (x + j);

		low = lanes_min(v, low);
		high = lanes_max(v, high);
	}
	least = lanes_least(low);
	span = lanes_greatest(high) - least;
	/* Below, the reciprocal would overflow; such a row is as good as zeros. */
	inverse = span > 1e-30f ? 255.0f / span : 0.0f;
	offset = (-least * inverse + TD_ROUND_MAGIC) - TD_ROUND_MAGIC;
	/* Also for a row with infinities, whose vector is refused at the end. */
	offset = offset >= 0.0f && offset <= 255.0f ? offset : 0.0f;
	*scale = span / 255.0f;
	*zero = (int32_t) offset;

	shift = splat(offset);
	for (j = 0; j < n; j += LANES)
	{
		v16f v = *(const v16f *) (x + j) * inverse + shift;

		v = lanes_min(lanes_max(v, splat(0.0f)), splat(255.0f));
		lanes_narrow((v16u) (v + TD_ROUND_MAGIC), q + j);
	}
}

/* x[n] = (x + y - mean) / sqrt(variance + eps) * gain + bias; y may be NULL. */
static TD_INLINE void
add_and_norm(float *x, const float *y, size_t n, const float *norm, float eps)
{
	v16f sum = {0};
	v16f squares = {0};
	float mean;
	float inverse;
	size_t j;

	for (j = 0; j < n; j += LANES)
	{
		v16f v = *(v16f *) (x + j);

		if (y != NULL)
			v += *(const v16f *) (y + j);
		*(v16f *) (x + j) = v;
		sum += v;
	}
	mean = lanes_sum(sum) / (float) n;
	for (j = 0; j < n; j += LANES)
	{
		v16f v = *(v16f *) (x + j) - mean;

		squares += v * v;
	}
	inverse = 1.0f / sqrtf(lanes_sum(squares) / (float) n + eps);
	for (j = 0; j < n; j += LANES)
	{
		v16f v = (*(v16f *) (x + j) - mean) * inverse;

		*(v16f *) (x + j) = v * *(const v16f *) (norm + j) + *(const v16f *) (norm + n + j);
	}
}

/* One row of sums becomes 64 outputs. */
static TD_INLINE void
finish_row(const int32_t *sums, const td_bert_matrix *matrix, size_t channel, float scale,
		   int32_t zero, float *out, int gelu)
{
	size_t j;

	for (j = 0; j < TD_BERT_PANEL; j += LANES)
	{
		/* Unsigned, so that the sums of a file that lies wrap instead of overflowing. */
		v16u correction = *(const v16u *) (matrix->sum + channel + j) * (uint32_t) zero;
		v16i exact = (v16i) (*(const v16u *) (sums + j) - correction);
		v16f v = __builtin_convertvector(exact, v16f);

		v = v * (*(const v16f *) (matrix->scale + channel + j) * scale) +
			*(const v16f *) (matrix->bias + channel + j);
		*(v16f *) (out + j) = gelu ? lanes_gelu(v) : v;
	}
}

/* out[rows][stride] = matrix of a[rows][n_in], quantised with scale[rows] and zero[rows]. */
static TD_INLINE void
product(const uint8_t *a, size_t n_in, size_t rows, const float *scale, const int32_t *zero,
		const td_bert_matrix *matrix, size_t n_out, float *out, size_t stride, int gelu)
{
	int32_t sums[BLOCK_ROWS * TD_BERT_PANEL] __attribute__((aligned(64)));
	const size_t panel = TD_BERT_PANEL * n_in;
	const size_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
	const int8_t *weight = matrix->weight;
	const int8_t *ahead = weight + panel;
	size_t channel;

	/*
	 * A panel stays in the cache nearest to the processor while all rows pass by, and the one after
	 * it comes from memory meanwhile, half a panel a block: for few rows, reading the weights is
	 * what takes the time.  Sections follow each other in the order of use, so reading on past the
	 * end of the matrix fetches the next.
	 */
	for (channel = 0; channel < n_out; channel += TD_BERT_PANEL, weight += panel)
	{
		size_t block;

		for (block = 0; block < blocks; block++)
		{
			size_t first = rows * block / blocks;
			size_t n = rows * (block + 1) / blocks - first;
			size_t i;

			product_block(a + first * n_in, n_in, n, weight, n_in / 4, ahead, sums);
			if (ahead < weight + 2 * panel)
				ahead += panel / 2;
			for (i = 0; i < n; i++)
				finish_row(sums + i * TD_BERT_PANEL, matrix, channel, scale[first + i],
						   zero[first + i], out + (first + i) * stride + channel, gelu);
		}
	}
}

/* Word, position and token type, then layer norm. */
static void
embed_rows(const td_embed_job *job, const td_bert_work *work)
{
	const td_bert *bert = &job->encoder->bert;
	const size_t dim = job->encoder->dim;
	size_t text = 0;
	size_t row;
	size_t j;

	for (row = 0; row < work->n_rows; row++)
	{
		uint32_t id = work->ids[row];
		const int8_t *word = bert->word + id * dim;
		const float *position;
		float *out = work->hidden + row * dim;

		while (row >= job->start[text + 1])
			text++;
		position = bert->position + (row - job->start[text]) * dim;
		for (j = 0; j < dim; j += LANES)
		{
			v16f v = lanes_widen(word + j) * bert->word_scale[id];

			*(v16f *) (out + j) = v + *(const v16f *) (position + j);
		}
		add_and_norm(out, NULL, dim, bert->norm, bert->norm_eps);
	}
}

/* Query, key and value of the rows first .. first + n - 1. */
static void
project_rows(const td_encoder *encoder, const td_bert_layer *layer, const td_bert_work *work,
			 size_t first, size_t n)
{
	const size_t dim = encoder->dim;
	size_t i;

	for (i = first; i < first + n; i++)
		quantise_row(work->hidden + i * dim, dim, work->quant + i * dim, work->scale + i,
					 work->zero + i);
	product(work->quant + first * dim, dim, n, work->scale + first, work->zero + first, &layer->qkv,
			3 * dim, work->qkv + first * 3 * dim, 3 * dim, 0);
}

/*
 * scores[4][width] at one or two vectors of keys[size][width]: their products with four queries,
 * and the mask of the keys added.
 */
static TD_INLINE void
attend_scores(float *const *query, const float *keys, size_t width, size_t size, const float *mask,
			  float *scores, const int vectors)
{
	v16f sum[4][2] = {{{0}}};
	size_t d;
	int q;
	int v;

	for (d = 0; d < size; d++)
	{
		for (q = 0; q < 4; q++)
		{
			v16f x = splat(query[q][d]);

			for (v = 0; v < vectors; v++)
				sum[q][v] += *(const v16f *) (keys + d * width + v * LANES) * x;
		}
	}
	for (q = 0; q < 4; q++)
		for (v = 0; v < vectors; v++)
			*(v16f *) (scores + q * width + v * LANES) =
				sum[q][v] + *(const v16f *) (mask + v * LANES);
}

/* One or two vectors of four contexts: values[n][stride] times weights[4][width], scaled. */
static TD_INLINE void
attend_values(const float *values, size_t stride, size_t n, const float *weights, size_t width,
			  const float *inverse, float *const *out, size_t n_out, const int vectors)
{
	v16f sum[4][2] = {{{0}}};
	size_t j;
	size_t q;
	int v;

	for (j = 0; j < n; j++)
	{
		for (q = 0; q < 4; q++)
		{
			v16f w = splat(weights[q * width + j]);

			for (v = 0; v < vectors; v++)
				sum[q][v] += *(const v16f *) (values + j * stride + v * LANES) * w;
		}
	}
	for (q = 0; q < n_out; q++)
		for (v = 0; v < vectors; v++)
			*(v16f *) (out[q] + v * LANES) = sum[q][v] * inverse[q];
}

/* Scores become exp(score - the greatest), in place; returns 1 / their sum. */
static TD_INLINE float
attend_weights(float *scores, size_t width)
{
	v16f high = *(v16f *) scores;
	v16f total = {0};
	size_t j;

	for (j = LANES; j < width; j += LANES)
		high = lanes_max(*(v16f *) (scores + j), high);
	high = splat(lanes_greatest(high));
	for (j = 0; j < width; j += LANES)
	{
		v16f e = lanes_exp(*(v16f *) (scores + j) - high);

		*(v16f *) (scores + j) = e;
		total += e;
	}
	return 1.0f / lanes_sum(total);
}

/*
 * Attention of one head within one text of n rows, qkv[n][stride] at the head's query; the context
 * takes the place of the queries.  Four queries at a time: each load serves all of them.
 */
static void
attend(const td_bert_work *work, float *qkv, size_t n, size_t stride, size_t dim, size_t size)
{
	const size_t width = (n + LANES - 1) & ~(size_t) (LANES - 1);
	const float *key = qkv + dim;
	const float *value = qkv + 2 * dim;
	float *scores = work->scores;
	float *mask = scores + 4 * width;
	size_t i;
	size_t j;
	size_t d;
	size_t q;

	/*
	 * Keys beyond the text are zeros, and so far down that their exp is 1.6e-38: added to a sum of
	 * at least 1 that is nothing.
	 */
	for (j = 0; j < width; j++)
		mask[j] = j < n ? 0.0f : -3e38f;
	for (d = 0; d < size; d++)
	{
		float *out = work->keys + d * width;

		for (j = 0; j < n; j++)
			out[j] = key[j * stride + d];
		for (; j < width; j++)
			out[j] = 0.0f;
	}
	for (i = 0; i < n; i += 4)
	{
		/* The last four may reach beyond the text: the last query again, and dropped. */
		size_t n_out = n - i < 4 ? n - i : 4;
		float *query[4];
		float inverse[4] = {0.0f};

		for (q = 0; q < 4; q++)
			query[q] = qkv + (q < n_out ? i + q : n - 1) * stride;
		for (j = 0; j + LANES < width; j += 2 * LANES)
			attend_scores(query, work->keys + j, width, size, mask + j, scores + j, 2);
		if (j < width)
			attend_scores(query, work->keys + j, width, size, mask + j, scores + j, 1);
		for (q = 0; q < n_out; q++)
			inverse[q] = attend_weights(scores + q * width, width);
		for (d = 0; d < size; d += 2 * LANES)
		{
			float *out[4];

			for (q = 0; q < 4; q++)
				out[q] = query[q] + d;
			if (d + LANES < size)
				attend_values(value + d, stride, n, scores, width, inverse, out, n_out, 2);
			else
				attend_values(value + d, stride, n, scores, width, inverse, out, n_out, 1);
		}
	}
}

/* One head of every text. */
static void
attend_head(const td_embed_job *job, const td_bert_work *work, size_t head)
{
	const size_t dim = job->encoder->dim;
	const size_t size = dim / job->encoder->bert.n_heads;
	size_t text;

	for (text = 0; text < job->n_texts; text++)
	{
		size_t first = job->start[text];

		attend(work, work->qkv + first * 3 * dim + head * size, job->start[text + 1] - first,
			   3 * dim, dim, size);
	}
}

/* The output projection of attention, back into the residual stream. */
static void
close_attention(const td_encoder *encoder, const td_bert_layer *layer, const td_bert_work *work,
				size_t first, size_t n)
{
	const size_t dim = encoder->dim;
	size_t i;

	for (i = first; i < first + n; i++)
		quantise_row(work->qkv + i * 3 * dim, dim, work->quant + i * dim, work->scale + i,
					 work->zero + i);
	product(work->quant + first * dim, dim, n, work->scale + first, work->zero + first, &layer->out,
			dim, work->inner, dim, 0);
	for (i = 0; i < n; i++)
		add_and_norm(work->hidden + (first + i) * dim, work->inner + i * dim, dim, layer->norm1,
					 encoder->bert.norm_eps);
}

static void
feed_forward(const td_encoder *encoder, const td_bert_layer *layer, const td_bert_work *work,
			 size_t first, size_t n)
{
	const size_t dim = encoder->dim;
	const size_t n_inner = encoder->bert.n_inner;
	float *scale = work->scale + first;
	int32_t *zero = work->zero + first;
	size_t i;

	for (i = 0; i < n; i++)
		quantise_row(work->hidden + (first + i) * dim, dim, work->quant + (first + i) * dim,
					 scale + i, zero + i);
	product(work->quant + first * dim, dim, n, scale, zero, &layer->up, n_inner, work->inner,
			n_inner, 1);
	for (i = 0; i < n; i++)
		quantise_row(work->inner + i * n_inner, n_inner, work->inner_q + i * n_inner, scale + i,
					 zero + i);
	product(work->inner_q, n_inner, n, scale, zero, &layer->down, dim, work->inner, dim, 0);
	for (i = 0; i < n; i++)
		add_and_norm(work->hidden + (first + i) * dim, work->inner + i * dim, dim, layer->norm2,
					 encoder->bert.norm_eps);
}

/* See td_bert_step(). */
static int
step(td_embed_job *job)
{
	const td_encoder *encoder = job->encoder;
	const td_bert_layer *layer = &encoder->bert.layers[job->layer];
	td_bert_work work;
	size_t first;
	size_t n;
	size_t end;

	td_bert_layout(job, &work);
	if (job->layer == 0 && job->stage == STAGE_QKV && job->position == 0)
		embed_rows(job, &work);

	first = (size_t) job->position * TD_BERT_CHUNK;
	n = work.n_rows - first < TD_BERT_CHUNK ? work.n_rows - first : TD_BERT_CHUNK;
	end = (work.n_rows + TD_BERT_CHUNK - 1) / TD_BERT_CHUNK;
	switch (job->stage)
	{
		case STAGE_QKV:
			project_rows(encoder, layer, &work, first, n);
			break;
		case STAGE_ATTEND:
			attend_head(job, &work, job->position);
			end = encoder->bert.n_heads;
			break;
		case STAGE_OUT:
			close_attention(encoder, layer, &work, first, n);
			break;
		default:
			feed_forward(encoder, layer, &work, first, n);
			break;
	}
	if (++job->position < end)
		return 1;
	job->position = 0;
	if (++job->stage < STAGE_N)
		return 1;
	job->stage = 0;
	return ++job->layer < encoder->bert.n_layers;
}
