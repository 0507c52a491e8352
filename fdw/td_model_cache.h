/*
 * td_model_cache.h - encoder files, mapped read-only and shared between backends.
 */
#ifndef TD_MODEL_CACHE_H
#define TD_MODEL_CACHE_H

#include "tinydancer.h"

/* A mapped encoder; stays mapped until its last pin is gone. */
typedef struct TdEncoderFile TdEncoderFile;

/* Why an encoder cannot be had, for an error that is raised only where text must be embedded. */
typedef struct TdEncoderFault
{
	int sqlstate;
	char message[256];
	char detail[1536];
	char hint[512];
} TdEncoderFault;

/* The id that stands for vectors which callers pass: there is no file, and no text is embedded. */
#define TD_EXTERNAL_ENCODER "external"

/* Find out where encoder files may lie; once per backend. */
extern void tdpg_model_cache_init(void);

/* The id that a name such as 'static' stands for; other names are ids. */
extern const char *tdpg_encoder_id(const char *name);

/* The id of the encoder a database without a setting uses. */
extern const char *tdpg_encoder_default_id(void);

/*
 * Map the encoder with this id and pin it.  checksum is the content that the database has pinned
 * under the id, 0 when none.  NULL and *fault when it cannot be had.
 */
extern TdEncoderFile *tdpg_encoder_open(const char *id, uint64 checksum, TdEncoderFault *fault);

/*
 * Whether the file on disk is still the one that was mapped (or, with NULL, is still missing), as of
 * the start of the statement or at most a fraction of a millisecond before.
 */
extern bool tdpg_encoder_is_current(TdEncoderFile *file, const char *id);

/* The encoder in it, at the level that the settings name. */
extern const td_encoder *tdpg_encoder_view(TdEncoderFile *file);
extern void tdpg_encoder_unpin(TdEncoderFile *file);

/* Raise a fault; never returns. */
extern _Noreturn void tdpg_encoder_raise(const TdEncoderFault *fault);

#endif /* TD_MODEL_CACHE_H */
