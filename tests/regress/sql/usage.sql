-- The usage log: what is recorded, what is refused, and what becomes of it in the registry.
\set SHOW_CONTEXT never
SELECT ruvector_register_agent('alpha', 'llm', ARRAY['code'], cost_per_call := 0.1, avg_latency_ms := 1500, quality_score := 0.9);
SELECT ruvector_register_agent('beta', 'api', ARRAY['weather'], cost_per_call := 0.2, quality_score := 0.8, pool := 'outside');
SELECT ruvector_register_agent('gamma', 'tool', ARRAY['files'], cost_per_call := 0, avg_latency_ms := 5);

-- One request each way; positional as in the documentation, and by name.
SELECT ruvector_record_usage('alpha', 0.12, true, 900);
SELECT ruvector_record_usage(agent := 'alpha', actual_cost := 0.08, success := false, latency_ms := 1300, quality := 0.2,
    input_tokens := 1200, output_tokens := 300);
SELECT ruvector_record_usage('beta');
SELECT ruvector_update_agent_metrics('alpha', 800, true, 0.7);
SELECT ruvector_update_agent_metrics(name := 'beta', latency_ms := NULL, success := NULL, quality := 1);
SELECT agent_name, decision_id, cost_usd, latency_ms, success, quality, input_tokens, output_tokens,
       recorded_at BETWEEN now() - interval '1 minute' AND now() AS now
FROM tinydancer.usage ORDER BY usage_id;

-- What is not known is left out of a mean; a figure that nobody measured stays as registered.  Quality
-- is that of requests that did not fail.
SELECT ruvector_refresh_agent_stats() AS changed;
SELECT name, total_requests, avg_latency_ms, round(success_rate::numeric, 4) AS success_rate, quality_score
FROM ruvector_list_agents();
-- Nothing new, nothing changed; and sessions do not read the registry again.
SELECT ruvector_refresh_agent_stats() AS changed;
SELECT ruvector_record_usage('gamma', success := true);
SELECT ruvector_refresh_agent_stats() AS changed;
SELECT total_requests, avg_latency_ms, success_rate, quality_score FROM tinydancer.agent WHERE name = 'gamma';
-- In one transaction too, where the roll-up cannot have the row yet.
BEGIN;
SELECT ruvector_record_usage('gamma', success := false);
SELECT ruvector_refresh_agent_stats() AS changed;
SELECT total_requests, success_rate FROM tinydancer.agent WHERE name = 'gamma';
ROLLBACK;
SELECT total_requests, success_rate FROM tinydancer.agent WHERE name = 'gamma';
SELECT ruvector_refresh_agent_stats() AS changed;
SELECT total_requests, success_rate FROM tinydancer.agent WHERE name = 'gamma';
-- Many equal qualities do not add up to more than one.
INSERT INTO tinydancer.usage (agent_name, quality) SELECT 'gamma', 1 FROM generate_series(1, 30);
SELECT ruvector_refresh_agent_stats() AS changed;
SELECT total_requests, success_rate, quality_score FROM tinydancer.agent WHERE name = 'gamma';

-- Usage of an agent that is gone is kept under its name; its decision vouches for what is still to come.
SELECT agent_name, decision_id FROM ruvector_dispatch('weather of today', required_capabilities := ARRAY['weather']);
SELECT ruvector_remove_agent('beta');
SELECT ruvector_record_usage('beta', 0.2, true, decision_id := 1);
SELECT ruvector_record_usage('beta', 0.2, true);
SELECT agent, total_requests, total_cost FROM ruvector_routing_analytics('1 day');
SELECT ruvector_refresh_agent_stats() AS changed;

-- The logs are append-only, partitions included.
UPDATE tinydancer.usage SET cost_usd = 0;
DELETE FROM tinydancer.usage;
DELETE FROM tinydancer.usage WHERE false;
TRUNCATE tinydancer.usage;
UPDATE tinydancer.usage_default SET cost_usd = 0;
TRUNCATE tinydancer.usage_default;
DELETE FROM tinydancer.decision;
MERGE INTO tinydancer.decision d USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE;
TRUNCATE tinydancer.decision_default;

-- What cannot be.
SELECT ruvector_record_usage(NULL, 1);
SELECT ruvector_record_usage('', 1);
SELECT ruvector_record_usage('alhpa', 1);
SELECT ruvector_record_usage('alpha', -1);
SELECT ruvector_record_usage('alpha', 'NaN');
SELECT ruvector_record_usage('alpha', 'Infinity');
SELECT ruvector_record_usage('alpha', latency_ms := -1);
SELECT ruvector_record_usage('alpha', quality := 1.1);
SELECT ruvector_record_usage('alpha', quality := 'NaN');
SELECT ruvector_record_usage('alpha', input_tokens := -1);
SELECT ruvector_record_usage('alpha', output_tokens := -1);
SELECT ruvector_record_usage('alpha', 1e308);
SELECT ruvector_record_usage('alpha', latency_ms := 1.1e12);
SET timezone = 'UTC';
SELECT ruvector_record_usage('alpha', recorded_at := 'infinity');
SELECT ruvector_record_usage('alpha', recorded_at := '-infinity');
SELECT ruvector_record_usage('alpha', recorded_at := '294276-12-31 12:00+00');
SELECT ruvector_record_usage('alpha', recorded_at := '4714-11-25 12:00+00 BC');
SELECT ruvector_record_usage('alpha', decision_id := 99);
SELECT ruvector_record_usage('alpha', decision_id := 1);
SELECT ruvector_update_agent_metrics(NULL, 1);
SELECT ruvector_update_agent_metrics('nobody', 1);
SELECT ruvector_update_agent_metrics('alpha');
SELECT ruvector_update_agent_metrics('alpha', 'Infinity');
SELECT ruvector_update_agent_metrics('alpha', 1, true, -0.1);
\set VERBOSITY sqlstate
INSERT INTO tinydancer.usage (agent_name, recorded_at) VALUES ('alpha', '-infinity');
INSERT INTO tinydancer.usage (agent_name, cost_usd) VALUES ('alpha', 'NaN');
INSERT INTO tinydancer.usage (agent_name, latency_ms) VALUES ('alpha', 1e300);
INSERT INTO tinydancer.decision (agent_name, decided_at) VALUES ('alpha', 'infinity');
\set VERBOSITY default

-- What is far out but can be recorded breaks nothing later.
BEGIN;
SELECT ruvector_record_usage('alpha', 1e12, latency_ms := 1e12, recorded_at := at)
FROM unnest(ARRAY['4700-01-01 00:00+00 BC', '289999-12-31 23:59:59.999999+00']::timestamptz[]) at;
SELECT tinydancer.set_time_zone('Asia/Kathmandu');
SELECT count(*) FROM tinydancer.make_log_partitions();
SELECT agent, total_requests FROM ruvector_routing_analytics(NULL, 'day') WHERE total_cost = 1e12;
SELECT ruvector_refresh_agent_stats() AS changed;
SELECT * FROM tinydancer.usage_hours('-infinity', 'infinity', NULL, NULL, 'Pacific/Kiritimati') WHERE costs = 1 AND cost_usd = 1e12 ORDER BY bucket;
ROLLBACK;

RESET timezone;

-- Where nothing can be written.
SET default_transaction_read_only = on;
SELECT ruvector_record_usage('alpha', 1);
SELECT ruvector_update_agent_metrics('alpha', 1);
SELECT ruvector_refresh_agent_stats();
SELECT tinydancer.roll_up_usage();
SELECT jsonb_object_keys(ruvector_routing_stats()) AS key ORDER BY 1;
RESET default_transaction_read_only;

-- In numbers.
SELECT s ->> 'total_agents' AS agents, s ->> 'active_agents' AS active, s ->> 'total_requests' AS requests,
       s ->> 'total_cost' AS cost, s ->> 'avg_latency_ms' AS ms, round((s ->> 'success_rate')::numeric, 3) AS success_rate,
       s ->> 'decisions_last_day' AS decisions, s -> 'budgets' AS budgets
FROM ruvector_routing_stats() s;

-- The registry is cleared, the logs stay.
SELECT ruvector_clear_agents();
SELECT ruvector_clear_agents();
SELECT (SELECT count(*) FROM tinydancer.agent) AS agents, (SELECT count(*) FROM tinydancer.agent_phrase) AS phrases,
       (SELECT count(*) FROM tinydancer.usage) AS usage;
SELECT ruvector_refresh_agent_stats() AS changed;
