/*
 * td_classifier.c - one request through the active classifier.
 *
 * In: a request as SQL passes it.  Out: the probability of each category or capability.  Called by
 * td_sql_classify.c and by the foreign table request_classes.
 */
#include "postgres.h"

#include "td_activity.h"
#include "td_classifier.h"
#include "td_error.h"
#include "td_lent.h"

static const char *const what[TD_N_TASKS] = {
	[TD_TASK_CLASSIFIER] = "task classifier",
	[TD_TASK_CAPABILITIES] = "capability classifier",
	[TD_TASK_QUALITY] = "quality model",
};

TdClassifier *
tdpg_classifier_create(td_task task, MemoryContext context)
{
	TdClassifier *c = MemoryContextAllocZero(context, sizeof(TdClassifier));

	c->encoder = tdpg_registry_encoder(context);
	c->model = tdpg_model_acquire(task, c->encoder, context);
	if (c->model == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no %s is active", what[task]),
				 errdetail("Kind \"%s\" of tinydancer.model has no active model for encoder \"%s\".",
						   td_task_name(task), c->encoder->id),
				 errhint("Train one with the command tinydancer train %s.", td_task_name(task))));
	c->embedder = tdpg_embedder_create(context);
	c->vector = tdpg_lent(context, sizeof(float) * c->encoder->dim);
	c->probability = tdpg_lent(context, sizeof(float) * c->model->view.n_out);
	c->scratch_size = td_model_scratch_size(&c->model->view);
	c->scratch = tdpg_lent(context, c->scratch_size);
	return c;
}

bool
tdpg_classify(TdClassifier *c, NullableDatum request, NullableDatum embedding)
{
	const td_encoder *words = tdpg_active_encoder_counter(c->encoder);
	TdText text = {NULL, 0};
	td_status status;

	if (request.isnull && embedding.isnull)
		return false;
	if (!request.isnull)
		text = tdpg_text(request.value);
	if (!embedding.isnull)
		tdpg_unit_vector(embedding.value, c->encoder, c->vector);
	else
	{
		td_embed_info info;

		status = tdpg_embed(c->embedder, tdpg_active_encoder_view(c->encoder), text, c->vector, &info);
		if (status != TD_OK)
			tdpg_error(status);
	}
	status = tdpg_model_apply(c->model, words, text, c->vector, c->probability, c->scratch,
							  c->scratch_size);
	if (status != TD_OK)
		tdpg_error(status);
	tdpg_activity.requests_classified++;
	return true;
}
