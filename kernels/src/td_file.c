/*
 * td_file.c - a checked view on a sectioned file (encoder or model).
 *
 * In: bytes that somebody mapped or read, possibly hostile.  Out: a td_file whose every section
 * lies inside those bytes.  Called by td_encoder.c and by whatever loads models.  All bounds are
 * checked here once, so that nothing later has to.
 */
#include <string.h>

#include "tinydancer.h"

#define HEADER_SIZE 128
#define ENTRY_SIZE 48
#define NAME_SIZE 24
#define ALIGNMENT 64
#define CHECKED_FROM 32

static const uint8_t magic[8] = {'T', 'D', 'F', 'I', 'L', 'E', '\r', '\n'};

static uint32_t
load_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t
load_u64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static int
host_is_little_endian(void)
{
	const uint32_t one = 1;
	uint8_t first;

	memcpy(&first, &one, 1);
	return first == 1;
}

static size_t
element_size(uint32_t element)
{
	switch (element)
	{
		case TD_U8:
		case TD_I8:
			return 1;
		case TD_U16:
			return 2;
		case TD_U32:
		case TD_F32:
		case TD_I32:
			return 4;
		default:
			return 0;
	}
}

/* Only the characters of [a-z0-9._-], at least one, the rest zeros: ids become file names. */
static int
id_is_valid(const uint8_t *id)
{
	size_t i;
	size_t len = 0;

	while (len < TD_FILE_ID_SIZE && id[len] != 0)
	{
		uint8_t c = id[len];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
			return 0;
		len++;
	}
	for (i = len; i < TD_FILE_ID_SIZE; i++)
	{
		if (id[i] != 0)
			return 0;
	}
	return len > 0 && id[0] != '.';
}

td_status
td_file_open(const void *bytes, size_t size, td_file *file)
{
	td_status status = td_file_reopen(bytes, size, file);

	/* A damaged file shows first in its checksum, whatever else the damage did. */
	if (status != TD_OK && status != TD_ERR_CORRUPT)
		return status;
	if (load_u64((const uint8_t *) bytes + 24) !=
		td_hash64((const uint8_t *) bytes + CHECKED_FROM, size - CHECKED_FROM, 0))
		return TD_ERR_CHECKSUM;
	return status;
}

td_status
td_file_reopen(const void *bytes, size_t size, td_file *file)
{
	const uint8_t *b = bytes;
	uint64_t position;
	uint32_t i;

	memset(file, 0, sizeof(*file));
	if (size < sizeof(magic) || memcmp(b, magic, sizeof(magic)) != 0)
		return TD_ERR_NOT_FILE;
	if (size < HEADER_SIZE)
		return TD_ERR_TRUNCATED;
	if (!host_is_little_endian() || load_u32(b + 8) != TD_FILE_VERSION)
		return TD_ERR_VERSION;
	if (load_u64(b + 16) != size)
		return TD_ERR_TRUNCATED;
	if (!id_is_valid(b + 32))
		return TD_ERR_CORRUPT;

	file->bytes = b;
	file->size = size;
	file->kind = load_u32(b + 12);
	file->checksum = load_u64(b + 24);
	file->n_sections = load_u32(b + 64);
	memcpy(file->id, b + 32, TD_FILE_ID_SIZE);
	file->id[TD_FILE_ID_SIZE] = '\0';

	if (file->n_sections > TD_FILE_MAX_SECTIONS ||
		HEADER_SIZE + (uint64_t) file->n_sections * ENTRY_SIZE > size)
		return TD_ERR_CORRUPT;

	/* Sections follow each other, so one running position proves that none overlaps. */
	position = HEADER_SIZE + (uint64_t) file->n_sections * ENTRY_SIZE;
	for (i = 0; i < file->n_sections; i++)
	{
		const uint8_t *entry = b + HEADER_SIZE + (size_t) i * ENTRY_SIZE;
		size_t unit = element_size(load_u32(entry + NAME_SIZE));
		uint64_t offset = load_u64(entry + 32);
		uint64_t length = load_u64(entry + 40);

		if (unit == 0 || entry[0] == 0 || entry[NAME_SIZE - 1] != 0)
			return TD_ERR_CORRUPT;
		if (offset % ALIGNMENT != 0 || offset < position || offset > size ||
			length > size - offset || length % unit != 0)
			return TD_ERR_CORRUPT;
		position = offset + length;
	}
	return TD_OK;
}

td_status
td_file_section(const td_file *file, const char *name, td_element element, const void **data,
				size_t *count)
{
	uint32_t i;

	*data = NULL;
	*count = 0;
	for (i = 0; i < file->n_sections; i++)
	{
		const uint8_t *entry = file->bytes + HEADER_SIZE + (size_t) i * ENTRY_SIZE;

		if (strcmp((const char *) entry, name) != 0)
			continue;
		if (load_u32(entry + NAME_SIZE) != (uint32_t) element)
			return TD_ERR_CORRUPT;
		*data = file->bytes + load_u64(entry + 32);
		*count = (size_t) load_u64(entry + 40) / element_size((uint32_t) element);
		return TD_OK;
	}
	return TD_OK;
}
