/*
 * td_encoder.c - a checked view on an encoder file.
 *
 * In: the bytes of a file.  Out: a td_encoder whose vocabulary, rows and constants can be used
 * without further checks by td_text.c and td_embed.c.  Called by both shells when they map a file;
 * td_bert_open.c does what only BERT encoders have.
 */
#include <float.h>
#include <string.h>

#include "td_bert.h"
#include "tinydancer.h"

/* Positions in the "encoder" section. */
enum
{
	ENC_DIM,
	ENC_MAX_TOKENS,
	ENC_VOCAB_SIZE,
	ENC_FIRST_ROW,
	ENC_FLAGS,
	ENC_UNK,
	ENC_CLS,
	ENC_SEP,
	ENC_PAD,
	ENC_MASK,
	ENC_FIT_MU,
	ENC_FIT_S,
	ENC_N = 16
};

#define ALL_FLAGS (TD_TEXT_LOWERCASE | TD_TEXT_STRIP_ACCENTS | TD_TEXT_SPLIT_CJK | TD_TEXT_CLEAN)
#define SCALES 256

/* Longest run of occupied slots: bounds what one look-up of a crafted file can cost. */
#define MAX_PROBES 4096

/* Offsets are relative to one base for so many pieces: see td_vocab. */
#define PIECES_OF_BASE 256

static float
bits_to_float(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* False for NaN too. */
static int
in_range(float value, float least, float greatest)
{
	return value >= least && value <= greatest;
}

td_status
td_encoder_require(const td_file *file, const char *name, td_element element, size_t count,
				   const void **data)
{
	size_t found;
	td_status status = td_file_section(file, name, element, data, &found);

	if (status != TD_OK)
		return status;
	return *data != NULL && found == count ? TD_OK : TD_ERR_CORRUPT;
}

static int
special_id_is_valid(uint32_t id, uint32_t size)
{
	return id < size || id == TD_NONE;
}

/*
 * Whether every piece lies in the text behind the one before it; finds the longest.  The first call
 * of a session waits for this and for index_is_valid(), so their inner loops are such that a
 * compiler makes vector code of them.
 */
static int
offsets_are_valid(td_vocab *vocab, size_t text_size)
{
	uint64_t previous = (uint64_t) vocab->base[0] + vocab->offset[0];
	size_t from;

	for (from = 1; from <= vocab->size; from = (from | (PIECES_OF_BASE - 1)) + 1)
	{
		const uint16_t *offset = vocab->offset + from;
		size_t n = PIECES_OF_BASE - from % PIECES_OF_BASE;
		uint64_t position = (uint64_t) vocab->base[from / PIECES_OF_BASE] + offset[0];
		uint16_t longest = 0;
		uint16_t empty = 0;
		size_t i;

		if (n > vocab->size + 1 - from)
			n = vocab->size + 1 - from;
		/* An empty piece would match everywhere and never advance. */
		if (position <= previous)
			return 0;
		if (position - previous > vocab->max_piece_size)
			vocab->max_piece_size = (uint32_t) (position - previous);
		for (i = 1; i < n; i++)
		{
			uint16_t size = (uint16_t) (offset[i] - offset[i - 1]);

			empty |= offset[i] <= offset[i - 1];
			longest = size > longest ? size : longest;
		}
		if (empty)
			return 0;
		if (longest > vocab->max_piece_size)
			vocab->max_piece_size = longest;
		previous = position + (uint64_t) (offset[n - 1] - offset[0]);
	}
	return previous <= text_size;
}

/* Whether every slot is empty or has an id, and probing soon comes to an empty one. */
static int
index_is_valid(const td_vocab *vocab)
{
	const uint16_t *index = vocab->index;
	uint16_t size = (uint16_t) vocab->size;
	size_t n_slots = vocab->n_slots;
	size_t n_empty = 0;
	size_t run = 0;
	int full = 0;
	size_t from;
	size_t i;

	for (from = 0; from < n_slots; from += MAX_PROBES / 2)
	{
		size_t n = n_slots - from < MAX_PROBES / 2 ? n_slots - from : MAX_PROBES / 2;
		uint16_t unknown = 0;
		uint16_t empty = 0;

		for (i = 0; i < n; i++)
		{
			uint16_t id = index[from + i];

			unknown |= (uint16_t) ((id >= size) & (id != TD_VOCAB_EMPTY_SLOT));
			empty |= id == TD_VOCAB_EMPTY_SLOT;
		}
		if (unknown)
			return 0;
		full |= !empty;
	}
	/* Between two neighbours of these stretches with an empty slot each, no run is too long. */
	if (!full)
		return n_slots > 0;

	for (i = 0; i < n_slots; i++)
	{
		if (index[i] == TD_VOCAB_EMPTY_SLOT)
		{
			n_empty++;
			run = 0;
		}
		else if (++run > MAX_PROBES)
			return 0;
	}
	/* Linear probing ends at an empty slot. */
	return n_empty > 0;
}

static td_status
open_vocab(const td_file *file, const uint32_t *config, td_vocab *vocab)
{
	const void *data;
	size_t text_size;
	size_t n_slots;
	td_status status;

	vocab->size = config[ENC_VOCAB_SIZE];
	vocab->flags = config[ENC_FLAGS];
	vocab->unk_id = config[ENC_UNK];
	vocab->cls_id = config[ENC_CLS];
	vocab->sep_id = config[ENC_SEP];
	vocab->pad_id = config[ENC_PAD];
	vocab->mask_id = config[ENC_MASK];
	if (vocab->size == 0 || vocab->size > TD_VOCAB_MAX || (vocab->flags & ~ALL_FLAGS) != 0)
		return TD_ERR_CORRUPT;
	if (vocab->unk_id >= vocab->size || !special_id_is_valid(vocab->cls_id, vocab->size) ||
		!special_id_is_valid(vocab->sep_id, vocab->size) ||
		!special_id_is_valid(vocab->pad_id, vocab->size) ||
		!special_id_is_valid(vocab->mask_id, vocab->size))
		return TD_ERR_CORRUPT;

	status = td_file_section(file, "vocab.text", TD_U8, &data, &text_size);
	if (status != TD_OK)
		return status;
	if (data == NULL)
		return TD_ERR_CORRUPT;
	vocab->text = data;
	status = td_encoder_require(file, "vocab.base", TD_U32, (vocab->size >> 8) + 1, &data);
	if (status != TD_OK)
		return status;
	vocab->base = data;
	status = td_encoder_require(file, "vocab.offset", TD_U16, (size_t) vocab->size + 1, &data);
	if (status != TD_OK)
		return status;
	vocab->offset = data;
	status = td_file_section(file, "vocab.index", TD_U16, &data, &n_slots);
	if (status != TD_OK)
		return status;
	if (data == NULL || n_slots > 4 * (size_t) TD_VOCAB_MAX)
		return TD_ERR_CORRUPT;
	vocab->index = data;
	vocab->n_slots = (uint32_t) n_slots;

	return offsets_are_valid(vocab, text_size) && index_is_valid(vocab) ? TD_OK : TD_ERR_CORRUPT;
}

static td_status
open_static(const td_file *file, td_encoder *encoder)
{
	const void *data;
	size_t n_rows = encoder->vocab.size - encoder->first_row;
	size_t i;
	td_status status;

	status = td_encoder_require(file, "static.row", TD_I8, n_rows * encoder->dim, &data);
	if (status != TD_OK)
		return status;
	encoder->static_rows = data;
	status = td_encoder_require(file, "static.code", TD_U8, n_rows, &data);
	if (status != TD_OK)
		return status;
	encoder->static_codes = data;
	status = td_encoder_require(file, "static.scale", TD_F32, SCALES, &data);
	if (status != TD_OK)
		return status;
	encoder->static_scales = data;
	for (i = 0; i < SCALES; i++)
	{
		/* Small enough that no sum over max_tokens rows overflows. */
		if (!in_range(encoder->static_scales[i], 0.0f, 1e10f))
			return TD_ERR_CORRUPT;
	}
	return TD_OK;
}

/* A view on a file whose container was looked at. */
static td_status
open_file(td_encoder *encoder)
{
	const void *data;
	const uint32_t *config;
	td_status status;

	if (encoder->file.kind != TD_FILE_STATIC_ENCODER && encoder->file.kind != TD_FILE_BERT_ENCODER)
		return TD_ERR_KIND;
	status = td_encoder_require(&encoder->file, "encoder", TD_U32, ENC_N, &data);
	if (status != TD_OK)
		return status;
	config = data;

	encoder->dim = config[ENC_DIM];
	encoder->max_tokens = config[ENC_MAX_TOKENS];
	encoder->first_row = config[ENC_FIRST_ROW];
	encoder->fit_mu = bits_to_float(config[ENC_FIT_MU]);
	encoder->fit_s = bits_to_float(config[ENC_FIT_S]);
	if (encoder->dim == 0 || encoder->dim > TD_MAX_DIM || encoder->max_tokens == 0 ||
		encoder->max_tokens > TD_MAX_TOKENS)
		return TD_ERR_CORRUPT;
	if (!in_range(encoder->fit_mu, -1.0f, 1.0f) || !in_range(encoder->fit_s, 1e-6f, 1e6f))
		return TD_ERR_CORRUPT;

	status = open_vocab(&encoder->file, config, &encoder->vocab);
	if (status != TD_OK)
		return status;
	if (encoder->first_row > encoder->vocab.size)
		return TD_ERR_CORRUPT;
	encoder->level = td_level_best();
	return encoder->file.kind == TD_FILE_BERT_ENCODER ? td_bert_open(encoder)
													  : open_static(&encoder->file, encoder);
}

td_status
td_encoder_open(const void *bytes, size_t size, td_encoder *encoder)
{
	td_status status;

	memset(encoder, 0, sizeof(*encoder));
	status = td_file_open(bytes, size, &encoder->file);
	return status != TD_OK ? status : open_file(encoder);
}

td_status
td_encoder_reopen(const void *bytes, size_t size, td_encoder *encoder)
{
	td_status status;

	memset(encoder, 0, sizeof(*encoder));
	status = td_file_reopen(bytes, size, &encoder->file);
	return status != TD_OK ? status : open_file(encoder);
}
