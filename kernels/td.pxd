# The kernel API as Cython sees it: a transcript of include/tinydancer.h, in its order, without its
# comments (the header is the manual).  _kernels.pyx is the only module that reads it.  No function
# touches a Python object, so all are nogil.  td_exp() of src/td_math.h is here for its test.

from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "tinydancer.h" nogil:
    ctypedef enum td_status:
        TD_OK
        TD_ERR_BUFFER
        TD_ERR_SHAPE
        TD_ERR_DIMENSION
        TD_ERR_NONFINITE
        TD_ERR_EMPTY
        TD_ERR_UTF8
        TD_ERR_NOT_FILE
        TD_ERR_VERSION
        TD_ERR_TRUNCATED
        TD_ERR_CHECKSUM
        TD_ERR_CORRUPT
        TD_ERR_KIND

    const char *td_status_text(td_status status)

    # td_cpu.c
    ctypedef enum td_level:
        TD_LEVEL_PORTABLE

    enum:
        TD_N_LEVELS

    td_level td_level_best()
    const char *td_level_name(td_level level)

    # td_vec.c
    float td_vec_dot(const float *a, const float *b, size_t n)
    float td_vec_norm(const float *a, size_t n)
    float td_vec_cosine(const float *a, const float *b, size_t n)
    td_status td_vec_check(const float *a, size_t n)
    td_status td_vec_normalise(float *a, size_t n)
    float td_vec_quantise(const float *a, size_t n, int8_t *q)
    int32_t td_vec_dot_i8(const int8_t *a, const int8_t *b, size_t n)
    void td_vec_sigmoid(const float *x, float *y, size_t n)
    void td_vec_tanh(const float *x, float *y, size_t n)

    # td_matvec.c
    ctypedef enum td_weights:
        TD_WEIGHTS_F32
        TD_WEIGHTS_I8

    ctypedef struct td_matrix:
        const float *f32
        const int8_t *i8
        const float *scales

    size_t td_matvec_scratch_size(size_t n_in)
    td_status td_matvec(uint32_t level, const td_matrix *matrix, uint32_t weights, size_t n_out,
                        size_t n_in, const float *x, float *y, void *scratch, size_t scratch_size)

    # td_topk.c
    size_t td_topk_scratch_size(size_t dim)
    td_status td_topk_cosine(uint32_t level, const float *query, const int8_t *rows,
                             const float *scales, size_t n_rows, size_t dim, size_t k,
                             uint32_t *index, float *score, size_t *n_found, void *scratch,
                             size_t scratch_size)

    # td_sketch.c
    size_t td_sketch_size(size_t n_rows, size_t dim)
    void td_sketch_make(const int8_t *rows, size_t n_rows, size_t dim, void *sketch)
    size_t td_topk_sketched_scratch_size(size_t dim, size_t k)
    td_status td_topk_sketched(uint32_t level, const float *query, const int8_t *rows,
                               const float *scales, const void *sketch, size_t n_rows, size_t dim,
                               size_t k, uint32_t *index, float *score, size_t *n_found,
                               uint32_t *is_exact, void *scratch, size_t scratch_size)

    # td_hash.c
    uint64_t td_hash64(const void *data, size_t size, uint64_t seed)

    # td_file.c
    enum:
        TD_FILE_VERSION
        TD_FILE_MAX_SECTIONS
        TD_FILE_ID_SIZE

    ctypedef enum td_file_kind:
        TD_FILE_STATIC_ENCODER
        TD_FILE_BERT_ENCODER
        TD_FILE_MODEL

    ctypedef enum td_element:
        TD_U8
        TD_I8
        TD_U16
        TD_U32
        TD_F32
        TD_I32

    ctypedef struct td_file:
        uint32_t kind
        uint32_t n_sections
        uint64_t checksum
        char *id

    td_status td_file_open(const void *data, size_t size, td_file *file)
    td_status td_file_section(const td_file *file, const char *name, td_element element,
                              const void **data, size_t *count)

    # td_text.c
    ctypedef struct td_vocab:
        uint32_t size
        uint32_t n_slots
        uint32_t max_piece_size
        uint32_t flags
        uint32_t unk_id
        uint32_t cls_id
        uint32_t sep_id
        uint32_t pad_id
        uint32_t mask_id
        const uint8_t *text
        const uint32_t *base
        const uint16_t *offset
        const uint16_t *index

    ctypedef struct td_token_count:
        size_t n_total
        size_t n_stored
        size_t n_unknown

    td_status td_text_tokenize(const td_vocab *vocab, const char *text, size_t len, uint32_t *ids,
                               size_t capacity, td_token_count *count)
    size_t td_text_fold_size(size_t len)
    td_status td_text_fold(const char *text, size_t len, char *out, size_t capacity,
                           size_t *out_len)

    # td_encoder.c
    enum:
        TD_MAX_DIM
        TD_MAX_TOKENS

    ctypedef struct td_encoder:
        td_file file
        td_vocab vocab
        uint32_t dim
        uint32_t max_tokens
        uint32_t first_row
        float fit_mu
        float fit_s
        uint32_t level

    td_status td_encoder_open(const void *data, size_t size, td_encoder *encoder)
    td_status td_encoder_verify(const td_encoder *encoder)

    # td_embed.c
    ctypedef struct td_embed_info:
        size_t n_tokens
        size_t n_used
        size_t n_known

    enum:
        TD_EMBED_MAX_TEXTS

    ctypedef struct td_embed_job:
        size_t n_texts
        td_embed_info *info
        td_status *status

    size_t td_embed_scratch_size(const td_encoder *encoder, size_t len)
    td_status td_embed_text(const td_encoder *encoder, const char *text, size_t len, float *out,
                            td_embed_info *info, void *scratch, size_t scratch_size)
    td_status td_embed_begin(td_embed_job *job, const td_encoder *encoder,
                             const char *const *texts, const size_t *lens, size_t n,
                             void *scratch, size_t scratch_size)
    int td_embed_step(td_embed_job *job)
    void td_embed_end(td_embed_job *job, float *out)

    # td_fastgrnn.c
    ctypedef struct td_factored:
        td_matrix left
        td_matrix right

    ctypedef struct td_fastgrnn:
        uint32_t n_in
        uint32_t n_hidden
        uint32_t rank_w
        uint32_t rank_u
        uint32_t tied
        uint32_t weights
        uint32_t level
        td_factored w
        td_factored u
        td_factored w_h
        td_factored u_h
        const float *b_z
        const float *b_h
        float zeta
        float nu

    size_t td_fastgrnn_scratch_size(const td_fastgrnn *cell)
    td_status td_fastgrnn_step(const td_fastgrnn *cell, const float *x, float *h, void *scratch,
                               size_t scratch_size)
    td_status td_fastgrnn_forward(const td_fastgrnn *cell, const float *x, size_t n_steps, float *h,
                                  void *scratch, size_t scratch_size)
    td_status td_fastgrnn_forward_single(const td_fastgrnn *cell, const float *x, float *h,
                                         void *scratch, size_t scratch_size)
    td_status td_fastgrnn_forward_batch(const td_fastgrnn *cell, const float *x, size_t n, float *h,
                                        void *scratch, size_t scratch_size)

    # td_words.c
    enum:
        TD_WORDS_MAX_PIECES
        TD_WORDS_MAX_FEATURES

    size_t td_words_features(const uint32_t *ids, size_t n, uint32_t n_buckets, uint32_t features,
                             uint32_t *buckets, float *values)

    # td_model.c
    enum:
        TD_N_TASKS

    ctypedef struct td_member_view:
        td_fastgrnn cell

    ctypedef struct td_model:
        td_file file
        uint32_t level
        uint32_t n_members
        td_member_view *members
        uint32_t task
        uint32_t n_out
        uint32_t dim
        uint32_t n_rows
        uint32_t reads_text
        uint64_t encoder_checksum
        char *encoder_id
        const char *names
        const float *prior
        const uint32_t *support

    const char *td_task_name(unsigned i)
    td_status td_model_open(const void *data, size_t size, td_model *model)
    size_t td_model_scratch_size(const td_model *model)
    td_status td_model_apply(const td_model *model, const td_encoder *encoder, const char *text,
                             size_t len, const float *embedding, float *out, void *scratch,
                             size_t scratch_size)

    # td_score.c
    const uint32_t TD_NONE

    ctypedef struct td_agent:
        double cost_per_1k_tokens
        double cost_per_1k_output_tokens
        double cost_per_call
        double cost_per_second
        double expected_output_tokens
        double avg_latency_ms
        double quality_score
        double success_rate
        uint32_t first_phrase
        uint32_t n_phrases
        uint32_t first_capability
        uint32_t n_capabilities
        uint32_t pool
        uint32_t active

    ctypedef struct td_registry:
        uint32_t n_agents
        uint32_t n_phrases
        uint32_t dim
        uint32_t level
        const td_agent *agents
        const int8_t *phrase_rows
        const float *phrase_scales
        const uint32_t *capabilities

    ctypedef struct td_policy:
        double cost_weight
        double latency_weight
        double quality_weight
        double fit_weight
        double cost_scale
        double latency_scale
        uint32_t per_dollar

    ctypedef struct td_request:
        const float *embedding
        double input_tokens
        const uint32_t *required
        size_t n_required
        const uint32_t *excluded
        size_t n_excluded
        uint32_t has_pool
        uint32_t pool
        double max_cost
        double budget_remaining
        double max_latency_ms
        double min_quality
        double min_expected_quality
        const double *predicted
        const uint32_t *outputs

    enum:
        TD_N_LIMITS

    const char *td_limit_name(unsigned i)

    ctypedef struct td_candidate:
        uint32_t agent
        uint32_t phrase
        uint32_t rejected_by
        uint32_t missing
        float similarity
        uint32_t prediction
        double fit
        double quality
        double expected_quality
        double cost
        double latency
        double cost_utility
        double latency_utility
        double score

    size_t td_score_scratch_size(const td_registry *registry)
    td_status td_score_agents(const td_registry *registry, double mu, double s,
                              const td_policy *policy, const td_request *request,
                              td_candidate *out, void *scratch, size_t scratch_size)
    int td_score_predict(const td_registry *registry, const uint32_t *outputs, const float *p,
                         double *predicted)
    uint32_t td_score_best(const td_candidate *candidates, uint32_t n, uint32_t *n_eligible)
    void td_score_rank(const td_candidate *candidates, uint32_t n, uint32_t *order)

    double td_score_cost(const td_agent *agent, double input_tokens)

    # td_choice.c
    ctypedef struct td_choice:
        double cost
        double quality
        float similarity
        uint32_t agent
        uint32_t phrase
        uint32_t is_known

    td_status td_choice_frontier(const td_candidate *candidates, uint32_t n, int hull_only,
                                 int needs_cost, uint32_t preferred, td_choice *out,
                                 uint32_t *n_out, td_choice *fallback)
    td_status td_choice_prior(const td_registry *registry, double input_tokens,
                              double max_latency_ms, td_choice *out, uint32_t *n_out)
    td_status td_choice_afford(const td_choice *choices, uint32_t n, double budget,
                               td_choice *best, double *times)

    # td_knapsack.c
    ctypedef struct td_knapsack:
        uint32_t n_groups
        uint32_t n_items
        const uint32_t *first
        const td_choice *choices
        const uint32_t *group
        const td_choice *fallback

    ctypedef enum td_goal:
        TD_LEAST_COST
        TD_MOST_QUALITY

    ctypedef struct td_plan:
        double cost
        double quality
        double bound
        double reachable
        double limit
        uint32_t is_feasible
        uint32_t is_exact

    ctypedef struct td_allotment:
        double cost
        double requests
        double quality

    enum:
        TD_KNAPSACK_EXACT_ITEMS

    size_t td_knapsack_scratch_size(const td_knapsack *knapsack)
    td_status td_knapsack_solve(const td_knapsack *knapsack, td_goal goal, double limit,
                                uint32_t *level, td_plan *plan, void *scratch, size_t scratch_size)
    td_status td_knapsack_divide(const td_knapsack *knapsack, const double *count, double budget,
                                 td_allotment *allotted, uint32_t n_agents, td_plan *plan,
                                 void *scratch, size_t scratch_size)

    # td_team.c
    enum:
        TD_TEAM_MAX
        TD_NEEDS_MAX
        TD_PARTS_MAX
        TD_N_STRATEGIES

    ctypedef enum td_strategy:
        TD_PIPELINE
        TD_PARALLEL
        TD_ENSEMBLE

    const char *td_strategy_name(td_strategy strategy)

    ctypedef struct td_string:
        const char *data
        size_t len

    ctypedef struct td_relevance:
        float similarity
        double fit
        double position

    ctypedef struct td_team_request:
        td_strategy strategy
        uint32_t n_wanted
        double max_cost
        double max_latency_ms
        const uint32_t *required
        size_t n_required
        uint32_t n_capabilities
        const td_relevance *relevance

    ctypedef struct td_member:
        uint32_t agent
        uint32_t n_shared
        uint32_t share
        uint32_t own
        uint64_t needs
        double weight

    ctypedef struct td_team:
        td_strategy strategy
        uint32_t n_members
        uint32_t n_eligible
        uint32_t n_needs
        uint32_t[64] need
        uint64_t covered
        double cost
        double latency_ms
        uint32_t is_exact
        td_member[32] member

    uint32_t td_team_parts(const char *text, size_t len, td_string *parts)
    td_status td_team_relevance(const td_registry *registry, double mu, double s,
                                uint32_t n_capabilities, const uint32_t *phrase,
                                const td_string *name, const float *queries, uint32_t n_parts,
                                td_relevance *out, void *scratch, size_t scratch_size)
    size_t td_team_scratch_size(const td_registry *registry)
    td_status td_team_choose(const td_registry *registry, const td_candidate *candidates,
                             const td_team_request *request, td_team *team, void *scratch,
                             size_t scratch_size)
    size_t td_team_role(const td_team *team, uint32_t member, const td_string *name, char *out,
                        size_t capacity)

    # td_reason.c
    size_t td_reason(const td_candidate *candidate, const td_agent *agent,
                     const td_request *request, const char *phrase, size_t phrase_len,
                     const char *objective, uint32_t rank, uint32_t n_eligible,
                     const td_embed_info *info, char *out, size_t capacity)
    size_t td_reason_member(const td_candidate *candidate, const td_team *team, uint32_t member,
                            const char *phrase, size_t phrase_len, const char *objective,
                            const td_embed_info *info, char *out, size_t capacity)
    size_t td_reason_plan(const td_candidate *candidate, td_goal goal, const td_plan *plan,
                          uint32_t n, const char *phrase, size_t phrase_len,
                          const td_embed_info *info, char *out, size_t capacity)
    enum:
        TD_REASON_SIZE

    # td_routes.c
    ctypedef enum td_scorer:
        TD_SCORER_NEAREST
        TD_SCORER_CENTROID
        TD_SCORER_TOP3
        TD_SCORER_RIDGE

    enum:
        TD_N_SCORERS

    const char *td_scorer_name(unsigned i)

    ctypedef struct td_route:
        uint32_t first_row
        uint32_t n_rows
        uint32_t first_negative
        uint32_t n_negatives
        int32_t priority
        float threshold

    ctypedef struct td_routes:
        uint32_t n_routes
        uint32_t n_rows
        uint32_t n_negatives
        uint32_t dim
        uint32_t level
        const td_route *routes
        const int8_t *rows
        const float *scales
        const int8_t *negative_rows
        const float *negative_scales
        uint32_t scorer
        double mu
        double s
        const int8_t *centroid_rows
        const float *centroid_scales
        const float *weights

    const float TD_NEAR_TIE

    size_t td_routes_centroids_scratch_size(const td_routes *routes)
    td_status td_routes_centroids(const td_routes *routes, int8_t *rows, float *scales,
                                  void *scratch, size_t scratch_size)
    size_t td_routes_scratch_size(const td_routes *routes)
    td_status td_routes_score(const td_routes *routes, const float *query, float *scores,
                              void *scratch, size_t scratch_size)
    size_t td_routes_select_scratch_size(const td_routes *routes)
    td_status td_routes_select(const td_routes *routes, const float *scores, const uint8_t *open,
                               size_t k, uint32_t *index, size_t *n_found, void *scratch,
                               size_t scratch_size)
    double td_routes_confidence(const td_routes *routes, float score)
    uint64_t td_routes_fingerprint(const td_routes *routes)

    # td_ridge.c
    uint32_t td_ridge_landmarks(const td_routes *routes)
    size_t td_ridge_size(const td_routes *routes)
    td_status td_ridge_begin(const td_routes *routes, void *state, size_t size)
    td_status td_ridge_step(void *state, uint32_t *more)
    const float *td_ridge_weights(const void *state)

    # td_tune.c
    ctypedef struct td_tune_options:
        uint32_t scorer
        double precision
        double coverage

    ctypedef struct td_tune_result:
        uint32_t scorer
        uint32_t n_left_out
        uint32_t n_short
        uint32_t fitted
        double mu
        double s
        double *accuracy

    ctypedef struct td_route_report:
        float threshold
        uint32_t confused_with
        double confusion
        double precision
        double coverage

    size_t td_tune_size(const td_routes *routes, const td_tune_options *options)
    td_status td_tune_begin(const td_routes *routes, const td_tune_options *options, void *state,
                            size_t size)
    td_status td_tune_step(void *state, uint32_t *more)
    void td_tune_report(const void *state, td_tune_result *result, td_route_report *reports)
    const float *td_tune_weights(const void *state)


cdef extern from "td_math.h" nogil:
    double td_exp(double x)
