"""For each type of an argument or column, values that could be bad: SQL expressions.

Read by test_bad_input.py, which adds NULL.  A type without an entry fails it; add one here.
"""

from __future__ import annotations

# More than a megabyte, and more than any encoder reads.
LONG_TEXT = "repeat('long text, ', 95000)"


def _quoted(*texts: str) -> list[str]:
    """SQL literals."""
    return ["'" + text.replace("'", "''") + "'" for text in texts]


def _filled(value: str, shape: str = "128") -> str:
    """A vector of one value."""
    return f"array_fill('{value}'::real, ARRAY[{shape}])"


_TEXT = [
    *_quoted("", "  ", "no such thing", "codr", "../../etc/passwd", "NaN", "-1", "🙂 é 漢字"),
    *_quoted("%s %d %n \"quoted\" 'single' $1", "NULL", "null", "{}"),
    "E'\\t\\n'",
    "E'\\u00a0\\u200b'",
    "E'\\x01\\x7f'",
    "repeat('x', 300)",
    LONG_TEXT,
]

# What ruvector_register_agent_full() reads, and JSON of every kind.
_JSON = _quoted(
    "null",
    "[]",
    "[1, null]",
    '"x"',
    "1",
    "true",
    "{}",
    '{"": null}',
    '{"name": null, "agent_type": null}',
    '{"name": 1, "agent_type": []}',
    *(
        '{"name": "x", "agent_type": "llm", ' + rest + "}"
        for rest in (
            '"quality_score": "NaN"',
            '"quality_score": {}',
            '"cost_per_call": -1',
            '"cost_per_call": 1e400',
            '"cost_per_call": "Infinity"',
            '"active": "perhaps"',
            '"metadata": null',
            '"metadata": 1',
            '"capabilities": [null]',
            '"capabilities": [["a"]]',
            '"capabilities": [{"a": 1}]',
            '"examples": [""]',
            '"embedding": [1, "x"]',
            '"embedding": [null]',
            '"embedding": {"a": 1}',
            '"embedding": [1e300]',
        )
    ),
)

BAD: dict[str, list[str]] = {
    "text": _TEXT,
    "character varying": _TEXT,
    "name": _TEXT,
    "boolean": ["true", "false"],
    "smallint": ["-1", "0", "1", "32767", "-32768"],
    "integer": ["-1", "0", "1", "2147483647", "-2147483648"],
    "bigint": ["-1", "0", "1", "9223372036854775807", "-9223372036854775808"],
    "numeric": ["-1", "0", "'NaN'", "1e308", "1e-308"],
    "real": ["-1", "0", "'NaN'", "'Infinity'", "'-Infinity'", "3e38", "1e-45"],
    "double precision": [
        *_quoted("-1", "0", "1.0000001", "-0", "NaN", "Infinity", "-Infinity"),
        *_quoted("1e308", "-1e308", "5e-324"),
    ],
    "text[]": [
        "'{}'",
        "ARRAY[NULL::text]",
        "ARRAY['']",
        "ARRAY['  ']",
        "ARRAY['a', NULL]",
        "ARRAY['no such thing']",
        "ARRAY['a', 'a', 'A']",
        "ARRAY[['a', 'b'], ['c', 'd']]",
        "'[0:1]={a,b}'::text[]",
        "array_fill('x'::text, ARRAY[5000])",
        f"ARRAY[{LONG_TEXT}]",
    ],
    "real[]": [
        "'{}'",
        "'{1}'",
        _filled("0.1", "127"),
        _filled("0.1", "129"),
        _filled("0.1", "200000"),
        _filled("0.1", "2, 64"),
        _filled("0.1") + " || '{}'::real[]",
        "array_fill(0.1::real, ARRAY[128], ARRAY[-5])",
        *(_filled(value) for value in ("0", "NaN", "3e38", "1e-45")),
        *(_filled("0.1", "127") + f" || '{value}'::real" for value in ("Infinity", "-Infinity")),
        _filled("0.1", "127") + " || NULL::real",
    ],
    "double precision[]": _quoted(
        "{}", "{NULL}", "{NaN}", "{-1}", "{Infinity,1}", "{{1,2},{3,4}}", "[0:1]={1,2}"
    ),
    "integer[]": _quoted("{}", "{NULL}", "{-1}", "{2147483647}", "{{1,2},{3,4}}"),
    "bigint[]": _quoted("{}", "{NULL}", "{-1}", "{9223372036854775807}", "{{1,2},{3,4}}"),
    "jsonb": [
        *_JSON,
        f"jsonb_build_object('name', {LONG_TEXT})",
        "jsonb_build_array(repeat('x', 1000000))",
    ],
    "timestamp with time zone": _quoted(
        "infinity", "-infinity", "epoch", "4713-01-01 BC", "294276-12-31"
    ),
    "timestamp without time zone": _quoted("infinity", "-infinity", "4713-01-01 BC"),
    "date": _quoted("infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"),
    "time without time zone": _quoted("00:00", "24:00", "23:59:59.999999"),
    "interval": _quoted("0", "-1 day", "1 microsecond", "178000000 years", "-178000000 years"),
    "bytea": ["''", "'\\x00'", "decode(repeat('00', 1000000), 'hex')"],
    "xid8": ["'0'", "'3'", "'18446744073709551615'"],
    "oid": ["0", "4294967295"],
    "regclass": ["0", "'pg_class'"],
    "tinydancer.route": [
        f"jsonb_populate_record(NULL::tinydancer.route, '{record}')"
        for record in (
            "{}",
            '{"name": "", "threshold": "NaN"}',
            '{"name": "x", "threshold": 7, "priority": -5, "user_tiers": [null]}',
            '{"name": "x", "rate_limit_per_minute": -1, "time_start": "24:00"}',
        )
    ],
    "tinydancer.agent": [
        f"jsonb_populate_record(NULL::tinydancer.agent, '{record}')"
        for record in (
            "{}",
            '{"name": "", "type": ""}',
            '{"name": "x", "type": "llm", "avg_latency_ms": "NaN"}',
            '{"name": "x", "type": "llm", "capabilities": [null]}',
        )
    ],
}
