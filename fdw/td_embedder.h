/*
 * td_embedder.h - texts become vectors, in steps between which a statement can be cancelled.
 */
#ifndef TD_EMBEDDER_H
#define TD_EMBEDDER_H

#include "td_datum.h"
#include "tinydancer.h"

/* The scratch memory of a statement that embeds texts; grows with the longest of them. */
typedef struct TdEmbedder TdEmbedder;

/* An embedder that lives in the context, and whose scratch goes with it. */
extern TdEmbedder *tdpg_embedder_create(MemoryContext context);

/*
 * td_embed_text() with interrupts served: out[encoder->dim].  Any status but TD_OK and
 * TD_ERR_EMPTY, where the caller may know better, is for tdpg_error().
 */
extern td_status tdpg_embed(TdEmbedder *embedder, const td_encoder *encoder, TdText text,
							float *out, td_embed_info *info);

/*
 * The vectors of many texts, out[n][encoder->dim] and status[n]: faster than one by one with an
 * encoder that reads its weights once for several texts.  A text without a vector gets zeros.
 * info[n], what was read of each, may be NULL.
 */
extern void tdpg_embed_many(TdEmbedder *embedder, const td_encoder *encoder, const TdText *texts,
							int n, float *out, td_embed_info *info, td_status *status);

/* How many word pieces a text has, interrupts served. */
extern td_status tdpg_count_pieces(const td_encoder *encoder, TdText text, size_t *n_pieces);

#endif /* TD_EMBEDDER_H */
