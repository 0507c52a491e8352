/*
 * td_lent.h - memory that is lent to the kernel.
 */
#ifndef TD_LENT_H
#define TD_LENT_H

#include "datatype/timestamp.h"

/* At least size bytes in the context, aligned as the kernel wants scratch and vectors to be. */
extern void *tdpg_lent(MemoryContext context, Size size);

/*
 * Give the operating system what was freed on the way to a snapshot, if that is large and the last one
 * of its kind was read at *last, a while ago.  *last becomes now; it begins as 0.
 */
extern void tdpg_give_back(MemoryContext snapshot, TimestampTz *last);

#endif /* TD_LENT_H */
