"""A valid call of each function and a valid row of each table, to start from.

Read by the tests that cover every function and every table: bad input, access, dump and restore.
A function with a required argument or a table without an entry fails them; add one here.  An entry
for a function that is not there yet does no harm.
"""

from __future__ import annotations

from typing import Any

import model_specs

from tinydancer.encoder import Encoder
from tinydancer.model_file import write_model


def _model() -> str:
    """A quality model of two agents, as an SQL expression."""
    encoder = Encoder.load("static")
    spec = model_specs.random_model(
        1, ("linear8",), n_out=2, n_rows=1, encoder=(encoder.id, int(encoder.checksum, 16))
    )
    return f"'\\x{write_model(spec).hex()}'::bytea"


MODEL = _model()

# What the calls below need: agents, one of them in a pool, a route, and some history.  The role
# td_sample is made by whoever runs the calls, since roles outlive a database.
SETUP = """
SELECT ruvector_register_agent('coder', 'llm', ARRAY['debugging', 'code-review'],
    cost_per_1k_tokens := 0.002, avg_latency_ms := 1500, quality_score := 0.9,
    description := 'Finds and repairs faults in programs', examples := ARRAY['debug my program']);
SELECT ruvector_register_agent('translator', 'api', ARRAY['translation'], cost_per_call := 0.0005,
    avg_latency_ms := 300, quality_score := 0.8, pool := 'cheap',
    examples := ARRAY['translate this sentence into French']);
INSERT INTO tinydancer.route (name, description, target_agent) VALUES
    ('faults', 'Programs that do not work', 'coder'),
    ('languages', 'Texts in another language', 'translator');
INSERT INTO tinydancer.route_utterance (route_name, position, utterance, negative) VALUES
    ('faults', 1, 'my program crashes', false), ('faults', 2, 'the test fails', false),
    ('faults', 3, 'an exception in the code', false), ('faults', 4, 'translate this text', true),
    ('languages', 1, 'translate this text', false), ('languages', 2, 'in French, please', false),
    ('languages', 3, 'what is that in Spanish', false);
INSERT INTO tinydancer.decision (request, agent_name, route_name, estimated_cost, optimize_for)
VALUES ('debug my program', 'coder', 'faults', 0.001, 'balanced'),
       ('translate', 'translator', NULL, 0.0005, 'cost');
INSERT INTO tinydancer.usage (agent_name, cost_usd, latency_ms, success, quality) VALUES
    ('coder', 0.001, 1400, true, 0.9), ('translator', 0.0005, 280, false, 0.1);
INSERT INTO tinydancer.budget (scope, name, period, limit_usd) VALUES ('all', '', 'month', 100);
"""
SETUP += f"SELECT tinydancer.add_model('quality', {MODEL}) FROM generate_series(1, 2);"

VECTOR = "array_fill(0.1::real, ARRAY[128])"
ANY_AGENT = "(SELECT a FROM tinydancer.agent a WHERE a.name = 'coder')"

# Arguments by name, or by position where they have none; values are SQL expressions.  A function
# that needs none has no entry.
CALLS: dict[str, dict[str, str]] = {
    # The registry.
    "ruvector_register_agent": {"name": "'new'", "agent_type": "'llm'"},
    "ruvector_register_agent_full": {"config": """'{"name": "new", "agent_type": "api"}'"""},
    "ruvector_set_agent_active": {"name": "'coder'", "active": "false"},
    "ruvector_remove_agent": {"name": "'coder'"},
    "ruvector_get_agent": {"name": "'coder'"},
    # Decisions and vectors.
    "ruvector_route": {"request": "'debug my program'"},
    "ruvector_explain_route": {"request": "'debug my program'"},
    "ruvector_embed(text)": {"1": "'debug my program'"},
    "ruvector_embed(text, text)": {"1": "'debug my program'", "encoder": "'static-1'"},
    "ruvector_cosine_similarity": {"a": VECTOR, "b": VECTOR},
    "ruvector_route_multi": {"request": "'debug my program'"},
    "ruvector_batch_route": {"requests": "ARRAY['debug my program', 'translate this']"},
    "ruvector_find_agents_by_capability": {"capability": "'debugging'"},
    # Semantic routes.
    "ruvector_create_route": {
        "name": "'new'",
        "description": "'Questions about invoices'",
        "embedding": VECTOR,
        "target_agent": "'coder'",
    },
    "ruvector_drop_route": {"name": "'faults'"},
    "ruvector_semantic_route": {"query": "'my program crashes'"},
    # Classes.
    "ruvector_classify_request": {"request": "'debug my program'"},
    "ruvector_classify_capabilities": {"request": "'debug my program'"},
    # Models.
    "activate_model": {"kind": "'quality'", "version": "1", "force": "true"},
    "active_model": {"kind": "'quality'"},
    "add_model": {"kind": "'quality'", "bytes": MODEL},
    "deactivate_model": {"kind": "'quality'"},
    "drop_model": {"kind": "'quality'", "version": "2"},
    "model_facts": {"bytes": MODEL},
    "require_model": {"kind": "'quality'", "version": "1", "function": "'f'"},
    # Usage and budgets.
    "ruvector_dispatch": {"request": "'debug my program'"},
    "ruvector_record_usage": {"agent": "'coder'", "actual_cost": "0.01"},
    "ruvector_update_agent_metrics": {"name": "'coder'", "latency_ms": "900", "success": "true"},
    "ruvector_set_budget": {
        "scope": "'agent'",
        "name": "'coder'",
        "period": "'day'",
        "limit_usd": "10",
    },
    "ruvector_check_budget": {"agent": "'coder'", "estimated_cost": "0.01"},
    "ruvector_routing_analytics": {"time_range": "'7 days'"},
    "ruvector_optimize_budget": {"monthly_budget": "100"},
    # Access.
    "grant_usage": {"role": "'td_sample'", "level": "'viewer'"},
    "revoke_usage": {"role": "'td_sample'"},
    "grantee": {"role": "'td_sample'", "function": "'f'"},
    # Schema tinydancer: what the public functions are made of.
    "check_agent": {"a": ANY_AGENT},
    "closest": {"name": "'codr'", "candidates": "ARRAY['coder', 'translator']"},
    "embed_phrase": {"kind": "'capability'", "phrase": "'code-review'"},
    "raise_unknown_agent": {"agent_name": "'codr'"},
    "require_value": {"value": "'x'", "argument": "'x'", "function": "'f'"},
    "store_phrases": {"agent_name": "'coder'", "examples": "ARRAY['x']", "embedding": VECTOR},
    "texts_of": {"list": "'[\"a\"]'"},
    "unit_vector": {"embedding": VECTOR},
    # The same of routes and classes.
    "check_route": {
        "r": "(SELECT r FROM tinydancer.route r WHERE r.name = 'faults')",
        "utterances": "ARRAY['it crashes']",
        "negatives": "NULL",
        "embedding": "NULL",
    },
    "classification": {"categories": "ARRAY['a', 'b']", "probabilities": "ARRAY[0.75, 0.25]"},
    "fold_capability": {"capability": "'Code-Review'"},
    "raise_unknown_route": {"route_name": "'fault'"},
    "require_texts": {"list": "ARRAY['x']", "argument": "'x'", "route_name": "'faults'"},
    "store_utterances": {
        "route_name": "'faults'",
        "utterances": "ARRAY['it crashes']",
        "negatives": "NULL",
        "embedding": "NULL",
    },
    "tune_report": {
        "target_precision": "0.9",
        "target_coverage": "NULL",
        "force_scorer": "NULL",
    },
    # The same of encoders and plans.
    "check_switched": {"encoder": "'static-1'"},
    "embed_phrases": {"kinds": "ARRAY['capability']", "phrases": "ARRAY['code-review']"},
    "encoder_facts": {"name": "'static'"},
    "keep_passed_vectors": {"dim": "128"},
    "listed": {"what": "'agents'", "names": "ARRAY['a', 'b']"},
    "make_vectors": {"encoder": "'static-1'"},
    "replace_passed_vectors": {"encoder": "'static-1'"},
    "use_encoder": {"name": "'static'"},
    "plan_budget": {
        "requests": "ARRAY['debug my program']",
        "counts": "ARRAY[10]",
        "scale": "1",
        "monthly_budget": "100",
        "quality_threshold": "0.1",
        "latency_threshold_ms": "NULL",
    },
    # The same of logs, budgets and statistics.
    "archive_usage": {"month_start": "'2024-01-01'", "month_end": "'2024-02-01'"},
    "budget_refusal": {"agent": "'coder'", "pool": "NULL", "cost": "1", "at": "now()"},
    "count_spending": {
        "scope": "'all'",
        "name": "''",
        "period_start": "'2024-01-01'",
        "period_end": "'2024-02-01'",
    },
    "drop_log_partitions": {"older_than": "'10 years'"},
    "make_log_partition": {"log": "'usage'", "month": "'2031-03-01'"},
    "period_bounds": {"period": "'day'", "at": "now()", "zone": "'UTC'"},
    "raise_over_budget": {"agent": "'coder'", "pool": "NULL", "cost": "1000", "at": "now()"},
    "require_figure": {"value": "1", "argument": "'x'"},
    "require_interval": {"value": "'1 day'", "argument": "'x'", "function": "'f'"},
    "require_share": {"value": "1", "argument": "'x'"},
    "require_writable": {"function": "'f'"},
    "set_time_zone": {"zone": "'Europe/Oslo'"},
    "usage_hours": {
        "recorded_from": "'2024-01-01'",
        "recorded_below": "'2024-02-01'",
        "xid_from": "NULL",
        "xid_below": "NULL",
        "zone": "'UTC'",
    },
}

# Calls that are right and end in an error all the same.
REFUSED = {
    "raise_unknown_agent": "42704",
    "raise_over_budget": "53400",
    "raise_unknown_route": "42704",
}

SUMS = {
    "bucket": "'2024-01-01'",
    "agent_name": "'coder'",
    "requests": "2",
    "cost_usd": "0.5",
    "costs": "2",
    "latencies": "0",
    "successes": "1",
    "outcomes": "2",
    "qualities": "0",
}

# One row of each table that can be added to those of SETUP.
ROWS: dict[str, dict[str, str]] = {
    "tinydancer.agent": {"name": "'row'", "type": "'llm'", "capabilities": "'{writing}'"},
    "tinydancer.agent_phrase": {
        "agent_name": "'coder'",
        "kind": "'example'",
        "position": "9",
        "phrase": "'find the fault'",
        "embedding": VECTOR,
        "encoder": "'static-1'",
    },
    "tinydancer.route": {"name": "'row'", "target_agent": "'coder'"},
    "tinydancer.route_utterance": {
        "route_name": "'faults'",
        "position": "9",
        "utterance": "'it does not work'",
        "embedding": VECTOR,
        "encoder": "'static-1'",
    },
    "tinydancer.route_scorer": {
        "encoder": "'static-1'",
        "scorer": "'centroid'",
        "confidence_mu": "0.5",
        "confidence_s": "0.1",
        "fingerprint": "'0'",
    },
    "tinydancer.policy": {"name": "'row'", "cost_weight": "0.5", "quality_weight": "0.5"},
    "tinydancer.model": {
        "kind": "'quality'",
        "version": "9",
        "encoder": "'static-1'",
        "bytes": MODEL,
        "checksum": "'00'",
    },
    "tinydancer.setting": {"name": "'row'", "value": "'x'"},
    "tinydancer.decision": {"agent_name": "'coder'", "request": "'x'"},
    "tinydancer.usage": {"agent_name": "'coder'", "cost_usd": "0.01", "success": "true"},
    "tinydancer.budget": {
        "scope": "'agent'",
        "name": "'coder'",
        "period": "'day'",
        "limit_usd": "10",
    },
    "tinydancer.budget_counter": {
        "scope": "'all'",
        "name": "''",
        "period": "'month'",
        "period_start": "'2024-01-01'",
        "period_end": "'2024-02-01'",
        "reserved_usd": "0",
        "spent_usd": "12.5",
    },
    "tinydancer.budget_reservation": {
        "decision_id": "1",
        "decided_at": "now()",
        "agent_name": "'coder'",
        "amount_usd": "0.5",
    },
    "tinydancer.budget_lock": {"turn": "true"},
    "tinydancer.usage_rollup": SUMS,
    "tinydancer.usage_archive": SUMS,
    "tinydancer.usage_total": {key: value for key, value in SUMS.items() if key != "bucket"},
    "tinydancer.usage_rollup_state": {"horizon": "'3'", "time_zone": "'UTC'"},
}

# Tables whose rows are worked out from those of others, and therefore not dumped.
DERIVED = {
    "tinydancer.usage_rollup",
    "tinydancer.usage_total",
    "tinydancer.usage_rollup_state",
}


def insert(table: str, values: dict[str, str]) -> str:
    """An INSERT of one row of SQL expressions."""
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def arguments(function: Any) -> dict[str, str]:
    """The arguments of a valid call of a ``catalog.Function``."""
    assert function.key in CALLS or not function.required, missing(function.signature, "CALLS")
    return function.by_slot(CALLS.get(function.key, {}))


def missing(what: str, kind: str) -> str:
    """The sentence for a function or table that has no entry."""
    return f"{what} has no entry in {kind} of tests/server/samples.py: add a valid one"
