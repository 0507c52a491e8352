/*
 * td_sketch_body.h - the rows of a sketch that differ from a query in few signs.
 *
 * See few_signs in td_matvec.h.  Included by files that define what is different:
 *
 *   signs_below()  a bit for each row of a group of a sketch, the first lowest: 1 where fewer
 *                  signs differ than a limit; the counts of those in differ[]
 */
#ifndef TD_SKETCH_BODY_H
#define TD_SKETCH_BODY_H

static size_t
few_signs(const uint64_t *sketch, size_t n_words, const uint64_t *signs, uint32_t limit, size_t *at,
		  size_t end, uint32_t *index, uint32_t *distance, size_t room)
{
	size_t group = *at;
	size_t n = 0;

	for (; group < end && n + TD_SKETCH_GROUP <= room; group++)
	{
		const uint64_t *words = sketch + group * n_words * TD_SKETCH_GROUP;
		uint64_t differ[TD_SKETCH_GROUP];
		uint32_t bits = signs_below(words, n_words, signs, limit, differ);

		for (; bits != 0; bits &= bits - 1)
		{
			int l = __builtin_ctz(bits);

			index[n] = (uint32_t) (group * TD_SKETCH_GROUP) + (uint32_t) l;
			distance[n++] = (uint32_t) differ[l];
		}
	}
	*at = group;
	return n;
}

#endif /* TD_SKETCH_BODY_H */
