-- A month's budget divided over agents.
-- No agents: no row, and no error.
SELECT * FROM ruvector_optimize_budget(100);
SELECT ruvector_register_agent(name := 'gpt-4', agent_type := 'llm', capabilities := ARRAY['reasoning','code','analysis','creative'], cost_per_1k_tokens := 0.03, avg_latency_ms := 2500, quality_score := 0.95, metadata := '{"provider": "openai", "context_window": 128000}');
SELECT ruvector_register_agent(name := 'claude-3-haiku', agent_type := 'llm', capabilities := ARRAY['fast-response','simple-tasks','classification'], cost_per_1k_tokens := 0.00025, avg_latency_ms := 400, quality_score := 0.80, metadata := '{"provider": "anthropic", "context_window": 200000}');
SELECT ruvector_register_agent(name := 'code-specialist', agent_type := 'tool', capabilities := ARRAY['code-execution','debugging','testing'], cost_per_call := 0.001, avg_latency_ms := 100, quality_score := 0.90);

\set SHOW_CONTEXT never
-- Without a log: the best agent within the thresholds, as often as the budget pays for it.
SELECT * FROM ruvector_optimize_budget(monthly_budget := 100.00, quality_threshold := 0.85, latency_threshold_ms := 2000);
SELECT * FROM ruvector_optimize_budget(100);
SELECT * FROM ruvector_optimize_budget(0.005);
SELECT * FROM ruvector_optimize_budget(100, 0.95, 2000);
SELECT * FROM ruvector_optimize_budget(100, NULL, 50);
SELECT * FROM ruvector_optimize_budget(0);

-- With a log: every request of it, by the texts that were asked.  A fit that every agent has alike.
SELECT ruvector_remove_agent(name) FROM ruvector_list_agents();
SELECT ruvector_register_agent(n, 'tool', description := 'mend the red bicycle', cost_per_call := c, avg_latency_ms := l, quality_score := q)
FROM (VALUES ('bronze', 0.001, 0.5, 10), ('silver', 0.003, 0.7, 10), ('gold', 0.010, 0.9, 1000)) v (n, c, q, l);
CREATE FUNCTION fit() RETURNS float8 LANGUAGE sql AS $$ SELECT fit FROM ruvector_explain_route('mend the red bicycle') WHERE agent_name = 'gold' $$;
CREATE FUNCTION plan(budget float8, quality float8 DEFAULT NULL, latency float8 DEFAULT NULL,
                     OUT agent text, OUT allocated numeric, OUT share numeric, OUT requests float8, OUT quality_by_fit numeric)
    RETURNS SETOF record LANGUAGE sql
AS $$ SELECT agent, round(allocated_budget::numeric, 9), round(share::numeric, 9), expected_requests, round((expected_quality / fit())::numeric, 9)
      FROM ruvector_optimize_budget(budget, quality, latency) $$;
INSERT INTO tinydancer.decision (request, agent_name, decided_at)
SELECT 'mend the red bicycle', 'long gone', now() - i * interval '1 hour' FROM generate_series(1, 100) i;
-- Older ones, those without words, and those of the future do not count.
INSERT INTO tinydancer.decision (request, agent_name, decided_at)
VALUES ('mend the red bicycle', 'gold', now() - interval '31 days'), (NULL, 'gold', now()), ('', 'gold', now()), (E' \t\n', 'gold', now()), ('x', 'gold', now() + interval '1 day');
SELECT * FROM plan(100);
SELECT * FROM plan(0.3);
SELECT * FROM plan(0.5);
SELECT * FROM plan(0.25);
SELECT * FROM plan(100, latency => 500);
SELECT * FROM plan(0.5, quality => 0.75 * fit());
-- The amounts are within the budget, and the shares are those of what is allocated.
SELECT bool_and(total <= budget AND abs(shares - 1) < 1e-12 AND requests = 100) AS kept
FROM generate_series(0.1, 1.2, 0.01) budget,
     LATERAL (SELECT sum(allocated_budget) AS total, sum(share) AS shares, sum(expected_requests) AS requests FROM ruvector_optimize_budget(budget::float8)) p;
-- A new agent has no history: its registration counts.
SELECT ruvector_register_agent('new', 'tool', description := 'mend the red bicycle', cost_per_call := 0.001, avg_latency_ms := 10, quality_score := 0.8);
SELECT * FROM plan(0.1);
-- Free agents: nothing is allocated, and shares are those of the requests.
SELECT ruvector_register_agent('free', 'tool', description := 'mend the red bicycle', cost_per_call := 0, avg_latency_ms := 10, quality_score := 0.95);
SELECT * FROM plan(0);
-- Agents of unknown cost cannot be planned with.
SELECT ruvector_register_agent('unknown', 'tool', description := 'mend the red bicycle', quality_score := 1);
SELECT * FROM plan(1);
SELECT ruvector_remove_agent('free'), ruvector_remove_agent('new');

-- What cannot be had, and what can.
SELECT * FROM plan(0.05);
SELECT * FROM plan(100, latency => 1);
\set VERBOSITY sqlstate
SELECT * FROM plan(100, quality => 0.95);
SELECT * FROM plan(0.5, quality => 0.77 * fit());
\set VERBOSITY default

-- A log of more different requests than are looked at: a fixed sample stands for them.
INSERT INTO tinydancer.decision (request, agent_name) SELECT 'mend the red bicycle ' || i, 'gold' FROM generate_series(1, 21000) i;
SELECT count(*) AS agents, round(sum(expected_requests)) AS requests, sum(allocated_budget) <= 150 AS within FROM ruvector_optimize_budget(150);
SET session_replication_role = replica;  -- the log is append-only
TRUNCATE tinydancer.decision;
RESET session_replication_role;

-- A free agent without a log: as many requests as come.
SELECT ruvector_register_agent('free', 'tool', description := 'mend the red bicycle', cost_per_call := 0, avg_latency_ms := 10, quality_score := 0.95);
SELECT * FROM ruvector_optimize_budget(0);
SELECT ruvector_remove_agent('free');

-- Anything that is no amount or threshold: an error in words.
SELECT * FROM ruvector_optimize_budget(NULL);
SELECT * FROM ruvector_optimize_budget(-1);
SELECT * FROM ruvector_optimize_budget('NaN');
SELECT * FROM ruvector_optimize_budget('Infinity');
SELECT agent, expected_requests FROM ruvector_optimize_budget(1e308);
SELECT * FROM ruvector_optimize_budget(1, -0.1);
SELECT * FROM ruvector_optimize_budget(1, 'NaN');
SELECT * FROM ruvector_optimize_budget(1, 1.1);
SELECT * FROM ruvector_optimize_budget(1, 0.5, -1);
SELECT * FROM ruvector_optimize_budget(1, 0.5, 'NaN');
SELECT agent FROM ruvector_optimize_budget(1, '-Infinity', 'Infinity');
SELECT * FROM tinydancer.plan_budget(ARRAY['x'], ARRAY[1, 2], 1, 1, NULL, NULL);
SELECT * FROM tinydancer.plan_budget(ARRAY['x', NULL], ARRAY[1, 2], 1, 1, NULL, NULL);
SELECT * FROM tinydancer.plan_budget(ARRAY['x'], ARRAY['NaN'::float8], 1, 1, NULL, NULL);
SELECT * FROM tinydancer.plan_budget(ARRAY['x'], ARRAY[1], 'NaN', 1, NULL, NULL);
UPDATE tinydancer.agent SET cost_per_call = NULL;
SELECT * FROM ruvector_optimize_budget(1);
UPDATE tinydancer.agent SET active = false;
SELECT * FROM ruvector_optimize_budget(1);
