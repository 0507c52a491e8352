/*
 * td_bert_portable.c - the layers of a BERT encoder in plain C: for any processor, and the measure
 * of the others.
 *
 * In and out: see td_bert_body.h.  Called by td_bert_step().
 */

#include "td_bert.h"
#include "td_lanes.h"

static void
product_block(const uint8_t *a, size_t stride, size_t rows, const int8_t *weight, size_t n_quads,
			  const int8_t *ahead, int32_t *sums)
{
	size_t quad;
	size_t i;
	size_t c;

	(void) ahead;
	memset(sums, 0, rows * TD_BERT_PANEL * sizeof(int32_t));
	for (quad = 0; quad < n_quads; quad++, weight += 4 * TD_BERT_PANEL)
	{
		for (i = 0; i < rows; i++)
		{
			const uint8_t *x = a + i * stride + 4 * quad;
			int32_t *sum = sums + i * TD_BERT_PANEL;

			for (c = 0; c < TD_BERT_PANEL; c++)
				sum[c] += x[0] * weight[4 * c] + x[1] * weight[4 * c + 1] +
						  x[2] * weight[4 * c + 2] + x[3] * weight[4 * c + 3];
		}
	}
}

#include "td_bert_body.h"

int
td_bert_step_portable(td_embed_job *job)
{
	return step(job);
}
