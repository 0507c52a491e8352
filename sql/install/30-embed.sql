-- Text to vector.

CREATE FUNCTION ruvector_embed(text) RETURNS real[]
    AS 'MODULE_PATHNAME', 'ruvector_embed' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 200;
COMMENT ON FUNCTION ruvector_embed(text) IS
    'Unit vector of a text, made by the active encoder of this database';

CREATE FUNCTION ruvector_embed(text, encoder text) RETURNS real[]
    AS 'MODULE_PATHNAME', 'ruvector_embed_with' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 200;
COMMENT ON FUNCTION ruvector_embed(text, text) IS
    'Unit vector of a text, made by the encoder with this id; fit for generated columns and indexes';

CREATE FUNCTION ruvector_cosine_similarity(a real[], b real[]) RETURNS real
    AS 'MODULE_PATHNAME', 'ruvector_cosine_similarity' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION ruvector_cosine_similarity(real[], real[]) IS
    'Cosine of two vectors of the same length; 0 when one of them is all zeros';

CREATE FUNCTION tinydancer.active_encoder(
    OUT id text, OUT dim integer, OUT checksum text, OUT fit_mu float8, OUT fit_s float8)
    AS 'MODULE_PATHNAME', 'tinydancer_active_encoder' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION tinydancer.active_encoder() IS 'The encoder that ruvector_embed(text) uses';

CREATE FUNCTION tinydancer.hold_encoder() RETURNS void
    AS 'MODULE_PATHNAME', 'tinydancer_hold_encoder' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION tinydancer.hold_encoder() IS
    'Nobody switches the encoder until this transaction ends';
REVOKE ALL ON FUNCTION tinydancer.hold_encoder() FROM PUBLIC;

-- The first stored vector pins the encoder: from then on another file under the same id is an
-- error, and a dump takes the facts along.  Whoever stores vectors calls this before anything else: it
-- waits for a switch of the encoder, and a switch for it.
CREATE FUNCTION tinydancer.pin_encoder() RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $$
DECLARE
    e record;
BEGIN
    PERFORM tinydancer.hold_encoder();
    SELECT * INTO e FROM tinydancer.active_encoder();
    IF NOT EXISTS (SELECT FROM tinydancer.setting s WHERE s.name = 'encoder') THEN
        INSERT INTO tinydancer.setting (name, value)
        VALUES ('encoder', e.id), ('encoder_dim', e.dim::text), ('encoder_checksum', e.checksum),
               ('encoder_fit_mu', e.fit_mu::text), ('encoder_fit_s', e.fit_s::text)
        ON CONFLICT DO NOTHING;
        -- Another session may have been the first.
        SELECT * INTO e FROM tinydancer.active_encoder();
    END IF;
    RETURN e.id;
END
$$;
COMMENT ON FUNCTION tinydancer.pin_encoder() IS
    'Records the active encoder as this database''s own; returns its id';
REVOKE ALL ON FUNCTION tinydancer.pin_encoder() FROM PUBLIC;
