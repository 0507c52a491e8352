-- A decision that is acted on: chosen, paid for and logged in one call.

CREATE FUNCTION ruvector_dispatch(
    request text,
    optimize_for text DEFAULT NULL,
    required_capabilities text[] DEFAULT NULL,
    max_cost float8 DEFAULT NULL,
    max_latency_ms float8 DEFAULT NULL,
    min_quality float8 DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    budget_remaining float8 DEFAULT NULL,
    embedding real[] DEFAULT NULL,
    pool text DEFAULT NULL,
    min_expected_quality float8 DEFAULT NULL,
    route_name text DEFAULT NULL,
    OUT agent_name text,
    OUT confidence float8,
    OUT estimated_cost float8,
    OUT estimated_latency_ms float8,
    OUT expected_quality float8,
    OUT similarity float8,
    OUT reasoning text,
    OUT decision_id bigint)
    RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    budgeted boolean;
    d record;
    known text[];
    guess text;
BEGIN
    PERFORM tinydancer.require_writable('ruvector_dispatch');
    IF ruvector_dispatch.route_name IS NOT NULL
       AND NOT EXISTS (SELECT FROM tinydancer.route r WHERE r.name = ruvector_dispatch.route_name) THEN
        known := ARRAY(SELECT r.name FROM tinydancer.route r ORDER BY r.name LIMIT 1000);
        guess := tinydancer.closest(ruvector_dispatch.route_name, known);
        RAISE EXCEPTION 'route "%" does not exist', ruvector_dispatch.route_name
            USING ERRCODE = 'undefined_object',
                  DETAIL = 'No row of tinydancer.route has this name.',
                  HINT = coalesce('Perhaps you meant "' || guess || '".',
                                  'Pass the route that the request matched, or NULL.');
    END IF;

    budgeted := tinydancer.open_budgets();
    IF NOT budgeted THEN
        SELECT r.*, a.pool, 1 AS rank, true AS allowed INTO d
        FROM @extschema@.ruvector_route(
                 ruvector_dispatch.request, ruvector_dispatch.optimize_for, ruvector_dispatch.required_capabilities,
                 ruvector_dispatch.max_cost, ruvector_dispatch.max_latency_ms, ruvector_dispatch.min_quality,
                 ruvector_dispatch.excluded_agents, ruvector_dispatch.budget_remaining, ruvector_dispatch.embedding,
                 ruvector_dispatch.pool, ruvector_dispatch.min_expected_quality) AS r
        LEFT JOIN tinydancer.agent a ON a.name = r.agent_name;
    ELSE
        -- The best of those that every budget can pay; else, for the error, the best whose cost is known.
        -- The conditions are those of tinydancer.budget_refusal().
        WITH state AS MATERIALIZED (
            SELECT s.scope, s.name, s.reserved_usd + s.spent_usd AS used_usd, s.limit_usd FROM tinydancer.budget_state() AS s)
        SELECT c.* INTO d
        FROM (SELECT e.agent_name, e.expected_quality AS confidence, e.estimated_cost, e.estimated_latency_ms,
                     e.expected_quality, e.similarity, e.reasoning, a.pool, e.rank,
                     NOT EXISTS (SELECT FROM state s
                                 WHERE (s.scope = 'all'
                                        OR s.name = CASE s.scope WHEN 'agent' THEN e.agent_name ELSE a.pool END)
                                   AND (e.estimated_cost IS NULL
                                        OR e.estimated_cost > 0
                                           AND s.used_usd + e.estimated_cost::numeric > s.limit_usd)) AS allowed
              FROM @extschema@.ruvector_explain_route(
                       ruvector_dispatch.request, ruvector_dispatch.optimize_for, ruvector_dispatch.required_capabilities,
                       ruvector_dispatch.max_cost, ruvector_dispatch.max_latency_ms, ruvector_dispatch.min_quality,
                       ruvector_dispatch.excluded_agents, ruvector_dispatch.budget_remaining, ruvector_dispatch.embedding,
                       ruvector_dispatch.pool, ruvector_dispatch.min_expected_quality) AS e
              LEFT JOIN tinydancer.agent a ON a.name = e.agent_name
              WHERE e.eligible) AS c
        ORDER BY c.allowed DESC, NOT c.allowed AND c.estimated_cost IS NULL, c.rank
        LIMIT 1;
    END IF;
    IF d.agent_name IS NULL THEN
        RETURN;
    END IF;
    IF NOT d.allowed THEN
        PERFORM tinydancer.raise_over_budget(d.agent_name, d.pool, d.estimated_cost, now());
    END IF;

    agent_name := d.agent_name;
    confidence := d.confidence;
    estimated_cost := d.estimated_cost;
    estimated_latency_ms := d.estimated_latency_ms;
    expected_quality := d.expected_quality;
    similarity := d.similarity;
    reasoning := d.reasoning || CASE WHEN d.rank = 2 THEN '; a better one is over its budget'
                                     WHEN d.rank > 2 THEN format('; %s better ones are over their budgets', d.rank - 1)
                                     ELSE '' END;
    INSERT INTO tinydancer.decision AS l (
        request, agent_name, pool, route_name, confidence, estimated_cost, estimated_latency_ms, expected_quality,
        similarity, optimize_for, limits, reasoning, model, encoder, propensity)
    VALUES (
        ruvector_dispatch.request, d.agent_name, d.pool, ruvector_dispatch.route_name, d.confidence, d.estimated_cost,
        d.estimated_latency_ms, d.expected_quality, d.similarity, coalesce(ruvector_dispatch.optimize_for, 'balanced'),
        nullif(jsonb_strip_nulls(jsonb_build_object(
            'required_capabilities', ruvector_dispatch.required_capabilities,
            'max_cost', ruvector_dispatch.max_cost,
            'max_latency_ms', ruvector_dispatch.max_latency_ms,
            'min_quality', ruvector_dispatch.min_quality,
            'excluded_agents', ruvector_dispatch.excluded_agents,
            'budget_remaining', ruvector_dispatch.budget_remaining,
            'pool', ruvector_dispatch.pool,
            'min_expected_quality', ruvector_dispatch.min_expected_quality)), '{}'),
        reasoning,
        tinydancer.active_model('quality'),
        coalesce((SELECT s.value FROM tinydancer.setting s WHERE s.name = 'encoder'),
                 (SELECT e.id FROM tinydancer.active_encoder() e)),
        1)
    RETURNING l.decision_id INTO decision_id;

    IF budgeted AND d.estimated_cost > 0 THEN
        UPDATE tinydancer.budget_counter c
        SET reserved_usd = c.reserved_usd + d.estimated_cost::numeric
        WHERE c.period_start <= now() AND c.period_end > now()
          AND (c.scope = 'all' OR c.name = CASE c.scope WHEN 'agent' THEN d.agent_name ELSE d.pool END);
        IF FOUND THEN
            INSERT INTO tinydancer.budget_reservation (decision_id, decided_at, agent_name, pool, amount_usd)
            VALUES (decision_id, now(), d.agent_name, d.pool, d.estimated_cost::numeric);
        END IF;
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION ruvector_dispatch(text, text, text[], float8, float8, float8, text[], float8, real[], text, float8, text) IS
    'Chooses the best agent that the limits and every budget allow, reserves its estimated cost and logs the decision; '
    'no row when no agent passes the limits';
REVOKE ALL ON FUNCTION ruvector_dispatch(text, text, text[], float8, float8, float8, text[], float8, real[], text, float8, text)
    FROM PUBLIC;
