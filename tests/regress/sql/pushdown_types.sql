-- Every input column from a column of a join, and columns of other types than the inputs'.
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
CREATE DOMAIN ask AS text CHECK (VALUE <> '');
CREATE DOMAIN price AS float8 CHECK (VALUE >= 0);
CREATE TABLE every (id integer, v varchar(100), c char(40), n name, d ask, target varchar(20), caps text[], vcaps varchar[], cost price, cost4 real, cost_n numeric, cost_i integer,
    latency bigint, quality numeric(3, 2), excluded name[], budget numeric, vector real[], doubles float8[], pool name, expected float8, texts varchar[]);
INSERT INTO every SELECT i, b, b, b, b, 'quality', '{Debugging}', '{debugging}', 0.5, 0.5, 0.5, 1, 2000, 0.5, '{translator}', 5, ruvector_embed(b), ruvector_embed(b), 'west', 0.1, ARRAY[b, b, NULL]
FROM unnest(ARRAY[1, 2], ARRAY['debug my python program', 'translate this sentence into french']) u (i, b);
INSERT INTO every (id) VALUES (3);
ANALYZE every;
-- Texts.
SELECT plan($$ SELECT r.request FROM every e JOIN route_results r ON r.request = e.v $$);
SELECT e.id, r.agent_name, r.request = e.v AS same FROM every e JOIN route_results r ON r.request = e.v ORDER BY 1;
SELECT plan($$ SELECT r.request FROM every e JOIN route_results r ON r.request = e.n $$);
SELECT e.id, r.agent_name FROM every e JOIN route_results r ON r.request = e.n ORDER BY 1;
SELECT plan($$ SELECT r.request FROM every e JOIN route_results r ON r.request = e.c $$);
SELECT e.id, r.agent_name, r.request FROM every e JOIN route_results r ON e.c = r.request ORDER BY 1;
SELECT plan($$ SELECT r.request FROM every e JOIN route_results r ON r.request = e.d $$);
SELECT e.id, r.agent_name FROM every e LEFT JOIN route_results r ON r.request = e.d ORDER BY 1;
SELECT plan($$ SELECT r.request FROM every e JOIN route_results r ON r.request = ANY (e.texts) $$);
SELECT e.id, r.agent_name FROM every e LEFT JOIN route_results r ON r.request = ANY (e.texts) ORDER BY 1;
SELECT r.agent_name FROM route_results r WHERE r.request::varchar = 'debug my python program';
SELECT r.agent_name FROM route_results r WHERE r.request COLLATE "C" = 'debug my python program';
SELECT r.agent_name FROM route_results r WHERE r.request = 'debug my python program'::ask;
-- Limits.
SELECT plan($$ SELECT r.request FROM every e JOIN route_results r ON r.request = e.v AND r.max_cost = e.cost AND r.budget_remaining = e.budget AND r.max_latency_ms = e.latency $$);
SELECT e.id, r.max_cost, r.budget_remaining, r.max_latency_ms FROM every e JOIN route_results r ON r.request = e.v AND r.max_cost = e.cost AND r.budget_remaining = e.budget AND r.max_latency_ms = e.latency ORDER BY 1;
SELECT e.id, r.max_cost FROM every e JOIN route_results r ON r.request = e.v AND r.max_cost = e.cost4 ORDER BY 1;
SELECT e.id, r.max_cost FROM every e JOIN route_results r ON r.request = e.v AND r.max_cost = e.cost_n ORDER BY 1;
SELECT e.id, r.max_cost FROM every e JOIN route_results r ON r.request = e.v AND e.cost_i = r.max_cost ORDER BY 1;
SELECT e.id, r.optimize_for, r.pool, r.agent_name FROM every e JOIN route_results r ON r.request = e.v AND r.optimize_for = e.target AND r.pool = e.pool ORDER BY 1;
SELECT e.id, r.min_quality, r.min_expected_quality, r.agent_name FROM every e JOIN route_results r ON r.request = e.v AND r.min_quality = e.quality AND r.min_expected_quality = e.expected ORDER BY 1;
SELECT e.id, r.required_capabilities, r.agent_name FROM every e JOIN route_results r ON r.request = e.v AND r.required_capabilities = e.caps ORDER BY 1;
SELECT e.id, r.required_capabilities, r.agent_name FROM every e JOIN route_results r ON r.request = e.v AND r.required_capabilities = e.vcaps::text[] ORDER BY 1;
SELECT e.id, r.excluded_agents, r.agent_name FROM every e JOIN route_results r ON r.request = e.v AND r.excluded_agents = e.excluded::text[] ORDER BY 1;
SELECT r.max_cost FROM every e JOIN route_results r ON r.request = e.v AND r.max_cost::numeric = e.cost_n;
-- Vectors, alone, with the text and with a limit.
SELECT plan($$ SELECT r.agent_name FROM every e JOIN route_results r ON r.embedding = e.vector AND r.pool = e.pool $$);
SELECT e.id, r.agent_name, r.request FROM every e LEFT JOIN route_results r ON r.embedding = e.vector ORDER BY 1;
SELECT e.id, r.agent_name, r.pool FROM every e JOIN route_results r ON r.embedding = e.vector AND r.pool = e.pool ORDER BY 1;
SELECT e.id, r.agent_name, r.request = e.v AS same FROM every e JOIN route_results r ON r.embedding = e.vector AND r.request = e.v ORDER BY 1;
SELECT e.id, r.agent_name FROM every e JOIN route_results r ON r.embedding = e.doubles::real[] ORDER BY 1;
-- All at once.
SELECT plan($$ SELECT r.request FROM every e JOIN route_results r ON (r.request, r.optimize_for, r.required_capabilities, r.max_cost, r.max_latency_ms, r.min_quality, r.excluded_agents, r.budget_remaining, r.embedding, r.pool, r.min_expected_quality)
    = (e.v, e.target, e.caps, e.cost, e.latency, e.quality, e.excluded::text[], e.budget, e.vector, e.pool, e.expected) $$);
SELECT e.id, r.agent_name FROM every e LEFT JOIN route_results r ON (r.request, r.optimize_for, r.required_capabilities, r.max_cost, r.max_latency_ms, r.min_quality, r.excluded_agents, r.budget_remaining, r.embedding, r.pool, r.min_expected_quality)
    = (e.v, e.target, e.caps, e.cost, e.latency, e.quality, e.excluded::text[], e.budget, e.vector, e.pool, e.expected) ORDER BY 1;
-- The same names on both sides.
CREATE TABLE asked (request text, max_cost float8, pool text);
INSERT INTO asked VALUES ('debug my python program', 1, 'west'), ('translate this', 1, 'west'), ('translate this', NULL, 'east');
ANALYZE asked;
SELECT request, max_cost, pool, agent_name FROM asked NATURAL JOIN route_results ORDER BY 1;
SELECT request, a.max_cost, agent_name FROM asked a LEFT JOIN route_results r USING (request, pool) ORDER BY 1, 2;
-- Equal columns of one class: the planner keeps one join clause and compares the columns with each other.
CREATE TABLE both_names (body text, word text);
INSERT INTO both_names VALUES ('debug my python program', 'quality'), ('translate this', 'x');
ANALYZE both_names;
SELECT plan($$ SELECT r.agent_name FROM both_names b JOIN route_results r ON r.request = b.body AND r.optimize_for = b.word AND r.optimize_for = 'quality' $$);
SELECT r.request, r.optimize_for FROM both_names b JOIN route_results r ON r.request = b.body AND r.optimize_for = b.word AND r.optimize_for = 'quality';
SELECT r.request, r.pool, r.agent_name FROM both_names b JOIN route_results r ON r.request = b.body AND r.pool = b.body;
SELECT r.request, r.agent_name FROM both_names b JOIN route_results r ON r.request = b.body AND r.agent_name = b.body;
