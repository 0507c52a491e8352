/*
 * td_activity.h - what this session has worked out so far; shown by tinydancer.session_activity().
 *
 * Tests and people see by it what a query costs, and that EXPLAIN works out nothing.
 */
#ifndef TD_ACTIVITY_H
#define TD_ACTIVITY_H

#include "c.h"

typedef struct TdActivity
{
	uint64 inputs_evaluated; /* times that a foreign scan evaluated its inputs */
	uint64 texts_embedded;
	uint64 requests_routed;	 /* scored against the agents */
	uint64 requests_matched; /* scored against the semantic routes */
	uint64 requests_classified;
} TdActivity;

extern TdActivity tdpg_activity;

#endif /* TD_ACTIVITY_H */
