-- Triggers: telling every session that the registry changed (see fdw/td_registry.c), and what a row
-- gets that its writer left out.

CREATE FUNCTION tinydancer.bump_epoch() RETURNS trigger
    AS 'MODULE_PATHNAME', 'tinydancer_bump_epoch' LANGUAGE C;
COMMENT ON FUNCTION tinydancer.bump_epoch() IS
    'Trigger of the registry tables: sessions read the registry again at commit';
REVOKE ALL ON FUNCTION tinydancer.bump_epoch() FROM PUBLIC;

CREATE FUNCTION tinydancer.registry_builds() RETURNS bigint
    AS 'MODULE_PATHNAME', 'tinydancer_registry_builds' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION tinydancer.registry_builds() IS
    'How often this session has read the registry';

CREATE FUNCTION tinydancer.registry_version(OUT registry text, OUT routes text, OUT models text)
    AS 'MODULE_PATHNAME', 'tinydancer_registry_version' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION tinydancer.registry_version() IS
    'Versions of registry, routes and models for programs that keep copies: what is read after a call is no older '
    'than its answer, and equal answers say that nothing has changed between; another session has others';

-- ENABLE ALWAYS: logical replication applies rows with session_replication_role = replica, where
-- ordinary triggers rest, and fires row triggers only.
DO $$
DECLARE
    t text;
    epochs text;  -- which snapshots of a session the table is part of
BEGIN
    FOREACH t IN ARRAY ARRAY['agent', 'agent_phrase', 'route', 'route_utterance', 'route_scorer',
                              'policy', 'model', 'setting'] LOOP
        epochs := CASE WHEN t LIKE 'route%' THEN '''route_epoch'''
                       WHEN t = 'model' THEN '''model_epoch'''
                       WHEN t = 'setting' THEN '''epoch'', ''route_epoch'', ''model_epoch'''
                       ELSE '''epoch''' END;
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER bump_epoch AFTER INSERT OR UPDATE OR DELETE ON tinydancer.%I '
            'FOR EACH ROW EXECUTE FUNCTION tinydancer.bump_epoch(%s)', t, epochs);
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER bump_epoch_truncate AFTER TRUNCATE ON tinydancer.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.bump_epoch(%s)', t, epochs);
        EXECUTE pg_catalog.format(
            'ALTER TABLE tinydancer.%I ENABLE ALWAYS TRIGGER bump_epoch, '
            'ENABLE ALWAYS TRIGGER bump_epoch_truncate', t);
    END LOOP;
END
$$;

CREATE FUNCTION tinydancer.touch() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION tinydancer.touch() IS 'Trigger: keeps updated_at';
REVOKE ALL ON FUNCTION tinydancer.touch() FROM PUBLIC;

CREATE TRIGGER touch BEFORE UPDATE ON tinydancer.agent
    FOR EACH ROW EXECUTE FUNCTION tinydancer.touch();
CREATE TRIGGER touch BEFORE UPDATE ON tinydancer.route
    FOR EACH ROW EXECUTE FUNCTION tinydancer.touch();

CREATE FUNCTION tinydancer.agent_defaults() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.expected_output_tokens := coalesce(NEW.expected_output_tokens, CASE NEW.type WHEN 'llm' THEN 300 ELSE 0 END);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION tinydancer.agent_defaults() IS 'Trigger: the default that depends on the type';
REVOKE ALL ON FUNCTION tinydancer.agent_defaults() FROM PUBLIC;

CREATE TRIGGER agent_defaults BEFORE INSERT ON tinydancer.agent
    FOR EACH ROW EXECUTE FUNCTION tinydancer.agent_defaults();

-- A changed built-in would be lost in a dump, or collide with itself in a restore: the change
-- becomes a row of the user's own, which goes before the built-in.
CREATE FUNCTION tinydancer.override_builtin_policy() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'cannot delete built-in policy "%"', OLD.name
            USING ERRCODE = 'object_in_use',
                  DETAIL = 'Built-in policies come with the extension.',
                  HINT = 'Insert a row of the same name to override it.';
    END IF;
    INSERT INTO tinydancer.policy (name, cost_weight, latency_weight, quality_weight, fit_weight, description)
    VALUES (NEW.name, NEW.cost_weight, NEW.latency_weight, NEW.quality_weight, NEW.fit_weight, NEW.description)
    ON CONFLICT ON CONSTRAINT policy_pkey DO UPDATE
        SET cost_weight = excluded.cost_weight, latency_weight = excluded.latency_weight,
            quality_weight = excluded.quality_weight, fit_weight = excluded.fit_weight,
            description = excluded.description;
    RAISE NOTICE 'policy "%" now overrides the built-in', NEW.name;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.override_builtin_policy() IS
    'Trigger: an edit of a built-in policy becomes an override row';
REVOKE ALL ON FUNCTION tinydancer.override_builtin_policy() FROM PUBLIC;

CREATE TRIGGER override_builtin BEFORE UPDATE OR DELETE ON tinydancer.policy
    FOR EACH ROW WHEN (OLD.builtin) EXECUTE FUNCTION tinydancer.override_builtin_policy();
