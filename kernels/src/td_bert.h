/*
 * td_bert.h - what the files of the BERT encoder share.
 *
 * Internal.  td_bert_open.c checks a file, td_bert.c says where things lie in the lent scratch, and
 * td_bert_<level>.c do the arithmetic: each includes td_bert_body.h and adds the one product that
 * is written for its instruction set.
 *
 * Vocabulary
 *   row    one word piece of one text; the rows of several texts stand below each other
 *   chunk  rows that go through a product together
 *   panel  64 output channels of a matrix, contiguous in the file
 */
#ifndef TD_BERT_H
#define TD_BERT_H

#include "tinydancer.h"

#define TD_BERT_PANEL 64

/* Rows of a chunk: bounds the scratch of the feed-forward part and the time of a step. */
#define TD_BERT_CHUNK 48u

/* What works in a job's scratch; all pointers are aligned to 64. */
typedef struct td_bert_work
{
	uint32_t n_rows;
	uint32_t *ids;	  /* [capacity] */
	float *hidden;	  /* [n_rows][dim]: the residual stream */
	float *qkv;		  /* [n_rows][3 dim]: query (later context), key, value */
	uint8_t *quant;	  /* [n_rows][dim]: hidden or context as u8 */
	float *scale;	  /* [n_rows]: of quant */
	int32_t *zero;	  /* [n_rows]: the u8 that stands for 0 */
	float *keys;	  /* [head size][padded rows]: keys of one head of one text, transposed */
	float *weights;	  /* [4][padded rows]: attention of four queries */
	float *inner;	  /* [chunk][n_inner], also the output of the products to dim */
	uint8_t *inner_q; /* [chunk][n_inner] */
} td_bert_work;

/* The section of that name; TD_ERR_CORRUPT unless it has exactly count elements.  In td_encoder.c.
 */
td_status td_encoder_require(const td_file *file, const char *name, td_element element,
							 size_t count, const void **data);

/* The second half of td_encoder_open(), for a BERT encoder.  In td_bert_open.c. */
td_status td_bert_open(td_encoder *encoder);

/* Bytes of scratch for so many rows, and the rows that so many bytes hold.  In td_bert.c. */
size_t td_bert_scratch_size(const td_encoder *encoder, size_t n_rows);
size_t td_bert_capacity(const td_encoder *encoder, size_t scratch_size);

/* Where things lie in a job's scratch. */
void td_bert_layout(const td_embed_job *job, td_bert_work *work);

/* One step of a job; 0 when the last layer is done.  In td_bert.c. */
int td_bert_step(td_embed_job *job);

/* The pooled vector of a text when all steps are done, of unit length. */
td_status td_bert_pool(const td_embed_job *job, size_t text, float *out);

/* td_bert_step() with one set of code each. */
int td_bert_step_portable(td_embed_job *job);
int td_bert_step_sse2(td_embed_job *job);
int td_bert_step_avx2(td_embed_job *job);
int td_bert_step_avx512(td_embed_job *job);

#endif /* TD_BERT_H */
