-- A month's budget divided over agents.

CREATE FUNCTION tinydancer.plan_budget(
    requests text[], counts float8[], scale float8, monthly_budget float8, quality_threshold float8,
    latency_threshold_ms float8,
    OUT agent text, OUT allocated_budget float8, OUT share float8, OUT expected_requests float8,
    OUT expected_quality float8)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'tinydancer_plan_budget' LANGUAGE C STABLE PARALLEL SAFE COST 10000 ROWS 5;
COMMENT ON FUNCTION tinydancer.plan_budget(text[], float8[], float8, float8, float8, float8) IS
    'The optimisation of ruvector_optimize_budget() for different requests and how often each comes';

-- Different requests of the log: all of them up to this many, else those whose hashes are lowest, which
-- is a sample that does not change from call to call.
CREATE FUNCTION tinydancer.budget_sample_size() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 20000
$$;
COMMENT ON FUNCTION tinydancer.budget_sample_size() IS
    'Different requests that ruvector_optimize_budget() looks at; of more it takes a fixed sample';

CREATE FUNCTION ruvector_optimize_budget(
    monthly_budget float8,
    quality_threshold float8 DEFAULT NULL,
    latency_threshold_ms float8 DEFAULT NULL)
    RETURNS TABLE (agent text, allocated_budget float8, share float8, expected_requests float8,
                   expected_quality float8)
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 5 SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    requests text[];
    counts float8[];
    n_different bigint;
    n_logged numeric;
    n_sampled numeric;
BEGIN
    -- The arguments are checked before the log is read.
    PERFORM FROM tinydancer.plan_budget('{}', '{}', 1, ruvector_optimize_budget.monthly_budget,
                                        ruvector_optimize_budget.quality_threshold,
                                        ruvector_optimize_budget.latency_threshold_ms);
    IF NOT EXISTS (SELECT FROM tinydancer.agent a WHERE a.active) THEN
        RETURN;
    END IF;
    WITH log AS MATERIALIZED (
        SELECT d.request COLLATE "C" AS request, count(*) AS times
        FROM tinydancer.decision d
        WHERE d.decided_at > now() - interval '30 days' AND d.decided_at <= now()
          AND d.request ~ '[^[:space:][:cntrl:]]'
        GROUP BY 1),
    sample AS (
        SELECT l.request, l.times, hashtextextended(l.request, 0) AS hash
        FROM log l
        ORDER BY hash, l.request
        LIMIT tinydancer.budget_sample_size())
    SELECT array_agg(s.request ORDER BY s.hash, s.request), array_agg(s.times::float8 ORDER BY s.hash, s.request),
           sum(s.times), (SELECT count(*) FROM log), (SELECT sum(l.times) FROM log l)
    INTO requests, counts, n_sampled, n_different, n_logged
    FROM sample s;
    IF n_different > cardinality(requests) THEN
        RAISE NOTICE 'planned on a sample of the log'
            USING DETAIL = format('%s of %s different requests, which stand for %s of %s, were looked at.',
                                  cardinality(requests), n_different, n_sampled, n_logged);
    ELSIF n_different = 0 THEN
        RAISE NOTICE 'planned for requests of the average kind'
            USING DETAIL = 'tinydancer.decision holds no request of the last 30 days.';
    END IF;
    RETURN QUERY
        SELECT p.agent, p.allocated_budget, p.share, p.expected_requests, p.expected_quality
        FROM tinydancer.plan_budget(requests, counts, n_logged::float8 / n_sampled::float8,
                                    ruvector_optimize_budget.monthly_budget,
                                    ruvector_optimize_budget.quality_threshold,
                                    ruvector_optimize_budget.latency_threshold_ms) p;
END
$$;
COMMENT ON FUNCTION ruvector_optimize_budget(float8, float8, float8) IS
    'How to divide a month''s budget over agents so that last month''s requests are answered best';
