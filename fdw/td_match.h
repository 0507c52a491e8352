/*
 * td_match.h - one request against the semantic routes: the road from SQL inputs to the routes that
 * match, with the conditions that routes ask for.
 */
#ifndef TD_MATCH_H
#define TD_MATCH_H

#include "td_embedder.h"
#include "td_route_set.h"

/* The inputs, in the order of ruvector_semantic_route()'s arguments. */
typedef enum TdMatchInput
{
	TD_MATCH_QUERY,
	TD_MATCH_TOP_K,
	TD_MATCH_USER_TIER,
	TD_MATCH_AT,
	TD_MATCH_EMBEDDING,
	TD_N_MATCH_INPUTS
} TdMatchInput;

/* The outputs, in the order of ruvector_semantic_route()'s columns. */
typedef enum TdMatchOutput
{
	TD_MATCH_ROUTE_NAME,
	TD_MATCH_SIMILARITY,
	TD_MATCH_TARGET_AGENT,
	TD_MATCH_CONFIDENCE,
	TD_N_MATCH_OUTPUTS
} TdMatchOutput;

/* How many routes are returned where top_k is NULL. */
#define TD_MATCH_DEFAULT_TOP_K 3

/* One statement's matcher: pinned routes, buffers, and the last request's scores. */
typedef struct TdMatcher
{
	TdRouteSet *set;
	TdEmbedder *embedder;
	float *vector;	/* [dim] */
	float *scores;	/* [n_routes] */
	uint8 *open;	/* [n_routes] */
	uint32 *index;	/* [n_routes] */
	void *score_scratch;
	size_t score_scratch_size;
	void *select_scratch;
	size_t select_scratch_size;
} TdMatcher;

/* A matcher that lives in the memory context, pin included. */
extern TdMatcher *tdpg_matcher_create(MemoryContext context);

/* Raise the errors about the inputs that no route needs to be read for. */
extern void tdpg_matcher_check(const NullableDatum *inputs);

/*
 * The number of routes that match, whose numbers are in matcher->index, best first; 0 also when there
 * is neither query nor embedding.  Raises errors about the inputs.
 */
extern size_t tdpg_matcher_match(TdMatcher *matcher, const NullableDatum *inputs);

/* The columns of a route that matched. */
extern void tdpg_matcher_outputs(const TdMatcher *matcher, uint32 route, Datum *values, bool *nulls);

#endif /* TD_MATCH_H */
