/*
 * td_active_encoder.h - the encoder that a database uses, as its settings say.
 */
#ifndef TD_ACTIVE_ENCODER_H
#define TD_ACTIVE_ENCODER_H

#include "td_model_cache.h"

/* The rows of tinydancer.setting about the encoder, written with the first stored vector. */
typedef struct TdSettings
{
	char *encoder; /* id; NULL: not pinned yet */
	uint64 checksum;
	int dim;
	double fit_mu;
	double fit_s;
} TdSettings;

typedef struct TdActiveEncoder
{
	char *id;
	TdEncoderFile *file; /* NULL when it cannot be had: see fault */
	TdEncoderFault fault;
	TdEncoderFile *counter; /* without a file: another's word pieces, to count those of a text */
	int dim;				/* from the file, or where there is none from the settings */
	double fit_mu;
	double fit_s;
} TdActiveEncoder;

/*
 * The encoder that the settings name, or the default one; lives in the context, and so does its pin
 * on the file.  Raises when there is neither a file nor a setting to say what the vectors are.
 */
extern TdActiveEncoder *tdpg_active_encoder_open(const TdSettings *settings,
												 MemoryContext context);

/* Whether callers pass every vector. */
extern bool tdpg_active_encoder_is_external(const TdActiveEncoder *active);

/* Whose word pieces a text is counted in: its own, else the shipped encoder's, else NULL. */
extern const td_encoder *tdpg_active_encoder_counter(const TdActiveEncoder *active);

/* Its file, to embed texts with; raises the fault when it cannot be had. */
extern const td_encoder *tdpg_active_encoder_view(const TdActiveEncoder *active);

#endif /* TD_ACTIVE_ENCODER_H */
