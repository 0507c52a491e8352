/*
 * td_registry_read.h - the rows of the registry's tables as C structs; used by td_registry_build.c
 * alone.  Everything is allocated in the current memory context.
 */
#ifndef TD_REGISTRY_READ_H
#define TD_REGISTRY_READ_H

#include "td_registry.h"
#include "utils/snapshot.h"

/* A row of tinydancer.agent. */
typedef struct TdAgentRow
{
	char *name;
	td_agent figures;
	TdText description; /* data NULL: none */
	int n_capabilities;
	TdText *capabilities;
	char *pool; /* NULL: none */
} TdAgentRow;

typedef enum TdPhraseKind
{
	TD_KIND_CAPABILITY,
	TD_KIND_DESCRIPTION,
	TD_KIND_EXAMPLE,
	TD_KIND_CALLER,
	TD_KIND_UNKNOWN
} TdPhraseKind;

/* A row of tinydancer.agent_phrase. */
typedef struct TdPhraseRow
{
	TdPhraseKind kind;
	int position;
	TdText text;
	const int8_t *vector; /* [dim], td_vec_quantise(); NULL: of another encoder */
	float scale;		  /* of the vector */
} TdPhraseRow;

extern void tdpg_read_settings(Snapshot snapshot, TdSettings *settings);

/* Whether a table with columns embedding and encoder has a vector that another encoder made. */
extern bool tdpg_has_vectors_of_another(Snapshot snapshot, const char *table, const char *id);

/* Into registry->policies, sorted by name, with the objectives that are no rows. */
extern void tdpg_read_policies(Snapshot snapshot, TdRegistry *registry);

/* [n_agents], sorted by name in byte order. */
extern TdAgentRow **tdpg_read_agents(Snapshot snapshot, int *n_agents);

/*
 * In the order agent, kind, position: those of agent i begin at (*first)[i] and end before
 * (*first)[i + 1].  Phrases of agents that are not there are left out.  A vector counts when it was
 * made by the encoder and has dim elements.
 */
extern const TdPhraseRow **tdpg_read_phrases(Snapshot snapshot, TdAgentRow *const *agents,
											 int n_agents, const char *encoder_id, int dim,
											 uint32 **first);

#endif /* TD_REGISTRY_READ_H */
