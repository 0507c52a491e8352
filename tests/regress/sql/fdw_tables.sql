-- The foreign tables beside route_results, and how they come into a schema of one's own.
SELECT ruvector_register_agent('translator', 'api', ARRAY['translation'], cost_per_call := 0.0005, avg_latency_ms := 150,
    quality_score := 0.9, description := 'translates texts between languages', examples := ARRAY['translate this letter into german']);
SELECT ruvector_register_agent('coder', 'llm', ARRAY['programming', 'debugging'], cost_per_1k_tokens := 0.01, avg_latency_ms := 1500,
    quality_score := 0.9, description := 'writes and debugs program code', examples := ARRAY['why does this python loop crash']);
SELECT ruvector_register_agent('person', 'human', avg_latency_ms := 600000, quality_score := 0.95, description := 'answers anything');
SELECT ruvector_create_route('languages', 'Texts in another language', target_agent := 'translator',
    utterances := ARRAY['translate this letter', 'what is that in french', 'in german, please']);
SELECT ruvector_create_route('faults', 'Programs that do not work', target_agent := 'coder',
    utterances := ARRAY['my program crashes', 'debug this function', 'the test fails']);
SELECT ruvector_create_route('gold', 'A person for who pays', target_agent := 'person', user_tiers := ARRAY['gold'],
    utterances := ARRAY['debug this program with me', 'let me speak to a person']);
CREATE TABLE request_log (id integer PRIMARY KEY, body text, cap float8, k integer);
INSERT INTO request_log VALUES (1, 'translate this sentence into french', 1, 1), (2, 'debug my python program', 0.001, 2), (3, NULL, 1, 1),
    (4, 'debug my python program', NULL, 3);
ANALYZE request_log;
-- Plans, without what differs between versions.
CREATE FUNCTION plan(query text, options text DEFAULT 'VERBOSE') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF' || coalesce(', ' || options, '') || ') ' || query LOOP
        IF line !~ 'Output:|Settings:|Query Identifier|Disabled|Window:' THEN
            RETURN NEXT regexp_replace(regexp_replace(regexp_replace(line, '(actual )?rows=(\d+)(\.00)?', 'rows=\2'), ' \(returns \$0\)', ''), '\$0|\(InitPlan 1\)\.col1', 'initplan');
        END IF;
    END LOOP;
END $$;

-- Import.
CREATE SCHEMA td;
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td;
SELECT c.relname, f.ftoptions, obj_description(c.oid) FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid WHERE c.relnamespace = 'td'::regnamespace ORDER BY 1;
\d td.route_candidates
\d td.semantic_matches
\d td.request_classes
-- Imported and shipped tables are the same.
SELECT attnum, attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'route_results'::regclass AND attnum > 0
EXCEPT SELECT attnum, attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'td.route_results'::regclass AND attnum > 0;
CREATE SCHEMA few;
IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (semantic_matches) FROM SERVER tinydancer INTO few OPTIONS (top_k '1', user_tier 'gold');
SELECT c.relname, f.ftoptions FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid WHERE c.relnamespace = 'few'::regnamespace ORDER BY 1;
DROP SCHEMA few CASCADE;
CREATE SCHEMA few;
IMPORT FOREIGN SCHEMA tinydancer EXCEPT (route_results) FROM SERVER tinydancer INTO few OPTIONS (max_cost '0.01', top_k '2');
SELECT c.relname, f.ftoptions FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid WHERE c.relnamespace = 'few'::regnamespace ORDER BY 1;
-- Errors of an import.
CREATE SCHEMA none;
IMPORT FOREIGN SCHEMA public FROM SERVER tinydancer INTO none;
\echo :SQLSTATE
IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (route_candidate) FROM SERVER tinydancer INTO none;
\echo :SQLSTATE
IMPORT FOREIGN SCHEMA tinydancer EXCEPT (decisions) FROM SERVER tinydancer INTO none;
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO none OPTIONS (topk '1');
\echo :SQLSTATE
IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (route_results) FROM SERVER tinydancer INTO none OPTIONS (top_k '1');
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO none OPTIONS (top_k 'many');
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO none OPTIONS (table 'route_results');
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td;
SELECT count(*) FROM pg_class WHERE relnamespace = 'none'::regnamespace;
-- Errors of a definition.
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'semantic_match');
\echo :SQLSTATE
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'elephant');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (top_k '1');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'semantic_matches', max_cost '1');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'semantic_matches', at 'now');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'route_candidates', request 'x');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'semantic_matches', top_k '0');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'route_candidates', max_cost '-1');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (min_quality '90');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (required_capabilities '{coding,NULL}');
CREATE FOREIGN TABLE wrong (request text) SERVER tinydancer OPTIONS (table 'request_classes', top_k '3');
CREATE FOREIGN TABLE wrong (request text OPTIONS (x 'y')) SERVER tinydancer;
CREATE USER MAPPING FOR CURRENT_USER SERVER tinydancer OPTIONS (password 'x');
CREATE FOREIGN TABLE untold (request text, rank integer) SERVER tinydancer;
SELECT * FROM untold WHERE request = 'x';
\echo :SQLSTATE
ALTER FOREIGN TABLE untold OPTIONS (ADD "table" 'semantic_matches');
SELECT * FROM untold WHERE request = 'debug my python program';
ALTER FOREIGN TABLE untold OPTIONS (SET "table" 'nothing');

-- route_candidates: the rows of ruvector_explain_route().
SELECT c.agent_name, c.rank, c.eligible, c.rejected_by, c.closest_phrase FROM td.route_candidates c WHERE c.request = 'debug my python program' AND c.max_cost = 0.001;
SELECT count(*) FROM (SELECT agent_name, rank, eligible, rejected_by, score, similarity, closest_phrase, fit, quality, expected_quality, estimated_cost, cost_utility, estimated_latency_ms, latency_utility, reasoning
    FROM td.route_candidates WHERE request = 'debug my python program' AND max_latency_ms = 2000
    INTERSECT SELECT * FROM ruvector_explain_route('debug my python program', max_latency_ms := 2000)) same;
SELECT request, optimize_for, max_cost, pool, agent_name FROM td.route_candidates WHERE request = 'debug my python program' AND optimize_for = 'cost' AND rank = 1;
SELECT l.id, c.agent_name, c.rank, c.max_cost FROM request_log l LEFT JOIN td.route_candidates c ON c.request = l.body AND c.max_cost = l.cap AND c.rank <= 2 ORDER BY 1, 3;
SELECT l.id, c.agent_name, c.rejected_by FROM request_log l JOIN td.route_candidates c ON c.request = l.body AND c.max_cost = l.cap AND NOT c.eligible ORDER BY 1, 2;
SELECT request, agent_name FROM td.route_candidates WHERE request IN ('debug my python program', 'translate this sentence into french') AND rank = 1;
SELECT agent_name FROM td.route_candidates WHERE embedding = ruvector_embed('debug my python program') AND rank = 1;
SELECT * FROM td.route_candidates;
SELECT agent_name FROM td.route_candidates WHERE request = 'x' AND optimize_for = 'chaep';

-- semantic_matches: the rows of ruvector_semantic_route().
SELECT route_name, target_agent, rank, top_k FROM td.semantic_matches WHERE request = 'debug my python program';
SELECT route_name, rank, user_tier FROM td.semantic_matches WHERE request = 'debug my python program' AND user_tier = 'gold';
SELECT route_name, rank FROM td.semantic_matches WHERE request = 'debug my python program' AND user_tier = 'gold' AND top_k = 1;
SELECT count(*) FROM (SELECT route_name, similarity, target_agent, confidence FROM td.semantic_matches WHERE request = 'debug my python program' AND user_tier = 'gold' AND top_k = 10
    INTERSECT SELECT * FROM ruvector_semantic_route('debug my python program', 10, 'gold')) same;
SELECT l.id, m.route_name, m.top_k FROM request_log l LEFT JOIN td.semantic_matches m ON m.request = l.body AND m.top_k = l.k AND m.user_tier = 'gold' ORDER BY 1, m.rank;
SELECT route_name FROM td.semantic_matches WHERE embedding = ruvector_embed('debug my python program') AND top_k = 1;
SELECT route_name, top_k FROM td.semantic_matches WHERE request = 'debug my python program' AND top_k IS NULL;
SELECT route_name, at FROM td.semantic_matches WHERE request = 'debug my python program' AND at = '2024-05-06 12:00+00' AND top_k = 1::bigint;
SELECT route_name FROM td.semantic_matches WHERE request = 'debug my python program' AND top_k = 0;
SELECT route_name FROM td.semantic_matches WHERE request = 'debug my python program' AND top_k < 3;
SELECT route_name FROM td.semantic_matches WHERE request = 'debug my python program' AND at = 'infinity';
SELECT count(*) FROM td.semantic_matches;
-- A default of the table's own.
SELECT route_name, top_k FROM few.semantic_matches WHERE request = 'debug my python program';
SELECT agent_name, rejected_by, max_cost FROM few.route_candidates WHERE request = 'debug my python program' AND rank IS NULL;

-- request_classes: categories by probability, without a sort.
SELECT plan($$ SELECT category FROM td.request_classes WHERE request = 'x' ORDER BY probability DESC, rank LIMIT 2 $$, NULL);
SELECT plan($$ SELECT l.id, c.category FROM request_log l JOIN td.request_classes c ON c.request = l.body AND c.rank = 1 $$, NULL);

-- The order of rank is that of the rows.
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' ORDER BY rank LIMIT 2 $$);
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' ORDER BY eligible DESC, rank LIMIT 2 $$, NULL);
SELECT plan($$ SELECT route_name FROM td.semantic_matches WHERE request = 'debug my python program' ORDER BY rank LIMIT 2 $$, NULL);
SELECT agent_name, rank FROM td.route_candidates WHERE request = 'debug my python program' AND max_cost = 0.001 ORDER BY rank;
SELECT plan($$ SELECT l.id, c.agent_name FROM request_log l, LATERAL (SELECT * FROM td.route_candidates c WHERE c.request = l.body ORDER BY rank LIMIT 2) c $$, NULL);
SELECT l.id, c.agent_name, c.rank FROM request_log l, LATERAL (SELECT * FROM td.route_candidates c WHERE c.request = l.body ORDER BY rank LIMIT 2) c ORDER BY 1, 3;
SELECT plan($$ SELECT agent_name, row_number() OVER (ORDER BY rank) FROM td.route_candidates WHERE request = 'debug my python program' $$, NULL);
-- Others are sorted.
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' ORDER BY rank DESC $$, NULL);
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' ORDER BY rank NULLS FIRST $$, NULL);
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request IN ('a', 'b') ORDER BY rank $$, NULL);
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' ORDER BY score DESC $$, NULL);
SELECT plan($$ SELECT route_name FROM td.semantic_matches WHERE request = 'debug my python program' ORDER BY similarity DESC $$, NULL);
SELECT agent_name, rank FROM td.route_candidates WHERE request = 'debug my python program' AND max_cost = 0.001 ORDER BY rank DESC, agent_name;
SELECT request, agent_name, rank FROM td.route_candidates WHERE request IN ('debug my python program', 'translate this sentence into french') AND rank <= 2 ORDER BY rank, request;

-- No more rows are made than are wanted.
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' ORDER BY rank LIMIT 1 $$, 'ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF');
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' AND rank <= 2 $$, 'ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF');
SELECT plan($$ SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' AND 1 = rank $$, 'ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF');
SELECT plan($$ SELECT c.agent_name FROM request_log l JOIN td.route_candidates c ON c.request = l.body AND c.rank < l.k WHERE l.id = 4 $$, 'ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF');
SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' AND rank <= (SELECT NULL::integer);
SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' AND rank < 1;
SELECT agent_name FROM td.route_candidates WHERE request = 'debug my python program' AND rank < 2 AND rank <= 9223372036854775807;

-- EXPLAIN says what will be used.
SELECT plan($$ SELECT agent_name FROM route_results WHERE request = 'x' AND max_cost = 0.01 AND optimize_for = 'cost' AND pool IS NULL $$);
SELECT plan($$ SELECT agent_name FROM few.route_candidates WHERE embedding = '{1}' AND request = 'x' $$);
SELECT plan($$ SELECT route_name FROM few.semantic_matches WHERE request IN ('x', 'y') AND user_tier = 'gold' $$);
SELECT plan($$ SELECT route_name FROM td.semantic_matches WHERE embedding = '{1}' $$);
SELECT plan($$ SELECT r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body AND r.max_cost = l.cap $$);
SELECT plan($$ SELECT * FROM td.semantic_matches $$);

SELECT plan($$ SELECT r.agent_name FROM request_log l JOIN route_results r ON r.request = l.body || (SELECT 'x') AND r.max_cost = coalesce(l.cap, 1) $$);

-- A bound by a subquery of the other side.
SELECT l.id, c.agent_name FROM request_log l JOIN td.route_candidates c ON c.request = l.body AND c.rank <= (SELECT count(*) - 2 FROM request_log x WHERE x.id <= l.id) ORDER BY 1, 2;
SELECT l.id, c.agent_name FROM request_log l JOIN td.route_candidates c ON c.request = (SELECT x.body FROM request_log x WHERE x.id = l.id) AND c.rank <= (SELECT count(*) FROM request_log x WHERE x.body = c.agent_name) + 1 ORDER BY 1, 2;

-- UPDATE ... FROM, and a view over it.
ALTER TABLE request_log ADD second text;
UPDATE request_log l SET second = c.agent_name FROM td.route_candidates c WHERE c.request = l.body AND c.rank = 2;
SELECT id, second FROM request_log ORDER BY 1;
CREATE VIEW matched AS SELECT l.id, m.route_name FROM request_log l JOIN td.semantic_matches m ON m.request = l.body AND m.rank = 1;
SELECT * FROM matched ORDER BY 1;
-- A cursor goes on where it was, and sees the registry that it began with.
BEGIN;
DECLARE c CURSOR FOR SELECT agent_name, rank FROM td.route_candidates WHERE request = 'debug my python program' ORDER BY rank;
FETCH 1 FROM c;
SELECT ruvector_remove_agent('person');
FETCH ALL FROM c;
ROLLBACK;
INSERT INTO td.semantic_matches (request) VALUES ('x');

-- Memory of a scan that is run again.
SELECT count(*), count(DISTINCT c.agent_name) FROM generate_series(1, 300) g, td.route_candidates c WHERE c.request = 'debug ' || g;
