-- Switching the encoder of a database; with "static" and "external", which need no file that is built.
\set SHOW_CONTEXT never
CREATE VIEW setting AS
SELECT name, CASE WHEN name IN ('encoder', 'encoder_dim') THEN value ELSE 'set' END AS value
FROM tinydancer.setting ORDER BY name;
CREATE VIEW stored AS
SELECT agent_name, kind, position, phrase, cardinality(embedding) AS dim, encoder
FROM tinydancer.agent_phrase ORDER BY agent_name, kind COLLATE "C", position;

-- An empty registry.
CALL tinydancer.use_encoder('static');
SELECT * FROM setting;
CALL tinydancer.use_encoder('static');
CALL tinydancer.use_encoder(name => 'static-1', dim => 128);

-- What cannot be used.
CALL tinydancer.use_encoder(NULL);
CALL tinydancer.use_encoder('');
CALL tinydancer.use_encoder('  ');
CALL tinydancer.use_encoder('../etc/passwd');
CALL tinydancer.use_encoder('Static');
CALL tinydancer.use_encoder('static', 64);
CALL tinydancer.use_encoder('external');
CALL tinydancer.use_encoder('external', 0);
CALL tinydancer.use_encoder('external', 4097);
SET tinydancer.encoder_dir = '/nonexistent/encoders';
CALL tinydancer.use_encoder('no-such-encoder');
CALL tinydancer.use_encoder('statik');
CALL tinydancer.use_encoder('minilm');
RESET tinydancer.encoder_dir;
SELECT * FROM setting;

-- Text in, then vectors of the caller's own.
SELECT ruvector_register_agent('writer', 'llm', ARRAY['story-writing'], 0.01, description := 'writes stories and poems',
                               examples := ARRAY['write a poem about the sea']);
SELECT ruvector_register_agent('coder', 'llm', ARRAY['code'], 0.01, description := 'writes and debugs programs');
SELECT * FROM stored;
SELECT agent_name FROM ruvector_route('a poem about a ship on the sea');
SELECT agent_name FROM route_results WHERE request = 'a poem about a ship on the sea';
PREPARE routed(text) AS SELECT agent_name FROM ruvector_route($1);
EXECUTE routed('debug my program');
CALL tinydancer.use_encoder('external', 3);
SELECT * FROM setting;
SELECT * FROM stored;

-- Text is not embedded now, whoever asks.
EXECUTE routed('debug my program');
SELECT agent_name FROM route_results WHERE request = 'debug my program';
SELECT ruvector_embed('hello');
SELECT ruvector_embed('hello', 'external');
SELECT cardinality(ruvector_embed('hello', 'static')) AS static_goes_on;

-- Vectors are, and must have the length.
SELECT ruvector_register_agent('coder', 'llm', ARRAY['code'], 0.01, description := 'writes and debugs programs');
SELECT ruvector_register_agent('coder', 'llm', ARRAY['code'], 0.01, description := 'writes and debugs programs', embedding := '{3,0,0}');
SELECT ruvector_register_agent('writer', 'llm', ARRAY['story-writing'], 0.01, description := 'writes stories and poems',
                               examples := ARRAY['write a poem about the sea'], embedding := '{0,4,0}');
SELECT ruvector_register_agent('wrong', 'llm', embedding := '{1,2,3,4}');
SELECT agent_name, round(similarity::numeric, 2) AS similarity FROM ruvector_route(NULL, embedding := '{1,0.1,0}');
SELECT agent_name FROM ruvector_route('the text counts for the cost', embedding := '{0,1,0.1}');
SELECT agent_name FROM route_results WHERE embedding = '{0,1,0.1}'::real[];
SELECT agent_name FROM ruvector_route(NULL, embedding := '{1,0}');
SELECT a.estimated_cost < b.estimated_cost AS longer_text_costs_more
FROM ruvector_route('short', 'cost', embedding := '{1,0,0}') a, ruvector_route('not so short as that', 'cost', embedding := '{1,0,0}') b;
SELECT agent_name, rank, round(similarity::numeric, 2) AS similarity, closest_phrase, reasoning LIKE '%vector%' AS says_vector
FROM ruvector_explain_route(NULL, embedding := '{1,0,0}') ORDER BY rank;

-- The same again, and another length.
CALL tinydancer.use_encoder('external', 3);
CALL tinydancer.use_encoder('external', 4);
SELECT * FROM setting WHERE name = 'encoder_dim';
-- The constants of fit are the user's to set, and stay.
UPDATE tinydancer.setting SET value = '0.7' WHERE name = 'encoder_fit_mu';
SELECT round(fit::numeric, 3) AS fit FROM ruvector_explain_route(NULL, embedding := '{0.7,0,0.714143}') WHERE agent_name = 'coder';
CALL tinydancer.use_encoder('external', 3);
SELECT value FROM tinydancer.setting WHERE name = 'encoder_fit_mu';

-- Back to text: passed vectors become those of the description, and a vector without one is in the way.
SELECT ruvector_register_agent('nameless', 'api', embedding := '{0,0,1}');
SELECT ruvector_register_agent('blank', 'api', ARRAY['something'], description := '  ', embedding := '{0,0,2}');
INSERT INTO tinydancer.route (name, target_agent) VALUES ('silent', 'coder');
INSERT INTO tinydancer.route (name, description) VALUES ('told', 'all about the weather');
INSERT INTO tinydancer.route_utterance (route_name, position, utterance, embedding, encoder)
VALUES ('silent', 1, '', '{1,0,0}', 'external'), ('told', 1, '', '{0,1,0}', 'external'),
       ('told', 2, 'will it rain', '{0,0,1}', 'external'), ('told', 3, 'is it sunny', NULL, NULL);
CALL tinydancer.use_encoder('static');
SELECT * FROM setting WHERE name IN ('encoder', 'encoder_dim');
SELECT agent_name FROM ruvector_route(NULL, embedding := '{0,0,1}', excluded_agents := ARRAY['blank']);
SELECT ruvector_remove_agent('nameless'), ruvector_remove_agent('blank');
UPDATE tinydancer.route SET description = 'speaks now' WHERE name = 'silent';
CALL tinydancer.use_encoder('static');
SELECT * FROM setting;
SELECT * FROM stored;
SELECT p.agent_name, p.embedding = ruvector_embed(a.description) AS of_the_description
FROM tinydancer.agent_phrase p JOIN tinydancer.agent a ON a.name = p.agent_name WHERE p.kind = 'caller' ORDER BY 1;
SELECT u.route_name, u.position, u.utterance, u.encoder,
       u.embedding = ruvector_embed(coalesce(nullif(u.utterance, ''), r.description)) AS of_the_text
FROM tinydancer.route_utterance u JOIN tinydancer.route r ON r.name = u.route_name ORDER BY 1, 2;
EXECUTE routed('debug my program');
EXECUTE routed('a poem about a ship on the sea');
-- It stands alone, as the vector did that it replaces, and follows the description.
SELECT closest_phrase, similarity > 0.99 AS same FROM ruvector_explain_route('writes and debugs programs') WHERE agent_name = 'coder';
UPDATE tinydancer.agent SET description = 'cooks soup' WHERE name = 'coder';
SELECT closest_phrase, similarity > 0.99 AS same FROM ruvector_explain_route('cooks soup') WHERE agent_name = 'coder';
-- The stored vector is made when it is asked for.
SELECT phrase FROM stored WHERE agent_name = 'coder' AND kind = 'caller';
UPDATE tinydancer.agent_phrase SET embedding = NULL, encoder = NULL WHERE agent_name = 'writer' AND kind = 'example';
CALL tinydancer.use_encoder('static');
SELECT * FROM stored WHERE agent_name = 'writer';

-- Agents that were written directly get vectors, and so does what they changed.
INSERT INTO tinydancer.agent (name, type, capabilities, description) VALUES ('direct', 'tool', '[0:1]={translation,summaries}', 'tells it shorter');
CALL tinydancer.use_encoder('static');
SELECT * FROM stored WHERE agent_name = 'direct';
UPDATE tinydancer.agent SET capabilities = '{summaries}', description = NULL WHERE name = 'direct';
CALL tinydancer.use_encoder('static');
SELECT * FROM stored WHERE agent_name = 'direct';

-- A vector of the right length stays a caller's.
SELECT ruvector_register_agent('own', 'api', embedding := ruvector_embed('fish and chips'));
CALL tinydancer.use_encoder('external', 5);
CALL tinydancer.use_encoder('external', 128);
SELECT * FROM stored WHERE agent_name IN ('own', 'writer');
SELECT agent_name FROM ruvector_route(NULL, embedding := ruvector_embed('fish and chips', 'static'));

-- All or nothing.
SELECT ruvector_remove_agent('own');
BEGIN;
CALL tinydancer.use_encoder('static');
EXECUTE routed('a poem about a ship on the sea');
SELECT value FROM tinydancer.setting WHERE name = 'encoder';
ROLLBACK;
EXECUTE routed('a poem about a ship on the sea');
SELECT value FROM tinydancer.setting WHERE name = 'encoder';
BEGIN;
SAVEPOINT s;
CALL tinydancer.use_encoder('static');
SELECT cardinality(ruvector_embed('x')) AS dim;
ROLLBACK TO s;
SELECT cardinality(ruvector_embed('x')) AS dim;
COMMIT;

-- One expression of PL/pgSQL sees each encoder that is in use.
DO $$
DECLARE
    d integer;
    i integer;
BEGIN
    FOR i IN 1 .. 3 LOOP
        IF i = 2 THEN
            CALL tinydancer.use_encoder('static');
        END IF;
        BEGIN
            d := cardinality(ruvector_embed('x'));
            RAISE NOTICE 'round %: % dimensions', i, d;
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            RAISE NOTICE 'round %: %', i, SQLERRM;
        END;
    END LOOP;
END
$$;

-- Who may not.
CREATE ROLE td_plain;
SET ROLE td_plain;
CALL tinydancer.use_encoder('static');
RESET ROLE;
DROP ROLE td_plain;

-- A switch on a read-only server.
BEGIN READ ONLY;
CALL tinydancer.use_encoder('static');
ROLLBACK;
SELECT tinydancer.embed_phrases('{capability}', '{a,b}');
SELECT cardinality(v) AS dim, v = tinydancer.embed_phrase('capability', 'code-execution') AS same
FROM tinydancer.embed_phrases('{capability}', '{code-execution}') v;
