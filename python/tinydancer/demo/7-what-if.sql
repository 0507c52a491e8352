-- What if?
-- The same log under three targets, and with everything sent to the frontier model.
SELECT t.target, count(*) AS requests,
       count(*) FILTER (WHERE a.type = 'human') AS to_people,
       round(sum(r.estimated_cost) FILTER (WHERE a.type = 'human')::numeric, 2) AS people_usd,
       round(sum(r.estimated_cost) FILTER (WHERE a.type <> 'human')::numeric, 4) AS rest_usd
FROM (VALUES ('cost'), ('balanced'), ('quality_per_dollar')) AS t(target)
CROSS JOIN request_log l
JOIN route_results r ON r.request = l.body AND r.optimize_for = t.target
JOIN tinydancer.agent a ON a.name = r.agent_name
GROUP BY t.target
UNION ALL
SELECT 'everything to frontier-llm', count(*), 0, NULL,
       round(sum(e.estimated_cost)::numeric, 4)
FROM request_log l
CROSS JOIN LATERAL ruvector_explain_route(l.body) e
WHERE e.agent_name = 'frontier-llm'
ORDER BY rest_usd;
