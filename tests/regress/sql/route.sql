-- The decision: section by section what counts, with vectors so that every number can be checked.
CREATE FUNCTION axis(i integer) RETURNS real[] LANGUAGE sql IMMUTABLE
    AS $$ SELECT array_agg((CASE WHEN n = i THEN 1 ELSE 0 END)::real ORDER BY n) FROM generate_series(1, 128) n $$;

-- No agents: no row, and no error.
SELECT agent_name FROM ruvector_route('anything');
SELECT agent_name FROM ruvector_explain_route('anything');

SELECT ruvector_register_agent('big', 'llm', ARRAY['Code-Review', 'math'], cost_per_1k_tokens := 0.01,
    cost_per_1k_output_tokens := 0.03, expected_output_tokens := 500, avg_latency_ms := 2000, quality_score := 0.9,
    success_rate := 0.95, embedding := axis(1));
SELECT ruvector_register_agent('small', 'llm', ARRAY['math'], cost_per_1k_tokens := 0.001, avg_latency_ms := 200,
    quality_score := 0.7, embedding := axis(1), pool := 'cheap');
SELECT ruvector_register_agent('timed', 'human', cost_per_second := 0.01, cost_per_call := 0.5, avg_latency_ms := 30000,
    quality_score := 0.99, embedding := axis(1));
SELECT ruvector_register_agent('free', 'tool', cost_per_call := 0, avg_latency_ms := 5, quality_score := 0.4,
    embedding := axis(1));
SELECT ruvector_register_agent('riddle', 'api', quality_score := 0.8, embedding := axis(1));
SELECT ruvector_register_agent('far', 'api', cost_per_call := 0.0001, avg_latency_ms := 50, quality_score := 0.9,
    embedding := axis(2));

-- Similarity, fit, quality and cost of each, against the formulas.
SELECT e.agent_name, round(e.similarity::numeric, 3) AS similarity,
       abs(e.fit - 1 / (1 + exp(-(e.similarity - c.fit_mu) / c.fit_s))) < 1e-9 AS fit,
       abs(e.quality - a.quality_score * a.success_rate) < 1e-12 AS quality,
       abs(e.expected_quality - e.fit * e.quality) < 1e-12 AS expected,
       e.estimated_cost,
       abs(e.cost_utility - 1 / (1 + coalesce(e.estimated_cost, 0.8) / 0.001)) < 1e-12 AS cost_utility,
       abs(e.latency_utility - 1 / (1 + coalesce(a.avg_latency_ms, 30000) / 1000)) < 1e-12 AS latency_utility,
       abs(e.score - e.fit * (0.3 * e.cost_utility + 0.3 * e.latency_utility + 0.4 * e.quality)) < 1e-12 AS score
FROM ruvector_explain_route(NULL, embedding := axis(1)) e
JOIN tinydancer.agent a ON a.name = e.agent_name, tinydancer.active_encoder() c
ORDER BY e.agent_name;

-- Input tokens are those of the whole text, a vector alone has none.
SELECT round((r.estimated_cost - 300 * 0.001 / 1000)::numeric * 1000 / 0.001) AS tokens
FROM ruvector_route('seven plain words and then a stop', pool := 'cheap') r;
SELECT round((r.estimated_cost - 300 * 0.001 / 1000)::numeric * 1000 / 0.001) AS tokens, right(reasoning, 54) AS said
FROM ruvector_route(repeat('word ', 200000), pool := 'cheap') r;

-- Each objective.
SELECT o AS optimize_for, r.agent_name
FROM unnest(ARRAY['cost', 'latency', 'quality', 'balanced', 'quality_per_dollar', NULL]) o,
     LATERAL ruvector_route(NULL, o, embedding := axis(1)) r;
INSERT INTO tinydancer.policy (name, cost_weight, quality_weight) VALUES ('thrifty', 0.9, 0.1);
SELECT agent_name FROM ruvector_route(NULL, 'thrifty', embedding := axis(1));

-- Each limit, and what explain says of it.
SELECT agent_name FROM ruvector_route(NULL, 'quality', ARRAY['CODE-review', 'Math'], embedding := axis(1));
SELECT agent_name, rejected_by, reasoning FROM ruvector_explain_route(NULL, 'quality', ARRAY['code-review', 'math'], embedding := axis(1)) WHERE NOT eligible;
SELECT agent_name FROM ruvector_route(NULL, 'quality', max_cost := 0.02, embedding := axis(1));
SELECT agent_name, rejected_by, reasoning FROM ruvector_explain_route(NULL, 'quality', max_cost := 0.001, embedding := axis(1)) WHERE NOT eligible;
SELECT agent_name FROM ruvector_route(NULL, 'quality', max_latency_ms := 1000, embedding := axis(1));
SELECT agent_name, rejected_by, reasoning FROM ruvector_explain_route(NULL, 'quality', max_latency_ms := 1000, embedding := axis(1)) WHERE NOT eligible;
SELECT agent_name FROM ruvector_route(NULL, 'cost', min_quality := 0.85, embedding := axis(1));
SELECT agent_name, rejected_by, reasoning FROM ruvector_explain_route(NULL, 'cost', min_quality := 0.75, embedding := axis(1)) WHERE NOT eligible;
SELECT agent_name FROM ruvector_route(NULL, 'quality', excluded_agents := ARRAY['timed', 'nobody', NULL], embedding := axis(1));
SELECT agent_name, rejected_by FROM ruvector_explain_route(NULL, 'quality', budget_remaining := 0.0004, embedding := axis(1)) WHERE NOT eligible;
SELECT agent_name, rejected_by FROM ruvector_explain_route(NULL, 'quality', pool := 'cheap', min_expected_quality := 0.8, embedding := axis(1)) WHERE NOT eligible;
SELECT agent_name FROM ruvector_route(NULL, pool := 'cheap', embedding := axis(1));
SELECT agent_name FROM ruvector_route(NULL, pool := 'no such pool', embedding := axis(1));
-- A budget that is overspent leaves what is free out too: nothing is affordable below zero.
SELECT count(*) FROM ruvector_route(NULL, budget_remaining := -1, embedding := axis(1));
SELECT agent_name FROM ruvector_route(NULL, budget_remaining := 0, embedding := axis(1));
-- All excluded: no row; a LEFT JOIN shows NULL.
SELECT count(*) FROM ruvector_route(NULL, excluded_agents := ARRAY(SELECT name FROM tinydancer.agent), embedding := axis(1));
SELECT q.id, r.agent_name FROM (VALUES (1, 'cheap'), (2, 'none')) q (id, pool)
LEFT JOIN LATERAL ruvector_route('hello', pool := q.pool) r ON true ORDER BY 1;

-- Cost is not known: as dear as the dearest that passes the other limits, refused under a cap.
SELECT agent_name, estimated_cost, round(cost_utility::numeric, 6) AS cost_utility, round(latency_utility::numeric, 6) AS latency_utility
FROM ruvector_explain_route(NULL, 'cost', excluded_agents := ARRAY['timed'], embedding := axis(1)) WHERE agent_name IN ('riddle', 'big');
SELECT rejected_by, reasoning FROM ruvector_explain_route(NULL, max_cost := 100, embedding := axis(1)) WHERE agent_name = 'riddle';

-- Ties: cheaper first, then the name in C order.
SELECT ruvector_register_agent(n, 'tool', cost_per_call := c, avg_latency_ms := 5, quality_score := 0.4, embedding := axis(9))
FROM (VALUES ('tie-b', 0.5), ('tie-a', 0.5), ('Tie-c', 0.5), ('tie-z', 0.25)) v (n, c);
SELECT agent_name, rank FROM ruvector_explain_route(NULL, 'quality', embedding := axis(9)) ORDER BY rank LIMIT 4;

-- The nearest phrase counts, not the average.
SELECT ruvector_register_agent('generalist', 'llm', ARRAY['legal-analysis', 'cooking', 'astronomy'], cost_per_call := 0.001, avg_latency_ms := 10, quality_score := 0.9);
SELECT closest_phrase FROM ruvector_explain_route('an astronomy question about stars') WHERE agent_name = 'generalist';

-- Scales of cost and latency are settings.
SELECT round(cost_utility::numeric, 4) AS cost, round(latency_utility::numeric, 4) AS latency FROM ruvector_explain_route(NULL, embedding := axis(1)) WHERE agent_name = 'timed';
SET tinydancer.cost_scale = 0.8;
SET tinydancer.latency_scale = 30000;
SELECT round(cost_utility::numeric, 4) AS cost, round(latency_utility::numeric, 4) AS latency FROM ruvector_explain_route(NULL, embedding := axis(1)) WHERE agent_name = 'timed';
RESET tinydancer.cost_scale;
RESET tinydancer.latency_scale;
SET tinydancer.cost_scale = 0;
SET tinydancer.no_such_setting = 1;

-- NULL request: no row.  Anything that is not a request, a vector or a limit: an error in words.
SELECT count(*) FROM ruvector_route(NULL);
SELECT count(*) FROM ruvector_explain_route(NULL);
SELECT * FROM ruvector_route('');
SELECT * FROM ruvector_explain_route(E'\u00a0\u200b');
SELECT * FROM ruvector_route('x', 'qualty');
SELECT * FROM ruvector_route('x', '');
SELECT * FROM ruvector_route('x', 'make it so');
SELECT * FROM ruvector_route('x', max_cost := -0.1);
SELECT * FROM ruvector_route('x', max_cost := 'NaN');
SELECT * FROM ruvector_route('x', max_latency_ms := -1);
SELECT * FROM ruvector_route('x', min_quality := 1.2);
SELECT * FROM ruvector_route('x', min_quality := 'NaN');
SELECT * FROM ruvector_route('x', min_expected_quality := -1);
SELECT * FROM ruvector_route('x', budget_remaining := 'NaN');
SELECT * FROM ruvector_route('x', required_capabilities := ARRAY['math', NULL]);
SELECT * FROM ruvector_route('x', embedding := '{1,2,3}');
SELECT * FROM ruvector_route('x', embedding := array_fill('NaN'::real, ARRAY[128]));
SELECT * FROM ruvector_route('x', embedding := array_fill(NULL::real, ARRAY[128]));
SELECT * FROM ruvector_route('x', embedding := array_fill(1::real, ARRAY[2, 64]));
SELECT agent_name FROM ruvector_route('x', excluded_agents := ARRAY['generalist'], embedding := array_fill(3e38::real, ARRAY[128]));
-- Limits that are none.
SELECT agent_name FROM ruvector_route(NULL, 'quality', '{}', 'Infinity', 'Infinity', '-Infinity', '{}', 'Infinity', axis(1));
