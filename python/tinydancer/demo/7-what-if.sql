-- What if?
-- The same log under three targets, and with everything sent to the frontier model.
SELECT t.target, count(*) AS requests,
       round(sum(r.estimated_cost)::numeric, 4) AS cost_usd,
       round(avg(r.expected_quality)::numeric, 2) AS expected_quality
FROM (VALUES ('cost'), ('balanced'), ('quality_per_dollar')) AS t(target)
CROSS JOIN request_log l
JOIN route_results r ON r.request = l.body AND r.optimize_for = t.target
GROUP BY t.target
UNION ALL
SELECT 'everything to frontier-llm', count(*),
       round(sum(e.estimated_cost)::numeric, 4),
       round(avg(e.expected_quality)::numeric, 2)
FROM request_log l
CROSS JOIN LATERAL ruvector_explain_route(l.body) e
WHERE e.agent_name = 'frontier-llm'
ORDER BY cost_usd;
