-- A log, routed by a join
-- Decisions are rows, so they join with the log and with the registry.
SELECT l.id, left(l.body, 42) AS request, r.agent_name,
       round(r.estimated_cost::numeric, 5) AS cost_usd,
       a.metadata ->> 'provider' AS provider
FROM request_log l
JOIN route_results r ON r.request = l.body
JOIN tinydancer.agent a ON a.name = r.agent_name
ORDER BY l.id
LIMIT 12;
