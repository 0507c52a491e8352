/*
 * td_fdw_matches.c - the foreign table semantic_matches: the routes that each request matches.
 *
 * In: the inputs of ruvector_semantic_route().  Out: its rows, in its order, with their rank.  Reached
 * through tdpg_semantic_matches by planning and scanning.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "td_fdw.h"
#include "td_match.h"

/* The outputs are those of td_match.h and the rank. */
#define RANK TD_N_MATCH_OUTPUTS
#define N_OUTPUTS (TD_N_MATCH_OUTPUTS + 1)

StaticAssertDecl(TD_MATCH_QUERY == TD_REQUEST, "the request comes first");
StaticAssertDecl((int) TD_N_MATCH_INPUTS <= (int) TD_MAX_INPUTS, "TdInputs has room for them");

static const TdColumnKind inputs[TD_N_MATCH_INPUTS] = {
	[TD_MATCH_QUERY] = {"request", TEXTOID},
	[TD_MATCH_TOP_K] = {"top_k", INT4OID, CppAsString2(TD_MATCH_DEFAULT_TOP_K), .is_option = true},
	[TD_MATCH_USER_TIER] = {"user_tier", TEXTOID, .is_option = true},
	/* No option: what a text means as a time depends on the session. */
	[TD_MATCH_AT] = {"at", TIMESTAMPTZOID},
	[TD_MATCH_EMBEDDING] = {"embedding", FLOAT4ARRAYOID},
};

/* Routes in a near-tie are ordered by their priority, so that similarity is no order of the rows. */
static const TdColumnKind outputs[N_OUTPUTS] = {
	[TD_MATCH_ROUTE_NAME] = {"route_name", TEXTOID},
	[TD_MATCH_SIMILARITY] = {"similarity", FLOAT8OID},
	[TD_MATCH_TARGET_AGENT] = {"target_agent", TEXTOID},
	[TD_MATCH_CONFIDENCE] = {"confidence", FLOAT8OID},
	[RANK] = {"rank", INT4OID, .order = TD_ASCENDING},
};

typedef struct Matches
{
	TdAnswers base;
	TdMatcher *matcher;
	size_t position; /* of the next row */
	size_t n;		 /* rows of the request */
} Matches;

static void
check_inputs(const TdInputs *inputs)
{
	tdpg_matcher_check(inputs->values);
}

static double
rows_of_matches(void)
{
	return TD_MATCH_DEFAULT_TOP_K;
}

static TdAnswers *
begin_matches(MemoryContext context, const bool *wanted)
{
	Matches *matches = MemoryContextAllocZero(context, sizeof(Matches));

	matches->base.wanted = wanted;
	matches->matcher = tdpg_matcher_create(context);
	return &matches->base;
}

static void
ask_matches(TdAnswers *answers, const TdInputs *inputs)
{
	Matches *matches = (Matches *) answers;

	matches->position = 0;
	matches->n = tdpg_matcher_match(matches->matcher, inputs->values);
	answers->n_requests++;
	answers->n_scored += matches->matcher->set->view.n_routes;
}

static bool
next_match(TdAnswers *answers, Datum *values, bool *nulls)
{
	Matches *matches = (Matches *) answers;

	if (matches->position == matches->n)
		return false;
	tdpg_matcher_outputs(matches->matcher, matches->matcher->index[matches->position], values, nulls);
	matches->position++;
	values[RANK] = Int32GetDatum((int32) matches->position);
	nulls[RANK] = false;
	return true;
}

const TdTableKind tdpg_semantic_matches = {
	.name = "semantic_matches",
	.n_inputs = TD_N_MATCH_INPUTS,
	.inputs = inputs,
	.embedding = TD_MATCH_EMBEDDING,
	.objective = -1,
	.most_rows = TD_MATCH_TOP_K,
	.n_outputs = N_OUTPUTS,
	.outputs = outputs,
	.key = TD_MATCH_ROUTE_NAME,
	.keys = "route",
	.rank = RANK,
	.task = -1,
	.check = check_inputs,
	.rows = rows_of_matches,
	.begin = begin_matches,
	.ask = ask_matches,
	.next = next_match,
	.requests_label = "Requests Matched",
	.scored_label = "Routes Scored",
};
