/*
 * td_registry.h - a read-only snapshot of the registry, packed for the kernel.
 *
 * A statement acquires one snapshot and keeps it until it ends, so a cursor or a million-row join
 * sees one registry; the next statement sees what was committed meanwhile.
 */
#ifndef TD_REGISTRY_H
#define TD_REGISTRY_H

#include "td_active_encoder.h"
#include "td_datum.h"
#include "tinydancer.h"
#include "utils/snapshot.h"

/* What a row of tinydancer.policy, or a built-in objective, weighs. */
typedef struct TdPolicy
{
	const char *name; /* in the database encoding */
	double cost_weight;
	double latency_weight;
	double quality_weight;
	double fit_weight;
	bool per_dollar;
	bool builtin; /* a row of the user's own goes before */
} TdPolicy;

typedef struct TdRegistry
{
	MemoryContext context;
	int pins;
	uint64 generation; /* of the tables, when this was read */
	uint64 serial;	   /* no other registry of this session has it */

	TdActiveEncoder *encoder;
	td_registry view;
	char **agent_names; /* [n_agents], database encoding, in byte order */
	TdText *phrases;    /* [n_phrases], UTF-8 */

	int n_capabilities;
	TdText *capabilities; /* folded, sorted by bytes; the position is the id */
	uint32 *capability_phrases; /* [n_capabilities]: the phrase that says it, or TD_NONE */
	int n_pools;
	char **pools; /* the position is the id */
	int n_policies;
	TdPolicy *policies;
} TdRegistry;

/* Register the callbacks; once per backend. */
extern void tdpg_registry_init(void);

/*
 * The current snapshot, pinned until owner is reset or deleted.  Rebuilds it when another session
 * has committed a change or this one has made one.
 */
extern TdRegistry *tdpg_registry_acquire(MemoryContext owner);

/*
 * How often registry, routes and models have changed for this backend.  From the first call on only their
 * own changes count, also in a backend that has read none of them.
 */
extern void tdpg_registry_generations(uint64 *registry, uint64 *routes, uint64 *models);

/*
 * The active encoder, pinned until owner is reset or deleted.  Cheaper than a snapshot when the
 * registry has changed: a thousand registrations must not read the registry a thousand times.
 */
extern TdActiveEncoder *tdpg_registry_encoder(MemoryContext owner);

/*
 * The encoder with this id, whatever the active one is; raises when its file cannot be had, or is not
 * the one that the database has pinned under the id.
 */
extern TdActiveEncoder *tdpg_registry_other_encoder(const char *id, MemoryContext owner);

/*
 * Keep others from switching the encoder until the transaction ends, and wait for one who is at it.
 * Raises ERRCODE_T_R_SERIALIZATION_FAILURE in a transaction whose snapshot is older than a switch.
 */
extern void tdpg_registry_hold_encoder(void);

/*
 * Raise ERRCODE_T_R_SERIALIZATION_FAILURE when somebody has stored vectors of another encoder than
 * this that the transaction's snapshot is too old to see.
 */
extern void tdpg_registry_check_switched(const char *id);

/*
 * For td_route_set.c: what is read of the semantic routes is valid as long as the generation is what
 * it was before, and is read as this snapshot sees it.
 */
extern uint64 tdpg_route_generation(void);
extern Snapshot tdpg_route_snapshot(void);

/* The same for td_models.c and the trained models. */
extern uint64 tdpg_model_generation(void);
extern Snapshot tdpg_model_snapshot(void);

/* The number of an agent by name, or TD_NONE. */
extern uint32 tdpg_registry_agent(const TdRegistry *registry, const char *name);

/* The id of a folded capability, or TD_NONE. */
extern uint32 tdpg_registry_capability(const TdRegistry *registry, TdText folded);

/* The id of a pool, or TD_NONE. */
extern uint32 tdpg_registry_pool(const TdRegistry *registry, const char *pool);

/* The policy of that name; raises the error that lists the known ones. */
extern const TdPolicy *tdpg_registry_policy(const TdRegistry *registry, const char *name);

#endif /* TD_REGISTRY_H */
