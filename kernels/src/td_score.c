/*
 * td_score.c - agents, a request and an objective become a decision.
 *
 * In: the packed registry, the request's vector and limits, an objective.  Out: one td_candidate
 * per agent with every part of its score, the best one, or all of them ranked.
 * Called by both shells for every decision.
 */
#include <math.h>
#include <string.h>

#include "td_math.h"
#include "td_matvec.h"

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

size_t
td_score_scratch_size(const td_registry *registry)
{
	return registry->dim > 0 ? td_operand_size(registry->dim) : 1;
}

/* NaN where no figure is set: the price is unknown, which is not the same as free. */
double
td_score_cost(const td_agent *agent, double input_tokens)
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

/* The greatest cosine between the quantised request and the agent's phrases. */
static void
match_phrases(const td_agent *agent, td_products *phrases, td_candidate *c)
{
	uint32_t i;

	c->phrase = TD_NONE;
	c->similarity = 0.0f;
	for (i = agent->first_phrase; i < agent->first_phrase + agent->n_phrases; i++)
	{
		float cosine = td_product(phrases, i);

		if (c->phrase == TD_NONE || cosine > c->similarity)
		{
			c->phrase = i;
			c->similarity = cosine;
		}
	}
	/* Quantising can carry the product of equal vectors a little past 1. */
	if (c->similarity > 1.0f)
		c->similarity = 1.0f;
	if (c->similarity < -1.0f)
		c->similarity = -1.0f;
}

td_status
td_score_agents(const td_registry *registry, double mu, double s, const td_policy *policy,
				const td_request *request, td_candidate *out, void *scratch, size_t scratch_size)
{
	td_query query = {td_code_of(registry->level), {NULL, NULL, 0, 0.0f}};
	td_products phrases;
	double dearest = 0.0;
	double slowest = 0.0;
	uint32_t i;

	if (scratch_size < td_score_scratch_size(registry))
		return TD_ERR_BUFFER;
	if (registry->dim == 0 || registry->dim > TD_MATVEC_MAX || !(s > 0.0) ||
		!(policy->cost_scale > 0.0) || !(policy->latency_scale > 0.0))
		return TD_ERR_SHAPE;
	if (query.code->check(request->embedding, registry->dim) != TD_OK)
		return TD_ERR_NONFINITE;
	query.code->make_operand(request->embedding, registry->dim, scratch, &query.operand);
	td_products_begin(&phrases, &query, registry->phrase_rows, registry->phrase_scales,
					  registry->n_phrases, registry->dim);

	for (i = 0; i < registry->n_agents; i++)
	{
		const td_agent *agent = &registry->agents[i];
		td_candidate *c = &out[i];

		memset(c, 0, sizeof(*c));
		c->agent = i;
		match_phrases(agent, &phrases, c);
		c->fit = 1.0 / (1.0 + td_exp(-((double) c->similarity - mu) / s));
		c->quality = agent->quality_score * agent->success_rate;
		c->expected_quality = c->fit * c->quality;
		if (request->predicted != NULL)
		{
			c->expected_quality = request->predicted[i];
			c->prediction =
				request->outputs[i] == TD_NONE ? TD_PREDICTION_OF_OTHERS : TD_PREDICTION_MODEL;
		}
		c->cost = td_score_cost(agent, request->input_tokens);
		c->latency = agent->avg_latency_ms;
		c->missing = missing_capabilities(registry, agent, request);
		c->rejected_by = limits_broken(agent, request, c);
		if (c->rejected_by == 0 && c->cost > dearest)
			dearest = c->cost;
		if (c->rejected_by == 0 && c->latency > slowest)
			slowest = c->latency;
	}

	for (i = 0; i < registry->n_agents; i++)
	{
		td_candidate *c = &out[i];
		double cost = isnan(c->cost) ? dearest : c->cost;
		double latency = isnan(c->latency) ? slowest : c->latency;
		double quality = request->predicted != NULL ? 1.0 : c->quality;

		c->cost_utility = 1.0 / (1.0 + cost / policy->cost_scale);
		c->latency_utility = 1.0 / (1.0 + latency / policy->latency_scale);
		c->score = policy->cost_weight * c->cost_utility +
				   policy->latency_weight * c->latency_utility + policy->quality_weight * quality +
				   policy->fit_weight * c->fit;
		c->score *= request->predicted != NULL ? c->expected_quality : c->fit;
		if (policy->per_dollar)
			c->score /= cost + policy->cost_scale;
	}
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

/* Whether a is the better choice of the two; a total order, so that the decision is unique. */
static int
is_better(const td_candidate *a, const td_candidate *b)
{
	if ((a->rejected_by == 0) != (b->rejected_by == 0))
		return a->rejected_by == 0;
	if (a->score != b->score)
		return a->score > b->score;
	if (isnan(a->cost) != isnan(b->cost))
		return !isnan(a->cost);
	if (!isnan(a->cost) && a->cost != b->cost)
		return a->cost < b->cost;
	return a->agent < b->agent;
}

uint32_t
td_score_best(const td_candidate *candidates, uint32_t n, uint32_t *n_eligible)
{
	uint32_t best = TD_NONE;
	uint32_t eligible = 0;
	uint32_t i;

	for (i = 0; i < n; i++)
	{
		if (candidates[i].rejected_by != 0)
			continue;
		eligible++;
		if (best == TD_NONE || is_better(&candidates[i], &candidates[best]))
			best = i;
	}
	if (n_eligible != NULL)
		*n_eligible = eligible;
	return best;
}

/* Restore the heap below root: the worst candidate on top. */
static void
sift_down(const td_candidate *candidates, uint32_t *order, uint32_t root, uint32_t n)
{
	for (;;)
	{
		uint32_t child = 2 * root + 1;
		uint32_t held;

		if (child >= n)
			return;
		if (child + 1 < n && is_better(&candidates[order[child]], &candidates[order[child + 1]]))
			child++;
		if (!is_better(&candidates[order[root]], &candidates[order[child]]))
			return;
		held = order[root];
		order[root] = order[child];
		order[child] = held;
		root = child;
	}
}

void
td_score_rank(const td_candidate *candidates, uint32_t n, uint32_t *order)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		order[i] = i;
	/* Heap sort, since qsort() may allocate. */
	for (i = n / 2; i-- > 0;)
		sift_down(candidates, order, i, n);
	for (i = n; i-- > 1;)
	{
		uint32_t worst = order[0];

		order[0] = order[i];
		order[i] = worst;
		sift_down(candidates, order, 0, i);
	}
}
