/*
 * td_lent.c - memory that is lent to the kernel.
 *
 * In: a memory context and a size.  Out: an aligned block in it, which goes with the context.  Called
 * by whatever gives the kernel buffers or scratch.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "td_lent.h"

/* Widest vector register, and a cache line. */
#define LENT_ALIGNMENT 64

/* Bytes of a snapshot from which on giving back is worth its time. */
#define GIVE_BACK_FROM ((Size) 64 * 1024)

/* A session that reads again within so many milliseconds would only get its pages anew. */
#define GIVE_BACK_AFTER 1000

void *
tdpg_lent(MemoryContext context, Size size)
{
	return (void *) TYPEALIGN(LENT_ALIGNMENT, MemoryContextAllocHuge(context, size + LENT_ALIGNMENT));
}

void
tdpg_give_back(MemoryContext snapshot, TimestampTz *last)
{
#ifdef __GLIBC__
	TimestampTz now = GetCurrentTimestamp();

	/* The allocator would keep it for the next time, and that may be tomorrow. */
	if (MemoryContextMemAllocated(snapshot, true) >= GIVE_BACK_FROM &&
		TimestampDifferenceExceeds(*last, now, GIVE_BACK_AFTER))
		(void) malloc_trim(0);
	*last = now;
#endif
}
