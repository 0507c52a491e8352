/*
 * td_lent.h - memory that is lent to the kernel.
 */
#ifndef TD_LENT_H
#define TD_LENT_H

/* At least size bytes in the context, aligned as the kernel wants scratch and vectors to be. */
extern void *tdpg_lent(MemoryContext context, Size size);

#endif /* TD_LENT_H */
