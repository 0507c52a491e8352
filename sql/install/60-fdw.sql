-- The foreign data wrapper.

CREATE FUNCTION tinydancer.fdw_handler() RETURNS fdw_handler
    AS 'MODULE_PATHNAME', 'tinydancer_fdw_handler' LANGUAGE C STRICT;
COMMENT ON FUNCTION tinydancer.fdw_handler() IS 'Handler of the foreign data wrapper tinydancer_fdw';
REVOKE ALL ON FUNCTION tinydancer.fdw_handler() FROM PUBLIC;

CREATE FUNCTION tinydancer.fdw_validator(text[], oid) RETURNS void
    AS 'MODULE_PATHNAME', 'tinydancer_fdw_validator' LANGUAGE C STRICT;
COMMENT ON FUNCTION tinydancer.fdw_validator(text[], oid) IS
    'Checks the options of servers and foreign tables of tinydancer_fdw';
REVOKE ALL ON FUNCTION tinydancer.fdw_validator(text[], oid) FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER tinydancer_fdw
    HANDLER tinydancer.fdw_handler VALIDATOR tinydancer.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER tinydancer_fdw IS 'Decisions as rows';
CREATE SERVER tinydancer FOREIGN DATA WRAPPER tinydancer_fdw;
COMMENT ON SERVER tinydancer IS 'This database''s registry, for foreign tables of one''s own too';

CREATE FOREIGN TABLE route_results (
    request text,
    agent_name text,
    confidence float8,
    estimated_cost float8,
    estimated_latency_ms float8,
    expected_quality float8,
    similarity float8,
    reasoning text,
    optimize_for text,
    required_capabilities text[],
    max_cost float8,
    max_latency_ms float8,
    min_quality float8,
    excluded_agents text[],
    budget_remaining float8,
    embedding real[],
    pool text,
    min_expected_quality float8
) SERVER tinydancer;
COMMENT ON FOREIGN TABLE route_results IS
    'One decision per request: write WHERE request = ... or join on it; the columns from optimize_for on are limits, set by equality';
COMMENT ON COLUMN route_results.estimated_cost IS 'USD; NULL: the agent has no price';
COMMENT ON COLUMN route_results.max_cost IS 'limit in USD on the estimated cost of the request';
COMMENT ON COLUMN route_results.budget_remaining IS 'what is left to spend, in USD';

CREATE FUNCTION tinydancer.session_activity(
    OUT inputs_evaluated bigint, OUT texts_embedded bigint, OUT requests_routed bigint, OUT requests_matched bigint,
    OUT requests_classified bigint)
    AS 'MODULE_PATHNAME', 'tinydancer_session_activity' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION tinydancer.session_activity() IS
    'What this session has worked out so far: how often a foreign scan evaluated its inputs, texts embedded, requests scored against agents and against semantic routes, and classified';
