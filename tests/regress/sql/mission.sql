-- The examples of the mission, word for word and in its order, with what they need around them.
\set SHOW_CONTEXT never
-- The last digits of similarities are the encoder's business.
SET extra_float_digits = -11;

-- What was there before: requests that wait to be classified.
CREATE TABLE pending_requests (request_id integer PRIMARY KEY, content text NOT NULL);
INSERT INTO pending_requests VALUES (1, 'Translate this letter into Spanish'), (2, 'My invoice is wrong');

SELECT ruvector_register_agent(name := 'gpt-4', agent_type := 'llm', capabilities := ARRAY['reasoning','code','analysis','creative'], cost_per_1k_tokens := 0.03, avg_latency_ms := 2500, quality_score := 0.95, metadata := '{"provider": "openai", "context_window": 128000}');
SELECT ruvector_register_agent(name := 'claude-3-haiku', agent_type := 'llm', capabilities := ARRAY['fast-response','simple-tasks','classification'], cost_per_1k_tokens := 0.00025, avg_latency_ms := 400, quality_score := 0.80, metadata := '{"provider": "anthropic", "context_window": 200000}');
SELECT ruvector_register_agent(name := 'code-specialist', agent_type := 'tool', capabilities := ARRAY['code-execution','debugging','testing'], cost_per_call := 0.001, avg_latency_ms := 100, quality_score := 0.90);
SELECT * FROM ruvector_list_agents();
SELECT * FROM ruvector_route(request := 'Write a Python function to calculate Fibonacci numbers', optimize_for := 'cost');
SELECT * FROM ruvector_route(request := 'Analyze this complex legal document', required_capabilities := ARRAY['reasoning','analysis'], max_cost := 0.10, max_latency_ms := 5000, min_quality := 0.90);
SELECT * FROM ruvector_route_multi(request := 'Build and deploy a web application', num_agents := 3, strategy := 'pipeline');
-- Neither support-agent nor docs-agent is registered: a notice, not an error.
SELECT ruvector_create_route(name := 'customer_support', description := 'Handle customer support inquiries, complaints, and feedback', embedding := ruvector_embed('Customer support and help requests'), target_agent := 'support-agent', priority := 1);
SELECT ruvector_create_route(name := 'technical_docs', description := 'Answer questions about technical documentation and APIs', embedding := ruvector_embed('Technical documentation and API reference'), target_agent := 'docs-agent', priority := 2);
SELECT * FROM ruvector_semantic_route(query := 'How do I reset my password?', top_k := 3);
-- Yesterday's answers, so that the analysis has something to say.
INSERT INTO tinydancer.usage (agent_name, cost_usd, latency_ms, success, quality, recorded_at) VALUES
    ('gpt-4', 0.02, 2400, true, 0.9, now() - interval '1 day'), ('gpt-4', 0.04, 2600, true, 0.9, now() - interval '1 day'),
    ('claude-3-haiku', 0.0002, 350, true, 0.8, now() - interval '1 day'), ('code-specialist', 0.001, 90, false, 0.2, now() - interval '1 day');
SELECT * FROM ruvector_routing_analytics(time_range := '7 days', group_by := 'agent');
SELECT * FROM ruvector_optimize_budget(monthly_budget := 100.00, quality_threshold := 0.85, latency_threshold_ms := 2000);
SELECT * FROM ruvector_route(request := 'Summarize this article', budget_remaining := 10.00, optimize_for := 'quality_per_dollar');
SELECT * FROM ruvector_batch_route(requests := ARRAY['Simple question 1','Complex analysis task','Code generation request'], optimize_for := 'total_cost');
-- By the classifier that ships.
SELECT request_id, ruvector_classify_request(content) AS classification FROM pending_requests;
