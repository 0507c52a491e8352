-- The roll-up of the usage log: sums by the hour, always exact.
--
-- tinydancer.usage_rollup holds the sums of exactly those rows of tinydancer.usage whose xid is below
-- tinydancer.usage_rollup_state.horizon; all others are added live, found by an index on xid.  The
-- horizon is the xmin of the snapshot that the sums were made with: each transaction below it had
-- ended, so its rows are in the sums or will never be.  It does not matter when a row says that it was
-- recorded, nor how long its transaction was open.
--
-- The roll-up is not dumped; where it is missing, all rows are live.  A row that is restored brings an
-- xid of another time: tinydancer.keep_xid() sees to it that no roll-up has passed it.

CREATE TABLE tinydancer.usage_rollup (
    bucket timestamptz NOT NULL,
    agent_name text NOT NULL,
    route_name text,
    target text,
    requests bigint NOT NULL,
    cost_usd float8,
    costs bigint NOT NULL,
    latency_ms float8,
    latencies bigint NOT NULL,
    successes bigint NOT NULL,
    outcomes bigint NOT NULL,
    quality float8,
    qualities bigint NOT NULL,
    CONSTRAINT usage_rollup_key UNIQUE NULLS NOT DISTINCT (bucket, agent_name, route_name, target)
);
COMMENT ON TABLE tinydancer.usage_rollup IS
    'Sums of the usage log by hour, agent, route and target; made by tinydancer.roll_up_usage()';
COMMENT ON COLUMN tinydancer.usage_rollup.bucket IS
    'start of an hour of tinydancer.time_zone(); an hour that two months of UTC share is two buckets';
COMMENT ON COLUMN tinydancer.usage_rollup.target IS 'optimize_for of the decision';
COMMENT ON COLUMN tinydancer.usage_rollup.cost_usd IS 'sum of the costs that are known, in USD';
COMMENT ON COLUMN tinydancer.usage_rollup.costs IS 'requests whose cost is known';
COMMENT ON COLUMN tinydancer.usage_rollup.latency_ms IS 'sum of the latencies that are known, in ms';
COMMENT ON COLUMN tinydancer.usage_rollup.latencies IS 'requests whose latency is known';
COMMENT ON COLUMN tinydancer.usage_rollup.outcomes IS 'requests of which it is known whether they succeeded';
COMMENT ON COLUMN tinydancer.usage_rollup.quality IS 'sum of the qualities that are known of requests that did not fail';
COMMENT ON COLUMN tinydancer.usage_rollup.qualities IS 'how many these are';

CREATE TABLE tinydancer.usage_archive (LIKE tinydancer.usage_rollup INCLUDING COMMENTS,
    CONSTRAINT usage_archive_key UNIQUE NULLS NOT DISTINCT (bucket, agent_name, route_name, target)
);
COMMENT ON TABLE tinydancer.usage_archive IS
    'The same sums of months that tinydancer.drop_log_partitions() removed';

CREATE TABLE tinydancer.usage_total (
    agent_name text PRIMARY KEY,
    requests bigint NOT NULL,
    cost_usd float8,
    costs bigint NOT NULL,
    latency_ms float8,
    latencies bigint NOT NULL,
    successes bigint NOT NULL,
    outcomes bigint NOT NULL,
    quality float8,
    qualities bigint NOT NULL
);
COMMENT ON TABLE tinydancer.usage_total IS 'The roll-up and the archive in one row for each agent';
COMMENT ON COLUMN tinydancer.usage_total.costs IS 'requests whose cost is known';
COMMENT ON COLUMN tinydancer.usage_total.latencies IS 'requests whose latency is known';

CREATE TABLE tinydancer.usage_rollup_state (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT usage_rollup_state_one_check CHECK (one),
    horizon xid8 NOT NULL,
    time_zone text NOT NULL
);
COMMENT ON TABLE tinydancer.usage_rollup_state IS
    'One row: the roll-up holds the usage rows with an xid below the horizon, in hours of this time zone';

SELECT pg_catalog.pg_extension_config_dump('tinydancer.usage_archive', '');

CREATE FUNCTION tinydancer.keep_xid() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- No roll-up runs until this transaction ends, so what is read here stays true.
    LOCK TABLE tinydancer.usage_rollup_state IN ROW SHARE MODE;
    IF NEW.xid IS NULL OR NEW.xid > pg_current_xact_id()
       OR current_setting('session_replication_role') = 'replica'
       OR current_setting('transaction_isolation') <> 'read committed'
       OR EXISTS (SELECT FROM tinydancer.usage_rollup_state) THEN
        NEW.xid := pg_current_xact_id();
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION tinydancer.keep_xid() IS
    'Trigger: a usage row that comes with an xid, from a dump or a publisher, keeps it only where no roll-up can have '
    'passed it';
REVOKE ALL ON FUNCTION tinydancer.keep_xid() FROM PUBLIC;

-- ENABLE ALWAYS: rows that logical replication applies bring the publisher's xid.
CREATE TRIGGER keep_xid BEFORE INSERT ON tinydancer.usage
    FOR EACH ROW WHEN (NEW.xid IS DISTINCT FROM pg_current_xact_id()) EXECUTE FUNCTION tinydancer.keep_xid();
ALTER TABLE tinydancer.usage ENABLE ALWAYS TRIGGER keep_xid;

-- The roll-up ------------------------------------------------------------------------------------

CREATE FUNCTION tinydancer.usage_hours(recorded_from timestamptz, recorded_below timestamptz, xid_from xid8, xid_below xid8,
                                       zone text) RETURNS SETOF tinydancer.usage_rollup
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_sort = off
AS $$
BEGIN
    -- The planner takes every row for an hour of its own, and would sort millions of them on disk.
    RETURN QUERY
        SELECT greatest(date_trunc('hour', u.recorded_at, zone), date_trunc('month', u.recorded_at, 'UTC')),
               u.agent_name, d.route_name, d.optimize_for, count(*),
               sum(u.cost_usd), count(u.cost_usd), sum(u.latency_ms), count(u.latency_ms),
               count(*) FILTER (WHERE u.success), count(u.success),
               sum(u.quality) FILTER (WHERE u.success IS NOT FALSE), count(u.quality) FILTER (WHERE u.success IS NOT FALSE)
        FROM tinydancer.usage u
        LEFT JOIN tinydancer.decision d ON d.decision_id = u.decision_id
        WHERE u.recorded_at >= recorded_from AND u.recorded_at < recorded_below
          AND u.xid >= coalesce(xid_from, '0') AND (u.xid < xid_below OR xid_below IS NULL)
        GROUP BY 1, 2, 3, 4;
END
$$;
COMMENT ON FUNCTION tinydancer.usage_hours(timestamptz, timestamptz, xid8, xid8, text) IS
    'Usage rows of a span of time, written by a span of transactions, summed up as tinydancer.usage_rollup has them; '
    'NULL is no bound';

CREATE FUNCTION tinydancer.roll_up_usage() RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    zone text := tinydancer.time_zone();
    old_horizon xid8;
    rolled bigint;
BEGIN
    PERFORM tinydancer.require_writable('tinydancer.roll_up_usage');
    -- One run at a time, and none while rows are restored; readers and writers of the log go on.
    LOCK TABLE tinydancer.usage_rollup_state IN EXCLUSIVE MODE;
    SELECT s.horizon INTO old_horizon FROM tinydancer.usage_rollup_state s WHERE s.time_zone = zone;
    IF NOT FOUND THEN
        -- The first run, or the hours begin elsewhere now.
        DELETE FROM tinydancer.usage_rollup;
        DELETE FROM tinydancer.usage_total;
        INSERT INTO tinydancer.usage_total
        SELECT a.agent_name, sum(a.requests), sum(a.cost_usd), sum(a.costs), sum(a.latency_ms), sum(a.latencies),
               sum(a.successes), sum(a.outcomes), sum(a.quality), sum(a.qualities)
        FROM tinydancer.usage_archive a
        GROUP BY a.agent_name;
    END IF;

    -- One statement, so one snapshot for the sums and the horizon.
    WITH new AS MATERIALIZED (
        SELECT least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()) AS horizon),
    fresh AS MATERIALIZED (
        SELECT h.* FROM new n, tinydancer.usage_hours('-infinity', 'infinity', old_horizon, n.horizon, zone) AS h),
    hours AS (
        INSERT INTO tinydancer.usage_rollup AS r
        SELECT f.* FROM fresh f
        ON CONFLICT ON CONSTRAINT usage_rollup_key DO UPDATE
            SET requests = r.requests + excluded.requests,
                cost_usd = coalesce(r.cost_usd + excluded.cost_usd, r.cost_usd, excluded.cost_usd),
                costs = r.costs + excluded.costs,
                latency_ms = coalesce(r.latency_ms + excluded.latency_ms, r.latency_ms, excluded.latency_ms),
                latencies = r.latencies + excluded.latencies,
                successes = r.successes + excluded.successes,
                outcomes = r.outcomes + excluded.outcomes,
                quality = coalesce(r.quality + excluded.quality, r.quality, excluded.quality),
                qualities = r.qualities + excluded.qualities),
    totals AS (
        INSERT INTO tinydancer.usage_total AS t
        SELECT f.agent_name, sum(f.requests), sum(f.cost_usd), sum(f.costs), sum(f.latency_ms), sum(f.latencies),
               sum(f.successes), sum(f.outcomes), sum(f.quality), sum(f.qualities)
        FROM fresh f
        GROUP BY f.agent_name
        ON CONFLICT ON CONSTRAINT usage_total_pkey DO UPDATE
            SET requests = t.requests + excluded.requests,
                cost_usd = coalesce(t.cost_usd + excluded.cost_usd, t.cost_usd, excluded.cost_usd),
                costs = t.costs + excluded.costs,
                latency_ms = coalesce(t.latency_ms + excluded.latency_ms, t.latency_ms, excluded.latency_ms),
                latencies = t.latencies + excluded.latencies,
                successes = t.successes + excluded.successes,
                outcomes = t.outcomes + excluded.outcomes,
                quality = coalesce(t.quality + excluded.quality, t.quality, excluded.quality),
                qualities = t.qualities + excluded.qualities),
    state AS (
        INSERT INTO tinydancer.usage_rollup_state AS s (horizon, time_zone)
        SELECT n.horizon, zone FROM new n
        ON CONFLICT ON CONSTRAINT usage_rollup_state_pkey DO UPDATE
            SET horizon = excluded.horizon, time_zone = excluded.time_zone)
    SELECT coalesce(sum(f.requests), 0) INTO rolled FROM fresh f;
    RETURN rolled;
END
$$;
COMMENT ON FUNCTION tinydancer.roll_up_usage() IS
    'Adds to the roll-up what was recorded since the last run; ruvector_refresh_agent_stats() calls it. Returns how many '
    'usage rows it added';
REVOKE ALL ON FUNCTION tinydancer.roll_up_usage() FROM PUBLIC;

CREATE FUNCTION tinydancer.usage_sums()
    RETURNS TABLE (agent_name text, requests bigint, cost_usd float8, costs bigint, latency_ms float8, latencies bigint,
                   successes bigint, outcomes bigint, quality float8, qualities bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    horizon xid8;
BEGIN
    SELECT s.horizon INTO horizon FROM tinydancer.usage_rollup_state s WHERE s.time_zone = tinydancer.time_zone();
    RETURN QUERY
        SELECT p.agent_name, sum(p.requests)::bigint, sum(p.cost_usd), sum(p.costs)::bigint, sum(p.latency_ms),
               sum(p.latencies)::bigint, sum(p.successes)::bigint, sum(p.outcomes)::bigint, sum(p.quality),
               sum(p.qualities)::bigint
        FROM (SELECT t.* FROM tinydancer.usage_total t WHERE horizon IS NOT NULL
              UNION ALL
              SELECT a.agent_name, sum(a.requests), sum(a.cost_usd), sum(a.costs), sum(a.latency_ms), sum(a.latencies),
                     sum(a.successes), sum(a.outcomes), sum(a.quality), sum(a.qualities)
              FROM tinydancer.usage_archive a WHERE horizon IS NULL
              GROUP BY a.agent_name
              UNION ALL
              SELECT u.agent_name, count(*), sum(u.cost_usd), count(u.cost_usd), sum(u.latency_ms), count(u.latency_ms),
                     count(*) FILTER (WHERE u.success), count(u.success),
                     sum(u.quality) FILTER (WHERE u.success IS NOT FALSE),
                     count(u.quality) FILTER (WHERE u.success IS NOT FALSE)
              FROM tinydancer.usage u WHERE u.xid >= coalesce(horizon, '0')
              GROUP BY u.agent_name) AS p
        GROUP BY p.agent_name;
END
$$;
COMMENT ON FUNCTION tinydancer.usage_sums() IS
    'All usage there ever was in one row for each agent, registered or not; figures that are not known are left out of '
    'sums and counts';
