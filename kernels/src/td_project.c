/*
 * td_project.c - the words of a request as a few columns beside its vector.
 *
 * In: a model's table of columns, the request's vector and word pieces.  Out: one longer vector,
 * which the members of the model read.  Opened by td_model_open.c, applied by td_model.c.
 *
 * Sums run in float and in one order, column by column: every processor gives the same bits.
 */
#include <math.h>
#include <string.h>

#include "td_bert.h"
#include "td_project.h"

/* Columns that are summed together: a length known to the compiler, which makes vectors of it. */
#define BLOCK TD_PROJECTION_BLOCK

td_status
td_project_open(const td_file *file, size_t dim, td_projection *projection)
{
	const void *found = NULL;
	size_t n_buckets = projection->n_buckets;
	size_t b;
	td_status status;

	if (projection->rank == 0)
		return projection->n_buckets == 0 && projection->features == 0 ? TD_OK : TD_ERR_CORRUPT;
	if (projection->rank > TD_PROJECTION_MAX_RANK || projection->rank % BLOCK != 0 ||
		dim + projection->rank > TD_MAX_DIM || n_buckets == 0 || n_buckets > TD_MODEL_MAX_BUCKETS ||
		(n_buckets & (n_buckets - 1)) != 0 || projection->features == 0 ||
		projection->features > (TD_WORDS_UNIGRAMS | TD_WORDS_BIGRAMS | TD_WORDS_LENGTH))
		return TD_ERR_CORRUPT;
	status = td_encoder_require(file, "words", TD_I8, n_buckets * projection->rank, &found);
	if (status != TD_OK)
		return status;
	projection->rows = found;
	status = td_encoder_require(file, "words.s", TD_F32, n_buckets, &found);
	if (status != TD_OK)
		return status;
	projection->scales = found;
	for (b = 0; b < n_buckets; b++)
	{
		if (!(projection->scales[b] >= 0.0f && projection->scales[b] <= TD_PROJECTION_MAX_SCALE))
			return TD_ERR_CORRUPT;
	}
	status = td_encoder_require(file, "words.p", TD_F32, 1, &found);
	if (status != TD_OK)
		return status;
	projection->share = *(const float *) found;
	return projection->share >= 0.0f && projection->share <= TD_PROJECTION_MAX_SHARE
			   ? TD_OK
			   : TD_ERR_CORRUPT;
}

static void
add_row(const int8_t *row, float factor, size_t n, float *restrict sum)
{
	size_t i;
	size_t c;

	for (i = 0; i < n; i += BLOCK)
		for (c = 0; c < BLOCK; c++)
			sum[i + c] += factor * (float) row[i + c];
}

void
td_project(const td_projection *projection, size_t dim, const float *embedding, const uint32_t *ids,
		   size_t n_ids, uint32_t *buckets, float *values, float *wide)
{
	float *columns = wide + dim;
	size_t rank = projection->rank;
	size_t n =
		td_words_features(ids, n_ids, projection->n_buckets, projection->features, buckets, values);
	double length = 0.0;
	double share = projection->share;
	/* Without words: products with rows that have some are the cosines of the vectors. */
	double of_vector = sqrt(1.0 + share * share);
	size_t i;

	memset(columns, 0, rank * sizeof(float));
	for (i = 0; i < n; i++)
	{
		float factor = values[i] * projection->scales[buckets[i]];

		if (factor > 0.0f)
			add_row(projection->rows + buckets[i] * rank, factor, rank, columns);
	}
	for (i = 0; i < rank; i++)
		length += (double) columns[i] * columns[i];
	if (length > 0.0)
	{
		of_vector = 1.0 / of_vector;
		length = share * of_vector / sqrt(length);
		for (i = 0; i < rank; i++)
			columns[i] = (float) (columns[i] * length);
	}
	for (i = 0; i < dim; i++)
		wide[i] = embedding[i] * (float) of_vector;
}
