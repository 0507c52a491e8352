/*
 * td_team_text.c - the words about a team: parts of a request, the course of work, names of roles.
 *
 * In: a request and its vectors, names of capabilities.  Out: how much each capability is asked
 * for, and when; what to call a member.  Called by both shells before and after td_team_choose().
 */
#include <string.h>

#include "td_math.h"
#include "td_matvec.h"

/* ---------------------------------------------------------------- parts of a request */

static int
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static int
equals(const char *text, size_t len, const char *word)
{
	size_t i;

	if (strlen(word) != len)
		return 0;
	for (i = 0; i < len; i++)
	{
		char c = text[i] >= 'A' && text[i] <= 'Z' ? (char) (text[i] - 'A' + 'a') : text[i];

		if (c != word[i])
			return 0;
	}
	return 1;
}

static int
ends_task(char c)
{
	return c == ',' || c == ';' || c == ':' || c == '.' || c == '!' || c == '?';
}

/* The words of a part that is being read. */
typedef struct part_reader
{
	td_string *parts;
	uint32_t n;
	const char *begin;
	const char *end; /* of its last word */
	size_t words;
} part_reader;

static void
end_part(part_reader *r)
{
	if (r->words >= 2 && r->n < TD_PARTS_MAX)
	{
		r->parts[r->n].data = r->begin;
		r->parts[r->n++].len = (size_t) (r->end - r->begin);
	}
	r->words = 0;
}

uint32_t
td_team_parts(const char *text, size_t len, td_string *parts)
{
	part_reader r = {parts, 0, text, text, 0};
	size_t at = 0;

	while (at < len && r.n < TD_PARTS_MAX)
	{
		size_t first;

		while (at < len && is_blank(text[at]))
		{
			if (text[at++] == '\n')
				end_part(&r);
		}
		first = at;
		while (at < len && !is_blank(text[at]))
			at++;
		if (at == first)
			break;
		if (equals(text + first, at - first, "and") || equals(text + first, at - first, "then"))
		{
			end_part(&r);
			continue;
		}
		if (r.words++ == 0)
			r.begin = text + first;
		r.end = text + at;
		if (ends_task(text[at - 1]))
			end_part(&r);
	}
	end_part(&r);
	/* One part that is all of the request says nothing new. */
	if (r.n == 1 && parts[0].len == len)
		return 0;
	return r.n;
}

/* ---------------------------------------------------------------- the course of work */

/* How the words begin that tell what kind of work a capability is, stage by stage. */
static const struct
{
	const char *stem;
	double stage; /* of the course of work, [0, 1] */
} stages[] = {
	/* understand */
	{"analy", 0.0},
	{"architect", 0.0},
	{"classif", 0.0},
	{"detect", 0.0},
	{"extract", 0.0},
	{"intent", 0.0},
	{"plan", 0.0},
	{"reason", 0.0},
	{"recogni", 0.0},
	{"requirement", 0.0},
	{"research", 0.0},
	{"retrie", 0.0},
	{"search", 0.0},
	{"strateg", 0.0},
	{"triage", 0.0},
	{"understand", 0.0},
	/* run; what is in no list is making, between the two */
	{"automat", 0.5},
	{"deploy", 0.5},
	{"execu", 0.5},
	{"integra", 0.5},
	{"operat", 0.5},
	{"run", 0.5},
	/* check */
	{"audit", 0.75},
	{"check", 0.75},
	{"debug", 0.75},
	{"edit", 0.75},
	{"moderat", 0.75},
	{"proof", 0.75},
	{"review", 0.75},
	{"test", 0.75},
	{"validat", 0.75},
	{"verif", 0.75},
	/* finish */
	{"fast", 1.0},
	{"format", 1.0},
	{"notif", 1.0},
	{"present", 1.0},
	{"publish", 1.0},
	{"quick", 1.0},
	{"reply", 1.0},
	{"report", 1.0},
	{"respon", 1.0},
	{"simple", 1.0},
	{"summa", 1.0},
};
#define MAKE_STAGE 0.25

static int
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (unsigned char) c >= 0x80;
}

/* Of several words the last one that tells counts: "code-review" is a review. */
static double
stage_of(td_string name)
{
	double stage = MAKE_STAGE;
	size_t at;
	size_t i;

	for (at = 0; at < name.len; at++)
	{
		if (at > 0 && is_letter(name.data[at - 1]))
			continue;
		for (i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
		{
			size_t size = strlen(stages[i].stem);

			if (size <= name.len - at && memcmp(name.data + at, stages[i].stem, size) == 0)
				stage = stages[i].stage;
		}
	}
	return stage;
}

/* ---------------------------------------------------------------- what is asked for */

static double
fit_of(float similarity, double mu, double s)
{
	return 1.0 / (1.0 + td_exp(-((double) similarity - mu) / s));
}

/* Raise each capability's similarity to that with one query; position: of a part, below 0: none. */
static void
match(const td_registry *registry, uint32_t n_capabilities, const uint32_t *phrase,
	  const float *vector, double position, double mu, double s, td_relevance *out, void *scratch)
{
	td_query query = {td_code_of(registry->level), {NULL, NULL, 0, 0.0f}};
	uint32_t i;

	query.code->make_operand(vector, registry->dim, scratch, &query.operand);
	for (i = 0; i < n_capabilities; i++)
	{
		float cosine;
		double fit;

		if (phrase[i] == TD_NONE)
			continue;
		query.code->rows_i8(registry->phrase_rows + (size_t) phrase[i] * registry->dim,
							registry->phrase_scales + phrase[i], 1, registry->dim, &query.operand,
							&cosine);
		cosine = cosine > 1.0f ? 1.0f : cosine < -1.0f ? -1.0f : cosine;
		fit = fit_of(cosine, mu, s);
		if (position >= 0.0 && fit > out[i].fit)
		{
			out[i].position = position;
			out[i].fit = fit;
		}
		if (cosine > out[i].similarity)
			out[i].similarity = cosine;
	}
}

td_status
td_team_relevance(const td_registry *registry, double mu, double s, uint32_t n_capabilities,
				  const uint32_t *phrase, const td_string *name, const float *queries,
				  uint32_t n_parts, td_relevance *out, void *scratch, size_t scratch_size)
{
	uint32_t i;

	if (scratch_size < td_score_scratch_size(registry))
		return TD_ERR_BUFFER;
	if (registry->dim == 0 || registry->dim > TD_MATVEC_MAX || n_parts > TD_PARTS_MAX || !(s > 0.0))
		return TD_ERR_SHAPE;
	if (td_vec_check(queries, (size_t) registry->dim * (1 + n_parts)) != TD_OK)
		return TD_ERR_NONFINITE;

	for (i = 0; i < n_capabilities; i++)
	{
		out[i].similarity = -1.0f;
		out[i].fit = 0.0;
		out[i].position = 0.0;
	}
	match(registry, n_capabilities, phrase, queries, -1.0, mu, s, out, scratch);
	for (i = 0; i < n_parts; i++)
		match(registry, n_capabilities, phrase, queries + (size_t) (i + 1) * registry->dim,
			  n_parts > 1 ? (i + 0.5) / n_parts : -1.0, mu, s, out, scratch);

	for (i = 0; i < n_capabilities; i++)
	{
		double clear = out[i].fit; /* how clearly a part asks for it */

		out[i].position = clear * out[i].position + (1.0 - clear) * stage_of(name[i]);
		if (phrase[i] == TD_NONE)
			out[i].similarity = 0.0f;
		out[i].fit = phrase[i] == TD_NONE ? 0.0 : fit_of(out[i].similarity, mu, s);
	}
	return TD_OK;
}
