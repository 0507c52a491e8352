/*
 * td_models.c - each backend's copies of the active models, and when they are valid.
 *
 * In: rows of tinydancer.model, and invalidations of the empty relation tinydancer.model_epoch.  Out: a
 * checked td_model, pinned.  Called by td_route.c for predicted quality and by td_classifier.c.
 *
 * They are apart from the registry: a refreshed price must not read megabytes again, and a session
 * that never classifies loads no classifier.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "td_error.h"
#include "td_guc.h"
#include "td_lent.h"
#include "td_models.h"
#include "td_table_scan.h"

/* What is known of a kind: its model, or that there is none. */
typedef struct Slot
{
	uint64 generation; /* of the table, when it was read; 0: never */
	char encoder[TD_FILE_ID_SIZE + 1];
	TdModel *model;
} Slot;

static Slot slots[TD_N_TASKS];

static void
unpin(void *arg)
{
	TdModel *model = arg;
	int i;

	model->pins--;
	if (model->pins > 0)
		return;
	for (i = 0; i < TD_N_TASKS; i++)
	{
		if (slots[i].model == model)
			return;
	}
	MemoryContextDelete(model->context);
}

/* Vectors of another file under the same id mean something else. */
static void
check_encoder(const td_model *view, const char *kind, int version, const TdActiveEncoder *encoder)
{
	const td_encoder *own = encoder->file == NULL ? NULL : tdpg_active_encoder_view(encoder);

	if (view->dim == (uint32) encoder->dim &&
		(own == NULL || own->file.checksum == view->encoder_checksum))
		return;
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("model is for another encoder than \"%s\"", encoder->id),
					errdetail("Version %d of kind \"%s\" was trained on %u-dimensional vectors of a file "
							  "with checksum %016llx.",
							  version, kind, view->dim, (unsigned long long) view->encoder_checksum),
					errhint("Train it again with this encoder.")));
}

/* The row's bytes as a model in a context of its own, a child of the current one. */
static TdModel *
load(Datum bytes, const char *kind, int version, bool builtin, const TdActiveEncoder *encoder)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "tinydancer model", ALLOCSET_SMALL_SIZES);
	TdModel *model = MemoryContextAllocZero(context, sizeof(TdModel));
	bytea *detoasted = DatumGetByteaPP(bytes);
	Size size = VARSIZE_ANY_EXHDR(detoasted);
	void *copy = tdpg_lent(context, size);
	const char *name;
	td_status status;
	uint32 i;

	memcpy(copy, VARDATA_ANY(detoasted), size);
	if ((Pointer) detoasted != DatumGetPointer(bytes))
		pfree(detoasted);
	status = td_model_open(copy, size, &model->view);
	if (status != TD_OK)
		tdpg_error_model(status,
						 psprintf("Version %d of kind \"%s\" in tinydancer.model", version, kind),
						 "Activate another version with tinydancer.activate_model().");
	check_encoder(&model->view, kind, version, encoder);
	model->context = context;
	model->version = version;
	model->builtin = builtin;
	model->names = MemoryContextAlloc(context, sizeof(char *) * model->view.n_out);
	name = model->view.names;
	for (i = 0; i < model->view.n_out; i++)
	{
		char *converted = pg_any_to_server(name, (int) strlen(name), PG_UTF8);

		model->names[i] = MemoryContextStrdup(context, converted);
		name += strlen(name) + 1;
	}
	return model;
}

/* The active model of that kind and encoder as the snapshot sees it, or NULL. */
static TdModel *
read_model(const char *kind, const TdActiveEncoder *encoder, Snapshot snapshot)
{
	TdTableScan t;
	AttrNumber kind_column;
	AttrNumber encoder_column;
	AttrNumber version;
	AttrNumber bytes;
	AttrNumber active;
	AttrNumber builtin;
	TdModel *found = NULL;

	tdpg_scan_begin(&t, "model", snapshot);
	kind_column = tdpg_scan_column(&t, "kind");
	encoder_column = tdpg_scan_column(&t, "encoder");
	version = tdpg_scan_column(&t, "version");
	bytes = tdpg_scan_column(&t, "bytes");
	active = tdpg_scan_column(&t, "active");
	builtin = tdpg_scan_column(&t, "builtin");
	while (tdpg_scan_next(&t))
	{
		bool isnull;
		bool is_builtin = tdpg_scan_bool(&t, builtin);

		if (!tdpg_scan_bool(&t, active) || (found != NULL && is_builtin) ||
			!tdpg_scan_is(&t, kind_column, kind) ||
			!tdpg_scan_is(&t, encoder_column, encoder->id))
			continue;
		if (found != NULL)
			MemoryContextDelete(found->context);
		found = load(tdpg_scan_datum(&t, bytes, &isnull), kind, tdpg_scan_int(&t, version, 0),
					 is_builtin, encoder);
	}
	tdpg_scan_end(&t);
	return found;
}

static void
reload(td_task task, const TdActiveEncoder *encoder)
{
	Slot *slot = &slots[task];
	uint64 read_at = tdpg_model_generation();
	TdModel *old = slot->model;
	MemoryContext work =
		AllocSetContextCreate(CurrentMemoryContext, "tinydancer model read", ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(work);
	Snapshot snapshot = RegisterSnapshot(tdpg_model_snapshot());
	TdModel *new = read_model(td_task_name(task), encoder, snapshot);

	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(before);
	if (new != NULL)
		MemoryContextSetParent(new->context, CacheMemoryContext);
	slot->model = new;
	slot->generation = read_at;
	strlcpy(slot->encoder, encoder->id, sizeof(slot->encoder));
	MemoryContextDelete(work);
	if (old != NULL && old->pins == 0)
		MemoryContextDelete(old->context);
}

TdModel *
tdpg_model_acquire(td_task task, const TdActiveEncoder *encoder, MemoryContext owner)
{
	Slot *slot = &slots[task];
	MemoryContextCallback *callback;
	TdModel *model;
	uint32 i;

	AcceptInvalidationMessages();
	if (slot->generation != tdpg_model_generation() || strcmp(slot->encoder, encoder->id) != 0)
		reload(task, encoder);
	model = slot->model;
	if (model == NULL)
		return NULL;
	model->view.level = tdpg_kernel_level();
	for (i = 0; i < model->view.n_members; i++)
		model->view.members[i].cell.level = model->view.level;
	callback = MemoryContextAlloc(owner, sizeof(MemoryContextCallback));
	callback->func = unpin;
	callback->arg = model;
	model->pins++;
	MemoryContextRegisterResetCallback(owner, callback);
	return model;
}

const uint32 *
tdpg_model_outputs(TdModel *model, const TdRegistry *registry)
{
	uint32 n_agents = registry->view.n_agents;
	uint32 i;

	if (model->mapped_registry == registry->serial)
		return model->outputs;
	model->mapped_registry = 0;
	if (model->n_mapped < n_agents)
	{
		model->n_mapped = 0;
		if (model->outputs != NULL)
			pfree(model->outputs);
		model->outputs = MemoryContextAllocHuge(model->context, sizeof(uint32) * n_agents);
		model->n_mapped = n_agents;
	}
	for (i = 0; i < n_agents; i++)
		model->outputs[i] = TD_NONE;
	for (i = 0; i < model->view.n_out; i++)
	{
		uint32 agent = tdpg_registry_agent(registry, model->names[i]);

		if (agent != TD_NONE && model->view.support[i] > 0)
			model->outputs[agent] = i;
	}
	model->mapped_registry = registry->serial;
	return model->outputs;
}

td_status
tdpg_model_apply(const TdModel *model, const td_encoder *words, TdText text, const float *vector,
				 float *probability, void *scratch, size_t scratch_size)
{
	const td_model *view = &model->view;

	if (words == NULL ||
		(view->reads_tokens &&
		 (words->dim != view->dim || words->file.kind != TD_FILE_STATIC_ENCODER)))
		text.data = NULL;
	return td_model_apply(view, words, text.data, text.len, vector, probability, scratch,
						  scratch_size);
}

/* ---------------------------------------------------------------- SQL */

PG_FUNCTION_INFO_V1(tinydancer_model_facts);

/* What a model's bytes say of it; raises the error of bytes that are no model. */
Datum
tinydancer_model_facts(PG_FUNCTION_ARGS)
{
	bytea *bytes = PG_GETARG_BYTEA_PP(0);
	Size size = VARSIZE_ANY_EXHDR(bytes);
	void *copy = tdpg_lent(CurrentMemoryContext, size);
	td_model *view = palloc(sizeof(td_model));
	Datum values[7];
	bool nulls[7] = {0};
	TupleDesc desc;
	Datum *outputs;
	const char *name;
	td_status status;
	uint32 i;

	memcpy(copy, VARDATA_ANY(bytes), size);
	status = td_model_open(copy, size, view);
	if (status != TD_OK)
		tdpg_error_model(status, psprintf("A value of %zu bytes", size),
						 "Train it again, or export it again with tinydancer model export.");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	outputs = palloc(sizeof(Datum) * view->n_out);
	name = view->names;
	for (i = 0; i < view->n_out; i++)
	{
		outputs[i] = tdpg_text_datum(name, strlen(name));
		name += strlen(name) + 1;
	}
	values[0] = CStringGetTextDatum(td_task_name(view->task));
	values[1] = CStringGetTextDatum(view->encoder_id);
	values[2] = CStringGetTextDatum(psprintf("%016llx", (unsigned long long) view->encoder_checksum));
	values[3] = Int32GetDatum((int32) view->dim);
	values[4] = CStringGetTextDatum(psprintf("%016llx", (unsigned long long) view->file.checksum));
	values[5] = PointerGetDatum(
		construct_array(outputs, (int) view->n_out, TEXTOID, -1, false, TYPALIGN_INT));
	values[6] = Int32GetDatum((int32) view->n_rows);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PG_FUNCTION_INFO_V1(tinydancer_active_model);

/* The model of a kind that this session works with, "quality 3", or NULL. */
Datum
tinydancer_active_model(PG_FUNCTION_ARGS)
{
	char *kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TdModel *model;
	int task = 0;

	while (task < TD_N_TASKS && strcmp(kind, td_task_name(task)) != 0)
		task++;
	if (task == TD_N_TASKS)
		PG_RETURN_NULL();
	model = tdpg_model_acquire((td_task) task, tdpg_registry_encoder(CurrentMemoryContext),
							   CurrentMemoryContext);
	if (model == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s %d", kind, model->version)));
}
