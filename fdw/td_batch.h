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
	MemoryContext per_request; /* reset after each one */
} TdBatch;

/* Take a text[] of one dimension apart; what names the argument in errors. */
extern void tdpg_batch_init(TdBatch *batch, TdRouter *router, Datum array, const char *what);

/* The number of request i among the different ones, from 0; is_new: it comes for the first time. */
extern uint32 tdpg_batch_number(TdBatch *batch, int i, bool *is_new);

/*
 * Score every agent for request i into the router's candidates.  An error says which element of what it
 * is about.
 */
extern void tdpg_batch_score(TdBatch *batch, int i);

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
