-- Many requests at once.
SELECT ruvector_register_agent(name := 'gpt-4', agent_type := 'llm', capabilities := ARRAY['reasoning','code','analysis','creative'], cost_per_1k_tokens := 0.03, avg_latency_ms := 2500, quality_score := 0.95, metadata := '{"provider": "openai", "context_window": 128000}');
SELECT ruvector_register_agent(name := 'claude-3-haiku', agent_type := 'llm', capabilities := ARRAY['fast-response','simple-tasks','classification'], cost_per_1k_tokens := 0.00025, avg_latency_ms := 400, quality_score := 0.80, metadata := '{"provider": "anthropic", "context_window": 200000}');
SELECT ruvector_register_agent(name := 'code-specialist', agent_type := 'tool', capabilities := ARRAY['code-execution','debugging','testing'], cost_per_call := 0.001, avg_latency_ms := 100, quality_score := 0.90);

SELECT count(*) FROM ruvector_batch_route(requests := ARRAY['Simple question 1','Complex analysis task','Code generation request'], optimize_for := 'total_cost');
SELECT request_index, request, agent_name FROM ruvector_batch_route(requests := ARRAY['Simple question 1','Complex analysis task','Code generation request'], optimize_for := 'total_cost') WHERE request_index <> 2;

-- Each alone is ruvector_route() for each, to the bit; NULL gives no row, and the index is that of the array.
CREATE TABLE asked AS SELECT ARRAY['Simple question 1', NULL, 'Complex analysis task', 'Code generation request', 'Simple question 1', repeat('word ', 1000)] AS requests;
SELECT request_index FROM asked, ruvector_batch_route(requests);
SELECT o AS optimize_for, count(*) AS rows, count(*) FILTER (WHERE (b.agent_name, b.confidence, b.estimated_cost, b.estimated_latency_ms, b.expected_quality, b.similarity, b.reasoning)
        = (r.agent_name, r.confidence, r.estimated_cost, r.estimated_latency_ms, r.expected_quality, r.similarity, r.reasoning)) AS same, bool_and(a.requests[b.request_index] = b.request) AS in_place
FROM asked a, unnest(ARRAY['balanced', 'cost', 'latency', 'quality', 'quality_per_dollar', NULL]) o,
     LATERAL ruvector_batch_route(a.requests, o, max_latency_ms := 2600, min_quality := 0.1) b, LATERAL ruvector_route(b.request, o, max_latency_ms := 2600, min_quality := 0.1) r
GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM asked, ruvector_batch_route(requests, 'quality', excluded_agents := ARRAY['gpt-4', 'claude-3-haiku', 'code-specialist']);
SELECT request_index, agent_name FROM ruvector_batch_route(ARRAY['x', 'y'], required_capabilities := ARRAY['TESTING'], budget_remaining := 0.001);
SELECT count(*) FROM ruvector_batch_route(ARRAY['x', 'y'], budget_remaining := 0);
SELECT count(*) FROM ruvector_batch_route(ARRAY['x', 'y'], pool := 'none');
SELECT count(*) FROM ruvector_batch_route(ARRAY['x', 'y'], max_cost := 0);
SELECT count(*) FROM ruvector_batch_route(ARRAY['x', 'y'], min_expected_quality := 1);

-- All together: agents of several prices and qualities that fit every request alike.
SELECT ruvector_remove_agent(name) FROM ruvector_list_agents();
SELECT ruvector_register_agent(n, 'tool', description := 'mend the red bicycle', cost_per_call := c, avg_latency_ms := 10, quality_score := q, pool := p)
FROM (VALUES ('bronze', 0.001, 0.5, 'p'), ('silver', 0.003, 0.7, 'p'), ('gold', 0.010, 0.9, 'p'), ('tin', 0.0035, 0.6, 'p'), ('unpriced', NULL, 0.95, 'q')) v (n, c, q, p);
CREATE FUNCTION mend(n integer) RETURNS text[] LANGUAGE sql AS $$ SELECT array_agg('mend the red bicycle' || repeat(' ', i % 3)) FROM generate_series(1, n) i $$;
CREATE FUNCTION fit() RETURNS float8 LANGUAGE sql AS $$ SELECT fit FROM ruvector_explain_route('mend the red bicycle') WHERE agent_name = 'gold' $$;
-- The cheapest mix of a mean quality; the most quality for an amount.  Nobody pays for tin.
SELECT agent_name, count(*) FROM ruvector_batch_route(mend(10), 'total_cost', min_quality := 0.7 * fit(), pool := 'p') GROUP BY 1 ORDER BY 1;
SELECT agent_name, count(*) FROM ruvector_batch_route(mend(10), 'total_cost', min_quality := 0.74 * fit(), pool := 'p') GROUP BY 1 ORDER BY 1;
SELECT agent_name, count(*), sum(estimated_cost)::numeric FROM ruvector_batch_route(mend(10), max_total_cost := 0.03) GROUP BY 1 ORDER BY 1;
SELECT agent_name, count(*), round(sum(estimated_cost)::numeric, 6) AS usd FROM ruvector_batch_route(mend(1000), 'total_cost', max_total_cost := 2.005) GROUP BY 1 ORDER BY 1;
SELECT agent_name, count(*) FROM ruvector_batch_route(mend(5), max_total_cost := 'Infinity', pool := 'p') GROUP BY 1;
SELECT agent_name, count(*) FROM ruvector_batch_route(mend(5), 'total_cost', min_quality := 0, pool := 'p') GROUP BY 1;
SELECT agent_name, count(*) FROM ruvector_batch_route(mend(5), 'total_cost', min_quality := '-Infinity') GROUP BY 1;
-- Without min_quality: what balanced would reach, for no more than it costs.
SELECT bool_and(t.cost <= b.cost AND t.quality >= b.quality - 1e-12) AS no_worse
FROM generate_series(1, 40, 3) n,
     LATERAL (SELECT sum(estimated_cost) AS cost, avg(expected_quality) AS quality FROM ruvector_batch_route(mend(n), pool := 'p')) b,
     LATERAL (SELECT sum(estimated_cost) AS cost, avg(expected_quality) AS quality FROM ruvector_batch_route(mend(n), 'total_cost', pool := 'p')) t;
-- budget_remaining is for all of them; an unknown cost counts as the dearest, and not at all under a cap.
SELECT agent_name, count(*) FROM ruvector_batch_route(mend(10), 'total_cost', min_quality := 0.7 * fit(), budget_remaining := 0.03) GROUP BY 1;
SELECT count(*) FROM ruvector_batch_route(mend(2), 'total_cost', pool := 'q', min_quality := 0.1);
SELECT count(*) FROM ruvector_batch_route(mend(2), 'total_cost', pool := 'q', max_total_cost := 1);
-- The first of equal requests get the better agents.
SELECT string_agg(agent_name, ' ' ORDER BY request_index) FROM ruvector_batch_route(ARRAY['mend the red bicycle', 'mend the red bicycle', 'mend the red bicycle'], max_total_cost := 0.007);
SELECT reasoning ~ 'decided with 10 requests: together 0.03 USD at mean expected quality 0\.\d+, the greatest within max_total_cost 0.03$' AS said FROM ruvector_batch_route(mend(10), max_total_cost := 0.03) LIMIT 1;
SELECT reasoning ~ 'decided alone: 0.001 USD at mean expected quality 0\.\d+, the least cost for at least 0.1$' AS said FROM ruvector_batch_route(mend(1), 'total_cost', min_quality := 0.1);

-- What cannot be had, and what can.
\set VERBOSITY terse
SELECT * FROM ruvector_batch_route(mend(10), 'total_cost', min_quality := 0.95);
\set VERBOSITY sqlstate
SELECT * FROM ruvector_batch_route(mend(10), 'total_cost', min_quality := 0.95);
\set VERBOSITY default
SELECT * FROM ruvector_batch_route(mend(10), max_total_cost := 0.009);
SELECT * FROM ruvector_batch_route(mend(10), 'total_cost', budget_remaining := 0.001, max_total_cost := 1);
\set VERBOSITY sqlstate
SELECT * FROM ruvector_batch_route(mend(3), 'total_cost', budget_remaining := -1);
SELECT * FROM ruvector_batch_route(mend(10), 'total_cost', min_quality := 0.7 * fit(), budget_remaining := 0.02);
SELECT * FROM ruvector_batch_route(mend(10), 'total_cost', min_quality := 0.7 * fit(), max_total_cost := 0.02);
\set VERBOSITY default
-- Nothing to decide: no row.
SELECT count(*) FROM ruvector_batch_route(NULL);
SELECT count(*) FROM ruvector_batch_route('{}', 'total_cost');
SELECT count(*) FROM ruvector_batch_route(ARRAY[NULL, NULL]::text[], 'total_cost');
SELECT count(*) FROM ruvector_batch_route(mend(3), 'total_cost', pool := 'none', min_quality := 1);

-- Anything that is no list, target or limit: an error in words.
SELECT * FROM ruvector_batch_route(ARRAY['x', '']);
SELECT * FROM ruvector_batch_route(ARRAY['x', E'\t'], 'total_cost');
SELECT * FROM ruvector_batch_route(ARRAY[['a', 'b'], ['c', 'd']]);
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'total_cots');
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'balancd');
SELECT * FROM ruvector_batch_route(ARRAY['x'], '');
INSERT INTO tinydancer.policy (name, cost_weight) VALUES ('local_cost', 1);
SELECT count(*) FROM ruvector_batch_route(ARRAY['x'], 'local_cost');
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'cost', max_total_cost := 1);
SELECT * FROM ruvector_batch_route(ARRAY['x'], max_total_cost := -1);
SELECT * FROM ruvector_batch_route(ARRAY['x'], max_total_cost := 'NaN');
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'total_cost', min_quality := 1.5);
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'total_cost', min_quality := 'NaN');
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'total_cost', min_quality := 'Infinity');
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'total_cost', budget_remaining := 'NaN');
SELECT * FROM ruvector_batch_route(ARRAY['x'], 'total_cost', max_cost := -1);
SELECT * FROM ruvector_batch_route(ARRAY['x'], max_cost := 'NaN');
SELECT * FROM ruvector_batch_route(ARRAY['x'], min_quality := 2);
SELECT * FROM ruvector_batch_route(ARRAY['x'], max_latency_ms := -1);
SELECT * FROM ruvector_batch_route(ARRAY['x'], min_expected_quality := 'NaN');
SELECT * FROM ruvector_batch_route(ARRAY['x'], required_capabilities := ARRAY[NULL::text]);
SELECT count(*) FROM ruvector_batch_route(array_fill('x'::text, ARRAY[1000001]), 'total_cost');
