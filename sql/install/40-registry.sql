-- The agent registry.

CREATE FUNCTION tinydancer.closest(name text, candidates text[]) RETURNS text
    AS 'MODULE_PATHNAME', 'tinydancer_closest' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION tinydancer.closest(text, text[]) IS
    'The candidate most like a misspelled name; NULL when none is close';

CREATE FUNCTION tinydancer.embed_phrase(kind text, phrase text) RETURNS real[]
    AS 'MODULE_PATHNAME', 'tinydancer_embed_phrase' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 200;
COMMENT ON FUNCTION tinydancer.embed_phrase(text, text) IS
    'Vector of a phrase as the registry compares it; zeros when it has no words, NULL when callers pass all vectors';

CREATE FUNCTION tinydancer.unit_vector(embedding real[]) RETURNS real[]
    AS 'MODULE_PATHNAME', 'tinydancer_unit_vector' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION tinydancer.unit_vector(real[]) IS
    'The vector scaled to unit length, checked against the active encoder';

CREATE FUNCTION tinydancer.raise_unknown_agent(agent_name text) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text[] := ARRAY(SELECT a.name FROM tinydancer.agent a ORDER BY a.name LIMIT 1000);
    guess text := tinydancer.closest(raise_unknown_agent.agent_name, known);
BEGIN
    RAISE EXCEPTION 'agent "%" does not exist', raise_unknown_agent.agent_name
        USING ERRCODE = 'undefined_object',
              DETAIL = format('The registry holds %s agents.', cardinality(known)),
              HINT = coalesce('Perhaps you meant "' || guess || '".',
                              'SELECT name FROM ruvector_list_agents() shows them.');
END
$$;
COMMENT ON FUNCTION tinydancer.raise_unknown_agent(text) IS 'Raises the error for a name that no agent has';

CREATE FUNCTION tinydancer.require_value(value text, argument text, function text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF require_value.value IS NULL THEN
        RAISE EXCEPTION '% must not be NULL', require_value.argument
            USING ERRCODE = 'null_value_not_allowed',
                  DETAIL = format('%s() needs a value for it.', require_value.function),
                  HINT = format('Pass %s := ....', require_value.argument);
    END IF;
    IF btrim(require_value.value) = '' THEN
        RAISE EXCEPTION '% must not be empty', require_value.argument
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('%s() got an empty text or blanks.', require_value.function),
                  HINT = format('Pass a %s with at least one visible character.', require_value.argument);
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.require_value(text, text, text) IS
    'Raises the error for a required argument that is NULL or blank';

-- The sentences of the constraints of tinydancer.agent, before they are broken.
CREATE FUNCTION tinydancer.check_agent(a tinydancer.agent) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known_types CONSTANT text[] := ARRAY['llm', 'tool', 'api', 'human', 'ensemble'];
    guess text;
    f record;
BEGIN
    IF octet_length(a.name) > 256 THEN
        RAISE EXCEPTION 'agent name is too long'
            USING ERRCODE = 'string_data_right_truncation',
                  DETAIL = format('It has %s bytes, the limit is 256.', octet_length(a.name)),
                  HINT = 'Put what the agent does into its description.';
    END IF;
    IF a.type <> ALL (known_types) THEN
        guess := tinydancer.closest(a.type, known_types);
        RAISE EXCEPTION 'unknown agent type "%"', a.type
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Known types are %s.', array_to_string(known_types, ', ')),
                  HINT = coalesce('Perhaps you meant "' || guess || '".',
                                  'A program that answers by itself is a tool, a service an api.');
    END IF;
    FOR f IN
        SELECT v.figure, v.value
        FROM (VALUES ('cost_per_1k_tokens', a.cost_per_1k_tokens),
                     ('cost_per_1k_output_tokens', a.cost_per_1k_output_tokens),
                     ('cost_per_call', a.cost_per_call),
                     ('cost_per_second', a.cost_per_second),
                     ('expected_output_tokens', a.expected_output_tokens),
                     ('avg_latency_ms', a.avg_latency_ms),
                     ('p99_latency_ms', a.p99_latency_ms)) AS v (figure, value)
        WHERE NOT (v.value >= 0 AND v.value < 'Infinity')
    LOOP
        RAISE EXCEPTION '% must be a finite number that is not negative', f.figure
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Agent "%s" has %s.', a.name, f.value),
                  HINT = CASE WHEN f.figure LIKE 'cost%' THEN 'Pass 0 for free, NULL for not known.'
                              ELSE 'Pass NULL for not known.' END;
    END LOOP;
    FOR f IN
        SELECT v.figure, v.value
        FROM (VALUES ('quality_score', a.quality_score), ('success_rate', a.success_rate)) AS v (figure, value)
        WHERE NOT (v.value BETWEEN 0 AND 1)
    LOOP
        RAISE EXCEPTION '% must be between 0 and 1', f.figure
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Agent "%s" has %s.', a.name, f.value),
                  HINT = 'Divide a score in percent by 100.';
    END LOOP;
    IF coalesce(array_ndims(a.capabilities), 1) <> 1 OR array_position(a.capabilities, NULL) IS NOT NULL
       OR EXISTS (SELECT FROM unnest(a.capabilities) AS u (c) WHERE btrim(u.c) = '') THEN
        RAISE EXCEPTION 'capabilities must be a list of non-empty texts'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Agent "%s" has %s.', a.name, a.capabilities),
                  HINT = 'Write ARRAY[''reasoning'', ''code''].';
    END IF;
    IF btrim(a.pool) = '' THEN
        RAISE EXCEPTION 'pool must not be empty'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Agent "%s" has a blank pool.', a.name),
                  HINT = 'Pass NULL for no pool.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_agent(tinydancer.agent) IS
    'Raises the error for a figure that an agent cannot have';

-- The stored vectors of an agent's texts, made anew.  What is not passed is gone, examples and a
-- caller's vector too, as everything else in a registration.
CREATE FUNCTION tinydancer.store_phrases(agent_name text, examples text[], embedding real[]) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoder_id text := tinydancer.pin_encoder();
    passed_by_callers boolean := encoder_id = 'external';
BEGIN
    DELETE FROM tinydancer.agent_phrase p WHERE p.agent_name = store_phrases.agent_name;
    INSERT INTO tinydancer.agent_phrase (agent_name, kind, position, phrase, embedding, encoder)
    SELECT a.name, t.kind, t.position, t.phrase, tinydancer.embed_phrase(t.kind, t.phrase),
           CASE WHEN NOT passed_by_callers THEN encoder_id END
    FROM tinydancer.agent a,
         LATERAL (SELECT 'capability', c.position::integer, c.phrase
                  FROM unnest(a.capabilities) WITH ORDINALITY AS c (phrase, position)
                  UNION ALL
                  SELECT 'description', 1, a.description WHERE a.description <> ''
                  UNION ALL
                  SELECT 'example', e.position::integer, e.phrase
                  FROM unnest(store_phrases.examples) WITH ORDINALITY AS e (phrase, position))
             AS t (kind, position, phrase)
    WHERE a.name = store_phrases.agent_name;
    IF store_phrases.embedding IS NOT NULL THEN
        INSERT INTO tinydancer.agent_phrase (agent_name, kind, position, phrase, embedding, encoder)
        VALUES (store_phrases.agent_name, 'caller', 1, '', tinydancer.unit_vector(store_phrases.embedding),
                encoder_id);
    ELSIF passed_by_callers THEN
        RAISE NOTICE 'agent "%" has no vector', store_phrases.agent_name
            USING DETAIL = 'Callers pass every vector while encoder "external" is in use; without one an agent''s '
                           'similarity to every request is 0.',
                  HINT = 'Pass its vector as embedding.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.store_phrases(text, text[], real[]) IS
    'Stores the vectors of an agent''s capabilities, description and examples, and one that the caller passed';

CREATE FUNCTION ruvector_register_agent(
    name text,
    agent_type text DEFAULT NULL,
    capabilities text[] DEFAULT NULL,
    cost_per_1k_tokens float8 DEFAULT NULL,
    cost_per_call float8 DEFAULT NULL,
    avg_latency_ms float8 DEFAULT NULL,
    quality_score float8 DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    cost_per_second float8 DEFAULT NULL,
    description text DEFAULT NULL,
    examples text[] DEFAULT NULL,
    cost_per_1k_output_tokens float8 DEFAULT NULL,
    expected_output_tokens float8 DEFAULT NULL,
    p99_latency_ms float8 DEFAULT NULL,
    success_rate float8 DEFAULT NULL,
    pool text DEFAULT NULL,
    embedding real[] DEFAULT NULL,
    active boolean DEFAULT NULL)
    RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a tinydancer.agent;
    before tinydancer.agent;
BEGIN
    PERFORM tinydancer.require_value(ruvector_register_agent.name, 'name', 'ruvector_register_agent');
    PERFORM tinydancer.require_value(ruvector_register_agent.agent_type, 'agent_type', 'ruvector_register_agent');
    IF EXISTS (SELECT FROM unnest(ruvector_register_agent.examples) AS e (phrase)
               WHERE e.phrase IS NULL OR btrim(e.phrase) = '') THEN
        RAISE EXCEPTION 'examples must be a list of non-empty texts'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Agent "%s" has a NULL or blank example.', ruvector_register_agent.name),
                  HINT = 'Use array_remove(..., NULL).';
    END IF;

    -- Before the agent is locked: who switches the encoder locks in the same order.
    PERFORM tinydancer.pin_encoder();
    -- What was measured stays; everything else is as registered now.
    SELECT * INTO before FROM tinydancer.agent g WHERE g.name = ruvector_register_agent.name FOR UPDATE;
    a.name := ruvector_register_agent.name;
    a.type := ruvector_register_agent.agent_type;
    a.description := ruvector_register_agent.description;
    a.capabilities := coalesce(ruvector_register_agent.capabilities, '{}');
    a.cost_per_1k_tokens := ruvector_register_agent.cost_per_1k_tokens;
    a.cost_per_1k_output_tokens := ruvector_register_agent.cost_per_1k_output_tokens;
    a.cost_per_call := ruvector_register_agent.cost_per_call;
    a.cost_per_second := ruvector_register_agent.cost_per_second;
    a.expected_output_tokens := ruvector_register_agent.expected_output_tokens;
    a.avg_latency_ms := ruvector_register_agent.avg_latency_ms;
    a.p99_latency_ms := ruvector_register_agent.p99_latency_ms;
    a.quality_score := coalesce(ruvector_register_agent.quality_score, 0.5);
    a.success_rate := coalesce(ruvector_register_agent.success_rate, before.success_rate, 1);
    a.total_requests := coalesce(before.total_requests, 0);
    a.pool := ruvector_register_agent.pool;
    a.metadata := coalesce(ruvector_register_agent.metadata, '{}');
    a.active := coalesce(ruvector_register_agent.active, true);
    a.created_at := now();
    a.updated_at := now();
    PERFORM tinydancer.check_agent(a);

    INSERT INTO tinydancer.agent SELECT a.*
    ON CONFLICT ON CONSTRAINT agent_pkey DO UPDATE
        SET (type, description, capabilities, cost_per_1k_tokens, cost_per_1k_output_tokens, cost_per_call,
             cost_per_second, expected_output_tokens, avg_latency_ms, p99_latency_ms, quality_score,
             success_rate, pool, metadata, active)
          = (excluded.type, excluded.description, excluded.capabilities, excluded.cost_per_1k_tokens,
             excluded.cost_per_1k_output_tokens, excluded.cost_per_call, excluded.cost_per_second,
             excluded.expected_output_tokens, excluded.avg_latency_ms, excluded.p99_latency_ms,
             excluded.quality_score, excluded.success_rate, excluded.pool, excluded.metadata, excluded.active);
    PERFORM tinydancer.store_phrases(a.name, ruvector_register_agent.examples, ruvector_register_agent.embedding);
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_register_agent(text, text, text[], float8, float8, float8, float8, jsonb, float8, text,
    text[], float8, float8, float8, float8, text, real[], boolean) IS
    'Registers an agent, or replaces the registration of that name; measured statistics stay';

CREATE FUNCTION ruvector_register_agent_full(config jsonb) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known CONSTANT text[] := ARRAY['name', 'agent_type', 'capabilities', 'cost_per_1k_tokens', 'cost_per_call',
        'avg_latency_ms', 'quality_score', 'metadata', 'cost_per_second', 'description', 'examples',
        'cost_per_1k_output_tokens', 'expected_output_tokens', 'p99_latency_ms', 'success_rate', 'pool',
        'embedding', 'active'];
    list text;
    key text;
    guess text;
    c jsonb := ruvector_register_agent_full.config;
BEGIN
    IF c IS NULL THEN
        PERFORM tinydancer.require_value(NULL, 'config', 'ruvector_register_agent_full');
    END IF;
    IF jsonb_typeof(c) <> 'object' THEN
        RAISE EXCEPTION 'config must be a JSON object'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is a JSON %s.', jsonb_typeof(c)),
                  HINT = 'Write {"name": "gpt-4", "agent_type": "llm", ...}.';
    END IF;
    -- "type" is what the table calls it.
    IF c ? 'type' AND NOT c ? 'agent_type' THEN
        c := c - 'type' || jsonb_build_object('agent_type', c -> 'type');
    END IF;
    SELECT k.key INTO key FROM jsonb_object_keys(c) AS k (key) WHERE k.key <> ALL (known) ORDER BY k.key LIMIT 1;
    IF FOUND THEN
        guess := tinydancer.closest(key, known);
        RAISE EXCEPTION 'unknown key "%" in config', key
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Known keys are %s.', array_to_string(known, ', ')),
                  HINT = coalesce('Perhaps you meant "' || guess || '".',
                                  'Put facts of your own into "metadata".');
    END IF;
    FOREACH list IN ARRAY ARRAY['capabilities', 'examples', 'embedding'] LOOP
        IF jsonb_typeof(c -> list) NOT IN ('array', 'null') THEN
            RAISE EXCEPTION '"%" must be a JSON array', list
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = format('It is a JSON %s.', jsonb_typeof(c -> list)),
                      HINT = format('Write "%s": [...].', list);
        END IF;
    END LOOP;
    RETURN @extschema@.ruvector_register_agent(
        name := c ->> 'name',
        agent_type := c ->> 'agent_type',
        capabilities := tinydancer.texts_of(c -> 'capabilities'),
        cost_per_1k_tokens := (c ->> 'cost_per_1k_tokens')::float8,
        cost_per_call := (c ->> 'cost_per_call')::float8,
        avg_latency_ms := (c ->> 'avg_latency_ms')::float8,
        quality_score := (c ->> 'quality_score')::float8,
        metadata := nullif(c -> 'metadata', 'null'),
        cost_per_second := (c ->> 'cost_per_second')::float8,
        description := c ->> 'description',
        examples := tinydancer.texts_of(c -> 'examples'),
        cost_per_1k_output_tokens := (c ->> 'cost_per_1k_output_tokens')::float8,
        expected_output_tokens := (c ->> 'expected_output_tokens')::float8,
        p99_latency_ms := (c ->> 'p99_latency_ms')::float8,
        success_rate := (c ->> 'success_rate')::float8,
        pool := c ->> 'pool',
        embedding := tinydancer.texts_of(c -> 'embedding')::real[],
        active := (c ->> 'active')::boolean);
END
$$;
COMMENT ON FUNCTION ruvector_register_agent_full(jsonb) IS
    'ruvector_register_agent() with its arguments as the keys of one JSON object';

CREATE FUNCTION tinydancer.texts_of(list jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof(texts_of.list) = 'array'
                THEN ARRAY(SELECT e.value FROM jsonb_array_elements_text(texts_of.list) WITH ORDINALITY AS e (value, position)
                           ORDER BY e.position) END
$$;
COMMENT ON FUNCTION tinydancer.texts_of(jsonb) IS 'A JSON array as text[]; NULL for anything else';

CREATE FUNCTION ruvector_set_agent_active(name text, active boolean DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tinydancer.require_value(ruvector_set_agent_active.name, 'name', 'ruvector_set_agent_active');
    PERFORM tinydancer.require_value(ruvector_set_agent_active.active::text, 'active', 'ruvector_set_agent_active');
    UPDATE tinydancer.agent a SET active = ruvector_set_agent_active.active
    WHERE a.name = ruvector_set_agent_active.name;
    IF NOT FOUND THEN
        PERFORM tinydancer.raise_unknown_agent(ruvector_set_agent_active.name);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_set_agent_active(text, boolean) IS
    'Takes an agent out of routing, or puts it back';

CREATE FUNCTION ruvector_remove_agent(name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tinydancer.require_value(ruvector_remove_agent.name, 'name', 'ruvector_remove_agent');
    DELETE FROM tinydancer.agent a WHERE a.name = ruvector_remove_agent.name;
    IF NOT FOUND THEN
        PERFORM tinydancer.raise_unknown_agent(ruvector_remove_agent.name);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION ruvector_remove_agent(text) IS 'Removes an agent and its phrases; logs keep its name';

CREATE FUNCTION ruvector_get_agent(name text) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result jsonb;
BEGIN
    PERFORM tinydancer.require_value(ruvector_get_agent.name, 'name', 'ruvector_get_agent');
    SELECT to_jsonb(a) - 'type' || jsonb_build_object(
               'agent_type', a.type,
               'examples', (SELECT coalesce(jsonb_agg(p.phrase ORDER BY p.position), '[]')
                            FROM tinydancer.agent_phrase p WHERE p.agent_name = a.name AND p.kind = 'example'))
    INTO result
    FROM tinydancer.agent a
    WHERE a.name = ruvector_get_agent.name;
    IF NOT FOUND THEN
        PERFORM tinydancer.raise_unknown_agent(ruvector_get_agent.name);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION ruvector_get_agent(text) IS 'Everything that is registered of an agent, as JSON';

CREATE FUNCTION ruvector_list_agents()
    RETURNS TABLE (name text, agent_type text, description text, capabilities text[], cost_per_1k_tokens float8,
                   cost_per_1k_output_tokens float8, cost_per_call float8, cost_per_second float8,
                   expected_output_tokens float8, avg_latency_ms float8, p99_latency_ms float8,
                   quality_score float8, success_rate float8, total_requests bigint, pool text, metadata jsonb,
                   active boolean)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 20 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.name, a.type, a.description, a.capabilities, a.cost_per_1k_tokens, a.cost_per_1k_output_tokens,
           a.cost_per_call, a.cost_per_second, a.expected_output_tokens, a.avg_latency_ms, a.p99_latency_ms,
           a.quality_score, a.success_rate, a.total_requests, a.pool, a.metadata, a.active
    FROM tinydancer.agent a
    ORDER BY a.name
$$;
COMMENT ON FUNCTION ruvector_list_agents() IS 'The registered agents, active or not, by name';

REVOKE ALL ON FUNCTION ruvector_register_agent(text, text, text[], float8, float8, float8, float8, jsonb, float8, text,
    text[], float8, float8, float8, float8, text, real[], boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION ruvector_register_agent_full(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION ruvector_set_agent_active(text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION ruvector_remove_agent(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION tinydancer.store_phrases(text, text[], real[]) FROM PUBLIC;
