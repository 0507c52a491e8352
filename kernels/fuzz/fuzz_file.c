/*
 * fuzz_file.c - fuzz target for td_file.c, td_encoder.c, td_embed.c and td_bert*.c.
 *
 * In:  the bytes of an encoder file.
 * Out: nothing; whatever td_encoder_open() accepts must be safe to embed texts with, so a sanitizer
 *      stops it at any access out of bounds.
 * Run by libFuzzer, or by driver.c where there is none.
 *
 * Each input is tried as it is, and once more with the size and checksum that it should have:
 * otherwise no changed byte would get past the checksum.
 */
#include "fuzz.h"
#include "tinydancer.h"

#include <string.h>

#define ALIGNMENT 64
#define SIZE_AT 16
#define CHECKSUM_AT 24
#define CHECKED_FROM 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const texts[] = {
	"hello world",
	"a",
	"##ing [CLS] unaffable \xe4\xbd\xa0\xe5\xa5\xbd [MASK]",
	"",
	"\xff\xfe",
	"supercalifragilisticexpialidocious 1234567890 ... !!!",
	"a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a",
};
#define N_TEXTS (sizeof(texts) / sizeof(texts[0]))

/* A block of exactly this size, aligned as the kernel asks for it. */
static void *
allocate(size_t size)
{
	void *memory = NULL;

	REQUIRE(posix_memalign(&memory, ALIGNMENT, size > 0 ? size : 1) == 0);
	return memory;
}

static void
check_embedded(td_status status, const td_embed_info *info, const float *out, uint32_t dim)
{
	if (status == TD_OK)
	{
		REQUIRE(info->n_used <= info->n_tokens && info->n_known <= info->n_used);
		REQUIRE(td_vec_check(out, dim) == TD_OK);
	}
	else
		REQUIRE(status == TD_ERR_EMPTY || status == TD_ERR_UTF8 || status == TD_ERR_NONFINITE);
}

/* Each text by itself, with no more scratch than it is said to need. */
static void
embed_one_by_one(const td_encoder *encoder)
{
	float *out = malloc(encoder->dim * sizeof(float));
	td_embed_info info;
	size_t i;

	REQUIRE(out != NULL);
	for (i = 0; i < N_TEXTS; i++)
	{
		size_t len = strlen(texts[i]);
		size_t scratch_size = td_embed_scratch_size(encoder, len);
		void *scratch = allocate(scratch_size);
		td_status status = td_embed_text(encoder, texts[i], len, out, &info, scratch, scratch_size);

		check_embedded(status, &info, out, encoder->dim);
		free(scratch);
	}
	free(out);
}

/* As many at a time as fit. */
static void
embed_together(const td_encoder *encoder)
{
	size_t scratch_size = td_embed_scratch_size(encoder, 200);
	void *scratch = allocate(scratch_size);
	float *out = malloc(N_TEXTS * encoder->dim * sizeof(float));
	size_t lens[N_TEXTS];
	size_t done = 0;
	td_embed_job job;
	size_t i;

	REQUIRE(out != NULL);
	for (i = 0; i < N_TEXTS; i++)
		lens[i] = strlen(texts[i]);
	while (done < N_TEXTS)
	{
		td_status status = td_embed_begin(&job, encoder, texts + done, lens + done, N_TEXTS - done,
										  scratch, scratch_size);

		/* The last one is alone, and begin speaks of it. */
		if (status != TD_OK)
		{
			check_embedded(status, &job.info[0], out, encoder->dim);
			break;
		}
		while (td_embed_step(&job))
			;
		td_embed_end(&job, out);
		REQUIRE(job.n_texts >= 1 && job.n_texts <= N_TEXTS - done);
		for (i = 0; i < job.n_texts; i++)
			check_embedded(job.status[i], &job.info[i], out + i * encoder->dim, encoder->dim);
		done += job.n_texts;
	}
	free(scratch);
	free(out);
}

static void
use_encoder(td_encoder *encoder)
{
	td_level best = td_level_best();
	unsigned level;

	/* A crafted limit of a million rows would only use up the time. */
	if ((uint64_t) encoder->max_tokens * encoder->dim > (1u << 20))
		return;
	for (level = 0; level <= best; level++)
	{
		encoder->level = level;
		embed_one_by_one(encoder);
		embed_together(encoder);
		if (encoder->file.kind == TD_FILE_STATIC_ENCODER)
			break;
	}
	(void) td_encoder_verify(encoder);
}

static void
try_file(const uint8_t *bytes, size_t size)
{
	td_encoder encoder;
	td_file file;
	const void *section;
	size_t count;

	if (td_file_open(bytes, size, &file) == TD_OK &&
		td_file_section(&file, "about", TD_U8, &section, &count) == TD_OK && section != NULL)
		(void) td_hash64(section, count, 0);
	if (td_encoder_open(bytes, size, &encoder) == TD_OK)
		use_encoder(&encoder);
	else if (td_encoder_reopen(bytes, size, &encoder) == TD_OK)
		use_encoder(&encoder);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *bytes = allocate(size);

	memcpy(bytes, data, size);
	try_file(bytes, size);
	if (size > CHECKED_FROM)
	{
		uint64_t value = size;

		memcpy(bytes + SIZE_AT, &value, sizeof(value));
		value = td_hash64(bytes + CHECKED_FROM, size - CHECKED_FROM, 0);
		memcpy(bytes + CHECKSUM_AT, &value, sizeof(value));
		try_file(bytes, size);
	}
	free(bytes);
	return 0;
}
