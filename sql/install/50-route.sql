-- The decision.

CREATE FUNCTION ruvector_route(
    request text,
    optimize_for text DEFAULT NULL,
    required_capabilities text[] DEFAULT NULL,
    max_cost float8 DEFAULT NULL,
    max_latency_ms float8 DEFAULT NULL,
    min_quality float8 DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    budget_remaining float8 DEFAULT NULL,
    embedding real[] DEFAULT NULL,
    pool text DEFAULT NULL,
    min_expected_quality float8 DEFAULT NULL,
    OUT agent_name text,
    OUT confidence float8,
    OUT estimated_cost float8,
    OUT estimated_latency_ms float8,
    OUT expected_quality float8,
    OUT similarity float8,
    OUT reasoning text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruvector_route' LANGUAGE C STABLE PARALLEL SAFE COST 500 ROWS 1;
COMMENT ON FUNCTION ruvector_route(text, text, text[], float8, float8, float8, text[], float8, real[], text, float8) IS
    'The best agent for a request within the limits; no row when no agent passes them';

CREATE FUNCTION ruvector_explain_route(
    request text,
    optimize_for text DEFAULT NULL,
    required_capabilities text[] DEFAULT NULL,
    max_cost float8 DEFAULT NULL,
    max_latency_ms float8 DEFAULT NULL,
    min_quality float8 DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    budget_remaining float8 DEFAULT NULL,
    embedding real[] DEFAULT NULL,
    pool text DEFAULT NULL,
    min_expected_quality float8 DEFAULT NULL,
    OUT agent_name text,
    OUT rank integer,
    OUT eligible boolean,
    OUT rejected_by text,
    OUT score float8,
    OUT similarity float8,
    OUT closest_phrase text,
    OUT fit float8,
    OUT quality float8,
    OUT expected_quality float8,
    OUT estimated_cost float8,
    OUT cost_utility float8,
    OUT estimated_latency_ms float8,
    OUT latency_utility float8,
    OUT reasoning text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruvector_explain_route' LANGUAGE C STABLE PARALLEL SAFE COST 500 ROWS 20;
COMMENT ON FUNCTION ruvector_explain_route(text, text, text[], float8, float8, float8, text[], float8, real[], text, float8) IS
    'Every agent with the parts of its score, ranked, and the limits that reject it';
