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

/* n_first is sketch->n_first: where it is known, the loop over it is none. */
static TD_INLINE size_t
few_signs_of(const td_sketch *sketch, size_t n_first, const td_sketch_limit *limit, size_t *at,
			 size_t end, uint32_t *index, size_t room)
{
	size_t group = *at;
	size_t n = 0;

	for (; group < end && n + TD_SKETCH_GROUP <= room; group++)
	{
		uint64_t differ[TD_SKETCH_GROUP];
		uint64_t rest[TD_SKETCH_GROUP] = {0};
		uint32_t bits = signs_below(sketch->first + group * n_first * TD_SKETCH_GROUP, n_first,
									sketch->query, limit->first, differ);

		if (bits != 0 && sketch->n_rest > 0)
			bits &= signs_below(sketch->rest + group * sketch->n_rest * TD_SKETCH_GROUP,
								sketch->n_rest, sketch->query + n_first, limit->all, rest);
		for (; bits != 0; bits &= bits - 1)
		{
			int l = __builtin_ctz(bits);
			uint32_t row = (uint32_t) (group * TD_SKETCH_GROUP) + (uint32_t) l;
			size_t byte;

			if (differ[l] + rest[l] >= limit->all)
				continue;
			for (byte = 0; byte < sketch->dim; byte += 64)
				__builtin_prefetch(sketch->rows + row * sketch->dim + byte);
			index[n++] = row;
		}
	}
	*at = group;
	return n;
}

static size_t
few_signs(const td_sketch *sketch, const td_sketch_limit *limit, size_t *at, size_t end,
		  uint32_t *index, size_t room)
{
	switch (sketch->n_first)
	{
		case 1:
			return few_signs_of(sketch, 1, limit, at, end, index, room);
		case 2:
			return few_signs_of(sketch, 2, limit, at, end, index, room);
		case 3:
			return few_signs_of(sketch, 3, limit, at, end, index, room);
		default:
			return few_signs_of(sketch, sketch->n_first, limit, at, end, index, room);
	}
}

#endif /* TD_SKETCH_BODY_H */
