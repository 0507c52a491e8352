-- The registry
-- Five types of agent, priced in four ways. An empty figure is unset.
SELECT name, type,
       cost_per_1k_tokens AS per_1k_in, cost_per_1k_output_tokens AS per_1k_out,
       cost_per_call AS per_call, cost_per_second AS per_second,
       avg_latency_ms AS latency_ms, quality_score AS quality
FROM tinydancer.agent
ORDER BY type, name;
