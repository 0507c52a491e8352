/*
 * td_fdw_classes.c - the foreign table request_classes: the kinds of task that each request may be.
 *
 * In: a request or its vector.  Out: a row for each category of the active task classifier, most
 * probable first.  Reached through tdpg_request_classes by planning and scanning.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "td_classifier.h"
#include "td_fdw.h"
#include "td_lent.h"

/* Categories that a classifier has, for the planner; the shipped one has about as many. */
#define CATEGORIES_GUESS 15.0

enum
{
	CLASS_REQUEST,
	CLASS_EMBEDDING,
	N_CLASS_INPUTS
};

enum
{
	CLASS_CATEGORY,
	CLASS_PROBABILITY,
	CLASS_RANK,
	CLASS_MODEL_VERSION,
	N_CLASS_OUTPUTS
};

StaticAssertDecl((int) CLASS_REQUEST == (int) TD_REQUEST, "the request comes first");

static const TdColumnKind inputs[N_CLASS_INPUTS] = {
	[CLASS_REQUEST] = {"request", TEXTOID},
	[CLASS_EMBEDDING] = {"embedding", FLOAT4ARRAYOID},
};

static const TdColumnKind outputs[N_CLASS_OUTPUTS] = {
	[CLASS_CATEGORY] = {"category", TEXTOID},
	[CLASS_PROBABILITY] = {"probability", FLOAT8OID, .order = TD_DESCENDING},
	[CLASS_RANK] = {"rank", INT4OID, .order = TD_ASCENDING},
	[CLASS_MODEL_VERSION] = {"model_version", INT4OID},
};

/* A category, for sorting. */
typedef struct Category
{
	float probability;
	uint32 output;
} Category;

typedef struct Classes
{
	TdAnswers base;
	MemoryContext context;
	TdClassifier *classifier; /* NULL: none was active when the scan began */
	Category *categories;	  /* [outputs of the model], most probable first */
	uint32 position;		  /* of the next row */
	uint32 n;				  /* rows of the request */
} Classes;

static double
rows_of_classes(void)
{
	return CATEGORIES_GUESS;
}

/* Raises the error of a classifier that is not there. */
static void
set_classifier(Classes *classes)
{
	classes->classifier = tdpg_classifier_create(TD_TASK_CLASSIFIER, classes->context);
	classes->categories = tdpg_lent(classes->context,
									sizeof(Category) * classes->classifier->model->view.n_out);
}

static TdAnswers *
begin_classes(MemoryContext context, const bool *wanted)
{
	Classes *classes = MemoryContextAllocZero(context, sizeof(Classes));

	classes->base.wanted = wanted;
	classes->context = context;
	/* A query that asks for no request needs no classifier. */
	if (tdpg_model_acquire(TD_TASK_CLASSIFIER, tdpg_registry_encoder(context), context) != NULL)
		set_classifier(classes);
	return &classes->base;
}

/* By probability, and equals as the model has them. */
static int
category_order(const void *a, const void *b)
{
	const Category *x = a;
	const Category *y = b;

	if (x->probability != y->probability)
		return x->probability > y->probability ? -1 : 1;
	return x->output < y->output ? -1 : x->output > y->output ? 1 : 0;
}

static void
ask_classes(TdAnswers *answers, const TdInputs *values)
{
	Classes *classes = (Classes *) answers;
	uint32 i;

	classes->position = 0;
	classes->n = 0;
	if (classes->classifier == NULL)
		set_classifier(classes);
	if (!tdpg_classify(classes->classifier, values->values[CLASS_REQUEST],
					   values->values[CLASS_EMBEDDING]))
		return;
	classes->n = classes->classifier->model->view.n_out;
	for (i = 0; i < classes->n; i++)
	{
		classes->categories[i].probability = classes->classifier->probability[i];
		classes->categories[i].output = i;
	}
	qsort(classes->categories, classes->n, sizeof(Category), category_order);
	answers->n_requests++;
	answers->n_scored += classes->n;
}

static bool
next_class(TdAnswers *answers, Datum *values, bool *nulls)
{
	Classes *classes = (Classes *) answers;
	const Category *category;

	if (classes->position == classes->n)
		return false;
	category = &classes->categories[classes->position++];
	memset(nulls, 0, sizeof(bool) * N_CLASS_OUTPUTS);
	values[CLASS_CATEGORY] =
		CStringGetTextDatum(classes->classifier->model->names[category->output]);
	values[CLASS_PROBABILITY] = Float8GetDatum((double) category->probability);
	values[CLASS_RANK] = Int32GetDatum((int32) classes->position);
	values[CLASS_MODEL_VERSION] = Int32GetDatum(classes->classifier->model->version);
	return true;
}

const TdTableKind tdpg_request_classes = {
	.name = "request_classes",
	.n_inputs = N_CLASS_INPUTS,
	.inputs = inputs,
	.embedding = CLASS_EMBEDDING,
	.objective = -1,
	.most_rows = -1,
	.n_outputs = N_CLASS_OUTPUTS,
	.outputs = outputs,
	.key = CLASS_CATEGORY,
	.rank = CLASS_RANK,
	.task = TD_TASK_CLASSIFIER,
	.rows = rows_of_classes,
	.begin = begin_classes,
	.ask = ask_classes,
	.next = next_class,
	.requests_label = "Requests Classified",
	.scored_label = "Categories Scored",
};
