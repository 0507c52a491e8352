-- Budgets: what they count, what they refuse, and in which words.
\set SHOW_CONTEXT never
CREATE VIEW counters AS
    SELECT scope, name, period, trim_scale(reserved_usd) AS reserved, trim_scale(spent_usd) AS spent, trim_scale(limit_usd) AS limit
    FROM tinydancer.budget_state() ORDER BY scope, name, period;
SELECT ruvector_register_agent('alpha', 'llm', ARRAY['code'], cost_per_call := 0.1, quality_score := 0.9);
SELECT ruvector_register_agent('beta', 'llm', ARRAY['code'], cost_per_call := 0.1, quality_score := 0.8, pool := 'cheap');
SELECT ruvector_register_agent('dark', 'llm', ARRAY['code'], quality_score := 0.1, pool := 'cheap');

-- No cap: everything may be spent, also what is not known.
SELECT ruvector_check_budget('alpha', 1e9), ruvector_check_budget('alpha', NULL), ruvector_check_budget('dark');

-- What was spent in the period before the cap was set counts.
SELECT ruvector_record_usage('alpha', 0.3, true);
SELECT ruvector_record_usage('beta', 0.2, true);
SELECT ruvector_set_budget('agent', 'alpha', 'day', 0.5);
SELECT ruvector_set_budget(scope := 'pool', name := 'cheap', period := 'week', limit_usd := 1);
SELECT ruvector_set_budget('all', NULL, 'month', 3);
SELECT * FROM counters;
SELECT cost, ruvector_check_budget('alpha', cost) AS alpha, ruvector_check_budget('beta', cost) AS beta
FROM unnest(ARRAY[0, 0.2, 0.2000001, 0.8, 0.9, NULL]) cost;
-- What comes later, with and without a pool.
SELECT ruvector_record_usage('alpha', 0.1);
SELECT ruvector_record_usage('beta', 0.4);
SELECT ruvector_record_usage('beta', NULL, false);
SELECT ruvector_record_usage('alpha', 0);
SELECT * FROM counters;
-- A new limit, what is spent stays; ten times 0.1 is 1.
SELECT ruvector_set_budget('agent', 'alpha', 'day', 1);
DO $$ BEGIN FOR i IN 1..6 LOOP PERFORM ruvector_record_usage('alpha', 0.1); END LOOP; END $$;
SELECT * FROM counters WHERE scope = 'agent';
SELECT ruvector_check_budget('alpha', 0), ruvector_check_budget('alpha', 1e-9);
-- More may be spent than was estimated; what is free goes on.
SELECT ruvector_record_usage('alpha', 0.5);
SELECT ruvector_check_budget('alpha', 0), ruvector_check_budget('alpha', 1e-9);

-- Another period of the same: all of them count.
SELECT ruvector_set_budget('agent', 'beta', 'month', 0.65);
SELECT ruvector_check_budget('beta', 0.05), ruvector_check_budget('beta', 0.06);

-- The counters of this period agree with the logs, and are counted from them where they are missing.
CREATE TABLE before AS SELECT * FROM counters;
SELECT tinydancer.recount_budgets() AS budgets;
SELECT count(*) AS same FROM counters NATURAL JOIN before;
DELETE FROM tinydancer.budget_counter;
SELECT count(*) AS same FROM counters NATURAL JOIN before;
-- Rows that go into the log directly count where a counter is missing, else from the next recount on.
INSERT INTO tinydancer.usage (agent_name, cost_usd) VALUES ('beta', 0.01);
SELECT ruvector_record_usage('beta', 0);
SELECT spent FROM counters WHERE name = 'beta';
INSERT INTO tinydancer.usage (agent_name, cost_usd) VALUES ('beta', 0.02);
SELECT spent FROM counters WHERE name = 'beta';
SELECT tinydancer.recount_budgets() AS budgets;
SELECT spent FROM counters WHERE name = 'beta';
-- Late rows belong to their own period.
SELECT ruvector_record_usage('beta', 5, recorded_at := now() - interval '3 months');
SELECT spent FROM counters WHERE name = 'beta';

-- A cap is removed by NULL; there is nothing left of it, and nothing to remove the second time.
SELECT ruvector_set_budget('agent', 'beta', 'month', NULL);
SELECT ruvector_set_budget('agent', 'beta', 'month', NULL);
SELECT count(*) FROM tinydancer.budget_counter WHERE name = 'beta';
SELECT ruvector_set_budget('all', period := 'month');
SELECT scope, name, period, limit_usd FROM tinydancer.budget ORDER BY 1, 2;

-- A cap may name a pool that nobody is in yet, but not an agent that does not exist.
SELECT ruvector_set_budget('pool', 'chaep', 'day', 1);
SELECT ruvector_set_budget('pool', 'something else', 'day', 1);
SELECT ruvector_set_budget('agent', 'alhpa', 'day', 1);
SELECT ruvector_set_budget('agent', 'someone else', 'day', 1);
SELECT ruvector_set_budget('pool', 'chaep', 'day');

-- What cannot be.
SELECT ruvector_set_budget(NULL);
SELECT ruvector_set_budget('');
SELECT ruvector_set_budget('agnet', 'alpha', 'day', 1);
SELECT ruvector_set_budget('world', NULL, 'day', 1);
SELECT ruvector_set_budget('all', 'alpha', 'day', 1);
SELECT ruvector_set_budget('agent', NULL, 'day', 1);
SELECT ruvector_set_budget('pool', ' ', 'day', 1);
SELECT ruvector_set_budget('all', NULL, NULL, 1);
SELECT ruvector_set_budget('all', NULL, 'DAY', 1);
SELECT ruvector_set_budget('all', NULL, 'year', 1);
SELECT ruvector_set_budget('all', NULL, 'day', -1);
SELECT ruvector_set_budget('all', NULL, 'day', 'NaN');
SELECT ruvector_set_budget('all', NULL, 'day', 'Infinity');
SELECT ruvector_set_budget('all', NULL, 'day', 1e308);
SELECT ruvector_set_budget('all', NULL, 'day');
SELECT ruvector_check_budget(NULL, 1);
SELECT ruvector_check_budget(' ', 1);
SELECT ruvector_check_budget('alhpa', 1);
SELECT ruvector_check_budget('alpha', -1);
SELECT ruvector_check_budget('alpha', 'NaN');
SELECT ruvector_check_budget('alpha', 'Infinity');
SELECT ruvector_check_budget('alpha', 1e308);
\set VERBOSITY sqlstate
INSERT INTO tinydancer.budget (scope, name, period, limit_usd) VALUES ('all', 'x', 'day', 1);
INSERT INTO tinydancer.budget (scope, name, period, limit_usd) VALUES ('agent', 'x', 'day', 'NaN');
\set VERBOSITY default

-- Periods begin in the time zone of the database, not of the session.
SELECT tinydancer.time_zone();
SELECT period, b.* FROM unnest(ARRAY['day', 'week', 'month']) period,
    LATERAL tinydancer.period_bounds(period, '2024-03-31 12:00 UTC', 'Europe/Oslo') b;
SELECT tinydancer.set_time_zone('Asia/Kolkata');
SET timezone = 'America/New_York';
SELECT period, to_char(period_end AT TIME ZONE 'Asia/Kolkata', 'HH24:MI') AS reset FROM tinydancer.budget_state() ORDER BY 1;
RESET timezone;
SELECT tinydancer.set_time_zone('Europe/Olso');
SELECT tinydancer.set_time_zone('the moon of Endor');
SELECT tinydancer.set_time_zone(NULL);
SELECT tinydancer.set_time_zone('UTC');

-- Where nothing can be written, there is still an answer.
SET default_transaction_read_only = on;
SELECT ruvector_check_budget('alpha', 0.1);
SELECT ruvector_set_budget('all', NULL, 'day', 1);
SELECT tinydancer.recount_budgets();
SELECT tinydancer.set_time_zone('UTC');
RESET default_transaction_read_only;
