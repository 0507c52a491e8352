-- Joins: a nested loop whose inner side is asked with the values of the outer row.
SELECT ruvector_register_agent('translator', 'api', ARRAY['translation'], cost_per_call := 0.0005, avg_latency_ms := 150,
    quality_score := 0.9, description := 'translates texts between languages', pool := 'east');
SELECT ruvector_register_agent('coder', 'llm', ARRAY['programming', 'debugging'], cost_per_1k_tokens := 0.01, avg_latency_ms := 1500,
    quality_score := 0.95, description := 'writes and debugs program code', pool := 'west');
CREATE TABLE request_log (id integer PRIMARY KEY, body text, cap float8, target text, pool text, chosen text);
INSERT INTO request_log VALUES (1, 'translate this sentence into french', 1, 'quality', 'east'), (2, 'debug my python program', 1, 'cost', 'west'),
    (3, 'translate this sentence into french', NULL, 'balanced', NULL), (4, NULL, 1, NULL, 'east'), (5, 'debug my python program', 0.0001, 'quality', 'west');
ANALYZE request_log;
-- Plans, without what differs between versions.
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF, VERBOSE) ' || query LOOP
        IF line !~ 'Output:|Disabled|Encoder:|Request Kind:|Objective:|Limits:|Window:|Settings:|Query Identifier' THEN
            RETURN NEXT regexp_replace(regexp_replace(replace(line, 'public.', ''), ' \(returns \$0\)', ''), '\(InitPlan 1\)\.col1|\$0', 'initplan');
        END IF;
    END LOOP;
END $$;
\pset tuples_only on
CREATE TABLE caps (most float8, who text);
INSERT INTO caps VALUES (1, 'rich'), (0.001, 'poor'), (NULL, 'nobody');
ANALYZE caps;
-- Inner, left, semi and anti joins.
SELECT plan($$ SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body $$);
SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body ORDER BY 1;
SELECT plan($$ SELECT l.id, r.agent_name FROM request_log l LEFT JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap AND r.agent_name <> 'x' $$);
SELECT l.id, r.agent_name, r.max_cost FROM request_log l LEFT JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap AND r.agent_name <> 'x' ORDER BY 1;
SELECT plan($$ SELECT l.id FROM request_log l WHERE EXISTS (SELECT FROM route_results r WHERE r.request = l.body AND r.agent_name = 'coder') $$);
SELECT l.id FROM request_log l WHERE EXISTS (SELECT FROM route_results r WHERE r.request = l.body AND r.agent_name = 'coder') ORDER BY 1;
SELECT plan($$ SELECT l.id FROM request_log l WHERE NOT EXISTS (SELECT FROM route_results r WHERE r.request = l.body AND r.max_cost = l.cap) $$);
SELECT l.id FROM request_log l WHERE NOT EXISTS (SELECT FROM route_results r WHERE r.request = l.body AND r.max_cost = l.cap) ORDER BY 1;
SELECT l.id FROM request_log l LEFT JOIN route_results r ON r.request = l.body WHERE r.request IS NULL;
SELECT l.id FROM request_log l LEFT JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap WHERE r.max_cost IS NULL ORDER BY 1;
SELECT count(*) FROM request_log l LEFT JOIN route_results r ON r.request = l.body WHERE r.pool IS NULL;
-- IN a subquery, with one column and with two; IN and NOT IN of decisions.
SELECT plan($$ SELECT r.request FROM route_results r WHERE r.request IN (SELECT body FROM request_log) $$);
SELECT r.request, r.agent_name FROM route_results r WHERE r.request IN (SELECT body FROM request_log) ORDER BY 1;
SELECT r.request, r.max_cost, r.agent_name FROM route_results r WHERE (r.request, r.max_cost) IN (SELECT body, cap FROM request_log) ORDER BY 1, 2;
SELECT r.request, r.max_cost FROM route_results r WHERE r.request IN (SELECT body FROM request_log) AND r.max_cost IN (SELECT most FROM caps) ORDER BY 1, 2;
SELECT l.id FROM request_log l WHERE l.body IN (SELECT r.request FROM route_results r WHERE r.agent_name = 'coder') ORDER BY 1;
SELECT l.id FROM request_log l WHERE 'coder' NOT IN (SELECT r.agent_name FROM route_results r WHERE r.request = l.body) ORDER BY 1;
-- LATERAL, with and without LIMIT.
SELECT plan($$ SELECT l.id, r.agent_name FROM request_log l, LATERAL (SELECT * FROM route_results x WHERE x.request = l.body AND x.max_cost = l.cap LIMIT 1) r $$);
SELECT l.id, r.agent_name FROM request_log l, LATERAL (SELECT * FROM route_results x WHERE x.request = l.body AND x.max_cost = l.cap LIMIT 1) r ORDER BY 1;
SELECT l.id, r.agent_name FROM request_log l LEFT JOIN LATERAL (SELECT * FROM route_results x WHERE x.request = l.body ORDER BY x.similarity OFFSET 0) r ON r.agent_name = 'coder' ORDER BY 1;
SELECT l.id, (SELECT r.agent_name FROM route_results r WHERE r.request = l.body AND r.pool = l.pool) FROM request_log l ORDER BY 1;
SELECT plan($$ SELECT l.id FROM request_log l JOIN route_results r ON r.request = (SELECT max(m.body) FROM request_log m WHERE m.id <= l.id) $$);
SELECT l.id, r.request FROM request_log l JOIN route_results r ON r.request = (SELECT max(m.body) FROM request_log m WHERE m.id <= l.id) ORDER BY 1;
-- The request from one table and a limit from another; a constant request with a joined limit.
SELECT plan($$ SELECT l.id, c.who, r.agent_name FROM request_log l JOIN caps c ON c.who <> l.pool JOIN route_results r ON r.request = l.body AND r.max_cost = c.most $$);
SELECT l.id, c.who, r.agent_name FROM request_log l, caps c, route_results r WHERE r.request = l.body AND r.max_cost = c.most ORDER BY 1, 2;
SELECT l.id, c.who, r.agent_name FROM request_log l CROSS JOIN caps c LEFT JOIN route_results r ON r.request = l.body AND r.max_cost = c.most ORDER BY 1, 2;
SELECT plan($$ SELECT c.who, r.agent_name FROM caps c LEFT JOIN route_results r ON r.request = 'debug my python program' AND r.max_cost = c.most $$);
SELECT c.who, r.agent_name FROM caps c LEFT JOIN route_results r ON r.request = 'debug my python program' AND r.max_cost = c.most ORDER BY 1;
SELECT c.who, r.agent_name FROM caps c LEFT JOIN route_results r ON r.request = 'debug my python program' AND r.max_cost = coalesce(c.most, 'Infinity') ORDER BY 1;
SELECT r.max_cost, r.agent_name FROM route_results r WHERE r.request = 'debug my python program' AND r.max_cost IN (SELECT most FROM caps) ORDER BY 1;
-- Alternatives across tables, and with conditions on them.
SELECT plan($$ SELECT r.request FROM request_log l JOIN request_log m ON m.id = l.id + 1 JOIN route_results r ON r.request = l.body OR r.request = m.body $$);
SELECT l.id, r.request FROM request_log l JOIN request_log m ON m.id = l.id + 1 JOIN route_results r ON r.request = l.body OR r.request = m.body ORDER BY 1, 2;
SELECT l.id, r.request FROM request_log l JOIN request_log m ON m.id = l.id + 1 LEFT JOIN route_results r ON (r.request = l.body AND l.id > 1) OR (r.request = m.body AND r.agent_name = 'coder') ORDER BY 1, 2;
SELECT l.id, r.request, r.pool, r.agent_name FROM request_log l LEFT JOIN route_results r ON r.request = ANY (ARRAY[l.body, 'translate this', l.body]) AND r.pool = lower(upper(l.pool)) ORDER BY 1, 2;
-- A decision and the registry, the decision about a decision, two decisions of one row.
SELECT plan($$ SELECT l.id, a.type FROM request_log l JOIN route_results r ON r.request = l.body JOIN tinydancer.agent a ON a.name = r.agent_name $$);
SELECT l.id, r.agent_name, a.type FROM request_log l JOIN route_results r ON r.request = l.body JOIN tinydancer.agent a ON a.name = r.agent_name ORDER BY 1;
SELECT r.agent_name, s.agent_name FROM route_results r JOIN route_results s ON s.request = r.request AND s.pool = 'east' WHERE r.request = 'debug my python program';
SELECT l.id, r.agent_name, s.agent_name FROM request_log l JOIN route_results r ON r.request = l.body LEFT JOIN route_results s ON s.request = l.body AND s.excluded_agents = ARRAY[r.agent_name] ORDER BY 1;
-- Views, also behind a barrier, and row security.
CREATE VIEW routed AS SELECT l.id, r.agent_name FROM request_log l LEFT JOIN route_results r ON r.request = l.body AND r.pool = l.pool;
SELECT plan('SELECT agent_name FROM routed WHERE id = 2');
SELECT * FROM routed WHERE id = 2;
CREATE VIEW cheap AS SELECT r.* FROM route_results r WHERE r.max_cost = 0.001;
SELECT plan('SELECT l.id, c.agent_name FROM request_log l JOIN cheap c ON c.request = l.body');
SELECT l.id, c.agent_name FROM request_log l JOIN cheap c ON c.request = l.body ORDER BY 1;
CREATE VIEW few WITH (security_barrier) AS SELECT * FROM request_log WHERE id <> 3;
SELECT plan($$ SELECT l.id, r.agent_name FROM few l JOIN route_results r ON r.request = l.body WHERE r.agent_name <> 'x' $$);
SELECT l.id, r.agent_name FROM few l JOIN route_results r ON r.request = l.body ORDER BY 1;
CREATE VIEW shielded WITH (security_barrier) AS SELECT * FROM route_results;
SELECT agent_name FROM shielded WHERE request = 'debug my python program';
SELECT l.id, r.agent_name FROM request_log l, LATERAL (SELECT * FROM shielded s WHERE s.request = l.body) r ORDER BY 1;
ALTER TABLE request_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY odd ON request_log USING (id % 2 = 1);
CREATE ROLE td_odd;
GRANT SELECT ON request_log, route_results TO td_odd;
SET ROLE td_odd;
SELECT l.id, r.agent_name FROM request_log l LEFT JOIN route_results r ON r.request = l.body ORDER BY 1;
RESET ROLE;
REVOKE ALL ON request_log, route_results FROM td_odd;
DROP ROLE td_odd;
ALTER TABLE request_log DISABLE ROW LEVEL SECURITY;
-- WITH, also recursive; sets; aggregates and windows.
WITH w AS MATERIALIZED (SELECT * FROM request_log) SELECT w.id, r.agent_name FROM w JOIN route_results r ON r.request = w.body ORDER BY 1;
WITH r AS MATERIALIZED (SELECT l.id, r.* FROM request_log l JOIN route_results r ON r.request = l.body) SELECT r.id, r.agent_name, s.id FROM r JOIN r s ON s.id = r.id + 1 ORDER BY 1;
WITH RECURSIVE w AS (SELECT 1 AS id, 'debug my python program' AS body UNION ALL SELECT w.id + 1, r.agent_name FROM w JOIN route_results r ON r.request = w.body WHERE w.id < 3) SELECT * FROM w;
SELECT plan($$ SELECT u.id, r.agent_name FROM (SELECT id, body FROM request_log UNION ALL SELECT id + 10, target FROM request_log) u JOIN route_results r ON r.request = u.body $$);
SELECT u.id, r.agent_name FROM (SELECT id, body FROM request_log UNION ALL SELECT id + 10, target FROM request_log) u JOIN route_results r ON r.request = u.body ORDER BY 1;
SELECT agent_name FROM route_results WHERE request = 'debug my python program' UNION SELECT agent_name FROM route_results WHERE request = 'translate this' ORDER BY 1;
SELECT u.pool, u.agent_name FROM (SELECT * FROM route_results UNION ALL SELECT * FROM cheap) u WHERE u.request = 'debug my python program' AND u.max_cost = 0.001;
SELECT r.agent_name, l.pool, count(*) FROM request_log l JOIN route_results r ON r.request = l.body GROUP BY GROUPING SETS ((r.agent_name), (l.pool), ()) ORDER BY 1, 2;
SELECT r.request, count(*) FROM route_results r GROUP BY r.request HAVING r.request = 'debug my python program';
SELECT l.id, r.agent_name, count(*) OVER (PARTITION BY r.agent_name), row_number() OVER (ORDER BY l.id) FROM request_log l JOIN route_results r ON r.request = l.body ORDER BY 1;
SELECT count(DISTINCT r.agent_name), string_agg(r.agent_name, ',' ORDER BY l.id) FROM request_log l JOIN route_results r ON r.request = l.body;
-- Partitioned logs, joined partition by partition.
CREATE TABLE parts (id integer, body text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (3);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (3) TO (9);
INSERT INTO parts SELECT id, body FROM request_log;
ANALYZE parts;
SELECT plan($$ SELECT p.id, r.agent_name FROM parts p JOIN route_results r ON r.request = p.body $$);
SELECT p.id, r.agent_name FROM parts p LEFT JOIN route_results r ON r.request = p.body WHERE p.id > 1 ORDER BY 1;
SET enable_partitionwise_join = on;
SELECT p.id, r.agent_name FROM parts p JOIN parts q USING (id) JOIN route_results r ON r.request = q.body ORDER BY 1;
RESET enable_partitionwise_join;
-- Duplicates are routed once.
CREATE TABLE repeated AS SELECT i AS id, 'request ' || i % 5 AS body FROM generate_series(1, 2000) i;
ANALYZE repeated;
SELECT plan($$ SELECT p.id, r.agent_name FROM repeated p JOIN route_results r ON r.request = p.body $$);
SELECT count(*), count(DISTINCT r.agent_name) > 0 FROM repeated p JOIN route_results r ON r.request = p.body;
-- Joins that the planner was told not to use are used where nothing else answers.
SET enable_nestloop = off;
SELECT count(*) FROM request_log l, caps c, route_results r WHERE r.request = l.body AND r.max_cost = c.most;
SELECT count(*) FROM request_log l, caps c, route_results r, route_results s WHERE r.request = l.body AND r.max_cost = c.most AND s.request = l.body AND s.max_cost = c.most;
RESET enable_nestloop;
-- What cannot be asked says so.
SELECT count(*) FROM request_log l RIGHT JOIN route_results r ON r.request = l.body;
SELECT count(*) FROM request_log l FULL JOIN route_results r ON r.request = l.body;
SELECT count(*) FROM request_log l JOIN (SELECT DISTINCT request, agent_name FROM route_results) r ON r.request = l.body;
SELECT l.id FROM request_log l WHERE l.body NOT IN (SELECT r.request FROM route_results r);
SELECT l.id FROM request_log l JOIN route_results r ON r.request LIKE l.body;
SELECT l.id FROM request_log l JOIN shielded r ON r.request = l.body;
