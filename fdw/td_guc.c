/*
 * td_guc.c - the settings tinydancer.*.
 *
 * Defined once at load; read by td_model_cache.c and td_route.c.
 */
#include "postgres.h"

#include <float.h>

#include "td_guc.h"
#include "tinydancer.h"
#include "utils/guc.h"

/* Above every td_level. */
#define LEVEL_AUTO TD_N_LEVELS

char *tdpg_encoder_dir = NULL;
uint64 tdpg_encoder_dir_changes = 0;
double tdpg_cost_scale = 0.001;
double tdpg_latency_scale = 1000.0;

static int kernel_level = LEVEL_AUTO;

static const struct config_enum_entry levels[] = {{"auto", LEVEL_AUTO, false},
												  {"portable", TD_LEVEL_PORTABLE, false},
												  {"sse2", TD_LEVEL_SSE2, false},
												  {"avx2", TD_LEVEL_AVX2, false},
												  {"avx512_vnni", TD_LEVEL_AVX512_VNNI, false},
												  {NULL, 0, false}};

/* Code for another processor would end the session. */
static bool
check_kernel_level(int *value, void **extra, GucSource source)
{
	if (*value == LEVEL_AUTO || *value <= (int) td_level_best())
		return true;
	GUC_check_errdetail("The greatest that it can run is %s.",
						td_level_name(td_level_best()));
	return false;
}

static void
encoder_dir_is_set(const char *value, void *extra)
{
	tdpg_encoder_dir_changes++;
}

uint32
tdpg_kernel_level(void)
{
	return kernel_level == LEVEL_AUTO ? (uint32) td_level_best() : (uint32) kernel_level;
}

void
tdpg_guc_init(void)
{
	/* A path that the server opens: nobody but a superuser may name it. */
	DefineCustomStringVariable("tinydancer.encoder_dir",
							   "Directory that holds the encoder files.",
							   "Empty means the directory tinydancer in the server's share "
							   "directory, or in the one that was installed with the module.",
							   &tdpg_encoder_dir, "", PGC_SUSET, 0, NULL, encoder_dir_is_set, NULL);
	DefineCustomRealVariable("tinydancer.cost_scale",
							 "Cost in USD at which the utility of cost is one half.",
							 "Cost utility is 1 / (1 + cost / scale).", &tdpg_cost_scale, 0.001,
							 1e-9, 1e9, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("tinydancer.latency_scale",
							 "Latency in ms at which the utility of latency is one half.",
							 "Latency utility is 1 / (1 + latency / scale).", &tdpg_latency_scale,
							 1000.0, 1e-6, 1e12, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("tinydancer.kernel_level",
							 "Set of processor instructions that encoders compute with.",
							 "All give the same bits; auto takes the fastest that the processor "
							 "has, and the others are for tests.",
							 &kernel_level, LEVEL_AUTO, levels, PGC_SUSET, 0, check_kernel_level,
							 NULL, NULL);
	MarkGUCPrefixReserved("tinydancer");
}
