/*
 * td_embedder.h - texts become vectors with the scratch memory of one statement.
 */
#ifndef TD_EMBEDDER_H
#define TD_EMBEDDER_H

#include "td_datum.h"
#include "tinydancer.h"

/* The scratch memory of a statement that embeds texts. */
typedef struct TdEmbedder TdEmbedder;

/* An embedder that lives in the context, and whose scratch goes with it. */
extern TdEmbedder *tdpg_embedder_create(MemoryContext context);

/*
 * td_embed_text() with interrupts served: out[encoder->dim].  Any status but TD_OK and
 * TD_ERR_EMPTY, where the caller may know better, is for tdpg_error().
 */
extern td_status tdpg_embed(TdEmbedder *embedder, const td_encoder *encoder, TdText text,
							float *out, td_embed_info *info);

#endif /* TD_EMBEDDER_H */
