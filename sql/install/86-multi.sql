-- Several agents for one request.

CREATE FUNCTION ruvector_route_multi(
    request text,
    num_agents integer DEFAULT 3,
    strategy text DEFAULT 'pipeline',
    required_capabilities text[] DEFAULT NULL,
    max_cost float8 DEFAULT NULL,
    max_latency_ms float8 DEFAULT NULL,
    min_quality float8 DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    budget_remaining float8 DEFAULT NULL,
    embedding real[] DEFAULT NULL,
    pool text DEFAULT NULL,
    min_expected_quality float8 DEFAULT NULL,
    optimize_for text DEFAULT NULL,
    OUT step integer,
    OUT agent_name text,
    OUT role text,
    OUT confidence float8,
    OUT estimated_cost float8,
    OUT estimated_latency_ms float8,
    OUT expected_quality float8,
    OUT similarity float8,
    OUT reasoning text,
    OUT weight float8,
    OUT capabilities text[])
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruvector_route_multi' LANGUAGE C STABLE PARALLEL SAFE COST 2000 ROWS 3;
COMMENT ON FUNCTION ruvector_route_multi(text, integer, text, text[], float8, float8, float8, text[], float8, real[],
    text, float8, text) IS
    'A team for a request: a pipeline of steps, parallel shares, or an ensemble of voters; limits are on the whole';
