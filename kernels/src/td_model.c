/*
 * td_model.c - a trained model applied to one request: members, their weighted sum, link,
 * calibration.
 *
 * In: a checked model, the request's vector and text.  Out: a probability for each output.  Called
 * by both shells.  python/tinydancer/model_apply.py is the same in readable NumPy.
 *
 * Sums over members, neighbours and words run in double and in one order; products of vectors are
 * those of td_matvec.c and td_fastgrnn.c.  So all processors and both shells give the same bits.
 */
#include <math.h>
#include <string.h>

#include "td_math.h"
#include "td_matvec.h"
#include "tinydancer.h"

#define ALIGNMENT 64u
#define MISSING 255
#define VALUE_STEPS 254.0
#define AHEAD 1.000001

/* Where things lie in the caller's scratch; filled by plan_scratch(). */
typedef struct workspace
{
	double *total;	   /* [n_out] */
	double *score;	   /* [n_out] of one member */
	double *count;	   /* [n_out] KNN: sum of weights */
	float *cosine;	   /* [n_rows] */
	float *kernel;	   /* [n_rows] RBF: exp(-gamma (2 - 2 cosine)) */
	uint32_t *nearest; /* [greatest k]: a heap, the worst on top */
	float *hidden;	   /* [greatest n_hidden] */
	float *product;	   /* [n_out] */
	void *operand;	   /* of td_matvec.h, for a vector of width or n_hidden */
	size_t operand_size;
	uint32_t *ids;	   /* [TD_WORDS_MAX_PIECES] */
	uint32_t *buckets; /* [TD_WORDS_MAX_FEATURES] */
	float *values;	   /* [TD_WORDS_MAX_FEATURES] */
	float *tokens;	   /* [greatest steps][dim] */
	float *wide;	   /* [width], with a projection */
	void *cell;		   /* of td_fastgrnn.c */
	size_t cell_size;
} workspace;

/* What is known of the request; filled by td_model_apply(). */
typedef struct reading
{
	const float *vector; /* [width]: what members read */
	const td_encoder *encoder;
	size_t n_ids;
	int has_text;
	int has_cosines;
} reading;

static size_t
greatest_of(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* The next size bytes of the scratch, or of nothing when start is NULL. */
static void *
take(uint8_t *start, size_t *used, size_t size)
{
	size_t at = *used;

	*used += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return start == NULL ? NULL : start + at;
}

static size_t
plan_scratch(const td_model *model, uint8_t *start, workspace *work)
{
	size_t used = 0;
	size_t k = 0;
	size_t hidden = 0;
	size_t steps = 0;
	size_t n_pieces = model->reads_text ? TD_WORDS_MAX_PIECES : 0;
	size_t n_features = model->reads_text ? TD_WORDS_MAX_FEATURES : 0;
	size_t i;

	work->cell_size = 0;
	for (i = 0; i < model->n_members; i++)
	{
		const td_member_view *m = &model->members[i];

		k = greatest_of(k, m->k);
		if (m->kind != TD_MEMBER_FASTGRNN)
			continue;
		hidden = greatest_of(hidden, m->cell.n_hidden);
		steps = greatest_of(steps, m->steps);
		work->cell_size = greatest_of(work->cell_size, td_fastgrnn_scratch_size(&m->cell));
	}
	work->total = take(start, &used, model->n_out * sizeof(double));
	work->score = take(start, &used, model->n_out * sizeof(double));
	work->count = take(start, &used, model->n_out * sizeof(double));
	work->cosine = take(start, &used, model->n_rows * sizeof(float));
	work->kernel = take(start, &used, model->n_rows * sizeof(float));
	work->nearest = take(start, &used, k * sizeof(uint32_t));
	work->hidden = take(start, &used, hidden * sizeof(float));
	work->product = take(start, &used, model->n_out * sizeof(float));
	work->operand_size = td_matvec_scratch_size(greatest_of(model->width, hidden));
	work->operand = take(start, &used, work->operand_size);
	work->ids = take(start, &used, n_pieces * sizeof(uint32_t));
	work->buckets = take(start, &used, n_features * sizeof(uint32_t));
	work->values = take(start, &used, n_features * sizeof(float));
	work->tokens = take(start, &used, steps * model->dim * sizeof(float));
	work->wide = take(start, &used, model->projection.rank > 0 ? model->width * sizeof(float) : 0);
	work->cell = take(start, &used, work->cell_size);
	return used;
}

size_t
td_model_scratch_size(const td_model *model)
{
	workspace work;

	return plan_scratch(model, NULL, &work);
}

/* score = matrix[n_out][n] vector + bias */
static td_status
apply_matrix(const td_model *model, const td_member_view *m, const float *vector, size_t n,
			 const workspace *work)
{
	td_status status = td_matvec(model->level, &m->matrix, m->weights, model->n_out, n, vector,
								 work->product, work->operand, work->operand_size);
	size_t j;

	for (j = 0; status == TD_OK && j < model->n_out; j++)
		work->score[j] = (double) work->product[j] + m->bias[j];
	return status;
}

/* The vectors of the text's word pieces that have one, at most m->steps of them. */
static size_t
read_tokens(const td_member_view *m, const reading *request, const workspace *work)
{
	const td_encoder *encoder = request->encoder;
	size_t dim = encoder->dim;
	size_t n = 0;
	size_t i;
	size_t d;

	for (i = 0; i < request->n_ids && n < m->steps; i++)
	{
		size_t row;
		float scale;

		if (work->ids[i] < encoder->first_row)
			continue;
		row = work->ids[i] - encoder->first_row;
		scale = encoder->static_scales[encoder->static_codes[row]] * m->token_scale;
		for (d = 0; d < dim; d++)
			work->tokens[n * dim + d] = (float) encoder->static_rows[row * dim + d] * scale;
		n++;
	}
	return n;
}

static td_status
apply_cell(const td_model *model, const td_member_view *m, const reading *request,
		   const workspace *work)
{
	td_status status;

	if (m->steps == 0)
		status = td_fastgrnn_forward_single(&m->cell, request->vector, work->hidden, work->cell,
											work->cell_size);
	else
	{
		memset(work->hidden, 0, m->cell.n_hidden * sizeof(float));
		status = td_fastgrnn_forward(&m->cell, work->tokens, read_tokens(m, request, work),
									 work->hidden, work->cell, work->cell_size);
	}
	return status != TD_OK ? status : apply_matrix(model, m, work->hidden, m->cell.n_hidden, work);
}

/* Cosines with all rows, once for all members that want them. */
static void
find_cosines(const td_model *model, reading *request, const workspace *work)
{
	const td_code *code = td_code_of(model->level);
	td_operand operand;

	if (request->has_cosines)
		return;
	request->has_cosines = 1;
	code->make_operand(request->vector, model->width, work->operand, &operand);
	code->rows_i8(model->rows, model->row_scales, model->n_rows, model->width, &operand,
				  work->cosine);
}

/* Whether row a is further away than row b; of equals the later one. */
static int
is_further(const float *cosine, uint32_t a, uint32_t b)
{
	return cosine[a] != cosine[b] ? cosine[a] < cosine[b] : a > b;
}

static void
sift_down(const float *cosine, uint32_t *heap, uint32_t n)
{
	uint32_t held = heap[0];
	uint32_t root = 0;

	for (;;)
	{
		uint32_t child = 2 * root + 1;

		if (child >= n)
			break;
		if (child + 1 < n && is_further(cosine, heap[child + 1], heap[child]))
			child++;
		if (!is_further(cosine, heap[child], held))
			break;
		heap[root] = heap[child];
		root = child;
	}
	heap[root] = held;
}

/* The k nearest rows into work->nearest, in an order that depends on the cosines alone. */
static void
find_nearest(const td_model *model, uint32_t k, const workspace *work)
{
	uint32_t *heap = work->nearest;
	uint32_t n = 0;
	uint32_t i;

	for (i = 0; i < model->n_rows; i++)
	{
		if (n < k)
		{
			uint32_t at = n++;

			while (at > 0 && is_further(work->cosine, i, heap[(at - 1) / 2]))
			{
				heap[at] = heap[(at - 1) / 2];
				at = (at - 1) / 2;
			}
			heap[at] = i;
		}
		else if (is_further(work->cosine, heap[0], i))
		{
			heap[0] = i;
			sift_down(work->cosine, heap, k);
		}
	}
}

static void
apply_knn(const td_model *model, const td_member_view *m, const workspace *work)
{
	size_t n_out = model->n_out;
	size_t j;
	uint32_t i;

	find_nearest(model, m->k, work);
	for (j = 0; j < n_out; j++)
	{
		work->score[j] = (double) m->pseudo * model->prior[j];
		work->count[j] = m->pseudo;
	}
	for (i = 0; i < m->k; i++)
	{
		uint32_t row = work->nearest[i];
		const uint8_t *values = m->values + row * n_out;
		double weight = td_exp(((double) work->cosine[row] - 1.0) * m->inverse_temperature);

		for (j = 0; j < n_out; j++)
		{
			if (values[j] == MISSING)
				continue;
			work->score[j] += weight * (values[j] / VALUE_STEPS);
			work->count[j] += weight;
		}
	}
	for (j = 0; j < n_out; j++)
		work->score[j] = work->count[j] > 0.0 ? work->score[j] / work->count[j] : model->prior[j];
}

static void
apply_rbf(const td_model *model, const td_member_view *m, const workspace *work)
{
	const td_code *code = td_code_of(model->level);
	size_t n_out = model->n_out;
	size_t i;
	size_t j;

	/* Quantising can carry a cosine a little past 1. */
	for (i = 0; i < model->n_rows; i++)
	{
		float distance = 2.0f - 2.0f * work->cosine[i];

		work->kernel[i] = m->gamma * (distance > 0.0f ? distance : 0.0f);
	}
	code->exp_minus(work->kernel, work->kernel, model->n_rows);
	memset(work->score, 0, n_out * sizeof(double));
	if (m->weights == TD_WEIGHTS_I8)
		code->weighted_rows_i8(m->matrix.i8, work->kernel, model->n_rows, n_out, work->score);
	else
		code->weighted_rows_f32(m->matrix.f32, work->kernel, model->n_rows, n_out, work->score);
	for (j = 0; j < n_out; j++)
	{
		if (m->weights == TD_WEIGHTS_I8)
			work->score[j] *= m->matrix.scales[j];
		work->score[j] += m->bias[j];
	}
}

static void
apply_words(const td_model *model, const td_member_view *m, const reading *request,
			const workspace *work)
{
	size_t n_out = model->n_out;
	size_t n = td_words_features(work->ids, request->n_ids, m->n_buckets, m->features,
								 work->buckets, work->values);
	double length = 0.0;
	size_t i;
	size_t j;

	memset(work->score, 0, n_out * sizeof(double));
	for (i = 0; i < n; i++)
	{
		double x = (double) work->values[i] * m->idf[work->buckets[i]];
		const int8_t *row = m->matrix.i8 + work->buckets[i] * n_out;

		length += x * x;
		for (j = 0; j < n_out; j++)
			work->score[j] += x * row[j];
	}
	length = length > 0.0 ? sqrt(length) : 1.0;
	for (j = 0; j < n_out; j++)
		work->score[j] = m->bias[j] + work->score[j] / length * m->matrix.scales[j];
}

static int
reads_text(const td_member_view *m)
{
	return m->kind == TD_MEMBER_WORDS || (m->kind == TD_MEMBER_FASTGRNN && m->steps > 0);
}

static td_status
apply_member(const td_model *model, const td_member_view *m, reading *request,
			 const workspace *work)
{
	switch (m->kind)
	{
		case TD_MEMBER_LINEAR:
			return apply_matrix(model, m, request->vector, model->width, work);
		case TD_MEMBER_FASTGRNN:
			return apply_cell(model, m, request, work);
		case TD_MEMBER_KNN:
			find_cosines(model, request, work);
			apply_knn(model, m, work);
			return TD_OK;
		case TD_MEMBER_RBF:
			find_cosines(model, request, work);
			apply_rbf(model, m, work);
			return TD_OK;
		case TD_MEMBER_WORDS:
			apply_words(model, m, request, work);
			return TD_OK;
		default:
			return TD_ERR_SHAPE;
	}
}

/* Members that read a text which is not there have left weight missing: the others take it over. */
static void
raise_weights(const td_model *model, double *total)
{
	size_t j;
	uint32_t i;

	for (j = 0; j < model->n_out; j++)
	{
		double all = 0.0;
		double present = 0.0;

		for (i = 0; i < model->n_members; i++)
		{
			all += model->members[i].weight[j];
			if (!reads_text(&model->members[i]))
				present += model->members[i].weight[j];
		}
		total[j] = present > 0.0 ? total[j] * (all / present) : model->prior[j];
	}
}

/* The calibrated value: piecewise linear between knots, flat outside of them. */
static double
calibrate(const td_model *model, size_t output, double p)
{
	size_t curve = model->n_curves == 1 ? 0 : output;
	const float *x = model->curve_x + curve * model->n_knots;
	const float *y = model->curve_y + curve * model->n_knots;
	uint32_t low = 0;
	uint32_t high = model->n_knots - 1;

	if (p <= x[0])
		return y[0];
	if (p >= x[high])
		return y[high];
	while (high - low > 1)
	{
		uint32_t middle = low + (high - low) / 2;

		if (p >= x[middle])
			low = middle;
		else
			high = middle;
	}
	return y[low] + (p - x[low]) * ((double) y[high] - y[low]) / ((double) x[high] - x[low]);
}

/*
 * The most probable category gets its calibrated probability, the others share the rest as before;
 * it stays the most probable one.
 */
static void
calibrate_top(const td_model *model, double *p)
{
	size_t top = 0;
	double second = 0.0;
	double raised;
	double rest;
	size_t j;

	for (j = 1; j < model->n_out; j++)
	{
		if (p[j] > p[top])
			top = j;
	}
	for (j = 0; j < model->n_out; j++)
	{
		if (j != top && p[j] > second)
			second = p[j];
	}
	rest = 1.0 - p[top];
	if (!(rest > 0.0))
		return;
	raised = calibrate(model, top, p[top]);
	/* A little above the second, so that rounding to float makes no tie of the two. */
	if (raised < AHEAD * second / (rest + second))
		raised = AHEAD * second / (rest + second);
	for (j = 0; j < model->n_out; j++)
		p[j] = j == top ? raised : p[j] * ((1.0 - raised) / rest);
}

static void
softmax(const td_model *model, double *total)
{
	double greatest = total[0];
	double sum = 0.0;
	size_t j;

	for (j = 1; j < model->n_out; j++)
		greatest = total[j] > greatest ? total[j] : greatest;
	for (j = 0; j < model->n_out; j++)
	{
		total[j] = td_exp(total[j] - greatest);
		sum += total[j];
	}
	for (j = 0; j < model->n_out; j++)
		total[j] /= sum;
	if (model->n_curves > 0)
		calibrate_top(model, total);
}

static void
link_each(const td_model *model, double *total)
{
	size_t j;

	for (j = 0; j < model->n_out; j++)
	{
		if (model->link == TD_LINK_SIGMOID)
			total[j] = 1.0 / (1.0 + td_exp(-total[j]));
		if (total[j] < 0.0)
			total[j] = 0.0;
		if (total[j] > 1.0)
			total[j] = 1.0;
		if (model->n_curves > 0)
			total[j] = calibrate(model, j, total[j]);
	}
}

/* The word pieces of the text, which say also whether it is UTF-8. */
static td_status
read_text(const td_model *model, const td_encoder *encoder, const char *text, size_t len,
		  const workspace *work, reading *request)
{
	td_token_count count;
	td_status status;

	request->has_text = text != NULL;
	if (text == NULL || !model->reads_text)
		return TD_OK;
	/* Words need its vocabulary alone, which it may share with the one that made the vector. */
	if (encoder == NULL || (model->reads_tokens && (encoder->dim != model->dim ||
													encoder->file.kind != TD_FILE_STATIC_ENCODER)))
		return TD_ERR_SHAPE;
	request->encoder = encoder;
	status = td_text_tokenize(&encoder->vocab, text, len, work->ids, TD_WORDS_MAX_PIECES, &count);
	request->n_ids = count.n_stored;
	return status;
}

td_status
td_model_apply(const td_model *model, const td_encoder *encoder, const char *text, size_t len,
			   const float *embedding, float *out, void *scratch, size_t scratch_size)
{
	reading request = {embedding, NULL, 0, 0, 0};
	workspace work;
	td_status status;
	size_t j;
	uint32_t i;

	if (scratch == NULL || scratch_size < plan_scratch(model, NULL, &work))
		return TD_ERR_BUFFER;
	plan_scratch(model, scratch, &work);
	if (td_vec_check(embedding, model->dim) != TD_OK)
		return TD_ERR_NONFINITE;
	status = read_text(model, encoder, text, len, &work, &request);
	if (status != TD_OK)
		return status;
	if (model->projection.rank > 0)
	{
		td_project(&model->projection, model->dim, embedding, work.ids, request.n_ids, work.buckets,
				   work.values, work.wide);
		request.vector = work.wide;
	}

	memset(work.total, 0, model->n_out * sizeof(double));
	for (i = 0; i < model->n_members; i++)
	{
		const td_member_view *m = &model->members[i];

		if (reads_text(m) && !request.has_text)
			continue;
		status = apply_member(model, m, &request, &work);
		if (status != TD_OK)
			return status;
		for (j = 0; j < model->n_out; j++)
			work.total[j] += m->weight[j] * work.score[j];
	}
	if (model->reads_text && !request.has_text && model->link == TD_LINK_IDENTITY)
		raise_weights(model, work.total);

	/* Finite weights may still sum to more than a float, or a double, holds. */
	for (j = 0; j < model->n_out; j++)
	{
		if (!(fabs(work.total[j]) <= 1e300))
			return TD_ERR_NONFINITE;
	}
	if (model->link == TD_LINK_SOFTMAX)
		softmax(model, work.total);
	else
		link_each(model, work.total);
	for (j = 0; j < model->n_out; j++)
		out[j] = (float) work.total[j];
	return TD_OK;
}
