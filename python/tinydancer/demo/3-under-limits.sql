-- The same request, under limits
-- The best answer for at most one cent and ten seconds.
SELECT *
FROM ruvector_route(
    'Can my landlord keep the deposit because of a scratch on the floor?',
    optimize_for   := 'quality',
    max_cost       := 0.01,
    max_latency_ms := 10000);
