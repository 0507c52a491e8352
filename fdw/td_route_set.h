/*
 * td_route_set.h - a read-only snapshot of the semantic routes, packed for the kernel.
 *
 * It is apart from the registry of agents: statements that only route to agents do not pay for it,
 * and a changed price does not read a thousand utterances again.
 */
#ifndef TD_ROUTE_SET_H
#define TD_ROUTE_SET_H

#include "td_active_encoder.h"
#include "tinydancer.h"

/* What a route asks of a request beside its text; names are in the database encoding. */
typedef struct TdRouteInfo
{
	char *name;
	char *target_agent;	/* NULL: none */
	int64 time_start;	/* us after midnight, -1: none */
	int64 time_end;
	char **user_tiers; /* [n_user_tiers] */
	int n_user_tiers;  /* 0: anybody */
	int64 rate_limit;  /* decisions a minute, -1: none */
} TdRouteInfo;

typedef struct TdRouteSet
{
	MemoryContext context;
	int pins;
	uint64 generation; /* of the tables, when this was read */
	TdActiveEncoder *encoder;
	td_routes view;
	TdRouteInfo *infos; /* [n_routes], in byte order of their names */
	bool has_conditions; /* a route has a time window, tiers or a rate limit */
} TdRouteSet;

/*
 * The current routes, pinned until owner is reset or deleted.  Reads them again when another session
 * has committed a change or this one has made one.  Only active routes are there.
 */
extern TdRouteSet *tdpg_route_set_acquire(MemoryContext owner);

#endif /* TD_ROUTE_SET_H */
