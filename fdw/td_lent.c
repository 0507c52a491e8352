/*
 * td_lent.c - memory that is lent to the kernel.
 *
 * In: a memory context and a size.  Out: an aligned block in it, which goes with the context.  Called
 * by whatever gives the kernel buffers or scratch.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "td_lent.h"

/* Widest vector register, and a cache line. */
#define LENT_ALIGNMENT 64

void *
tdpg_lent(MemoryContext context, Size size)
{
	return (void *) TYPEALIGN(LENT_ALIGNMENT, MemoryContextAllocHuge(context, size + LENT_ALIGNMENT));
}
