-- Which clauses on one foreign table supply its inputs.
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
-- A constant, either way round; what compares outputs stays a filter.
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND agent_name <> 'x' $$);
SELECT plan($$ SELECT agent_name FROM route_results WHERE 'debug my python program' = request AND 1.0 = max_cost $$);
SELECT agent_name FROM route_results WHERE 'debug my python program' = request AND 1.0 = max_cost;
-- An expression, stable or of a parameter; a volatile one is no request.
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'debug my ' || current_setting('demo.language', true) $$);
SET demo.language = 'python program';
SELECT agent_name FROM route_results WHERE request = 'debug my ' || current_setting('demo.language', true);
SELECT agent_name FROM route_results WHERE request = 'debug my program ' || random();
SELECT agent_name FROM route_results WHERE request = 'debug my program' AND max_cost = random();
-- A subquery that is computed once.
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = (SELECT max(body) FROM request_log) $$);
SELECT agent_name FROM route_results WHERE request = (SELECT max(body) FROM request_log);
-- The same equality twice, two different ones, and through a third column.
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND request = 'debug my python program' $$);
SELECT agent_name FROM route_results WHERE request = 'debug my python program' AND request = 'debug my python program';
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'a' AND request = current_setting('demo.language') $$);
SELECT plan($$ SELECT agent_name FROM route_results WHERE request IN ('a', 'b') AND request = current_setting('demo.language') $$);
SELECT agent_name FROM route_results WHERE request = 'a' AND request = current_setting('demo.language');
SELECT plan($$ SELECT agent_name FROM route_results WHERE optimize_for = pool AND pool = current_setting('demo.language') AND request = 'a' $$);
SELECT plan($$ SELECT agent_name FROM request_log l JOIN route_results r ON r.request = l.body WHERE l.body = 'debug my python program' $$);
SELECT l.id, agent_name FROM request_log l JOIN route_results r ON r.request = l.body WHERE l.body = 'debug my python program' ORDER BY 1;
-- Rows of values.
SELECT plan($$ SELECT agent_name FROM route_results WHERE (request, pool) = ('debug my python program', 'east') $$);
SELECT agent_name FROM route_results WHERE (request, pool) = ('debug my python program', 'east');
SELECT agent_name FROM route_results WHERE (request, max_cost) < ('debug', 1);
-- IN and ANY: each different request once, in the order of the list; NULL is nothing.
SELECT plan($$ SELECT request, agent_name FROM route_results WHERE request IN ('debug my python program', 'translate this', 'debug my python program') $$);
SELECT request, agent_name FROM route_results WHERE request IN ('translate this', NULL, 'debug my python program', 'translate this');
SELECT plan($$ SELECT request FROM route_results WHERE request = ANY (string_to_array(current_setting('demo.language'), ' ')) $$);
SELECT request, agent_name FROM route_results WHERE request = ANY (ARRAY['translate this', 'debug my python program', 'translate this', NULL]);
SELECT request FROM route_results WHERE request = ANY (ARRAY[['translate this', 'a'], ['debug my python program', 'a']]);
SELECT request FROM route_results WHERE request = ANY ('{}');
SELECT request FROM route_results WHERE request = ANY (NULL);
SELECT request, agent_name FROM route_results WHERE request IN ('translate this', 'debug my python program') AND request <> 'translate this';
SELECT request FROM route_results WHERE request = 'debug my python program' AND request IN ('a', 'b');
-- The inputs beside a list are computed once and last as long as it.
SELECT plan($$ SELECT request FROM route_results WHERE request IN ('a', 'b') AND pool = lower(current_setting('demo.language')) $$);
SET demo.language = 'WEST';
SELECT request, agent_name, pool, required_capabilities FROM route_results WHERE request IN ('a', 'b', 'c', 'd') AND pool = lower(current_setting('demo.language'))
    AND required_capabilities = string_to_array('Debugging,' || initcap('programming') || left(current_setting('demo.language'), 0), ',');
SELECT l.id, r.request, r.agent_name, r.pool, r.optimize_for FROM request_log l JOIN route_results r ON r.request IN ('a', 'b', 'c') AND r.pool = lower(upper(l.pool)) AND r.optimize_for = lower(l.target) ORDER BY 1, 2;
-- Alternatives are the list of their requests; further conditions stay a filter.
SELECT plan($$ SELECT request FROM route_results WHERE request = 'translate this' OR request = 'debug my python program' $$);
SELECT request, agent_name FROM route_results WHERE request = 'translate this' OR request = 'debug my python program' OR request = 'translate this';
SELECT plan($$ SELECT request FROM route_results WHERE request IN ('a', 'b') OR 'translate this' = request $$);
SELECT request FROM route_results WHERE request IN ('a', 'b') OR 'translate this' = request OR request = ANY (NULL);
SELECT plan($$ SELECT request FROM route_results WHERE (request = 'a' AND agent_name = 'coder') OR (request IN ('b', 'c') AND similarity > 0) $$);
SELECT request, agent_name FROM route_results WHERE (request = 'translate this' AND agent_name = 'coder') OR (agent_name = 'coder' AND request IN ('debug my python program', 'translate this too')) OR request = 'c';
SELECT request FROM route_results WHERE request = 'a' OR agent_name = 'coder';
SELECT request FROM route_results WHERE (request = 'a' AND pool = 'east') OR (request = 'b' AND pool = 'west');
-- No limit.
SELECT plan($$ SELECT request FROM route_results WHERE request = 'a' AND max_cost IS NULL AND pool IS NULL $$);
SELECT agent_name, max_cost FROM route_results WHERE request = 'debug my python program' AND max_cost IS NULL AND max_cost = 1;
-- By vector, alone and with its text.
SELECT plan($$ SELECT agent_name FROM route_results WHERE embedding = ruvector_embed('debug my python program') $$);
SELECT request, agent_name FROM route_results WHERE embedding = ruvector_embed('debug my python program');
SELECT request, agent_name FROM route_results WHERE embedding = ruvector_embed('debug my python program') AND request = 'translate this';
SELECT request, agent_name FROM route_results WHERE embedding = ruvector_embed('debug my python program') AND request IN ('a', 'b');
SELECT agent_name FROM route_results WHERE embedding = NULL;
-- Conditions on no column.
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'a' AND current_setting('demo.language') = 'x' $$);
SELECT agent_name FROM route_results WHERE request = 'a' AND current_setting('demo.language') = 'x';
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'a' AND false $$);
-- Whole rows and system columns.
SELECT r.tableoid::regclass, (r).agent_name, r.reasoning IS NOT NULL FROM route_results r WHERE request = 'debug my python program';
SELECT (x.r).reasoning = x.again FROM (SELECT r, r.reasoning AS again FROM route_results r WHERE request = 'debug my python program') x;
SELECT count(r), count(DISTINCT r.*) FROM route_results r WHERE request IN ('a', 'b');
