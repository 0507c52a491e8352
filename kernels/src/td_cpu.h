/*
 * td_cpu.h - whether this processor has a feature and the operating system saves what it needs.
 *
 * Used by td_cpu.c and td_matvec.c, with the feature's name in capitals as <cpuid.h> has it and as
 * __builtin_cpu_supports() does.
 *
 * The C library has asked the processor when the program started.  Asking again takes some twenty
 * CPUID instructions, which a virtual machine makes slow (4 us each), at the first call of each
 * session: the compiler's run-time library does it at load of whatever uses the built-in function.
 */
#ifndef TD_CPU_H
#define TD_CPU_H

#include <stdint.h>

#if defined(__x86_64__) && defined(__GLIBC__)
#if __GLIBC_PREREQ(2, 34)
#include <sys/platform/x86.h>

/* As x86_cpu_active() of the C library, whose shift of an int by 31 is undefined. */
static inline int
td_cpu_active(unsigned index)
{
	const struct cpuid_feature *leaf = __x86_get_cpuid_feature_leaf(index / 128);

	return (leaf->active_array[index / 32 % 4] >> (index % 32) & 1u) != 0;
}

#define TD_CPU_HAS(feature, name) td_cpu_active(x86_cpu_##feature)
#endif
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(TD_CPU_HAS)
#define TD_CPU_HAS(feature, name) __builtin_cpu_supports(name)
#endif

#endif /* TD_CPU_H */
