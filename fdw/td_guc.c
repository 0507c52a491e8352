/*
 * td_guc.c - the settings tinydancer.*.
 *
 * Defined once at load; read by td_model_cache.c and td_route.c.
 */
#include "postgres.h"

#include <float.h>

#include "td_guc.h"
#include "utils/guc.h"

char *tdpg_encoder_dir = NULL;
double tdpg_cost_scale = 0.001;
double tdpg_latency_scale = 1000.0;

void
tdpg_guc_init(void)
{
	/* A path that the server opens: nobody but a superuser may name it. */
	DefineCustomStringVariable("tinydancer.encoder_dir",
							   "Directory that holds the encoder files.",
							   "Empty means the directory tinydancer in the server's share "
							   "directory, or in the one that was installed with the module.",
							   &tdpg_encoder_dir, "", PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("tinydancer.cost_scale",
							 "Cost in USD at which the utility of cost is one half.",
							 "Cost utility is 1 / (1 + cost / scale).", &tdpg_cost_scale, 0.001,
							 1e-9, 1e9, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("tinydancer.latency_scale",
							 "Latency in ms at which the utility of latency is one half.",
							 "Latency utility is 1 / (1 + latency / scale).", &tdpg_latency_scale,
							 1000.0, 1e-6, 1e12, PGC_USERSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("tinydancer");
}
