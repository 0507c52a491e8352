-- Dropping old months of the logs: their sums stay.

CREATE FUNCTION tinydancer.archive_usage(month_start timestamptz, month_end timestamptz) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    zone text := tinydancer.time_zone();
    horizon xid8;
BEGIN
    SELECT s.horizon INTO horizon FROM tinydancer.usage_rollup_state s;
    -- From the rows themselves: the roll-up may not hold all of them yet.
    INSERT INTO tinydancer.usage_archive AS a
    SELECT h.* FROM tinydancer.usage_hours(month_start, month_end, NULL, NULL, zone) AS h
    ON CONFLICT ON CONSTRAINT usage_archive_key DO UPDATE
        SET requests = a.requests + excluded.requests,
            cost_usd = coalesce(a.cost_usd + excluded.cost_usd, a.cost_usd, excluded.cost_usd),
            costs = a.costs + excluded.costs,
            latency_ms = coalesce(a.latency_ms + excluded.latency_ms, a.latency_ms, excluded.latency_ms),
            latencies = a.latencies + excluded.latencies,
            successes = a.successes + excluded.successes,
            outcomes = a.outcomes + excluded.outcomes,
            quality = coalesce(a.quality + excluded.quality, a.quality, excluded.quality),
            qualities = a.qualities + excluded.qualities;
    DELETE FROM tinydancer.usage_rollup r WHERE r.bucket >= month_start AND r.bucket < month_end;
    -- The totals have what was rolled up, and now also what never will be.
    IF horizon IS NOT NULL THEN
        INSERT INTO tinydancer.usage_total AS t
        SELECT h.agent_name, sum(h.requests), sum(h.cost_usd), sum(h.costs), sum(h.latency_ms), sum(h.latencies),
               sum(h.successes), sum(h.outcomes), sum(h.quality), sum(h.qualities)
        FROM tinydancer.usage_hours(month_start, month_end, horizon, NULL, zone) AS h
        GROUP BY h.agent_name
        ON CONFLICT ON CONSTRAINT usage_total_pkey DO UPDATE
            SET requests = t.requests + excluded.requests,
                cost_usd = coalesce(t.cost_usd + excluded.cost_usd, t.cost_usd, excluded.cost_usd),
                costs = t.costs + excluded.costs,
                latency_ms = coalesce(t.latency_ms + excluded.latency_ms, t.latency_ms, excluded.latency_ms),
                latencies = t.latencies + excluded.latencies,
                successes = t.successes + excluded.successes,
                outcomes = t.outcomes + excluded.outcomes,
                quality = coalesce(t.quality + excluded.quality, t.quality, excluded.quality),
                qualities = t.qualities + excluded.qualities;
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.archive_usage(timestamptz, timestamptz) IS
    'Moves the sums of a month whose usage rows are about to be dropped to the archive';
REVOKE ALL ON FUNCTION tinydancer.archive_usage(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION tinydancer.drop_log_partitions(older_than interval)
    RETURNS TABLE (partition text, rows_dropped bigint)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cutoff timestamptz;
    m record;
BEGIN
    PERFORM tinydancer.require_writable('tinydancer.drop_log_partitions');
    PERFORM tinydancer.require_interval(older_than, 'older_than', 'tinydancer.drop_log_partitions');
    -- Rows that an older snapshot does not see would be dropped without a trace.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'cannot drop log partitions in a transaction that keeps its snapshot'
            USING ERRCODE = 'invalid_transaction_state',
                  DETAIL = format('The isolation level is %s.', current_setting('transaction_isolation')),
                  HINT = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
    END IF;
    -- Timestamps do not reach back that far.
    IF older_than >= interval '4000 years' THEN
        RETURN;
    END IF;
    cutoff := now() - older_than;
    IF NOT EXISTS (SELECT FROM tinydancer.log_partitions() p WHERE p.month_end <= cutoff) THEN
        RETURN;
    END IF;
    LOCK TABLE tinydancer.usage_rollup_state IN EXCLUSIVE MODE;
    LOCK TABLE tinydancer.decision, tinydancer.usage IN ACCESS EXCLUSIVE MODE;
    -- Usage first, as long as its decisions are there to say which route and target it belongs to.
    FOR m IN
        SELECT p.* FROM tinydancer.log_partitions() p WHERE p.month_end <= cutoff ORDER BY p.log DESC, p.month_start
    LOOP
        partition := m.partition;
        EXECUTE format('SELECT count(*) FROM tinydancer.%I', partition) INTO rows_dropped;
        IF m.log = 'usage' THEN
            PERFORM tinydancer.archive_usage(m.month_start, m.month_end);
        END IF;
        EXECUTE format('DROP TABLE tinydancer.%I', partition);
        RETURN NEXT;
    END LOOP;
    DELETE FROM tinydancer.budget_reservation r WHERE r.decided_at < cutoff;
    DELETE FROM tinydancer.budget_counter c WHERE c.period_end <= cutoff;
END
$$;
COMMENT ON FUNCTION tinydancer.drop_log_partitions(interval) IS
    'Drops the monthly partitions of both logs that ended longer ago than older_than; their sums stay in analytics. Rows in '
    'the default partition stay: tinydancer.make_log_partitions() gives them partitions first';
REVOKE ALL ON FUNCTION tinydancer.drop_log_partitions(interval) FROM PUBLIC;
