-- What the usage log says, of agents and of the whole.

CREATE FUNCTION ruvector_refresh_agent_stats() RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer;
BEGIN
    PERFORM tinydancer.require_writable('ruvector_refresh_agent_stats');
    PERFORM tinydancer.roll_up_usage();
    -- A figure that was never measured stays as it was registered.
    UPDATE tinydancer.agent a
    SET total_requests = s.requests,
        avg_latency_ms = s.avg_latency_ms,
        success_rate = s.success_rate,
        quality_score = s.quality_score
    FROM (SELECT g.name, u.requests,
                 coalesce(u.latency_ms / nullif(u.latencies, 0), g.avg_latency_ms) AS avg_latency_ms,
                 coalesce(u.successes::float8 / nullif(u.outcomes, 0), g.success_rate) AS success_rate,
                 -- A sum of many may end a last digit above what each of them is at most.
                 CASE WHEN u.qualities > 0 THEN least(u.quality / u.qualities, 1) ELSE g.quality_score END AS quality_score
          FROM tinydancer.usage_sums() u
          JOIN tinydancer.agent g ON g.name = u.agent_name) AS s
    WHERE a.name = s.name
      AND (a.total_requests, a.avg_latency_ms, a.success_rate, a.quality_score)
          IS DISTINCT FROM (s.requests, s.avg_latency_ms, s.success_rate, s.quality_score);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION ruvector_refresh_agent_stats() IS
    'Brings requests, latency, success rate and quality of the registry up to the usage log, and the roll-up too; returns '
    'how many agents changed. For a scheduler, every minute or so';
REVOKE ALL ON FUNCTION ruvector_refresh_agent_stats() FROM PUBLIC;

CREATE FUNCTION ruvector_routing_stats() RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
               'total_agents', a.total, 'active_agents', a.active, 'average_quality', a.quality,
               'pools', a.pools,
               'routes', (SELECT count(*) FROM tinydancer.route),
               'decisions_last_day', (SELECT count(*) FROM tinydancer.decision d WHERE d.decided_at >= now() - interval '1 day'),
               'total_requests', u.requests, 'total_cost', u.cost_usd,
               'avg_latency_ms', u.latency_ms, 'success_rate', u.success_rate,
               'budgets', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                      'scope', s.scope, 'name', nullif(s.name, ''), 'period', s.period,
                                      'limit_usd', s.limit_usd, 'spent_usd', s.spent_usd, 'reserved_usd', s.reserved_usd,
                                      'resets_at', s.period_end) ORDER BY s.scope, s.name, s.period_end), '[]')
                           FROM tinydancer.budget_state() s))
    FROM (SELECT count(*) AS total, count(*) FILTER (WHERE g.active) AS active, avg(g.quality_score) AS quality,
                 count(DISTINCT g.pool) AS pools
          FROM tinydancer.agent g) AS a,
         (SELECT coalesce(sum(s.requests), 0) AS requests, sum(s.cost_usd) AS cost_usd,
                 sum(s.latency_ms) / nullif(sum(s.latencies), 0) AS latency_ms,
                 sum(s.successes)::float8 / nullif(sum(s.outcomes), 0) AS success_rate
          FROM tinydancer.usage_sums() s) AS u
$$;
COMMENT ON FUNCTION ruvector_routing_stats() IS
    'Agents, routes, decisions, usage and budgets in one JSON object';
