-- Kinds of task and capabilities that a request needs, by trained classifiers.

CREATE FUNCTION tinydancer.classification(categories text[], probabilities float8[]) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'tinydancer_classification' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION tinydancer.classification(text[], float8[]) IS
    'What a classifier says, as JSON: classifications, most probable first, top_category, confidence';

CREATE FUNCTION ruvector_classify_request(request text DEFAULT NULL, embedding real[] DEFAULT NULL) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'ruvector_classify_request' LANGUAGE C STABLE PARALLEL SAFE COST 500;
COMMENT ON FUNCTION ruvector_classify_request(text, real[]) IS
    'The kind of task that a request is: categories by probability; NULL without request and vector';

CREATE FUNCTION ruvector_classify_capabilities(request text DEFAULT NULL, embedding real[] DEFAULT NULL) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'ruvector_classify_capabilities' LANGUAGE C STABLE PARALLEL SAFE COST 500;
COMMENT ON FUNCTION ruvector_classify_capabilities(text, real[]) IS
    'The capabilities that a request needs, each by itself with its probability; NULL without request and vector';
