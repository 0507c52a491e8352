-- Tuning: scorer, thresholds and confidence by leave-one-out.
\set SHOW_CONTEXT never
-- Nothing to learn from: a report that says so, and nothing changes.
SELECT * FROM ruvector_tune_routes();
SELECT ruvector_create_route('weather', utterances := ARRAY['will it rain tomorrow', 'is it going to snow', 'how hot will it be today'], threshold := 0.3);
SELECT route_name, utterances, scorer, threshold FROM ruvector_tune_routes(0.9);
SELECT count(*) FROM tinydancer.route_scorer;

-- Three topics that a reader would tell apart.
SELECT ruvector_create_route('weather', utterances := ARRAY['will it rain tomorrow', 'is it going to snow', 'how hot will it be today',
    'weather forecast for the weekend', 'do i need an umbrella today', 'how windy is it outside', 'will the sun shine on sunday']);
SELECT ruvector_create_route('billing', utterances := ARRAY['refund my money', 'there is a wrong amount on my invoice', 'i was charged twice',
    'how do i pay my bill', 'cancel my subscription', 'my credit card was declined', 'send me the receipt for my payment']);
SELECT ruvector_create_route('travel', utterances := ARRAY['book a flight to paris', 'i need a hotel in rome', 'rent a car at the airport',
    'find me a train to berlin', 'change my plane ticket', 'reserve two seats on the bus', 'which visa do i need for japan']);
SELECT route_name, utterances, scorer IN ('nearest', 'centroid', 'top3', 'ridge') AS scorer, threshold IS NULL AS no_cut,
       round(precision::numeric, 0) AS precision, coverage >= 0.8 AS coverage, accuracy >= 0.8 AS accuracy
FROM ruvector_tune_routes();
SELECT encoder = (tinydancer.active_encoder()).id AS encoder, confidence_s > 0 AS s, accuracy >= 0.8 AS accuracy,
       length(fingerprint) AS fingerprint, (weights IS NOT NULL) = (scorer = 'ridge') AS weights
FROM tinydancer.route_scorer;
SELECT q, (SELECT route_name FROM ruvector_semantic_route(q, 1)) AS route
FROM unnest(ARRAY['is it raining in london', 'i want my money back', 'a flight from oslo to madrid']) q;
-- A report alone changes nothing.
CREATE TEMP TABLE before AS SELECT * FROM tinydancer.route_scorer;
SELECT count(threshold) AS thresholds FROM ruvector_tune_routes(target_coverage := 0.5, apply := false);
SELECT count(threshold) AS thresholds FROM tinydancer.route;
SELECT count(*) FROM (SELECT * FROM before EXCEPT SELECT * FROM tinydancer.route_scorer) x;

-- For each scorer: precision and coverage as wanted, by its own report, and the thresholds are set.
SELECT s AS scorer, bool_and(t.scorer = s) AS forced, min(t.precision) = 1 AS precision, count(t.threshold) AS thresholds
FROM unnest(ARRAY['nearest', 'centroid', 'top3', 'ridge']) s, LATERAL ruvector_tune_routes(1.0, force_scorer := s) t GROUP BY 1 ORDER BY 1;
SELECT s AS scorer, min(t.coverage) >= 3.0 / 7 AS coverage, count(t.threshold) AS thresholds
FROM unnest(ARRAY['nearest', 'centroid', 'top3', 'ridge']) s, LATERAL ruvector_tune_routes(NULL, 3.0 / 7, true, s) t GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM tinydancer.route r JOIN ruvector_tune_routes(target_coverage := 3.0 / 7, force_scorer := 'ridge') t ON t.route_name = r.name;
SELECT scorer, octet_length(weights) AS weights FROM tinydancer.route_scorer;
-- "None of these" is an answer now.
SELECT count(*) FROM ruvector_semantic_route('qwerty uiop', 10);

-- Weights that are not of these utterances are not used: routes change, matches follow.
SELECT ruvector_create_route('cooking', utterances := ARRAY['how do i bake bread', 'a recipe for onion soup']);
SELECT route_name FROM ruvector_semantic_route('how do i bake bread', 1);
UPDATE tinydancer.route_scorer SET weights = '\x00';
SELECT route_name FROM ruvector_semantic_route('how do i bake bread', 1);
-- Another encoder's row does not count.
UPDATE tinydancer.route_scorer SET encoder = 'another', scorer = 'centroid';
SELECT t.scorer FROM ruvector_tune_routes(apply := false) t LIMIT 0;
SELECT abs(s.confidence - 1 / (1 + exp(-(s.similarity - e.fit_mu) / e.fit_s))) < 1e-9 AS untuned
FROM ruvector_semantic_route('how do i bake bread', 1) s, tinydancer.active_encoder() e;

-- What cannot be wanted.
SELECT * FROM ruvector_tune_routes(1.5);
SELECT * FROM ruvector_tune_routes('NaN');
SELECT * FROM ruvector_tune_routes(-0.1);
SELECT * FROM ruvector_tune_routes(NULL, 'Infinity');
SELECT * FROM ruvector_tune_routes(0.9, 0.9);
SELECT * FROM ruvector_tune_routes(force_scorer := 'ridgy');
SELECT * FROM ruvector_tune_routes(force_scorer := '');
SELECT count(*) FROM ruvector_tune_routes(apply := NULL);
-- More than can be had is said: two routes with the same utterances are confused with each other.
SELECT ruvector_drop_route('cooking');
SELECT ruvector_create_route('rain', utterances := (SELECT utterances FROM ruvector_list_routes() WHERE name = 'weather'));
SELECT route_name, utterances, coverage >= 0.5 AS coverage, most_confused_with FROM ruvector_tune_routes(target_coverage := 0.5, force_scorer := 'nearest') WHERE route_name IN ('rain', 'weather');
