/*
 * td_matvec_portable.c - one vector against many rows in plain C: for any processor, and the
 * measure of the others.
 *
 * In and out: see td_matvec.h.  Chosen by td_code_of().
 */
#include "td_lanes.h"
#include "td_matvec.h"

#define VECTOR 16
#define ROWS 2
#define WIDE_OPERAND 1

#include "td_dot.h"

static void
rows_i8(const int8_t *rows, const float *scales, size_t n_rows, size_t n, const td_operand *operand,
		float *y)
{
	size_t row;

	for (row = 0; row < n_rows; row++)
		y[row] =
			(float) td_dot_wide(operand->wide, rows + row * n, n) * (operand->scale * scales[row]);
}

/* Vectors that most processors have a register for: longer ones are taken apart badly. */
typedef int16_t v8h __attribute__((vector_size(16), may_alias));
typedef uint16_t v8w __attribute__((vector_size(16), may_alias));
typedef int32_t v4i __attribute__((vector_size(16), may_alias));
typedef uint32_t v4u __attribute__((vector_size(16), may_alias));

/* Two elements, as the low and the high half of four numbers. */
static TD_INLINE v8h
two_of(int8_t low, int8_t high)
{
	const uint32_t both = (uint32_t) (uint16_t) high << 16 | (uint16_t) low;

	return (v8h) (v4u){both, both, both, both};
}

/* Four rows a register; the products of neighbours, at most 2 * 128 * 127, fit in 16 bits. */
static TD_INLINE void
pack_sums(const uint8_t *block, size_t n, const td_operand *operand, int32_t *sum)
{
	v4i acc[4] = {{0}, {0}, {0}, {0}};
	size_t i;
	int q;

	for (i = 0; i < n; i += 4, block += 4 * TD_PACK_ROWS)
	{
		const int8_t *x = operand->narrow + i;
		v8h even = two_of(x[0], x[2]);
		v8h odd = two_of(x[1], x[3]);

#pragma GCC unroll 4
		for (q = 0; q < 4; q++)
		{
			v8w pairs;
			v8h two;

			memcpy(&pairs, block + 16 * q, sizeof(pairs));
			pairs ^= 0x8080;
			two = ((v8h) (pairs << 8) >> 8) * even + ((v8h) pairs >> 8) * odd;
			acc[q] += ((v4i) ((v4u) two << 16) >> 16) + ((v4i) two >> 16);
		}
	}
	memcpy(sum, acc, sizeof(acc));
}

static TD_INLINE uint32_t
lanes_above(const float *y, float limit)
{
	uint32_t bits = 0;
	int l;

	for (l = 0; l < LANES; l++)
		bits |= (uint32_t) (y[l] > limit) << l;
	return bits;
}

/* Bits that are set, by halves: what a compiler makes of it is vectorised. */
static TD_INLINE uint64_t
count_bits(uint64_t x)
{
	x -= x >> 1 & 0x5555555555555555u;
	x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
	x += x >> 8;
	x += x >> 16;
	return (x + (x >> 32)) & 0x7f;
}

static TD_INLINE uint32_t
signs_below(const uint64_t *words, size_t n_words, const uint64_t *signs, uint32_t limit,
			uint64_t *differ)
{
	uint32_t bits = 0;
	size_t w;
	int l;

	memset(differ, 0, TD_SKETCH_GROUP * sizeof(*differ));
	for (w = 0; w < n_words; w++, words += TD_SKETCH_GROUP)
		for (l = 0; l < TD_SKETCH_GROUP; l++)
			differ[l] += count_bits(words[l] ^ signs[w]);
	for (l = 0; l < TD_SKETCH_GROUP; l++)
		bits |= (uint32_t) (differ[l] < limit) << l;
	return bits;
}

#include "td_matvec_body.h"

const td_code td_code_portable = CODE(few_signs);
