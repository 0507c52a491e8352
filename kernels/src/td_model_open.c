/*
 * td_model_open.c - a checked view on a model file.
 *
 * In: the bytes of a file, possibly hostile.  Out: a td_model whose every array has the length that
 * td_model.c relies on and whose every float is finite.  Called by both shells when they load a
 * model.
 */
#include <string.h>

#include "td_bert.h"
#include "td_project.h"
#include "td_unicode.h"
#include "tinydancer.h"

/* What is new in a format is absent from the files of those before it. */
#define FORMAT_PLAIN 1
#define FORMAT_PROJECTION 2

/* Positions in the "model" section. */
enum
{
	MODEL_FORMAT,
	MODEL_TASK,
	MODEL_LINK,
	MODEL_N_OUT,
	MODEL_DIM,
	MODEL_N_ROWS,
	MODEL_N_MEMBERS,
	MODEL_N_CURVES,
	MODEL_N_KNOTS,
	MODEL_CHECKSUM_LOW,
	MODEL_CHECKSUM_HIGH,
	MODEL_WORDS_RANK,
	MODEL_WORDS_BUCKETS,
	MODEL_WORDS_FEATURES,
	MODEL_N = 16
};

/* Positions in the section of a member. */
enum
{
	MEMBER_KIND,
	MEMBER_FIRST,
	MEMBER_N = 8
};

/* Positions in the section of a FASTGRNN member. */
enum
{
	CELL_WEIGHTS = MEMBER_FIRST,
	CELL_HIDDEN,
	CELL_RANK_W,
	CELL_RANK_U,
	CELL_TIED,
	CELL_STEPS
};

/* "m7.weight" and a NUL, with room to spare. */
#define NAME_SIZE 24

/* Suffixes of a section's name: ".wh", ".l", ".s" of "m1.wh.l.s". */
typedef struct suffix
{
	const char *array;
	const char *factor;
	const char *scales;
} suffix;

static const char *const task_names[TD_N_TASKS] = {"classifier", "capabilities", "quality"};

const char *
td_task_name(unsigned i)
{
	return i < TD_N_TASKS ? task_names[i] : "";
}

static char *
append(char *end, const char *text)
{
	size_t len = text == NULL ? 0 : strlen(text);

	memcpy(end, text == NULL ? "" : text, len);
	return end + len;
}

/* A section of member i, which has one digit, of exactly count elements. */
static td_status
member_section(const td_model *model, unsigned i, suffix of, td_element element, size_t count,
			   const void **data)
{
	char name[NAME_SIZE] = {'m', (char) ('0' + i)};

	*append(append(append(name + 2, of.array), of.factor), of.scales) = '\0';
	return td_encoder_require(&model->file, name, element, count, data);
}

static td_status
suffixed_floats(const td_model *model, unsigned i, suffix of, size_t count, const float **data)
{
	const void *found = NULL;
	td_status status = member_section(model, i, of, TD_F32, count, &found);

	*data = found;
	if (status == TD_OK && td_vec_check(*data, count) != TD_OK)
		return TD_ERR_CORRUPT;
	return status;
}

static td_status
member_floats(const td_model *model, unsigned i, const char *array, size_t count,
			  const float **data)
{
	suffix of = {array, NULL, NULL};

	return suffixed_floats(model, i, of, count, data);
}

/* A matrix of count values, n_scales rows or columns of them, in one of two kinds of weights. */
static td_status
suffixed_matrix(const td_model *model, unsigned i, suffix of, uint32_t weights, size_t count,
				size_t n_scales, td_matrix *matrix)
{
	const void *found = NULL;
	td_status status;

	if (weights == TD_WEIGHTS_F32)
		return suffixed_floats(model, i, of, count, &matrix->f32);
	if (weights != TD_WEIGHTS_I8)
		return TD_ERR_CORRUPT;
	status = member_section(model, i, of, TD_I8, count, &found);
	if (status != TD_OK)
		return status;
	matrix->i8 = found;
	of.scales = ".s";
	return suffixed_floats(model, i, of, n_scales, &matrix->scales);
}

static td_status
member_matrix(const td_model *model, unsigned i, const char *array, uint32_t weights, size_t count,
			  size_t n_scales, td_matrix *matrix)
{
	suffix of = {array, NULL, NULL};

	return suffixed_matrix(model, i, of, weights, count, n_scales, matrix);
}

/* A matrix [n_out][n_in], or with a rank its two factors. */
static td_status
member_factored(const td_model *model, unsigned i, const char *array, uint32_t weights,
				size_t n_out, size_t n_in, size_t rank, td_factored *factors)
{
	suffix left = {array, ".l", NULL};
	suffix right = {array, ".r", NULL};

	if (rank > 0)
	{
		td_status status =
			suffixed_matrix(model, i, left, weights, n_out * rank, n_out, &factors->left);

		if (status != TD_OK)
			return status;
	}
	return suffixed_matrix(model, i, right, weights, (rank > 0 ? rank : n_out) * n_in,
						   rank > 0 ? rank : n_out, &factors->right);
}

static td_status
open_linear(const td_model *model, unsigned i, const uint32_t *meta, td_member_view *member)
{
	td_status status;

	member->weights = meta[MEMBER_FIRST];
	status = member_matrix(model, i, ".w", member->weights, (size_t) model->n_out * model->width,
						   model->n_out, &member->matrix);
	return status != TD_OK ? status : member_floats(model, i, ".b", model->n_out, &member->bias);
}

static td_status
open_cell(const td_model *model, unsigned i, const uint32_t *meta, td_member_view *member)
{
	td_fastgrnn *cell = &member->cell;
	const float *constants;
	size_t hidden = meta[CELL_HIDDEN];
	td_status status;

	member->weights = cell->weights = meta[CELL_WEIGHTS];
	member->steps = meta[CELL_STEPS];
	cell->level = model->level;
	cell->n_in = member->steps > 0 ? model->dim : model->width;
	cell->n_hidden = meta[CELL_HIDDEN];
	cell->rank_w = meta[CELL_RANK_W];
	cell->rank_u = meta[CELL_RANK_U];
	cell->tied = meta[CELL_TIED];
	if (hidden == 0 || hidden > TD_MODEL_MAX_HIDDEN || cell->tied > 1 || cell->rank_w > hidden ||
		cell->rank_w > cell->n_in || cell->rank_u > hidden || member->steps > TD_MODEL_MAX_STEPS)
		return TD_ERR_CORRUPT;
	if ((uint64_t) 2 * hidden * (hidden + cell->n_in) * (member->steps > 0 ? member->steps : 1) >
		TD_MODEL_MAX_WORK)
		return TD_ERR_SHAPE;

	status = member_floats(model, i, ".zn", 3, &constants);
	if (status != TD_OK)
		return status;
	cell->zeta = constants[0];
	cell->nu = constants[1];
	member->token_scale = constants[2];
	if (!(cell->zeta >= 0.0f && cell->zeta <= 1.0f && cell->nu >= 0.0f && cell->nu <= 1.0f))
		return TD_ERR_CORRUPT;

	status =
		member_factored(model, i, ".w", cell->weights, hidden, cell->n_in, cell->rank_w, &cell->w);
	if (status == TD_OK)
		status =
			member_factored(model, i, ".u", cell->weights, hidden, hidden, cell->rank_u, &cell->u);
	if (status == TD_OK && !cell->tied)
		status = member_factored(model, i, ".wh", cell->weights, hidden, cell->n_in, cell->rank_w,
								 &cell->w_h);
	if (status == TD_OK && !cell->tied)
		status = member_factored(model, i, ".uh", cell->weights, hidden, hidden, cell->rank_u,
								 &cell->u_h);
	if (status == TD_OK)
		status = member_floats(model, i, ".bz", hidden, &cell->b_z);
	if (status == TD_OK)
		status = member_floats(model, i, ".bh", hidden, &cell->b_h);
	if (status == TD_OK)
		status = member_matrix(model, i, ".o", cell->weights, (size_t) model->n_out * hidden,
							   model->n_out, &member->matrix);
	return status != TD_OK ? status : member_floats(model, i, ".ob", model->n_out, &member->bias);
}

static td_status
open_knn(const td_model *model, unsigned i, const uint32_t *meta, td_member_view *member)
{
	suffix of = {".v", NULL, NULL};
	const void *values = NULL;
	const float *constants;
	td_status status;

	member->k = meta[MEMBER_FIRST];
	if (member->k == 0 || member->k > model->n_rows)
		return TD_ERR_CORRUPT;
	status = member_section(model, i, of, TD_U8, (size_t) model->n_rows * model->n_out, &values);
	if (status == TD_OK)
		status = member_floats(model, i, ".p", 2, &constants);
	if (status != TD_OK)
		return status;
	member->values = values;
	member->inverse_temperature = constants[0];
	member->pseudo = constants[1];
	return constants[0] >= 0.0f && constants[1] >= 0.0f ? TD_OK : TD_ERR_CORRUPT;
}

static td_status
open_rbf(const td_model *model, unsigned i, const uint32_t *meta, td_member_view *member)
{
	const float *constants;
	td_status status;

	member->weights = meta[MEMBER_FIRST];
	if (model->n_rows == 0)
		return TD_ERR_CORRUPT;
	status = member_matrix(model, i, ".c", member->weights, (size_t) model->n_rows * model->n_out,
						   model->n_out, &member->matrix);
	if (status == TD_OK)
		status = member_floats(model, i, ".p", 1, &constants);
	if (status != TD_OK)
		return status;
	member->gamma = constants[0];
	if (!(member->gamma > 0.0f))
		return TD_ERR_CORRUPT;
	return member_floats(model, i, ".b", model->n_out, &member->bias);
}

static td_status
open_words(const td_model *model, unsigned i, const uint32_t *meta, td_member_view *member)
{
	size_t b;
	td_status status;

	member->weights = TD_WEIGHTS_I8;
	member->n_buckets = meta[MEMBER_FIRST];
	member->features = meta[MEMBER_FIRST + 1];
	if (member->n_buckets == 0 || member->n_buckets > TD_MODEL_MAX_BUCKETS ||
		(member->n_buckets & (member->n_buckets - 1)) != 0 || member->features == 0 ||
		member->features > (TD_WORDS_UNIGRAMS | TD_WORDS_BIGRAMS | TD_WORDS_LENGTH))
		return TD_ERR_CORRUPT;
	status = member_matrix(model, i, ".w", TD_WEIGHTS_I8, (size_t) member->n_buckets * model->n_out,
						   model->n_out, &member->matrix);
	if (status == TD_OK)
		status = member_floats(model, i, ".idf", member->n_buckets, &member->idf);
	if (status != TD_OK)
		return status;
	for (b = 0; b < member->n_buckets; b++)
	{
		if (!(member->idf[b] >= 0.0f))
			return TD_ERR_CORRUPT;
	}
	return member_floats(model, i, ".b", model->n_out, &member->bias);
}

static td_status
open_member(td_model *model, unsigned i)
{
	td_member_view *member = &model->members[i];
	suffix none = {NULL, NULL, NULL};
	const void *found = NULL;
	const uint32_t *meta;
	td_status status = member_section(model, i, none, TD_U32, MEMBER_N, &found);

	if (status == TD_OK)
		status = member_floats(model, i, ".weight", model->n_out, &member->weight);
	if (status != TD_OK)
		return status;
	meta = found;
	member->kind = meta[MEMBER_KIND];
	switch (member->kind)
	{
		case TD_MEMBER_LINEAR:
			return open_linear(model, i, meta, member);
		case TD_MEMBER_FASTGRNN:
			status = open_cell(model, i, meta, member);
			if (member->steps > 0)
				model->reads_text = model->reads_tokens = 1;
			return status;
		case TD_MEMBER_KNN:
			return open_knn(model, i, meta, member);
		case TD_MEMBER_RBF:
			return open_rbf(model, i, meta, member);
		case TD_MEMBER_WORDS:
			model->reads_text = 1;
			return open_words(model, i, meta, member);
		default:
			return TD_ERR_CORRUPT;
	}
}

static int
is_utf8(const char *text, size_t len)
{
	size_t at = 0;

	while (at < len)
	{
		uint32_t code_point;
		size_t size = td_utf8_decode((const uint8_t *) text + at, len - at, &code_point);

		if (size == 0)
			return 0;
		at += size;
	}
	return 1;
}

/* n_out names, none empty, each with a NUL behind it and nothing after the last. */
static td_status
open_names(td_model *model)
{
	const void *found;
	const char *text;
	size_t size;
	size_t start = 0;
	size_t i;
	uint32_t n = 0;
	td_status status = td_file_section(&model->file, "names", TD_U8, &found, &size);

	if (status != TD_OK)
		return status;
	text = found;
	for (i = 0; i < size; i++)
	{
		if (text[i] != '\0')
			continue;
		if (i == start || !is_utf8(text + start, i - start))
			return TD_ERR_CORRUPT;
		start = i + 1;
		n++;
	}
	model->names = text;
	return n == model->n_out && start == size ? TD_OK : TD_ERR_CORRUPT;
}

/* Increasing from knot to knot, values that do not decrease and are probabilities. */
static int
curve_is_valid(const float *x, const float *y, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		if (!(y[i] >= 0.0f && y[i] <= 1.0f))
			return 0;
		if (i > 0 && !(x[i] > x[i - 1] && y[i] >= y[i - 1]))
			return 0;
	}
	return 1;
}

static td_status
open_curves(td_model *model)
{
	const void *found;
	size_t count = (size_t) model->n_curves * model->n_knots;
	uint32_t i;
	td_status status;

	if (model->n_curves == 0)
		return TD_OK;
	if (model->n_knots == 0 || model->n_knots > TD_MODEL_MAX_KNOTS ||
		(model->n_curves != 1 &&
		 (model->n_curves != model->n_out || model->task == TD_TASK_CLASSIFIER)))
		return TD_ERR_CORRUPT;
	status = td_encoder_require(&model->file, "curve.x", TD_F32, count, &found);
	if (status != TD_OK)
		return status;
	model->curve_x = found;
	status = td_encoder_require(&model->file, "curve.y", TD_F32, count, &found);
	if (status != TD_OK)
		return status;
	model->curve_y = found;
	if (td_vec_check(model->curve_x, count) != TD_OK)
		return TD_ERR_CORRUPT;
	for (i = 0; i < model->n_curves; i++)
	{
		size_t at = (size_t) i * model->n_knots;

		if (!curve_is_valid(model->curve_x + at, model->curve_y + at, model->n_knots))
			return TD_ERR_CORRUPT;
	}
	return TD_OK;
}

static td_status
open_outputs(td_model *model)
{
	const void *found;
	uint32_t i;
	td_status status = td_encoder_require(&model->file, "prior", TD_F32, model->n_out, &found);

	if (status != TD_OK)
		return status;
	model->prior = found;
	status = td_encoder_require(&model->file, "support", TD_U32, model->n_out, &found);
	if (status != TD_OK)
		return status;
	model->support = found;
	for (i = 0; i < model->n_out; i++)
	{
		if (!(model->prior[i] >= 0.0f && model->prior[i] <= 1.0f))
			return TD_ERR_CORRUPT;
	}
	return open_names(model);
}

static td_status
open_rows(td_model *model)
{
	const void *found;
	td_status status;

	if (model->n_rows == 0)
		return TD_OK;
	if ((uint64_t) model->n_rows * (model->n_out + model->width) > TD_MODEL_MAX_WORK)
		return TD_ERR_SHAPE;
	status = td_encoder_require(&model->file, "rows", TD_I8, (size_t) model->n_rows * model->width,
								&found);
	if (status != TD_OK)
		return status;
	model->rows = found;
	status = td_encoder_require(&model->file, "rows.s", TD_F32, model->n_rows, &found);
	if (status != TD_OK)
		return status;
	model->row_scales = found;
	return td_vec_check(model->row_scales, model->n_rows) == TD_OK ? TD_OK : TD_ERR_CORRUPT;
}

static td_status
open_projection(td_model *model, const uint32_t *meta)
{
	td_projection *projection = &model->projection;

	if (meta[MODEL_FORMAT] >= FORMAT_PROJECTION)
	{
		projection->rank = meta[MODEL_WORDS_RANK];
		projection->n_buckets = meta[MODEL_WORDS_BUCKETS];
		projection->features = meta[MODEL_WORDS_FEATURES];
	}
	model->width = model->dim + projection->rank;
	model->reads_text = projection->rank > 0;
	return td_project_open(&model->file, model->dim, projection);
}

td_status
td_model_open(const void *bytes, size_t size, td_model *model)
{
	const void *found;
	const uint32_t *meta;
	td_status status;
	unsigned i;

	memset(model, 0, sizeof(*model));
	status = td_file_open(bytes, size, &model->file);
	if (status != TD_OK)
		return status;
	if (model->file.kind != TD_FILE_MODEL)
		return TD_ERR_KIND;
	status = td_encoder_require(&model->file, "model", TD_U32, MODEL_N, &found);
	if (status != TD_OK)
		return status;
	meta = found;
	if (meta[MODEL_FORMAT] != FORMAT_PLAIN && meta[MODEL_FORMAT] != FORMAT_PROJECTION)
		return TD_ERR_VERSION;
	model->level = td_level_best();
	model->task = meta[MODEL_TASK];
	model->link = meta[MODEL_LINK];
	model->n_out = meta[MODEL_N_OUT];
	model->dim = meta[MODEL_DIM];
	model->n_rows = meta[MODEL_N_ROWS];
	model->n_members = meta[MODEL_N_MEMBERS];
	model->n_curves = meta[MODEL_N_CURVES];
	model->n_knots = meta[MODEL_N_KNOTS];
	model->encoder_checksum = (uint64_t) meta[MODEL_CHECKSUM_HIGH] << 32 | meta[MODEL_CHECKSUM_LOW];
	if (model->task >= TD_N_TASKS || model->link >= TD_N_LINKS || model->n_out == 0 ||
		model->n_out > TD_MODEL_MAX_OUTPUTS || model->dim == 0 || model->dim > TD_MAX_DIM ||
		model->n_rows > TD_MODEL_MAX_ROWS || model->n_members == 0 ||
		model->n_members > TD_MODEL_MAX_MEMBERS)
		return TD_ERR_CORRUPT;
	/* Only the probabilities of a softmax sum to 1. */
	if ((model->task == TD_TASK_CLASSIFIER) != (model->link == TD_LINK_SOFTMAX))
		return TD_ERR_CORRUPT;

	status = td_encoder_require(&model->file, "encoder.id", TD_U8, TD_FILE_ID_SIZE, &found);
	if (status != TD_OK)
		return status;
	memcpy(model->encoder_id, found, TD_FILE_ID_SIZE);
	status = open_projection(model, meta);
	if (status == TD_OK)
		status = open_outputs(model);
	if (status == TD_OK)
		status = open_rows(model);
	if (status == TD_OK)
		status = open_curves(model);
	for (i = 0; i < model->n_members && status == TD_OK; i++)
		status = open_member(model, i);
	return status;
}
