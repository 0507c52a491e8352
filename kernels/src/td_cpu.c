/*
 * td_cpu.c - which set of code this processor can run.
 *
 * Nothing in, a level out.  Called when an encoder is opened, and by both shells to check a level
 * that a user asks for.
 */
#include "td_cpu.h"
#include "tinydancer.h"

td_level
td_level_best(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
	if (TD_CPU_HAS(AVX512F, "avx512f") && TD_CPU_HAS(AVX512BW, "avx512bw") &&
		TD_CPU_HAS(AVX512DQ, "avx512dq") && TD_CPU_HAS(AVX512VL, "avx512vl") &&
		TD_CPU_HAS(AVX512_VNNI, "avx512vnni"))
		return TD_LEVEL_AVX512_VNNI;
	if (TD_CPU_HAS(AVX2, "avx2"))
		return TD_LEVEL_AVX2;
	return TD_LEVEL_SSE2;
#else
	return TD_LEVEL_PORTABLE;
#endif
}

const char *
td_level_name(td_level level)
{
	static const char *const names[TD_N_LEVELS] = {"portable", "sse2", "avx2", "avx512_vnni"};

	return (unsigned) level < TD_N_LEVELS ? names[level] : "unknown";
}
