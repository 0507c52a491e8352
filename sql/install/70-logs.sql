-- The logs: append-only, and partitioned by month.
--
-- CREATE EXTENSION makes the default partitions only.  Those of months are made at run time, by
-- tinydancer.make_log_partitions(), and are therefore no members of the extension: pg_dump carries
-- them and their rows.

CREATE FUNCTION tinydancer.refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'log "%" is append-only', regexp_replace(TG_TABLE_NAME, '_(default|y\d+m\d+)$', '')
        USING ERRCODE = 'object_not_in_prerequisite_state',
              DETAIL = format('%s on %I.%I would change what was written.', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
              HINT = 'Insert a row that corrects the other; tinydancer.drop_log_partitions() removes old months.';
END
$$;
COMMENT ON FUNCTION tinydancer.refuse_change() IS 'Trigger of the logs: rows are neither changed nor removed';
REVOKE ALL ON FUNCTION tinydancer.refuse_change() FROM PUBLIC;

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON tinydancer.decision
    FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON tinydancer.decision_default
    FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON tinydancer.usage
    FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON tinydancer.usage_default
    FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.refuse_change();

-- Figures -----------------------------------------------------------------------------------------

CREATE FUNCTION tinydancer.require_figure(value float8, argument text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (require_figure.value >= 0 AND require_figure.value < 'Infinity') THEN
        RAISE EXCEPTION '% must be a finite number that is not negative', require_figure.argument
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The value is %s.', require_figure.value),
                  HINT = 'Pass NULL for not known.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.require_figure(float8, text) IS
    'Raises the error for a cost, a latency or a count that cannot be; NULL is not known';

CREATE FUNCTION tinydancer.require_share(value float8, argument text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (require_share.value BETWEEN 0 AND 1) THEN
        RAISE EXCEPTION '% must be between 0 and 1', require_share.argument
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The value is %s.', require_share.value),
                  HINT = 'Divide a score in percent by 100; pass NULL for not known.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.require_share(float8, text) IS
    'Raises the error for a quality that is not between 0 and 1; NULL is not known';

CREATE FUNCTION tinydancer.require_interval(value interval, argument text, function text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tinydancer.require_value(require_interval.value::text, require_interval.argument, require_interval.function);
    IF require_interval.value < interval '0' THEN
        RAISE EXCEPTION '% must not be negative', require_interval.argument
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The value is %s.', require_interval.value),
                  HINT = 'Write ''3 months'' or ''7 days''.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.require_interval(interval, text, text) IS
    'Raises the error for an interval that is NULL or negative';

CREATE FUNCTION tinydancer.require_writable(function text) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'cannot execute %() in a read-only transaction', require_writable.function
            USING ERRCODE = 'read_only_sql_transaction',
                  DETAIL = CASE WHEN pg_is_in_recovery()
                                THEN 'This server is a standby, and the function writes to tables.'
                                ELSE 'The function writes to tables.' END,
                  HINT = 'Call it on the primary, in a transaction that may write; ruvector_route() decides without '
                         'writing, on a standby too.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.require_writable(text) IS
    'Raises the error for a function that writes where nothing can be written';

-- Time ------------------------------------------------------------------------------------------

CREATE FUNCTION tinydancer.time_zone() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT s.value FROM tinydancer.setting s WHERE s.name = 'time_zone'), 'UTC')
$$;
COMMENT ON FUNCTION tinydancer.time_zone() IS
    'Time zone in which days, weeks and months of budgets and analytics begin, whatever a session''s TimeZone is; '
    'UTC until tinydancer.set_time_zone() says otherwise';

-- Partitions --------------------------------------------------------------------------------------

CREATE FUNCTION tinydancer.log_partitions()
    RETURNS TABLE (log text, partition text, month_start timestamptz, month_end timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 24 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.log, c.relname::text, m.start AT TIME ZONE 'UTC', (m.start + interval '1 month') AT TIME ZONE 'UTC'
    FROM (VALUES ('decision', 'tinydancer.decision'::regclass), ('usage', 'tinydancer.usage')) AS l (log, parent)
    JOIN pg_inherits i ON i.inhparent = l.parent
    JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL regexp_match(c.relname, '^' || l.log || '_y(\d{4,6})m(\d\d)$') AS n (part)
    CROSS JOIN LATERAL make_timestamp(n.part[1]::integer, n.part[2]::integer, 1, 0, 0, 0) AS m (start)
    WHERE n.part IS NOT NULL
    ORDER BY l.log, m.start
$$;
COMMENT ON FUNCTION tinydancer.log_partitions() IS
    'The monthly partitions that tinydancer.make_log_partitions() made; months are those of UTC';

-- Rows of the default partition move before the new table becomes a partition: no trigger fires, so
-- they keep the transaction by which the roll-up knows them.
CREATE FUNCTION tinydancer.make_log_partition(log text, month timestamp, OUT partition text, OUT rows_moved bigint)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stamp CONSTANT text := CASE log WHEN 'decision' THEN 'decided_at' ELSE 'recorded_at' END;
    low CONSTANT timestamptz := month AT TIME ZONE 'UTC';
    high CONSTANT timestamptz := (month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    partition := format('%s_y%sm%s', log, lpad(date_part('year', month)::text, 4, '0'), to_char(month, 'MM'));
    EXECUTE format('CREATE TABLE tinydancer.%I (LIKE tinydancer.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)',
                   partition, log || '_default');
    EXECUTE format('LOCK TABLE tinydancer.%I IN ACCESS EXCLUSIVE MODE', log || '_default');
    EXECUTE format('ALTER TABLE tinydancer.%I DISABLE TRIGGER refuse_change', log || '_default');
    EXECUTE format('WITH moved AS (DELETE FROM tinydancer.%I WHERE %I >= $1 AND %I < $2 RETURNING *) '
                   'INSERT INTO tinydancer.%I SELECT * FROM moved', log || '_default', stamp, stamp, partition)
        USING low, high;
    GET DIAGNOSTICS rows_moved = ROW_COUNT;
    EXECUTE format('ALTER TABLE tinydancer.%I ENABLE TRIGGER refuse_change', log || '_default');
    EXECUTE format('ALTER TABLE tinydancer.%I ATTACH PARTITION tinydancer.%I FOR VALUES FROM (%L) TO (%L)',
                   log, partition, low, high);
    EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON tinydancer.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.refuse_change()', partition);
END
$$;
COMMENT ON FUNCTION tinydancer.make_log_partition(text, timestamp) IS
    'Makes the partition of one month (of UTC) of one log; tinydancer.make_log_partitions() calls it';
REVOKE ALL ON FUNCTION tinydancer.make_log_partition(text, timestamp) FROM PUBLIC;

CREATE FUNCTION tinydancer.make_log_partitions(ahead interval DEFAULT interval '3 months')
    RETURNS TABLE (partition text, rows_moved bigint)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    logs text[];
    months timestamp[];
BEGIN
    PERFORM tinydancer.require_writable('tinydancer.make_log_partitions');
    PERFORM tinydancer.require_interval(ahead, 'ahead', 'tinydancer.make_log_partitions');
    IF ahead > interval '10 years' THEN
        RAISE EXCEPTION 'ahead must be at most 10 years'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The value is %s, and each month becomes a table.', ahead),
                  HINT = 'Write ''3 months'', and call the function once a month.';
    END IF;
    -- This month, those ahead, and every month that the default partition holds rows of.  Read to the
    -- end first: what a query reads cannot be altered.
    SELECT array_agg(w.log ORDER BY w.log, w.month), array_agg(w.month ORDER BY w.log, w.month) INTO logs, months
    FROM (SELECT l.log, g.month
          FROM unnest(ARRAY['decision', 'usage']) AS l (log),
               generate_series(date_trunc('month', now() AT TIME ZONE 'UTC'), (now() + ahead) AT TIME ZONE 'UTC',
                               interval '1 month') AS g (month)
          UNION
          SELECT 'decision', date_trunc('month', d.decided_at AT TIME ZONE 'UTC') FROM tinydancer.decision_default d
          UNION
          SELECT 'usage', date_trunc('month', u.recorded_at AT TIME ZONE 'UTC') FROM tinydancer.usage_default u) AS w
    -- Years that a partition's name and bounds can have.
    WHERE w.month >= '0001-01-01' AND w.month < '200000-01-01'
      AND NOT EXISTS (SELECT FROM tinydancer.log_partitions() p
                      WHERE p.log = w.log AND p.month_start = w.month AT TIME ZONE 'UTC');
    FOR i IN 1 .. coalesce(cardinality(logs), 0) LOOP
        SELECT p.partition, p.rows_moved INTO partition, rows_moved
        FROM tinydancer.make_log_partition(logs[i], months[i]) p;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.make_log_partitions(interval) IS
    'Makes the monthly partitions of both logs from this month to now + ahead, and those of older rows that lie in the '
    'default partition, and moves the rows; returns what it made';
REVOKE ALL ON FUNCTION tinydancer.make_log_partitions(interval) FROM PUBLIC;
