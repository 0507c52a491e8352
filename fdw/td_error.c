/*
 * td_error.c - the one place where a kernel status becomes an ereport.
 *
 * In: td_status.  Out: SQLSTATE, sentence, DETAIL and HINT.  Called by every file that calls the
 * kernel.  Errors about encoder files, which name the file, are in td_model_cache.c and take the
 * SQLSTATE from here.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "td_error.h"
#include "td_model_cache.h"

/* Farther than this is another word, not a misspelling. */
#define MAX_DISTANCE 4

int
tdpg_errcode(td_status status)
{
	switch (status)
	{
		case TD_ERR_DIMENSION:
		case TD_ERR_NONFINITE:
		case TD_ERR_EMPTY:
		case TD_ERR_SHAPE:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		case TD_ERR_UTF8:
			return ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
		case TD_ERR_VERSION:
			return ERRCODE_FEATURE_NOT_SUPPORTED;
		case TD_ERR_NOT_FILE:
		case TD_ERR_TRUNCATED:
		case TD_ERR_CHECKSUM:
		case TD_ERR_CORRUPT:
		case TD_ERR_KIND:
			return ERRCODE_DATA_CORRUPTED;
		default:
			return ERRCODE_INTERNAL_ERROR;
	}
}

void
tdpg_error(td_status status)
{
	switch (status)
	{
		case TD_ERR_EMPTY:
			ereport(ERROR, (errcode(tdpg_errcode(status)), errmsg("%s", td_status_text(status)),
							errdetail("The text holds nothing but white space and control "
									  "characters."),
							errhint("Pass a text with at least one visible character, or NULL "
									"for no decision.")));
			break;
		case TD_ERR_NONFINITE:
			ereport(ERROR, (errcode(tdpg_errcode(status)), errmsg("%s", td_status_text(status)),
							errdetail("Every element must be a finite number whose square can "
									  "be summed."),
							errhint("Check where the vector comes from, or pass a text and let "
									"the server embed it.")));
			break;
		case TD_ERR_UTF8:
			ereport(ERROR, (errcode(tdpg_errcode(status)), errmsg("%s", td_status_text(status)),
							errdetail("The encoder reads UTF-8, and a database in SQL_ASCII "
									  "does not check its texts."),
							errhint("Correct the text, or use a database with a declared "
									"encoding.")));
			break;
		default:
			elog(ERROR, "tinydancer kernel: %s", td_status_text(status));
	}
	pg_unreachable();
}

void
tdpg_error_dimension(const char *encoder, int expected, int found)
{
	ereport(ERROR, (errcode(tdpg_errcode(TD_ERR_DIMENSION)),
					errmsg("%s", td_status_text(TD_ERR_DIMENSION)),
					errdetail("Vectors of encoder \"%s\" have %d, the argument has %d.", encoder,
							  expected, found),
					strcmp(encoder, TD_EXTERNAL_ENCODER) == 0
						? errhint("Pass a vector of the length given to tinydancer.use_encoder().")
						: errhint("Embed the text with ruvector_embed(), or use the encoder that "
								  "made the vector.")));
	pg_unreachable();
}

void
tdpg_error_model(td_status status, const char *which, const char *hint)
{
	ereport(ERROR,
			(errcode(status == TD_ERR_SHAPE ? ERRCODE_DATA_CORRUPTED : tdpg_errcode(status)),
			 errmsg("%s", td_status_text(status)), errdetail("%s cannot be used as a model.", which),
			 errhint("%s", hint)));
	pg_unreachable();
}

const char *
tdpg_closest(const char *name, const char *const *candidates, int n)
{
	const char *closest = NULL;
	size_t len = strlen(name);
	int best = MAX_DISTANCE + 1;
	int i;

	/* varstr_levenshtein() refuses longer strings, and no name of ours is that long. */
	if (len == 0 || len > NAMEDATALEN)
		return NULL;
	for (i = 0; i < n; i++)
	{
		size_t other = strlen(candidates[i]);
		int distance;

		if (other > NAMEDATALEN)
			continue;
		distance = varstr_levenshtein_less_equal(name, len, candidates[i], other, 1, 1, 1, best,
												 true);
		if (distance < best && distance <= (int) len / 2)
		{
			best = distance;
			closest = candidates[i];
		}
	}
	return closest;
}

PG_FUNCTION_INFO_V1(tinydancer_closest);

/* tdpg_closest() for the functions written in SQL. */
Datum
tinydancer_closest(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum *elements;
	bool *nulls;
	const char **candidates;
	const char *closest;
	int n;
	int i;
	int found = 0;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &n);
	candidates = palloc(sizeof(char *) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		if (!nulls[i])
			candidates[found++] = TextDatumGetCString(elements[i]);
	}
	closest = tdpg_closest(name, candidates, found);
	if (closest == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(CStringGetTextDatum(closest));
}
