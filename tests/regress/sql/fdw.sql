-- The foreign table route_results.
SELECT ruvector_register_agent('translator', 'api', ARRAY['translation'], cost_per_call := 0.0005, avg_latency_ms := 150,
    quality_score := 0.9, description := 'translates texts between languages', examples := ARRAY['translate this letter into german']);
SELECT ruvector_register_agent('coder', 'llm', ARRAY['programming', 'debugging'], cost_per_1k_tokens := 0.01, avg_latency_ms := 1500,
    quality_score := 0.9, description := 'writes and debugs program code', examples := ARRAY['why does this python loop crash']);
CREATE TABLE request_log (id integer PRIMARY KEY, body text, cap float8, target text);
INSERT INTO request_log VALUES (1, 'translate this sentence into french', 1, 'quality'), (2, 'debug my python program', 1, 'cost'),
    (3, 'translate this sentence into french', NULL, 'balanced'), (4, NULL, 1, NULL), (5, 'debug my python program', 0.0001, 'quality');
ANALYZE request_log;
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF, VERBOSE) ' || query LOOP
        IF line ~ 'Inputs|Foreign Scan|Nested|Memoize|Hash|Merge|Seq Scan|Request:|Filter' THEN RETURN NEXT regexp_replace(line, '^ +', ''); END IF;
    END LOOP;
END $$;

-- Constant.
SELECT agent_name FROM route_results WHERE request = 'translate this sentence into french';
SELECT agent_name FROM route_results WHERE 'translate this sentence into french' = request;
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'x' AND max_cost = 1 AND agent_name <> 'y' $$);
-- The same answer as the function's.
SELECT f.agent_name, f IS NOT DISTINCT FROM (r.agent_name, r.confidence, r.estimated_cost, r.estimated_latency_ms, r.expected_quality, r.similarity, r.reasoning) AS same
FROM route_results r, ruvector_route('debug my python program') f WHERE r.request = 'debug my python program';
-- Input columns echo what was used; others are NULL.
SELECT request, optimize_for, required_capabilities, max_cost, max_latency_ms, min_quality, excluded_agents, budget_remaining, pool
FROM route_results WHERE request = 'debug my python program' AND max_cost = 0.5 AND optimize_for = 'quality' AND required_capabilities = ARRAY['debugging'] AND min_quality = 0.5;
SELECT optimize_for, max_cost FROM route_results WHERE request = 'debug my python program';
SELECT optimize_for, agent_name FROM route_results WHERE request = 'debug my python program' AND optimize_for IS NULL;
-- Clauses on outputs are filters.
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND agent_name = 'translator';
-- Every limit.
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND max_cost = 0.001;
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND max_latency_ms = 200;
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND excluded_agents = ARRAY['coder'];
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND required_capabilities = ARRAY['Translation'];
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND budget_remaining = 0.001::numeric;
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND min_quality = 0.95;
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND pool = 'x';
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND max_cost IS NULL AND min_quality IS NULL;
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND max_cost = 'Infinity';

-- NULL is equal to nothing.
SELECT agent_name FROM route_results WHERE request = NULL;
SELECT agent_name FROM route_results WHERE request = (SELECT NULL::text);
SELECT agent_name FROM route_results WHERE request = 'x' AND max_cost = (SELECT NULL::float8);

-- Two values for one request: none.
SELECT agent_name FROM route_results WHERE request = 'x' AND request = 'y';
SELECT agent_name FROM route_results WHERE request = (SELECT 'x') AND request = (SELECT 'y');

-- Parameter, under custom and generic plans.
PREPARE by_request(text) AS SELECT agent_name FROM route_results WHERE request = $1;
SET plan_cache_mode = force_generic_plan;
EXECUTE by_request('translate this sentence into french');
EXECUTE by_request('debug my python program');
EXECUTE by_request(NULL);
SET plan_cache_mode = force_custom_plan;
EXECUTE by_request('debug my python program');
EXECUTE by_request(NULL);
RESET plan_cache_mode;

-- Arrays: each distinct request once, in the array's order.
SELECT request, agent_name FROM route_results WHERE request = ANY (ARRAY['translate this sentence into french', 'debug my python program', NULL, 'translate this sentence into french']);
SELECT request, agent_name FROM route_results WHERE request IN ('debug my python program', 'translate this sentence into french') AND request LIKE 'debug%';
PREPARE by_array(text[]) AS SELECT request, agent_name FROM route_results WHERE request = ANY ($1);
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE by_array('{debug my python program}');
EXECUTE by_array('{debug my python program,debug my python program,NULL}');
EXECUTE by_array('{}');
EXECUTE by_array(NULL);
RESET plan_cache_mode;

-- OR of requests is their union.
SELECT request, agent_name FROM route_results WHERE request = 'translate this sentence into french' OR request = 'debug my python program' OR request = 'translate this sentence into french';
SELECT request, agent_name FROM route_results WHERE request = 'debug my python program' OR request IS NULL;
SELECT l.id, r.request, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body OR r.request = l.target ORDER BY 1, 2;

-- Joins.
SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body ORDER BY 1;
SELECT plan($$ SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body $$);
SELECT l.id, r.agent_name FROM request_log l LEFT JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap ORDER BY 1;
SELECT l.id, r.agent_name, r.max_cost FROM request_log l JOIN route_results r ON r.request = l.body AND r.max_cost = coalesce(l.cap, 'Infinity') AND r.optimize_for = l.target ORDER BY 1;
SELECT plan($$ SELECT l.id FROM request_log l JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap AND r.optimize_for = l.target $$);
-- Request from one table, limit from another.
CREATE TABLE cap (body text, most float8);
INSERT INTO cap VALUES ('debug my python program', 0.0001), ('translate this sentence into french', 1);
SELECT l.id, r.agent_name, r.max_cost FROM request_log l, cap c, route_results r WHERE r.request = l.body AND r.max_cost = c.most AND c.body = l.body ORDER BY 1;
-- A constant request with a joined limit.
SELECT c.most, r.agent_name FROM cap c LEFT JOIN route_results r ON r.request = 'debug my python program' AND r.max_cost = c.most ORDER BY 1;
SELECT l.id, r.agent_name FROM request_log l, LATERAL (SELECT * FROM route_results x WHERE x.request = l.body AND x.max_cost = 1) r ORDER BY 1;
SELECT l.id FROM request_log l WHERE EXISTS (SELECT FROM route_results r WHERE r.request = l.body AND r.agent_name = 'coder') ORDER BY 1;
SELECT l.id FROM request_log l WHERE NOT EXISTS (SELECT FROM route_results r WHERE r.request = l.body) ORDER BY 1;
SELECT r.request, r.agent_name FROM route_results r WHERE r.request IN (SELECT body FROM request_log) ORDER BY 1;
SELECT l.id, r.agent_name, a.type FROM request_log l JOIN route_results r ON r.request = l.body JOIN tinydancer.agent a ON a.name = r.agent_name ORDER BY 1;
-- Other types of text.
CREATE TABLE other_text (v varchar(100), c char(30), n name);
INSERT INTO other_text VALUES ('debug my python program', 'debug my python program', 'debug my python program');
SELECT r.agent_name FROM other_text t JOIN route_results r ON r.request = t.v;
SELECT r.agent_name FROM other_text t JOIN route_results r ON r.request = t.c;
SELECT r.agent_name FROM other_text t JOIN route_results r ON r.request = t.n;
-- A view, and an update.
CREATE VIEW routed AS SELECT l.id, r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body;
SELECT agent_name FROM routed WHERE id = 2;
ALTER TABLE request_log ADD chosen text;
UPDATE request_log l SET chosen = r.agent_name FROM route_results r WHERE r.request = l.body;
SELECT id, chosen FROM request_log ORDER BY 1;
-- By vector.
SELECT agent_name FROM route_results WHERE embedding = ruvector_embed('translate this sentence into french');

-- Reading only.
BEGIN READ ONLY;
SELECT agent_name FROM route_results WHERE request = 'debug my python program';
COMMIT;
INSERT INTO route_results (request) VALUES ('x');
UPDATE route_results SET pool = 'x' WHERE request = 'x';

-- Without a request.
SELECT * FROM route_results;
SELECT plan('SELECT * FROM route_results');
SELECT * FROM route_results WHERE request LIKE 'x%';
SELECT count(*) FROM request_log l FULL JOIN route_results r ON r.request = l.body;
-- Errors of a request.
SELECT agent_name FROM route_results WHERE request = '';
SELECT agent_name FROM route_results WHERE request = 'x' AND optimize_for = 'chaep';
SELECT agent_name FROM route_results WHERE request = 'x' AND max_cost < 1;
SELECT agent_name FROM route_results WHERE request = 'x' AND max_cost <> 1;
SELECT agent_name FROM route_results WHERE request = 'x' AND pool IN ('a', 'b');
SELECT l.id FROM request_log l JOIN route_results r ON r.request = l.body AND r.max_cost > l.cap;

-- Tables of one's own.
CREATE FOREIGN TABLE cheap_routes (request text, agent_name text, max_cost float8) SERVER tinydancer OPTIONS (max_cost '0.001', optimize_for 'quality');
SELECT * FROM cheap_routes WHERE request = 'debug my python program';
SELECT * FROM cheap_routes WHERE request = 'debug my python program' AND max_cost = 1;
SELECT * FROM cheap_routes WHERE request = 'debug my python program' AND max_cost IS NULL;
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (max_cots '1');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (colour 'red');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (max_cost 'cheap');
ALTER SERVER tinydancer OPTIONS (host 'x');
ALTER FOREIGN TABLE route_results OPTIONS (max_cost '1');
SELECT agent_name FROM route_results WHERE request = 'x';
ALTER FOREIGN TABLE route_results OPTIONS (DROP max_cost);
CREATE FOREIGN TABLE odd_column (request text, colour text) SERVER tinydancer;
SELECT * FROM odd_column WHERE request = 'x';
CREATE FOREIGN TABLE odd_type (request text, agent_name integer) SERVER tinydancer;
SELECT * FROM odd_type WHERE request = 'x';
