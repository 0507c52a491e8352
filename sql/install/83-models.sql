-- Trained models: rows that are added, activated, rolled back and dropped in transactions.

CREATE FUNCTION tinydancer.model_facts(
    bytes bytea, OUT kind text, OUT encoder text, OUT encoder_checksum text, OUT dim integer, OUT checksum text,
    OUT outputs text[], OUT n_rows integer)
    AS 'MODULE_PATHNAME', 'tinydancer_model_facts' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION tinydancer.model_facts(bytea) IS
    'What a model file says of itself; raises the error of bytes that are no model';

-- A row that says something else than its bytes, or whose bytes are damaged, would fail in the session
-- that first needs it: nothing of the kind gets into the table.
CREATE FUNCTION tinydancer.check_model() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f record;
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.builtin THEN
        RAISE EXCEPTION 'cannot change built-in model of kind "%"', OLD.kind
            USING ERRCODE = 'object_in_use',
                  DETAIL = 'Built-in models come with the extension.',
                  HINT = 'Activate a model of your own, which goes before it.';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    SELECT * INTO f FROM tinydancer.model_facts(NEW.bytes);
    IF f.kind <> NEW.kind OR f.encoder <> NEW.encoder THEN
        RAISE EXCEPTION 'model is of kind "%" for encoder "%"', f.kind, f.encoder
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('The row says kind "%s" for encoder "%s".', NEW.kind, NEW.encoder),
                  HINT = 'Pass what the file says of itself: tinydancer.model_facts() tells.';
    END IF;
    NEW.checksum := f.checksum;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION tinydancer.check_model() IS 'Trigger: a model''s row says what its bytes say';
REVOKE ALL ON FUNCTION tinydancer.check_model() FROM PUBLIC;
CREATE TRIGGER check_model BEFORE INSERT OR UPDATE OR DELETE ON tinydancer.model
    FOR EACH ROW EXECUTE FUNCTION tinydancer.check_model();

CREATE FUNCTION tinydancer.add_model(
    kind text, bytes bytea, metrics jsonb DEFAULT NULL, training_query text DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f record;
    added integer;
BEGIN
    PERFORM tinydancer.require_value(add_model.kind, 'kind', 'tinydancer.add_model');
    PERFORM tinydancer.require_value(add_model.bytes::text, 'bytes', 'tinydancer.add_model');
    SELECT * INTO f FROM tinydancer.model_facts(add_model.bytes);
    -- Two sessions must not take one number.
    LOCK TABLE tinydancer.model IN SHARE ROW EXCLUSIVE MODE;
    added := 1 + coalesce((SELECT max(m.version) FROM tinydancer.model m WHERE m.kind = f.kind), 0);
    INSERT INTO tinydancer.model (kind, version, encoder, bytes, checksum, training_query, metrics)
    VALUES (add_model.kind, added, f.encoder, add_model.bytes, f.checksum, add_model.training_query,
            coalesce(add_model.metrics, '{}'));
    RETURN added;
END
$$;
COMMENT ON FUNCTION tinydancer.add_model(text, bytea, jsonb, text) IS
    'Stores a model file as the next version of its kind, not yet active; returns the version';
REVOKE ALL ON FUNCTION tinydancer.add_model(text, bytea, jsonb, text) FROM PUBLIC;

-- Called by the end of this script, which the Makefile writes: once for each model file that ships.
CREATE FUNCTION tinydancer.add_builtin_model(bytes bytea) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO tinydancer.model (kind, version, encoder, bytes, checksum, active, builtin)
    SELECT f.kind, 1, f.encoder, add_builtin_model.bytes, f.checksum, true, true
    FROM tinydancer.model_facts(add_builtin_model.bytes) f
$$;

-- The row of a version, or the error that lists the known ones.
CREATE FUNCTION tinydancer.require_model(kind text, version integer, function text) RETURNS tinydancer.model
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tinydancer.model;
    known text;
BEGIN
    PERFORM tinydancer.require_value(require_model.kind, 'kind', require_model.function);
    PERFORM tinydancer.require_value(require_model.version::text, 'version', require_model.function);
    SELECT o.* INTO m FROM tinydancer.model o
    WHERE o.kind = require_model.kind AND o.version = require_model.version
    ORDER BY o.encoder = (SELECT e.id FROM tinydancer.active_encoder() e) DESC, o.builtin
    LIMIT 1;
    IF FOUND THEN
        RETURN m;
    END IF;
    SELECT string_agg(DISTINCT format('%s %s', o.kind, o.version), ', ') INTO known FROM tinydancer.model o;
    RAISE EXCEPTION 'model "%" version % does not exist', require_model.kind, require_model.version
        USING ERRCODE = 'undefined_object',
              DETAIL = CASE WHEN known IS NULL THEN 'There are no models.' ELSE format('There are %s.', known) END,
              HINT = 'tinydancer model list shows them.';
END
$$;
COMMENT ON FUNCTION tinydancer.require_model(text, integer, text) IS
    'The row of a model; raises the error of a version that is not there';

CREATE FUNCTION tinydancer.activate_model(kind text, version integer, force boolean DEFAULT false) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tinydancer.model;
    e record;
    f record;
BEGIN
    m := tinydancer.require_model(activate_model.kind, activate_model.version, 'tinydancer.activate_model');
    SELECT * INTO e FROM tinydancer.active_encoder();
    SELECT * INTO f FROM tinydancer.model_facts(m.bytes);
    IF m.encoder <> e.id OR f.dim <> e.dim OR f.encoder_checksum <> e.checksum THEN
        RAISE EXCEPTION 'model is for another encoder than "%"', e.id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('Version %s of kind "%s" was trained on %s-dimensional vectors of "%s" with checksum %s; '
                                  'those of "%s" have %s.',
                                  m.version, m.kind, f.dim, f.encoder, f.encoder_checksum, e.id, e.checksum),
                  HINT = 'Train it again with this encoder, or switch with CALL tinydancer.use_encoder().';
    END IF;
    IF NOT m.builtin AND NOT coalesce(activate_model.force, false)
       AND m.metrics -> 'beats_baseline' IS DISTINCT FROM 'true'::jsonb THEN
        RAISE EXCEPTION 'model does not beat its baseline'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = CASE WHEN m.metrics ? 'baseline_value'
                                THEN format('Version %s of kind "%s" has %s %s on held-out rows, %s has %s.', m.version, m.kind,
                                            m.metrics ->> 'metric', m.metrics ->> 'ours', m.metrics ->> 'baseline',
                                            m.metrics ->> 'baseline_value')
                                ELSE format('The metrics of version %s of kind "%s" do not say that it does.',
                                            m.version, m.kind) END,
                  HINT = 'Train on more rows, or pass force => true.';
    END IF;
    LOCK TABLE tinydancer.model IN SHARE ROW EXCLUSIVE MODE;
    UPDATE tinydancer.model o SET active = false
    WHERE o.kind = m.kind AND o.encoder = m.encoder AND o.active AND NOT o.builtin AND o.version <> m.version;
    -- The built-in one is what remains when no other is active.
    UPDATE tinydancer.model o SET active = true
    WHERE o.kind = m.kind AND o.encoder = m.encoder AND o.version = m.version AND NOT o.builtin AND NOT o.active;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.activate_model(text, integer, boolean) IS
    'Makes a version the model that every session uses from commit on; an earlier version rolls back';
REVOKE ALL ON FUNCTION tinydancer.activate_model(text, integer, boolean) FROM PUBLIC;

CREATE FUNCTION tinydancer.deactivate_model(kind text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tinydancer.require_value(deactivate_model.kind, 'kind', 'tinydancer.deactivate_model');
    UPDATE tinydancer.model o SET active = false
    WHERE o.kind = deactivate_model.kind AND o.active AND NOT o.builtin
      AND o.encoder = (SELECT e.id FROM tinydancer.active_encoder() e);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tinydancer.deactivate_model(text) IS
    'Goes back to the built-in model of a kind, or to none; false when none was active';
REVOKE ALL ON FUNCTION tinydancer.deactivate_model(text) FROM PUBLIC;

CREATE FUNCTION tinydancer.drop_model(kind text, version integer) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tinydancer.model;
BEGIN
    m := tinydancer.require_model(drop_model.kind, drop_model.version, 'tinydancer.drop_model');
    IF m.active AND NOT m.builtin THEN
        RAISE EXCEPTION 'cannot drop model "%" version %', m.kind, m.version
            USING ERRCODE = 'object_in_use',
                  DETAIL = 'It is active.',
                  HINT = 'Activate another version, or call tinydancer.deactivate_model() first.';
    END IF;
    DELETE FROM tinydancer.model o
    WHERE o.kind = m.kind AND o.version = m.version AND o.encoder = m.encoder AND o.builtin = m.builtin;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.drop_model(text, integer) IS 'Deletes a version that is not active';
REVOKE ALL ON FUNCTION tinydancer.drop_model(text, integer) FROM PUBLIC;

-- For the log of decisions.
CREATE FUNCTION tinydancer.active_model(kind text) RETURNS text
    AS 'MODULE_PATHNAME', 'tinydancer_active_model' LANGUAGE C STABLE PARALLEL SAFE STRICT;
COMMENT ON FUNCTION tinydancer.active_model(text) IS
    'The model of a kind that this session decides with, as "quality 3"; NULL: none';
