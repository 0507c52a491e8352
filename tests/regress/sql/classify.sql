-- Classifiers: the doors exist, and what comes through them has one form.
SELECT ruvector_classify_request('Write a Python function');
SELECT ruvector_classify_capabilities('Write a Python function');
SELECT ruvector_classify_request(NULL) IS NULL AS request, ruvector_classify_capabilities(NULL) IS NULL AS capabilities;
SELECT ruvector_classify_request('');
SELECT ruvector_classify_capabilities(E' \t\n');
CREATE TABLE pending_requests (request_id integer, content text);
SELECT request_id, ruvector_classify_request(content) AS classification FROM pending_requests;
INSERT INTO pending_requests VALUES (1, 'Summarise this article');
\set VERBOSITY sqlstate
SELECT request_id, ruvector_classify_request(content) AS classification FROM pending_requests;
\set VERBOSITY default

SELECT jsonb_pretty(tinydancer.classification(ARRAY['code', 'maths', 'small talk', 'legal'], ARRAY[0.125, 0.5, 0.25, 0.125]));
SELECT tinydancer.classification('{}', '{}');
SELECT tinydancer.classification(NULL, '{}') IS NULL AS is_null;
SELECT tinydancer.classification(ARRAY['a"b'], ARRAY[1.0]);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[1.0]);
SELECT tinydancer.classification(ARRAY['a', NULL], ARRAY[0.5, 0.5]);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[0.5, NULL]);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[0.5, 'NaN']);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[0.5, 1.5]);
