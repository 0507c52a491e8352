/*
 * td_datum.h - datums to C values and back, with the checks that SQL input needs.
 */
#ifndef TD_DATUM_H
#define TD_DATUM_H

#include "fmgr.h"
#include "td_active_encoder.h"

/* UTF-8 bytes that live in the current memory context or in the datum; not NUL-terminated. */
typedef struct TdText
{
	const char *data;
	size_t len;
} TdText;

/* A text datum as UTF-8, detoasted once and converted where the database has another encoding. */
extern TdText tdpg_text(Datum value);

/* A string of the database encoding as UTF-8. */
extern TdText tdpg_utf8(const char *string, size_t len);

/* UTF-8 bytes as a text datum of the database encoding. */
extern Datum tdpg_text_datum(const char *utf8, size_t len);

/*
 * A real[] datum as floats: one dimension, no NULL, n elements.  The result points into the
 * detoasted array.
 */
extern const float *tdpg_vector(Datum value, int *n);

/* A unit-length copy of a vector as long as the encoder's are, into out[encoder->dim]. */
extern void tdpg_unit_vector(Datum value, const TdActiveEncoder *encoder, float *out);

/* float[n] as a real[] datum. */
extern Datum tdpg_vector_datum(const float *values, int n);

/* The elements of a text[] without NULLs; what names the argument in errors. */
extern TdText *tdpg_text_array(Datum value, const char *what, int *n);

/* UTF-8 bytes folded for comparison without case. */
extern TdText tdpg_fold(TdText text);

/* The words of a capability: "code-execution" is compared and embedded as "code execution". */
extern TdText tdpg_words_of(TdText text);

#endif /* TD_DATUM_H */
