/*
 * td_reason.c - a decision in words.
 *
 * In: a scored candidate and the limits it met.  Out: one line of UTF-8 that a person can read.
 * Called by both shells, so that SQL and Python give the same sentence.  Numbers are written here
 * rather than by printf: no locale, no libc version can change a character.
 */
#include <math.h>
#include <string.h>

#include "tinydancer.h"

#define PHRASE_CHARS 80
#define SIGNIFICANT_DIGITS 4

typedef struct writer
{
	char *out;
	size_t capacity;
	size_t used;
} writer;

static void
put(writer *w, const char *text, size_t len)
{
	size_t room = w->capacity - w->used;

	if (len > room)
	{
		/* Cut between characters: step back over continuation bytes. */
		len = room;
		while (len > 0 && ((unsigned char) text[len] & 0xC0) == 0x80)
			len--;
	}
	memcpy(w->out + w->used, text, len);
	w->used += len;
}

static void
put_text(writer *w, const char *text)
{
	put(w, text, strlen(text));
}

/* An exact count, with commas. */
static void
put_count(writer *w, uint64_t n)
{
	char digits[32];
	size_t at = sizeof(digits);
	int written = 0;

	do
	{
		if (written > 0 && written % 3 == 0)
			digits[--at] = ',';
		digits[--at] = (char) ('0' + n % 10);
		n /= 10;
		written++;
	} while (n > 0);
	put(w, digits + at, sizeof(digits) - at);
}

/* Four significant digits without an exponent, trailing zeros dropped: 0.0021, 0.62, 1250. */
static void
put_number(writer *w, double value)
{
	char digits[40];
	size_t at = sizeof(digits);
	int decimals = SIGNIFICANT_DIGITS - 1;
	double scaled;
	double bound;
	uint64_t whole;
	int i;

	if (isnan(value))
	{
		put_text(w, "unknown");
		return;
	}
	if (value < 0.0)
	{
		put_text(w, "-");
		value = -value;
	}
	if (value > 1e15)
	{
		put_text(w, isinf(value) ? "Infinity" : "over 1000000000000000");
		return;
	}
	for (bound = 10.0; value >= bound && decimals > 0; bound *= 10.0)
		decimals--;
	if (value > 0.0)
	{
		for (bound = 1.0; value < bound && decimals < 12; bound /= 10.0)
			decimals++;
	}
	scaled = value;
	for (i = 0; i < decimals; i++)
		scaled *= 10.0;
	whole = (uint64_t) (scaled + 0.5);
	while (decimals > 0 && whole % 10 == 0)
	{
		whole /= 10;
		decimals--;
	}
	for (i = 0; i < decimals; i++)
	{
		digits[--at] = (char) ('0' + whole % 10);
		whole /= 10;
	}
	if (decimals > 0)
		digits[--at] = '.';
	do
	{
		digits[--at] = (char) ('0' + whole % 10);
		whole /= 10;
	} while (whole > 0);
	put(w, digits + at, sizeof(digits) - at);
}

static void
put_phrase(writer *w, const char *phrase, size_t len)
{
	size_t cut = 0;
	size_t chars = 0;

	while (cut < len)
	{
		if (((unsigned char) phrase[cut] & 0xC0) != 0x80 && chars++ == PHRASE_CHARS)
			break;
		cut++;
	}
	put_text(w, "\"");
	put(w, phrase, cut);
	put_text(w, cut < len ? "...\"" : "\"");
}

/* "cost 0.0093 USD is over max_cost 0.001 by 0.0083", or that the figure is not known. */
static void
put_excess(writer *w, const char *figure, const char *unit, double value, double limit,
		   unsigned which, int is_floor)
{
	put_text(w, figure);
	if (isnan(value))
		put_text(w, " is unknown, ");
	else
	{
		put_text(w, " ");
		put_number(w, value);
		put_text(w, unit);
		put_text(w, " is ");
	}
	put_text(w, isnan(value) ? "limit " : is_floor ? "under " : "over ");
	put_text(w, td_limit_name(which));
	put_text(w, " ");
	put_number(w, limit);
	if (!isnan(value))
	{
		put_text(w, " by ");
		put_number(w, is_floor ? limit - value : value - limit);
	}
}

static void
put_rejections(writer *w, const td_candidate *c, const td_agent *agent, const td_request *request)
{
	const char *between = "rejected: ";
	unsigned i;

	for (i = 0; i < TD_N_LIMITS; i++)
	{
		if ((c->rejected_by & (1u << i)) == 0)
			continue;
		put_text(w, between);
		between = "; ";
		switch (1 << i)
		{
			case TD_LIMIT_ACTIVE:
				put_text(w, "not active");
				break;
			case TD_LIMIT_POOL:
				put_text(w, "not in the pool");
				break;
			case TD_LIMIT_EXCLUDED:
				put_text(w, "named in excluded_agents");
				break;
			case TD_LIMIT_CAPABILITIES:
				put_text(w, "lacks ");
				put_count(w, c->missing);
				put_text(w, " of ");
				put_count(w, request->n_required);
				put_text(w, " required_capabilities");
				break;
			case TD_LIMIT_COST:
				put_excess(w, "estimated cost", " USD", c->cost, request->max_cost, i, 0);
				break;
			case TD_LIMIT_BUDGET:
				put_excess(w, "estimated cost", " USD", c->cost, request->budget_remaining, i, 0);
				break;
			case TD_LIMIT_LATENCY:
				put_excess(w, "latency", " ms", c->latency, request->max_latency_ms, i, 0);
				break;
			case TD_LIMIT_QUALITY:
				put_excess(w, "quality score", "", agent->quality_score, request->min_quality, i,
						   1);
				break;
			default:
				put_excess(w, "expected quality", "", c->expected_quality,
						   request->min_expected_quality, i, 1);
				break;
		}
	}
}

/* What an agent is close to. */
static void
put_match(writer *w, const td_candidate *c, const char *phrase, size_t phrase_len)
{
	if (phrase == NULL)
		put_text(w, "nothing is known of what it is good at");
	else
	{
		put_text(w, "closest to ");
		put_phrase(w, phrase, phrase_len);
		put_text(w, " (similarity ");
		put_number(w, c->similarity);
		put_text(w, ")");
	}
	put_text(w, "; ");
}

static void
put_figures(writer *w, const td_candidate *c)
{
	put_text(w, c->prediction == TD_PREDICTION_MODEL ? "predicted quality " : "expected quality ");
	put_number(w, c->expected_quality);
	if (c->prediction == TD_PREDICTION_OF_OTHERS)
		put_text(w, " (from the model's mean)");
	put_text(w, ", ");
	if (isnan(c->cost))
		put_text(w, "cost unknown");
	else
	{
		put_number(w, c->cost);
		put_text(w, " USD");
	}
	put_text(w, ", ");
	if (isnan(c->latency))
		put_text(w, "latency unknown");
	else
	{
		put_number(w, c->latency);
		put_text(w, " ms");
	}
	put_text(w, "; ");
}

/* What the encoder could not read. */
static void
put_info(writer *w, const td_embed_info *info)
{
	if (info != NULL && info->n_known == 0)
		put_text(w, "; no word of the request is known to the encoder");
	if (info != NULL && info->n_used < info->n_tokens)
	{
		put_text(w, "; request truncated: ");
		put_count(w, info->n_used);
		put_text(w, " of ");
		put_count(w, info->n_tokens);
		put_text(w, " word pieces read");
	}
}

static void
put_rank(writer *w, const td_candidate *c, const char *objective, uint32_t rank,
		 uint32_t n_eligible)
{
	put_figures(w, c);
	if (rank == 1 && n_eligible == 1)
		put_text(w, "the only eligible agent");
	else
	{
		if (rank == 1)
			put_text(w, "best");
		else
		{
			put_text(w, "rank ");
			put_count(w, rank);
		}
		put_text(w, " of ");
		put_count(w, n_eligible);
		put_text(w, " eligible agents");
	}
	put_text(w, " for ");
	put_text(w, objective);
}

size_t
td_reason(const td_candidate *candidate, const td_agent *agent, const td_request *request,
		  const char *phrase, size_t phrase_len, const char *objective, uint32_t rank,
		  uint32_t n_eligible, const td_embed_info *info, char *out, size_t capacity)
{
	writer w = {out, capacity, 0};

	if (candidate->rejected_by != 0)
		put_rejections(&w, candidate, agent, request);
	else
	{
		put_match(&w, candidate, phrase, phrase_len);
		put_rank(&w, candidate, objective, rank, n_eligible);
	}
	put_info(&w, info);
	return w.used;
}

/* ---------------------------------------------------------------- several agents, many requests */

/* "2 of 3" */
static void
put_place(writer *w, uint64_t place, uint64_t n)
{
	put_count(w, place);
	put_text(w, " of ");
	put_count(w, n);
}

size_t
td_team_role(const td_team *team, uint32_t member, const td_string *name, char *out,
			 size_t capacity)
{
	writer w = {out, capacity, 0};
	const td_member *m = &team->member[member];
	const char *between = "";
	uint32_t need;

	if (team->strategy != TD_PIPELINE)
	{
		put_text(&w, team->strategy == TD_PARALLEL ? "part " : "voter ");
		put_place(&w, member + 1, team->n_members);
	}
	else if (team->n_members == 1)
		put_text(&w, "only");
	else
		put_text(&w, member == 0 ? "first" : member + 1 == team->n_members ? "last" : "then");
	put_text(&w, ": ");
	for (need = 0; need < team->n_needs; need++)
	{
		if (m->needs >> need & 1)
		{
			put_text(&w, between);
			put(&w, name[team->need[need]].data, name[team->need[need]].len);
			between = ", ";
		}
	}
	if (m->needs == 0 && m->own == TD_NONE)
		put_text(&w, "general");
	else if (m->needs == 0)
		put(&w, name[m->own].data, name[m->own].len);
	if (m->n_shared > 1 && team->strategy == TD_PARALLEL)
	{
		put_text(&w, " (");
		put_place(&w, m->share, m->n_shared);
		put_text(&w, ")");
	}
	return w.used;
}

size_t
td_reason_member(const td_candidate *candidate, const td_team *team, uint32_t member,
				 const char *phrase, size_t phrase_len, const char *objective,
				 const td_embed_info *info, char *out, size_t capacity)
{
	static const char *const places[TD_N_STRATEGIES] = {"step ", "part ", "voter "};
	writer w = {out, capacity, 0};

	put_match(&w, candidate, phrase, phrase_len);
	put_figures(&w, candidate);
	put_text(&w, places[team->strategy]);
	put_place(&w, member + 1, team->n_members);
	put_text(&w, team->strategy == TD_ENSEMBLE ? " in an " : " in a ");
	put_text(&w, td_strategy_name(team->strategy));
	put_text(&w, " of ");
	put_number(&w, team->cost);
	put_text(&w, " USD and ");
	put_number(&w, team->latency_ms);
	put_text(&w, " ms, best for ");
	put_text(&w, objective);
	put_text(&w, " of the teams that ");
	put_count(&w, team->n_eligible);
	put_text(&w, team->n_eligible == 1 ? " eligible agent makes" : " eligible agents make");
	put_info(&w, info);
	return w.used;
}

size_t
td_reason_plan(const td_candidate *candidate, td_goal goal, const td_plan *plan, uint32_t n,
			   const char *phrase, size_t phrase_len, const td_embed_info *info, char *out,
			   size_t capacity)
{
	writer w = {out, capacity, 0};

	put_match(&w, candidate, phrase, phrase_len);
	put_figures(&w, candidate);
	if (n == 1)
		put_text(&w, "decided alone: ");
	else
	{
		put_text(&w, "decided with ");
		put_count(&w, n);
		put_text(&w, " requests: together ");
	}
	put_number(&w, plan->cost);
	put_text(&w, " USD at mean expected quality ");
	put_number(&w, plan->quality / n);
	if (goal == TD_LEAST_COST)
	{
		put_text(&w, ", the least cost for at least ");
		put_number(&w, plan->limit);
	}
	else
	{
		put_text(&w, ", the greatest within max_total_cost ");
		put_number(&w, plan->limit);
	}
	put_info(&w, info);
	return w.used;
}
