"""A dump and a restore keep registry, settings, logs and privileges, row for row.

In: the samples' registry, a row in every table of the extension and a partition of every log, made
at run time.  Out: the same rows, the same catalog and the same decisions in a new database.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import catalog
import pytest
import samples

REQUESTS = (
    "Translate this sentence into French",
    "Write a Python function that parses a date",
    "Will it rain tomorrow in Oslo?",
)


def fill(conn: Any) -> None:
    """A row in every table, an edited built-in, and a month of each log in a partition."""
    for table in catalog.tables(conn):
        if catalog.columns(conn, table):
            assert table in samples.ROWS, samples.missing(table, "ROWS")
            conn.execute(samples.insert(table, samples.ROWS[table]))
    conn.execute("UPDATE tinydancer.policy SET cost_weight = 0.9 WHERE name = 'balanced'")
    for table, key in partitioned(conn):
        conn.execute(
            f"CREATE TABLE {table}_203103 (LIKE {table}_default INCLUDING DEFAULTS "
            "INCLUDING CONSTRAINTS INCLUDING INDEXES)"
        )
        conn.execute(
            f"ALTER TABLE {table} ATTACH PARTITION {table}_203103 "
            "FOR VALUES FROM ('2031-03-01') TO ('2031-04-01')"
        )
        for day in ("'2031-03-15'", "'2031-05-15'", "'2016-01-01'"):
            conn.execute(samples.insert(table, {**samples.ROWS[table], key: day}))
        found = conn.execute(f"SELECT count(*) FROM {table}_203103").fetchone()
        assert found == (1,), table


def partitioned(conn: Any) -> list[tuple[str, str]]:
    """The partitioned tables of the extension, each with its key."""
    found = [
        (table, conn.execute("SELECT pg_get_partkeydef(%s::regclass)", (table,)).fetchone()[0])
        for table in catalog.tables(conn)
    ]
    return [(table, key.split("(")[1].rstrip(")")) for table, key in found if key]


def contents(conn: Any) -> dict[str, list[str]]:
    """The rows of all tables but those that are worked out from others."""
    tables = [table for table in catalog.tables(conn) if table not in samples.DERIVED]
    rows = catalog.rows(conn, [*tables, *catalog.partitions(conn)])
    # What ships comes back with CREATE EXTENSION, at the time of that.
    rows["tinydancer.model"] = conn.execute(
        "SELECT m::text FROM tinydancer.model m WHERE NOT m.builtin ORDER BY 1"
    ).fetchall()
    return rows


def sequences(conn: Any) -> list[Any]:
    return conn.execute(
        "SELECT sequencename, last_value FROM pg_sequences "
        "WHERE schemaname = 'tinydancer' ORDER BY 1"
    ).fetchall()


@contextmanager
def restored(conn: Any, db: Any, *options: str) -> Iterator[Any]:
    """A connection to a new database that holds a dump of ``db``."""
    copy = f"{db.name}_copy"
    dump = db.cluster.run("pg_dump", *options, dbname=db.name, stdout=subprocess.PIPE)
    assert dump.returncode == 0
    conn.execute(f"CREATE DATABASE {copy}")
    try:
        done = db.cluster.run(
            *("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"),
            dbname=copy,
            input=dump.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        with db.cluster.connect(copy, autocommit=True) as restored:
            yield restored
    finally:
        conn.execute(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)")


def decisions(conn: Any) -> list[Any]:
    return conn.execute(
        "SELECT q, r.* FROM unnest(%s::text[]) q, LATERAL ruvector_explain_route(q) r "
        "ORDER BY q, r.agent_name",
        (list(REQUESTS),),
    ).fetchall()


@pytest.mark.parametrize("options", [(), ("--no-owner",), ("--inserts",)], ids=" ".join)
def test_dump_and_restore_keep_every_row_and_every_decision(
    sampled: Any, db: Any, options: tuple[str, ...]
) -> None:
    fill(sampled)
    before, decided, counted = contents(sampled), decisions(sampled), sequences(sampled)
    for table, rows in before.items():
        # Tables without columns are there to be listened to.
        assert bool(rows) == bool(catalog.columns(sampled, table)), table
    assert len(catalog.partitions(sampled)) >= 4
    assert counted

    with restored(sampled, db, *options) as conn:
        assert contents(conn) == before
        assert decisions(conn) == decided
        # The levels of access of td_viewer and the others too.
        assert catalog.snapshot(conn) == catalog.snapshot(sampled)
        # Identities go on where they were, and the logs take rows.
        assert sequences(conn) == counted
        for table, _ in partitioned(conn):
            conn.execute(samples.insert(table, samples.ROWS[table]))
            assert len(catalog.rows(conn, [table])[table]) == len(before[table]) + 1
        # A registration after the restore works on the restored rows.
        conn.execute("SELECT ruvector_register_agent('late', 'api', description := 'translate')")


def test_partitioned_tables_leave_keys_and_indexes_to_their_partitions(conn: Any) -> None:
    # A dump adds those of a partition after attaching it to the parent that CREATE EXTENSION made;
    # with the parent's there already, the restore fails.
    for table, _ in partitioned(conn):
        found = conn.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass",
            (table,),
        ).fetchall()
        assert not found, f"{table}: put {found} on {table}_default"
        (indexes,) = conn.execute(
            "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", (f"{table}_default",)
        ).fetchone()
        assert indexes >= 1, table


def test_dump_carries_no_builtin_row(sampled: Any, db: Any) -> None:
    dump = db.cluster.run("pg_dump", "--data-only", dbname=db.name, stdout=subprocess.PIPE).stdout
    for table in catalog.tables(sampled):
        if "builtin" in dict(catalog.columns(sampled, table)):
            block = dump.split(f"COPY {table} ")[1].split("\n\\.")[0]
            place = block.splitlines()[0].split("(")[1].split(")")[0].split(", ").index("builtin")
            assert all(row.split("\t")[place] == "f" for row in block.splitlines()[1:]), table


OWN_TABLES = """
CREATE SCHEMA td;
IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer INTO td
    OPTIONS (max_cost '0.01', excluded_agents '{"a, b",it''s}', top_k '2', user_tier 'it''s gold');
CREATE FOREIGN TABLE plain (request text, agent_name text) SERVER tinydancer OPTIONS (pool 'cheap');
CREATE FOREIGN TABLE best (request text, rank integer, route_name text, top_k integer)
    SERVER tinydancer OPTIONS (table 'semantic_matches', top_k '1');
CREATE VIEW seen AS SELECT c.agent_name, m.route_name FROM td.route_candidates c
    JOIN td.semantic_matches m ON m.request = c.request
    WHERE c.request = 'my program crashes' AND c.rank = 1;
GRANT SELECT ON td.semantic_matches, seen TO td_viewer;
"""


def own_tables(conn: Any) -> list[Any]:
    """Foreign tables of the user's own: columns, options, privileges, and what they answer."""
    return [
        conn.execute(sql).fetchall()
        for sql in (
            # pg_dump sorts options by their names.
            "SELECT f.ftrelid::regclass::text, "
            "ARRAY(SELECT unnest(f.ftoptions) ORDER BY 1), c.relacl::text, "
            "array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) "
            "FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid "
            "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
            "WHERE c.oid <> 'route_results'::regclass "
            "GROUP BY 1, 2, 3 ORDER BY 1",
            "SELECT * FROM td.route_candidates WHERE request = 'my program crashes'",
            "SELECT * FROM td.semantic_matches WHERE request = 'my program crashes'",
            "SELECT * FROM plain WHERE request = 'my program crashes'",
            "SELECT * FROM best WHERE request = 'my program crashes'",
            "SELECT * FROM seen",
        )
    ]


def test_foreign_tables_of_ones_own_are_dumped_with_their_options(sampled: Any, db: Any) -> None:
    sampled.execute(OWN_TABLES)
    before = own_tables(sampled)
    assert all(before)
    with restored(sampled, db) as conn:
        assert own_tables(conn) == before
        conn.execute("DROP SCHEMA td CASCADE")
        conn.execute("DROP EXTENSION tinydancer CASCADE")
        assert conn.execute("SELECT count(*) FROM pg_foreign_table").fetchone() == (0,)
