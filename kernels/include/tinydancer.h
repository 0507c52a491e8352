/*
 * tinydancer.h - the kernel of Tiny Dancer: text to vector to score to decision.
 *
 * The one place where model arithmetic happens.  Pure C11: no heap, no I/O, no changing globals,
 * no locks, no Postgres, no Python.  Both shells (fdw/ and kernels/_kernels.pyx) call these
 * functions and nothing else, so the same inputs give the same bits in SQL and in Python.
 *
 * Vocabulary
 *   agent      something a request can be sent to: a model, a tool, an API, a person, an ensemble
 *   phrase     a short text that says what an agent is good at; each has a vector of its own
 *   encoder    a file that turns text into a unit vector
 *   similarity greatest cosine between a request and the phrases of one agent, in [-1, 1]
 *   fit        similarity as a probability: logistic((similarity - mu) / s), in (0, 1)
 *   score      what an objective maximises; the decision is the eligible agent of greatest score
 *
 * Rules that hold for every function
 *   - The caller owns every buffer.  Where scratch is needed, a _size function says how much.
 *   - Vectors are contiguous float32, row-major matrices have no padding unless a stride is named.
 *   - Pointers must not overlap unless the comment says so.
 *   - On any status but TD_OK the outputs are unspecified, but never read or written out of bounds.
 *   - Float sums run in one fixed lane order and integer sums are exact: results do not depend on
 *     the CPU, the compiler's vectoriser or the shell (-ffp-contract=off, no -ffast-math).
 *   - Hosts are little-endian with IEEE 754 floats; td_file_open() refuses others.
 */
#ifndef TINYDANCER_H
#define TINYDANCER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

/* ---------------------------------------------------------------- in td_status.c: outcomes */

typedef enum td_status
{
	TD_OK = 0,
	TD_ERR_BUFFER,	  /* a lent buffer is smaller than its _size function says */
	TD_ERR_SHAPE,	  /* dimensions that contradict each other */
	TD_ERR_DIMENSION, /* a vector of another length than the encoder or model expects */
	TD_ERR_NONFINITE, /* a NaN or an infinity in a vector or a weight */
	TD_ERR_EMPTY,	  /* a text without anything to encode */
	TD_ERR_UTF8,	  /* a text that is not valid UTF-8 */
	TD_ERR_NOT_FILE,  /* bytes that do not start like one of our files */
	TD_ERR_VERSION,	  /* a file of another format version, or for another byte order */
	TD_ERR_TRUNCATED, /* a file shorter or longer than it says */
	TD_ERR_CHECKSUM,  /* a file whose bytes were changed */
	TD_ERR_CORRUPT,	  /* a file with an impossible offset, size or value */
	TD_ERR_KIND		  /* a file of another kind than the caller wanted */
} td_status;

/*
 * The sentence for a status: lower case, no final period, the primary message of both shells.
 * Never NULL, static storage.
 */
const char *td_status_text(td_status status);

/* ---------------------------------------------------------------- in td_cpu.c: instruction sets */

/* Sets of code for one kind of processor each.  All give the same bits. */
typedef enum td_level
{
	TD_LEVEL_PORTABLE = 0,
	TD_LEVEL_SSE2,
	TD_LEVEL_AVX2,
	TD_LEVEL_AVX512_VNNI
} td_level;
#define TD_N_LEVELS 4

/* The greatest level that this processor, its operating system and this build can run.  O(1). */
td_level td_level_best(void);

/* "portable", "sse2", "avx2" or "avx512_vnni". */
const char *td_level_name(td_level level);

/* ---------------------------------------------------------------- in td_vec.c: vectors */

/* Sum of a[i] * b[i] over n, in the fixed lane order (sixteen lanes, then a halving tree). */
float td_vec_dot(const float *a, const float *b, size_t n);

/* Euclidean length of a[n]. */
float td_vec_norm(const float *a, size_t n);

/* Cosine of a[n] and b[n], clamped to [-1, 1]; 0 when either has length 0.  a may equal b. */
float td_vec_cosine(const float *a, const float *b, size_t n);

/* TD_OK when all of a[n] are finite, else TD_ERR_NONFINITE. */
td_status td_vec_check(const float *a, size_t n);

/*
 * Scale a[n] to unit length in place.  A vector of zeros stays as it is, and so does one that is
 * within 2^-23 of unit length: scaling twice gives the bits of scaling once.
 * Returns TD_ERR_NONFINITE if an element or the length is not finite.
 */
td_status td_vec_normalise(float *a, size_t n);

/*
 * Quantise a[n] to int8: q[i] = round-half-even(a[i] / scale), scale = max|a| / 127.
 * Returns the scale; 0 (and all q = 0) for a vector of zeros.  Requires finite input.
 */
float td_vec_quantise(const float *a, size_t n, int8_t *q);

/* Exact sum of a[i] * b[i] over n int8 values; n must be at most 131,072 (no overflow of int32). */
int32_t td_vec_dot_i8(const int8_t *a, const int8_t *b, size_t n);

/* y[i] = 1 / (1 + exp(-x[i])) over n, error at most 4 ulp; y may equal x. */
void td_vec_sigmoid(const float *x, float *y, size_t n);

/* y[i] = tanh(x[i]) over n, error at most 4 ulp; y may equal x. */
void td_vec_tanh(const float *x, float *y, size_t n);

/* ---------------------------------------------------------------- in td_matvec.c: matrices */

typedef enum td_weights
{
	TD_WEIGHTS_F32 = 0,
	TD_WEIGHTS_I8 = 1 /* int8 per output row; inputs are quantised per vector, sums are exact */
} td_weights;

/* One matrix, row-major [n_out][n_in]: float values, or int8 values with one scale per row. */
typedef struct td_matrix
{
	const float *f32;	 /* TD_WEIGHTS_F32 */
	const int8_t *i8;	 /* TD_WEIGHTS_I8 */
	const float *scales; /* [n_out], TD_WEIGHTS_I8 */
} td_matrix;

/*
 * y = matrix x, by the code of a level.
 *
 * level    td_level; td_level_best() unless a caller lowers it, 0: portable C
 * weights  td_weights: which of the matrix's arrays is read.  f32: y[i] = td_vec_dot() of row i and
 *          x.  int8: x is quantised as by td_vec_quantise(), and y[i] = sum * (scale of x * scale
 *          of row i) with the exact sum of the int8 products
 * x        [n_in]
 * y        [n_out] out
 * scratch  td_matvec_scratch_size(n_in) bytes, aligned to 64
 *
 * Returns TD_ERR_NONFINITE for a NaN or infinity in x, TD_ERR_SHAPE when n_in is 0 or over 131,072
 * or the array of the weights is missing, TD_ERR_BUFFER.  Cost O(n_out * n_in).
 */
size_t td_matvec_scratch_size(size_t n_in);
td_status td_matvec(uint32_t level, const td_matrix *matrix, uint32_t weights, size_t n_out,
					size_t n_in, const float *x, float *y, void *scratch, size_t scratch_size);

/* ---------------------------------------------------------------- in td_topk.c: cosine search */

/*
 * The k rows nearest to a query by cosine.
 *
 * level   td_level, as for td_matvec()
 * query   [dim], unit length or zero
 * rows    [n_rows][dim] int8, each the td_vec_quantise() of a unit vector
 * scales  [n_rows], the scales of the rows
 * index   [k] out: row numbers, greatest cosine first, equal cosines by lower row number
 * score   [k] out: their cosines, clamped to [-1, 1]
 * n_found out: min(k, n_rows)
 * scratch td_topk_scratch_size(dim) bytes, aligned to 64
 *
 * Returns TD_ERR_NONFINITE for a query with NaN, TD_ERR_SHAPE when dim is 0 or over 131,072.
 * Cost O(n_rows * dim + n_rows * log k).
 */
size_t td_topk_scratch_size(size_t dim);
td_status td_topk_cosine(uint32_t level, const float *query, const int8_t *rows,
						 const float *scales, size_t n_rows, size_t dim, size_t k, uint32_t *index,
						 float *score, size_t *n_found, void *scratch, size_t scratch_size);

/*
 * rows[n_rows][dim] in the order in which td_topk_packed() reads them: sixteen rows a block, of
 * each four elements after four of the row before, offset by 128.  Their sums need no adding across
 * a register, and the whole is read as one stream.  It is as large as the rows, but for what fills
 * up the last block and rows that are no multiple of 4.
 *
 * packed  td_pack_size(n_rows, dim) bytes out, aligned to 64
 */
size_t td_pack_size(size_t n_rows, size_t dim);
void td_pack_make(const int8_t *rows, size_t n_rows, size_t dim, void *packed);

/*
 * td_topk_cosine() of packed rows, whose answer it has to the bit: faster with AVX2 and AVX-512, in
 * plain C slower.  Scratch is that of td_topk_cosine(); scales are those of the rows.
 */
td_status td_topk_packed(uint32_t level, const float *query, const void *packed,
						 const float *scales, size_t n_rows, size_t dim, size_t k, uint32_t *index,
						 float *score, size_t *n_found, void *scratch, size_t scratch_size);

/* ---------------------------------------------------------------- in td_sketch.c: very many rows
 */

/* Rows below which comparing all of them, packed, is as fast, and certain. */
#define TD_SKETCH_LEAST 8192u

/*
 * The signs of rows[n_rows][dim], rotated so that no element says more than others, by which
 * td_topk_sketched() passes most rows over.
 *
 * sketch: td_sketch_size(n_rows, dim) bytes out, aligned to 64; an eighth of the rows.
 */
size_t td_sketch_size(size_t n_rows, size_t dim);
void td_sketch_make(const int8_t *rows, size_t n_rows, size_t dim, void *sketch);

/*
 * td_topk_cosine() for very many rows: the int8 products of those whose signs differ little from
 * the query's.  A row as near as the k-th found is passed over where it differs in 2.25 standard
 * deviations more signs than its angle lets expect.  Where more than a sixteenth of the rows would
 * have to be compared, all are.  bench/kernels.py measures how often the nearest row is found, and
 * how often all are compared.
 *
 * sketch    of the rows, by td_sketch_make()
 * is_exact  out, 1: all rows were compared
 * scratch   td_topk_sketched_scratch_size(dim, k) bytes, aligned to 64
 * the rest as for td_topk_cosine()
 */
size_t td_topk_sketched_scratch_size(size_t dim, size_t k);
td_status td_topk_sketched(uint32_t level, const float *query, const int8_t *rows,
						   const float *scales, const void *sketch, size_t n_rows, size_t dim,
						   size_t k, uint32_t *index, float *score, size_t *n_found,
						   uint32_t *is_exact, void *scratch, size_t scratch_size);

/* ---------------------------------------------------------------- in td_hash.c: checksum */

/* XXH64 of the xxHash specification (version 0.1.1), over size bytes. */
uint64_t td_hash64(const void *bytes, size_t size, uint64_t seed);

/* ---------------------------------------------------------------- in td_file.c: sectioned files */

/*
 * One container for encoders and models.  All numbers little-endian.
 *
 *   offset size
 *        0    8  magic "TDFILE\r\n"
 *        8    4  format version, TD_FILE_VERSION
 *       12    4  kind, one of td_file_kind
 *       16    8  size of the whole file in bytes
 *       24    8  checksum: td_hash64(bytes 32 .. end, seed 0)
 *       32   32  id: [a-z0-9._-]+, NUL-padded
 *       64    4  number of sections, at most TD_FILE_MAX_SECTIONS
 *       68   60  zero
 *      128   48  per section: name[24] NUL-padded, u32 element type, u32 zero, u64 offset, u64 size
 *
 * Sections start at multiples of 64, in table order, do not overlap, and may be empty.
 */
#define TD_FILE_VERSION 1
#define TD_FILE_MAX_SECTIONS 1024
#define TD_FILE_ID_SIZE 32

typedef enum td_file_kind
{
	TD_FILE_STATIC_ENCODER = 1,
	TD_FILE_BERT_ENCODER = 2,
	TD_FILE_MODEL = 3
} td_file_kind;

typedef enum td_element
{
	TD_U8 = 1,
	TD_I8 = 2,
	TD_U16 = 3,
	TD_U32 = 4,
	TD_F32 = 5,
	TD_I32 = 6
} td_element;

typedef struct td_file
{
	const uint8_t *bytes; /* borrowed, 64-byte aligned */
	size_t size;
	uint32_t kind;
	uint32_t n_sections;
	uint64_t checksum;
	char id[TD_FILE_ID_SIZE + 1];
} td_file;

/*
 * Look at bytes[size] as one of our files; every header field and section bound is checked once
 * here, and the checksum is computed over the whole file.
 *
 * bytes must be 64-byte aligned and stay unchanged as long as the view is used.
 * Returns TD_ERR_NOT_FILE, TD_ERR_VERSION, TD_ERR_TRUNCATED, TD_ERR_CHECKSUM or TD_ERR_CORRUPT.
 */
td_status td_file_open(const void *bytes, size_t size, td_file *file);

/* td_file_open() without the checksum: see td_encoder_reopen(). */
td_status td_file_reopen(const void *bytes, size_t size, td_file *file);

/*
 * Find a section by name and element type.  *data is NULL and *count 0 if there is none.
 * Returns TD_ERR_CORRUPT if it is there with another element type.
 */
td_status td_file_section(const td_file *file, const char *name, td_element element,
						  const void **data, size_t *count);

/* ---------------------------------------------------------------- in td_text.c: word pieces */

#define TD_TEXT_LOWERCASE 1u	 /* lower-case */
#define TD_TEXT_STRIP_ACCENTS 2u /* NFD, drop category Mn */
#define TD_TEXT_SPLIT_CJK 4u	 /* spaces around CJK ideographs */
#define TD_TEXT_CLEAN 8u		 /* drop control characters, all white space to blanks */

#define TD_VOCAB_MAX 65534u /* pieces; ids are stored as uint16 */
#define TD_VOCAB_EMPTY_SLOT 65535u

/*
 * A WordPiece vocabulary.  Pieces are stored as in vocab.txt ("##ing"), in id order:
 * piece i is text[base[i >> 8] + offset[i] .. base[(i+1) >> 8] + offset[i+1]).
 * index is a hash table of ids with linear probing: a piece starts at slot
 * (uint64)(fnv1a32(piece) * 0x9E3779B1 mod 2^32) * n_slots >> 32; TD_VOCAB_EMPTY_SLOT ends a probe.
 */
typedef struct td_vocab
{
	uint32_t size;			 /* pieces */
	uint32_t n_slots;		 /* of index, more than size */
	uint32_t max_piece_size; /* bytes of the longest piece */
	uint32_t flags;			 /* TD_TEXT_... */
	uint32_t unk_id;
	uint32_t cls_id;
	uint32_t sep_id;
	uint32_t pad_id;
	uint32_t mask_id;
	const uint8_t *text;
	const uint32_t *base;
	const uint16_t *offset; /* [size + 1] */
	const uint16_t *index;	/* [n_slots] */
} td_vocab;

typedef struct td_token_count
{
	size_t n_total;	  /* word pieces of the whole text, without [CLS] and [SEP] */
	size_t n_stored;  /* of those, how many were written */
	size_t n_unknown; /* of the stored, how many are [UNK] */
} td_token_count;

/*
 * Split text[len] (UTF-8) into word pieces, id for id as Hugging Face's BERT tokenizer without
 * added [CLS] and [SEP]; a special token written out in the text is recognised as there.
 *
 * ids    [capacity] out, or NULL with capacity 0 to count only
 * count  out; n_total counts the whole text even when ids is full
 *
 * Returns TD_ERR_UTF8 for malformed UTF-8.  Cost O(len), stack under 8 kB.
 */
td_status td_text_tokenize(const td_vocab *vocab, const char *text, size_t len, uint32_t *ids,
						   size_t capacity, td_token_count *count);

/*
 * Fold text[len] (UTF-8) for case-insensitive comparison: each code point to its simple lower case.
 *
 * out      [capacity] out, not NUL-terminated; 3 * len bytes are always enough (td_text_fold_size)
 * out_len  out: bytes written
 *
 * Returns TD_ERR_UTF8 or TD_ERR_BUFFER.
 */
size_t td_text_fold_size(size_t len);
td_status td_text_fold(const char *text, size_t len, char *out, size_t capacity, size_t *out_len);

/* ---------------------------------------------------------------- in td_encoder.c: encoders */

#define TD_MAX_DIM 4096u
#define TD_MAX_TOKENS 8192u
#define TD_BERT_MAX_LAYERS 24u

/* A product of an encoder's layer: y[c] = scale[c] * sum over k of weight[c][k] * x[k] + bias[c].
 */
typedef struct td_bert_matrix
{
	const int8_t *weight; /* [n_out / 64][n_in / 4][64][4] */
	const float *scale;	  /* [n_out] */
	const float *bias;	  /* [n_out] */
	const int32_t *sum;	  /* [n_out], sums of the int8 weights of an output channel */
} td_bert_matrix;

typedef struct td_bert_layer
{
	td_bert_matrix qkv;	 /* dim -> 3 dim: query, key, value; query divided by sqrt(head size) */
	td_bert_matrix out;	 /* dim -> dim */
	td_bert_matrix up;	 /* dim -> n_inner */
	td_bert_matrix down; /* n_inner -> dim */
	const float *norm1;	 /* [2][dim], gain and bias, after attention */
	const float *norm2;	 /* [2][dim], after the feed-forward part */
} td_bert_layer;

typedef enum td_pooling
{
	TD_POOLING_MEAN = 0, /* of all word pieces, [CLS] and [SEP] included */
	TD_POOLING_CLS = 1	 /* the vector of [CLS] */
} td_pooling;

typedef struct td_bert
{
	uint32_t n_layers;
	uint32_t n_heads;
	uint32_t n_inner;
	uint32_t pooling; /* td_pooling */
	float norm_eps;
	const int8_t *word;		 /* [vocab size][dim] */
	const float *word_scale; /* [vocab size] */
	const float *position;	 /* [max_tokens + 2][dim], the vector of token type 0 included */
	const float *norm;		 /* [2][dim] */
	td_bert_layer layers[TD_BERT_MAX_LAYERS];
} td_bert;

/*
 * A checked view on an encoder file.  Sections of every encoder:
 *
 *   "encoder"       u32[16]: dim, max_tokens, vocab size, first_row, vocab flags, unk, cls, sep,
 * pad and mask id, bits of float mu, bits of float s, four zeros "vocab.text"    u8, "vocab.base"
 * u32, "vocab.offset" u16, "vocab.index" u16: see td_vocab "about"         u8: provenance and
 * licence, UTF-8, for people
 *
 * A static encoder has, for pieces first_row .. vocab size - 1 (lower ids, [UNK] and the special
 * tokens have no row and weigh nothing):
 *
 *   "static.row"    i8[n][dim]
 *   "static.code"   u8[n]: which scale
 *   "static.scale"  f32[256]: a row's vector is row * scale[code], importance weight included
 *
 * A BERT encoder (Devlin et al. 2018, post-layer-norm, GELU with erf) has first_row 0, [CLS] and
 * [SEP], dim and n_inner that are multiples of 64, heads whose size is a multiple of 16, and:
 *
 *   "bert"            u32[16]: n_layers, n_heads, n_inner, pooling, bits of float norm_eps, zeros
 *   "bert.word"       i8[vocab size][dim], "bert.word.scale" f32[vocab size]
 *   "bert.position"   f32[max_tokens + 2][dim]
 *   "bert.norm"       f32[2][dim]
 *   "LL.M.weight" i8, "LL.M.scale" f32, "LL.M.bias" f32, "LL.M.sum" i32: td_bert_matrix M (qkv,
 * out, up, down) of layer LL (00, 01 ...) "LL.norm1", "LL.norm2"  f32[2][dim]
 *
 * In a row of weights, for each pair of neighbours at an even input, the positive ones and the
 * negative ones each sum to at most 128 in magnitude: AVX2 adds two products with activations up to
 * 255 in 16 bits.  Words, weights and sums are used as they are and cannot make a read go astray.
 */
typedef struct td_encoder
{
	td_file file;
	td_vocab vocab;
	uint32_t dim;
	uint32_t max_tokens; /* word pieces read of a text, without [CLS] and [SEP] */
	uint32_t first_row;
	float fit_mu;	/* similarity at which fit is 0.5 */
	float fit_s;	/* > 0 */
	uint32_t level; /* td_level to compute with: td_level_best(); a caller may lower it */
	const int8_t *static_rows;
	const uint8_t *static_codes;
	const float *static_scales;
	td_bert bert; /* of kind TD_FILE_BERT_ENCODER */
} td_encoder;

/*
 * Look at bytes[size] as an encoder; checks what td_file_open() does and every offset, id and
 * constant that later calls rely on.  Returns also TD_ERR_KIND for a model file.
 */
td_status td_encoder_open(const void *bytes, size_t size, td_encoder *encoder);

/*
 * td_encoder_open() without the checksum, for bytes that it accepted before and that nobody could
 * change since: reads little of a large file.  What it accepts is as safe to use, whatever it is.
 */
td_status td_encoder_reopen(const void *bytes, size_t size, td_encoder *encoder);

/*
 * Check what a file of ours promises beyond what is needed to read it safely: that no pair of a
 * BERT encoder's weights is too large for AVX2, and that its sums are those of its weights.
 * Returns TD_ERR_CORRUPT otherwise.  Reads all weights.
 */
td_status td_encoder_verify(const td_encoder *encoder);

/* ---------------------------------------------------------------- in td_embed.c: text to vector */

typedef struct td_embed_info
{
	size_t n_tokens; /* word pieces of the whole text */
	size_t n_used;	 /* of those, how many the encoder read: at most its max_tokens */
	size_t n_known;	 /* of the used, how many carry a vector of their own */
} td_embed_info;

/*
 * The unit vector of text[len] (UTF-8): for a static encoder the weighted mean of its rows, summed
 * in text order; for a BERT encoder the pooled output of its last layer.  A text without a known
 * word gives the zero vector with a static encoder (n_known 0), and that of [UNK] with BERT.
 *
 * out      [encoder->dim]
 * scratch  td_embed_scratch_size(encoder, len) bytes, aligned to 64
 *
 * Returns TD_ERR_EMPTY for a text that holds nothing but white space and control characters.
 */
size_t td_embed_scratch_size(const td_encoder *encoder, size_t len);
td_status td_embed_text(const td_encoder *encoder, const char *text, size_t len, float *out,
						td_embed_info *info, void *scratch, size_t scratch_size);

/* Texts that are embedded together at most; longer lists are split by the caller. */
#define TD_EMBED_MAX_TEXTS 64

/*
 * td_embed_text() in pieces, for callers that look after interrupts: begin, then step until it
 * returns 0, then end.  A step takes some tenths of a millisecond at the greatest level.
 * The same bits as td_embed_text().
 *
 * Several texts go together where they fit: begin reads texts from the first on and says in
 * job->n_texts how many it took, at least 1.  Vectors do not depend on the company.
 */
typedef struct td_embed_job
{
	const td_encoder *encoder;
	size_t n_texts;
	uint32_t start[TD_EMBED_MAX_TEXTS + 1]; /* row of each text's first word piece */
	td_embed_info info[TD_EMBED_MAX_TEXTS];
	td_status status[TD_EMBED_MAX_TEXTS]; /* TD_OK, or why a text has no vector */
	void *scratch;
	size_t capacity; /* rows that the scratch holds */
	uint32_t layer;	 /* where the work stands */
	uint32_t stage;
	uint32_t position;
} td_embed_job;

/*
 * texts, lens  [n], n at least 1; not needed once begin has returned
 * scratch      td_embed_scratch_size(encoder, len of the first text) bytes, aligned to 64, the
 * job's until the end; with more of it, at most td_embed_scratch_size(encoder, SIZE_MAX), more
 *              texts of a BERT encoder go together, which is faster (a static encoder takes one)
 *
 * Returns TD_ERR_BUFFER when the first text does not fit, and with n 1 the status of that text.
 */
td_status td_embed_begin(td_embed_job *job, const td_encoder *encoder, const char *const *texts,
						 const size_t *lens, size_t n, void *scratch, size_t scratch_size);
int td_embed_step(td_embed_job *job);

/* Vectors to out[job->n_texts][dim]; a text without a vector gets zeros. */
void td_embed_end(td_embed_job *job, float *out);

/* ---------------------------------------------------------------- in td_fastgrnn.c: the cell */

/*
 * FastGRNN, Kusupati et al. 2018 (arXiv:1901.02358):
 *
 *   z_t = sigmoid(W x_t + U h_{t-1} + b_z)
 *   c_t = tanh(W' x_t + U' h_{t-1} + b_h)
 *   h_t = (zeta (1 - z_t) + nu) * c_t + z_t * h_{t-1}         (elementwise)
 *
 * Tied (the paper, eq. 3): W' = W and U' = U, shared by gate and candidate.  Untied: separate.
 * Low rank (the paper, section 3.2): W = W1 W2 with W1 [n_hidden][rank_w], W2 [rank_w][n_in]; U the
 * same with rank_u.  A rank of 0 means a full matrix.
 * zeta and nu are the values used in the formula, in [0, 1]: whoever trained them as sigmoids has
 * applied the sigmoid already.
 */
/* A product W = left * right, or a full matrix in right alone when the rank is 0. */
typedef struct td_factored
{
	td_matrix left;	 /* [n_hidden][rank], unused when rank is 0 */
	td_matrix right; /* [rank][n_in], or [n_hidden][n_in] when rank is 0 */
} td_factored;

typedef struct td_fastgrnn
{
	uint32_t n_in;
	uint32_t n_hidden;
	uint32_t rank_w; /* 0: full */
	uint32_t rank_u;
	uint32_t tied;	  /* 1: w and u serve the candidate too, w_h and u_h are not read */
	uint32_t weights; /* td_weights */
	uint32_t level;	  /* td_level to compute with, e.g. td_level_best(); 0: portable C */
	td_factored w;	  /* gate; with tied also candidate */
	td_factored u;
	td_factored w_h; /* candidate */
	td_factored u_h;
	const float *b_z; /* [n_hidden] */
	const float *b_h; /* [n_hidden] */
	float zeta;
	float nu;
} td_fastgrnn;

/*
 * One step: h becomes h_t.
 *
 * x        [n_in], read only
 * h        [n_hidden], h_{t-1} in, h_t out; must not overlap x or scratch
 * scratch  td_fastgrnn_scratch_size(cell) bytes, aligned to 64, contents undefined on return
 *
 * Returns TD_ERR_BUFFER if scratch_size is too small, TD_ERR_SHAPE if the cell is inconsistent
 * (n_in or n_hidden 0 or over 65,536, a rank over either side, a missing matrix, zeta or nu outside
 * [0, 1]), TD_ERR_NONFINITE for a NaN or infinity in x or h; h is untouched on error.
 * Cost O(n_hidden * (n_in + n_hidden)).
 */
size_t td_fastgrnn_scratch_size(const td_fastgrnn *cell);
td_status td_fastgrnn_step(const td_fastgrnn *cell, const float *x, float *h, void *scratch,
						   size_t scratch_size);

/* Steps over a sequence x[n_steps][n_in]; h as in td_fastgrnn_step().  n_steps may be 0. */
td_status td_fastgrnn_forward(const td_fastgrnn *cell, const float *x, size_t n_steps, float *h,
							  void *scratch, size_t scratch_size);

/* One step from the zero state: h[n_hidden] is written, never read; the U products are skipped. */
td_status td_fastgrnn_forward_single(const td_fastgrnn *cell, const float *x, float *h,
									 void *scratch, size_t scratch_size);

/* td_fastgrnn_forward_single() for n rows: x[n][n_in], h[n][n_hidden]. */
td_status td_fastgrnn_forward_batch(const td_fastgrnn *cell, const float *x, size_t n, float *h,
									void *scratch, size_t scratch_size);

/* ---------------------------------------------------------------- in td_words.c: counted words */

/* Word pieces of a text that features are made of. */
#define TD_WORDS_MAX_PIECES 512u

/* Which features, as a sum. */
#define TD_WORDS_UNIGRAMS 1u
#define TD_WORDS_BIGRAMS 2u
#define TD_WORDS_LENGTH 4u /* how many pieces there are, in steps of a factor sqrt(2) */

/* Features of a text at most: each piece, each pair, the length. */
#define TD_WORDS_MAX_FEATURES (2 * TD_WORDS_MAX_PIECES)

/*
 * The features of word pieces, hashed into buckets: the number of different buckets is returned.
 *
 * ids        [n], at most TD_WORDS_MAX_PIECES
 * n_buckets  a power of two
 * buckets    [TD_WORDS_MAX_FEATURES] out, ascending
 * values     [TD_WORDS_MAX_FEATURES] out: square root of how often
 *
 * A piece is hashed as id + 1, a pair as (id + 1) 2^32 + (next id + 1), the length as 2^63 + b with
 * b twice the position of the highest bit of n plus the bit below it; the bucket is the low bits of
 * the finaliser of splitmix64 (Steele, Lea and Flood 2014).
 * Cost O(n log n).
 */
size_t td_words_features(const uint32_t *ids, size_t n, uint32_t n_buckets, uint32_t features,
						 uint32_t *buckets, float *values);

/* ---------------------------------------------------------------- in td_project.c: word columns */

/* Bounds of a projection; scales and share are small enough that no sum overflows. */
#define TD_PROJECTION_BLOCK 16u /* the rank is a multiple of it */
#define TD_PROJECTION_MAX_RANK 256u
#define TD_PROJECTION_MAX_SCALE 1e6f
#define TD_PROJECTION_MAX_SHARE 1e3f

/* Columns that stand for the words of a text; rank 0: there are none. */
typedef struct td_projection
{
	uint32_t rank;		 /* number of columns */
	uint32_t n_buckets;	 /* a power of two */
	uint32_t features;	 /* TD_WORDS_... */
	float share;		 /* length of the columns, where that of the vector is 1 */
	const int8_t *rows;	 /* [n_buckets][rank] */
	const float *scales; /* [n_buckets] of the rows; 0: the bucket is not read */
} td_projection;

/*
 * A vector and, beside it, the words of its text: wide = (embedding, share * c) / sqrt(1 + share^2)
 * with c = s / |s|, s = sum over features f of values[f] * scales[f] * rows[f].  Where s is 0,
 * because there is no text or no word of it is known, wide = (embedding * sqrt(1 + share^2), 0):
 * its product with the wide vector of another text is the product of their embeddings.
 *
 * dim        of the embedding
 * embedding  [dim], unit length or zero
 * ids        [n_ids] word pieces, at most TD_WORDS_MAX_PIECES; n_ids 0: no text
 * buckets    [TD_WORDS_MAX_FEATURES] scratch
 * values     [TD_WORDS_MAX_FEATURES] scratch
 * wide       [dim + rank] out; overlaps nothing
 *
 * Cost that of td_words_features() plus O(n_ids * rank).
 */
void td_project(const td_projection *projection, size_t dim, const float *embedding,
				const uint32_t *ids, size_t n_ids, uint32_t *buckets, float *values, float *wide);

/* ---------------------------------------------------------------- in td_model*.c: models */

typedef enum td_task
{
	TD_TASK_CLASSIFIER = 0, /* one of the outputs: their probabilities sum to 1 */
	TD_TASK_CAPABILITIES,	/* any of the outputs */
	TD_TASK_QUALITY			/* expected quality in [0, 1] of each agent */
} td_task;
#define TD_N_TASKS 3

/* The name of a td_task, which is the kind of a row of tinydancer.model; else "". */
const char *td_task_name(unsigned i);

typedef enum td_link
{
	TD_LINK_SOFTMAX = 0,
	TD_LINK_SIGMOID,
	TD_LINK_IDENTITY /* cut to [0, 1] */
} td_link;
#define TD_N_LINKS 3

typedef enum td_member_kind
{
	TD_MEMBER_LINEAR = 1,
	TD_MEMBER_FASTGRNN,
	TD_MEMBER_KNN,
	TD_MEMBER_RBF,
	TD_MEMBER_WORDS
} td_member_kind;
#define TD_MODEL_MAX_MEMBERS 8

/* Limits of a model; they also bound how long one application takes (tens of ms at the worst). */
#define TD_MODEL_MAX_OUTPUTS 4096u
#define TD_MODEL_MAX_ROWS 65536u
#define TD_MODEL_MAX_STEPS 512u
#define TD_MODEL_MAX_HIDDEN 4096u
#define TD_MODEL_MAX_BUCKETS (1u << 20)
#define TD_MODEL_MAX_KNOTS 4096u
#define TD_MODEL_MAX_WORK (1u << 27) /* products of a cell over a sequence, of rows and outputs */

/* A part of the ensemble.  Its scores are multiplied by weight and added to those of the others. */
typedef struct td_member_view
{
	uint32_t kind;		 /* td_member_kind */
	const float *weight; /* [n_out] */
	const float *bias;	 /* [n_out], not of KNN */

	uint32_t weights;  /* td_weights of matrix and of RBF's coefficients */
	td_matrix matrix;  /* LINEAR [n_out][width]; FASTGRNN: of the hidden state [n_out][n_hidden];
						* RBF: coefficients [n_rows][n_out], scales [n_out]; WORDS: table
						* [n_buckets][n_out], scales [n_out] */
	td_fastgrnn cell;  /* FASTGRNN */
	uint32_t steps;	   /* 0: one step on the request's vector; else token vectors at most */
	float token_scale; /* what token vectors are multiplied by */

	uint32_t k;				   /* KNN */
	float inverse_temperature; /* a neighbour counts exp((cosine - 1) * this) */
	float pseudo;			   /* neighbours that the prior counts for */
	const uint8_t *values;	   /* [n_rows][n_out] in steps of 1/254, 255: none */

	float gamma; /* RBF: exp(-gamma (2 - 2 cosine)) */

	uint32_t n_buckets; /* WORDS */
	uint32_t features;	/* TD_WORDS_... */
	const float *idf;	/* [n_buckets] */
} td_member_view;

/*
 * A model file: kind TD_FILE_MODEL, sections
 *
 *   "model"       u32[16]: format, task, link, n_out, dim, n_rows, n_members, n_curves, n_knots,
 *                 low and high half of the encoder file's checksum; in format 2 also rank,
 *                 n_buckets and features of a projection; zeros
 *   "encoder.id"  u8[32], NUL-padded: whose vectors the model reads
 *   "names"       u8: n_out names in UTF-8, each with a NUL behind it
 *   "prior"       f32[n_out] in [0, 1]: base rate of each output
 *   "support"     u32[n_out]: labels of each output that training has seen, 0: not covered
 *   "words" i8[n_buckets][rank], "words.s" f32[n_buckets], "words.p" f32[1]: share: in format 2
 *                 a td_projection, whose wide vector the members read; width = dim + rank
 *   "rows" i8[n_rows][width], "rows.s" f32[n_rows]: vectors of training requests, quantised
 *   "curve.x", "curve.y"  f32[n_curves][n_knots]: calibration, piecewise linear, flat outside; no
 *                 curve, one for all outputs, or one for each
 *   "mI" u32[8] for member I = 0 .. n_members - 1: kind, then
 *      LINEAR     weights             "mI.w" [n_out][width], "mI.b"
 *      FASTGRNN   weights, n_hidden, rank_w, rank_u, tied, steps
 *                 "mI.zn" f32[3]: zeta, nu, token_scale; "mI.w.l" "mI.w.r" left and right factor of
 *                 W (left only with a rank), "mI.u.*"; untied "mI.wh.*", "mI.uh.*"; "mI.bz",
 *                 "mI.bh" [n_hidden]; "mI.o" [n_out][n_hidden], "mI.ob"
 *      KNN        k                   "mI.v" u8[n_rows][n_out]; "mI.p" f32[2]:
 *                                     1/temperature, pseudo
 *      RBF        weights             "mI.c" [n_rows][n_out], "mI.b", "mI.p" f32[1]: gamma
 *      WORDS      n_buckets, features "mI.w" i8[n_buckets][n_out], "mI.b", "mI.idf" f32[n_buckets]
 *   "mI.weight"   f32[n_out]; "mI.b", "mI.ob" f32[n_out]
 *
 * A matrix X of int8 has its scales in "X.s": one for each row, but for each column in RBF and
 * WORDS.  Format 1 has no projection: width = dim.  A FASTGRNN with steps reads token vectors of
 * dim.
 */
typedef struct td_model
{
	td_file file;
	uint32_t task;
	uint32_t link;
	uint32_t n_out;
	uint32_t dim;	/* of the encoder's vectors */
	uint32_t width; /* of what members read: dim and the columns of the projection */
	uint32_t n_rows;
	uint32_t n_members;
	uint32_t n_curves;
	uint32_t n_knots;
	uint32_t reads_text;   /* a member or the projection reads words */
	uint32_t reads_tokens; /* a member reads token vectors: the encoder must be static */
	uint32_t level;		   /* td_level to compute with: td_level_best(); a caller may lower it */
	uint64_t encoder_checksum;
	char encoder_id[TD_FILE_ID_SIZE + 1];
	const char *names; /* n_out of them, each NUL-terminated */
	const float *prior;
	const uint32_t *support;
	const int8_t *rows;
	const float *row_scales;
	const float *curve_x;
	const float *curve_y;
	td_projection projection;
	td_member_view members[TD_MODEL_MAX_MEMBERS];
} td_model;

/*
 * Look at bytes[size] as a model; checks what td_file_open() does, every count, and that every
 * float is finite.  bytes must be 64-byte aligned and stay unchanged as long as the view is used.
 * Returns also TD_ERR_KIND for an encoder file, TD_ERR_CORRUPT for anything impossible,
 * TD_ERR_SHAPE for a model whose application would take too long.
 */
td_status td_model_open(const void *bytes, size_t size, td_model *model);

/*
 * The probability of each output.
 *
 * A member that reads text is left out where there is none; in a model of TD_LINK_IDENTITY the
 * other weights of each output are raised to the same sum.
 *
 * encoder    the one that the model names; needed when text is not NULL and the model reads_text
 * text       [len] UTF-8, or NULL when only the vector is known
 * embedding  [dim], unit length or zero
 * out        [n_out]
 * scratch    td_model_scratch_size(model) bytes, aligned to 64
 *
 * Returns TD_ERR_BUFFER, TD_ERR_NONFINITE for an embedding with NaN or a sum that overflows,
 * TD_ERR_UTF8, TD_ERR_SHAPE for an encoder that does not fit.
 * Cost O(n_rows * width) plus that of the projection and the members.
 */
size_t td_model_scratch_size(const td_model *model);
td_status td_model_apply(const td_model *model, const td_encoder *encoder, const char *text,
						 size_t len, const float *embedding, float *out, void *scratch,
						 size_t scratch_size);

/* ---------------------------------------------------------------- in td_score.c and td_rank.c: the
 * decision
 */

#define TD_NONE UINT32_MAX /* no such capability, pool or phrase */

/* An absent figure (SQL NULL) is NaN. */
typedef struct td_agent
{
	double cost_per_1k_tokens;		  /* USD */
	double cost_per_1k_output_tokens; /* USD; absent: cost_per_1k_tokens */
	double cost_per_call;			  /* USD */
	double cost_per_second;			  /* USD per second of avg_latency_ms */
	double expected_output_tokens;	  /* never absent */
	double avg_latency_ms;			  /* ms; absent: unknown */
	double quality_score;			  /* [0, 1], never absent */
	double success_rate;			  /* [0, 1], never absent */
	uint32_t first_phrase;
	uint32_t n_phrases;
	uint32_t first_capability;
	uint32_t n_capabilities;
	uint32_t pool; /* id, TD_NONE: in no pool */
	uint32_t active;
} td_agent;

/* The registry as the kernel reads it; agents stand in byte order of their names. */
typedef struct td_registry
{
	uint32_t n_agents;
	uint32_t n_phrases;
	uint32_t dim;
	uint32_t level; /* td_level to compute with, e.g. td_level_best(); 0: portable C */
	const td_agent *agents;
	const int8_t *phrase_rows;	  /* [n_phrases][dim], td_vec_quantise() of unit vectors */
	const float *phrase_scales;	  /* [n_phrases] */
	const uint32_t *capabilities; /* ids, sorted within each agent */
} td_registry;

/*
 * What to maximise: fit * (weighted sum), divided by (cost + cost_scale) when per_dollar.  With
 * predicted quality: that times the weighted sum, in which quality is 1.
 */
typedef struct td_policy
{
	double cost_weight;
	double latency_weight;
	double quality_weight;
	double fit_weight;
	double cost_scale;	  /* USD at which cost_utility is 0.5, > 0 */
	double latency_scale; /* ms at which latency_utility is 0.5, > 0 */
	uint32_t per_dollar;
} td_policy;

typedef struct td_request
{
	const float *embedding;	  /* [dim], unit length or zero */
	double input_tokens;	  /* word pieces of the untruncated text, 0 without text */
	const uint32_t *required; /* capability ids; TD_NONE: one that no agent has */
	size_t n_required;
	const uint32_t *excluded; /* agent numbers */
	size_t n_excluded;
	uint32_t has_pool; /* 1: only agents of this pool */
	uint32_t pool;
	double max_cost;			 /* USD for this request; INFINITY: no limit */
	double budget_remaining;	 /* USD; INFINITY: no limit */
	double max_latency_ms;		 /* INFINITY: no limit */
	double min_quality;			 /* -INFINITY: no limit */
	double min_expected_quality; /* -INFINITY: no limit */
	const double *predicted;	 /* [n_agents] td_score_predict(), or NULL: no model */
	const uint32_t *outputs;	 /* [n_agents] as for td_score_predict(), with predicted */
	const float *products;		 /* [n_phrases] td_score_products(), or NULL: not worked out yet */
} td_request;

/* Why an agent was rejected, one bit each. */
typedef enum td_limit
{
	TD_LIMIT_ACTIVE = 1 << 0,
	TD_LIMIT_POOL = 1 << 1,
	TD_LIMIT_EXCLUDED = 1 << 2,
	TD_LIMIT_CAPABILITIES = 1 << 3,
	TD_LIMIT_COST = 1 << 4,
	TD_LIMIT_BUDGET = 1 << 5,
	TD_LIMIT_LATENCY = 1 << 6,
	TD_LIMIT_QUALITY = 1 << 7,
	TD_LIMIT_EXPECTED_QUALITY = 1 << 8
} td_limit;
#define TD_N_LIMITS 9

/* The name of limit number i (bit 1 << i) as a user writes it: "active", "pool", "max_cost" ... */
const char *td_limit_name(unsigned i);

/* Where an agent's expected quality comes from. */
typedef enum td_prediction
{
	TD_PREDICTION_NONE = 0, /* fit * quality */
	TD_PREDICTION_MODEL,	/* a model that covers the agent */
	TD_PREDICTION_OF_OTHERS /* what a model says of the agents that it covers */
} td_prediction;

/* Every part of one agent's score. */
typedef struct td_candidate
{
	uint32_t agent;
	uint32_t phrase;	  /* the closest phrase, TD_NONE when the agent has none */
	uint32_t rejected_by; /* td_limit bits, 0: eligible */
	uint32_t missing;	  /* required capabilities it lacks */
	float similarity;	  /* 0 when the agent has no phrase */
	uint32_t prediction;  /* td_prediction: where expected_quality comes from */
	double fit;
	double quality;			 /* quality_score * success_rate */
	double expected_quality; /* fit * quality, or what a model predicts */
	double cost;			 /* estimated USD, NaN: unknown */
	double latency;			 /* ms, NaN: unknown */
	double cost_utility;
	double latency_utility;
	double score;
} td_candidate;

/*
 * Score every agent for one request.
 *
 * An agent with no cost figure is scored at the dearest known cost of the agents that pass every
 * other limit (0 when none is known), and rejected where a cost limit is set; the same with unknown
 * latency.
 *
 * mu, s    constants of fit, from the encoder
 * out      [registry->n_agents], in agent order
 * scratch  td_score_scratch_size(registry) bytes, aligned to 64
 *
 * Returns TD_ERR_NONFINITE for an embedding with NaN, TD_ERR_SHAPE for scales that are not
 * positive. Cost O(n_phrases * dim).
 */
size_t td_score_scratch_size(const td_registry *registry);
td_status td_score_agents(const td_registry *registry, double mu, double s, const td_policy *policy,
						  const td_request *request, td_candidate *out, void *scratch,
						  size_t scratch_size);

/*
 * The decision alone: the candidate that td_score_best() finds among those of td_score_agents(), in
 * a fraction of the time where there are many agents.
 *
 * chosen      out; agent TD_NONE, and nothing else set, when no agent is eligible
 * n_eligible  out: how many agents pass every limit
 *
 * Arguments, scratch and statuses as for td_score_agents().
 */
td_status td_score_decide(const td_registry *registry, double mu, double s, const td_policy *policy,
						  const td_request *request, td_candidate *chosen, uint32_t *n_eligible,
						  void *scratch, size_t scratch_size);

/* Requests whose products are worked out in one pass, and the phrases from which on it pays. */
#define TD_SCORE_TOGETHER 16
#define TD_SCORE_TOGETHER_FROM 64

/*
 * The products of several requests with every phrase, reading the phrases once: for
 * td_request.products, with the bits that it would have without.
 *
 * embeddings  [n] pointers to [dim], as in td_request; n at most TD_SCORE_TOGETHER
 * out         [n][n_phrases]
 * scratch     td_score_products_scratch_size(registry) bytes, aligned to 64
 *
 * Returns TD_ERR_BUFFER, TD_ERR_NONFINITE for an embedding with NaN, or TD_ERR_SHAPE.
 * Cost O(n * n_phrases * dim), at the least where n is TD_SCORE_TOGETHER.
 */
size_t td_score_products_scratch_size(const td_registry *registry);
td_status td_score_products(const td_registry *registry, const float *const *embeddings, size_t n,
							float *out, void *scratch, size_t scratch_size);

/*
 * The quality of each agent from what a quality model says of the agents that it covers.
 *
 * Whom the model does not cover gets the mean of the active ones that it covers, for this request,
 * and half of what its own quality (quality_score * success_rate) is above or below their mean, cut
 * to [0, 1].  So an agent is neither preferred nor passed over because it is new.
 *
 * outputs    [n_agents] number of each agent's output, TD_NONE: not covered
 * p          what td_model_apply() has written
 * predicted  [n_agents] out
 *
 * Returns 0 when no active agent is covered: then the model says nothing, and predicted is not
 * written.
 */
int td_score_predict(const td_registry *registry, const uint32_t *outputs, const float *p,
					 double *predicted);

/*
 * The decision: the number of the best eligible candidate, TD_NONE when there is none.
 * Greater score first, then lower cost (unknown last), then the lower agent number.
 * n_eligible, out, may be NULL.
 */
uint32_t td_score_best(const td_candidate *candidates, uint32_t n, uint32_t *n_eligible);

/*
 * Order all candidates: order[n] out, eligible ones as td_score_best() ranks them, then the
 * rejected ones by score.  O(n log n), in place.
 */
void td_score_rank(const td_candidate *candidates, uint32_t n, uint32_t *order);

/*
 * The price of one request of that many word pieces at an agent, in USD, NaN when none is known:
 * what td_score_agents() puts into a candidate.
 */
double td_score_cost(const td_agent *agent, double input_tokens);

/* ---------------------------------------------------------------- in td_choice.c: what to choose
 * from */

/* One agent for one request, as an optimisation over many requests sees it. */
typedef struct td_choice
{
	double cost;	   /* USD; an unknown cost counts as the dearest known one */
	double quality;	   /* expected quality, [0, 1] */
	float similarity;  /* as in td_candidate */
	uint32_t agent;	   /* number in the registry */
	uint32_t phrase;   /* as in td_candidate */
	uint32_t is_known; /* 0: the cost is not known */
} td_choice;

/*
 * The choices worth keeping of one request: of the eligible candidates those that no other one
 * beats in cost and in expected quality at once.
 *
 * hull_only     1: of those only the ones on the upper convex hull of quality over cost, which is
 *               all that a linear relaxation takes
 * needs_cost    1: leave out candidates of unknown cost, as a cap on the sum must
 * preferred     number of the candidate to describe in fallback, TD_NONE: none
 * out           [n] out: ascending cost and ascending quality, both strictly; equal ones are
 *               the lower agent number's
 * n_out         out: how many, 0 when no candidate is eligible
 * fallback      out, the preferred candidate as a choice; may be NULL
 *
 * Cost O(n log n), in place.
 */
td_status td_choice_frontier(const td_candidate *candidates, uint32_t n, int hull_only,
							 int needs_cost, uint32_t preferred, td_choice *out, uint32_t *n_out,
							 td_choice *fallback);

/*
 * The choices for a request of which nothing but its length is known: every agent that is active
 * and no slower than max_latency_ms (INFINITY: no limit), at its quality without regard to fit.
 * Agents of unknown cost are left out.  out [n_agents] and n_out as in td_choice_frontier().
 */
td_status td_choice_prior(const td_registry *registry, double input_tokens, double max_latency_ms,
						  td_choice *out, uint32_t *n_out);

/*
 * The best of a request's choices that a budget pays for, and how often: as many whole requests as
 * rounding allows, INFINITY when it is free.
 *
 * choices  [n] in ascending cost and quality; best, times: out
 *
 * Returns TD_ERR_SHAPE when the budget pays for none of them; best is then the cheapest.
 */
td_status td_choice_afford(const td_choice *choices, uint32_t n, double budget, td_choice *best,
						   double *times);

/* ---------------------------------------------------------------- in td_knapsack.c: one budget for
 * many */

/* Many requests; those of the same text share one group and its choices. */
typedef struct td_knapsack
{
	uint32_t n_groups;
	uint32_t n_items;	   /* requests */
	const uint32_t *first; /* [n_groups + 1]: choices first[g] .. first[g + 1] - 1 are of group g */
	const td_choice *choices; /* in each group as td_choice_frontier() leaves them, at least one */
	const uint32_t *group;	  /* [n_items], each group has at least one item */
	const td_choice
		*fallback; /* [n_groups], a plan that is taken where it is better; may be NULL */
} td_knapsack;

typedef enum td_goal
{
	TD_LEAST_COST,	/* least total cost with mean quality >= limit */
	TD_MOST_QUALITY /* greatest total quality with total cost <= limit */
} td_goal;

typedef struct td_plan
{
	double cost;	  /* USD, summed in the order of the items */
	double quality;	  /* sum in the order of the items */
	double bound;	  /* least cost, or greatest quality, of the linear relaxation */
	double reachable; /* greatest mean quality, or least total cost, of any plan */
	double limit;	  /* the limit that was used */
	uint32_t is_feasible;
	uint32_t is_exact; /* 1: proved to be the optimum, else within one item of bound */
} td_plan;

/* Items up to which all choices are worth keeping, since the exact optimum is searched for. */
#define TD_KNAPSACK_EXACT_ITEMS 24

/*
 * The multiple-choice knapsack: one choice for each item.
 *
 * The linear relaxation takes steps along the hulls in the order of quality gained per USD; the
 * plan is that solution with its one divided item rounded to the feasible side, and then every step
 * undone that the limit does not need: so its cost (quality) is within one step of one item of the
 * bound.  With at most TD_KNAPSACK_EXACT_ITEMS items a branch and bound improves it to the optimum,
 * as far as a fixed number of nodes goes.  Equal steps are taken for the lower item first.
 * (Sinha and Zoltners 1979; Kellerer, Pferschy and Pisinger 2004, section 11.2.)
 *
 * limit    mean quality or USD; NaN with TD_LEAST_COST: the mean quality of the fallback
 * level    [n_items] out: number of the chosen choice within its group, TD_NONE: the fallback;
 *          when there is no feasible plan, the plan that comes nearest
 * plan     out; is_feasible 0 says that no plan keeps the limit
 * scratch  td_knapsack_scratch_size(knapsack) bytes, aligned to 64
 *
 * Returns TD_ERR_BUFFER, or TD_ERR_SHAPE when a group is empty or an item is of no group.
 * Cost O(c log c) for c choices, and a bounded search for few items.
 */
size_t td_knapsack_scratch_size(const td_knapsack *knapsack);
td_status td_knapsack_solve(const td_knapsack *knapsack, td_goal goal, double limit,
							uint32_t *level, td_plan *plan, void *scratch, size_t scratch_size);

/* Whether a sum of costs is within a limit, rounding aside: three times 0.1 are within 0.3. */
int td_knapsack_within(double sum, double limit);

/* What an agent gets of a divided budget. */
typedef struct td_allotment
{
	double cost;	 /* USD */
	double requests; /* how many */
	double quality;	 /* sum of their expected quality */
} td_allotment;

/*
 * The greatest total quality for kinds of requests that come many times, within a budget.  Every
 * group is a kind; of its count whole requests may go to different agents.
 *
 * count    [n_groups], how often each kind comes, whole numbers; knapsack->group and n_items are
 * not read, and neither is the fallback budget   USD allotted [n_agents] out plan     out, with
 * quality and reachable: the least cost scratch  td_knapsack_scratch_size() of the knapsack with
 * n_items 0
 *
 * Returns as td_knapsack_solve() does.
 */
td_status td_knapsack_divide(const td_knapsack *knapsack, const double *count, double budget,
							 td_allotment *allotted, uint32_t n_agents, td_plan *plan,
							 void *scratch, size_t scratch_size);

/* ---------------------------------------------------------------- in td_multi.c: several agents */

#define TD_TEAM_MAX 32	/* agents in a team */
#define TD_NEEDS_MAX 64 /* capabilities that one request can need */
#define TD_PARTS_MAX 8	/* parts of a request that are looked at by themselves */

typedef enum td_strategy
{
	TD_PIPELINE, /* one after the other: latencies add up */
	TD_PARALLEL, /* disjoint shares at the same time: the slowest counts */
	TD_ENSEMBLE	 /* all answer, and vote: the slowest counts */
} td_strategy;
#define TD_N_STRATEGIES 3

/* The name of a strategy as a user writes it. */
const char *td_strategy_name(td_strategy strategy);

/* UTF-8 bytes, not NUL-terminated. */
typedef struct td_string
{
	const char *data;
	size_t len;
} td_string;

/* How much a request asks for a capability. */
typedef struct td_relevance
{
	float
		similarity; /* greatest cosine of its phrase with the request or a part, 0 without phrase */
	double fit;		/* of that similarity */
	double position; /* where in the course of the work it belongs, [0, 1] */
} td_relevance;

/*
 * Split a request (UTF-8) where one task ends and another begins: at , ; : . ! ? and line ends, and
 * at the words "and" and "then".  Parts of fewer than two words say too little and are left out.
 *
 * parts    [TD_PARTS_MAX] out: they point into text
 *
 * Returns how many parts: 0 when the request is all one.
 */
uint32_t td_team_parts(const char *text, size_t len, td_string *parts);

/*
 * How much a request asks for each capability, and when.
 *
 * n_capabilities  of the whole registry
 * phrase          [n_capabilities]: the phrase that says the capability, TD_NONE: none
 * name            [n_capabilities]: folded names
 * queries         [1 + n_parts][dim]: vectors of the request and of its parts, unit length or zero
 * out             [n_capabilities]
 * scratch         td_score_scratch_size(registry) bytes, aligned to 64
 *
 * A capability that a part asks for clearly is placed where the part stands in the text; otherwise
 * in the usual course of work, as its words tell: understand, make, run, check, finish.
 *
 * Returns TD_ERR_BUFFER, TD_ERR_SHAPE or TD_ERR_NONFINITE.
 * Cost O(n_capabilities * (1 + n_parts) * dim).
 */
td_status td_team_relevance(const td_registry *registry, double mu, double s,
							uint32_t n_capabilities, const uint32_t *phrase, const td_string *name,
							const float *queries, uint32_t n_parts, td_relevance *out,
							void *scratch, size_t scratch_size);

typedef struct td_team_request
{
	td_strategy strategy;
	uint32_t n_wanted;		  /* 1 .. TD_TEAM_MAX */
	double max_cost;		  /* USD for the whole team; INFINITY: no limit */
	double max_latency_ms;	  /* for the whole; INFINITY: no limit */
	const uint32_t *required; /* capability ids that the team must have together, without doubles */
	size_t n_required;		  /* 0: the team covers what the request seems to ask for */
	uint32_t n_capabilities;
	const td_relevance *relevance; /* [n_capabilities] */
} td_team_request;

typedef struct td_member
{
	uint32_t agent;
	uint32_t n_shared; /* members that do the same and nothing else: 1 or more */
	uint32_t share;	   /* which of them, from 1 */
	uint32_t own;	   /* capability of a member without a need: its closest; TD_NONE: none */
	uint64_t needs;	   /* bit i: it does need i of the team */
	double weight;	   /* of its vote or its share of the work, sums to 1; NaN in a pipeline */
} td_member;

typedef struct td_team
{
	td_strategy strategy;
	uint32_t n_members;
	uint32_t n_eligible; /* candidates that passed the limits on one agent */
	uint32_t n_needs;
	uint32_t need[TD_NEEDS_MAX]; /* capability ids: as required, or the most asked for first */
	uint64_t covered;			 /* bit i: a member has need i */
	double cost;				 /* USD of the whole, unknown costs left out */
	double latency_ms;			 /* of the whole, unknown latencies left out */
	uint32_t is_exact;			 /* 1: proved to be the best team */
	td_member member[TD_TEAM_MAX];
} td_team;

/*
 * Choose a team among scored candidates.
 *
 * Without required capabilities, a request needs those capabilities of eligible agents whose fit is
 * at least 0.5, or the one that is closest.  Of all teams within the limits the chosen one has, in
 * this order: as many members as wanted or as there can be; the greatest weight of covered needs
 * (all of the required ones, or it is no team); the greatest sum of scores, in an ensemble each
 * lessened by half its mean overlap with the other voters (the share of common capabilities); the
 * least cost.  Exact where a fixed number of nodes of a branch and bound
 * suffices, as it does for some dozens of candidates that differ; else greedy with exchanges.
 *
 * candidates  [n_agents] from td_score_agents(); only eligible ones can be members
 * team        out; n_members 0 when no team is within the limits
 * scratch     td_team_scratch_size(registry) bytes, aligned to 64
 *
 * Returns TD_ERR_BUFFER, or TD_ERR_SHAPE when n_wanted or n_required is out of bounds.
 */
size_t td_team_scratch_size(const td_registry *registry);
td_status td_team_choose(const td_registry *registry, const td_candidate *candidates,
						 const td_team_request *request, td_team *team, void *scratch,
						 size_t scratch_size);

/*
 * What a member of a team is for, such as "first: reasoning, code" or "voter 2 of 3: testing".
 *
 * name     [n_capabilities]: folded names of capabilities
 * out      [capacity], TD_REASON_SIZE is enough; cut to whole UTF-8 characters
 *
 * Returns the number of bytes written.
 */
size_t td_team_role(const td_team *team, uint32_t member, const td_string *name, char *out,
					size_t capacity);

/* ---------------------------------------------------------------- in td_reason.c: in words */

/*
 * One line that says why a candidate was chosen, or which limits rejected it and by how much.
 *
 * phrase      [phrase_len] its closest phrase, NULL when it has none
 * objective   NUL-terminated name of the policy
 * rank        1 for the chosen candidate, 2 for the next ...; not read when it is rejected
 * n_eligible  candidates that passed every limit
 * info        what the encoder read of the text, NULL when a vector was given
 * out         [capacity], cut to whole UTF-8 characters if it is too small; not NUL-terminated
 *
 * Returns the number of bytes written.
 */
size_t td_reason(const td_candidate *candidate, const td_agent *agent, const td_request *request,
				 const char *phrase, size_t phrase_len, const char *objective, uint32_t rank,
				 uint32_t n_eligible, const td_embed_info *info, char *out, size_t capacity);

/* td_reason() for a member of a team; member counts from 0. */
size_t td_reason_member(const td_candidate *candidate, const td_team *team, uint32_t member,
						const char *phrase, size_t phrase_len, const char *objective,
						const td_embed_info *info, char *out, size_t capacity);

/* td_reason() for one of n requests that td_knapsack_solve() decided together. */
size_t td_reason_plan(const td_candidate *candidate, td_goal goal, const td_plan *plan, uint32_t n,
					  const char *phrase, size_t phrase_len, const td_embed_info *info, char *out,
					  size_t capacity);

#define TD_REASON_SIZE                                                                             \
	1024 /* bytes that hold every sentence with a phrase cut to 80 characters                      \
		  */

/* ---------------------------------------------------------------- in td_routes.c: semantic routes
 */

/*
 * How near a request is to a route.  Cosines are those of the quantised vectors, as everywhere.
 * In the order in which equals are preferred by td_tune_step().
 */
typedef enum td_scorer
{
	TD_SCORER_NEAREST = 0, /* greatest cosine with an utterance */
	TD_SCORER_CENTROID,	   /* cosine with the normalised sum of the utterances */
	TD_SCORER_TOP3,		   /* mean of the three greatest cosines */
	TD_SCORER_RIDGE /* kernel ridge regression to 1 for the route's utterances, 0 for others */
} td_scorer;
#define TD_N_SCORERS 4

/* The name of a td_scorer as a user writes it: "nearest", "centroid", "top3", "ridge"; else "". */
const char *td_scorer_name(unsigned i);

typedef struct td_route
{
	uint32_t first_row; /* of its utterances */
	uint32_t n_rows;
	uint32_t first_negative; /* of the utterances that must not match it */
	uint32_t n_negatives;
	int32_t priority; /* the greater goes first among near-ties */
	float threshold;  /* least score that matches; -INFINITY: no cut */
} td_route;

/* The routes as the kernel reads them; they stand in byte order of their names. */
typedef struct td_routes
{
	uint32_t n_routes;
	uint32_t n_rows;
	uint32_t n_negatives;
	uint32_t dim;
	uint32_t level; /* td_level to compute with, e.g. td_level_best(); 0: portable C */
	const td_route *routes;
	const int8_t *rows;	 /* [n_rows][dim], td_vec_quantise() of unit vectors, in route order */
	const float *scales; /* [n_rows] */
	const int8_t *negative_rows;
	const float *negative_scales;

	uint32_t scorer;			  /* td_scorer */
	double mu;					  /* score at which confidence is 0.5 */
	double s;					  /* > 0 */
	const int8_t *centroid_rows;  /* [n_routes][dim], td_routes_centroids(); TD_SCORER_CENTROID */
	const float *centroid_scales; /* [n_routes] */
	const float
		*weights; /* [n_routes][td_ridge_landmarks()], td_ridge_weights(); TD_SCORER_RIDGE */
} td_routes;

/* Scores closer than this are a near-tie; docs/functions/ruvector_semantic_route.md has the
 * measurement. */
#define TD_NEAR_TIE 0.02f

/*
 * The centroid of each route, quantised.
 *
 * rows     [n_routes][dim] out; zeros for a route without utterances
 * scales   [n_routes] out
 * scratch  td_routes_centroids_scratch_size(routes) bytes, aligned to 64
 *
 * Returns TD_ERR_SHAPE for an impossible dim.  Cost O(n_rows * dim).
 */
size_t td_routes_centroids_scratch_size(const td_routes *routes);
td_status td_routes_centroids(const td_routes *routes, int8_t *rows, float *scales, void *scratch,
							  size_t scratch_size);

/*
 * The score of every route for one request, negative examples counted: with n the greatest cosine
 * with a negative example and p that with an utterance, the score falls by n - p where n > p, and
 * the route is excluded where 1 - n < (1 - p) / 2.
 *
 * query    [dim], unit length or zero
 * scores   [n_routes] out, at most 1 but for TD_SCORER_RIDGE; -INFINITY: excluded, or without
 * utterances scratch  td_routes_scratch_size(routes) bytes, aligned to 64
 *
 * Returns TD_ERR_NONFINITE for a query with NaN, TD_ERR_SHAPE for an impossible dim or a scorer
 * without its arrays.  Cost O(rows that the scorer reads * dim).
 */
size_t td_routes_scratch_size(const td_routes *routes);
td_status td_routes_score(const td_routes *routes, const float *query, float *scores, void *scratch,
						  size_t scratch_size);

/*
 * The best k of the routes that are open and reach their thresholds.
 *
 * By score, except that the routes within TD_NEAR_TIE of the best are a near-tie, in which greater
 * priority goes first; the best of the others starts the next near-tie.  Equals in order of number.
 *
 * scores   [n_routes], from td_routes_score()
 * open     [n_routes], 0: must not match; NULL: all are open
 * index    [k] out: route numbers, best first
 * n_found  out
 * scratch  td_routes_select_scratch_size(routes) bytes, aligned to 64
 *
 * Returns TD_ERR_BUFFER.  Cost O(n_routes log n_routes) at worst, O(n_routes) for a small k.
 */
size_t td_routes_select_scratch_size(const td_routes *routes);
td_status td_routes_select(const td_routes *routes, const float *scores, const uint8_t *open,
						   size_t k, uint32_t *index, size_t *n_found, void *scratch,
						   size_t scratch_size);

/* A score as the probability that the route is right: logistic((score - mu) / s), in (0, 1). */
double td_routes_confidence(const td_routes *routes, float score);

/*
 * What the weights of TD_SCORER_RIDGE depend on, in 64 bits: utterances, their routes and the
 * constants of the regression.  Equal numbers: stored weights are those that a fit would give.
 */
uint64_t td_routes_fingerprint(const td_routes *routes);

/* ---------------------------------------------------------------- in td_ridge.c: kernel ridge */

/*
 * Kernel ridge regression over utterances: features are exp(-gamma (1 - cosine)) to landmarks,
 * targets 1 for the route of an utterance and 0 for the others, closed form by a Cholesky factor in
 * double. Up to TD_RIDGE_EXACT utterances all are landmarks and the dual system is solved; of more,
 * evenly spaced ones are, and the primal system of the landmarks' features is (Rasmussen and
 * Williams 2006, equations 2.25 and 8.14 without its prior; leave-one-out by their equation 5.12,
 * and by the hat matrix).
 */
#define TD_RIDGE_EXACT 2048u
#define TD_RIDGE_SAMPLED 1024u

/* How many landmarks there are: 0 when the regression cannot be had (no utterances). */
uint32_t td_ridge_landmarks(const td_routes *routes);

/*
 * Fit in steps of some milliseconds, so that a caller can look at interrupts between them.
 *
 * state  td_ridge_size(routes) bytes, aligned to 64; routes must outlive it
 * more   out: 0 when the weights are there
 *
 * Returns TD_ERR_BUFFER, or TD_ERR_SHAPE where there are no landmarks.
 * Cost with m landmarks: O(n_rows * m * (m + dim) + m * m * (m + n_routes)).
 */
size_t td_ridge_size(const td_routes *routes);
td_status td_ridge_begin(const td_routes *routes, void *state, size_t size);
td_status td_ridge_step(void *state, uint32_t *more);

/* The weights [n_routes][landmarks], in the state, once td_ridge_step() has said that they are
 * there. */
const float *td_ridge_weights(const void *state);

/* ---------------------------------------------------------------- in td_tune.c: choosing a scorer
 */

typedef struct td_tune_options
{
	uint32_t scorer;  /* td_scorer, TD_NONE: the most accurate */
	double precision; /* wanted of each route's answers, NaN: not wanted */
	double coverage;  /* wanted share of each route's requests, NaN: not wanted */
} td_tune_options;

typedef struct td_tune_result
{
	uint32_t scorer;
	uint32_t n_left_out; /* utterances that were matched against the others */
	uint32_t n_short;	 /* routes that do not reach what was wanted */
	uint32_t fitted;	 /* 0: too few utterances to learn from; mu and s are the routes' own */
	double mu;
	double s;
	double accuracy[TD_N_SCORERS]; /* leave-one-out, without thresholds; NaN: not tried */
} td_tune_result;

typedef struct td_route_report
{
	float threshold; /* to set; -INFINITY: no cut */
	uint32_t
		confused_with; /* the route that most of its lost utterances go to, TD_NONE: none lost */
	double confusion;  /* share of its utterances that go there */
	double precision;  /* of what the route was given, at the threshold; NaN: nothing */
	double coverage;   /* share of its utterances it was given; NaN: none could be left out */
} td_route_report;

/*
 * Choose the scorer, the constants of confidence and the thresholds by leave-one-out.
 *
 * Each utterance of a route with at least two is scored as if it were not there.  The most accurate
 * scorer is taken; confidence is fitted to the outcomes (Platt 1999, with his targets).  A wanted
 * precision is judged by a route's own outcomes and, with the weight of TD_TUNE_POOLED outcomes, by
 * those of all routes at that score.  Wanted is one of the two or neither, in which case thresholds
 * stay, or move to the new scorer at the same coverage.  Priorities play no part; negative examples
 * lower scores as they always do, but are no outcomes, being a choice of hard cases.
 *
 * state    td_tune_size(routes, options) bytes, aligned to 64; routes must outlive it
 * more     out: 0 when the result is there
 * reports  [n_routes] out
 *
 * Returns TD_ERR_BUFFER, or TD_ERR_SHAPE for an impossible dim, scorer, precision or coverage.
 * Cost O(n_rows * n_rows * dim) and that of td_ridge_step().
 */
#define TD_TUNE_POOLED 30
size_t td_tune_size(const td_routes *routes, const td_tune_options *options);
td_status td_tune_begin(const td_routes *routes, const td_tune_options *options, void *state,
						size_t size);
td_status td_tune_step(void *state, uint32_t *more);
void td_tune_report(const void *state, td_tune_result *result, td_route_report *reports);

/* The ridge weights of a tuning that tried TD_SCORER_RIDGE, as td_ridge_weights(); else NULL. */
const float *td_tune_weights(const void *state);

#ifdef __cplusplus
}
#endif

#endif /* TINYDANCER_H */
