-- Several agents for one request: pipelines, parallel shares, ensembles.
SELECT ruvector_register_agent(name := 'gpt-4', agent_type := 'llm', capabilities := ARRAY['reasoning','code','analysis','creative'], cost_per_1k_tokens := 0.03, avg_latency_ms := 2500, quality_score := 0.95, metadata := '{"provider": "openai", "context_window": 128000}');
SELECT ruvector_register_agent(name := 'claude-3-haiku', agent_type := 'llm', capabilities := ARRAY['fast-response','simple-tasks','classification'], cost_per_1k_tokens := 0.00025, avg_latency_ms := 400, quality_score := 0.80, metadata := '{"provider": "anthropic", "context_window": 200000}');
SELECT ruvector_register_agent(name := 'code-specialist', agent_type := 'tool', capabilities := ARRAY['code-execution','debugging','testing'], cost_per_call := 0.001, avg_latency_ms := 100, quality_score := 0.90);

-- The three agents work one after the other; each has a role of its own.
SELECT agent_name FROM ruvector_route_multi(request := 'Build and deploy a web application', num_agents := 3, strategy := 'pipeline') ORDER BY agent_name;
SELECT array_agg(split_part(role, ':', 1) ORDER BY step) AS roles, bool_and(weight IS NULL) AS unweighted,
       bool_and(m.capabilities <@ a.capabilities AND split_part(role, ': ', 2) = array_to_string(m.capabilities, ', ')) AS own
FROM ruvector_route_multi('Build and deploy a web application') m JOIN tinydancer.agent a ON a.name = m.agent_name;
-- Code is written before it is run and tested.
SELECT m.step < n.step AS in_order
FROM ruvector_route_multi('Build and deploy a web application') m, ruvector_route_multi('Build and deploy a web application') n
WHERE m.agent_name = 'gpt-4' AND n.agent_name = 'code-specialist';
-- Figures are those of ruvector_explain_route().
SELECT count(*) FROM ruvector_route_multi('Build and deploy a web application') m
JOIN ruvector_explain_route('Build and deploy a web application') e USING (agent_name, estimated_cost, estimated_latency_ms, expected_quality, similarity)
WHERE m.confidence = m.expected_quality;
-- As many agents as there are, and the sum of costs and of latencies.
SELECT count(*), min(step), max(step), sum(estimated_latency_ms) AS ms, round(sum(estimated_cost)::numeric, 3) AS usd
FROM ruvector_route_multi('Build and deploy a web application', 32);

-- A team has the required capabilities together, in the order in which they are named.
SELECT step, agent_name, role, capabilities FROM ruvector_route_multi('Build it', 3, 'pipeline', ARRAY['Classification', 'code', 'reasoning', 'testing', 'CODE']);
SELECT step, agent_name, role FROM ruvector_route_multi('Build it', 2, 'pipeline', ARRAY['testing', 'reasoning']);
SELECT agent_name, capabilities, round(weight::numeric, 3) AS weight FROM ruvector_route_multi('Build it', 2, 'parallel', ARRAY['testing', 'debugging', 'code']) ORDER BY agent_name;
-- Too few agents for them, or a capability that nobody has: no team.
SELECT count(*) FROM ruvector_route_multi('Build it', 1, 'pipeline', ARRAY['testing', 'reasoning']);
SELECT count(*) FROM ruvector_route_multi('Build it', 3, 'parallel', ARRAY['testing', 'alchemy']);
-- A voter answers all of it by itself.
SELECT agent_name, role ~ '^voter 1 of 1: [a-z-]+$' AS role, weight FROM ruvector_route_multi('Build it', 3, 'ensemble', ARRAY['testing', 'debugging']);
SELECT count(*), round(sum(weight)::numeric, 6) AS votes, count(DISTINCT role) AS roles FROM ruvector_route_multi('Build it', 3, 'ensemble');
-- A clear request: who has what it asks for comes first.
SELECT agent_name FROM ruvector_route_multi('code execution', 1);

-- Limits are on the whole.
SELECT strategy, count(m.agent_name) FROM unnest(ARRAY['pipeline', 'parallel', 'ensemble']) strategy
LEFT JOIN LATERAL ruvector_route_multi('Build it', 3, strategy, max_latency_ms := 2999) m ON true GROUP BY 1 ORDER BY 1;
SELECT strategy, count(m.agent_name) FROM unnest(ARRAY['pipeline', 'parallel', 'ensemble']) strategy
LEFT JOIN LATERAL ruvector_route_multi('Build it', 3, strategy, max_latency_ms := 3000) m ON true GROUP BY 1 ORDER BY 1;
SELECT agent_name FROM ruvector_route_multi('Build it', 3, max_cost := 0.002) ORDER BY 1;
SELECT agent_name FROM ruvector_route_multi('Build it', 3, budget_remaining := 0.002) ORDER BY 1;
SELECT count(*) FROM ruvector_route_multi('Build it', 3, budget_remaining := -1);
SELECT agent_name FROM ruvector_route_multi('Build it', 3, min_quality := 0.9) ORDER BY 1;
SELECT agent_name FROM ruvector_route_multi('Build it', 3, excluded_agents := ARRAY['gpt-4', 'nobody']) ORDER BY 1;
SELECT count(*) FROM ruvector_route_multi('Build it', 3, pool := 'none');
SELECT count(*) FROM ruvector_route_multi('Build it', 3, min_expected_quality := 0.999);
-- Three times 0.1 are within 0.3.
SELECT ruvector_register_agent('dime-' || i, 'tool', ARRAY['paint-' || i], cost_per_call := 0.1, avg_latency_ms := 1, pool := 'dimes') FROM generate_series(1, 4) i;
SELECT count(*) FROM ruvector_route_multi('Paint it', 4, max_cost := 0.3, pool := 'dimes');

-- Agents without capabilities, with a vector of their own, of unknown cost.
SELECT ruvector_register_agent('described', 'api', description := 'Paints pictures', pool := 'odd');
SELECT ruvector_register_agent('vector', 'api', ARRAY['secret'], embedding := array_fill(1::real, ARRAY[128]), pool := 'odd');
SELECT agent_name, split_part(role, ': ', 2) AS role, capabilities, estimated_cost, estimated_latency_ms FROM ruvector_route_multi('Paints pictures', 3, 'parallel', pool := 'odd') ORDER BY 1;
SELECT count(*) FROM ruvector_route_multi('Paints pictures', 3, pool := 'odd', max_cost := 100);
-- By vector alone; the objective of a policy; NULL means the default.
SELECT count(*) FROM ruvector_route_multi(NULL, 2, 'ensemble', embedding := array_fill(1::real, ARRAY[128]));
SELECT count(*) FROM ruvector_route_multi('Build it', NULL, NULL);
SELECT right(reasoning, 102) FROM ruvector_route_multi('Paint it', 2, optimize_for := 'quality', pool := 'dimes');
-- A job that two share is divided between them.
SELECT ruvector_register_agent('twin-' || i, 'tool', ARRAY['origami'], cost_per_call := 0.1, avg_latency_ms := 1, pool := 'twins') FROM generate_series(1, 2) i;
SELECT agent_name, role, weight FROM ruvector_route_multi('fold some origami', 2, 'parallel', pool := 'twins');
SELECT agent_name, role, weight FROM ruvector_route_multi('fold some origami', 2, 'ensemble', pool := 'twins');

-- No request: no row.  Anything that is no number, strategy, limit or target: an error in words.
SELECT count(*) FROM ruvector_route_multi(NULL);
SELECT * FROM ruvector_route_multi('');
SELECT * FROM ruvector_route_multi('x', 0);
SELECT * FROM ruvector_route_multi('x', -1);
SELECT * FROM ruvector_route_multi('x', 33);
SELECT * FROM ruvector_route_multi('x', 2147483647);
SELECT * FROM ruvector_route_multi('x', 2, 'pipline');
SELECT * FROM ruvector_route_multi('x', 2, '');
SELECT * FROM ruvector_route_multi('x', 2, 'relay race');
SELECT * FROM ruvector_route_multi('x', 2, 'pipeline', ARRAY[NULL::text]);
SELECT * FROM ruvector_route_multi('x', 2, 'ensemble', ARRAY[NULL::text]);
SELECT count(*) FROM ruvector_route_multi('x', 2, 'pipeline', ARRAY(SELECT 'c' || i FROM generate_series(1, 65) i));
SELECT ruvector_register_agent('everything', 'human', ARRAY(SELECT 'c' || i FROM generate_series(1, 65) i));
SELECT * FROM ruvector_route_multi('x', 2, 'pipeline', ARRAY(SELECT 'c' || i FROM generate_series(1, 65) i));
SELECT cardinality(capabilities) FROM ruvector_route_multi('x', 1, 'pipeline', ARRAY(SELECT 'c' || i FROM generate_series(1, 64) i));
SELECT * FROM ruvector_route_multi('x', max_cost := -0.1);
SELECT * FROM ruvector_route_multi('x', max_latency_ms := 'NaN');
SELECT * FROM ruvector_route_multi('x', min_quality := 'Infinity');
SELECT * FROM ruvector_route_multi('x', min_expected_quality := 2);
SELECT * FROM ruvector_route_multi('x', budget_remaining := 'NaN');
SELECT * FROM ruvector_route_multi('x', embedding := '{1}');
SELECT * FROM ruvector_route_multi('x', optimize_for := 'balancd');
SELECT count(*) FROM ruvector_route_multi('x', 2, 'pipeline', '{}', 'Infinity', 'Infinity', '-Infinity', '{}', 'Infinity');
