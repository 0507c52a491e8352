-- Analytics over the usage log, from the roll-up and what it does not hold yet.

CREATE FUNCTION ruvector_routing_analytics(
    time_range interval DEFAULT NULL,
    group_by text DEFAULT 'agent')
    RETURNS TABLE (agent text, total_requests bigint, total_cost float8, avg_latency_ms float8, success_rate float8)
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    groups CONSTANT text[] := ARRAY['agent', 'agent_type', 'pool', 'route', 'target', 'hour', 'day'];
    sums CONSTANT text := 'sum(r.requests), sum(r.cost_usd), sum(r.latency_ms), sum(r.latencies), sum(r.successes), '
                          'sum(r.outcomes)';
    counts CONSTANT text := 'count(*), sum(u.cost_usd), sum(u.latency_ms), count(u.latency_ms), '
                            'count(*) FILTER (WHERE u.success), count(u.success)';
    g text := coalesce(ruvector_routing_analytics.group_by, 'agent');
    zone text := tinydancer.time_zone();
    horizon xid8;
    low timestamptz := '-infinity';
    -- The first whole bucket of the range, and where the roll-up takes over from the log.
    first_bucket timestamptz;
    rolled_from timestamptz := 'infinity';
    key_of_rolled text;
    key_of_row text;
    decisions text := '';
    label text := 'p.key';
    agents text := '';
    guess text;
BEGIN
    IF g <> ALL (groups) THEN
        guess := tinydancer.closest(lower(g), groups);
        RAISE EXCEPTION 'unknown group_by "%"', g
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Known ones are %s.', array_to_string(groups, ', ')),
                  HINT = coalesce('Perhaps you meant "' || guess || '".', 'Usage is grouped by one of them.');
    END IF;
    IF time_range <= interval '0' THEN
        RAISE EXCEPTION 'time_range must be positive'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The value is %s.', time_range),
                  HINT = 'Write ''7 days''; NULL is all the time.';
    END IF;
    -- Longer than timestamps reach back is all the time, too.
    IF time_range < interval '4000 years' THEN
        low := now() - time_range;
    END IF;
    first_bucket := low;
    IF isfinite(low) THEN
        first_bucket := date_trunc('hour', low + interval '59 minutes 59.999999 seconds', zone);
        -- Where clocks are changed by half an hour, an hour ago is not the start of an hour.
        WHILE first_bucket < low OR first_bucket <> date_trunc('hour', first_bucket, zone) LOOP
            first_bucket := first_bucket + interval '15 minutes';
        END LOOP;
    END IF;
    SELECT s.horizon INTO horizon FROM tinydancer.usage_rollup_state s WHERE s.time_zone = zone;
    IF FOUND THEN
        rolled_from := first_bucket;
    END IF;

    CASE
        WHEN g IN ('hour', 'day') THEN
            key_of_rolled := format('date_trunc(%L, r.bucket, %L)', g, zone);
            key_of_row := format('date_trunc(%L, u.recorded_at, %L)', g, zone);
            label := format('to_char(p.key AT TIME ZONE %L, %L)', zone,
                            CASE g WHEN 'day' THEN 'YYYY-MM-DD' ELSE 'YYYY-MM-DD HH24:MI' END);
        WHEN g IN ('route', 'target') THEN
            key_of_rolled := CASE g WHEN 'route' THEN 'r.route_name' ELSE 'r.target' END;
            key_of_row := CASE g WHEN 'route' THEN 'd.route_name' ELSE 'd.optimize_for' END;
            decisions := ' LEFT JOIN tinydancer.decision d ON d.decision_id = u.decision_id';
        ELSE
            key_of_rolled := 'r.agent_name';
            key_of_row := 'u.agent_name';
            IF g <> 'agent' THEN
                label := CASE g WHEN 'pool' THEN 'a.pool' ELSE 'a.type' END;
                agents := ' LEFT JOIN tinydancer.agent a ON a.name = p.key';
            END IF;
    END CASE;
    RETURN QUERY EXECUTE
        'SELECT ' || label || ', sum(p.requests)::bigint, sum(p.cost_usd), sum(p.latency_ms) / nullif(sum(p.latencies), 0)::float8, '
        '       sum(p.successes)::float8 / nullif(sum(p.outcomes), 0)::float8 '
        'FROM (SELECT ' || key_of_rolled || ', ' || sums ||
        '      FROM tinydancer.usage_rollup r WHERE r.bucket >= $3 GROUP BY 1 '
        '      UNION ALL '
        '      SELECT ' || key_of_rolled || ', ' || sums ||
        '      FROM tinydancer.usage_archive r WHERE r.bucket >= $2 GROUP BY 1 '
        '      UNION ALL '
        -- The part of an hour at the start of the range; everything where there is no roll-up.
        '      SELECT ' || key_of_row || ', ' || counts ||
        '      FROM tinydancer.usage u' || decisions || ' WHERE u.recorded_at >= $1 AND u.recorded_at < $3 GROUP BY 1 '
        '      UNION ALL '
        '      SELECT ' || key_of_row || ', ' || counts ||
        '      FROM tinydancer.usage u' || decisions || ' WHERE u.recorded_at >= $3 AND u.xid >= $4 GROUP BY 1) '
        '     AS p (key, requests, cost_usd, latency_ms, latencies, successes, outcomes)' || agents ||
        ' GROUP BY 1 ORDER BY ' || CASE WHEN g IN ('hour', 'day') THEN '1' ELSE '2 DESC, 1' END
        USING low, first_bucket, rolled_from, horizon;
END
$$;
COMMENT ON FUNCTION ruvector_routing_analytics(interval, text) IS
    'Requests, cost, mean latency and success rate of the last time_range by agent, agent_type, pool, route, target, hour '
    'or day; figures that are not known are left out, never counted as 0';
