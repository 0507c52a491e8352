/*
 * td_status.c - the sentence for each outcome.
 *
 * A status in, a string out.  Both shells use it as the primary message of an error and add detail
 * (the numbers) and hint (the remedy) of their own, so SQL and Python say the same.
 */
#include "tinydancer.h"

const char *
td_status_text(td_status status)
{
	switch (status)
	{
		case TD_OK:
			return "no error";
		case TD_ERR_BUFFER:
			return "buffer is too small";
		case TD_ERR_SHAPE:
			return "dimensions do not fit together";
		case TD_ERR_DIMENSION:
			return "embedding has the wrong number of dimensions";
		case TD_ERR_NONFINITE:
			return "vector contains NaN or infinity";
		case TD_ERR_EMPTY:
			return "request is empty";
		case TD_ERR_UTF8:
			return "text is not valid UTF-8";
		case TD_ERR_NOT_FILE:
			return "not a tinydancer file";
		case TD_ERR_VERSION:
			return "unsupported tinydancer file version";
		case TD_ERR_TRUNCATED:
			return "file is truncated";
		case TD_ERR_CHECKSUM:
			return "file is corrupt: checksum does not match";
		case TD_ERR_CORRUPT:
			return "file is corrupt";
		case TD_ERR_KIND:
			return "file is of the wrong kind";
	}

	/* Reached only by a number that is no td_status; a default above would hide a missing case. */
	return "unknown status";
}
