/*
 * td_route_read.h - the rows of the tables of semantic routes as C structs; used by td_route_set.c
 * alone.  Everything is allocated in the current memory context.
 */
#ifndef TD_ROUTE_READ_H
#define TD_ROUTE_READ_H

#include "td_datum.h"
#include "td_route_set.h"
#include "utils/snapshot.h"

/* A row of tinydancer.route. */
typedef struct TdRouteRow
{
	TdRouteInfo info;
	TdText description; /* data NULL: none */
	int32 priority;
	float threshold; /* -INFINITY: none */
} TdRouteRow;

/* A row of tinydancer.route_utterance. */
typedef struct TdUtteranceRow
{
	int position;
	bool negative;
	TdText text;		  /* empty: a vector that the caller passed */
	const int8_t *vector; /* [dim], td_vec_quantise(); NULL: none of this encoder */
	float scale;		  /* of the vector */
} TdUtteranceRow;

/* A row of tinydancer.route_scorer. */
typedef struct TdScorerRow
{
	uint32 scorer;
	double mu;
	double s;
	uint64 fingerprint;
	const char *weights; /* NULL: none */
	size_t weights_size;
} TdScorerRow;

/* The active routes, sorted by name in byte order. */
extern TdRouteRow *tdpg_read_routes(Snapshot snapshot, int *n_routes);

/*
 * In the order route, positive before negative, position: those of route i begin at (*first)[i] and
 * end before (*first)[i + 1].  Rows of other routes are left out.
 */
extern TdUtteranceRow *tdpg_read_utterances(Snapshot snapshot, const TdRouteRow *routes,
											int n_routes, const char *encoder_id, int dim,
											uint32 **first);

/* The row of that encoder; false when routes were never tuned with it. */
extern bool tdpg_read_scorer(Snapshot snapshot, const char *encoder_id, TdScorerRow *row);

#endif /* TD_ROUTE_READ_H */
