-- Statements around the foreign table: prepared ones, cursors, what writes, settings.
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
-- $1 under a custom and a generic plan, and when the sixth execution changes from the one to the other.
PREPARE by_request(text, float8) AS SELECT agent_name, max_cost FROM route_results WHERE request = $1 AND max_cost = $2;
SET plan_cache_mode = force_custom_plan;
SELECT plan($$ EXECUTE by_request('debug my python program', 1) $$);
EXECUTE by_request('debug my python program', 1);
SET plan_cache_mode = force_generic_plan;
SELECT plan($$ EXECUTE by_request('debug my python program', 1) $$);
EXECUTE by_request('debug my python program', 1);
EXECUTE by_request('translate this', 1);
EXECUTE by_request('translate this', NULL);
EXECUTE by_request(NULL, 1);
RESET plan_cache_mode;
PREPARE sixth(text) AS SELECT agent_name FROM route_results WHERE request = $1;
EXECUTE sixth('a program');
EXECUTE sixth('a program');
EXECUTE sixth('a program');
EXECUTE sixth('a program');
EXECUTE sixth('a program');
EXECUTE sixth('translate this');
EXECUTE sixth('debug my python program');
SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'sixth';
SELECT plan($$ EXECUTE sixth('debug my python program') $$);
PREPARE listed(text[]) AS SELECT request, agent_name FROM route_results WHERE request = ANY ($1);
SET plan_cache_mode = force_generic_plan;
SELECT plan($$ EXECUTE listed(NULL) $$);
EXECUTE listed('{translate this,debug my python program,NULL,translate this}');
EXECUTE listed('{}');
EXECUTE listed(NULL);
PREPARE either(text, text) AS SELECT request, agent_name FROM route_results WHERE request = $1 OR request = $2;
EXECUTE either('translate this', 'debug my python program');
EXECUTE either('translate this', 'translate this');
EXECUTE either(NULL, 'translate this');
RESET plan_cache_mode;
-- One parameter in two tables.
PREPARE in_both(text) AS SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = $1 AND l.body = $1 ORDER BY 1;
EXECUTE in_both('debug my python program');
-- A prepared statement sees the registry as it is when it is executed.
PREPARE pool_of(text) AS SELECT r.agent_name FROM route_results r WHERE r.request = $1 AND r.pool = 'west';
EXECUTE pool_of('translate this');
UPDATE tinydancer.agent SET pool = 'west' WHERE name = 'translator';
EXECUTE pool_of('translate this');
BEGIN;
UPDATE tinydancer.agent SET active = false WHERE name = 'translator';
EXECUTE pool_of('translate this');
ROLLBACK;
EXECUTE pool_of('translate this');
UPDATE tinydancer.agent SET pool = 'east' WHERE name = 'translator';
-- And the table's options.
CREATE FOREIGN TABLE own (request text, agent_name text, pool text) SERVER tinydancer OPTIONS (pool 'west');
PREPARE by_own AS SELECT agent_name, pool FROM own WHERE request = 'translate this';
EXECUTE by_own;
ALTER FOREIGN TABLE own OPTIONS (SET pool 'east');
EXECUTE by_own;
-- Cursors: forward, backward, again, and after the end of the transaction.
BEGIN;
DECLARE forward CURSOR FOR SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body ORDER BY l.id;
FETCH 1 FROM forward;
UPDATE tinydancer.agent SET active = false WHERE name = 'coder';
-- One registry from the first row to the last.
FETCH ALL FROM forward;
DECLARE scrolled SCROLL CURSOR FOR SELECT request, agent_name FROM route_results WHERE request IN ('translate this', 'debug my python program', 'c');
FETCH 2 FROM scrolled;
FETCH BACKWARD 1 FROM scrolled;
FETCH ABSOLUTE 3 FROM scrolled;
FETCH FIRST FROM scrolled;
FETCH LAST FROM scrolled;
MOVE ABSOLUTE 0 FROM scrolled;
FETCH ALL FROM scrolled;
ROLLBACK;
BEGIN;
DECLARE held SCROLL CURSOR WITH HOLD FOR SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body ORDER BY l.id;
FETCH 1 FROM held;
COMMIT;
SELECT ruvector_set_agent_active('coder', false);
FETCH 2 FROM held;
FETCH BACKWARD 1 FROM held;
CLOSE held;
SELECT ruvector_set_agent_active('coder', true);
-- A scan that is run again, with the same and with other values.
SELECT x.i, r.request, r.agent_name FROM (VALUES (1), (2)) x (i), LATERAL (SELECT * FROM route_results WHERE request IN ('translate this', 'debug my python program') OFFSET x.i - 1) r ORDER BY 1, 2;
SET enable_material = off;
SET enable_memoize = off;
SELECT l.id, r.agent_name FROM request_log l LEFT JOIN route_results r ON r.request = 'translate this' AND r.similarity > l.id * 0 ORDER BY 1;
RESET enable_material;
RESET enable_memoize;
-- What writes.
SELECT plan($$ UPDATE request_log l SET chosen = r.agent_name FROM route_results r WHERE r.request = l.body AND r.pool = l.pool $$);
UPDATE request_log l SET chosen = r.agent_name FROM route_results r WHERE r.request = l.body AND r.pool = l.pool RETURNING l.id, l.chosen, r.confidence IS NOT NULL;
UPDATE request_log SET chosen = (SELECT agent_name FROM route_results r WHERE r.request = request_log.body) WHERE id = 3 RETURNING chosen;
CREATE TABLE decided (id integer, request text, agent text, UNIQUE (id));
INSERT INTO decided SELECT l.id, r.request, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body RETURNING *;
INSERT INTO decided SELECT l.id, r.request, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body ON CONFLICT (id) DO UPDATE SET agent = excluded.agent || '!' RETURNING agent;
DELETE FROM decided d USING route_results r WHERE r.request = d.request AND r.agent_name = 'coder' RETURNING d.id;
CREATE TABLE made AS SELECT r.* FROM request_log l JOIN route_results r ON r.request = l.body;
SELECT count(*), count(reasoning) FROM made;
MERGE INTO decided d USING (SELECT l.id, r.request, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body) s ON s.id = d.id
    WHEN MATCHED THEN UPDATE SET agent = s.agent_name WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.request, 'new: ' || s.agent_name);
SELECT * FROM decided ORDER BY 1;
MERGE INTO decided d USING route_results r ON r.request = d.request AND r.pool = 'west' WHEN MATCHED THEN UPDATE SET agent = 'west: ' || r.agent_name;
SELECT * FROM decided ORDER BY 1;
MERGE INTO decided d USING route_results r ON r.request = d.request WHEN NOT MATCHED THEN INSERT VALUES (9, r.request, r.agent_name);
COPY (SELECT l.id, r.agent_name FROM request_log l LEFT JOIN route_results r ON r.request = l.body ORDER BY 1) TO STDOUT;
COPY route_results TO STDOUT;
-- In functions: SQL ones that are inlined, and plpgsql ones with a loop.
CREATE FUNCTION who(text) RETURNS text STABLE LANGUAGE sql AS $$ SELECT agent_name FROM route_results WHERE request = $1 $$;
SELECT id, who(body) FROM request_log ORDER BY 1;
CREATE FUNCTION each_of(texts text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE one text; answer text;
BEGIN
    FOREACH one IN ARRAY texts LOOP
        SELECT agent_name INTO answer FROM route_results WHERE request = one;
        RETURN NEXT answer;
    END LOOP;
END $$;
SELECT each_of(ARRAY['translate this', 'debug my python program', NULL, 'translate this', 'a program', 'b', 'c']);
-- Compiled queries and workers give the same rows.
SET jit_above_cost = 0;
SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body AND r.pool = l.pool ORDER BY 1;
RESET jit_above_cost;
BEGIN READ ONLY;
SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body AND r.pool = l.pool ORDER BY 1;
COMMIT;
