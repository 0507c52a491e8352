/*
 * td_error.h - a kernel status becomes a Postgres error, and help for misspelled names.
 */
#ifndef TD_ERROR_H
#define TD_ERROR_H

#include "tinydancer.h"

/* ERRCODE_... for a status of the kernel. */
extern int tdpg_errcode(td_status status);

/* Raise the error for a status about a text or a vector; never returns. */
extern _Noreturn void tdpg_error(td_status status);

/* Raise ERRCODE_INVALID_PARAMETER_VALUE for a vector that is not as long as the encoder's are. */
extern _Noreturn void tdpg_error_dimension(const char *encoder, int expected, int found);

/* Raise the error for bytes that are no model: what they are, as a subject, and what to do. */
extern _Noreturn void tdpg_error_model(td_status status, const char *which, const char *hint);

/* The candidate most like a name, or NULL when none is close; candidates[n]. */
extern const char *tdpg_closest(const char *name, const char *const *candidates, int n);

#endif /* TD_ERROR_H */
