/*
 * td_text.c - text to word pieces, and text folded for comparison.
 *
 * In:  UTF-8 text and a vocabulary.  Out: piece ids, id for id those of Hugging Face's `tokenizers`
 *      with a BertNormalizer, a BertPreTokenizer and a WordPiece model; or lower-cased text.
 * Called by td_embed.c and, through tinydancer.h, by both shells.
 *
 * One pass, no copy of the text: every code point goes, with the order of that library kept,
 * through cleaning, spacing of ideographs, canonical decomposition, dropping of accents and lower
 * case into the word being collected; white space, punctuation, ideographs, special tokens and the
 * end of the text end a word, and the word is then cut into pieces, longest first.  A word of more
 * than MAX_WORD_CHARS is unknown as a whole, so no more than that is ever kept.
 */
#include "tinydancer.h"
#include "td_unicode.h"

#include <stdbool.h>
#include <string.h>

#define MAX_WORD_CHARS 100 /* max_input_chars_per_word of BERT's tokenizer */
#define MAX_WORD_BYTES (4 * MAX_WORD_CHARS)
#define N_SPECIALS 5

/* FNV-1a, 32 bits, and its state after the "##" of a piece that continues a word. */
#define FNV_BASIS 0x811C9DC5u
#define FNV_PRIME 0x01000193u
#define FNV_CONTINUED (((FNV_BASIS ^ '#') * FNV_PRIME ^ '#') * FNV_PRIME)
#define CONTINUED_SIZE 2u

/* Hangul syllables decompose by arithmetic: the Unicode standard, section 3.12. */
#define HANGUL_FIRST 0xAC00u
#define HANGUL_LAST 0xD7A3u
#define HANGUL_LEADS 0x1100u
#define HANGUL_VOWELS 0x1161u
#define HANGUL_TAILS 0x11A7u
#define HANGUL_N_VOWELS 21u
#define HANGUL_N_TAILS 28u

#define DOTTED_CAPITAL_I 0x130u /* full lower case: i and COMBINING_DOT_ABOVE */
#define COMBINING_DOT_ABOVE 0x307u

typedef struct tokenizer
{
	const td_vocab *vocab;
	uint32_t *ids;
	size_t capacity;
	size_t n_total;
	size_t n_unknown;

	/* The word being collected. */
	size_t n_chars; /* counted on beyond MAX_WORD_CHARS, kept up to it */
	uint32_t n_bytes;
	size_t run; /* characters from here on are combining and may still be reordered */
	uint8_t ccc[MAX_WORD_CHARS]; /* valid from run on */
	uint8_t bytes[MAX_WORD_BYTES + 1];
} tokenizer;

static inline void
put_id(tokenizer *t, uint32_t id)
{
	if (t->n_total < t->capacity)
	{
		t->ids[t->n_total] = id;
		t->n_unknown += id == t->vocab->unk_id;
	}
	t->n_total++;
}

/* Bytes of piece id; *size out. */
static inline const uint8_t *
piece_bytes(const td_vocab *vocab, uint32_t id, uint32_t *size)
{
	/* As wide as in td_encoder_open(), which checked them; 32 bits could wrap. */
	size_t start = (size_t) vocab->base[id >> 8] + vocab->offset[id];
	size_t end = (size_t) vocab->base[(id + 1) >> 8] + vocab->offset[id + 1];

	*size = (uint32_t) (end - start);
	return vocab->text + start;
}

/*
 * The id of the piece that is prefix_size bytes of "##" followed by bytes[n], TD_NONE if there is
 * none.  hash is that of the whole piece.
 */
static inline uint32_t
find_piece(const td_vocab *vocab, uint32_t hash, uint32_t prefix_size, const uint8_t *bytes,
		   uint32_t n)
{
	uint32_t slot = (uint32_t) ((uint64_t) (hash * 0x9E3779B1u) * vocab->n_slots >> 32);

	for (;;)
	{
		uint32_t id = vocab->index[slot];
		uint32_t size;
		const uint8_t *piece;

		if (id == TD_VOCAB_EMPTY_SLOT)
			return TD_NONE;
		piece = piece_bytes(vocab, id, &size);
		if (size == prefix_size + n && memcmp(piece + prefix_size, bytes, n) == 0 &&
			memcmp(piece, "##", prefix_size) == 0)
			return id;
		if (++slot == vocab->n_slots)
			slot = 0;
	}
}

/* Cut the kept word into pieces, longest first.  False, and nothing put, if some rest has no piece.
 */
static bool
put_pieces(tokenizer *t)
{
	const td_vocab *vocab = t->vocab;
	uint32_t hash[MAX_WORD_BYTES];
	size_t n_total = t->n_total;
	size_t n_unknown = t->n_unknown;
	uint32_t start = 0;

	/* A sentinel that is not the inside of a character, for the test below. */
	t->bytes[t->n_bytes] = 0;
	while (start < t->n_bytes)
	{
		const uint8_t *rest = t->bytes + start;
		uint32_t prefix_size = start == 0 ? 0 : CONTINUED_SIZE;
		uint32_t h = start == 0 ? FNV_BASIS : FNV_CONTINUED;
		uint32_t n = t->n_bytes - start;
		uint32_t id = TD_NONE;
		uint32_t i;

		if (vocab->max_piece_size < prefix_size)
			n = 0;
		else if (n > vocab->max_piece_size - prefix_size)
			n = vocab->max_piece_size - prefix_size;
		for (i = 0; i < n; i++)
		{
			h = (h ^ rest[i]) * FNV_PRIME;
			hash[i] = h;
		}
		for (; n > 0; n--)
		{
			if ((rest[n] & 0xC0) == 0x80)
				continue;
			id = find_piece(vocab, hash[n - 1], prefix_size, rest, n);
			if (id != TD_NONE)
				break;
		}
		if (id == TD_NONE)
		{
			t->n_total = n_total;
			t->n_unknown = n_unknown;
			return false;
		}
		put_id(t, id);
		start += n;
	}
	return true;
}

/* The collected word is complete: put its pieces, begin a new one. */
static inline void
end_word(tokenizer *t)
{
	if (t->n_chars == 0)
		return;
	/* Without [UNK] in the vocabulary there is nothing to put for a word that is not in it. */
	if ((t->n_chars > MAX_WORD_CHARS || !put_pieces(t)) && t->vocab->unk_id != TD_NONE)
		put_id(t, t->vocab->unk_id);
	t->n_chars = 0;
	t->n_bytes = 0;
	t->run = 0;
}

/* Add a code point to the word, before the combining characters of higher class that end it. */
static void
add_char(tokenizer *t, uint32_t c, uint8_t ccc)
{
	uint8_t encoded[4];
	uint32_t size = td_utf8_encode(c, encoded);
	uint32_t at = t->n_bytes;

	/* The word is unknown already; only the count matters. */
	if (t->n_chars >= MAX_WORD_CHARS)
	{
		t->n_chars++;
		return;
	}
	if (ccc == 0)
		t->run = t->n_chars + 1;
	else
	{
		size_t k = t->n_chars;

		for (; k > t->run && t->ccc[k - 1] > ccc; k--)
		{
			t->ccc[k] = t->ccc[k - 1];
			do
				at--;
			while ((t->bytes[at] & 0xC0) == 0x80);
		}
		t->ccc[k] = ccc;
		memmove(t->bytes + at + size, t->bytes + at, t->n_bytes - at);
	}
	memcpy(t->bytes + at, encoded, size);
	t->n_bytes += size;
	t->n_chars++;
}

/* Drop, lower-case and sort out a code point that is cleaned and decomposed. */
static void
add_decomposed(tokenizer *t, uint32_t c, const td_unicode_record *record)
{
	uint32_t flags = t->vocab->flags;
	uint8_t ccc = 0;

	if (flags & TD_TEXT_STRIP_ACCENTS)
	{
		ccc = record->ccc;
		if (record->flags & TD_UNICODE_MARK)
		{
			/* Dropped after reordering there: a mark of class 0 still keeps its sides apart. */
			if (ccc == 0)
				t->run = t->n_chars;
			return;
		}
	}
	if (record->flags & (TD_UNICODE_SPACE | TD_UNICODE_PUNCT))
	{
		end_word(t);
		if (record->flags & TD_UNICODE_PUNCT)
		{
			add_char(t, c, 0);
			end_word(t);
		}
		return;
	}
	if (flags & TD_TEXT_LOWERCASE)
	{
		if (c == DOTTED_CAPITAL_I)
		{
			add_char(t, 'i', 0);
			add_char(t, COMBINING_DOT_ABOVE, 0);
			return;
		}
		c = (uint32_t) ((int32_t) c + record->lower);
	}
	add_char(t, c, ccc);
}

/* Take a code point of the text through every stage. */
static void
add_code_point(tokenizer *t, uint32_t c)
{
	const td_unicode_record *record = td_unicode_of(c);
	uint32_t flags = t->vocab->flags;
	bool alone = (record->flags & TD_UNICODE_CJK) && (flags & TD_TEXT_SPLIT_CJK);

	if ((record->flags & TD_UNICODE_DROP) && (flags & TD_TEXT_CLEAN))
		return;
	if (alone)
		end_word(t);
	if (!(flags & TD_TEXT_STRIP_ACCENTS))
		add_decomposed(t, c, record);
	else if (record->flags & TD_UNICODE_DECOMPOSES)
	{
		uint32_t part[TD_UNICODE_MAX_DECOMPOSITION];
		uint32_t n = td_unicode_decompose(c, part);
		uint32_t i;

		for (i = 0; i < n; i++)
			add_decomposed(t, part[i], td_unicode_of(part[i]));
	}
	else if (c >= HANGUL_FIRST && c <= HANGUL_LAST)
	{
		uint32_t number = c - HANGUL_FIRST;
		uint32_t tail = number % HANGUL_N_TAILS;

		/* Jamo are letters without case, accent or class. */
		add_char(t, HANGUL_LEADS + number / (HANGUL_N_VOWELS * HANGUL_N_TAILS), 0);
		add_char(t, HANGUL_VOWELS + number / HANGUL_N_TAILS % HANGUL_N_VOWELS, 0);
		if (tail != 0)
			add_char(t, HANGUL_TAILS + tail, 0);
	}
	else
		add_decomposed(t, c, record);
	if (alone)
		end_word(t);
}

/* Whether text[len] is UTF-8 from its first to its last byte. */
static bool
is_utf8(const uint8_t *text, size_t len)
{
	while (len > 0)
	{
		uint32_t c;
		uint32_t size = td_utf8_decode(text, len, &c);

		if (size == 0)
			return false;
		text += size;
		len -= size;
	}
	return true;
}

/*
 * The longest special token that text[len] begins with; *size out, 0 and TD_NONE if there is none.
 */
static uint32_t
find_special(const td_vocab *vocab, const uint32_t *specials, const uint8_t *text, size_t len,
			 uint32_t *size)
{
	uint32_t found = TD_NONE;
	int i;

	*size = 0;
	for (i = 0; i < N_SPECIALS; i++)
	{
		const uint8_t *piece;
		uint32_t n;

		if (specials[i] == TD_NONE)
			continue;
		piece = piece_bytes(vocab, specials[i], &n);
		/* A malformed piece must not make malformed text pass. */
		if (n > *size && n <= len && memcmp(piece, text, n) == 0 && is_utf8(piece, n))
		{
			*size = n;
			found = specials[i];
		}
	}
	return found;
}

td_status
td_text_tokenize(const td_vocab *vocab, const char *text, size_t len, uint32_t *ids,
				 size_t capacity, td_token_count *count)
{
	const uint8_t *bytes = (const uint8_t *) text;
	const uint32_t specials[N_SPECIALS] = {vocab->unk_id, vocab->cls_id, vocab->sep_id,
										   vocab->pad_id, vocab->mask_id};
	uint8_t letter[256];  /* what a byte adds to a word when it needs no closer look, else 0 */
	uint8_t special[256]; /* 1: a special token begins with this byte */
	tokenizer t;
	size_t i = 0;
	int k;

	t.vocab = vocab;
	t.ids = ids;
	t.capacity = capacity;
	t.n_total = 0;
	t.n_unknown = 0;
	t.n_chars = 0;
	t.n_bytes = 0;
	t.run = 0;

	memset(letter, 0, sizeof letter);
	memcpy(&letter['0'], "0123456789", 10);
	memcpy(&letter['a'], "abcdefghijklmnopqrstuvwxyz", 26);
	memcpy(&letter['A'],
		   vocab->flags & TD_TEXT_LOWERCASE ? "abcdefghijklmnopqrstuvwxyz"
											: "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		   26);
	memset(special, 0, sizeof special);
	for (k = 0; k < N_SPECIALS; k++)
	{
		const uint8_t *piece;
		uint32_t size;

		if (specials[k] == TD_NONE)
			continue;
		piece = piece_bytes(vocab, specials[k], &size);
		if (size > 0)
		{
			special[piece[0]] = 1;
			letter[piece[0]] = 0;
		}
	}

	while (i < len)
	{
		uint8_t c = letter[bytes[i]];
		uint32_t code_point;
		uint32_t size;

		if (c != 0)
		{
			size_t n_chars = t.n_chars;
			uint32_t n_bytes = t.n_bytes;

			do
			{
				if (n_chars < MAX_WORD_CHARS)
					t.bytes[n_bytes++] = c;
				n_chars++;
				i++;
			} while (i < len && (c = letter[bytes[i]]) != 0);
			t.n_chars = n_chars;
			t.n_bytes = n_bytes;
			t.run = n_chars;
			continue;
		}
		if (special[bytes[i]])
		{
			uint32_t id = find_special(vocab, specials, bytes + i, len - i, &size);

			if (id != TD_NONE)
			{
				end_word(&t);
				put_id(&t, id);
				i += size;
				continue;
			}
		}
		if (bytes[i] == ' ')
		{
			end_word(&t);
			i++;
			continue;
		}
		size = td_utf8_decode(bytes + i, len - i, &code_point);
		if (size == 0)
			return TD_ERR_UTF8;
		add_code_point(&t, code_point);
		i += size;
	}
	end_word(&t);

	count->n_total = t.n_total;
	count->n_stored = t.n_total < capacity ? t.n_total : capacity;
	count->n_unknown = t.n_unknown;
	return TD_OK;
}

size_t
td_text_fold_size(size_t len)
{
	return len > SIZE_MAX / 3 ? SIZE_MAX : 3 * len;
}

td_status
td_text_fold(const char *text, size_t len, char *out, size_t capacity, size_t *out_len)
{
	const uint8_t *bytes = (const uint8_t *) text;
	size_t i = 0;
	size_t n = 0;

	while (i < len)
	{
		uint8_t encoded[4];
		uint32_t c;
		uint32_t size = td_utf8_decode(bytes + i, len - i, &c);
		uint32_t n_encoded;

		if (size == 0)
			return TD_ERR_UTF8;
		i += size;
		if (c < 0x80)
			c += c - 'A' < 26 ? 'a' - 'A' : 0;
		else
			c = (uint32_t) ((int32_t) c + td_unicode_of(c)->lower);
		n_encoded = td_utf8_encode(c, encoded);
		if (n_encoded > capacity - n)
			return TD_ERR_BUFFER;
		memcpy(out + n, encoded, n_encoded);
		n += n_encoded;
	}
	*out_len = n;
	return TD_OK;
}
