-- Analytics: what is counted, by what, over which time; the same with and without a roll-up.
\set SHOW_CONTEXT never
SELECT ruvector_register_agent('alpha', 'llm', ARRAY['code'], cost_per_call := 0.1, pool := 'inside');
SELECT ruvector_register_agent('beta', 'api', ARRAY['weather'], cost_per_call := 0.2);
-- A roll-up of all there is: a transaction of another database may hold one run back.
CREATE PROCEDURE roll_up_all() LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM tinydancer.roll_up_usage();
        COMMIT;
        EXIT WHEN NOT EXISTS (SELECT FROM tinydancer.usage u, tinydancer.usage_rollup_state s WHERE u.xid >= s.horizon);
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
-- Nothing recorded: no row.
SELECT * FROM ruvector_routing_analytics(time_range := '7 days', group_by := 'agent');

INSERT INTO tinydancer.decision (decision_id, decided_at, agent_name, route_name, optimize_for) OVERRIDING SYSTEM VALUE VALUES
    (1001, '2024-02-29 10:00+00', 'alpha', 'programs', 'cost'), (1002, '2024-02-29 10:00+00', 'beta', NULL, 'balanced');
INSERT INTO tinydancer.usage (recorded_at, agent_name, decision_id, cost_usd, latency_ms, success, quality) VALUES
    ('2024-02-29 10:10+00', 'alpha', 1001, 0.25, 100, true, 0.5),
    ('2024-02-29 10:50+00', 'alpha', 1001, 0.5, 300, false, NULL),
    ('2024-02-29 11:00+00', 'beta', 1002, NULL, NULL, true, 1),
    -- Across the end of a month, of a day in Oslo and of an hour in Kolkata.
    ('2024-02-29 23:45+00', 'beta', NULL, 1, 50, NULL, NULL),
    ('2024-03-01 00:15+00', 'beta', NULL, 2, NULL, true, NULL),
    -- Not registered, not known.
    ('2024-03-01 01:00+00', 'gone', NULL, NULL, NULL, NULL, NULL);
CREATE VIEW every_group AS
    SELECT g.group_by, a.agent AS key, a.total_requests AS requests, a.total_cost AS cost, a.avg_latency_ms AS ms,
           round(a.success_rate::numeric, 3) AS success_rate
    FROM unnest(ARRAY['agent', 'agent_type', 'pool', 'route', 'target', 'hour', 'day']) WITH ORDINALITY g (group_by, position),
         LATERAL ruvector_routing_analytics(NULL, g.group_by) WITH ORDINALITY a
    ORDER BY g.position, a.ordinality;
SELECT * FROM every_group;
CREATE TABLE plain AS SELECT * FROM every_group;
CALL roll_up_all();
CALL roll_up_all();
SELECT count(*) AS same FROM (SELECT * FROM every_group INTERSECT SELECT * FROM plain) s;
SELECT bucket, agent_name, route_name, target, requests, cost_usd, costs FROM tinydancer.usage_rollup ORDER BY 1, 2;

-- Late rows of hours that are rolled up, in their own transactions.
INSERT INTO tinydancer.usage (recorded_at, agent_name, cost_usd, latency_ms, success)
VALUES ('2024-02-29 10:20+00', 'alpha', 4, 200, true);
SELECT * FROM every_group WHERE group_by = 'hour' AND key LIKE '%10:00';
CALL roll_up_all();
SELECT * FROM every_group WHERE group_by = 'hour' AND key LIKE '%10:00';
-- What is rolled back was never there, what is released is.
BEGIN;
INSERT INTO tinydancer.usage (recorded_at, agent_name) VALUES ('2024-02-29 10:20+00', 'alpha');
SELECT tinydancer.roll_up_usage() AS rolled;
SELECT requests FROM every_group WHERE group_by = 'hour' AND key LIKE '%10:00';
ROLLBACK;
SELECT requests FROM every_group WHERE group_by = 'hour' AND key LIKE '%10:00';
BEGIN;
SAVEPOINT a;
INSERT INTO tinydancer.usage (recorded_at, agent_name) VALUES ('2024-02-29 10:20+00', 'alpha');
RELEASE a;
SELECT tinydancer.roll_up_usage() AS rolled;
INSERT INTO tinydancer.usage (recorded_at, agent_name) VALUES ('2024-02-29 10:20+00', 'alpha');
COMMIT;
SELECT requests FROM every_group WHERE group_by = 'hour' AND key LIKE '%10:00';
CALL roll_up_all();
SELECT requests FROM every_group WHERE group_by = 'hour' AND key LIKE '%10:00';

-- The range begins to the microsecond, in the middle of an hour too.
INSERT INTO tinydancer.usage (recorded_at, agent_name, cost_usd)
SELECT now() - i * interval '1 minute', 'minutes', i FROM generate_series(0, 200) i;
CREATE VIEW ranges AS
    SELECT r AS minutes, (SELECT a.total_requests FROM ruvector_routing_analytics(r * interval '1 minute') a WHERE a.agent = 'minutes')
         - (SELECT count(*) FROM tinydancer.usage u WHERE u.agent_name = 'minutes' AND u.recorded_at >= now() - r * interval '1 minute')
           AS difference
    FROM generate_series(1, 200) r;
SELECT count(*) FROM ranges WHERE difference = 0;
CALL roll_up_all();
SELECT count(*) FROM ranges WHERE difference = 0;

-- Days of the time zone of the database, also where hours begin at half past those of UTC; a roll-up of
-- other hours is left alone until it is made anew.
SELECT tinydancer.set_time_zone('Asia/Kolkata');
SELECT * FROM every_group WHERE group_by IN ('hour', 'day') AND key < '2025';
SELECT count(*) FROM ranges WHERE difference = 0;
CALL roll_up_all();
SELECT * FROM every_group WHERE group_by IN ('hour', 'day') AND key < '2025';
SELECT count(*) FROM ranges WHERE difference = 0;
SELECT count(*) FROM tinydancer.usage_rollup WHERE bucket BETWEEN '2024-02-29 23:00+00' AND '2024-03-01 00:30+00';
SELECT tinydancer.set_time_zone('UTC');
CALL roll_up_all();

-- Old months can go: their sums stay, and so do the totals of agents.
SELECT agent_name, requests, cost_usd FROM tinydancer.usage_sums() ORDER BY 1;
CREATE TABLE kept AS SELECT * FROM every_group;
SELECT partition FROM tinydancer.make_log_partitions('0') WHERE partition ~ '_y2024';
INSERT INTO tinydancer.usage (recorded_at, agent_name, cost_usd) VALUES ('2024-02-29 10:30+00', 'late', 8);
SELECT * FROM tinydancer.drop_log_partitions('1 year');
SELECT count(*) AS rows FROM tinydancer.usage WHERE recorded_at < '2025-01-01';
SELECT * FROM every_group EXCEPT SELECT * FROM kept ORDER BY 1, 2;
SELECT * FROM every_group WHERE key IN ('programs', 'cost');
SELECT agent_name, requests, cost_usd FROM tinydancer.usage_sums() ORDER BY 1;
-- And another late row of a month that is gone, which goes too.
INSERT INTO tinydancer.usage (recorded_at, agent_name, cost_usd) VALUES ('2024-02-29 10:40+00', 'late', 16);
CALL roll_up_all();
SELECT * FROM every_group WHERE key = 'late';
SELECT * FROM tinydancer.make_log_partitions('0');
SELECT * FROM tinydancer.drop_log_partitions('1 year');
SELECT * FROM every_group WHERE key = 'late';
DELETE FROM tinydancer.usage_rollup_state;
SELECT * FROM every_group WHERE key = 'late';
CALL roll_up_all();
SELECT * FROM every_group WHERE key = 'late';
SELECT agent_name, requests, cost_usd FROM tinydancer.usage_sums() ORDER BY 1;

-- What cannot be, and what can.
SELECT * FROM ruvector_routing_analytics('7 days', 'agents');
SELECT * FROM ruvector_routing_analytics('7 days', 'Day');
SELECT * FROM ruvector_routing_analytics('7 days', 'colour');
SELECT * FROM ruvector_routing_analytics('7 days', '');
SELECT * FROM ruvector_routing_analytics('0 days');
SELECT * FROM ruvector_routing_analytics('-1 hour');
SELECT count(*) FROM ruvector_routing_analytics('1 microsecond');
SELECT count(*) > 0 FROM ruvector_routing_analytics('178000000 years');
SELECT count(*) > 0 FROM ruvector_routing_analytics('4000 years', NULL);
SELECT count(*) > 0 FROM ruvector_routing_analytics('3999 years');
SELECT count(*) > 0 FROM ruvector_routing_analytics();
SELECT * FROM tinydancer.make_log_partitions(NULL);
SELECT * FROM tinydancer.make_log_partitions('-1 day');
SELECT * FROM tinydancer.make_log_partitions('11 years');
SELECT * FROM tinydancer.drop_log_partitions(NULL);
SELECT * FROM tinydancer.drop_log_partitions('-1 day');
SELECT * FROM tinydancer.drop_log_partitions('178000000 years');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM tinydancer.drop_log_partitions('1 year');
ROLLBACK;
SET default_transaction_read_only = on;
SELECT count(*) > 0 FROM ruvector_routing_analytics('7 days', 'pool');
SELECT * FROM tinydancer.make_log_partitions();
SELECT * FROM tinydancer.drop_log_partitions('1 year');
