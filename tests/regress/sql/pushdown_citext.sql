-- A citext column: the request is its text as it was written.  pushdown_citext_1.out is for servers without contrib.
SELECT ruvector_register_agent('translator', 'api', description := 'translates texts between languages');
\set VERBOSITY terse
CREATE EXTENSION citext;
\set VERBOSITY default
CREATE TABLE request_log (id integer, body citext, pool citext);
INSERT INTO request_log VALUES (1, 'Translate This', NULL), (2, 'translate this', NULL), (3, NULL, NULL);
ANALYZE request_log;
SELECT l.id, r.request FROM request_log l JOIN route_results r ON r.request = l.body ORDER BY 1;
SELECT l.id, r.request FROM request_log l LEFT JOIN route_results r ON r.request = l.body AND r.agent_name = 'translator' ORDER BY 1;
SELECT r.request FROM route_results r WHERE r.request IN (SELECT body FROM request_log) ORDER BY 1;
SELECT request FROM route_results WHERE request = 'Translate This'::citext;
-- Without case no request is the one that was asked for.
SELECT request FROM route_results WHERE request::citext = 'Translate This';
