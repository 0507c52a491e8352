/*
 * td_embedder.c - the road from a text to its vector.
 *
 * In: UTF-8 texts and a pinned encoder.  Out: unit vectors.  Called by td_match.c for requests, by
 * td_route_set.c for utterances and by td_sql_classify.c.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "td_compat.h"
#include "td_embedder.h"

/* Widest vector register, and a cache line. */
#define SCRATCH_ALIGNMENT 64

struct TdEmbedder
{
	MemoryContext context;
	void *scratch;
	size_t size;
};

TdEmbedder *
tdpg_embedder_create(MemoryContext context)
{
	TdEmbedder *embedder = MemoryContextAllocZero(context, sizeof(TdEmbedder));

	embedder->context = context;
	return embedder;
}

td_status
tdpg_embed(TdEmbedder *embedder, const td_encoder *encoder, TdText text, float *out,
		   td_embed_info *info)
{
	size_t size = td_embed_scratch_size(encoder);

	CHECK_FOR_INTERRUPTS();
	if (size > embedder->size)
	{
		embedder->scratch =
			(void *) TYPEALIGN(SCRATCH_ALIGNMENT, MemoryContextAllocHuge(embedder->context,
																		 size + SCRATCH_ALIGNMENT));
		embedder->size = size;
	}
	return td_embed_text(encoder, text.data, text.len, out, info, embedder->scratch,
						 embedder->size);
}
