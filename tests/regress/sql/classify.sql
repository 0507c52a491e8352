-- Classifiers: those that ship, and the form of what they say.
\set SHOW_CONTEXT never
\pset format unaligned
SELECT ruvector_classify_request('Write a Python function');
SELECT ruvector_classify_capabilities('Write a Python function');
SELECT ruvector_classify_request(NULL) IS NULL AS request, ruvector_classify_capabilities(NULL) IS NULL AS capabilities;
SELECT ruvector_classify_request('');
SELECT ruvector_classify_capabilities(E' \t\n');
CREATE TABLE pending_requests (request_id integer, content text);
SELECT request_id, ruvector_classify_request(content) AS classification FROM pending_requests;
INSERT INTO pending_requests VALUES (1, 'Summarise this article');
SELECT request_id, ruvector_classify_request(content) AS classification FROM pending_requests;
SELECT ruvector_classify_request(embedding => ruvector_embed('Translate this into German')) ->> 'top_category' AS by_vector;
SELECT ruvector_classify_request(embedding => '{1, 2}');
SELECT kind, version, encoder, builtin, active FROM tinydancer.model ORDER BY kind, encoder;
-- What ships cannot be changed, only gone before.
UPDATE tinydancer.model SET active = false WHERE kind = 'classifier';
DELETE FROM tinydancer.model WHERE kind = 'capabilities';
SELECT tinydancer.drop_model('classifier', 1);
SELECT tinydancer.activate_model('classifier', 1);
SELECT tinydancer.activate_model('classifier', 2);
SELECT tinydancer.add_model('classifier', '\x00');
SELECT tinydancer.add_model('capabilities', m.bytes) FROM tinydancer.model m WHERE m.kind = 'classifier' LIMIT 1;
SELECT tinydancer.deactivate_model('classifier'), tinydancer.active_model('classifier');

SELECT jsonb_pretty(tinydancer.classification(ARRAY['code', 'maths', 'small talk', 'legal'], ARRAY[0.125, 0.5, 0.25, 0.125]));
SELECT tinydancer.classification('{}', '{}');
SELECT tinydancer.classification(NULL, '{}') IS NULL AS is_null;
SELECT tinydancer.classification(ARRAY['a"b'], ARRAY[1.0]);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[1.0]);
SELECT tinydancer.classification(ARRAY['a', NULL], ARRAY[0.5, 0.5]);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[0.5, NULL]);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[0.5, 'NaN']);
SELECT tinydancer.classification(ARRAY['a', 'b'], ARRAY[0.5, 1.5]);
