/*
 * td_words.c - the word pieces of a text as counted features.
 *
 * Ids of word pieces in, hashed buckets with the square roots of their counts out.  Called by
 * td_model.c when a model is applied and through the Cython binding when one is trained, so that
 * both see the same features.
 *
 * A square root instead of the customary 1 + log: it damps repetition as well, and is exact on
 * every machine.
 */
#include <math.h>

#include "tinydancer.h"

static uint32_t
bucket_of(uint64_t x, uint32_t n_buckets)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t) (x ^ (x >> 31)) & (n_buckets - 1);
}

/* Twice the position of the highest bit, plus the bit below it: 1, 2, 3, 4, 6, 8, 12, 16 ... */
static uint32_t
length_class(size_t n)
{
	uint32_t position = 0;

	while ((n >> position) > 1)
		position++;
	return 2 * position + (position > 0 ? (uint32_t) (n >> (position - 1)) & 1 : 0);
}

/* Shell sort with Ciura's gaps: most texts have a few dozen features, none over a thousand. */
static void
sort(uint32_t *a, size_t n)
{
	static const size_t gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};
	size_t g;
	size_t i;

	for (g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++)
	{
		for (i = gaps[g]; i < n; i++)
		{
			uint32_t held = a[i];
			size_t at = i;

			for (; at >= gaps[g] && a[at - gaps[g]] > held; at -= gaps[g])
				a[at] = a[at - gaps[g]];
			a[at] = held;
		}
	}
}

size_t
td_words_features(const uint32_t *ids, size_t n, uint32_t n_buckets, uint32_t features,
				  uint32_t *buckets, float *values)
{
	size_t n_features = 0;
	size_t n_distinct = 0;
	size_t i;

	if (n > TD_WORDS_MAX_PIECES)
		n = TD_WORDS_MAX_PIECES;
	if (features & TD_WORDS_UNIGRAMS)
	{
		for (i = 0; i < n; i++)
			buckets[n_features++] = bucket_of((uint64_t) ids[i] + 1, n_buckets);
	}
	if (features & TD_WORDS_BIGRAMS)
	{
		for (i = 0; i + 1 < n; i++)
			buckets[n_features++] =
				bucket_of(((uint64_t) ids[i] + 1) << 32 | ((uint64_t) ids[i + 1] + 1), n_buckets);
	}
	if ((features & TD_WORDS_LENGTH) && n > 0)
		buckets[n_features++] = bucket_of(UINT64_C(1) << 63 | length_class(n), n_buckets);

	sort(buckets, n_features);
	for (i = 0; i < n_features; i++)
	{
		if (n_distinct > 0 && buckets[n_distinct - 1] == buckets[i])
			values[n_distinct - 1] += 1.0f;
		else
		{
			buckets[n_distinct] = buckets[i];
			values[n_distinct++] = 1.0f;
		}
	}
	for (i = 0; i < n_distinct; i++)
		values[i] = sqrtf(values[i]);
	return n_distinct;
}
