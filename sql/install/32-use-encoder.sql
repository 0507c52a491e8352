-- Switching the encoder of a database.

CREATE FUNCTION tinydancer.encoder_facts(
    name text, OUT id text, OUT dim integer, OUT checksum text, OUT fit_mu float8, OUT fit_s float8)
    AS 'MODULE_PATHNAME', 'tinydancer_encoder_facts' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION tinydancer.encoder_facts(text) IS
    'What is known of an encoder by its name or id; raises the error that says why it cannot be used';

CREATE FUNCTION tinydancer.embed_phrases(kinds text[], phrases text[]) RETURNS SETOF real[]
    AS 'MODULE_PATHNAME', 'tinydancer_embed_phrases' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 50000 ROWS 256;
COMMENT ON FUNCTION tinydancer.embed_phrases(text[], text[]) IS
    'Vectors of many phrases as the registry compares them, in their order';

CREATE FUNCTION tinydancer.check_switched(encoder text) RETURNS void
    AS 'MODULE_PATHNAME', 'tinydancer_check_switched' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION tinydancer.check_switched(text) IS
    'Fails when vectors were stored that this transaction is too old to have switched';
REVOKE ALL ON FUNCTION tinydancer.check_switched(text) FROM PUBLIC;

-- Names in double quotes, for messages.
CREATE FUNCTION tinydancer.listed(what text, names text[], max integer DEFAULT NULL) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s%s "%s"%s', listed.what, CASE WHEN cardinality(listed.names) > 1 THEN 's' END,
                  array_to_string(listed.names[1:coalesce(listed.max, cardinality(listed.names))], '", "'),
                  CASE WHEN cardinality(listed.names) > listed.max
                       THEN format(' and %s more', cardinality(listed.names) - listed.max) END)
    WHERE cardinality(listed.names) > 0
$$;
COMMENT ON FUNCTION tinydancer.listed(text, text[], integer) IS
    'A list of names in words, the first few of it where max says so; NULL when there is none';

-- The texts that an agent's own columns hold.
CREATE FUNCTION tinydancer.own_phrases() RETURNS TABLE (agent_name text, kind text, "position" integer, phrase text)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.name, 'capability', c.position::integer, c.phrase
    FROM tinydancer.agent a, unnest(a.capabilities) WITH ORDINALITY AS c (phrase, position)
    UNION ALL
    SELECT a.name, 'description', 1, a.description FROM tinydancer.agent a WHERE a.description <> ''
$$;
COMMENT ON FUNCTION tinydancer.own_phrases() IS 'Capabilities and descriptions of all agents';

-- Makes the vectors that texts lack, some hundred at a time, and returns how many.  Plans are made anew:
-- one for the registry as it was an hour ago might join thousands of rows with thousands, one by one.
CREATE FUNCTION tinydancer.make_vectors(encoder text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    part record;
    n bigint;
    made bigint := 0;
BEGIN
    -- The columns of an agent count; whoever wrote them directly left the rows of phrases as they were.
    DELETE FROM tinydancer.agent_phrase p
    WHERE p.kind IN ('capability', 'description')
      AND NOT EXISTS (SELECT FROM tinydancer.own_phrases() o
                      WHERE o.agent_name = p.agent_name AND o.kind = p.kind AND o.position = p.position
                        AND o.phrase = p.phrase);
    INSERT INTO tinydancer.agent_phrase (agent_name, kind, position, phrase)
    SELECT o.agent_name, o.kind, o.position, o.phrase FROM tinydancer.own_phrases() o
    ON CONFLICT ON CONSTRAINT agent_phrase_pkey DO NOTHING;

    FOR part IN
        SELECT array_agg(t.agent_name) AS names, array_agg(t.kind) AS kinds, array_agg(t.position) AS positions,
               array_agg(t.phrase) AS phrases
        FROM (SELECT p.agent_name, p.kind, p.position, p.phrase, row_number() OVER () AS n
              FROM tinydancer.agent_phrase p
              WHERE p.encoder IS DISTINCT FROM make_vectors.encoder AND (p.kind <> 'caller' OR p.phrase <> '')) AS t
        GROUP BY (t.n - 1) / 256
    LOOP
        UPDATE tinydancer.agent_phrase p SET embedding = v.embedding, encoder = make_vectors.encoder
        FROM unnest(part.names, part.kinds, part.positions) WITH ORDINALITY AS k (agent_name, kind, position, n)
             JOIN tinydancer.embed_phrases(part.kinds, part.phrases) WITH ORDINALITY AS v (embedding, n) ON v.n = k.n
        WHERE p.agent_name = k.agent_name AND p.kind = k.kind AND p.position = k.position;
        GET DIAGNOSTICS n = ROW_COUNT;
        made := made + n;
    END LOOP;

    FOR part IN
        SELECT array_agg(t.route_name) AS names, array_agg(t.position) AS positions,
               array_agg(t.phrase) AS phrases, array_agg('utterance'::text) AS kinds
        FROM (SELECT u.route_name, u.position, row_number() OVER () AS n,
                     CASE WHEN btrim(u.utterance) <> '' THEN u.utterance ELSE r.description END AS phrase
              FROM tinydancer.route_utterance u
              JOIN tinydancer.route r ON r.name = u.route_name
              WHERE u.encoder IS DISTINCT FROM make_vectors.encoder
                AND (btrim(u.utterance) <> '' OR btrim(r.description) <> '')) AS t
        GROUP BY (t.n - 1) / 256
    LOOP
        UPDATE tinydancer.route_utterance u SET embedding = v.embedding, encoder = make_vectors.encoder
        FROM unnest(part.names, part.positions) WITH ORDINALITY AS k (route_name, position, n)
             JOIN tinydancer.embed_phrases(part.kinds, part.phrases) WITH ORDINALITY AS v (embedding, n) ON v.n = k.n
        WHERE u.route_name = k.route_name AND u.position = k.position;
        GET DIAGNOSTICS n = ROW_COUNT;
        made := made + n;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION tinydancer.make_vectors(text) IS
    'Embeds what has no vector of the active encoder, whose id is passed; returns how many there were';
REVOKE ALL ON FUNCTION tinydancer.make_vectors(text) FROM PUBLIC;

-- A vector that a caller passed: it has no text of its own, or was stored while callers passed all.
CREATE FUNCTION tinydancer.passed_vectors()
    RETURNS TABLE (owner text, name text, "position" integer, dim integer, encoder text, phrase text)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'agent', p.agent_name, p.position, cardinality(p.embedding), p.encoder,
           CASE WHEN p.kind <> 'caller' THEN p.phrase ELSE a.description END
    FROM tinydancer.agent_phrase p
    JOIN tinydancer.agent a ON a.name = p.agent_name
    WHERE p.embedding IS NOT NULL AND (p.kind = 'caller' AND p.phrase = '' OR p.encoder = 'external')
    UNION ALL
    SELECT 'route', u.route_name, u.position, cardinality(u.embedding), u.encoder,
           CASE WHEN btrim(u.utterance) <> '' THEN u.utterance ELSE r.description END
    FROM tinydancer.route_utterance u
    JOIN tinydancer.route r ON r.name = u.route_name
    WHERE u.embedding IS NOT NULL AND (btrim(u.utterance) = '' OR u.encoder = 'external')
$$;
COMMENT ON FUNCTION tinydancer.passed_vectors() IS
    'Vectors that callers passed, with the text that another encoder would make one from';

-- Vectors made of text are dropped, those that callers passed stay if they have the right length.
CREATE FUNCTION tinydancer.keep_passed_vectors(dim integer) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    misfits text := (
        SELECT string_agg(format('%s "%s" has %s', t.owner, t.name, t.dims), ', ' ORDER BY t.owner, t.name)
        FROM (SELECT v.owner, v.name, string_agg(DISTINCT v.dim::text, ' and ') AS dims
              FROM tinydancer.passed_vectors() v
              WHERE v.dim <> keep_passed_vectors.dim
              GROUP BY v.owner, v.name) AS t);
    bare text;
BEGIN
    IF misfits IS NOT NULL THEN
        RAISE EXCEPTION 'cannot use encoder "external" with % dimensions', keep_passed_vectors.dim
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('Vectors that callers passed have other lengths: %s.', misfits),
                  HINT = 'Register these again without embedding, or remove them; then switch and pass vectors of the new length.';
    END IF;
    UPDATE tinydancer.agent_phrase p SET embedding = NULL, encoder = NULL
    WHERE p.encoder <> 'external' AND NOT (p.kind = 'caller' AND p.phrase = '');
    UPDATE tinydancer.agent_phrase p SET encoder = 'external'
    WHERE p.encoder <> 'external';
    UPDATE tinydancer.route_utterance u SET embedding = NULL, encoder = NULL
    WHERE u.encoder <> 'external' AND btrim(u.utterance) <> '';
    UPDATE tinydancer.route_utterance u SET encoder = 'external'
    WHERE u.encoder <> 'external';
    bare := concat_ws('; ',
        tinydancer.listed('agent', ARRAY(
            SELECT a.name FROM tinydancer.agent a
            WHERE NOT EXISTS (SELECT FROM tinydancer.agent_phrase p
                              WHERE p.agent_name = a.name AND p.embedding IS NOT NULL)
            ORDER BY a.name), 10),
        tinydancer.listed('route', ARRAY(
            SELECT r.name FROM tinydancer.route r
            WHERE NOT EXISTS (SELECT FROM tinydancer.route_utterance u
                              WHERE u.route_name = r.name AND u.embedding IS NOT NULL)
            ORDER BY r.name), 10));
    IF bare <> '' THEN
        RAISE NOTICE 'without a vector: %', bare
            USING DETAIL = 'They are similar to no request.',
                  HINT = 'Register them again and pass their vectors as embedding.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.keep_passed_vectors(integer) IS
    'Leaves only vectors that callers passed; fails when one has another length';
REVOKE ALL ON FUNCTION tinydancer.keep_passed_vectors(integer) FROM PUBLIC;

-- A vector that a caller passed becomes that of a text; where there is none, the switch fails.
CREATE FUNCTION tinydancer.replace_passed_vectors(encoder text) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    textless text := (
        SELECT concat_ws('; ',
                         tinydancer.listed('agent', array_agg(DISTINCT v.name ORDER BY v.name) FILTER (WHERE v.owner = 'agent')),
                         tinydancer.listed('route', array_agg(DISTINCT v.name ORDER BY v.name) FILTER (WHERE v.owner = 'route')))
        FROM tinydancer.passed_vectors() v
        WHERE v.encoder <> replace_passed_vectors.encoder AND coalesce(btrim(v.phrase), '') = '');
    v record;
BEGIN
    IF textless <> '' THEN
        RAISE EXCEPTION 'cannot switch to encoder "%": there are vectors without a text', replace_passed_vectors.encoder
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('Their callers passed a vector and no description: %s.', textless),
                  HINT = 'Give each a description, from which its vector is made, or remove it, and call tinydancer.use_encoder() again.';
    END IF;
    FOR v IN
        SELECT DISTINCT p.owner, p.name
        FROM tinydancer.passed_vectors() p
        WHERE p.encoder <> replace_passed_vectors.encoder
        ORDER BY 1, 2
    LOOP
        RAISE NOTICE 'the vector passed for % "%" is replaced by that of its text', v.owner, v.name
            USING HINT = 'Pass one of the new encoder, if you have it.';
    END LOOP;
    -- With its text a row says that its vector is no longer the caller's.
    UPDATE tinydancer.agent_phrase p SET phrase = a.description
    FROM tinydancer.agent a
    WHERE a.name = p.agent_name AND p.kind = 'caller' AND p.encoder IS DISTINCT FROM replace_passed_vectors.encoder
      AND btrim(a.description) <> '' AND p.phrase <> a.description;
END
$$;
COMMENT ON FUNCTION tinydancer.replace_passed_vectors(text) IS
    'Prepares vectors that callers passed for being made from text; fails and lists those without one';
REVOKE ALL ON FUNCTION tinydancer.replace_passed_vectors(text) FROM PUBLIC;

CREATE PROCEDURE tinydancer.use_encoder(name text, dim integer DEFAULT NULL)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $$
DECLARE
    -- Cosines of encoders that nobody has measured: a convention, as in docs/functions/use_encoder.md.
    external_fit_mu CONSTANT float8 := 0.4;
    external_fit_s CONSTANT float8 := 0.1;
    max_dim CONSTANT integer := 4096;
    before jsonb;
    e record;
    made bigint;
    is_same boolean;
BEGIN
    PERFORM tinydancer.require_value(use_encoder.name, 'name', 'tinydancer.use_encoder');
    -- Who stores vectors waits, and so does another switch; who reads goes on with the old encoder.
    LOCK TABLE tinydancer.setting IN EXCLUSIVE MODE;
    LOCK TABLE tinydancer.agent, tinydancer.agent_phrase, tinydancer.route, tinydancer.route_utterance
        IN SHARE ROW EXCLUSIVE MODE;
    before := (SELECT jsonb_object_agg(s.name, s.value) FROM tinydancer.setting s WHERE s.name LIKE 'encoder%');

    IF use_encoder.name = 'external' THEN
        IF use_encoder.dim IS NULL THEN
            PERFORM tinydancer.require_value(NULL, 'dim', 'tinydancer.use_encoder');
        ELSIF use_encoder.dim NOT BETWEEN 1 AND max_dim THEN
            RAISE EXCEPTION 'dim must be between 1 and %', max_dim
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = format('The value is %s.', use_encoder.dim),
                      HINT = 'Pass the number of elements that the vectors of your encoder have.';
        END IF;
        SELECT 'external' AS id, use_encoder.dim AS dim, NULL AS checksum,
               external_fit_mu AS fit_mu, external_fit_s AS fit_s
        INTO e;
    ELSE
        SELECT * INTO e FROM tinydancer.encoder_facts(use_encoder.name);
        IF use_encoder.dim <> e.dim THEN
            RAISE EXCEPTION 'encoder "%" makes vectors of % dimensions', e.id, e.dim
                USING ERRCODE = 'invalid_parameter_value',
                      DETAIL = format('The value of dim is %s.', use_encoder.dim),
                      HINT = 'Leave dim out; it is needed for "external" alone.';
        END IF;
    END IF;

    is_same := coalesce(before ->> 'encoder' = e.id AND before ->> 'encoder_dim' = e.dim::text, false);
    IF NOT is_same THEN
        INSERT INTO tinydancer.setting AS s (name, value)
        SELECT v.name, v.value
        FROM (VALUES ('encoder', e.id), ('encoder_dim', e.dim::text), ('encoder_checksum', e.checksum),
                     ('encoder_fit_mu', e.fit_mu::text), ('encoder_fit_s', e.fit_s::text)) AS v (name, value)
        WHERE v.value IS NOT NULL
        ON CONFLICT ON CONSTRAINT setting_pkey DO UPDATE SET value = excluded.value;
        DELETE FROM tinydancer.setting s WHERE s.name = 'encoder_checksum' AND e.checksum IS NULL;
    END IF;

    IF e.id = 'external' THEN
        PERFORM tinydancer.keep_passed_vectors(e.dim);
    ELSE
        PERFORM tinydancer.replace_passed_vectors(e.id);
        made := tinydancer.make_vectors(e.id);
    END IF;
    PERFORM tinydancer.check_switched(e.id);
    IF is_same THEN
        RAISE NOTICE 'encoder "%" is in use already', e.id
            USING DETAIL = CASE WHEN e.id = 'external' THEN 'Its vectors stay as callers passed them.'
                                WHEN made > 0 THEN format('Vectors that were missing and have been made: %s.', made)
                                ELSE 'No vector was missing.' END;
    END IF;
END
$$;
COMMENT ON PROCEDURE tinydancer.use_encoder(text, integer) IS
    'Switches the encoder of this database and embeds agents, routes and utterances with it, in one transaction';
REVOKE ALL ON PROCEDURE tinydancer.use_encoder(text, integer) FROM PUBLIC;
