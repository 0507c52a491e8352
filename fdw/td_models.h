/*
 * td_models.h - the active models of this database, each loaded by a session when it first needs it.
 */
#ifndef TD_MODELS_H
#define TD_MODELS_H

#include "td_registry.h"
#include "tinydancer.h"

typedef struct TdModel
{
	MemoryContext context;
	int pins;
	td_model view;
	int version;
	bool builtin;
	char **names; /* [view.n_out], database encoding */

	/* Of a quality model: the output of each agent of a registry, or TD_NONE. */
	uint64 mapped_registry; /* serial of that registry, 0: none yet */
	uint32 n_mapped;
	uint32 *outputs; /* [n_mapped] */
} TdModel;

/*
 * The active model of a kind for the encoder, pinned until owner is reset or deleted; NULL when there
 * is none.  A row of the user's own goes before a built-in one.  Reads it when another session has
 * committed a change or this one has made one.
 */
extern TdModel *tdpg_model_acquire(td_task task, const TdActiveEncoder *encoder,
								   MemoryContext owner);

/* Which output of a quality model is each agent's, [n_agents]; TD_NONE: it does not cover the agent. */
extern const uint32 *tdpg_model_outputs(TdModel *model, const TdRegistry *registry);

/*
 * td_model_apply() with the word pieces of an encoder that may be NULL, as on a server that lacks the
 * active one's file: then only the vector counts.  text.data is NULL when there is no text.
 */
extern td_status tdpg_model_apply(const TdModel *model, const td_encoder *words, TdText text,
								  const float *vector, float *probability, void *scratch,
								  size_t scratch_size);

#endif /* TD_MODELS_H */
