/*
 * td_score.c - agents, a request and an objective become a decision.
 *
 * In: the packed registry, the request's vector and limits, an objective.  Out: one td_candidate
 * per agent with every part of its score, or the best one alone.
 * Called by both shells for every decision.
 *
 * Agents are taken in blocks: their figures are gathered one by one, fits and scores are worked out
 * for a block at a time by the code of the level.
 */
#include <math.h>
#include <string.h>

#include "td_lanes.h"
#include "td_score_code.h"

/* How much of an agent's own quality counts where a model covers others but not it. */
#define PRIOR_SHARE 0.5

static const char *const limit_names[TD_N_LIMITS] = {
	"active",			"pool",			  "excluded_agents", "required_capabilities", "max_cost",
	"budget_remaining", "max_latency_ms", "min_quality",	 "min_expected_quality",
};

const char *
td_limit_name(unsigned i)
{
	return i < TD_N_LIMITS ? limit_names[i] : "";
}

static const td_score_code *
score_code_of(uint32_t level)
{
	switch (level)
	{
#if defined(__x86_64__) && defined(__GNUC__)
		case TD_LEVEL_AVX512_VNNI:
			return &td_score_avx512;
		case TD_LEVEL_AVX2:
			return &td_score_avx2;
#endif
		/* Plain C becomes SSE2 where there is nothing better. */
		default:
			return &td_score_portable;
	}
}

/* The operand of the request, and behind it what is kept of each agent. */
static size_t
operand_room(size_t dim)
{
	return (td_operand_size(dim) + 63) / 64 * 64;
}

size_t
td_score_scratch_size(const td_registry *registry)
{
	size_t agents = (registry->n_agents + (size_t) TD_SCORE_LANES - 1) / TD_SCORE_LANES;

	return operand_room(registry->dim) + agents * TD_SCORE_LANES * sizeof(float);
}

/* NaN where no figure is set: the price is unknown, which is not the same as free. */
static inline double
cost_of(const td_agent *agent, double input_tokens)
{
	double cost = 0.0;
	int known = 0;

	if (!isnan(agent->cost_per_1k_tokens))
	{
		cost += input_tokens * agent->cost_per_1k_tokens / 1000.0;
		known = 1;
	}
	if (!isnan(agent->cost_per_1k_output_tokens))
	{
		cost += agent->expected_output_tokens * agent->cost_per_1k_output_tokens / 1000.0;
		known = 1;
	}
	else if (!isnan(agent->cost_per_1k_tokens))
		cost += agent->expected_output_tokens * agent->cost_per_1k_tokens / 1000.0;
	if (!isnan(agent->cost_per_call))
	{
		cost += agent->cost_per_call;
		known = 1;
	}
	if (!isnan(agent->cost_per_second))
	{
		/* A price per second of an unknown duration is an unknown price. */
		if (isnan(agent->avg_latency_ms) && agent->cost_per_second > 0.0)
			return NAN;
		if (agent->cost_per_second > 0.0)
			cost += agent->cost_per_second * agent->avg_latency_ms / 1000.0;
		known = 1;
	}
	return known ? cost : NAN;
}

double
td_score_cost(const td_agent *agent, double input_tokens)
{
	return cost_of(agent, input_tokens);
}

/* Both lists are short and the agent's is sorted: a binary search would not be faster. */
static uint32_t
missing_capabilities(const td_registry *registry, const td_agent *agent, const td_request *request)
{
	const uint32_t *own = registry->capabilities + agent->first_capability;
	uint32_t missing = 0;
	size_t i;
	uint32_t j;

	for (i = 0; i < request->n_required; i++)
	{
		for (j = 0; j < agent->n_capabilities; j++)
		{
			if (own[j] == request->required[i])
				break;
		}
		if (j == agent->n_capabilities)
			missing++;
	}
	return missing;
}

static uint32_t
limits_broken(const td_agent *agent, const td_request *request, const td_candidate *c)
{
	uint32_t broken = 0;
	size_t i;

	if (!agent->active)
		broken |= TD_LIMIT_ACTIVE;
	if (request->has_pool && (request->pool == TD_NONE || agent->pool != request->pool))
		broken |= TD_LIMIT_POOL;
	for (i = 0; i < request->n_excluded; i++)
	{
		if (request->excluded[i] == c->agent)
			broken |= TD_LIMIT_EXCLUDED;
	}
	if (c->missing > 0)
		broken |= TD_LIMIT_CAPABILITIES;
	/* Written so that an unknown figure (NaN) breaks a limit that is set. */
	if (request->max_cost < INFINITY && !(c->cost <= request->max_cost))
		broken |= TD_LIMIT_COST;
	if (request->budget_remaining < INFINITY && !(c->cost <= request->budget_remaining))
		broken |= TD_LIMIT_BUDGET;
	if (request->max_latency_ms < INFINITY && !(c->latency <= request->max_latency_ms))
		broken |= TD_LIMIT_LATENCY;
	if (agent->quality_score < request->min_quality)
		broken |= TD_LIMIT_QUALITY;
	if (c->expected_quality < request->min_expected_quality)
		broken |= TD_LIMIT_EXPECTED_QUALITY;
	return broken;
}

/* Whether nothing but its state can reject an agent. */
static int
is_without_limits(const td_request *request)
{
	return !request->has_pool && request->n_excluded == 0 && request->n_required == 0 &&
		   !(request->max_cost < INFINITY) && !(request->budget_remaining < INFINITY) &&
		   !(request->max_latency_ms < INFINITY) && request->min_quality == -INFINITY &&
		   request->min_expected_quality == -INFINITY;
}

/* The greatest cosine between the quantised request and the agent's phrases; 0 without phrases. */
static inline float
match_phrases(const td_agent *agent, td_products *phrases, uint32_t *closest)
{
	uint32_t i = agent->first_phrase;
	const uint32_t end = i + agent->n_phrases;
	float similarity;

	*closest = TD_NONE;
	if (i == end)
		return 0.0f;
	*closest = i;
	similarity = td_product(phrases, i);
	while (++i < end)
	{
		float cosine = td_product(phrases, i);

		if (cosine > similarity)
		{
			*closest = i;
			similarity = cosine;
		}
	}
	/* Quantising can carry the product of equal vectors a little past 1. */
	similarity = similarity > 1.0f ? 1.0f : similarity;
	return similarity < -1.0f ? -1.0f : similarity;
}

/* A request in the middle of being scored. */
typedef struct scoring
{
	const td_registry *registry;
	const td_score_code *code;
	const td_request *request;
	double mu;
	double s;
	int without_limits;
	td_query query;
	td_products phrases;
	td_score_terms terms;
	float *similarity; /* [n_agents] in scratch */
} scoring;

/* Check what was passed, and quantise the request. */
static td_status
begin(scoring *w, const td_registry *registry, double mu, double s, const td_policy *policy,
	  const td_request *request, void *scratch, size_t scratch_size)
{
	if (scratch_size < td_score_scratch_size(registry))
		return TD_ERR_BUFFER;
	if (registry->dim == 0 || registry->dim > TD_MATVEC_MAX || !(s > 0.0) ||
		!(policy->cost_scale > 0.0) || !(policy->latency_scale > 0.0))
		return TD_ERR_SHAPE;
	w->registry = registry;
	w->code = score_code_of(registry->level);
	w->request = request;
	w->mu = mu;
	w->s = s;
	w->without_limits = is_without_limits(request);
	w->query.code = td_code_of(registry->level);
	w->terms.policy = *policy;
	w->terms.dearest = 0.0;
	w->terms.slowest = 0.0;
	w->terms.predicted = request->predicted != NULL;
	w->similarity = (float *) ((char *) scratch + operand_room(registry->dim));
	if (w->query.code->check(request->embedding, registry->dim) != TD_OK)
		return TD_ERR_NONFINITE;
	td_products_begin(&w->phrases, &w->query, registry->phrase_rows, registry->phrase_scales,
					  registry->n_phrases, registry->dim);
	if (request->products != NULL)
	{
		w->phrases.value = request->products;
		w->phrases.n = registry->n_phrases;
	}
	else
		w->query.code->make_operand(request->embedding, registry->dim, scratch, &w->query.operand);
	return TD_OK;
}

/* Agent i, whose fit is there, into its place of a block. */
static inline void
gather(const scoring *w, uint32_t i, td_score_block *block, uint32_t at)
{
	const td_agent *agent = &w->registry->agents[i];
	double quality = agent->quality_score * agent->success_rate;

	block->cost[at] = cost_of(agent, w->request->input_tokens);
	block->latency[at] = agent->avg_latency_ms;
	block->expected[at] = block->fit[at] * quality;
	block->quality[at] = quality;
	if (w->terms.predicted)
	{
		block->expected[at] = w->request->predicted[i];
		block->quality[at] = 1.0;
	}
}

/* Zeros behind the last of n numbers, up to where a whole register ends. */
static inline void
clear(float *x, size_t n)
{
	for (; n % TD_SCORE_LANES != 0; n++)
		x[n] = 0.0f;
}

static inline void
pad(td_score_block *block, uint32_t n)
{
	for (; n % TD_SCORE_LANES != 0; n++)
	{
		block->cost[n] = block->latency[n] = 0.0;
		block->quality[n] = block->expected[n] = 0.0;
	}
}

/* The limits that agent i breaks, and how many required capabilities it lacks. */
static inline uint32_t
judge(const scoring *w, uint32_t i, const td_score_block *block, uint32_t at, uint32_t *missing)
{
	const td_agent *agent = &w->registry->agents[i];
	td_candidate c;

	*missing = 0;
	if (w->without_limits)
		return agent->active ? 0 : TD_LIMIT_ACTIVE;
	*missing = missing_capabilities(w->registry, agent, w->request);
	c.agent = i;
	c.missing = *missing;
	c.cost = block->cost[at];
	c.latency = block->latency[at];
	c.expected_quality = block->expected[at];
	return limits_broken(agent, w->request, &c);
}

/* What agent i is, but for its utilities and its score. */
static void
set_candidate(const scoring *w, uint32_t i, const td_score_block *block, uint32_t at,
			  td_candidate *c)
{
	const td_agent *agent = &w->registry->agents[i];

	c->agent = i;
	c->prediction = TD_PREDICTION_NONE;
	if (w->terms.predicted)
		c->prediction =
			w->request->outputs[i] == TD_NONE ? TD_PREDICTION_OF_OTHERS : TD_PREDICTION_MODEL;
	c->fit = block->fit[at];
	c->quality = agent->quality_score * agent->success_rate;
	c->expected_quality = block->expected[at];
	c->cost = block->cost[at];
	c->latency = block->latency[at];
	c->rejected_by = judge(w, i, block, at, &c->missing);
}

/* The utilities of a candidate; an unknown figure counts as the greatest. */
static void
set_utilities(const td_score_terms *terms, td_candidate *c)
{
	double cost = isnan(c->cost) ? terms->dearest : c->cost;
	double latency = isnan(c->latency) ? terms->slowest : c->latency;

	c->cost_utility = 1.0 / (1.0 + cost / terms->policy.cost_scale);
	c->latency_utility = 1.0 / (1.0 + latency / terms->policy.latency_scale);
}

static uint32_t
block_size(const td_registry *registry, uint32_t from)
{
	uint32_t n = registry->n_agents - from;

	return n < TD_SCORE_BLOCK ? n : TD_SCORE_BLOCK;
}

td_status
td_score_agents(const td_registry *registry, double mu, double s, const td_policy *policy,
				const td_request *request, td_candidate *out, void *scratch, size_t scratch_size)
{
	scoring w;
	td_score_block block;
	td_status status = begin(&w, registry, mu, s, policy, request, scratch, scratch_size);
	uint32_t from;
	uint32_t n;
	uint32_t i;

	if (status != TD_OK)
		return status;
	for (from = 0; from < registry->n_agents; from += n)
	{
		n = block_size(registry, from);
		for (i = 0; i < n; i++)
		{
			td_candidate *c = &out[from + i];

			c->similarity = match_phrases(&registry->agents[from + i], &w.phrases, &c->phrase);
			w.similarity[i] = c->similarity;
		}
		clear(w.similarity, n);
		w.code->fit(w.similarity, n, mu, s, block.fit);
		for (i = 0; i < n; i++)
		{
			td_candidate *c = &out[from + i];

			gather(&w, from + i, &block, i);
			set_candidate(&w, from + i, &block, i, c);
			if (c->rejected_by == 0 && c->cost > w.terms.dearest)
				w.terms.dearest = c->cost;
			if (c->rejected_by == 0 && c->latency > w.terms.slowest)
				w.terms.slowest = c->latency;
		}
	}
	for (from = 0; from < registry->n_agents; from += n)
	{
		n = block_size(registry, from);
		for (i = 0; i < n; i++)
		{
			const td_candidate *c = &out[from + i];

			block.cost[i] = c->cost;
			block.latency[i] = c->latency;
			block.quality[i] = w.terms.predicted ? 1.0 : c->quality;
			block.expected[i] = c->expected_quality;
			block.fit[i] = c->fit;
		}
		pad(&block, n);
		w.code->score(&block, n, &w.terms);
		for (i = 0; i < n; i++)
		{
			set_utilities(&w.terms, &out[from + i]);
			out[from + i].score = block.score[i];
		}
	}
	return TD_OK;
}

/* The best agent, and what the eligible ones say of figures that are unknown. */
typedef struct leader
{
	uint32_t agent; /* TD_NONE: nobody is eligible */
	uint32_t n_eligible;
	double dearest;
	double slowest;
	int unknown_cost; /* an eligible agent's is */
	int unknown_latency;
	td_candidate candidate; /* agent, but for its similarity and its utilities */
} leader;

/* The best of the eligible ones in a block and of the best so far; n when that one stays. */
static inline uint32_t
lead(const td_score_block *block, const uint8_t *eligible, uint32_t n, const leader *best)
{
	uint32_t first = best->agent == TD_NONE;
	double score = first ? 0.0 : best->candidate.score;
	double cost = first ? 0.0 : best->candidate.cost;
	uint32_t found = n;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		if (!eligible[i] || (!first && !(block->score[i] >= score)))
			continue;
		/* As td_score_best(): agents come in ascending order of their numbers. */
		if (!first && block->score[i] == score &&
			!(isnan(cost) ? !isnan(block->cost[i]) : block->cost[i] < cost))
			continue;
		first = 0;
		found = i;
		score = block->score[i];
		cost = block->cost[i];
	}
	return found;
}

/*
 * Agents from number from on into a block, and which of them are eligible; returns how many.
 * Inlined for requests without limits, the usual ones, for which most of it falls away.
 */
static TD_INLINE uint32_t
gather_block(const scoring *w, int without_limits, uint32_t from, uint32_t n, td_score_block *block,
			 uint8_t *eligible)
{
	uint32_t n_eligible = 0;
	uint32_t missing;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		gather(w, from + i, block, i);
		eligible[i] = without_limits ? w->registry->agents[from + i].active != 0
									 : judge(w, from + i, block, i, &missing) == 0;
		n_eligible += eligible[i];
	}
	return n_eligible;
}

/* What the eligible agents of a block say of figures that are unknown. */
static inline void
tally(const td_score_block *block, const uint8_t *eligible, uint32_t n, leader *best)
{
	double dearest = best->dearest;
	double slowest = best->slowest;
	uint32_t unknown_cost = 0;
	uint32_t unknown_latency = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		double cost = eligible[i] ? block->cost[i] : 0.0;
		double latency = eligible[i] ? block->latency[i] : 0.0;

		unknown_cost |= cost != cost;
		unknown_latency |= latency != latency;
		dearest = cost > dearest ? cost : dearest;
		slowest = latency > slowest ? latency : slowest;
	}
	best->dearest = dearest;
	best->slowest = slowest;
	best->unknown_cost |= (int) unknown_cost;
	best->unknown_latency |= (int) unknown_latency;
}

/* One pass over the agents, with the terms for unknown figures as they stand. */
static void
find_leader(const scoring *w, leader *best)
{
	const td_registry *registry = w->registry;
	td_score_block block;
	uint8_t eligible[TD_SCORE_BLOCK];
	uint32_t from;
	uint32_t n;

	memset(best, 0, sizeof(*best));
	best->agent = TD_NONE;
	for (from = 0; from < registry->n_agents; from += n)
	{
		uint32_t i;

		n = block_size(registry, from);
		w->code->fit(w->similarity + from, n, w->mu, w->s, block.fit);
		best->n_eligible += w->without_limits ? gather_block(w, 1, from, n, &block, eligible)
											  : gather_block(w, 0, from, n, &block, eligible);
		tally(&block, eligible, n, best);
		pad(&block, n);
		w->code->score(&block, n, &w->terms);
		i = lead(&block, eligible, n, best);
		if (i < n)
		{
			best->agent = from + i;
			set_candidate(w, from + i, &block, i, &best->candidate);
			best->candidate.score = block.score[i];
		}
	}
}

td_status
td_score_decide(const td_registry *registry, double mu, double s, const td_policy *policy,
				const td_request *request, td_candidate *chosen, uint32_t *n_eligible,
				void *scratch, size_t scratch_size)
{
	scoring w;
	leader best;
	td_status status = begin(&w, registry, mu, s, policy, request, scratch, scratch_size);
	uint32_t closest;
	uint32_t i;

	if (status != TD_OK)
		return status;
	for (i = 0; i < registry->n_agents; i++)
		w.similarity[i] = match_phrases(&registry->agents[i], &w.phrases, &closest);
	clear(w.similarity, registry->n_agents);
	find_leader(&w, &best);
	w.terms.dearest = best.dearest;
	w.terms.slowest = best.slowest;
	/* Unknown figures were taken for 0: rightly so where none is known, or none unknown. */
	if ((best.unknown_cost && best.dearest > 0.0) || (best.unknown_latency && best.slowest > 0.0))
		find_leader(&w, &best);
	*n_eligible = best.n_eligible;
	chosen->agent = TD_NONE;
	if (best.agent == TD_NONE)
		return TD_OK;
	*chosen = best.candidate;
	chosen->similarity = match_phrases(&registry->agents[best.agent], &w.phrases, &chosen->phrase);
	set_utilities(&w.terms, chosen);
	return TD_OK;
}

size_t
td_score_products_scratch_size(const td_registry *registry)
{
	return TD_SCORE_TOGETHER * operand_room(registry->dim) + td_score_packed_size(registry->dim);
}

td_status
td_score_products(const td_registry *registry, const float *const *embeddings, size_t n, float *out,
				  void *scratch, size_t scratch_size)
{
	const td_code *code = td_code_of(registry->level);
	td_operand operands[TD_SCORE_TOGETHER];
	char *room = scratch;
	size_t i;

	if (scratch_size < td_score_products_scratch_size(registry))
		return TD_ERR_BUFFER;
	if (registry->dim == 0 || registry->dim > TD_MATVEC_MAX || n > TD_SCORE_TOGETHER)
		return TD_ERR_SHAPE;
	for (i = 0; i < n; i++, room += operand_room(registry->dim))
	{
		if (code->check(embeddings[i], registry->dim) != TD_OK)
			return TD_ERR_NONFINITE;
		code->make_operand(embeddings[i], registry->dim, room, &operands[i]);
	}
	score_code_of(registry->level)
		->products(registry->phrase_rows, registry->phrase_scales, registry->n_phrases,
				   registry->dim, operands, n,
				   (char *) scratch + TD_SCORE_TOGETHER * operand_room(registry->dim), out);
	return TD_OK;
}

int
td_score_predict(const td_registry *registry, const uint32_t *outputs, const float *p,
				 double *predicted)
{
	double sum_p = 0.0;
	double sum_quality = 0.0;
	uint32_t n_covered = 0;
	uint32_t i;

	for (i = 0; i < registry->n_agents; i++)
	{
		const td_agent *agent = &registry->agents[i];

		if (outputs[i] == TD_NONE || !agent->active)
			continue;
		sum_p += p[outputs[i]];
		sum_quality += agent->quality_score * agent->success_rate;
		n_covered++;
	}
	if (n_covered == 0)
		return 0;
	for (i = 0; i < registry->n_agents; i++)
	{
		const td_agent *agent = &registry->agents[i];
		double above = agent->quality_score * agent->success_rate - sum_quality / n_covered;
		double own = sum_p / n_covered + PRIOR_SHARE * above;

		if (outputs[i] != TD_NONE)
			own = p[outputs[i]];
		predicted[i] = own < 0.0 ? 0.0 : own > 1.0 ? 1.0 : own;
	}
	return 1;
}
