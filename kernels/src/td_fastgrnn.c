/*
 * td_fastgrnn.c - the FastGRNN cell of Kusupati et al. 2018 (arXiv:1901.02358).
 *
 * A cell, inputs and a hidden state in, the next hidden state out; called by both shells for one
 * step on a sentence vector or a sequence of token vectors.
 *
 * Products and activations are those of the cell's level, which all give the same bits.
 * Every entry point runs the same sequence of float operations for a step, so that a step from a
 * zero state, a sequence of one and a row of a batch give the same bits.  Work is done on a copy of
 * the hidden state in scratch; the caller's is written when everything went well.
 */
#include <string.h>

#include "td_matvec.h"

#define MAX_SIDE 65536u
#define ALIGNMENT 64u

/* Where each buffer lies in the caller's scratch; filled by plan_scratch(). */
typedef struct workspace
{
	float *x_gate;		/* [n_hidden] W x */
	float *x_candidate; /* [n_hidden] W' x */
	float *h_gate;		/* [n_hidden] U h */
	float *h_candidate; /* [n_hidden] U' h */
	float *h;			/* [n_hidden] the state while it is worked on */
	float *middle;		/* [rank] between the two factors of a matrix */
	void *quantised;	/* of n_in, n_hidden or rank: the operand a matrix is applied to */
	const td_code *code;
} workspace;

/* A vector as a matrix wants it: float, and for int8 weights quantised too. */
typedef struct factor
{
	const float *f32;
	td_operand i8;
} factor;

static size_t
padded(size_t size)
{
	return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t
greatest_of(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Size of the scratch; fills *work when start is not NULL. */
static size_t
plan_scratch(const td_fastgrnn *cell, uint8_t *start, workspace *work)
{
	size_t hidden = padded(cell->n_hidden * sizeof(float));
	size_t rank = greatest_of(cell->rank_w, cell->rank_u);
	size_t middle = padded(rank * sizeof(float));
	size_t longest = greatest_of(greatest_of(cell->n_in, cell->n_hidden), rank);

	if (start != NULL)
	{
		work->x_gate = (float *) start;
		work->x_candidate = (float *) (start + hidden);
		work->h_gate = (float *) (start + 2 * hidden);
		work->h_candidate = (float *) (start + 3 * hidden);
		work->h = (float *) (start + 4 * hidden);
		work->middle = (float *) (start + 5 * hidden);
		work->quantised = start + 5 * hidden + middle;
		work->code = td_code_of(cell->level);
	}
	return 5 * hidden + middle + td_operand_size(longest);
}

static int
has_matrix(const td_matrix *matrix, uint32_t weights)
{
	if (weights == TD_WEIGHTS_I8)
		return matrix->i8 != NULL && matrix->scales != NULL;
	return matrix->f32 != NULL;
}

static int
has_factors(const td_factored *factors, uint32_t rank, uint32_t weights)
{
	return has_matrix(&factors->right, weights) &&
		   (rank == 0 || has_matrix(&factors->left, weights));
}

static td_status
check_cell(const td_fastgrnn *cell)
{
	if (cell->n_in == 0 || cell->n_in > MAX_SIDE || cell->n_hidden == 0 ||
		cell->n_hidden > MAX_SIDE)
		return TD_ERR_SHAPE;
	if (cell->rank_w > cell->n_in || cell->rank_w > cell->n_hidden || cell->rank_u > cell->n_hidden)
		return TD_ERR_SHAPE;
	if (cell->tied > 1 || (cell->weights != TD_WEIGHTS_F32 && cell->weights != TD_WEIGHTS_I8))
		return TD_ERR_SHAPE;

	/* Written so that NaN is refused as well. */
	if (!(cell->zeta >= 0.0f && cell->zeta <= 1.0f && cell->nu >= 0.0f && cell->nu <= 1.0f))
		return TD_ERR_SHAPE;

	if (!has_factors(&cell->w, cell->rank_w, cell->weights) ||
		!has_factors(&cell->u, cell->rank_u, cell->weights))
		return TD_ERR_SHAPE;
	if (!cell->tied && (!has_factors(&cell->w_h, cell->rank_w, cell->weights) ||
						!has_factors(&cell->u_h, cell->rank_u, cell->weights)))
		return TD_ERR_SHAPE;
	if (cell->b_z == NULL || cell->b_h == NULL)
		return TD_ERR_SHAPE;
	return TD_OK;
}

/* What every entry point checks before it writes anything. */
static td_status
begin(const td_fastgrnn *cell, const float *x, size_t n_x, void *scratch, size_t scratch_size,
	  workspace *work)
{
	td_status status = check_cell(cell);

	if (status != TD_OK)
		return status;
	if (scratch == NULL || scratch_size < plan_scratch(cell, NULL, NULL))
		return TD_ERR_BUFFER;
	plan_scratch(cell, scratch, work);
	return work->code->check(x, n_x * cell->n_in);
}

static factor
make_factor(const float *vector, size_t n, uint32_t weights, const workspace *work)
{
	factor result = {vector, {NULL, NULL, 0, 0.0f}};

	if (weights == TD_WEIGHTS_I8)
		work->code->make_operand(vector, n, work->quantised, &result.i8);
	return result;
}

/* y[n_out] = matrix[n_out][n_in] vector */
static void
multiply(const td_matrix *matrix, const factor *vector, size_t n_out, size_t n_in, uint32_t weights,
		 const td_code *code, float *y)
{
	if (weights == TD_WEIGHTS_I8)
		code->rows_i8(matrix->i8, matrix->scales, n_out, n_in, &vector->i8, y);
	else
		code->rows_f32(matrix->f32, n_out, n_in, vector->f32, y);
}

/*
 * gate = factors vector, and candidate = candidate_factors vector, or a copy when those are NULL
 * (tied).  The vector has n_in elements.
 */
static void
multiply_pair(const td_fastgrnn *cell, const td_factored *factors,
			  const td_factored *candidate_factors, uint32_t rank, const float *vector, size_t n_in,
			  const workspace *work, float *gate, float *candidate)
{
	const td_factored *both[2] = {factors, candidate_factors};
	float *out[2] = {gate, candidate};
	size_t n_out = cell->n_hidden;
	int i;

	for (i = 0; i < 2; i++)
	{
		factor in;

		if (both[i] == NULL)
		{
			memcpy(out[i], out[0], n_out * sizeof(float));
			continue;
		}

		/* With a rank, quantising the middle has overwritten the quantised vector. */
		if (i == 0 || rank > 0)
			in = make_factor(vector, n_in, cell->weights, work);
		if (rank == 0)
			multiply(&both[i]->right, &in, n_out, n_in, cell->weights, work->code, out[i]);
		else
		{
			factor middle;

			multiply(&both[i]->right, &in, rank, n_in, cell->weights, work->code, work->middle);
			middle = make_factor(work->middle, rank, cell->weights, work);
			multiply(&both[i]->left, &middle, n_out, rank, cell->weights, work->code, out[i]);
		}
	}
}

/* The products with x, into work->x_gate and work->x_candidate. */
static void
multiply_input(const td_fastgrnn *cell, const float *x, const workspace *work)
{
	multiply_pair(cell, &cell->w, cell->tied ? NULL : &cell->w_h, cell->rank_w, x, cell->n_in, work,
				  work->x_gate, work->x_candidate);
}

/* The products with the state, into work->h_gate and work->h_candidate. */
static void
multiply_state(const td_fastgrnn *cell, const workspace *work)
{
	multiply_pair(cell, &cell->u, cell->tied ? NULL : &cell->u_h, cell->rank_u, work->h,
				  cell->n_hidden, work, work->h_gate, work->h_candidate);
}

/* A zero state and its products, which are zero: what multiply_state() would give. */
static void
clear_state(const td_fastgrnn *cell, const workspace *work)
{
	size_t size = cell->n_hidden * sizeof(float);

	memset(work->h, 0, size);
	memset(work->h_gate, 0, size);
	memset(work->h_candidate, 0, size);
}

/* The elementwise part of a step: work->h becomes h_t. */
static void
update_state(const td_fastgrnn *cell, const workspace *work)
{
	float *gate = work->x_gate;
	float *candidate = work->x_candidate;
	float *h = work->h;
	size_t n = cell->n_hidden;
	size_t i;

	for (i = 0; i < n; i++)
	{
		gate[i] = (gate[i] + work->h_gate[i]) + cell->b_z[i];
		candidate[i] = (candidate[i] + work->h_candidate[i]) + cell->b_h[i];
	}
	work->code->sigmoid(gate, gate, n);
	work->code->hyperbolic_tangent(candidate, candidate, n);
	for (i = 0; i < n; i++)
		h[i] = (cell->zeta * (1.0f - gate[i]) + cell->nu) * candidate[i] + gate[i] * h[i];
}

size_t
td_fastgrnn_scratch_size(const td_fastgrnn *cell)
{
	return plan_scratch(cell, NULL, NULL);
}

td_status
td_fastgrnn_step(const td_fastgrnn *cell, const float *x, float *h, void *scratch,
				 size_t scratch_size)
{
	return td_fastgrnn_forward(cell, x, 1, h, scratch, scratch_size);
}

td_status
td_fastgrnn_forward(const td_fastgrnn *cell, const float *x, size_t n_steps, float *h,
					void *scratch, size_t scratch_size)
{
	workspace work;
	td_status status = begin(cell, x, n_steps, scratch, scratch_size, &work);
	size_t step;

	if (status != TD_OK)
		return status;
	status = work.code->check(h, cell->n_hidden);
	if (status != TD_OK)
		return status;

	memcpy(work.h, h, cell->n_hidden * sizeof(float));
	for (step = 0; step < n_steps; step++)
	{
		multiply_input(cell, x + step * cell->n_in, &work);
		multiply_state(cell, &work);
		update_state(cell, &work);
	}

	/* A sum that overflowed both ways is NaN although weights and inputs are finite. */
	status = work.code->check(work.h, cell->n_hidden);
	if (status != TD_OK)
		return status;
	memcpy(h, work.h, cell->n_hidden * sizeof(float));
	return TD_OK;
}

td_status
td_fastgrnn_forward_single(const td_fastgrnn *cell, const float *x, float *h, void *scratch,
						   size_t scratch_size)
{
	return td_fastgrnn_forward_batch(cell, x, 1, h, scratch, scratch_size);
}

td_status
td_fastgrnn_forward_batch(const td_fastgrnn *cell, const float *x, size_t n, float *h,
						  void *scratch, size_t scratch_size)
{
	workspace work;
	td_status status = begin(cell, x, n, scratch, scratch_size, &work);
	size_t row;

	if (status != TD_OK)
		return status;
	for (row = 0; row < n; row++)
	{
		multiply_input(cell, x + row * cell->n_in, &work);
		clear_state(cell, &work);
		update_state(cell, &work);
		status = work.code->check(work.h, cell->n_hidden);
		if (status != TD_OK)
			return status;
		memcpy(h + row * cell->n_hidden, work.h, cell->n_hidden * sizeof(float));
	}
	return TD_OK;
}
