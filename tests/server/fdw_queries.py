"""What a random query asks of route_results, in two forms that must have the same rows.

In: a random.Random.  Out: a :class:`Query` with the foreign table in it, and the same query with
ruvector_route() called row by row.  Used by fdw_shapes.py, which has the queries themselves.

A shape is a query with places: ``{r}`` is the foreign table with its alias, ``{on}`` the equalities
that supply its inputs; in the other form ``{r}`` is a LATERAL subquery with the same columns, and
``{on}`` only what filters.  A column set by equality with NULL gives no row, where NULL as an
argument means no limit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

REQUESTS = (
    "translate this text into french",
    "debug my python program",
    "what is seven times eight",
    "tell me a joke",
    "Übersetze das bitte",
)
TEXTS = ", ".join(f"'{text}'" for text in REQUESTS)

# Columns of route_results in their order: what the function answers, and the type of the others.
COLUMNS = {
    "request": "text",
    "agent_name": None,
    "confidence": None,
    "estimated_cost": None,
    "estimated_latency_ms": None,
    "expected_quality": None,
    "similarity": None,
    "reasoning": None,
    "optimize_for": "text",
    "required_capabilities": "text[]",
    "max_cost": "float8",
    "max_latency_ms": "float8",
    "min_quality": "float8",
    "excluded_agents": "text[]",
    "budget_remaining": "float8",
    "embedding": "real[]",
    "pool": "text",
    "min_expected_quality": "float8",
}
# Input column: values to choose from as SQL literals, and what tables hold of them.
INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "request": (
        tuple(f"'{text}'" for text in REQUESTS),
        ("body", "vbody", "nbody", "dbody", "cbody", "body"),
    ),
    "optimize_for": (("'cost'", "'quality'", "'balanced'", "'latency'"), ("target", "ntarget")),
    "required_capabilities": (("ARRAY['coding']", "'{}'::text[]"), ("caps",)),
    "max_cost": (("0.001", "1", "'Infinity'", "0"), ("cap", "cap4", "ncap")),
    "max_latency_ms": (("100", "2000"), ("lat", "ilat")),
    "min_quality": (("0.5", "0.9"), ("floor",)),
    "excluded_agents": (("ARRAY['translator']", "ARRAY['nobody']"), ("excluded",)),
    "budget_remaining": (("0.01", "5"), ("cap", "ncap")),
    "embedding": ((), ("vec",)),
    "pool": (("'east'", "'west'"), ("pool",)),
    "min_expected_quality": (("0.1", "0.6"), ("floor",)),
}
SETUP = f"""
SELECT ruvector_register_agent('translator', 'api', ARRAY['translation'], cost_per_call := 0.0005,
    avg_latency_ms := 150, quality_score := 0.9, description := 'translates texts', pool := 'east');
SELECT ruvector_register_agent('coder', 'llm', ARRAY['coding'], cost_per_1k_tokens := 0.01,
    avg_latency_ms := 1500, quality_score := 0.95, description := 'debugs programs',
    pool := 'west');
SELECT ruvector_register_agent('sums', 'tool', ARRAY['arithmetic'], cost_per_call := 0,
    avg_latency_ms := 5, quality_score := 0.6, description := 'calculates', pool := 'east');
SELECT ruvector_register_agent('anyone', 'human', avg_latency_ms := 60000, quality_score := 0.8,
    description := 'answers anything');
CREATE DOMAIN ask AS text CHECK (VALUE <> 'never');
CREATE TABLE a AS SELECT id, r.body, r.body::varchar(40) AS vbody, r.body::name AS nbody,
    r.body::ask AS dbody, r.body::char(40) AS cbody,
    (ARRAY['cost', 'quality', NULL, 'balanced'])[1 + id % 4] AS target,
    (ARRAY['cost', 'latency', NULL])[1 + id % 3]::name AS ntarget,
    (ARRAY[0.001, 1, NULL, 'Infinity', 0])[1 + id % 5]::float8 AS cap,
    (ARRAY[0.5, 1, NULL])[1 + id % 3]::float4 AS cap4,
    (ARRAY[0.01, 5, NULL])[1 + id % 3]::numeric AS ncap,
    (ARRAY[100, 2000, NULL])[1 + id % 3]::float8 AS lat,
    (ARRAY[100, 2000, NULL, 70000])[1 + id % 4]::integer AS ilat,
    (ARRAY[0.1, 0.6, NULL])[1 + id % 3]::float8 AS floor,
    CASE id % 3 WHEN 0 THEN ARRAY['Coding'] WHEN 1 THEN '{{}}'::text[] END AS caps,
    CASE id % 2 WHEN 0 THEN ARRAY['translator'] END AS excluded,
    (ARRAY['east', 'west', NULL])[1 + id % 3] AS pool,
    CASE WHEN id % 5 > 0 THEN ruvector_embed((ARRAY[{TEXTS}])[id % 5]) END AS vec,
    CASE WHEN id % 7 > 0 THEN ARRAY[r.body, (ARRAY[{TEXTS}])[1 + id % 5], r.body, NULL] END AS texts
FROM generate_series(1, 12) id,
     LATERAL (SELECT (ARRAY[{TEXTS}, NULL])[1 + id % 6] AS body) r;
CREATE TABLE b AS SELECT * FROM a WHERE id > 4;
CREATE INDEX ON b (id);
CREATE TABLE c AS SELECT * FROM a WHERE id < 6;
CREATE TABLE parts (LIKE a) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (5);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (5) TO (13);
INSERT INTO parts SELECT * FROM a;
CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM a WHERE id <> 3;
CREATE TABLE secured AS SELECT * FROM a;
ALTER TABLE secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY most ON secured USING (id % 4 <> 1);
CREATE VIEW decided AS SELECT r.* FROM route_results r;
ANALYZE a, b, c, parts, secured;
"""


@dataclass
class Query:
    """One query in its two forms; ``parameters`` are (type, literal) of the foreign one's $1 ..."""

    foreign: str
    function: str
    parameters: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Source:
    """What one foreign table is asked."""

    values: dict[str, str]
    unlimited: list[str] = field(default_factory=list)  # inputs that are set by IS NULL
    requests: str = ""  # an array of requests, which takes the place of values["request"] ...
    clause: str = ""  # ... and the condition that names them
    filters: list[str] = field(default_factory=list)  # conditions that hold in both forms


def typed(name: str, value: str) -> str:
    """NULL needs a type."""
    return f"NULL::{COLUMNS[name]}" if value == "NULL" else value


class Generator:
    """Makes queries; one object for each."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.parameters: list[tuple[str, str]] = []
        self.prepares = rng.random() < 0.4

    # ------------------------------------------------------------ what is asked

    def value(self, name: str, tables: list[str]) -> str:
        """An expression for an input: a literal, a column, or something made of one."""
        rng = self.rng
        literals, columns = INPUTS[name]
        kind = rng.random()
        if literals and (kind < 0.25 or not tables):
            return "NULL" if rng.random() < 0.1 else rng.choice(literals)
        column = f"{rng.choice(tables)}.{rng.choice(columns)}"
        if kind > 0.85 and name == "request" and not column.endswith(("nbody", "cbody")):
            return rng.choice((f"({column} || '')", f"coalesce({column}, 'tell me a joke')"))
        if kind > 0.85 and name in ("max_cost", "budget_remaining"):
            return f"coalesce({column}, 'Infinity')"
        if kind > 0.7 and name in ("pool", "optimize_for"):
            return f"lower(upper({column}::text))"
        if kind > 0.95 and name == "max_latency_ms":
            table = column.partition(".")[0]
            return f"(SELECT max(q.lat) FROM b q WHERE q.id >= {table}.id)"
        return column

    def ask(self, tables: list[str]) -> Source:
        """Inputs from literals and from columns of these tables; always a request or a vector."""
        rng = self.rng
        names = [name for name in INPUTS if name not in ("request", "embedding")]
        source = Source({})
        first = "embedding" if tables and rng.random() < 0.08 else "request"
        others = rng.sample(names, k=rng.choice((0, 0, 1, 1, 2, 3, 4)))
        for name in [first, *others]:
            if name != first and rng.random() < 0.06:
                source.unlimited.append(name)
            else:
                source.values[name] = self.value(name, tables)
        if first == "request" and rng.random() < 0.15:
            self.list_requests(source, tables)
        elif rng.random() < 0.15:
            # The same equality twice, or a second one with another value.
            name = rng.choice(list(source.values))
            again = source.values[name] if rng.random() < 0.5 else self.value(name, tables)
            if name != "embedding":
                source.filters.append(f"{{alias}}.{name} = {typed(name, again)}")
        if rng.random() < 0.1:
            source.filters.append(rng.choice(OUTPUT_FILTERS))
        return source

    def list_requests(self, source: Source, tables: list[str]) -> None:
        """Ask for several requests: a list, an array of a column, or alternatives."""
        rng = self.rng
        del source.values["request"]
        kind = rng.random()
        if kind < 0.2 and tables:
            source.requests = f"{rng.choice(tables)}.texts"
            source.clause = f"{{alias}}.request = ANY ({source.requests})"
            return
        items = [typed("request", self.value("request", tables)) for _ in range(rng.randint(2, 4))]
        items = [item for item in items if not item.endswith(("nbody", "cbody"))] or ["'x'"]
        source.requests = f"ARRAY[{', '.join(items)}]::text[]"
        if kind < 0.45:
            source.clause = f"{{alias}}.request IN ({', '.join(items)})"
        elif kind < 0.6:
            source.clause = f"{{alias}}.request = ANY ({source.requests})"
        else:
            arms = [f"{{alias}}.request = {item}" for item in items]
            if rng.random() < 0.6:
                arms = [self.alternative(arm, tables) for arm in arms]
                source.filters.append(f"({' OR '.join(arms)})")
            source.clause = f"({' OR '.join(arms)})"

    def alternative(self, arm: str, tables: list[str]) -> str:
        """One alternative, perhaps with a further condition."""
        rng = self.rng
        conditions = [*OUTPUT_FILTERS, *(f"{table}.id > {rng.randint(1, 9)}" for table in tables)]
        if rng.random() < 0.5:
            return arm
        parts = [arm, rng.choice(conditions)]
        rng.shuffle(parts)
        return f"({' AND '.join(parts)})"

    # ------------------------------------------------------------ its two forms

    def foreign_value(self, name: str, value: str) -> str:
        """The value as the foreign query has it: a literal may become a parameter."""
        if self.prepares and value in (*INPUTS[name][0], "NULL") and self.rng.random() < 0.6:
            self.parameters.append((str(COLUMNS[name]), value))
            return f"${len(self.parameters)}"
        return typed(name, value)

    def conditions(self, source: Source, alias: str) -> str:
        """The equalities, in any order and either way round."""
        rng = self.rng
        pairs = [
            (f"{alias}.{name}", self.foreign_value(name, value))
            for name, value in source.values.items()
        ]
        rng.shuffle(pairs)
        clauses = []
        if len(pairs) > 1 and rng.random() < 0.1:
            columns, values = zip(*pairs, strict=True)
            clauses.append(f"({', '.join(columns)}) = ({', '.join(values)})")
        else:
            for pair in pairs:
                left, right = pair if rng.random() < 0.7 else pair[::-1]
                clauses.append(f"{left} = {right}")
        clauses += [f"{alias}.{name} IS NULL" for name in source.unlimited]
        clauses += [text.replace("{alias}", alias) for text in source.filters]
        if source.clause:
            clauses.append(source.clause.replace("{alias}", alias))
        rng.shuffle(clauses)
        return " AND ".join(clauses)

    def filters(self, source: Source, alias: str) -> str:
        """What the function's form still has to compare."""
        return " AND ".join(text.replace("{alias}", alias) for text in source.filters) or "true"

    def lateral(self, source: Source, alias: str) -> str:
        """The same decisions by the function, with no row where an input is NULL."""
        values = {name: f"({text})::{COLUMNS[name]}" for name, text in source.values.items()}
        requests = ""
        if source.requests:
            values["request"] = "q.t"
            requests = f"(SELECT DISTINCT unnest({source.requests})) q (t), "
        arguments = ", ".join(f"{name} := {value}" for name, value in values.items())
        if "request" not in values:
            arguments = f"NULL, {arguments}"
        known = " AND ".join(f"{value} IS NOT NULL" for value in values.values())
        echo = {"optimize_for": "'balanced'::text"}
        echo |= dict.fromkeys(source.unlimited, "")
        columns = ", ".join(
            f"f.{name}"
            if kind is None
            else f"{values.get(name, echo.get(name) or f'NULL::{kind}')} AS {name}"
            for name, kind in COLUMNS.items()
        )
        return (
            f"LATERAL (SELECT {columns} FROM {requests}ruvector_route({arguments}) f "
            f"WHERE {known}) {alias}"
        )

    def query(self, shape: str, *sources: Source, table: str = "route_results") -> Query:
        """Both forms of a shape with the places {r}, {on} and, for a second table, {s}, {s_on}."""
        foreign: dict[str, str] = {}
        function: dict[str, str] = {}
        for alias, source in zip("rs", sources, strict=False):
            on = "on" if alias == "r" else "s_on"
            foreign |= {alias: f"{table} {alias}", on: self.conditions(source, alias)}
            function |= {alias: self.lateral(source, alias), on: self.filters(source, alias)}
        return Query(shape.format(**foreign), shape.format(**function), self.parameters)


OUTPUT_FILTERS = (
    "{alias}.agent_name <> 'coder'",
    "{alias}.similarity > 0.2",
    "{alias}.reasoning LIKE '%best%'",
    "{alias}.agent_name IN ('sums', 'translator')",
    "length({alias}.request) > 20",
)
