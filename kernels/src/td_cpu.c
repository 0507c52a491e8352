/*
 * td_cpu.c - which set of code this processor can run.
 *
 * Nothing in, a level out.  Called when an encoder is opened, and by both shells to check a level
 * that a user asks for.
 *
 * __builtin_cpu_supports() reads what the compiler's run-time library found out at load, by CPUID
 * and, for what the operating system must save, XGETBV; asking costs a few loads.
 */
#include "tinydancer.h"

td_level
td_level_best(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
		__builtin_cpu_supports("avx512vnni"))
		return TD_LEVEL_AVX512_VNNI;
	if (__builtin_cpu_supports("avx2"))
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
