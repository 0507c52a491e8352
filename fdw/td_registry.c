/*
 * td_registry.c - when the registry snapshot of a backend is valid, and who still needs an old one.
 *
 * In: invalidation messages for the empty relation tinydancer.epoch, sent by triggers on every
 * table that a decision depends on.  Out: the current TdRegistry, pinned.  td_registry_build.c
 * reads the tables; the SQL functions and the foreign scan call tdpg_registry_acquire().
 *
 * A callback may run at any time, also for every relation at once (InvalidOid), so it only counts.
 * A snapshot is valid while the count is what it was before its tables were read.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "td_error.h"
#include "td_guc.h"
#include "td_lent.h"
#include "td_registry.h"
#include "td_registry_build.h"
#include "td_registry_read.h"

static TdRegistry *current = NULL;

/* The encoder of a session whose statements need no registry: those that embed or classify. */
typedef struct LoneEncoder
{
	MemoryContext context;
	TdActiveEncoder *encoder;
	uint64 generation;
	int pins;
	bool is_default; /* no encoder is settled yet: it is whichever is there */
} LoneEncoder;

static LoneEncoder *lone = NULL;
static uint64 generation = 1;

/* The same for semantic routes, whose tables change at other times: td_route_set.c. */
static uint64 route_generation = 1;
static Oid route_epoch_relid = InvalidOid;

/* The same for trained models: td_models.c. */
static uint64 model_generation = 1;
static Oid model_epoch_relid = InvalidOid;

/* How often this backend has read the registry: for tests of what makes it do so. */
static uint64 builds = 0;

/* The relation whose invalidation counts; InvalidOid until a snapshot has been built. */
static Oid epoch_relid = InvalidOid;

/* The current snapshot holds what only this transaction may see. */
static bool bound_to_transaction = false;

/* A snapshot was built in this transaction, perhaps from rows that a rollback takes away. */
static bool built_in_transaction = false;

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == InvalidOid || epoch_relid == InvalidOid || relid == epoch_relid)
		generation++;
	if (relid == InvalidOid || route_epoch_relid == InvalidOid || relid == route_epoch_relid)
		route_generation++;
	if (relid == InvalidOid || model_epoch_relid == InvalidOid || relid == model_epoch_relid)
		model_generation++;
}

static void
all_changed(void)
{
	generation++;
	route_generation++;
	model_generation++;
}

static void
transaction_ended(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			if (bound_to_transaction)
				all_changed();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE: /* its changes are nobody's until COMMIT PREPARED */
			if (built_in_transaction)
				all_changed();
			break;
		default:
			return;
	}
	bound_to_transaction = false;
	built_in_transaction = false;
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && built_in_transaction)
		all_changed();
}

void
tdpg_registry_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}

static void
unpin(void *arg)
{
	TdRegistry *registry = arg;

	registry->pins--;
	if (registry->pins == 0 && registry != current)
		MemoryContextDelete(registry->context);
}

/*
 * Under REPEATABLE READ the registry must be the transaction's, in a parallel worker the leader's,
 * and otherwise the newest: a statement may reach its first decision long after it began.
 */
static Snapshot
choose_snapshot(void)
{
	if (IsInParallelMode())
	{
		bound_to_transaction = true;
		return GetActiveSnapshot();
	}
	if (IsolationUsesXactSnapshot())
	{
		bound_to_transaction = true;
		return GetTransactionSnapshot();
	}
	return GetLatestSnapshot();
}

uint64
tdpg_route_generation(void)
{
	return route_generation;
}

Snapshot
tdpg_route_snapshot(void)
{
	built_in_transaction = true;
	route_epoch_relid = get_relname_relid("route_epoch", get_namespace_oid("tinydancer", false));
	return choose_snapshot();
}

void
tdpg_registry_generations(uint64 *registry, uint64 *routes, uint64 *models)
{
	Oid namespace = get_namespace_oid("tinydancer", false);

	AcceptInvalidationMessages();
	epoch_relid = get_relname_relid("epoch", namespace);
	route_epoch_relid = get_relname_relid("route_epoch", namespace);
	model_epoch_relid = get_relname_relid("model_epoch", namespace);
	*registry = generation;
	*routes = route_generation;
	*models = model_generation;
}

uint64
tdpg_model_generation(void)
{
	return model_generation;
}

Snapshot
tdpg_model_snapshot(void)
{
	built_in_transaction = true;
	model_epoch_relid = get_relname_relid("model_epoch", get_namespace_oid("tinydancer", false));
	return choose_snapshot();
}

static void
rebuild(void)
{
	static TimestampTz last = 0;
	uint64 read_at = generation;
	TdRegistry *old = current;
	TdRegistry *new;
	Snapshot snapshot;

	built_in_transaction = true;
	snapshot = RegisterSnapshot(choose_snapshot());
	new = tdpg_registry_build(snapshot, &epoch_relid);
	UnregisterSnapshot(snapshot);

	new->generation = read_at;
	MemoryContextSetParent(new->context, CacheMemoryContext);
	current = new;
	builds++;
	new->serial = builds;
	if (old != NULL && old->pins == 0)
		MemoryContextDelete(old->context);
	tdpg_give_back(new->context, &last);
}

static bool
is_valid(void)
{
	return current != NULL && current->generation == generation &&
		   tdpg_encoder_is_current(current->encoder->file, current->encoder->id);
}

/* Keep the current snapshot until the context goes. */
static void
pin(MemoryContext owner)
{
	MemoryContextCallback *callback = MemoryContextAlloc(owner, sizeof(MemoryContextCallback));

	callback->func = unpin;
	callback->arg = current;
	current->pins++;
	MemoryContextRegisterResetCallback(owner, callback);
}

TdRegistry *
tdpg_registry_acquire(MemoryContext owner)
{
	/* A prepared call in an open READ COMMITTED transaction takes no lock that would do this. */
	AcceptInvalidationMessages();
	if (!is_valid())
		rebuild();
	pin(owner);
	current->view.level = tdpg_kernel_level();
	return current;
}

static void
unpin_lone(void *arg)
{
	LoneEncoder *held = arg;

	held->pins--;
	if (held->pins == 0 && held != lone)
		MemoryContextDelete(held->context);
}

static void
read_lone(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "tinydancer encoder",
												  ALLOCSET_SMALL_SIZES);
	LoneEncoder *old = lone;
	LoneEncoder *new = MemoryContextAllocZero(context, sizeof(LoneEncoder));
	TdSettings settings;
	Snapshot snapshot;

	new->context = context;
	new->generation = generation;
	built_in_transaction = true;
	epoch_relid = get_relname_relid("epoch", get_namespace_oid("tinydancer", false));
	snapshot = RegisterSnapshot(choose_snapshot());
	tdpg_read_settings(snapshot, &settings);
	UnregisterSnapshot(snapshot);
	new->encoder = tdpg_active_encoder_open(&settings, context);
	new->is_default = settings.encoder == NULL;
	MemoryContextSetParent(context, CacheMemoryContext);
	lone = new;
	if (old != NULL && old->pins == 0)
		MemoryContextDelete(old->context);
}

TdActiveEncoder *
tdpg_registry_encoder(MemoryContext owner)
{
	MemoryContextCallback *callback;

	AcceptInvalidationMessages();
	if (is_valid())
	{
		pin(owner);
		return current->encoder;
	}
	callback = MemoryContextAlloc(owner, sizeof(MemoryContextCallback));
	if (lone == NULL || lone->generation != generation ||
		(lone->is_default && strcmp(lone->encoder->id, tdpg_encoder_default_id()) != 0) ||
		!tdpg_encoder_is_current(lone->encoder->file, lone->encoder->id))
		read_lone();
	callback->func = unpin_lone;
	callback->arg = lone;
	lone->pins++;
	MemoryContextRegisterResetCallback(owner, callback);
	return lone->encoder;
}

TdActiveEncoder *
tdpg_registry_other_encoder(const char *id, MemoryContext owner)
{
	TdSettings settings;
	TdSettings other;
	Snapshot snapshot;

	AcceptInvalidationMessages();
	snapshot = RegisterSnapshot(choose_snapshot());
	tdpg_read_settings(snapshot, &settings);
	UnregisterSnapshot(snapshot);
	memset(&other, 0, sizeof(other));
	other.encoder = unconstify(char *, id);
	if (settings.encoder != NULL && strcmp(settings.encoder, id) == 0)
		other.checksum = settings.checksum;
	return tdpg_active_encoder_open(&other, owner);
}

static void
raise_too_old(const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("could not serialize access due to a switch of the encoder"),
					errdetail("%s", detail), errhint("Try the transaction again.")));
}

void
tdpg_registry_hold_encoder(void)
{
	Oid setting = get_relname_relid("setting", get_namespace_oid("tinydancer", false));
	TdSettings mine;
	TdSettings newest;
	Snapshot snapshot;

	/* tinydancer.use_encoder() takes the lock that conflicts with this one. */
	LockRelationOid(setting, RowShareLock);
	if (!IsolationUsesXactSnapshot())
		return;
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	tdpg_read_settings(snapshot, &mine);
	UnregisterSnapshot(snapshot);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	tdpg_read_settings(snapshot, &newest);
	UnregisterSnapshot(snapshot);
	if (mine.dim != newest.dim || mine.checksum != newest.checksum ||
		(mine.encoder == NULL) != (newest.encoder == NULL) ||
		(mine.encoder != NULL && strcmp(mine.encoder, newest.encoder) != 0))
		raise_too_old("Vectors that this transaction stores would be of an encoder that is no "
					  "longer in use.");
}

void
tdpg_registry_check_switched(const char *id)
{
	Snapshot snapshot;
	bool found;

	/* Other transactions see with each statement what was committed before it. */
	if (!IsolationUsesXactSnapshot())
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = tdpg_has_vectors_of_another(snapshot, "agent_phrase", id) ||
			tdpg_has_vectors_of_another(snapshot, "route_utterance", id);
	UnregisterSnapshot(snapshot);
	if (found)
		raise_too_old("Vectors were stored after this transaction began, which it cannot see.");
}

uint32
tdpg_registry_agent(const TdRegistry *registry, const char *name)
{
	uint32 low = 0;
	uint32 high = registry->view.n_agents;

	while (low < high)
	{
		uint32 middle = low + (high - low) / 2;
		int order = strcmp(name, registry->agent_names[middle]);

		if (order == 0)
			return middle;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return TD_NONE;
}

uint32
tdpg_registry_capability(const TdRegistry *registry, TdText folded)
{
	int low = 0;
	int high = registry->n_capabilities;

	while (low < high)
	{
		int middle = low + (high - low) / 2;
		int order = tdpg_text_compare(&folded, &registry->capabilities[middle]);

		if (order == 0)
			return (uint32) middle;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return TD_NONE;
}

uint32
tdpg_registry_pool(const TdRegistry *registry, const char *pool)
{
	int i;

	for (i = 0; i < registry->n_pools; i++)
	{
		if (strcmp(registry->pools[i], pool) == 0)
			return (uint32) i;
	}
	return TD_NONE;
}

const TdPolicy *
tdpg_registry_policy(const TdRegistry *registry, const char *name)
{
	const TdPolicy *found = NULL;
	const char **names;
	const char *closest;
	StringInfoData list;
	int i;

	for (i = 0; i < registry->n_policies; i++)
	{
		const TdPolicy *policy = &registry->policies[i];

		if (strcmp(policy->name, name) == 0 && (found == NULL || found->builtin))
			found = policy;
	}
	if (found != NULL)
		return found;

	initStringInfo(&list);
	names = palloc(sizeof(char *) * Max(registry->n_policies, 1));
	for (i = 0; i < registry->n_policies; i++)
	{
		names[i] = registry->policies[i].name;
		/* Policies are sorted by name; an override stands beside its built-in. */
		if (i == 0 || strcmp(names[i], names[i - 1]) != 0)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", names[i]);
	}
	closest = tdpg_closest(name, names, registry->n_policies);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unknown optimization target \"%s\"", name),
					errdetail("Known targets are %s.", list.data),
					closest != NULL ? errhint("Perhaps you meant \"%s\".", closest)
									: errhint("A row in tinydancer.policy makes a target of your "
											  "own.")));
	return NULL;
}

PG_FUNCTION_INFO_V1(tinydancer_bump_epoch);

/*
 * Trigger of every table that a decision depends on: tell all backends at commit, and this one at
 * the next command.  An empty relation stands for all of them, so that VACUUM or ANALYZE of a
 * registry table does not rebuild, and a write does not replan queries that join one.  The
 * trigger's arguments name such relations; without arguments it is tinydancer.epoch.
 */
Datum
tinydancer_bump_epoch(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid namespace;
	int i;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("tinydancer.bump_epoch must be called as a trigger"),
						errdetail("It tells other sessions that a registry table has changed."),
						errhint("Change the tables; their triggers call it.")));
	namespace = get_namespace_oid("tinydancer", false);
	for (i = 0; i < Max(trigger->tg_trigger->tgnargs, 1); i++)
	{
		const char *name = trigger->tg_trigger->tgnargs == 0 ? "epoch"
															 : trigger->tg_trigger->tgargs[i];
		Oid epoch = get_relname_relid(name, namespace);

		if (OidIsValid(epoch))
			CacheInvalidateRelcacheByRelid(epoch);
	}
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return PointerGetDatum(trigger->tg_newtuple);
	return PointerGetDatum(trigger->tg_trigtuple);
}

PG_FUNCTION_INFO_V1(tinydancer_registry_builds);

Datum
tinydancer_registry_builds(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) builds);
}
