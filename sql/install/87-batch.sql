-- Many requests at once.

CREATE FUNCTION ruvector_batch_route(
    requests text[],
    optimize_for text DEFAULT NULL,
    required_capabilities text[] DEFAULT NULL,
    max_cost float8 DEFAULT NULL,
    max_latency_ms float8 DEFAULT NULL,
    min_quality float8 DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    budget_remaining float8 DEFAULT NULL,
    pool text DEFAULT NULL,
    min_expected_quality float8 DEFAULT NULL,
    max_total_cost float8 DEFAULT NULL,
    OUT request_index integer,
    OUT request text,
    OUT agent_name text,
    OUT confidence float8,
    OUT estimated_cost float8,
    OUT estimated_latency_ms float8,
    OUT expected_quality float8,
    OUT similarity float8,
    OUT reasoning text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruvector_batch_route' LANGUAGE C STABLE PARALLEL SAFE COST 10000 ROWS 100;
COMMENT ON FUNCTION ruvector_batch_route(text[], text, text[], float8, float8, float8, text[], float8, text, float8, float8) IS
    'Decisions for many requests: each alone, or with total_cost all together at the least cost or within max_total_cost';
