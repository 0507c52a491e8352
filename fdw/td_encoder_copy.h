/*
 * td_encoder_copy.h - checked copies of encoder files, one for all sessions of a server.
 */
#ifndef TD_ENCODER_COPY_H
#define TD_ENCODER_COPY_H

#include <sys/stat.h>

#include "tinydancer.h"

/* A read-only mapping. */
typedef struct TdMapping
{
	void *bytes;
	size_t size;
} TdMapping;

/*
 * Map the content of the encoder file that is open as fd, and of which fstat() said st, and look at
 * it.  What is mapped is a copy that nobody writes into; where none can be made, the file itself.
 * *status is what the kernel says of it; with TD_OK *map is the caller's to unmap, else nothing is
 * mapped.  False when the system refuses, with errno.
 */
extern bool tdpg_encoder_map(const char *path, int fd, const struct stat *st, TdMapping *map,
							 td_encoder *view, td_status *status);

extern void tdpg_encoder_unmap(TdMapping *map);

#endif /* TD_ENCODER_COPY_H */
