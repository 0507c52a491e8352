/*
 * fuzz_file.c - fuzz target for td_file.c, td_encoder.c and td_embed.c.
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
};

/* A block of exactly this size, aligned as the kernel asks for it. */
static void *
allocate(size_t size)
{
	void *memory = NULL;

	REQUIRE(posix_memalign(&memory, ALIGNMENT, size > 0 ? size : 1) == 0);
	return memory;
}

static void
use_encoder(const td_encoder *encoder)
{
	float *out = malloc(encoder->dim * sizeof(float));
	td_embed_info info;
	size_t i;

	REQUIRE(out != NULL);
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		size_t len = strlen(texts[i]);
		size_t scratch_size = td_embed_scratch_size(encoder, len);
		void *scratch = allocate(scratch_size);
		td_status status = td_embed_text(encoder, texts[i], len, out, &info, scratch, scratch_size);

		if (status == TD_OK)
		{
			REQUIRE(info.n_used <= info.n_tokens && info.n_known <= info.n_used);
			REQUIRE(td_vec_check(out, encoder->dim) == TD_OK);
		}
		else
			REQUIRE(status == TD_ERR_EMPTY || status == TD_ERR_UTF8 || status == TD_ERR_NONFINITE);
		free(scratch);
	}
	free(out);
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
