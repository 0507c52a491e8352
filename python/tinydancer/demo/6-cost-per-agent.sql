-- Requests and cost per agent
-- The whole log through the same join, added up.
SELECT r.agent_name, a.type, count(*) AS requests,
       round(sum(r.estimated_cost)::numeric, 4) AS cost_usd,
       round(avg(r.estimated_latency_ms)) AS avg_latency_ms,
       round(avg(r.expected_quality)::numeric, 2) AS expected_quality
FROM request_log l
JOIN route_results r ON r.request = l.body
JOIN tinydancer.agent a ON a.name = r.agent_name
GROUP BY r.agent_name, a.type
ORDER BY requests DESC, r.agent_name;
