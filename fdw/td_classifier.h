/*
 * td_classifier.h - requests to the probabilities of a trained classifier.
 */
#ifndef TD_CLASSIFIER_H
#define TD_CLASSIFIER_H

#include "td_embedder.h"
#include "td_models.h"

/* One statement's classifier: a pinned model, buffers, and the last request's probabilities. */
typedef struct TdClassifier
{
	TdActiveEncoder *encoder;
	TdModel *model;
	TdEmbedder *embedder;
	float *vector;		/* [dim] */
	float *probability; /* [model->view.n_out], in the order of model->names */
	void *scratch;
	size_t scratch_size;
} TdClassifier;

/*
 * A classifier of that kind, TD_TASK_CLASSIFIER or TD_TASK_CAPABILITIES, that lives in the memory
 * context, pins included.  Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when none is active.
 */
extern TdClassifier *tdpg_classifier_create(td_task task, MemoryContext context);

/*
 * Classify a request by its text, its vector (real[]), or both, into classifier->probability.
 * False when there is neither.  Raises errors about the inputs.
 */
extern bool tdpg_classify(TdClassifier *classifier, NullableDatum request, NullableDatum embedding);

#endif /* TD_CLASSIFIER_H */
