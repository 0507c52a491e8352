/*
 * td_dot.h - the inner loop of every int8 product.
 *
 * An int8 vector is widened to int16 once; its exact dot products with int8 rows come out.
 * Internal: called by td_vec.c, and by td_topk.c and td_fastgrnn.c for one vector against many
 * rows.
 *
 * Written as int16 times int16, because that is what SSE2 multiplies and adds in one instruction
 * (pmaddwd), half the time of int8 times int8; the sum is the same on any processor.
 */
#ifndef TD_DOT_H
#define TD_DOT_H

#include <stddef.h>
#include <stdint.h>

static inline void
td_widen(const int8_t *a, size_t n, int16_t *wide)
{
	size_t i;

	for (i = 0; i < n; i++)
		wide[i] = a[i];
}

/* Sum of wide[i] * row[i], for values of wide in [-127, 127] and n at most 131,072. */
static inline int32_t
td_dot_wide(const int16_t *wide, const int8_t *row, size_t n)
{
	int32_t sum = 0;
	size_t i;

	for (i = 0; i < n; i++)
		sum += wide[i] * (int16_t) row[i];
	return sum;
}

#endif /* TD_DOT_H */
