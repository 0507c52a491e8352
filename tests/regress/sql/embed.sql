-- Text to vector, and what is no text or no vector.
\set SHOW_CONTEXT never
SELECT array_length(ruvector_embed('hello world'), 1) AS dim;
SELECT round(sum(x * x)::numeric, 5) AS squared_length FROM unnest(ruvector_embed('hello world')) x;
SELECT ruvector_embed('hello world') = ruvector_embed('  Hello   WORLD ') AS case_and_blanks_do_not_matter;
SELECT ruvector_embed('hello') = ruvector_embed('hello', 'static') AS same, ruvector_embed('hello', 'static') = ruvector_embed('hello', 'static-1') AS same_id;
SELECT ruvector_embed(NULL) IS NULL AS null_is_null;
SELECT ruvector_cosine_similarity(ruvector_embed('a dog barks'), ruvector_embed('the puppy is barking')) >
       ruvector_cosine_similarity(ruvector_embed('a dog barks'), ruvector_embed('quarterly tax filing')) AS near_is_nearer;
SELECT ruvector_cosine_similarity('{1,0}', '{1,0}') AS same, ruvector_cosine_similarity('{1,0}', '{0,1}') AS orthogonal,
       ruvector_cosine_similarity('{1,0}', '{-2,0}') AS opposite, ruvector_cosine_similarity('{0,0}', '{1,0}') AS zero,
       ruvector_cosine_similarity('{}', '{}') AS empty;
-- A text without a known word has no direction.
SELECT bool_and(x = 0) AS zeros FROM unnest(ruvector_embed('🎉')) x;

SELECT ruvector_embed('');
SELECT ruvector_embed(E' \t\n');
SET tinydancer.encoder_dir = '/nonexistent/encoders';
SELECT ruvector_embed('hello', 'no-such-encoder');
RESET tinydancer.encoder_dir;
SELECT ruvector_embed('hello', '../../etc/passwd');
SELECT ruvector_embed('hello', '');
SELECT ruvector_cosine_similarity('{1,2}', '{1}');
SELECT ruvector_cosine_similarity('{1,NULL}', '{1,2}');
SELECT ruvector_cosine_similarity('{{1,2}}', '{1,2}');
SELECT ruvector_cosine_similarity('{1,NaN}', '{1,2}');
SELECT ruvector_cosine_similarity('{1,Infinity}', '{1,2}');

-- Fit for a generated column and an index.
CREATE TABLE doc (body text, v real[] GENERATED ALWAYS AS (ruvector_embed(body, 'static-1')) STORED);
INSERT INTO doc VALUES ('one'), ('two');
SELECT body, array_length(v, 1) FROM doc ORDER BY 1;

-- A missing encoder says which file and how to build it; what needs no text goes on.
SELECT ruvector_register_agent('a', 'api', description := 'translate texts', cost_per_call := 0, avg_latency_ms := 10);
SELECT ruvector_embed('translate')::text AS vector \gset
SET tinydancer.encoder_dir = '/nonexistent/encoders';
SELECT ruvector_embed('hello');
SELECT agent_name FROM ruvector_route('hello');
SELECT agent_name FROM route_results WHERE request = 'hello';
SELECT agent_name FROM ruvector_route(NULL, embedding := :'vector');
SELECT agent_name FROM ruvector_route('with a text too', embedding := :'vector');
SELECT ruvector_register_agent('b', 'api', description := 'more texts');
-- So does a damaged one.
COPY (SELECT 'no encoder') TO PROGRAM 'mkdir -p /tmp/tinydancer_regress && cat > /tmp/tinydancer_regress/static-1.tdenc';
SET tinydancer.encoder_dir = '/tmp/tinydancer_regress';
SELECT agent_name FROM ruvector_route('hello');
COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm -r /tmp/tinydancer_regress';
RESET tinydancer.encoder_dir;
SELECT agent_name FROM ruvector_route('translate this');

-- The instruction set is for superusers to choose, among those that there are.
SET tinydancer.kernel_level = 'portable';
SELECT ruvector_embed('same bits') = (SELECT ruvector_embed('same bits', 'static')) AS same;
RESET tinydancer.kernel_level;
SHOW tinydancer.kernel_level;
SET tinydancer.kernel_level = 'mmx';
CREATE ROLE td_plain;
SET ROLE td_plain;
SET tinydancer.kernel_level = 'portable';
RESET ROLE;
DROP ROLE td_plain;
