-- Tables.  Times are in ms and money in USD unless a comment says otherwise; NULL is "not known".
-- A figure is checked with "< 'Infinity'", which also refuses NaN: it sorts above infinity.

-- Registry --------------------------------------------------------------------------------------

CREATE TABLE tinydancer.agent (
    name text COLLATE "C" PRIMARY KEY
        CONSTRAINT agent_name_check CHECK (btrim(name) <> '' AND octet_length(name) <= 256),
    type text NOT NULL
        CONSTRAINT agent_type_check CHECK (type IN ('llm', 'tool', 'api', 'human', 'ensemble')),
    description text,
    capabilities text[] NOT NULL DEFAULT '{}'
        CONSTRAINT agent_capabilities_check
        CHECK (array_position(capabilities, NULL) IS NULL AND array_position(capabilities, '') IS NULL
               AND coalesce(array_ndims(capabilities), 1) = 1),
    cost_per_1k_tokens float8
        CONSTRAINT agent_cost_per_1k_tokens_check
        CHECK (cost_per_1k_tokens >= 0 AND cost_per_1k_tokens < 'Infinity'),
    cost_per_1k_output_tokens float8
        CONSTRAINT agent_cost_per_1k_output_tokens_check
        CHECK (cost_per_1k_output_tokens >= 0 AND cost_per_1k_output_tokens < 'Infinity'),
    cost_per_call float8
        CONSTRAINT agent_cost_per_call_check CHECK (cost_per_call >= 0 AND cost_per_call < 'Infinity'),
    cost_per_second float8
        CONSTRAINT agent_cost_per_second_check
        CHECK (cost_per_second >= 0 AND cost_per_second < 'Infinity'),
    expected_output_tokens float8 NOT NULL  -- see tinydancer.agent_defaults()
        CONSTRAINT agent_expected_output_tokens_check
        CHECK (expected_output_tokens >= 0 AND expected_output_tokens < 'Infinity'),
    avg_latency_ms float8
        CONSTRAINT agent_avg_latency_ms_check
        CHECK (avg_latency_ms >= 0 AND avg_latency_ms < 'Infinity'),
    p99_latency_ms float8
        CONSTRAINT agent_p99_latency_ms_check
        CHECK (p99_latency_ms >= 0 AND p99_latency_ms < 'Infinity'),
    quality_score float8 NOT NULL DEFAULT 0.5
        CONSTRAINT agent_quality_score_check CHECK (quality_score BETWEEN 0 AND 1),
    success_rate float8 NOT NULL DEFAULT 1
        CONSTRAINT agent_success_rate_check CHECK (success_rate BETWEEN 0 AND 1),
    total_requests bigint NOT NULL DEFAULT 0
        CONSTRAINT agent_total_requests_check CHECK (total_requests >= 0),
    pool text CONSTRAINT agent_pool_check CHECK (btrim(pool) <> ''),
    metadata jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tinydancer.agent IS 'What a request can be sent to';
COMMENT ON COLUMN tinydancer.agent.cost_per_1k_tokens IS 'USD per 1,000 input tokens';
COMMENT ON COLUMN tinydancer.agent.cost_per_1k_output_tokens IS 'USD per 1,000 output tokens; NULL: as input';
COMMENT ON COLUMN tinydancer.agent.cost_per_call IS 'USD per request';
COMMENT ON COLUMN tinydancer.agent.cost_per_second IS 'USD per second of avg_latency_ms';
COMMENT ON COLUMN tinydancer.agent.expected_output_tokens IS
    'tokens in a typical answer; NULL on insert: 300 for an llm, 0 otherwise';
COMMENT ON COLUMN tinydancer.agent.quality_score IS 'quality of a successful answer, 0 to 1';
COMMENT ON COLUMN tinydancer.agent.success_rate IS 'share of requests that succeed, 0 to 1';
COMMENT ON COLUMN tinydancer.agent.pool IS 'label to route within';

CREATE TABLE tinydancer.agent_phrase (
    agent_name text COLLATE "C" NOT NULL
        REFERENCES tinydancer.agent (name) ON UPDATE CASCADE ON DELETE CASCADE,
    kind text NOT NULL
        CONSTRAINT agent_phrase_kind_check
        CHECK (kind IN ('capability', 'description', 'example', 'caller')),
    position integer NOT NULL CONSTRAINT agent_phrase_position_check CHECK (position >= 1),
    phrase text NOT NULL,
    embedding real[]
        CONSTRAINT agent_phrase_embedding_check
        CHECK (array_ndims(embedding) = 1 AND array_position(embedding, NULL) IS NULL),
    encoder text,
    PRIMARY KEY (agent_name, kind, position),
    CONSTRAINT agent_phrase_encoder_check CHECK ((embedding IS NULL) = (encoder IS NULL))
);
COMMENT ON TABLE tinydancer.agent_phrase IS
    'Texts that say what an agent is good at, with their vectors; capabilities and the description '
    'are copies of the agent''s columns, which count';
COMMENT ON COLUMN tinydancer.agent_phrase.kind IS
    'capability, description, example, or caller: a vector that the caller passed, which stands alone';
COMMENT ON COLUMN tinydancer.agent_phrase.phrase IS
    'what the vector is made from; empty when a caller passed it, and the agent''s description when '
    'tinydancer.use_encoder() has replaced one that a caller passed';

-- Semantic routes -------------------------------------------------------------------------------

CREATE TABLE tinydancer.route (
    name text COLLATE "C" PRIMARY KEY CONSTRAINT route_name_check CHECK (btrim(name) <> ''),
    description text,
    target_agent text,
    priority integer NOT NULL DEFAULT 0,
    threshold float8 CONSTRAINT route_threshold_check CHECK (threshold BETWEEN -1 AND 1),
    time_start time,
    time_end time,
    user_tiers text[] CONSTRAINT route_user_tiers_check CHECK (array_position(user_tiers, NULL) IS NULL),
    rate_limit_per_minute integer
        CONSTRAINT route_rate_limit_per_minute_check CHECK (rate_limit_per_minute >= 0),
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tinydancer.route IS 'Named topics that requests are matched with';

CREATE TABLE tinydancer.route_utterance (
    route_name text COLLATE "C" NOT NULL
        REFERENCES tinydancer.route (name) ON UPDATE CASCADE ON DELETE CASCADE,
    position integer NOT NULL CONSTRAINT route_utterance_position_check CHECK (position >= 1),
    utterance text NOT NULL,
    embedding real[]
        CONSTRAINT route_utterance_embedding_check
        CHECK (array_ndims(embedding) = 1 AND array_position(embedding, NULL) IS NULL),
    encoder text,
    negative boolean NOT NULL DEFAULT false,
    PRIMARY KEY (route_name, position),
    CONSTRAINT route_utterance_encoder_check CHECK ((embedding IS NULL) = (encoder IS NULL))
);
COMMENT ON TABLE tinydancer.route_utterance IS
    'Example requests of a route; negative ones must not match it';
COMMENT ON COLUMN tinydancer.route_utterance.utterance IS
    'empty: the row holds a vector that the caller passed, which stands alone';

CREATE TABLE tinydancer.route_scorer (
    encoder text COLLATE "C" PRIMARY KEY,
    scorer text NOT NULL
        CONSTRAINT route_scorer_scorer_check CHECK (scorer IN ('nearest', 'centroid', 'top3', 'ridge')),
    confidence_mu float8 NOT NULL
        CONSTRAINT route_scorer_confidence_mu_check
        CHECK (confidence_mu > '-Infinity' AND confidence_mu < 'Infinity'),
    confidence_s float8 NOT NULL
        CONSTRAINT route_scorer_confidence_s_check CHECK (confidence_s > 0 AND confidence_s < 'Infinity'),
    accuracy float8 CONSTRAINT route_scorer_accuracy_check CHECK (accuracy BETWEEN 0 AND 1),
    fingerprint text NOT NULL,
    weights bytea,
    tuned_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tinydancer.route_scorer IS
    'How routes are scored with an encoder''s vectors, as ruvector_tune_routes() chose it; no row: nearest utterance';
COMMENT ON COLUMN tinydancer.route_scorer.confidence_mu IS 'similarity at which confidence is 0.5';
COMMENT ON COLUMN tinydancer.route_scorer.confidence_s IS
    'confidence = 1 / (1 + exp(-(similarity - mu) / s))';
COMMENT ON COLUMN tinydancer.route_scorer.accuracy IS 'by leave-one-out, without thresholds';
COMMENT ON COLUMN tinydancer.route_scorer.fingerprint IS 'of the utterances that it was tuned on';
COMMENT ON COLUMN tinydancer.route_scorer.weights IS
    'a cache: what the ridge regression gives for the utterances of that fingerprint';

-- Objectives, models, settings ------------------------------------------------------------------

CREATE TABLE tinydancer.policy (
    name text COLLATE "C" NOT NULL
        CONSTRAINT policy_name_check CHECK (btrim(name) <> '' AND name <> 'quality_per_dollar'),
    cost_weight float8 NOT NULL DEFAULT 0
        CONSTRAINT policy_cost_weight_check CHECK (cost_weight >= 0 AND cost_weight < 'Infinity'),
    latency_weight float8 NOT NULL DEFAULT 0
        CONSTRAINT policy_latency_weight_check CHECK (latency_weight >= 0 AND latency_weight < 'Infinity'),
    quality_weight float8 NOT NULL DEFAULT 0
        CONSTRAINT policy_quality_weight_check CHECK (quality_weight >= 0 AND quality_weight < 'Infinity'),
    fit_weight float8 NOT NULL DEFAULT 0
        CONSTRAINT policy_fit_weight_check CHECK (fit_weight >= 0 AND fit_weight < 'Infinity'),
    description text,
    builtin boolean NOT NULL DEFAULT false,
    PRIMARY KEY (name, builtin),
    CONSTRAINT policy_weights_check
        CHECK (cost_weight + latency_weight + quality_weight + fit_weight > 0)
);
COMMENT ON TABLE tinydancer.policy IS
    'Objectives: score = fit * (weighted sum of cost utility, latency utility, quality and fit)';
COMMENT ON COLUMN tinydancer.policy.builtin IS
    'Shipped with the extension and not dumped; a row of the same name that is not builtin goes before it';

CREATE TABLE tinydancer.model (
    kind text NOT NULL
        CONSTRAINT model_kind_check CHECK (kind IN ('classifier', 'capabilities', 'quality')),
    version integer NOT NULL CONSTRAINT model_version_check CHECK (version >= 1),
    encoder text NOT NULL,
    bytes bytea NOT NULL,
    checksum text NOT NULL,
    training_query text,
    metrics jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT false,
    builtin boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, encoder, version, builtin)
);
CREATE UNIQUE INDEX model_active_key ON tinydancer.model (kind, encoder, builtin) WHERE active;
COMMENT ON TABLE tinydancer.model IS
    'Trained models; at most one of a kind is active for an encoder, and goes before the built-in one';
COMMENT ON COLUMN tinydancer.model.bytes IS 'a model file: kernels/include/tinydancer.h has its layout';
COMMENT ON COLUMN tinydancer.model.checksum IS 'XXH64 of the file, kept by a trigger';
COMMENT ON COLUMN tinydancer.model.metrics IS
    'what training measured on held-out rows; activation asks for "beats_baseline": true';
COMMENT ON COLUMN tinydancer.model.builtin IS 'Shipped with the extension and not dumped';

CREATE TABLE tinydancer.setting (
    name text COLLATE "C" PRIMARY KEY CONSTRAINT setting_name_check CHECK (btrim(name) <> ''),
    value text NOT NULL
);
COMMENT ON TABLE tinydancer.setting IS
    'Facts of this database: the encoder that its vectors were made with, pinned by the first of them';

-- Other sessions listen for changes of this empty relation; see tinydancer.bump_epoch().
CREATE TABLE tinydancer.epoch ();
COMMENT ON TABLE tinydancer.epoch IS 'Empty: its invalidation tells sessions to read the registry again';
CREATE TABLE tinydancer.route_epoch ();
COMMENT ON TABLE tinydancer.route_epoch IS 'Empty: its invalidation tells sessions to read the routes again';
CREATE TABLE tinydancer.model_epoch ();
COMMENT ON TABLE tinydancer.model_epoch IS 'Empty: its invalidation tells sessions to read the models again';

-- Logs ------------------------------------------------------------------------------------------
--
-- Keys and indexes are those of each partition, and not of the log: a restore attaches partitions that
-- were made at run time to the log that CREATE EXTENSION made, which would give them the log's indexes,
-- and then makes the partitions' own, which would be the same.
--
-- What is logged is logged for good, so nothing may come in that later breaks a sum or a truncated date:
-- hence limits on figures (1e12 USD, 1e12 ms) and years that are wider than any use.

CREATE TABLE tinydancer.decision (
    decision_id bigint GENERATED BY DEFAULT AS IDENTITY,
    decided_at timestamptz NOT NULL DEFAULT now()
        CONSTRAINT decision_decided_at_check
        CHECK (decided_at >= '4700-01-01 00:00+00 BC' AND decided_at < '290000-01-01 00:00+00'),
    request text,
    agent_name text NOT NULL,
    pool text,
    route_name text,
    confidence float8,
    estimated_cost float8,
    estimated_latency_ms float8,
    expected_quality float8,
    similarity float8,
    optimize_for text,
    limits jsonb,
    reasoning text,
    model text,
    encoder text,
    propensity float8 CONSTRAINT decision_propensity_check CHECK (propensity > 0 AND propensity <= 1)
) PARTITION BY RANGE (decided_at);
CREATE TABLE tinydancer.decision_default PARTITION OF tinydancer.decision DEFAULT;
COMMENT ON TABLE tinydancer.decision IS 'Append-only log: what was decided and why';
COMMENT ON COLUMN tinydancer.decision.pool IS 'pool of the agent when it was chosen';
COMMENT ON COLUMN tinydancer.decision.route_name IS 'semantic route that the request matched';
ALTER TABLE tinydancer.decision_default ADD PRIMARY KEY (decision_id);
CREATE INDEX decision_default_decided_at_idx ON tinydancer.decision_default (decided_at);
-- Rate limits count the last minute of one route.
CREATE INDEX decision_default_route_name_idx ON tinydancer.decision_default (route_name, decided_at)
    WHERE route_name IS NOT NULL;

CREATE TABLE tinydancer.usage (
    usage_id bigint GENERATED BY DEFAULT AS IDENTITY,
    recorded_at timestamptz NOT NULL DEFAULT now()
        CONSTRAINT usage_recorded_at_check
        CHECK (recorded_at >= '4700-01-01 00:00+00 BC' AND recorded_at < '290000-01-01 00:00+00'),
    agent_name text NOT NULL,
    decision_id bigint,
    cost_usd float8 CONSTRAINT usage_cost_usd_check CHECK (cost_usd >= 0 AND cost_usd <= 1e12),
    latency_ms float8 CONSTRAINT usage_latency_ms_check CHECK (latency_ms >= 0 AND latency_ms <= 1e12),
    success boolean,
    quality float8 CONSTRAINT usage_quality_check CHECK (quality BETWEEN 0 AND 1),
    input_tokens bigint CONSTRAINT usage_input_tokens_check CHECK (input_tokens >= 0),
    output_tokens bigint CONSTRAINT usage_output_tokens_check CHECK (output_tokens >= 0),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id()
) PARTITION BY RANGE (recorded_at);
CREATE TABLE tinydancer.usage_default PARTITION OF tinydancer.usage DEFAULT;
COMMENT ON TABLE tinydancer.usage IS 'Append-only log: what a request really cost and how it went';
COMMENT ON COLUMN tinydancer.usage.xid IS
    'transaction that wrote the row: the roll-up knows by it which rows it has seen';
ALTER TABLE tinydancer.usage_default ADD PRIMARY KEY (usage_id);
CREATE INDEX usage_default_recorded_at_idx ON tinydancer.usage_default (recorded_at);
CREATE INDEX usage_default_xid_idx ON tinydancer.usage_default (xid);

CREATE TABLE tinydancer.budget (
    scope text NOT NULL CONSTRAINT budget_scope_check CHECK (scope IN ('all', 'agent', 'pool')),
    name text NOT NULL DEFAULT '',
    period text NOT NULL CONSTRAINT budget_period_check CHECK (period IN ('day', 'week', 'month')),
    limit_usd float8 NOT NULL
        CONSTRAINT budget_limit_usd_check CHECK (limit_usd >= 0 AND limit_usd < 'Infinity'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, name, period),
    CONSTRAINT budget_name_check CHECK ((scope = 'all') = (name = ''))
);
COMMENT ON TABLE tinydancer.budget IS 'Caps on spending';

-- Units that a column's name does not tell.
COMMENT ON COLUMN tinydancer.route.rate_limit_per_minute IS 'requests per minute; NULL: no limit';
COMMENT ON COLUMN tinydancer.decision.estimated_cost IS 'USD; NULL: the agent has no price';
COMMENT ON COLUMN tinydancer.decision.propensity IS 'chance that this agent was chosen, above 0 up to 1';

-- What ships.
INSERT INTO tinydancer.policy (name, cost_weight, latency_weight, quality_weight, description, builtin)
VALUES ('cost', 1, 0, 0, 'the cheapest agent that fits', true),
       ('latency', 0, 1, 0, 'the fastest agent that fits', true),
       ('quality', 0, 0, 1, 'the best answer', true),
       ('balanced', 0.3, 0.3, 0.4, 'cost, latency and quality together', true);

-- Dumps carry the user's rows; what ships comes back with CREATE EXTENSION.
SELECT pg_catalog.pg_extension_config_dump('tinydancer.agent', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.agent_phrase', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.route', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.route_utterance', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.route_scorer', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.policy', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.model', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.setting', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.decision', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.decision_default', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.decision_decision_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.usage', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.usage_default', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.usage_usage_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tinydancer.budget', '');
