-- Semantic routes: what matches, in which order, under which conditions.
\set SHOW_CONTEXT never
-- A vector of 128 elements that makes an angle with the first axis: its cosine with axis(1) is c.
CREATE FUNCTION axis(i integer) RETURNS real[] LANGUAGE sql IMMUTABLE
    AS $$ SELECT array_agg((CASE WHEN n = i THEN 1 ELSE 0 END)::real ORDER BY n) FROM generate_series(1, 128) n $$;
CREATE FUNCTION at_cosine(c float8, other integer DEFAULT 2) RETURNS real[] LANGUAGE sql IMMUTABLE
    AS $$ SELECT array_agg((CASE n WHEN 1 THEN c WHEN other THEN sqrt(1 - c * c) ELSE 0 END)::real ORDER BY n) FROM generate_series(1, 128) n $$;

-- No routes: no row, and no error.
SELECT * FROM ruvector_semantic_route('anything');

-- The mission's routes.  Their agents are not registered yet, which is said and no more.
SELECT ruvector_create_route(name := 'customer_support', description := 'Handle customer support inquiries, complaints, and feedback', embedding := ruvector_embed('Customer support and help requests'), target_agent := 'support-agent', priority := 1);
SELECT ruvector_create_route(name := 'technical_docs', description := 'Answer questions about technical documentation and APIs', embedding := ruvector_embed('Technical documentation and API reference'), target_agent := 'docs-agent', priority := 2);
SELECT route_name, target_agent, similarity BETWEEN -1 AND 1 AS similarity, confidence BETWEEN 0 AND 1 AS confidence
FROM ruvector_semantic_route(query := 'How do I reset my password?', top_k := 3);
SELECT route_name FROM ruvector_semantic_route('Where is the API reference?', 1);
SELECT ruvector_register_agent('support-agent', 'human');
-- Registered now: nothing to be said.  A misspelled one is guessed.
SELECT ruvector_create_route('customer_support', 'Complaints', target_agent := 'support-agent');
SELECT ruvector_create_route('customer_support', 'Complaints', target_agent := 'suport-agent');
SELECT ruvector_drop_route('customer_support');
SELECT ruvector_drop_route('technical_docs');

-- Utterances, a description alone, and a vector, which stands alone.  Said twice counts once.
SELECT ruvector_create_route('billing', utterances := ARRAY['refund my money', 'wrong amount on the invoice', 'refund my money'],
    negatives := ARRAY['invoice template']);
SELECT ruvector_create_route('weather', 'rain, sun and wind tomorrow');
SELECT ruvector_create_route('first', 'talks about cats', embedding := axis(1), utterances := ARRAY['cats and dogs']);
SELECT route_name, position, utterance, negative, encoder, array_length(embedding, 1) AS dim FROM tinydancer.route_utterance ORDER BY 1, 2;
SELECT name, description, target_agent, priority, threshold, utterances, negatives, has_embedding FROM ruvector_list_routes();
SELECT route_name, round(similarity::numeric, 2) AS similarity FROM ruvector_semantic_route('refund my money', 1);
SELECT route_name, round(similarity::numeric, 2) AS similarity FROM ruvector_semantic_route('rain, sun and wind tomorrow', 1);
SELECT route_name, round(similarity::numeric, 2) AS similarity FROM ruvector_semantic_route(NULL, 1, embedding := axis(1));
SELECT round(similarity::numeric, 1) < 1 AS alone FROM ruvector_semantic_route('cats and dogs') WHERE route_name = 'first';
-- A changed description counts, without anything else being told.
UPDATE tinydancer.route SET description = 'snow' WHERE name = 'weather';
SELECT route_name, round(similarity::numeric, 2) AS similarity FROM ruvector_semantic_route('snow', 1);
-- A negative example does not match its route, whatever else there is.
SELECT count(*) FROM ruvector_semantic_route('invoice template', 10) WHERE route_name = 'billing';
-- Rows may be written directly; vectors are made where they are missing.
INSERT INTO tinydancer.route (name) VALUES ('direct');
SELECT count(*) FROM ruvector_semantic_route('good morning', 10) WHERE route_name = 'direct';
INSERT INTO tinydancer.route_utterance (route_name, position, utterance) VALUES ('direct', 1, 'good morning'), ('direct', 2, 'good evening');
SELECT route_name, round(similarity::numeric, 2) AS similarity FROM ruvector_semantic_route('good morning', 1);
UPDATE tinydancer.route SET active = false WHERE name = 'direct';
SELECT count(*) FROM ruvector_semantic_route('good morning', 10) WHERE route_name = 'direct';
DELETE FROM tinydancer.route;
SELECT count(*) FROM tinydancer.route_utterance;

-- Similarity and confidence against the formula.
SELECT ruvector_create_route('a', 'a', axis(1), priority := 0), ruvector_create_route('b', 'b', axis(2), priority := 9);
SELECT s.route_name, round(s.similarity::numeric, 2) AS similarity,
       abs(s.confidence - 1 / (1 + exp(-(s.similarity - e.fit_mu) / e.fit_s))) < 1e-9 AS confidence
FROM ruvector_semantic_route(NULL, embedding := at_cosine(0.8)) s, tinydancer.active_encoder() e;
-- Priority decides near-ties, and changes neither similarity nor confidence.
SELECT route_name, round(similarity::numeric, 2) AS similarity FROM ruvector_semantic_route(NULL, embedding := at_cosine(0.710));
SELECT route_name, round(similarity::numeric, 2) AS similarity FROM ruvector_semantic_route(NULL, embedding := at_cosine(0.730));
CREATE TEMP TABLE before AS SELECT * FROM ruvector_semantic_route(NULL, embedding := at_cosine(0.710));
UPDATE tinydancer.route SET priority = -5 WHERE name = 'b';
SELECT route_name FROM ruvector_semantic_route(NULL, embedding := at_cosine(0.710));
SELECT bool_and(b.confidence = s.confidence AND b.similarity = s.similarity) AS same
FROM before b JOIN ruvector_semantic_route(NULL, embedding := at_cosine(0.710)) s USING (route_name);
-- Equal in everything: by name.
SELECT ruvector_create_route('Z', 'z', axis(1));
SELECT route_name FROM ruvector_semantic_route(NULL, 2, embedding := axis(1));
SELECT ruvector_drop_route('Z');

-- top_k, thresholds, "none of these".
SELECT k, (SELECT count(*) FROM ruvector_semantic_route('x', k)) FROM unnest(ARRAY[1, 2, 1000000000]) k;
UPDATE tinydancer.route SET threshold = 0.75;
SELECT route_name FROM ruvector_semantic_route(NULL, embedding := at_cosine(0.8));
SELECT route_name FROM ruvector_semantic_route(NULL, embedding := at_cosine(0.71));
SELECT q.id, s.route_name FROM (VALUES (1, 0.9), (2, 0.7)) q (id, c)
LEFT JOIN LATERAL ruvector_semantic_route(NULL, embedding := at_cosine(q.c)) s ON true ORDER BY 1;
UPDATE tinydancer.route SET threshold = NULL;
SELECT count(*) FROM ruvector_semantic_route(NULL, embedding := axis(77));

-- Time of day, in the time zone of the session; a window over midnight.
SELECT ruvector_create_route('day', 'd', axis(1), time_start := '09:00', time_end := '17:00'),
       ruvector_create_route('night', 'n', axis(1), time_start := '22:00', time_end := '06:00'),
       ruvector_create_route('late', 'l', axis(1), time_start := '20:00'),
       ruvector_create_route('early', 'e', axis(1), time_end := '08:00');
SET timezone = 'UTC';
SELECT t AS at, (SELECT array_agg(route_name ORDER BY route_name COLLATE "C") FROM ruvector_semantic_route(NULL, 10, at := ('2026-03-01 ' || t)::timestamptz, embedding := axis(1))
                 WHERE route_name NOT IN ('a', 'b')) AS open
FROM unnest(ARRAY['00:00', '05:59:59.999', '06:00', '08:59', '09:00', '16:59', '17:00', '20:00', '22:00', '23:59:59.999']) t;
SET timezone = 'Asia/Tokyo';
SELECT array_agg(route_name) AS open FROM ruvector_semantic_route(NULL, 1, at := '2026-03-01 03:00+00', embedding := axis(1)) WHERE route_name = 'a';
SELECT count(*) AS noon_in_tokyo FROM ruvector_semantic_route(NULL, 10, at := '2026-03-01 03:00+00', embedding := axis(1)) WHERE route_name = 'day';
RESET timezone;
SELECT ruvector_drop_route(n) FROM unnest(ARRAY['day', 'night', 'late', 'early']) n;

-- Tiers.
SELECT ruvector_create_route('gold', 'g', axis(1), user_tiers := ARRAY['gold', 'platinum'], priority := 1),
       ruvector_create_route('all', 'x', axis(1), user_tiers := '{}');
SELECT tier, (SELECT array_agg(route_name ORDER BY route_name COLLATE "C") FROM ruvector_semantic_route(NULL, 10, tier, embedding := axis(1)) WHERE route_name IN ('gold', 'all')) AS open
FROM unnest(ARRAY['gold', 'platinum', 'Gold', '', NULL]) tier;
SELECT ruvector_drop_route(n) FROM unnest(ARRAY['gold', 'all']) n;

-- Rate limits, counted from the decision log; what is closed makes room for the next.
SELECT ruvector_create_route('busy', 'b', axis(1), rate_limit := 2, priority := 1), ruvector_create_route('shut', 's', axis(1), rate_limit := 0, priority := 2);
SELECT route_name FROM ruvector_semantic_route(NULL, 1, embedding := axis(1));
INSERT INTO tinydancer.decision (agent_name, route_name) VALUES ('x', 'busy');
SELECT route_name FROM ruvector_semantic_route(NULL, 1, embedding := axis(1));
INSERT INTO tinydancer.decision (agent_name, route_name) VALUES ('x', 'busy'), ('x', 'a');
SELECT route_name FROM ruvector_semantic_route(NULL, 1, embedding := axis(1));
-- An older decision does not count, nor one after the time that is asked for.
-- (Its triggers rest: nobody else may turn the clock back.)
SET session_replication_role = replica;
UPDATE tinydancer.decision SET decided_at = decided_at - interval '2 minutes' WHERE route_name = 'busy';
RESET session_replication_role;
SELECT route_name FROM ruvector_semantic_route(NULL, 1, embedding := axis(1));
SELECT route_name FROM ruvector_semantic_route(NULL, 1, at := now() - interval '2 minutes', embedding := axis(1));
SELECT route_name FROM ruvector_semantic_route(NULL, 1, at := now() - interval '3 minutes', embedding := axis(1));
-- A user without rights on the log is judged by it all the same; operators of his own are not used.
CREATE ROLE semantic_user;
GRANT USAGE ON SCHEMA public TO semantic_user;
INSERT INTO tinydancer.decision (agent_name, route_name) VALUES ('x', 'busy'), ('x', 'busy');
CREATE SCHEMA trap;
CREATE FUNCTION trap.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE OPERATOR trap.= (FUNCTION = trap.eq, LEFTARG = text, RIGHTARG = text);
GRANT USAGE ON SCHEMA trap TO semantic_user;
SET ROLE semantic_user;
SET search_path = trap, public, pg_catalog;
SELECT route_name FROM ruvector_semantic_route(NULL, 1, embedding := axis(1));
RESET search_path;
SELECT count(*) FROM tinydancer.decision;
SELECT ruvector_create_route('x', 'x');
SELECT ruvector_drop_route('a');
SELECT ruvector_tune_routes();
RESET ROLE;
DROP SCHEMA trap CASCADE;
REVOKE USAGE ON SCHEMA public FROM semantic_user;
DROP ROLE semantic_user;
SELECT ruvector_drop_route(n) FROM unnest(ARRAY['busy', 'shut', 'a', 'b']) n;

-- Creating again replaces everything.
SELECT ruvector_create_route('r', 'first', priority := 3, threshold := 0.5, time_start := '10:00', user_tiers := ARRAY['a'], rate_limit := 5, utterances := ARRAY['one'], negatives := ARRAY['two'], active := false);
SELECT ruvector_create_route('r', 'second');
SELECT * FROM ruvector_list_routes();
SELECT ruvector_drop_route('r');

-- Agents by capability.
SELECT ruvector_register_agent('reviewer', 'llm', ARRAY['code-review', 'translation']);
SELECT ruvector_register_agent('linter', 'tool', ARRAY['static analysis of program code']);
SELECT ruvector_register_agent('cook', 'human', ARRAY['Cooking']);
SELECT ruvector_register_agent('bare', 'api');
SELECT ruvector_register_agent('retired', 'llm', ARRAY['code review'], active := false);
SELECT ruvector_register_agent('vector', 'llm', ARRAY['sailing'], embedding := axis(1));
SELECT agent_name, agent_type, closest_capability, round(similarity::numeric, 2) AS similarity, is_exact FROM ruvector_find_agents_by_capability('Code_Review', 1);
SELECT agent_name, is_exact FROM ruvector_find_agents_by_capability('code review', 2);
SELECT agent_name, closest_capability FROM ruvector_find_agents_by_capability('COOKING', 1);
SELECT agent_name, is_exact FROM ruvector_find_agents_by_capability('sailing', 1);
SELECT count(*) FROM ruvector_find_agents_by_capability('anything', NULL);
SELECT count(*) FROM ruvector_find_agents_by_capability(NULL);
SELECT * FROM ruvector_find_agents_by_capability(' ');
SELECT * FROM ruvector_find_agents_by_capability('x', 0);
SELECT * FROM ruvector_find_agents_by_capability('x', -3);

-- What cannot be.
SELECT ruvector_create_route(NULL, 'x');
SELECT ruvector_create_route('  ', 'x');
SELECT ruvector_create_route('x');
SELECT ruvector_create_route('x', ' ');
SELECT ruvector_create_route('x', utterances := '{}');
SELECT ruvector_create_route('x', utterances := ARRAY['a', NULL]);
SELECT ruvector_create_route('x', utterances := ARRAY['a', ' ']);
SELECT ruvector_create_route('x', utterances := ARRAY[['a'], ['b']]);
SELECT ruvector_create_route('x', 'x', negatives := ARRAY['']);
SELECT ruvector_create_route('x', utterances := ARRAY['a', 'b'], negatives := ARRAY['b']);
SELECT ruvector_create_route('x', 'x', user_tiers := ARRAY[NULL]::text[]);
SELECT ruvector_create_route('x', 'x', target_agent := ' ');
SELECT ruvector_create_route('x', 'x', threshold := 1.5);
SELECT ruvector_create_route('x', 'x', threshold := 'NaN');
SELECT ruvector_create_route('x', 'x', threshold := '-Infinity');
SELECT ruvector_create_route('x', 'x', time_start := '10:00', time_end := '10:00');
SELECT ruvector_create_route('x', 'x', rate_limit := -1);
SELECT ruvector_create_route('x', 'x', embedding := '{1,2}');
SELECT ruvector_create_route('x', 'x', embedding := array_fill('NaN'::real, ARRAY[128]));
SELECT ruvector_create_route('x', 'x', embedding := array_fill(NULL::real, ARRAY[128]));
SELECT ruvector_drop_route(NULL);
SELECT ruvector_drop_route('');
SELECT ruvector_create_route('orders', 'x');
SELECT ruvector_drop_route('order');
SELECT ruvector_drop_route('nothing like it');
SELECT ruvector_drop_route('orders');
SELECT count(*) FROM tinydancer.route;
SELECT count(*) FROM ruvector_semantic_route(NULL);
SELECT * FROM ruvector_semantic_route('');
SELECT * FROM ruvector_semantic_route(E'\u00a0\u200b');
SELECT * FROM ruvector_semantic_route('x', 0);
SELECT * FROM ruvector_semantic_route('x', -1);
SELECT count(*) FROM ruvector_semantic_route('x', NULL);
SELECT * FROM ruvector_semantic_route('x', at := 'infinity');
SELECT * FROM ruvector_semantic_route('x', at := '-infinity');
SELECT * FROM ruvector_semantic_route('x', embedding := '{1,2,3}');
SELECT * FROM ruvector_semantic_route('x', embedding := array_fill('NaN'::real, ARRAY[128]));
SELECT * FROM ruvector_semantic_route('x', embedding := array_fill(NULL::real, ARRAY[128]));

-- The tables refuse what the functions refuse.
\set VERBOSITY sqlstate
INSERT INTO tinydancer.route (name, threshold) VALUES ('x', 'NaN');
INSERT INTO tinydancer.route (name, rate_limit_per_minute) VALUES ('x', -1);
INSERT INTO tinydancer.route (name, user_tiers) VALUES ('x', '{NULL}');
INSERT INTO tinydancer.route_scorer (encoder, scorer, confidence_mu, confidence_s, fingerprint) VALUES ('x', 'magic', 0, 1, '');
INSERT INTO tinydancer.route_scorer (encoder, scorer, confidence_mu, confidence_s, fingerprint) VALUES ('x', 'nearest', 'NaN', 1, '');
INSERT INTO tinydancer.route_scorer (encoder, scorer, confidence_mu, confidence_s, fingerprint) VALUES ('x', 'nearest', 0, 0, '');
\set VERBOSITY default
