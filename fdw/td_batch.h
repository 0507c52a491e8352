/*
 * td_batch.h - many requests of one call: which texts are different, and each scored once.
 *
 * td_sql_batch.c and td_sql_budget.c walk over the requests; what they keep of a scored text is their
 * own affair.
 */
#ifndef TD_BATCH_H
#define TD_BATCH_H

#include "td_route.h"

/*
 * Requests that one call may decide together.  In memory are the choices of all of them, some five for
 * each different text, of 32 bytes, and of 52 bytes more while the plan is made.
 */
#define TD_BATCH_MAX_JOINT 1000000

/* Agents to choose from for the groups of equal requests, growing; see td_knapsack. */
typedef struct TdChoices
{
	td_choice *choices;
	uint32 *first; /* [n_groups + 1] */
	Size n_choices;
	Size room;
	uint32 n_groups;
	Size group_room;
	td_choice *scratch; /* [n_agents] */
} TdChoices;

/* What has been read ahead of the requests that come next. */
typedef struct TdAhead
{
	int request[TD_SCORE_TOGETHER]; /* in ascending order */
	int n;
	int at;				 /* the next one that will be asked for */
	int looked;			 /* requests before this have been looked at */
	float *embeddings;	 /* [TD_SCORE_TOGETHER][dim] */
	td_embed_info info[TD_SCORE_TOGETHER];
	float *products; /* [TD_SCORE_TOGETHER][n_phrases]; NULL: too few phrases for it to pay */
	void *scratch;
	size_t scratch_size;
} TdAhead;

/* The requests of a text[]. */
typedef struct TdBatch
{
	TdRouter *router;
	TdInputs inputs; /* limits of every request; the request is set one by one */
	Datum *texts;
	bool *nulls;
	int n;
	int at; /* the one that is being scored, from 0, for the error's context */
	struct texts_hash *distinct;
	uint32 n_distinct;
	uint32 n_told; /* of those, how many the caller knows of */
	bool has_terms; /* the router has the limits */
	TdAhead ahead;
	MemoryContext context;	   /* of the whole */
	MemoryContext per_request; /* reset after each one */
} TdBatch;

/* Take a text[] of one dimension apart; what names the argument in errors. */
extern void tdpg_batch_init(TdBatch *batch, TdRouter *router, Datum array, const char *what);

/* The number of request i among the different ones, from 0; is_new: it comes for the first time. */
extern uint32 tdpg_batch_number(TdBatch *batch, int i, bool *is_new);

/*
 * Score every agent for request i into the router's candidates, or find the best one alone, into
 * router->chosen.  An error says which element of what it is about.
 *
 * Requests are asked for in ascending order, each once: the ones that are different, when
 * tdpg_batch_number() is asked which those are, else all.  Some are read ahead and multiplied with the
 * phrases together, so an error may be about a later one.
 */
extern void tdpg_batch_score(TdBatch *batch, int i);
extern void tdpg_batch_decide(TdBatch *batch, int i);

/* An empty list of choices for a registry of n_agents. */
extern void tdpg_choices_init(TdChoices *choices, uint32 n_agents);

/*
 * Add the choices of the scored request as a group.  False, and no group, when no agent is left.
 * fallback, where not NULL, gets the one that the objective prefers.
 */
extern bool tdpg_choices_add(TdChoices *choices, const TdRouter *router, bool hull_only,
							 bool needs_cost, td_choice *fallback);

/* An array that doubles: room for one more than n elements. */
extern void *tdpg_grow(void *array, Size n, Size *room, Size element);

#endif /* TD_BATCH_H */
