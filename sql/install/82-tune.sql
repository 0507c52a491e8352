-- Choosing how routes are scored.

-- A row for each route; from encoder on the same in all of them, weights in the first alone.
CREATE TYPE tinydancer.tuned AS (
    route_name text,
    utterances integer,
    threshold float8,
    "precision" float8,
    coverage float8,
    most_confused_with text,
    confusion float8,
    is_short boolean,
    encoder text,
    scorer text,
    is_fitted boolean,
    confidence_mu float8,
    confidence_s float8,
    accuracy float8,
    fingerprint text,
    weights bytea
);

CREATE FUNCTION tinydancer.tune_report(target_precision float8, target_coverage float8, force_scorer text)
    RETURNS SETOF tinydancer.tuned
    AS 'MODULE_PATHNAME', 'tinydancer_tune_report' LANGUAGE C STABLE PARALLEL SAFE COST 1000000 ROWS 50;
COMMENT ON FUNCTION tinydancer.tune_report(float8, float8, text) IS
    'What leave-one-out says of the routes: scorer, constants of confidence, thresholds';

CREATE FUNCTION ruvector_tune_routes(
    target_precision float8 DEFAULT NULL,
    target_coverage float8 DEFAULT NULL,
    apply boolean DEFAULT true,
    force_scorer text DEFAULT NULL)
    RETURNS TABLE (route_name text, utterances integer, scorer text, threshold float8, "precision" float8,
                   coverage float8, most_confused_with text, confusion float8, accuracy float8)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 50 SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    wants_all CONSTANT boolean := coalesce(ruvector_tune_routes.apply, true);
    report tinydancer.tuned[];
    short integer;
BEGIN
    IF wants_all THEN
        -- Two tunings at once would mix their thresholds.
        LOCK TABLE tinydancer.route_scorer IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    report := ARRAY(SELECT t
                    FROM tinydancer.tune_report(ruvector_tune_routes.target_precision,
                                                ruvector_tune_routes.target_coverage,
                                                ruvector_tune_routes.force_scorer) AS t);
    IF cardinality(report) > 0 AND NOT report[1].is_fitted THEN
        RAISE NOTICE 'there are too few utterances to learn how to score routes'
            USING DETAIL = format('%s utterances belong to routes that have others; learning takes 10, of two routes.',
                                  (SELECT coalesce(sum(t.utterances) FILTER (WHERE t.utterances > 1), 0)
                                   FROM unnest(report) AS t)),
                  HINT = 'Give each route several utterances, and call ruvector_tune_routes() again.';
    END IF;
    short := (SELECT count(*) FROM unnest(report) AS t WHERE t.is_short);
    IF short > 0 THEN
        RAISE NOTICE '% of % routes do not reach what was wanted', short, cardinality(report)
            USING HINT = 'The report says which they are confused with: reword their utterances or add some.';
    END IF;
    IF wants_all THEN
        UPDATE tinydancer.route r SET threshold = t.threshold
        FROM unnest(report) AS t
        WHERE r.name = t.route_name AND r.threshold::real IS DISTINCT FROM t.threshold::real;
        INSERT INTO tinydancer.route_scorer (encoder, scorer, confidence_mu, confidence_s, accuracy, fingerprint, weights)
        SELECT t.encoder, t.scorer, t.confidence_mu, t.confidence_s, t.accuracy, t.fingerprint, t.weights
        FROM unnest(report[1:1]) AS t
        WHERE t.is_fitted
        ON CONFLICT ON CONSTRAINT route_scorer_pkey DO UPDATE
            SET (scorer, confidence_mu, confidence_s, accuracy, fingerprint, weights, tuned_at)
              = (excluded.scorer, excluded.confidence_mu, excluded.confidence_s, excluded.accuracy,
                 excluded.fingerprint, excluded.weights, now());
    END IF;
    RETURN QUERY
        -- Thresholds are compared as real: one that stays is shown as it was written.
        SELECT t.route_name, t.utterances, t.scorer,
               CASE WHEN r.threshold::real = t.threshold::real THEN r.threshold ELSE t.threshold END,
               t."precision", t.coverage, t.most_confused_with, t.confusion, t.accuracy
        FROM unnest(report) WITH ORDINALITY AS t
        LEFT JOIN tinydancer.route r ON r.name = t.route_name
        ORDER BY t.ordinality;
END
$$;
COMMENT ON FUNCTION ruvector_tune_routes(float8, float8, boolean, text) IS
    'Chooses how routes are scored and sets their thresholds by leave-one-out over their utterances; returns a report';
REVOKE ALL ON FUNCTION ruvector_tune_routes(float8, float8, boolean, text) FROM PUBLIC;
