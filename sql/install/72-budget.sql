-- Budgets: caps on what is spent in a day, a week or a month, on everything, an agent or a pool.
--
-- A budget has one counter for each of its periods: what was spent in it, and what is reserved for
-- requests that are under way.  A counter that is missing is counted from the logs.  Whoever changes
-- counters locks the one row of tinydancer.budget_lock first and keeps it until the end of its
-- transaction, however many requests it dispatches: with one lock there is no order to get wrong, and
-- no deadlock.  Sums are numeric: ten times 0.1 is 1.

CREATE TABLE tinydancer.budget_counter (
    scope text NOT NULL,
    name text NOT NULL,
    period text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    reserved_usd numeric NOT NULL,
    spent_usd numeric NOT NULL,
    PRIMARY KEY (scope, name, period, period_start),
    FOREIGN KEY (scope, name, period) REFERENCES tinydancer.budget ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT budget_counter_period_check CHECK (period_start < period_end)
) WITH (fillfactor = 50);  -- room for the versions of rows that change all the time
COMMENT ON TABLE tinydancer.budget_counter IS 'What is spent and reserved in each period of each budget';
COMMENT ON COLUMN tinydancer.budget_counter.reserved_usd IS
    'USD estimated for requests that were dispatched in the period and whose cost is not recorded yet';
COMMENT ON COLUMN tinydancer.budget_counter.spent_usd IS
    'USD recorded: of requests dispatched in the period, and of usage in it that names no decision';

CREATE TABLE tinydancer.budget_reservation (
    decision_id bigint PRIMARY KEY,
    decided_at timestamptz NOT NULL,
    agent_name text NOT NULL,
    pool text,
    amount_usd numeric NOT NULL CONSTRAINT budget_reservation_amount_usd_check CHECK (amount_usd >= 0)
);
COMMENT ON TABLE tinydancer.budget_reservation IS
    'What ruvector_dispatch() reserved and ruvector_record_usage() has not replaced by a cost yet';

CREATE TABLE tinydancer.budget_lock (
    turn boolean PRIMARY KEY DEFAULT true CONSTRAINT budget_lock_turn_check CHECK (turn)
);
COMMENT ON TABLE tinydancer.budget_lock IS 'One row, locked by whoever changes budget counters';

SELECT pg_catalog.pg_extension_config_dump('tinydancer.budget_counter', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.budget_reservation', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.budget_lock', '');

-- Counting --------------------------------------------------------------------------------------

CREATE FUNCTION tinydancer.period_bounds(period text, at timestamptz, zone text,
                                         OUT period_start timestamptz, OUT period_end timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.start AT TIME ZONE period_bounds.zone,
           (p.start + ('1 ' || period_bounds.period)::interval) AT TIME ZONE period_bounds.zone
    FROM date_trunc(period_bounds.period, period_bounds.at AT TIME ZONE period_bounds.zone) AS p (start)
$$;
COMMENT ON FUNCTION tinydancer.period_bounds(text, timestamptz, text) IS
    'The day, week (from Monday) or month of a time zone that a moment lies in';

-- A request is paid in the period in which it was dispatched, however late its cost is known.
CREATE FUNCTION tinydancer.count_spending(scope text, name text, period_start timestamptz, period_end timestamptz,
                                          OUT reserved_usd numeric, OUT spent_usd numeric)
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT coalesce(sum(r.amount_usd), 0)
            FROM tinydancer.budget_reservation r
            WHERE r.decided_at >= count_spending.period_start AND r.decided_at < count_spending.period_end
              AND CASE count_spending.scope WHEN 'all' THEN true
                                            WHEN 'agent' THEN r.agent_name = count_spending.name
                                            ELSE r.pool = count_spending.name END),
           -- As numeric one by one, as they are charged.
           (SELECT coalesce(sum(u.cost_usd::numeric), 0)
            FROM tinydancer.usage u
            LEFT JOIN tinydancer.decision d ON d.decision_id = u.decision_id
            LEFT JOIN tinydancer.agent a ON a.name = u.agent_name
            -- A clock may lag, but not by a day: usage is recorded after its decision.
            WHERE u.recorded_at >= count_spending.period_start - interval '1 day'
              AND coalesce(d.decided_at, u.recorded_at) >= count_spending.period_start
              AND coalesce(d.decided_at, u.recorded_at) < count_spending.period_end
              AND CASE count_spending.scope WHEN 'all' THEN true
                                            WHEN 'agent' THEN u.agent_name = count_spending.name
                                            ELSE coalesce(d.pool, a.pool) = count_spending.name END)
$$;
COMMENT ON FUNCTION tinydancer.count_spending(text, text, timestamptz, timestamptz) IS
    'What the logs say was spent and is reserved in a period of a budget';

CREATE FUNCTION tinydancer.budget_state(at timestamptz DEFAULT now())
    RETURNS TABLE (scope text, name text, period text, limit_usd numeric, reserved_usd numeric, spent_usd numeric,
                   period_start timestamptz, period_end timestamptz, counted boolean)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.scope, b.name, b.period, b.limit_usd::numeric,
           coalesce(c.reserved_usd, n.reserved_usd), coalesce(c.spent_usd, n.spent_usd),
           p.period_start, p.period_end, c.scope IS NOT NULL
    FROM tinydancer.budget b
    CROSS JOIN (SELECT tinydancer.time_zone() AS zone OFFSET 0) AS z
    CROSS JOIN LATERAL tinydancer.period_bounds(b.period, budget_state.at, z.zone) AS p
    LEFT JOIN tinydancer.budget_counter c
        ON c.scope = b.scope AND c.name = b.name AND c.period = b.period AND c.period_start = p.period_start
    -- STRICT, so nothing is counted where there is a counter.
    CROSS JOIN LATERAL tinydancer.count_spending(b.scope, b.name, CASE WHEN c.scope IS NULL THEN p.period_start END,
                                                 p.period_end) AS n
$$;
COMMENT ON FUNCTION tinydancer.budget_state(timestamptz) IS
    'Every budget with what is spent and reserved in its current period, and when that ends';

CREATE FUNCTION tinydancer.budget_refusal(agent text, pool text, cost float8, at timestamptz)
    RETURNS TABLE (scope text, name text, period text, limit_usd numeric, reserved_usd numeric, spent_usd numeric,
                   period_end timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.scope, s.name, s.period, s.limit_usd, s.reserved_usd, s.spent_usd, s.period_end
    FROM tinydancer.budget_state(budget_refusal.at) AS s
    WHERE (s.scope = 'all' OR s.name = CASE s.scope WHEN 'agent' THEN budget_refusal.agent ELSE budget_refusal.pool END)
      -- What is free takes nothing; what has no known cost may take anything.
      AND (budget_refusal.cost IS NULL
           OR budget_refusal.cost > 0
              AND s.reserved_usd + s.spent_usd + budget_refusal.cost::numeric > s.limit_usd)
    -- The one that refuses longest.
    ORDER BY s.period_end DESC, s.scope, s.name
    LIMIT 1
$$;
COMMENT ON FUNCTION tinydancer.budget_refusal(text, text, float8, timestamptz) IS
    'The budget that cannot pay an agent''s request; no row when all of them can';

CREATE FUNCTION tinydancer.raise_over_budget(agent text, pool text, cost float8, at timestamptz) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s record;
BEGIN
    SELECT r.* INTO s
    FROM tinydancer.budget_refusal(raise_over_budget.agent, raise_over_budget.pool, raise_over_budget.cost,
                                   raise_over_budget.at) AS r;
    RAISE EXCEPTION 'the % cannot pay for the request',
                    CASE s.period WHEN 'day' THEN 'daily' WHEN 'week' THEN 'weekly' ELSE 'monthly' END
                    || CASE s.scope WHEN 'all' THEN ' budget of all agents'
                                    ELSE format(' budget of %s "%s"', s.scope, s.name) END
        USING ERRCODE = 'configuration_limit_exceeded',
              DETAIL = format('Scope %s: spent %s USD, reserved %s USD, limit %s USD; %s. The budget is reset at %s.',
                              s.scope, trim_scale(s.spent_usd), trim_scale(s.reserved_usd), trim_scale(s.limit_usd),
                              CASE WHEN raise_over_budget.cost IS NULL
                                   THEN format('the cost of agent "%s" is not known', raise_over_budget.agent)
                                   ELSE format('the request would take %s USD at agent "%s"',
                                               trim_scale(raise_over_budget.cost::numeric), raise_over_budget.agent) END,
                              s.period_end),
              HINT = format('%s, raise the limit with ruvector_set_budget(%L, %L, %L, ...), or register an agent that is '
                            'cheaper or free.',
                            CASE WHEN raise_over_budget.cost IS NULL
                                 THEN format('Register the cost of agent "%s"', raise_over_budget.agent)
                                 ELSE format('Wait until %s', s.period_end) END,
                            s.scope, nullif(s.name, ''), s.period);
END
$$;
COMMENT ON FUNCTION tinydancer.raise_over_budget(text, text, float8, timestamptz) IS
    'Raises the error for a request that a budget cannot pay';

-- Changing ----------------------------------------------------------------------------------------

CREATE FUNCTION tinydancer.lock_budgets() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM tinydancer.budget_lock l FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO tinydancer.budget_lock DEFAULT VALUES ON CONFLICT DO NOTHING;
        PERFORM FROM tinydancer.budget_lock l FOR UPDATE;
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.lock_budgets() IS
    'Waits until no other transaction changes budget counters, and keeps them to this one';
REVOKE ALL ON FUNCTION tinydancer.lock_budgets() FROM PUBLIC;

CREATE FUNCTION tinydancer.open_budgets() RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Without a budget nobody waits for anybody.
    IF NOT EXISTS (SELECT FROM tinydancer.budget) THEN
        RETURN false;
    END IF;
    PERFORM tinydancer.lock_budgets();
    INSERT INTO tinydancer.budget_counter (scope, name, period, period_start, period_end, reserved_usd, spent_usd)
    SELECT s.scope, s.name, s.period, s.period_start, s.period_end, s.reserved_usd, s.spent_usd
    FROM tinydancer.budget_state() AS s
    WHERE NOT s.counted
    ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.open_budgets() IS
    'Keeps the counters of the current periods to this transaction, making those that are missing; false when there is '
    'no budget';
REVOKE ALL ON FUNCTION tinydancer.open_budgets() FROM PUBLIC;

CREATE FUNCTION tinydancer.recount_budgets() RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tinydancer.require_writable('tinydancer.recount_budgets');
    PERFORM tinydancer.lock_budgets();
    DELETE FROM tinydancer.budget_counter c WHERE c.period_end > now();
    PERFORM tinydancer.open_budgets();
    RETURN (SELECT count(*) FROM tinydancer.budget);
END
$$;
COMMENT ON FUNCTION tinydancer.recount_budgets() IS
    'Counts the current period of every budget from the logs again, for rows that were inserted into the logs directly; '
    'returns how many budgets there are';
REVOKE ALL ON FUNCTION tinydancer.recount_budgets() FROM PUBLIC;

CREATE FUNCTION tinydancer.set_time_zone(zone text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text[];
    guess text;
BEGIN
    PERFORM tinydancer.require_writable('tinydancer.set_time_zone');
    PERFORM tinydancer.require_value(zone, 'zone', 'tinydancer.set_time_zone');
    IF NOT EXISTS (SELECT FROM pg_timezone_names n WHERE n.name = zone) THEN
        known := ARRAY(SELECT n.name FROM pg_timezone_names n WHERE n.name !~ '^(posix|right)/' ORDER BY n.name);
        guess := tinydancer.closest(zone, known);
        RAISE EXCEPTION 'time zone "%" does not exist', zone
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is none of pg_timezone_names.',
                  HINT = coalesce('Perhaps you meant "' || guess || '".', 'SELECT name FROM pg_timezone_names shows them.');
    END IF;
    PERFORM tinydancer.lock_budgets();
    INSERT INTO tinydancer.setting AS s (name, value) VALUES ('time_zone', zone)
    ON CONFLICT ON CONSTRAINT setting_pkey DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value;
    -- Periods begin at other moments now.
    PERFORM tinydancer.recount_budgets();
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.set_time_zone(text) IS
    'Says in which time zone the days, weeks and months of budgets and analytics begin; see tinydancer.time_zone()';
REVOKE ALL ON FUNCTION tinydancer.set_time_zone(text) FROM PUBLIC;

CREATE FUNCTION ruvector_set_budget(
    scope text,
    name text DEFAULT NULL,
    period text DEFAULT NULL,
    limit_usd float8 DEFAULT NULL)
    RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    scopes CONSTANT text[] := ARRAY['all', 'agent', 'pool'];
    periods CONSTANT text[] := ARRAY['day', 'week', 'month'];
    budget_name text := coalesce(ruvector_set_budget.name, '');
    guess text;
BEGIN
    PERFORM tinydancer.require_writable('ruvector_set_budget');
    PERFORM tinydancer.require_value(ruvector_set_budget.scope, 'scope', 'ruvector_set_budget');
    IF ruvector_set_budget.scope <> ALL (scopes) THEN
        guess := tinydancer.closest(lower(ruvector_set_budget.scope), scopes);
        RAISE EXCEPTION 'unknown scope "%"', ruvector_set_budget.scope
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Known scopes are all, agent, pool.',
                  HINT = coalesce('Perhaps you meant "' || guess || '".', 'A budget is of all agents, of one agent or of a pool.');
    END IF;
    IF ruvector_set_budget.scope <> 'all' THEN
        PERFORM tinydancer.require_value(ruvector_set_budget.name, 'name', 'ruvector_set_budget');
    ELSIF budget_name <> '' THEN
        RAISE EXCEPTION 'a budget of scope "all" has no name'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The name is "%s".', budget_name),
                  HINT = 'Pass name := NULL, or scope := ''agent'' or ''pool''.';
    END IF;
    PERFORM tinydancer.require_value(ruvector_set_budget.period, 'period', 'ruvector_set_budget');
    IF ruvector_set_budget.period <> ALL (periods) THEN
        guess := tinydancer.closest(lower(ruvector_set_budget.period), periods);
        RAISE EXCEPTION 'unknown period "%"', ruvector_set_budget.period
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Known periods are day, week, month.',
                  HINT = coalesce('Perhaps you meant "' || guess || '".', 'A budget is for a day, a week or a month.');
    END IF;

    IF ruvector_set_budget.limit_usd IS NULL THEN
        PERFORM tinydancer.lock_budgets();
        DELETE FROM tinydancer.budget b
        WHERE b.scope = ruvector_set_budget.scope AND b.name = budget_name AND b.period = ruvector_set_budget.period;
        RETURN FOUND;
    END IF;
    IF NOT (ruvector_set_budget.limit_usd >= 0 AND ruvector_set_budget.limit_usd < 'Infinity') THEN
        RAISE EXCEPTION 'limit_usd must be a finite number that is not negative'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The value is %s.', ruvector_set_budget.limit_usd),
                  HINT = 'Pass NULL to remove the cap, 0 to allow only what is free.';
    END IF;
    -- A cap on a name that is not there would never bite.
    IF ruvector_set_budget.scope = 'agent' AND NOT EXISTS (SELECT FROM tinydancer.agent a WHERE a.name = budget_name) THEN
        PERFORM tinydancer.raise_unknown_agent(budget_name);
    ELSIF ruvector_set_budget.scope = 'pool' AND NOT EXISTS (SELECT FROM tinydancer.agent a WHERE a.pool = budget_name) THEN
        guess := tinydancer.closest(budget_name, ARRAY(SELECT DISTINCT a.pool FROM tinydancer.agent a
                                                       WHERE a.pool IS NOT NULL ORDER BY 1 LIMIT 1000));
        RAISE NOTICE 'no agent is in pool "%"', budget_name
            USING HINT = coalesce('Perhaps you meant "' || guess || '".', 'The budget counts once an agent is.');
    END IF;

    PERFORM tinydancer.lock_budgets();
    INSERT INTO tinydancer.budget AS b (scope, name, period, limit_usd)
    VALUES (ruvector_set_budget.scope, budget_name, ruvector_set_budget.period, ruvector_set_budget.limit_usd)
    ON CONFLICT ON CONSTRAINT budget_pkey DO UPDATE SET limit_usd = excluded.limit_usd;
    PERFORM tinydancer.open_budgets();
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_set_budget(text, text, text, float8) IS
    'Caps what all agents, one agent or a pool may spend in a day, week or month; what was spent in it already counts. '
    'A limit of NULL removes the cap';
REVOKE ALL ON FUNCTION ruvector_set_budget(text, text, text, float8) FROM PUBLIC;

CREATE FUNCTION ruvector_check_budget(agent text, estimated_cost float8 DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pool text;
BEGIN
    PERFORM tinydancer.require_value(ruvector_check_budget.agent, 'agent', 'ruvector_check_budget');
    PERFORM tinydancer.require_figure(ruvector_check_budget.estimated_cost, 'estimated_cost');
    SELECT a.pool INTO pool FROM tinydancer.agent a WHERE a.name = ruvector_check_budget.agent;
    IF NOT FOUND THEN
        PERFORM tinydancer.raise_unknown_agent(ruvector_check_budget.agent);
    END IF;
    RETURN NOT EXISTS (SELECT FROM tinydancer.budget_refusal(
        ruvector_check_budget.agent, pool, ruvector_check_budget.estimated_cost, now()));
END
$$;
COMMENT ON FUNCTION ruvector_check_budget(text, float8) IS
    'Whether every budget that covers an agent can pay a request of this cost now; true where there is none. A cost of '
    'NULL is not known, which no budget pays';
