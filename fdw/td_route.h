/*
 * td_route.h - inputs of one decision as SQL passes them, and the decision; the one road that
 * ruvector_route(), ruvector_explain_route() and the foreign tables share.
 */
#ifndef TD_ROUTE_H
#define TD_ROUTE_H

#include "td_embedder.h"
#include "td_models.h"
#include "td_registry.h"

/* The inputs, in the order of ruvector_route()'s arguments. */
typedef enum TdInput
{
	TD_IN_REQUEST,
	TD_IN_OPTIMIZE_FOR,
	TD_IN_REQUIRED_CAPABILITIES,
	TD_IN_MAX_COST,
	TD_IN_MAX_LATENCY_MS,
	TD_IN_MIN_QUALITY,
	TD_IN_EXCLUDED_AGENTS,
	TD_IN_BUDGET_REMAINING,
	TD_IN_EMBEDDING,
	TD_IN_POOL,
	TD_IN_MIN_EXPECTED_QUALITY,
	TD_N_INPUTS
} TdInput;

/* The objective where none is named. */
#define TD_DEFAULT_OBJECTIVE "balanced"

typedef struct TdInputs
{
	NullableDatum values[TD_N_INPUTS];
} TdInputs;

/* The outputs of a decision, in the order of ruvector_route()'s columns. */
typedef enum TdOutput
{
	TD_OUT_AGENT_NAME,
	TD_OUT_CONFIDENCE,
	TD_OUT_ESTIMATED_COST,
	TD_OUT_ESTIMATED_LATENCY_MS,
	TD_OUT_EXPECTED_QUALITY,
	TD_OUT_SIMILARITY,
	TD_OUT_REASONING,
	TD_N_OUTPUTS
} TdOutput;

/* The columns of ruvector_explain_route(), in their order. */
typedef enum TdExplained
{
	TD_EX_AGENT_NAME,
	TD_EX_RANK,
	TD_EX_ELIGIBLE,
	TD_EX_REJECTED_BY,
	TD_EX_SCORE,
	TD_EX_SIMILARITY,
	TD_EX_CLOSEST_PHRASE,
	TD_EX_FIT,
	TD_EX_QUALITY,
	TD_EX_EXPECTED_QUALITY,
	TD_EX_ESTIMATED_COST,
	TD_EX_COST_UTILITY,
	TD_EX_ESTIMATED_LATENCY_MS,
	TD_EX_LATENCY_UTILITY,
	TD_EX_REASONING,
	TD_N_EXPLAINED
} TdExplained;

/* One statement's router: a pinned registry, buffers, and the last request that was scored. */
typedef struct TdRouter
{
	MemoryContext context; /* where all of it lives */
	TdRegistry *registry;
	float *embedding;
	TdEmbedder *embedder;
	void *score_scratch;
	size_t score_scratch_size;
	td_candidate *candidates; /* [n_agents]; NULL: all have never been scored */
	td_candidate chosen;	  /* agent TD_NONE: nobody is eligible */
	TdModel *model;			  /* of quality; NULL: none is active */
	uint32 *outputs;		  /* [n_agents] each agent's output of the model */
	float *probability;		  /* [outputs of the model] */
	double *predicted;		  /* [n_agents] */
	void *model_scratch;
	size_t model_scratch_size;
	td_request request;
	td_policy policy;
	const TdPolicy *objective;
	td_embed_info info;
	bool has_info; /* a text was embedded */
	uint32 n_eligible;
} TdRouter;

/* A router that lives in the memory context, registry pin included. */
extern TdRouter *tdpg_router_create(MemoryContext context);

/* Raise the errors about limits that no registry needs to be read for. */
extern void tdpg_check_limits(const TdInputs *inputs);

/*
 * Score every agent into router->candidates.  False when there is nothing to route: neither request nor
 * embedding.  Raises errors about the inputs.  What it allocates per request is in the current context.
 */
extern bool tdpg_router_score(TdRouter *router, const TdInputs *inputs);

/*
 * The same for who needs the best agent alone, into router->chosen and router->n_eligible: faster, and
 * without memory for the others.
 */
extern bool tdpg_router_decide(TdRouter *router, const TdInputs *inputs);

/*
 * The same in steps, for many texts with the same limits: the objective and the limits, which may
 * allocate in the current context what the requests read; then for each request what was read of its
 * text (products as in td_request) and one of the two.
 */
extern void tdpg_router_set_terms(TdRouter *router, const TdInputs *inputs);
extern void tdpg_router_set_read(TdRouter *router, TdText text, const float *embedding,
								 const td_embed_info *info, const float *products);
extern void tdpg_router_score_all(TdRouter *router);
extern void tdpg_router_decide_one(TdRouter *router);

/*
 * The vector of a text that is not the request, such as a part of it, into out[dim].  False, and
 * zeros, when there is nothing to encode in it.
 */
extern bool tdpg_router_embed(TdRouter *router, TdText text, float *out);

/* The columns of a candidate of the last request; rank is 0 for a rejected one. */
extern void tdpg_router_outputs(const TdRouter *router, const td_candidate *candidate, uint32 rank,
								bool with_reasoning, Datum *values, bool *nulls);

/*
 * The columns of ruvector_explain_route() for a candidate of the last request; texts that are not
 * wanted[TD_N_EXPLAINED] are NULL.
 */
extern void tdpg_router_explained(const TdRouter *router, const td_candidate *candidate,
								  uint32 rank, const bool *wanted, Datum *values, bool *nulls);

/* The names of the limits that reject a candidate, separated by ", ". */
extern char *tdpg_rejected_by(const td_candidate *candidate);

/* The closest phrase of a candidate as a datum. */
extern Datum tdpg_closest_phrase(const TdRouter *router, const td_candidate *candidate,
								 bool *isnull);

#endif /* TD_ROUTE_H */
