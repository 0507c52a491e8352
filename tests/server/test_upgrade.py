"""ALTER EXTENSION UPDATE: an upgraded installation equals a fresh one, and keeps what was in it.

In: an older version, made from the present script by taking things out of it, and the upgrade
script that puts them back; both lie beside the present script in the cluster's stage for one test.
Out: catalogs that are compared object by object.  A released version is tested by the same
comparison: put its script and the upgrade script where ``older`` puts them, and call ``compare``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import catalog
import psycopg
import pytest

OLD = "0.0.9"
# What the older version lacks: statements that mention one of these names ...
NEW_NAMES = (
    r"ruvector_list_agents",
    r"tinydancer\.(access_rules|grantee|grant_usage|revoke_usage)\b",
    r"TRIGGER touch BEFORE UPDATE ON tinydancer\.route\b",
    r"COLUMN tinydancer\.agent\.pool\b",
)
# ... and parts of CREATE TABLE tinydancer.agent, with the statement that adds each later.
NEW_PARTS = {
    r"\n    p99_latency_ms float8(.*?\)),(?=\n    \w)": (
        "ALTER TABLE tinydancer.agent ADD COLUMN p99_latency_ms float8{};"
    ),
    r" (CONSTRAINT agent_pool_check CHECK \(btrim\(pool\) <> ''\))": (
        "ALTER TABLE tinydancer.agent ADD {};"
    ),
}


def statements(script: str) -> list[str]:
    """The statements of a script, each with the comments before it."""
    token = re.compile(r"\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'|--[^\n]*|(;)", re.DOTALL)
    found, begin = [], 0
    for match in token.finditer(script):
        if match[2]:
            found.append(script[begin : match.end()].strip() + "\n")
            begin = match.end()
    rest = re.sub(r"--[^\n]*", "", script[begin:]).strip()
    assert not rest, rest
    return found


def code(statement: str) -> str:
    """A statement's first line of code: what it makes, not what it uses."""
    lines = [line for line in statement.splitlines() if line and not line.startswith(("--", "\\"))]
    return lines[0]


def take_apart(script: str) -> tuple[str, str]:
    """The script of the older version, and the one that upgrades from it."""
    old, upgrade = ["SET LOCAL check_function_bodies = off;\n"], []
    for pattern, add in NEW_PARTS.items():
        found = re.search(pattern, script, re.DOTALL)
        assert found, f"the script has no {pattern}"
        script = script.replace(found[0], "")
        upgrade.append(add.format(found[1]))
    for statement in statements(script):
        new = any(re.search(name, code(statement)) for name in NEW_NAMES)
        (upgrade if new else old).append(statement)
    for name in NEW_NAMES:
        assert any(re.search(name, code(statement)) for statement in upgrade[2:]), name
    return "\n".join(old), "\n".join(upgrade)


@pytest.fixture
def older(cluster: Any) -> Iterator[str]:
    """The number of an older version that can be installed and updated from."""
    controls = sorted(cluster.home.glob("stage/**/extension/tinydancer.control"))
    if not controls:
        pytest.skip("the module is installed in the server itself, whose folder is not ours")
    folder: Path = controls[0].parent
    version = re.search(r"default_version = '([^']+)'", controls[0].read_text())
    assert version
    old, upgrade = take_apart((folder / f"tinydancer--{version[1]}.sql").read_text())
    made = {
        folder / f"tinydancer--{OLD}.sql": old,
        folder / f"tinydancer--{OLD}--{version[1]}.sql": upgrade,
    }
    try:
        for path, text in made.items():
            path.write_text(text)
            path.chmod(0o644)
        yield OLD
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def compare(found: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Fail with the rows that one snapshot has and the other lacks."""
    assert found.keys() == fresh.keys()
    for kind, expected in fresh.items():
        missing = [row for row in expected if row not in found[kind]]
        added = [row for row in found[kind] if row not in expected]
        assert not missing and not added, f"{kind}: missing {missing}, added {added}"


def test_upgraded_installation_equals_a_fresh_one_and_keeps_its_rows(
    conn: Any, empty_db: Any, older: str
) -> None:
    fresh = catalog.snapshot(conn)
    with empty_db.connect() as old, empty_db.connect() as other:
        old.execute(f"CREATE EXTENSION tinydancer VERSION '{older}'")
        with pytest.raises(psycopg.errors.UndefinedFunction):
            old.execute("SELECT * FROM ruvector_list_agents()")
        lacking = catalog.snapshot(old)
        assert {kind for kind in fresh if lacking[kind] != fresh[kind]} >= {
            *("objects", "functions", "privileges", "comments"),
            *("columns", "constraints", "triggers"),
        }
        old.execute(
            "INSERT INTO tinydancer.agent (name, type, description, pool) "
            "VALUES ('a', 'llm', 'translates letters', 'p'), ('b', 'api', 'debugs programs', NULL)"
        )
        old.execute("INSERT INTO tinydancer.policy (name, cost_weight) VALUES ('mine', 1)")
        old.execute("UPDATE tinydancer.policy SET cost_weight = 0.9 WHERE name = 'balanced'")
        old.execute("INSERT INTO tinydancer.decision (agent_name, request) VALUES ('a', 'x')")
        old.execute("INSERT INTO tinydancer.usage (agent_name, cost_usd) VALUES ('a', 0.25)")
        tables = [table for table in catalog.tables(old) if table != "tinydancer.agent"]
        rows = catalog.rows(old, [*tables, *catalog.partitions(old)])
        agents = "SELECT to_jsonb(a) - 'p99_latency_ms' FROM tinydancer.agent a ORDER BY name"
        registered = old.execute(agents).fetchall()
        route = "SELECT * FROM ruvector_explain_route('translate my letter')"
        decided = other.execute(route).fetchall()
        assert len(decided) == 2

        old.execute("ALTER EXTENSION tinydancer UPDATE")
        compare(catalog.snapshot(old), fresh)
        assert catalog.rows(old, list(rows)) == rows
        assert old.execute(agents).fetchall() == registered
        # In a session that had the old registry in its cache, and in a new one.
        assert other.execute(route).fetchall() == decided
        with empty_db.connect() as new:
            assert new.execute(route).fetchall() == decided
            new.execute("SELECT ruvector_register_agent('c', 'api', p99_latency_ms := 9)")
            assert [row[0] for row in new.execute("SELECT name FROM ruvector_list_agents()")] == [
                *"abc"
            ]


def test_role_gets_what_the_upgrade_added_by_the_next_grant(
    conn: Any, empty_db: Any, older: str
) -> None:
    conn.execute("CREATE ROLE td_upgraded")
    try:
        with empty_db.connect() as old:
            old.execute(f"CREATE EXTENSION tinydancer VERSION '{older}'")
            old.execute("GRANT SELECT ON tinydancer.agent TO td_upgraded")
            old.execute("ALTER EXTENSION tinydancer UPDATE")
            may = "SELECT has_table_privilege('td_upgraded', 'tinydancer.agent', %s)"
            assert old.execute(may, ("SELECT",)).fetchone() == (True,)
            old.execute("SELECT tinydancer.grant_usage('td_upgraded', 'operator')")
            assert old.execute(may, ("INSERT",)).fetchone() == (True,)
            old.execute("SET ROLE td_upgraded")
            old.execute("SELECT ruvector_register_agent('c', 'api')")
            old.execute("SELECT * FROM ruvector_list_agents()")
            old.execute("RESET ROLE")
            old.execute("DROP OWNED BY td_upgraded")
    finally:
        conn.execute("DROP ROLE td_upgraded")


@pytest.mark.parametrize(
    "kind, change",
    [
        ("objects", "ALTER EXTENSION tinydancer DROP FUNCTION ruvector_list_agents()"),
        ("functions", "ALTER FUNCTION ruvector_embed(text) COST 201"),
        ("functions", "ALTER FUNCTION tinydancer.touch() RESET search_path"),
        ("privileges", "GRANT EXECUTE ON FUNCTION ruvector_remove_agent TO PUBLIC"),
        ("privileges", "REVOKE ALL ON FUNCTION ruvector_route FROM PUBLIC"),
        ("privileges", "GRANT SELECT ON tinydancer.agent TO PUBLIC"),
        ("comments", "COMMENT ON COLUMN tinydancer.agent.pool IS NULL"),
        ("comments", "COMMENT ON FUNCTION ruvector_route IS 'x'"),
        ("columns", "ALTER TABLE tinydancer.agent ALTER quality_score SET DEFAULT 0.6"),
        ("columns", "ALTER TABLE tinydancer.usage ALTER agent_name DROP NOT NULL"),
        ("constraints", "ALTER TABLE tinydancer.agent DROP CONSTRAINT agent_pool_check"),
        ("indexes", "CREATE INDEX ON tinydancer.usage (agent_name)"),
        ("triggers", "ALTER TABLE tinydancer.route ENABLE TRIGGER bump_epoch"),
        ("relations", "ALTER TABLE tinydancer.agent SET (fillfactor = 50)"),
        ("dumped", "UPDATE pg_extension SET extcondition[1] = 'x' WHERE extname = 'tinydancer'"),
        (
            "built in",
            "INSERT INTO tinydancer.policy (name, cost_weight, builtin) VALUES ('x', 1, true)",
        ),
    ],
)
def test_comparison_of_catalogs_sees_what_an_upgrade_forgot(
    conn: Any, kind: str, change: str
) -> None:
    before = catalog.snapshot(conn)
    compare(before, before)
    conn.execute(change)
    with pytest.raises(AssertionError, match=f"^{kind}: "):
        compare(catalog.snapshot(conn), before)
