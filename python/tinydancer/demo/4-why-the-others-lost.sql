-- Why the others lost
-- Every agent with its rank, the parts of its score, and the limits that rejected it.
SELECT rank, agent_name, rejected_by,
       round(similarity::numeric, 2) AS similarity,
       round(fit::numeric, 3) AS fit,
       round(quality::numeric, 2) AS quality,
       round(estimated_cost::numeric, 5) AS cost_usd,
       round(score::numeric, 3) AS score
FROM ruvector_explain_route(
    'Can my landlord keep the deposit because of a scratch on the floor?',
    optimize_for   := 'quality',
    max_cost       := 0.01,
    max_latency_ms := 10000)
ORDER BY rank, score DESC;
