-- Semantic routes: named topics with example requests, and who answers them.

CREATE FUNCTION tinydancer.route_builds() RETURNS bigint
    AS 'MODULE_PATHNAME', 'tinydancer_route_builds' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION tinydancer.route_builds() IS
    'How often this session has read the semantic routes';

CREATE FUNCTION tinydancer.raise_unknown_route(route_name text) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text[] := ARRAY(SELECT r.name FROM tinydancer.route r ORDER BY r.name LIMIT 1000);
    guess text := tinydancer.closest(raise_unknown_route.route_name, known);
BEGIN
    RAISE EXCEPTION 'route "%" does not exist', raise_unknown_route.route_name
        USING ERRCODE = 'undefined_object',
              DETAIL = format('There are %s routes.', (SELECT count(*) FROM tinydancer.route)),
              HINT = coalesce('Perhaps you meant "' || guess || '".',
                              'SELECT name FROM ruvector_list_routes() shows them.');
END
$$;
COMMENT ON FUNCTION tinydancer.raise_unknown_route(text) IS 'Raises the error for a name that no route has';

CREATE FUNCTION tinydancer.require_texts(list text[], argument text, route_name text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(array_ndims(require_texts.list), 1) <> 1
       OR EXISTS (SELECT FROM unnest(require_texts.list) AS e (item) WHERE e.item IS NULL OR btrim(e.item) = '') THEN
        RAISE EXCEPTION '% must be a one-dimensional list of non-empty texts', require_texts.argument
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Route "%s" has %s.', require_texts.route_name, require_texts.list),
                  HINT = 'Use array_remove(..., NULL).';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.require_texts(text[], text, text) IS
    'Raises the error for a list with a NULL or blank element, or of several dimensions';

-- The sentences of the constraints of tinydancer.route, before they are broken, and what a route needs.
CREATE FUNCTION tinydancer.check_route(r tinydancer.route, utterances text[], negatives text[], embedding real[])
    RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    both_ways text;
BEGIN
    PERFORM tinydancer.require_texts(utterances, 'utterances', r.name);
    PERFORM tinydancer.require_texts(negatives, 'negatives', r.name);
    PERFORM tinydancer.require_texts(r.user_tiers, 'user_tiers', r.name);
    IF embedding IS NULL AND coalesce(cardinality(utterances), 0) = 0 AND coalesce(btrim(r.description), '') = '' THEN
        RAISE EXCEPTION 'route "%" has nothing that a request could be matched with', r.name
            USING ERRCODE = 'null_value_not_allowed',
                  DETAIL = 'Its description, utterances and embedding are all empty.',
                  HINT = 'Pass utterances := ARRAY[''an example request'', ...], or at least a description.';
    END IF;
    SELECT u.item INTO both_ways FROM unnest(utterances) AS u (item) WHERE u.item = ANY (negatives) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'an utterance of route "%" is a negative example too', r.name
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Both lists have "%s".', both_ways),
                  HINT = 'Remove it from utterances or from negatives.';
    END IF;
    IF btrim(r.target_agent) = '' THEN
        RAISE EXCEPTION 'target_agent must not be empty'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Route "%s" has a blank target.', r.name),
                  HINT = 'Pass NULL for a route that only names a topic.';
    END IF;
    IF NOT r.threshold BETWEEN -1 AND 1 THEN
        RAISE EXCEPTION 'threshold must be between -1 and 1'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Route "%s" has %s.', r.name, r.threshold),
                  HINT = 'It is compared with the similarity; pass NULL for no cut.';
    END IF;
    IF r.time_start = r.time_end THEN
        RAISE EXCEPTION 'time_start and time_end must differ'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Route "%s" has %s twice.', r.name, r.time_start),
                  HINT = 'Pass neither for the whole day; a start after the end goes over midnight.';
    END IF;
    IF r.rate_limit_per_minute < 0 THEN
        RAISE EXCEPTION 'rate_limit must not be negative'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Route "%s" has %s.', r.name, r.rate_limit_per_minute),
                  HINT = 'Pass NULL for no limit, 0 for a route that never matches.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_route(tinydancer.route, text[], text[], real[]) IS
    'Raises the error for what a route cannot have';

-- What a route is matched with.  Said twice counts once.
CREATE FUNCTION tinydancer.store_utterances(route_name text, utterances text[], negatives text[], embedding real[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoder_id text := tinydancer.pin_encoder();
    passed_by_callers boolean := encoder_id = 'external';
BEGIN
    DELETE FROM tinydancer.route_utterance u WHERE u.route_name = store_utterances.route_name;
    INSERT INTO tinydancer.route_utterance (route_name, position, utterance, embedding, encoder, negative)
    SELECT store_utterances.route_name, row_number() OVER (ORDER BY t.negative, t.position), t.utterance,
           v.embedding, CASE WHEN v.embedding IS NOT NULL THEN encoder_id END, t.negative
    FROM (SELECT false, u.item, min(u.position)
          FROM unnest(store_utterances.utterances) WITH ORDINALITY AS u (item, position)
          GROUP BY u.item
          UNION ALL
          SELECT true, n.item, min(n.position)
          FROM unnest(store_utterances.negatives) WITH ORDINALITY AS n (item, position)
          GROUP BY n.item) AS t (negative, utterance, position),
         -- OFFSET 0: made once, though used twice.
         LATERAL (SELECT tinydancer.embed_phrase('utterance', t.utterance) OFFSET 0) AS v (embedding);
    IF store_utterances.embedding IS NOT NULL THEN
        INSERT INTO tinydancer.route_utterance (route_name, position, utterance, embedding, encoder)
        SELECT store_utterances.route_name, count(*) + 1, '', tinydancer.unit_vector(store_utterances.embedding),
               encoder_id
        FROM tinydancer.route_utterance u
        WHERE u.route_name = store_utterances.route_name;
    ELSIF passed_by_callers THEN
        RAISE NOTICE 'route "%" has no vector', store_utterances.route_name
            USING DETAIL = 'Callers pass every vector while encoder "external" is in use; without one a route '
                           'matches no request.',
                  HINT = 'Pass its vector as embedding.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.store_utterances(text, text[], text[], real[]) IS
    'Stores a route''s utterances and negative examples with their vectors, and one that the caller passed';
REVOKE ALL ON FUNCTION tinydancer.store_utterances(text, text[], text[], real[]) FROM PUBLIC;

CREATE FUNCTION ruvector_create_route(
    name text,
    description text DEFAULT NULL,
    embedding real[] DEFAULT NULL,
    target_agent text DEFAULT NULL,
    priority integer DEFAULT NULL,
    utterances text[] DEFAULT NULL,
    threshold float8 DEFAULT NULL,
    time_start time DEFAULT NULL,
    time_end time DEFAULT NULL,
    user_tiers text[] DEFAULT NULL,
    rate_limit integer DEFAULT NULL,
    negatives text[] DEFAULT NULL,
    active boolean DEFAULT NULL)
    RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r tinydancer.route;
    guess text;
BEGIN
    PERFORM tinydancer.require_value(ruvector_create_route.name, 'name', 'ruvector_create_route');
    r.name := ruvector_create_route.name;
    r.description := ruvector_create_route.description;
    r.target_agent := ruvector_create_route.target_agent;
    r.priority := coalesce(ruvector_create_route.priority, 0);
    r.threshold := ruvector_create_route.threshold;
    r.time_start := ruvector_create_route.time_start;
    r.time_end := ruvector_create_route.time_end;
    -- An empty list asks for nothing.
    r.user_tiers := nullif(ruvector_create_route.user_tiers, '{}');
    r.rate_limit_per_minute := ruvector_create_route.rate_limit;
    r.active := coalesce(ruvector_create_route.active, true);
    r.created_at := now();
    r.updated_at := now();
    PERFORM tinydancer.check_route(r, ruvector_create_route.utterances, ruvector_create_route.negatives,
                                   ruvector_create_route.embedding);

    -- Before the route is locked: who changes the encoder locks in the same order.
    PERFORM tinydancer.pin_encoder();
    INSERT INTO tinydancer.route SELECT r.*
    ON CONFLICT ON CONSTRAINT route_pkey DO UPDATE
        SET (description, target_agent, priority, threshold, time_start, time_end, user_tiers,
             rate_limit_per_minute, active)
          = (excluded.description, excluded.target_agent, excluded.priority, excluded.threshold,
             excluded.time_start, excluded.time_end, excluded.user_tiers, excluded.rate_limit_per_minute,
             excluded.active);
    PERFORM tinydancer.store_utterances(r.name, ruvector_create_route.utterances, ruvector_create_route.negatives,
                                        ruvector_create_route.embedding);
    IF r.target_agent IS NOT NULL AND NOT EXISTS (SELECT FROM tinydancer.agent a WHERE a.name = r.target_agent) THEN
        guess := tinydancer.closest(r.target_agent, ARRAY(SELECT a.name FROM tinydancer.agent a ORDER BY a.name LIMIT 1000));
        RAISE NOTICE 'target agent "%" of route "%" is not registered', r.target_agent, r.name
            USING HINT = coalesce('Perhaps you meant "' || guess || '".',
                                  'ruvector_register_agent() registers it; until then the route answers with its name alone.');
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_create_route(text, text, real[], text, integer, text[], float8, time, time, text[],
    integer, text[], boolean) IS
    'Creates a semantic route, or replaces the one of that name';

CREATE FUNCTION ruvector_drop_route(name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tinydancer.require_value(ruvector_drop_route.name, 'name', 'ruvector_drop_route');
    DELETE FROM tinydancer.route r WHERE r.name = ruvector_drop_route.name;
    IF NOT FOUND THEN
        PERFORM tinydancer.raise_unknown_route(ruvector_drop_route.name);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_drop_route(text) IS 'Removes a semantic route; logs keep its name';

CREATE FUNCTION ruvector_list_routes()
    RETURNS TABLE (name text, description text, target_agent text, priority integer, threshold float8,
                   time_start time, time_end time, user_tiers text[], rate_limit integer, active boolean,
                   utterances text[], negatives text[], has_embedding boolean)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 50 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.name, r.description, r.target_agent, r.priority, r.threshold, r.time_start, r.time_end, r.user_tiers,
           r.rate_limit_per_minute, r.active, u.utterances, u.negatives, u.has_embedding
    FROM tinydancer.route r,
         LATERAL (SELECT coalesce(array_agg(t.utterance ORDER BY t.position) FILTER (WHERE NOT t.negative AND t.utterance <> ''), '{}'),
                         coalesce(array_agg(t.utterance ORDER BY t.position) FILTER (WHERE t.negative), '{}'),
                         coalesce(bool_or(NOT t.negative AND t.utterance = ''), false)
                  FROM tinydancer.route_utterance t
                  WHERE t.route_name = r.name) AS u (utterances, negatives, has_embedding)
    ORDER BY r.name
$$;
COMMENT ON FUNCTION ruvector_list_routes() IS 'The semantic routes, active or not, by name';

CREATE FUNCTION ruvector_semantic_route(
    query text,
    top_k integer DEFAULT 3,
    user_tier text DEFAULT NULL,
    at timestamptz DEFAULT NULL,
    embedding real[] DEFAULT NULL,
    OUT route_name text,
    OUT similarity float8,
    OUT target_agent text,
    OUT confidence float8)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'ruvector_semantic_route' LANGUAGE C STABLE PARALLEL SAFE COST 500 ROWS 3;
COMMENT ON FUNCTION ruvector_semantic_route(text, integer, text, timestamptz, real[]) IS
    'The semantic routes that a request matches, best first; no row when none does';

CREATE FUNCTION tinydancer.fold_capability(capability text) RETURNS text
    AS 'MODULE_PATHNAME', 'tinydancer_fold_capability' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION tinydancer.fold_capability(text) IS
    'What two spellings of a capability have in common: case aside, hyphens and underscores as blanks';

CREATE FUNCTION ruvector_find_agents_by_capability(capability text, k integer DEFAULT 10)
    RETURNS TABLE (agent_name text, agent_type text, closest_capability text, similarity float8, is_exact boolean)
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 10 SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoder_id text;
    wanted real[];
    folded text := tinydancer.fold_capability(ruvector_find_agents_by_capability.capability);
BEGIN
    IF ruvector_find_agents_by_capability.k < 1 THEN
        RAISE EXCEPTION 'k must be at least 1'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The value is %s.', ruvector_find_agents_by_capability.k),
                  HINT = 'Pass NULL for all agents.';
    END IF;
    IF ruvector_find_agents_by_capability.capability IS NULL THEN
        RETURN;
    END IF;
    PERFORM tinydancer.require_value(ruvector_find_agents_by_capability.capability, 'capability',
                                     'ruvector_find_agents_by_capability');
    wanted := tinydancer.embed_phrase('capability', ruvector_find_agents_by_capability.capability);
    SELECT e.id INTO encoder_id FROM tinydancer.active_encoder() e;
    RETURN QUERY
        SELECT best.name, best.type, best.capability, best.similarity, best.is_exact
        FROM (SELECT DISTINCT ON (a.name) a.name, a.type, c.capability, s.similarity, x.is_exact
              FROM tinydancer.agent a
              CROSS JOIN LATERAL unnest(a.capabilities) AS c (capability)
              LEFT JOIN tinydancer.agent_phrase p
                     ON p.agent_name = a.name AND p.kind = 'capability' AND p.phrase = c.capability
                        AND p.encoder = encoder_id
              CROSS JOIN LATERAL (SELECT tinydancer.fold_capability(c.capability) = folded) AS x (is_exact)
              CROSS JOIN LATERAL (SELECT @extschema@.ruvector_cosine_similarity(
                                             wanted, coalesce(p.embedding, tinydancer.embed_phrase('capability', c.capability)))::float8)
                                 AS s (similarity)
              WHERE a.active
              ORDER BY a.name, x.is_exact DESC, s.similarity DESC NULLS LAST, c.capability COLLATE "C") AS best
        ORDER BY best.is_exact DESC, best.similarity DESC NULLS LAST, best.name
        LIMIT ruvector_find_agents_by_capability.k;
END
$$;
COMMENT ON FUNCTION ruvector_find_agents_by_capability(text, integer) IS
    'The active agents whose capabilities come closest to one, exact matches first';

REVOKE ALL ON FUNCTION ruvector_create_route(text, text, real[], text, integer, text[], float8, time, time, text[],
    integer, text[], boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION ruvector_drop_route(text) FROM PUBLIC;
