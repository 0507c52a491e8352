/*
 * td_bert_open.c - a checked view on the sections that only a BERT encoder has.
 *
 * In: an encoder file whose vocabulary was checked.  Out: td_encoder.bert, whose arrays have the
 * sizes that td_bert.c and td_bert_body.h rely on.  Called by td_encoder_open().
 */
#include <string.h>

#include "td_bert.h"

/* Positions in the "bert" section. */
enum
{
	BERT_LAYERS,
	BERT_HEADS,
	BERT_INNER,
	BERT_POOLING,
	BERT_NORM_EPS,
	BERT_N = 16
};

#define NAME_SIZE 24

/* "LL.what", in name[NAME_SIZE]. */
static void
section_name(uint32_t layer, const char *matrix, const char *what, char *name)
{
	size_t at = 2;
	size_t i;

	memset(name, 0, NAME_SIZE);
	name[0] = (char) ('0' + layer / 10);
	name[1] = (char) ('0' + layer % 10);
	for (i = 0; matrix[i] != '\0'; i++)
		name[at++] = matrix[i];
	for (i = 0; what[i] != '\0'; i++)
		name[at++] = what[i];
}

static td_status
open_matrix(const td_encoder *encoder, uint32_t layer, const char *which, size_t n_in, size_t n_out,
			td_bert_matrix *matrix)
{
	static const struct
	{
		const char *name;
		td_element element;
	} parts[4] = {{".weight", TD_I8}, {".scale", TD_F32}, {".bias", TD_F32}, {".sum", TD_I32}};
	const void *data[4];
	char name[NAME_SIZE];
	td_status status;
	int i;

	for (i = 0; i < 4; i++)
	{
		section_name(layer, which, parts[i].name, name);
		status = td_encoder_require(&encoder->file, name, parts[i].element,
									i == 0 ? n_in * n_out : n_out, &data[i]);
		if (status != TD_OK)
			return status;
	}
	matrix->weight = data[0];
	matrix->scale = data[1];
	matrix->bias = data[2];
	matrix->sum = data[3];
	return TD_OK;
}

static td_status
open_floats(const td_encoder *encoder, const char *name, size_t count, const float **out)
{
	const void *data;
	td_status status = td_encoder_require(&encoder->file, name, TD_F32, count, &data);

	*out = data;
	return status;
}

static td_status
open_layer(td_encoder *encoder, uint32_t number)
{
	td_bert_layer *layer = &encoder->bert.layers[number];
	size_t dim = encoder->dim;
	size_t inner = encoder->bert.n_inner;
	char name[NAME_SIZE];
	td_status status;

	if ((status = open_matrix(encoder, number, ".qkv", dim, 3 * dim, &layer->qkv)) != TD_OK ||
		(status = open_matrix(encoder, number, ".out", dim, dim, &layer->out)) != TD_OK ||
		(status = open_matrix(encoder, number, ".up", dim, inner, &layer->up)) != TD_OK ||
		(status = open_matrix(encoder, number, ".down", inner, dim, &layer->down)) != TD_OK)
		return status;
	section_name(number, ".norm1", "", name);
	status = open_floats(encoder, name, 2 * dim, &layer->norm1);
	if (status != TD_OK)
		return status;
	section_name(number, ".norm2", "", name);
	return open_floats(encoder, name, 2 * dim, &layer->norm2);
}

/* Whether the arithmetic can hold this shape: see td_encoder and td_bert_body.h. */
static int
shape_is_valid(const td_encoder *encoder)
{
	const td_bert *bert = &encoder->bert;

	if (bert->n_layers == 0 || bert->n_layers > TD_BERT_MAX_LAYERS || bert->n_heads == 0 ||
		bert->pooling > TD_POOLING_CLS)
		return 0;
	if (encoder->dim % TD_BERT_PANEL != 0 || bert->n_inner == 0 ||
		bert->n_inner % TD_BERT_PANEL != 0 || bert->n_inner > 4 * TD_MAX_DIM)
		return 0;
	if (encoder->dim % bert->n_heads != 0 || (encoder->dim / bert->n_heads) % 16 != 0)
		return 0;
	if (encoder->first_row != 0 || encoder->vocab.cls_id == TD_NONE ||
		encoder->vocab.sep_id == TD_NONE)
		return 0;
	/* Written so that NaN fails. */
	return bert->norm_eps > 0.0f && bert->norm_eps <= 1.0f;
}

td_status
td_bert_open(td_encoder *encoder)
{
	td_bert *bert = &encoder->bert;
	const td_file *file = &encoder->file;
	size_t dim = encoder->dim;
	const uint32_t *config;
	const void *data;
	td_status status;
	uint32_t i;

	status = td_encoder_require(file, "bert", TD_U32, BERT_N, &data);
	if (status != TD_OK)
		return status;
	config = data;
	bert->n_layers = config[BERT_LAYERS];
	bert->n_heads = config[BERT_HEADS];
	bert->n_inner = config[BERT_INNER];
	bert->pooling = config[BERT_POOLING];
	memcpy(&bert->norm_eps, &config[BERT_NORM_EPS], sizeof(bert->norm_eps));
	if (!shape_is_valid(encoder))
		return TD_ERR_CORRUPT;

	status = td_encoder_require(file, "bert.word", TD_I8, encoder->vocab.size * dim, &data);
	if (status != TD_OK)
		return status;
	bert->word = data;
	if ((status = open_floats(encoder, "bert.word.scale", encoder->vocab.size,
							  &bert->word_scale)) != TD_OK ||
		(status = open_floats(encoder, "bert.position", (encoder->max_tokens + 2) * dim,
							  &bert->position)) != TD_OK ||
		(status = open_floats(encoder, "bert.norm", 2 * dim, &bert->norm)) != TD_OK)
		return status;
	for (i = 0; i < bert->n_layers; i++)
	{
		status = open_layer(encoder, i);
		if (status != TD_OK)
			return status;
	}
	return TD_OK;
}

/* Whether no pair of a matrix's weights is too large for AVX2, and its sums are right. */
static int
matrix_is_sound(const td_bert_matrix *matrix, size_t n_in, size_t n_out)
{
	size_t panel;
	size_t quad;
	size_t i;

	for (panel = 0; panel < n_out / TD_BERT_PANEL; panel++)
	{
		const int8_t *w = matrix->weight + panel * n_in * TD_BERT_PANEL;
		int32_t sums[TD_BERT_PANEL] = {0};

		for (quad = 0; quad < n_in / 4; quad++, w += 4 * TD_BERT_PANEL)
		{
			int too_large = 0;

			for (i = 0; i < 2 * TD_BERT_PANEL; i++)
			{
				int a = w[2 * i];
				int b = w[2 * i + 1];
				int up = (a > 0 ? a : 0) + (b > 0 ? b : 0);
				int down = (a < 0 ? a : 0) + (b < 0 ? b : 0);

				too_large |= up > 128 || down < -128;
				sums[i / 2] += a + b;
			}
			if (too_large)
				return 0;
		}
		if (memcmp(sums, matrix->sum + panel * TD_BERT_PANEL, sizeof(sums)) != 0)
			return 0;
	}
	return 1;
}

td_status
td_encoder_verify(const td_encoder *encoder)
{
	const td_bert *bert = &encoder->bert;
	size_t dim = encoder->dim;
	uint32_t i;

	if (encoder->file.kind != TD_FILE_BERT_ENCODER)
		return TD_OK;
	for (i = 0; i < bert->n_layers; i++)
	{
		const td_bert_layer *layer = &bert->layers[i];

		if (!matrix_is_sound(&layer->qkv, dim, 3 * dim) ||
			!matrix_is_sound(&layer->out, dim, dim) ||
			!matrix_is_sound(&layer->up, dim, bert->n_inner) ||
			!matrix_is_sound(&layer->down, bert->n_inner, dim))
			return TD_ERR_CORRUPT;
	}
	return TD_OK;
}
