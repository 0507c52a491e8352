-- What requests really cost and how they went.

CREATE FUNCTION ruvector_record_usage(
    agent text,
    actual_cost float8 DEFAULT NULL,
    success boolean DEFAULT NULL,
    latency_ms float8 DEFAULT NULL,
    quality float8 DEFAULT NULL,
    decision_id bigint DEFAULT NULL,
    input_tokens bigint DEFAULT NULL,
    output_tokens bigint DEFAULT NULL,
    recorded_at timestamptz DEFAULT NULL)
    RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    at timestamptz := coalesce(ruvector_record_usage.recorded_at, now());
    -- When and in which pool the request counts for budgets.
    charged_at timestamptz := coalesce(ruvector_record_usage.recorded_at, now());
    charged_pool text;
    decision record;
    reserved record;
BEGIN
    PERFORM tinydancer.require_writable('ruvector_record_usage');
    PERFORM tinydancer.require_value(ruvector_record_usage.agent, 'agent', 'ruvector_record_usage');
    PERFORM tinydancer.require_figure(ruvector_record_usage.actual_cost, 'actual_cost');
    PERFORM tinydancer.require_figure(ruvector_record_usage.latency_ms, 'latency_ms');
    PERFORM tinydancer.require_share(ruvector_record_usage.quality, 'quality');
    PERFORM tinydancer.require_figure(ruvector_record_usage.input_tokens, 'input_tokens');
    PERFORM tinydancer.require_figure(ruvector_record_usage.output_tokens, 'output_tokens');
    -- The log keeps it for good, and sums must not overflow.
    IF greatest(ruvector_record_usage.actual_cost, ruvector_record_usage.latency_ms) > 1e12 THEN
        RAISE EXCEPTION 'actual_cost and latency_ms must be at most 1e12'
            USING ERRCODE = 'numeric_value_out_of_range',
                  DETAIL = format('The cost is %s USD, the latency %s ms.',
                                  coalesce(ruvector_record_usage.actual_cost::text, 'unknown'),
                                  coalesce(ruvector_record_usage.latency_ms::text, 'unknown')),
                  HINT = 'Pass costs in USD and latencies in ms.';
    END IF;
    IF at < '4700-01-01 00:00+00 BC' OR at >= '290000-01-01 00:00+00' THEN
        RAISE EXCEPTION 'recorded_at is out of range'
            USING ERRCODE = 'datetime_field_overflow',
                  DETAIL = format('The value is %s; the log takes times from 4700 BC to the year 290000.', at),
                  HINT = 'Pass NULL for now.';
    END IF;

    SELECT a.pool INTO charged_pool FROM tinydancer.agent a WHERE a.name = ruvector_record_usage.agent;
    -- Money that was spent is a fact, also when the agent was removed since: its decision vouches for it.
    IF NOT FOUND AND ruvector_record_usage.decision_id IS NULL THEN
        PERFORM tinydancer.raise_unknown_agent(ruvector_record_usage.agent);
    END IF;
    IF ruvector_record_usage.decision_id IS NOT NULL THEN
        SELECT d.agent_name, d.decided_at, d.pool INTO decision
        FROM tinydancer.decision d WHERE d.decision_id = ruvector_record_usage.decision_id LIMIT 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'decision % does not exist', ruvector_record_usage.decision_id
                USING ERRCODE = 'undefined_object',
                      DETAIL = 'The decision log has no row with this decision_id.',
                      HINT = 'Pass the decision_id that ruvector_dispatch() returned, or NULL.';
        END IF;
        IF decision.agent_name <> ruvector_record_usage.agent THEN
            RAISE EXCEPTION 'decision % did not choose agent "%"', ruvector_record_usage.decision_id, ruvector_record_usage.agent
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = format('It chose agent "%s".', decision.agent_name),
                      HINT = 'Pass the agent that was chosen; record what another agent did without a decision_id.';
        END IF;
        charged_at := decision.decided_at;
        charged_pool := coalesce(decision.pool, charged_pool);
    END IF;

    -- Missing counters are counted from the logs, so before this row is in them.
    PERFORM tinydancer.open_budgets();
    INSERT INTO tinydancer.usage (recorded_at, agent_name, decision_id, cost_usd, latency_ms, success, quality,
                                  input_tokens, output_tokens)
    VALUES (at, ruvector_record_usage.agent, ruvector_record_usage.decision_id, ruvector_record_usage.actual_cost,
            ruvector_record_usage.latency_ms, ruvector_record_usage.success, ruvector_record_usage.quality,
            ruvector_record_usage.input_tokens, ruvector_record_usage.output_tokens);

    -- The actual cost takes the place of the estimate, once.  As long as it is not known, the estimate stands.
    IF ruvector_record_usage.actual_cost IS NOT NULL THEN
        IF ruvector_record_usage.decision_id IS NOT NULL THEN
            DELETE FROM tinydancer.budget_reservation r
            WHERE r.decision_id = ruvector_record_usage.decision_id
            RETURNING r.pool, r.amount_usd INTO reserved;
            IF FOUND THEN
                UPDATE tinydancer.budget_counter c
                SET reserved_usd = c.reserved_usd - reserved.amount_usd
                WHERE c.period_start <= charged_at AND c.period_end > charged_at
                  AND (c.scope = 'all'
                       OR c.name = CASE c.scope WHEN 'agent' THEN ruvector_record_usage.agent ELSE reserved.pool END);
            END IF;
        END IF;
        UPDATE tinydancer.budget_counter c
        SET spent_usd = c.spent_usd + ruvector_record_usage.actual_cost::numeric
        WHERE c.period_start <= charged_at AND c.period_end > charged_at
          AND (c.scope = 'all'
               OR c.name = CASE c.scope WHEN 'agent' THEN ruvector_record_usage.agent ELSE charged_pool END);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_record_usage(text, float8, boolean, float8, float8, bigint, bigint, bigint, timestamptz) IS
    'Appends to the usage log what a request cost and how it went; with a decision_id the cost replaces what '
    'ruvector_dispatch() reserved';
REVOKE ALL ON FUNCTION ruvector_record_usage(text, float8, boolean, float8, float8, bigint, bigint, bigint, timestamptz)
    FROM PUBLIC;

CREATE FUNCTION ruvector_update_agent_metrics(
    name text,
    latency_ms float8 DEFAULT NULL,
    success boolean DEFAULT NULL,
    quality float8 DEFAULT NULL)
    RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tinydancer.require_writable('ruvector_update_agent_metrics');
    PERFORM tinydancer.require_value(ruvector_update_agent_metrics.name, 'name', 'ruvector_update_agent_metrics');
    IF num_nonnulls(ruvector_update_agent_metrics.latency_ms, ruvector_update_agent_metrics.success,
                    ruvector_update_agent_metrics.quality) = 0 THEN
        RAISE EXCEPTION 'there is nothing to record of agent "%"', ruvector_update_agent_metrics.name
            USING ERRCODE = 'null_value_not_allowed',
                  DETAIL = 'latency_ms, success and quality are all NULL.',
                  HINT = 'Pass what is known of the request.';
    END IF;
    RETURN @extschema@.ruvector_record_usage(
        ruvector_update_agent_metrics.name, NULL, ruvector_update_agent_metrics.success,
        ruvector_update_agent_metrics.latency_ms, ruvector_update_agent_metrics.quality);
END
$$;
COMMENT ON FUNCTION ruvector_update_agent_metrics(text, float8, boolean, float8) IS
    'Appends one request''s latency, success and quality to the usage log; ruvector_refresh_agent_stats() brings them '
    'into the registry';
REVOKE ALL ON FUNCTION ruvector_update_agent_metrics(text, float8, boolean, float8) FROM PUBLIC;

CREATE FUNCTION ruvector_clear_agents() RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tinydancer.agent;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_clear_agents() IS
    'Removes every agent and its phrases; logs, routes and budgets stay';
REVOKE ALL ON FUNCTION ruvector_clear_agents() FROM PUBLIC;
