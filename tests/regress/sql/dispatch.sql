-- Dispatch: chosen, paid for and logged in one call.
\set SHOW_CONTEXT never
CREATE FUNCTION axis(i integer) RETURNS real[] LANGUAGE sql IMMUTABLE
    AS $$ SELECT array_agg((CASE WHEN n = i THEN 1 ELSE 0 END)::real ORDER BY n) FROM generate_series(1, 128) n $$;
CREATE FUNCTION said(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    d text;
    h text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    -- Without the moment of the reset.
    RETURN regexp_replace(format(E'%s %s\n%s\n%s', SQLSTATE, SQLERRM, d, h),
                          '(at|until) \w{3} \w{3} \d\d [\d:]+ \d{4} \w+', '\1 (then)', 'g');
END $$;
CREATE VIEW counters AS
    SELECT scope, name, period, trim_scale(reserved_usd) AS reserved, trim_scale(spent_usd) AS spent, trim_scale(limit_usd) AS limit
    FROM tinydancer.budget_state() ORDER BY scope, name, period;

-- No agents: no row, and nothing in the log.
SELECT * FROM ruvector_dispatch('anything');
SELECT count(*) FROM tinydancer.decision;

SELECT ruvector_register_agent('gold', 'llm', ARRAY['code'], cost_per_call := 0.5, avg_latency_ms := 900, quality_score := 0.9, embedding := axis(1));
SELECT ruvector_register_agent('silver', 'llm', ARRAY['code'], cost_per_call := 0.2, avg_latency_ms := 500, quality_score := 0.8, embedding := axis(1), pool := 'cheap');
SELECT ruvector_register_agent('bronze', 'llm', ARRAY['code'], cost_per_call := 0.1, avg_latency_ms := 300, quality_score := 0.7, embedding := axis(1), pool := 'cheap');
SELECT ruvector_register_agent('riddle', 'llm', ARRAY['code'], avg_latency_ms := 300, quality_score := 0.6, embedding := axis(1));
SELECT ruvector_register_agent('free', 'tool', cost_per_call := 0, avg_latency_ms := 5, quality_score := 0.4, embedding := axis(1));

-- The decision is that of ruvector_route(), under the same limits, and it is in the log.
SELECT d.agent_name, d = r AS same FROM
    (SELECT agent_name, confidence, estimated_cost, estimated_latency_ms, expected_quality, similarity, reasoning
     FROM ruvector_dispatch('write a program', 'balanced', ARRAY['code'], 1, 5000, 0.5, ARRAY['bronze'], 10, axis(1), 'cheap', 0.1)) d,
    (SELECT * FROM ruvector_route('write a program', 'balanced', ARRAY['code'], 1, 5000, 0.5, ARRAY['bronze'], 10, axis(1), 'cheap', 0.1)) r;
SELECT decision_id, agent_name FROM ruvector_dispatch(NULL, embedding := axis(1));
SELECT decision_id, request, agent_name, pool, route_name, estimated_cost, estimated_latency_ms, optimize_for, limits, encoder, propensity,
       expected_quality = confidence AS confident, reasoning ~ 'best of' AS reasoned, model
FROM tinydancer.decision ORDER BY decision_id;
-- No agent passes the limits: no row, nothing logged.  Nothing to route: the same.
SELECT * FROM ruvector_dispatch('x', max_cost := 0, required_capabilities := ARRAY['code']);
SELECT * FROM ruvector_dispatch(NULL);
SELECT count(*) FROM tinydancer.decision;
-- The route that the request matched goes into the log.
INSERT INTO tinydancer.route (name) VALUES ('programs');
SELECT agent_name FROM ruvector_dispatch('write a program', route_name := 'programs', embedding := axis(1));
SELECT route_name FROM tinydancer.decision WHERE decision_id = 3;
-- Without a budget there is nothing to reserve.
SELECT count(*) FROM tinydancer.budget_reservation;

-- The next best that its budgets can pay: gold is spent after one, then silver until its pool is spent.
SELECT ruvector_set_budget('agent', 'gold', 'day', 0.9);
SELECT ruvector_set_budget('pool', 'cheap', 'week', 0.5);
SELECT decision_id, agent_name, substring(reasoning FROM '; (?:a|\d+) better.*') AS reasoning
FROM generate_series(1, 6) i, LATERAL ruvector_dispatch('write program ' || i, 'quality', embedding := axis(1));
SELECT * FROM counters;
SELECT decision_id, agent_name, pool, trim_scale(amount_usd) AS amount FROM tinydancer.budget_reservation ORDER BY 1;
-- Unknown cost and free agents are outside these budgets.  Under one for all, unknown cost is refused and free goes on.
SELECT ruvector_set_budget('all', NULL, 'month', 1.1);
SELECT agent_name FROM ruvector_dispatch('write a program', 'quality', embedding := axis(1));
SELECT said($$SELECT ruvector_dispatch('write a program', required_capabilities := ARRAY['code'], embedding := axis(1))$$);
SELECT said($$SELECT ruvector_dispatch('write a program', min_quality := 0.85, embedding := axis(1))$$);
SELECT said($$SELECT ruvector_dispatch('write a program', pool := 'cheap', embedding := axis(1))$$);
SELECT said($$SELECT ruvector_dispatch('write a program', excluded_agents := ARRAY['gold', 'silver', 'bronze', 'free'], embedding := axis(1))$$);
-- A refusal leaves nothing behind.
SELECT count(*), max(decision_id) FROM tinydancer.decision;
SELECT * FROM counters;

-- The cost takes the place of the estimate, once; what comes after adds up.
SELECT ruvector_record_usage('gold', 0.3, true, decision_id := 4);
SELECT * FROM counters;
SELECT ruvector_record_usage('gold', 0.05, false, decision_id := 4);
SELECT * FROM counters;
-- As long as the cost is not known, the estimate stands.
SELECT ruvector_record_usage('silver', NULL, true, decision_id := 5);
SELECT * FROM counters WHERE scope = 'pool';
SELECT ruvector_record_usage('silver', 0, false, decision_id := 5);
SELECT * FROM counters WHERE scope = 'pool';
-- A decision made without a budget has nothing reserved.
SELECT ruvector_record_usage('silver', 0.1, true, decision_id := 1);
SELECT * FROM counters;
-- A request counts in the pool that its agent was in when it was dispatched.
UPDATE tinydancer.agent SET pool = 'other' WHERE name = 'silver';
SELECT ruvector_record_usage('silver', 0.15, true, decision_id := 6);
SELECT * FROM counters WHERE scope = 'pool';
CREATE TABLE before AS SELECT * FROM counters;
SELECT tinydancer.recount_budgets() AS budgets;
SELECT count(*) AS same FROM counters NATURAL JOIN before;

-- A rollback gives the reservation back.
CREATE TABLE counted AS SELECT * FROM counters;
BEGIN;
SELECT agent_name FROM ruvector_dispatch('write a program', 'quality', embedding := axis(1));
SELECT count(*) AS same FROM counters NATURAL JOIN counted;
SAVEPOINT s;
SELECT agent_name FROM ruvector_dispatch('write a program', 'quality', ARRAY['code'], embedding := axis(1));
ROLLBACK TO s;
ROLLBACK;
SELECT count(*) AS same FROM counters NATURAL JOIN counted;

-- What cannot be.  Limits are checked as those of ruvector_route().
SELECT ruvector_dispatch('');
SELECT ruvector_dispatch('x', 'qualty');
SELECT ruvector_dispatch('x', max_cost := 'NaN');
SELECT ruvector_dispatch('x', min_quality := 2);
SELECT ruvector_dispatch('x', embedding := '{1,2}');
SELECT ruvector_dispatch('x', route_name := 'programms');
SELECT ruvector_dispatch('x', route_name := 'something else');
SELECT ruvector_dispatch('x', route_name := '');

-- Where nothing can be written.
SET default_transaction_read_only = on;
SELECT ruvector_dispatch('write a program');
RESET default_transaction_read_only;
BEGIN READ ONLY;
SELECT ruvector_dispatch('write a program');
ROLLBACK;
