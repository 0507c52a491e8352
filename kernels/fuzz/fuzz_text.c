/*
 * fuzz_text.c - fuzz target for td_text.c, and for the parts of td_team_text.c.
 *
 * In:  four bytes of settings (flags and kind of vocabulary, capacity, seed), then the text.
 * Out: nothing; aborts when a promise of tinydancer.h is broken, and a sanitizer stops it at any
 *      access out of bounds.  Every array lies in a heap block of its exact size.
 * Run by libFuzzer, or by driver.c where there is none.
 */
#include "fuzz.h"
#include "tinydancer.h"

#include <stdbool.h>
#include <string.h>

#define HEADER_SIZE 4
#define MAX_PIECES 600 /* more than two of the vocabulary's blocks of 256 */

typedef struct arrays
{
	uint8_t *text;
	uint32_t *base;
	uint16_t *offset;
	uint16_t *index;
} arrays;

static void *
allocate(size_t size)
{
	void *memory = malloc(size > 0 ? size : 1);

	REQUIRE(memory != NULL);
	return memory;
}

/* Put piece number vocab->size at the end of the text. */
static void
add_piece(td_vocab *vocab, arrays *a, uint32_t *n_bytes, const void *piece, uint32_t size)
{
	uint32_t id = vocab->size++;

	memcpy(a->text + *n_bytes, piece, size);
	*n_bytes += size;
	if (size > vocab->max_piece_size)
		vocab->max_piece_size = size;
	if ((id + 1) % 256 == 0)
		a->base[(id + 1) / 256] = *n_bytes;
	a->offset[id + 1] = (uint16_t) (*n_bytes - a->base[(id + 1) / 256]);
}

/* A vocabulary of letters and a few words, found by the hash that tinydancer.h describes. */
static uint32_t
fill_honest(td_vocab *vocab, arrays *a)
{
	static const char *const words[] = {"[PAD]",
										"[UNK]",
										"[CLS]",
										"[SEP]",
										"[MASK]",
										"the",
										"##ing",
										"##ed",
										"!",
										"?",
										".",
										"[",
										"]",
										"#",
										"\xe4\xb8\xad",
										"\xcc\xa7",
										"##\xe3\x80\xae",
										"\xc3\x9f",
										"##\xc3\x9f",
										"\xe1\x84\x92",
										"##\xe1\x85\xa1",
										"##\xe1\x86\xab"};
	uint32_t n_bytes = 0;
	uint32_t i;
	char c;

	for (i = 0; i < sizeof words / sizeof *words; i++)
		add_piece(vocab, a, &n_bytes, words[i], (uint32_t) strlen(words[i]));
	for (c = 'a'; c < 'z'; c++)
	{
		char piece[] = {'#', '#', c};

		add_piece(vocab, a, &n_bytes, piece + 2, 1);
		add_piece(vocab, a, &n_bytes, piece, 3);
	}
	vocab->pad_id = 0;
	vocab->unk_id = 1;
	vocab->cls_id = 2;
	vocab->sep_id = 3;
	vocab->mask_id = 4;

	vocab->n_slots = vocab->size * 2;
	for (i = 0; i < vocab->n_slots; i++)
		a->index[i] = TD_VOCAB_EMPTY_SLOT;
	for (i = 0; i < vocab->size; i++)
	{
		uint32_t start = a->base[i / 256] + a->offset[i];
		uint32_t end = a->base[(i + 1) / 256] + a->offset[i + 1];
		uint32_t hash = 2166136261u;
		uint32_t slot;

		for (; start < end; start++)
			hash = (hash ^ a->text[start]) * 16777619u;
		slot = (uint32_t) ((uint64_t) (hash * 0x9E3779B1u) * vocab->n_slots >> 32);
		while (a->index[slot] != TD_VOCAB_EMPTY_SLOT)
			slot = (slot + 1) % vocab->n_slots;
		a->index[slot] = (uint16_t) i;
	}
	return n_bytes;
}

/* A vocabulary that passes the checks of td_encoder_open() and is nonsense otherwise. */
static uint32_t
fill_hostile(td_vocab *vocab, arrays *a, uint32_t seed)
{
	static const char letters[] = "ab#[] \xc3\xa9\xff\x80";
	uint32_t *special[] = {&vocab->unk_id, &vocab->cls_id, &vocab->sep_id, &vocab->pad_id,
						   &vocab->mask_id};
	uint32_t size = 1 + seed % (MAX_PIECES - 1);
	uint32_t n_bytes = 0;
	uint32_t i;

#define NEXT() (seed = seed * 1664525u + 1013904223u, seed >> 8)
	while (vocab->size < size)
	{
		char piece[12];
		uint32_t n = NEXT() % sizeof piece;

		for (i = 0; i < n; i++)
			piece[i] = letters[NEXT() % (sizeof letters - 1)];
		add_piece(vocab, a, &n_bytes, piece, n);
	}
	for (i = 0; i < sizeof special / sizeof *special; i++)
		*special[i] = NEXT() % 3 == 0 ? TD_NONE : NEXT() % size;
	if (NEXT() % 4 == 0)
		vocab->max_piece_size = NEXT();
	vocab->n_slots = size + 1 + NEXT() % size;
	for (i = 0; i < vocab->n_slots; i++)
		a->index[i] = (uint16_t) (NEXT() % size);
	a->index[NEXT() % vocab->n_slots] = TD_VOCAB_EMPTY_SLOT;
#undef NEXT
	return n_bytes;
}

/* A second opinion on UTF-8: table 3-7 of the Unicode standard. */
static bool
is_utf8(const uint8_t *s, size_t len)
{
	while (len > 0)
	{
		uint8_t low = 0x80;
		uint8_t high = 0xBF;
		size_t n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
		size_t i;

		if ((s[0] >= 0x80 && s[0] < 0xC2) || s[0] > 0xF4 || len < n)
			return false;
		if (s[0] == 0xE0)
			low = 0xA0;
		if (s[0] == 0xED)
			high = 0x9F;
		if (s[0] == 0xF0)
			low = 0x90;
		if (s[0] == 0xF4)
			high = 0x8F;
		for (i = 1; i < n; i++)
		{
			if (s[i] < low || s[i] > high)
				return false;
			low = 0x80;
			high = 0xBF;
		}
		s += n;
		len -= n;
	}
	return true;
}

/* Any text: what the counts promise of each other, and that a full buffer changes no count. */
static void
check_counts(const td_vocab *vocab, const char *text, size_t len, size_t capacity)
{
	uint32_t *ids = allocate(capacity * sizeof *ids);
	td_token_count whole;
	td_token_count part;
	size_t n_unknown = 0;
	size_t i;

	if (td_text_tokenize(vocab, text, len, NULL, 0, &whole) != TD_OK)
	{
		REQUIRE(!is_utf8((const uint8_t *) text, len));
		REQUIRE(td_text_tokenize(vocab, text, len, ids, capacity, &part) == TD_ERR_UTF8);
		free(ids);
		return;
	}
	REQUIRE(is_utf8((const uint8_t *) text, len) || len == 0);
	REQUIRE(whole.n_stored == 0 && whole.n_unknown == 0);
	REQUIRE(td_text_tokenize(vocab, text, len, ids, capacity, &part) == TD_OK);
	REQUIRE(part.n_total == whole.n_total);
	REQUIRE(part.n_stored == (whole.n_total < capacity ? whole.n_total : capacity));
	for (i = 0; i < part.n_stored; i++)
	{
		REQUIRE(ids[i] < vocab->size);
		n_unknown += ids[i] == vocab->unk_id;
	}
	REQUIRE(part.n_unknown == n_unknown);
	free(ids);
}

/* Valid text: two texts with a blank between them give the pieces of the one, then of the other. */
static void
check_halves(const td_vocab *vocab, const char *text, size_t len)
{
	size_t half = len / 2;
	size_t capacity = 4 * len + 4;
	uint32_t *ids = allocate(2 * capacity * sizeof *ids);
	char *joined = allocate(len + 1);
	td_token_count first;
	td_token_count second;
	td_token_count both;

	while (half > 0 && ((uint8_t) text[half] & 0xC0) == 0x80)
		half--;
	memcpy(joined, text, half);
	joined[half] = ' ';
	memcpy(joined + half + 1, text + half, len - half);

	REQUIRE(td_text_tokenize(vocab, joined, half, ids, capacity, &first) == TD_OK);
	REQUIRE(td_text_tokenize(vocab, joined + half + 1, len - half, ids + first.n_stored, capacity,
							 &second) == TD_OK);
	REQUIRE(td_text_tokenize(vocab, joined, len + 1, ids + capacity, capacity, &both) == TD_OK);
	REQUIRE(first.n_total <= half * 4 && both.n_total == both.n_stored);
	REQUIRE(both.n_total == first.n_total + second.n_total);
	REQUIRE(memcmp(ids, ids + capacity, both.n_total * sizeof *ids) == 0);
	free(joined);
	free(ids);
}

/* Parts lie in the text, one behind the other, and of valid text they are valid. */
static void
check_parts(const char *text, size_t len)
{
	td_string parts[TD_PARTS_MAX];
	uint32_t n = td_team_parts(text, len, parts);
	const char *at = text;
	uint32_t i;

	REQUIRE(n <= TD_PARTS_MAX);
	for (i = 0; i < n; i++)
	{
		REQUIRE(parts[i].len >= 3 && parts[i].data >= at);
		at = parts[i].data + parts[i].len;
		REQUIRE(at <= text + len);
		REQUIRE(!is_utf8((const uint8_t *) text, len) ||
				is_utf8((const uint8_t *) parts[i].data, parts[i].len));
	}
}

/* Folding: valid in, valid out, within its size, and nothing left to fold. */
static void
check_fold(const char *text, size_t len, size_t capacity)
{
	size_t size = td_text_fold_size(len);
	char *folded = allocate(size);
	char *again = allocate(td_text_fold_size(size));
	char *small = allocate(capacity);
	size_t n = 0;
	size_t n_again = 0;
	td_status status = td_text_fold(text, len, folded, size, &n);

	REQUIRE(status == (is_utf8((const uint8_t *) text, len) ? TD_OK : TD_ERR_UTF8));
	if (status == TD_OK)
	{
		REQUIRE(n <= size && is_utf8((const uint8_t *) folded, n));
		REQUIRE(td_text_fold(folded, n, again, td_text_fold_size(size), &n_again) == TD_OK);
		REQUIRE(n_again == n && memcmp(folded, again, n) == 0);
		REQUIRE(td_text_fold(text, len, small, capacity, &n_again) ==
				(capacity < n ? TD_ERR_BUFFER : TD_OK));
	}
	free(small);
	free(again);
	free(folded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	td_vocab vocab = {0};
	arrays a;
	arrays exact;
	uint32_t n_bytes;
	const char *text = (const char *) data + HEADER_SIZE;
	size_t len = size - HEADER_SIZE;
	bool hostile;

	if (size < HEADER_SIZE)
		return 0;
	hostile = (data[0] & 16) != 0;
	vocab.flags = data[0] & 15;

	a.text = allocate(MAX_PIECES * 12);
	a.base = allocate((MAX_PIECES / 256 + 1) * sizeof *a.base);
	a.offset = allocate((MAX_PIECES + 1) * sizeof *a.offset);
	a.index = allocate(2 * MAX_PIECES * sizeof *a.index);
	a.base[0] = 0;
	a.offset[0] = 0;
	n_bytes = hostile ? fill_hostile(&vocab, &a, data[2] | (uint32_t) data[3] << 8)
					  : fill_honest(&vocab, &a);

	exact.text = allocate(n_bytes);
	exact.base = allocate((vocab.size / 256 + 1) * sizeof *a.base);
	exact.offset = allocate((vocab.size + 1) * sizeof *a.offset);
	exact.index = allocate(vocab.n_slots * sizeof *a.index);
	memcpy(exact.text, a.text, n_bytes);
	memcpy(exact.base, a.base, (vocab.size / 256 + 1) * sizeof *a.base);
	memcpy(exact.offset, a.offset, (vocab.size + 1) * sizeof *a.offset);
	memcpy(exact.index, a.index, vocab.n_slots * sizeof *a.index);
	vocab.text = exact.text;
	vocab.base = exact.base;
	vocab.offset = exact.offset;
	vocab.index = exact.index;

	check_counts(&vocab, text, len, data[1]);
	if (!hostile && is_utf8((const uint8_t *) text, len))
		check_halves(&vocab, text, len);
	check_fold(text, len, data[1]);
	check_parts(text, len);

	free(exact.text);
	free(exact.base);
	free(exact.offset);
	free(exact.index);
	free(a.text);
	free(a.base);
	free(a.offset);
	free(a.index);
	return 0;
}
