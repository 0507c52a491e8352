-- The registry: what is kept, what is refused, and in which words.
\set SHOW_CONTEXT never
SELECT ruvector_register_agent(name := 'gpt-4', agent_type := 'llm', capabilities := ARRAY['reasoning','code'],
    cost_per_1k_tokens := 0.03, avg_latency_ms := 2500, quality_score := 0.95,
    metadata := '{"provider": "openai"}', examples := ARRAY['explain this proof']);
-- Positional, in the order of the documentation.
SELECT ruvector_register_agent('search', 'api', ARRAY['web-search'], NULL, 0.005, 800, 0.85, '{}', NULL, 'find pages');
SELECT ruvector_register_agent_full('{"name": "reviewer", "type": "human", "cost_per_second": 0.02,
    "avg_latency_ms": 600000, "quality_score": 0.97, "capabilities": ["legal"], "pool": "people",
    "examples": ["read this contract"], "metadata": {"team": "legal"}}');
SELECT name, agent_type, capabilities, cost_per_1k_tokens, cost_per_call, cost_per_second, expected_output_tokens AS out_tokens,
       avg_latency_ms, quality_score, success_rate, pool, metadata, active
FROM ruvector_list_agents();
SELECT agent_name, kind, position, phrase, encoder, array_length(embedding, 1) AS dim
FROM tinydancer.agent_phrase ORDER BY agent_name, kind, position;
SELECT jsonb_object_keys(ruvector_get_agent('gpt-4')) AS key ORDER BY 1;
SELECT ruvector_get_agent('reviewer') -> 'examples' AS examples;

-- Registering again replaces, and keeps what was measured.
UPDATE tinydancer.agent SET success_rate = 0.9, total_requests = 12 WHERE name = 'gpt-4';
SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['reasoning'], cost_per_1k_tokens := 0.01);
SELECT capabilities, cost_per_1k_tokens, avg_latency_ms, quality_score, success_rate, total_requests, metadata
FROM tinydancer.agent WHERE name = 'gpt-4';
SELECT kind, phrase FROM tinydancer.agent_phrase WHERE agent_name = 'gpt-4' ORDER BY 1, 2;
-- What is not passed is gone: description, examples and vector as well as figures.
SELECT ruvector_register_agent('again', 'api', ARRAY['weather'], cost_per_call := 1, description := 'tells the weather',
    examples := ARRAY['will it rain'], pool := 'p', embedding := array_fill(0.1::real, ARRAY[128]), active := false);
SELECT kind, phrase FROM tinydancer.agent_phrase WHERE agent_name = 'again' ORDER BY 1, 2;
UPDATE tinydancer.agent SET created_at = '2020-01-01' WHERE name = 'again';
SELECT ruvector_register_agent('again', 'api');
SELECT capabilities, cost_per_call, description, pool, active, created_at = '2020-01-01' AS created_then, updated_at > created_at AS updated
FROM tinydancer.agent WHERE name = 'again';
SELECT count(*) AS phrases FROM tinydancer.agent_phrase WHERE agent_name = 'again';
SELECT ruvector_remove_agent('again');

-- Out of routing and back.
SELECT ruvector_set_agent_active('search', false);
SELECT agent_name, eligible, rejected_by FROM ruvector_explain_route('find pages about owls') WHERE agent_name = 'search';
SELECT ruvector_set_agent_active('search', true);
SELECT ruvector_remove_agent('search');
SELECT count(*) FROM tinydancer.agent_phrase WHERE agent_name = 'search';

-- Unknown names.
SELECT ruvector_get_agent('gtp-4');
SELECT ruvector_set_agent_active('nobody at all', true);
SELECT ruvector_remove_agent('reviewr');

-- What is missing or blank.
SELECT ruvector_register_agent(NULL, 'llm');
SELECT ruvector_register_agent('', 'llm');
SELECT ruvector_register_agent('  ', 'llm');
SELECT ruvector_register_agent('x');
SELECT ruvector_register_agent_full(NULL);
SELECT ruvector_register_agent_full('{"agent_type": "llm"}');
SELECT ruvector_set_agent_active('gpt-4', NULL);
SELECT ruvector_get_agent(NULL);
SELECT ruvector_remove_agent(NULL);

-- What cannot be.
SELECT ruvector_register_agent('x', 'lllm');
SELECT ruvector_register_agent('x', 'octopus');
SELECT ruvector_register_agent(repeat('x', 257), 'llm');
SELECT ruvector_register_agent('x', 'llm', cost_per_1k_tokens := -1);
SELECT ruvector_register_agent('x', 'llm', cost_per_call := 'NaN');
SELECT ruvector_register_agent('x', 'llm', cost_per_second := 'Infinity');
SELECT ruvector_register_agent('x', 'llm', avg_latency_ms := -0.5);
SELECT ruvector_register_agent('x', 'llm', quality_score := 1.2);
SELECT ruvector_register_agent('x', 'llm', success_rate := 'NaN');
SELECT ruvector_register_agent('x', 'llm', ARRAY['a', NULL]);
SELECT ruvector_register_agent('x', 'llm', ARRAY['a', ' ']);
SELECT ruvector_register_agent('x', 'llm', ARRAY[['a'], ['b']]);
SELECT ruvector_register_agent('x', 'llm', examples := ARRAY['a', NULL]);
SELECT ruvector_register_agent('x', 'llm', pool := ' ');
SELECT ruvector_register_agent_full('[1]');
SELECT ruvector_register_agent_full('{"name": "x", "agent_type": "llm", "cost_per_cal": 1}');
SELECT ruvector_register_agent_full('{"name": "x", "agent_type": "llm", "zodiac": "lion"}');
SELECT ruvector_register_agent_full('{"name": "x", "agent_type": "llm", "capabilities": "code"}');
SELECT ruvector_register_agent_full('{"name": "x", "agent_type": "llm", "cost_per_call": "cheap"}');

-- Vectors that a caller passes.
SELECT ruvector_register_agent('x', 'llm', embedding := '{1,2}');
SELECT ruvector_register_agent('x', 'llm', embedding := array_fill(0.1::real, ARRAY[128]) || 'NaN'::real);
SELECT ruvector_register_agent('x', 'llm', embedding := array_fill('NaN'::real, ARRAY[128]));
SELECT ruvector_register_agent('x', 'llm', embedding := array_fill(0.1::real, ARRAY[127]) || NULL::real);
SELECT ruvector_register_agent('x', 'llm', embedding := array_fill(0.1::real, ARRAY[2, 64]));

-- Rows may be written directly too; what depends on the type is filled in.
INSERT INTO tinydancer.agent (name, type, description) VALUES ('direct-llm', 'llm', 'answers'), ('direct-api', 'api', 'answers');
SELECT name, expected_output_tokens, quality_score, success_rate, active FROM tinydancer.agent WHERE name LIKE 'direct%' ORDER BY 1;
SELECT eligible, round(similarity::numeric, 2) AS similarity FROM ruvector_explain_route('answers') WHERE agent_name LIKE 'direct%';
DELETE FROM tinydancer.agent WHERE name LIKE 'direct%';

-- None of them left anything behind, and the table itself refuses what the functions refuse.
SELECT name FROM tinydancer.agent ORDER BY 1;
\set VERBOSITY sqlstate
INSERT INTO tinydancer.agent (name, type) VALUES ('x', 'lllm');
INSERT INTO tinydancer.agent (name, type) VALUES (' ', 'llm');
INSERT INTO tinydancer.agent (name, type, cost_per_call) VALUES ('x', 'llm', -1);
INSERT INTO tinydancer.agent (name, type, cost_per_second) VALUES ('x', 'llm', 'NaN');
INSERT INTO tinydancer.agent (name, type, quality_score) VALUES ('x', 'llm', 1.5);
INSERT INTO tinydancer.agent (name, type, avg_latency_ms) VALUES ('x', 'llm', 'Infinity');
INSERT INTO tinydancer.agent (name, type, capabilities) VALUES ('x', 'llm', '{a,NULL}');
INSERT INTO tinydancer.agent_phrase (agent_name, kind, position, phrase) VALUES ('nobody', 'example', 1, 'x');
INSERT INTO tinydancer.agent_phrase (agent_name, kind, position, phrase) VALUES ('gpt-4', 'rumour', 1, 'x');
\set VERBOSITY default

-- A built-in policy is overridden, not changed.
UPDATE tinydancer.policy SET cost_weight = 0.5 WHERE name = 'balanced';
SELECT name, cost_weight, latency_weight, quality_weight, builtin FROM tinydancer.policy ORDER BY name, builtin;
DELETE FROM tinydancer.policy WHERE name = 'balanced' AND NOT builtin;
DELETE FROM tinydancer.policy WHERE name = 'cost';
