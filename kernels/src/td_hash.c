/*
 * td_hash.c - XXH64, the checksum of encoder and model files.
 *
 * Bytes in, a 64-bit number out; called by td_file.c and by whoever writes such a file.  It finds
 * damage, it is no protection against an attacker.
 */
#include <string.h>

#include "tinydancer.h"

/* The five primes of the xxHash specification, section "XXH64 algorithm description". */
#define PRIME_1 UINT64_C(0x9E3779B185EBCA87)
#define PRIME_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define PRIME_3 UINT64_C(0x165667B19E3779F9)
#define PRIME_4 UINT64_C(0x85EBCA77C2B2AE63)
#define PRIME_5 UINT64_C(0x27D4EB2F165667C5)

static inline uint64_t
rotate_left(uint64_t x, unsigned bits)
{
	return (x << bits) | (x >> (64 - bits));
}

/* Hosts are little-endian (tinydancer.h), so a copy is the little-endian read of the specification.
 */
static inline uint64_t
read_64(const uint8_t *p)
{
	uint64_t x;

	memcpy(&x, p, sizeof(x));
	return x;
}

static inline uint64_t
read_32(const uint8_t *p)
{
	uint32_t x;

	memcpy(&x, p, sizeof(x));
	return x;
}

static inline uint64_t
mix_round(uint64_t accumulator, uint64_t lane)
{
	return rotate_left(accumulator + lane * PRIME_2, 31) * PRIME_1;
}

static inline uint64_t
merge_accumulator(uint64_t hash, uint64_t accumulator)
{
	return (hash ^ mix_round(0, accumulator)) * PRIME_1 + PRIME_4;
}

uint64_t
td_hash64(const void *bytes, size_t size, uint64_t seed)
{
	const uint8_t *p = bytes;
	size_t left = size;
	uint64_t hash;

	if (left >= 32)
	{
		uint64_t a = seed + PRIME_1 + PRIME_2;
		uint64_t b = seed + PRIME_2;
		uint64_t c = seed;
		uint64_t d = seed - PRIME_1;

		while (left >= 32)
		{
			a = mix_round(a, read_64(p));
			b = mix_round(b, read_64(p + 8));
			c = mix_round(c, read_64(p + 16));
			d = mix_round(d, read_64(p + 24));
			p += 32;
			left -= 32;
		}
		hash = rotate_left(a, 1) + rotate_left(b, 7) + rotate_left(c, 12) + rotate_left(d, 18);
		hash = merge_accumulator(hash, a);
		hash = merge_accumulator(hash, b);
		hash = merge_accumulator(hash, c);
		hash = merge_accumulator(hash, d);
	}
	else
		hash = seed + PRIME_5;

	hash += (uint64_t) size;
	while (left >= 8)
	{
		hash = rotate_left(hash ^ mix_round(0, read_64(p)), 27) * PRIME_1 + PRIME_4;
		p += 8;
		left -= 8;
	}
	if (left >= 4)
	{
		hash = rotate_left(hash ^ read_32(p) * PRIME_1, 23) * PRIME_2 + PRIME_3;
		p += 4;
		left -= 4;
	}
	while (left > 0)
	{
		hash = rotate_left(hash ^ *p * PRIME_5, 11) * PRIME_1;
		p++;
		left--;
	}

	hash = (hash ^ hash >> 33) * PRIME_2;
	hash = (hash ^ hash >> 29) * PRIME_3;
	return hash ^ hash >> 32;
}
