/*
 * fuzz_model.c - fuzz target for td_model_open.c, td_model.c, td_words.c and td_project.c.
 *
 * In:  the bytes of a model file.
 * Out: nothing; whatever td_model_open() accepts must be safe to apply, so a sanitizer stops it at
 *      any access out of bounds, and its probabilities must be between 0 and 1.
 * Run by libFuzzer, or by driver.c where there is none.
 *
 * Each input is tried as it is, and once more with the size and checksum that it should have:
 * otherwise no changed byte would get past the checksum.  Members that read text are not fed here,
 * since that takes an encoder: the tests do it.  A projection is fed with word pieces by itself.
 */
#include "fuzz.h"
#include "tinydancer.h"

#include <string.h>

#define ALIGNMENT 64
#define SIZE_AT 16
#define CHECKSUM_AT 24
#define CHECKED_FROM 32

/* Larger models would only use up the time. */
#define MAX_WORK (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A block of exactly this size, aligned as the kernel asks for it. */
static void *
allocate(size_t size)
{
	void *memory = NULL;

	REQUIRE(posix_memalign(&memory, ALIGNMENT, size > 0 ? size : 1) == 0);
	return memory;
}

static void
apply(const td_model *model)
{
	size_t scratch_size = td_model_scratch_size(model);
	void *scratch = allocate(scratch_size);
	float *vector = allocate(model->dim * sizeof(float));
	float *out = allocate(model->n_out * sizeof(float));
	td_status status;
	uint32_t i;

	for (i = 0; i < model->dim; i++)
		vector[i] = (float) ((int) (i % 7) - 3) / 8.0f;
	status = td_model_apply(model, NULL, NULL, 0, vector, out, scratch, scratch_size);
	REQUIRE(status == TD_OK || status == TD_ERR_NONFINITE || status == TD_ERR_SHAPE);
	for (i = 0; status == TD_OK && i < model->n_out; i++)
		REQUIRE(out[i] >= 0.0f && out[i] <= 1.0f);
	free(out);
	free(vector);
	free(scratch);
}

/* Numbers of word pieces near and far, as many as are read at most. */
static void
project(const td_model *model)
{
	uint32_t *ids = allocate(TD_WORDS_MAX_PIECES * sizeof(uint32_t));
	uint32_t *buckets = allocate(TD_WORDS_MAX_FEATURES * sizeof(uint32_t));
	float *values = allocate(TD_WORDS_MAX_FEATURES * sizeof(float));
	float *vector = allocate(model->dim * sizeof(float));
	float *wide = allocate(model->width * sizeof(float));
	uint32_t n;
	uint32_t i;

	for (i = 0; i < TD_WORDS_MAX_PIECES; i++)
		ids[i] = i * 2654435761u >> i % 32;
	for (i = 0; i < model->dim; i++)
		vector[i] = 0.125f;
	for (n = 0; n <= TD_WORDS_MAX_PIECES; n = 2 * n + 1)
	{
		td_project(&model->projection, model->dim, vector, ids, n, buckets, values, wide);
		REQUIRE(td_vec_check(wide, model->width) == TD_OK);
	}
	free(wide);
	free(vector);
	free(values);
	free(buckets);
	free(ids);
}

static void
try_model(const uint8_t *bytes, size_t size)
{
	td_level best = td_level_best();
	td_model model;
	unsigned level;
	uint32_t i;

	if (td_model_open(bytes, size, &model) != TD_OK)
		return;
	if ((uint64_t) model.n_rows * (model.width + model.n_out) > MAX_WORK)
		return;
	for (level = 0; level <= best; level++)
	{
		model.level = level;
		for (i = 0; i < model.n_members; i++)
			model.members[i].cell.level = level;
		apply(&model);
	}
	if (model.projection.rank > 0)
		project(&model);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = allocate(size);

	memcpy(copy, data, size);
	try_model(copy, size);
	if (size >= CHECKED_FROM)
	{
		uint64_t whole = size;
		uint64_t checksum;

		memcpy(copy + SIZE_AT, &whole, sizeof(whole));
		checksum = td_hash64(copy + CHECKED_FROM, size - CHECKED_FROM, 0);
		memcpy(copy + CHECKSUM_AT, &checksum, sizeof(checksum));
		try_model(copy, size);
	}
	free(copy);
	return 0;
}
