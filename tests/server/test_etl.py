"""``tinydancer etl`` against a server: the answers of SQL, and runs that are cut at bad moments.

In: a registry and a log in a database.  What is checked: files and tables hold what route_results
and ruvector_semantic_route() answer, to the bit; whatever ends a run, no row is lost or there twice
after the next one, and no half output has the final name.
"""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import model_specs
import numpy as np
import psycopg
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from test_same_bits import texts

from tinydancer import cli
from tinydancer.encoder import Encoder
from tinydancer.model_file import write_model
from tinydancer.registry import read_router

ETL = [sys.executable, "-m", "tinydancer", "etl"]
OUTPUTS = (
    "agent_name, confidence, estimated_cost, estimated_latency_ms, expected_quality, similarity"
)
ROWS = 20_000
# Rows of the log are read in a batch of 256 and then of 8,192; the fourth one waits here.
GATE = 18_000
PART = 4096
KEPT = 256 + 16_384


def etl(db: Any, command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in this process: starting one takes longer than most runs."""
    full = ["etl", command, "--dsn", db.conninfo, *map(str, arguments)]
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = cli.main(full)
    return subprocess.CompletedProcess(full, code, out.getvalue(), errors.getvalue())


def fails(done: subprocess.CompletedProcess[str], *sentences: str) -> None:
    """The run failed with these words, and no traceback."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for sentence in sentences:
        assert sentence in done.stderr, done.stderr


def works(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def log(registry: Any) -> Any:
    """``registry``, with a log of requests whose NULL and blank ones have no decision."""
    registry.execute(
        "CREATE TABLE log (id bigint PRIMARY KEY, body text, budget float8, goal text)"
    )
    chosen = [text for text, _ in zip(texts(), range(1000), strict=False)]
    goals = ("balanced", "cost", "latency", "quality", None)
    rows = [
        (3 * i, text, None if i % 3 else 0.0005 * (i % 11), goals[i % 5])
        for i, text in enumerate(chosen)
    ]
    rows += [
        (5000, None, None, None),
        (5003, " \n\t ", None, None),
        (5006, "y" * 1_000_000, None, None),
    ]
    with registry.cursor() as cursor:
        cursor.executemany("INSERT INTO log VALUES (%s, %s, %s, %s)", rows)
    return registry


@pytest.fixture
def gated(registry: Any, db: Any) -> Any:
    """``registry``, with 20,000 requests of which one can be held back: ``gate(id)``."""
    registry.execute("CREATE TABLE many (id bigint PRIMARY KEY, body text NOT NULL)")
    registry.execute(
        "INSERT INTO many SELECT i, 'translate text number ' || i %% 700 || ' into French' "
        "FROM generate_series(1, %s) i",
        (ROWS,),
    )
    registry.execute(
        "CREATE FUNCTION gate(id bigint) RETURNS boolean LANGUAGE plpgsql AS $$ "
        f"BEGIN IF id = {GATE} THEN PERFORM pg_advisory_xact_lock_shared(7); END IF; "
        "RETURN true; END $$"
    )
    # In the order of the index, row by row.
    for name in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        registry.execute(f"ALTER DATABASE {db.name} SET {name} = off")
    registry.execute("VACUUM ANALYZE many")
    return registry


QUERY = "SELECT id, body FROM many WHERE gate(id)"


@contextmanager
def held(db: Any, out: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has kept four parts and waits for the row behind the gate."""
    with db.connect() as keeper:
        keeper.execute("SELECT pg_advisory_lock(7)")
        command = [*ETL, "route", "--dsn", db.conninfo, "--query", QUERY, "--out", str(out)]
        process = subprocess.Popen(
            [*command, "--part-rows", str(PART)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for _ in range(600):
                waiting = keeper.execute(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                ).fetchone()[0]
                if waiting:
                    break
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.1)
            assert waiting, "the run did not come to the gate"
            yield process
        finally:
            process.kill()
            process.communicate()
            # The server notices only when it has something to send.
            keeper.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND wait_event_type = 'Lock'"
            )


def check_parts(out: Path) -> None:
    """The final name is not there; four parts are, and hold the first rows."""
    assert not out.exists()
    parts = sorted(out.with_name(out.name + ".parts").glob("part-*.parquet"))
    assert len(parts) == 4
    keys = [key for part in parts for key in pq.read_table(part)["id"].to_pylist()]
    assert keys == list(range(1, KEPT + 1))


def check_whole(out: Path) -> None:
    """Every request is there once, in order, and the parts are gone."""
    table = pq.read_table(out)
    assert table["id"].to_pylist() == list(range(1, ROWS + 1))
    assert table["agent_name"].null_count == 0
    assert not out.with_name(out.name + ".parts").exists()


def activate_quality(conn: Any, seed: int) -> int:
    """The version of a quality model of random weights, which knows all agents but one."""
    names = [name for (name,) in conn.execute("SELECT name FROM tinydancer.agent ORDER BY name")]
    encoder = Encoder.load("static")
    identity = encoder.id, int(encoder.checksum, 16)
    spec = model_specs.random_model(
        seed, ("linear8", "cell8", "knn", "words"), n_out=len(names) - 1, encoder=identity
    )
    members = [dataclasses.replace(m, weight=np.full(len(names) - 1, 0.25)) for m in spec.members]
    spec = dataclasses.replace(spec, names=names[1:], members=members)
    row = conn.execute(
        "SELECT tinydancer.add_model('quality', %s)", (write_model(spec),)
    ).fetchone()
    conn.execute("SELECT tinydancer.activate_model('quality', %s, true)", row)
    return int(row[0])


def resume(db: Any, out: str | Path, *more: str) -> subprocess.CompletedProcess[str]:
    return etl(db, "route", "--query", QUERY, "--out", out, "--part-rows", str(PART), *more)


# ---------------------------------------------------------------- the same answers as SQL


def test_parquet_has_the_answers_of_sql_to_the_bit(log: Any, db: Any, tmp_path: Path) -> None:
    out = tmp_path / "decisions.parquet"
    query = "SELECT id, body AS request, budget AS max_cost, goal AS optimize_for FROM log"
    done = etl(db, "route", "--query", query, "--out", out, "--reasoning", "--json")
    facts = json.loads(works(done).stdout)
    wanted = log.execute(
        f"SELECT l.id, {OUTPUTS}, r.reasoning FROM log l LEFT JOIN LATERAL "
        "ruvector_route(l.body, l.goal, max_cost := l.budget) r ON true "
        "WHERE l.body !~ '^\\s*$' ORDER BY l.id"
    ).fetchall()
    table = pq.read_table(out)
    found = {row["id"]: tuple(row.values()) for row in table.to_pylist()}
    assert len(wanted) == 1001
    for row in wanted:
        assert found[row[0]][:-1] == row
    assert found[5000][1:] == (*[None] * 7, "no request")
    assert found[5003][1:] == (*[None] * 7, "blank request")
    assert table["id"].to_pylist() == sorted(found)
    nobody = sum(1 for row in wanted if row[1] is None)
    assert nobody > 0
    assert facts["rows"] == 1003
    assert facts["problems"] == {
        "no request": 1,
        "blank request": 1,
        "no eligible agent": nobody,
    }


def test_route_results_joined_has_the_same_rows(log: Any, db: Any, tmp_path: Path) -> None:
    out = tmp_path / "decisions.csv"
    works(
        etl(
            db, "route", "--query", "SELECT id, body FROM log WHERE id < 3000", "--out", out,
            "--optimize-for", "quality", "--require", "code-generation",
            "--exclude", "no such agent", "--max-latency-ms", "5000",
        )
    )  # fmt: skip
    wanted = log.execute(
        f"SELECT l.id, {OUTPUTS} FROM log l JOIN route_results r ON r.request = l.body "
        "AND r.optimize_for = 'quality' AND r.required_capabilities = '{Code-Generation}' "
        "AND r.max_latency_ms = 5000 WHERE l.id < 3000 ORDER BY l.id"
    ).fetchall()
    table = pyarrow.csv.read_csv(out)
    assert len(wanted) == 1000
    assert [tuple(row.values())[:-1] for row in table.to_pylist()] == wanted


def test_embeddings_of_a_column_decide_as_in_sql(log: Any, db: Any, tmp_path: Path) -> None:
    out = tmp_path / "decisions.parquet"
    log.execute(
        "CREATE TABLE vectors AS SELECT id, ruvector_embed(body) AS e FROM log WHERE id < 900"
    )
    log.execute("INSERT INTO vectors VALUES (900, NULL)")
    works(etl(db, "route", "--query", "SELECT id, e AS embedding FROM vectors", "--out", out))
    wanted = log.execute(
        f"SELECT v.id, {OUTPUTS} FROM vectors v LEFT JOIN LATERAL "
        "ruvector_route(NULL, embedding := v.e) r ON true ORDER BY v.id"
    ).fetchall()
    assert [tuple(row.values())[:-1] for row in pq.read_table(out).to_pylist()] == wanted
    assert wanted[-1] == (900, None, None, None, None, None, None)


def test_policies_settings_and_stored_vectors_of_the_database_count(
    log: Any, db: Any, tmp_path: Path
) -> None:
    out = tmp_path / "decisions.parquet"
    log.execute(f"ALTER DATABASE {db.name} SET tinydancer.cost_scale = 0.02")
    log.execute("INSERT INTO tinydancer.policy (name, fit_weight) VALUES ('fit', 1)")
    log.execute(
        "SELECT ruvector_register_agent('own', 'llm', ARRAY['code'], 0.1, NULL, 5, 0.9, "
        "embedding := ruvector_embed('poems about the sea'))"
    )
    with db.connect() as conn:
        query = "SELECT id, body, goal AS optimize_for FROM log WHERE id < 600"
        log.execute("UPDATE log SET goal = 'fit' WHERE goal IS NULL")
        works(etl(db, "route", "--query", query, "--out", out, "--reasoning"))
        wanted = conn.execute(
            f"SELECT l.id, {OUTPUTS}, reasoning FROM log l JOIN route_results r "
            "ON r.request = l.body AND r.optimize_for = l.goal WHERE l.id < 600 ORDER BY l.id"
        ).fetchall()
    assert [tuple(row.values())[:-1] for row in pq.read_table(out).to_pylist()] == wanted


def test_registry_that_is_read_decides_as_ruvector_route(registry: Any) -> None:
    router = read_router(registry)
    for text in ("translate this", "fix the bug in my code", "東京の天気"):
        row = registry.execute("SELECT * FROM ruvector_route(%s)", (text,)).fetchone()
        decision = router.route(text)
        assert decision is not None
        assert row[:2] == (decision.agent_name, decision.confidence)
        assert row[-1] == decision.reasoning


def test_active_quality_model_decides_as_route_results(log: Any, db: Any, tmp_path: Path) -> None:
    log.execute("ALTER TABLE log ADD e real[]")
    log.execute("UPDATE log SET e = ruvector_embed('words of ' || id) WHERE id % 2 = 0")
    found = {}
    for what in ("registered", "predicted"):
        if what == "predicted":
            activate_quality(log, 3)
        for columns, on in (("", ""), (", e AS embedding", " AND r.embedding = l.e")):
            out = tmp_path / f"{what}{len(columns)}.parquet"
            rows = "id < 3000 AND id % 2 = 0"
            query = f"SELECT id, body{columns} FROM log WHERE {rows}"
            arguments = ("--optimize-for", "quality", "--reasoning")
            works(etl(db, "route", "--query", query, "--out", out, *arguments))
            wanted = log.execute(
                f"SELECT l.id, {OUTPUTS}, reasoning FROM log l JOIN route_results r "
                f"ON r.request = l.body AND r.optimize_for = 'quality'{on} "
                f"WHERE {rows} ORDER BY l.id"
            ).fetchall()
            assert len(wanted) == 500
            found[what, columns] = [tuple(r.values())[:-1] for r in pq.read_table(out).to_pylist()]
            assert found[what, columns] == wanted
            if what == "predicted":
                assert wanted != found["registered", columns]
                assert any("predicted quality" in row[-1] for row in wanted)


def test_external_vectors_route_and_texts_are_refused(conn: Any, db: Any, tmp_path: Path) -> None:
    conn.execute("CALL tinydancer.use_encoder('external', 3)")
    for name, vector in (("a", [1, 0, 0]), ("b", [0, 1, 0])):
        conn.execute(
            "SELECT ruvector_register_agent(%s, 'llm', ARRAY['x'], 0.1, NULL, 5, 0.9, "
            "embedding := %s::real[])",
            (name, vector),
        )
    query = (
        "SELECT i AS id, ARRAY[i, 2, 0]::real[] AS embedding, 'some words' AS request "
        "FROM generate_series(1, 3) i"
    )
    out = tmp_path / "decisions.parquet"
    works(etl(db, "route", "--query", query, "--out", out))
    wanted = conn.execute(
        f"SELECT q.id, {OUTPUTS} FROM ({query}) q, "
        "LATERAL ruvector_route(q.request, embedding := q.embedding) r ORDER BY 1"
    ).fetchall()
    assert [tuple(row.values())[:-1] for row in pq.read_table(out).to_pylist()] == wanted
    done = etl(db, "route", "--query", "SELECT 1 AS id, 'x' AS r", "--out", tmp_path / "x.csv")
    fails(done, 'encoder "external" does not embed text')


def test_matches_are_those_of_semantic_route(log: Any, db: Any, tmp_path: Path) -> None:
    bodies = log.execute("SELECT body FROM log WHERE id < 750 ORDER BY id").fetchall()
    for i in range(10):
        log.execute(
            "SELECT ruvector_create_route(%s, target_agent := %s, utterances := %s, "
            "negatives := %s, threshold := %s, priority := %s::int)",
            (
                f"route {i}",
                f"agent {i}",
                [b for (b,) in bodies[i:200:10]],
                [bodies[200 + i][0]],
                0.2 if i % 2 else None,
                i % 3,
            ),
        )
    out = tmp_path / "matches.parquet"
    for scorer in ("nearest", "centroid", "ridge"):
        log.execute("SELECT ruvector_tune_routes(force_scorer := %s)", (scorer,))
        query = "SELECT id, body FROM log WHERE id < 3000"
        works(etl(db, "match", "--query", query, "--out", out, "--top-k", "2"))
        wanted = log.execute(
            "SELECT l.id, s.* FROM log l, LATERAL ruvector_semantic_route(l.body, 2) s "
            "WHERE l.id < 3000 ORDER BY l.id"
        ).fetchall()
        table = pq.read_table(
            out, columns=["id", "route_name", "similarity", "target_agent", "confidence"]
        )
        found = [tuple(row.values()) for row in table.to_pylist()]
        assert [row for row in found if row[1] is not None] == wanted, scorer
        assert {row[0] for row in found} == set(range(0, 3000, 3))
        out.unlink()


# ---------------------------------------------------------------- runs that are cut


@pytest.mark.parametrize("how", ["ctrl-c", "kill", "cut connection"])
def test_cut_run_keeps_its_parts_and_is_continued(
    gated: Any, db: Any, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "decisions.parquet"
    with held(db, out) as process:
        if how == "ctrl-c":
            process.send_signal(signal.SIGINT)
        elif how == "kill":
            process.kill()
        else:
            gated.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks "
                "WHERE locktype = 'advisory' AND NOT granted"
            )
        _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    if how == "ctrl-c":
        assert process.returncode == 130
        assert "the same command continues it" in said
    elif how == "cut connection":
        assert process.returncode == 1
        assert "terminating connection due to administrator command" in said
    check_parts(out)
    done = resume(db, out, "--json")
    facts = json.loads(works(done).stdout)
    assert (facts["rows"], facts["earlier"]) == (ROWS, KEPT)
    check_whole(out)


def test_cut_run_into_a_table_is_continued_exactly_once(gated: Any, db: Any) -> None:
    with held(db, "table:public.decisions") as process:
        process.kill()
    assert gated.execute("SELECT to_regclass('decisions')").fetchone() == (None,)
    count, last = gated.execute("SELECT count(*), max(id) FROM decisions_partial").fetchone()
    state = gated.execute("SELECT state FROM decisions_progress").fetchone()[0]
    assert (count, last) == (KEPT, KEPT) == (state["rows"], state["last_key"])
    works(resume(db, "table:public.decisions"))
    assert gated.execute(
        "SELECT count(*), count(DISTINCT id), min(id), max(id), count(agent_name) FROM decisions"
    ).fetchone() == (ROWS, ROWS, 1, ROWS, ROWS)
    assert gated.execute("SELECT to_regclass('decisions_progress')").fetchone() == (None,)


def test_table_has_the_answers_of_sql_to_the_bit(log: Any, db: Any) -> None:
    query = "SELECT id, body FROM log WHERE id < 3000"
    works(etl(db, "route", "--query", query, "--out", "table:decisions", "--reasoning"))
    wanted = log.execute(
        f"SELECT l.id, {OUTPUTS}, r.reasoning FROM log l "
        "JOIN route_results r ON r.request = l.body WHERE l.id < 3000 ORDER BY l.id"
    ).fetchall()
    found = log.execute(f"SELECT id, {OUTPUTS}, reasoning FROM decisions ORDER BY id").fetchall()
    assert found == wanted
    done = etl(db, "route", "--query", query, "--out", "table:decisions")
    fails(done, 'output "decisions" exists already', "Drop it")


def test_table_of_another_is_not_taken_for_a_cut_run(log: Any, db: Any) -> None:
    log.execute("CREATE TABLE decisions_partial (x int)")
    done = etl(db, "route", "--query", "SELECT id, body FROM log", "--out", "table:decisions")
    fails(done, 'table "decisions_partial" exists already')
    done = etl(db, "route", "--query", "SELECT id, body FROM log", "--out", "table:a.b.c")
    fails(done, '"a.b.c" names no table')


def test_second_run_of_one_output_is_refused(gated: Any, db: Any, tmp_path: Path) -> None:
    for out in (tmp_path / "decisions.parquet", "table:decisions"):
        with held(db, out) as process:
            fails(resume(db, out), f'another run writes "{str(out).removeprefix("table:")}"')
            process.kill()


def test_changed_registry_is_refused_unless_it_is_wanted(
    gated: Any, db: Any, tmp_path: Path
) -> None:
    out = tmp_path / "decisions.parquet"
    with held(db, out) as process:
        process.kill()
        process.wait()
    # What no decision depends on changes nothing.
    gated.execute("UPDATE tinydancer.agent SET total_requests = 5, metadata = '{\"a\": 1}'")
    gated.execute(
        "UPDATE tinydancer.agent SET quality_score = quality_score * 0.9 WHERE type = 'llm'"
    )
    fails(
        resume(db, out),
        "the registry has changed",
        "--restart to decide everything anew",
        "--any-registry to go on",
    )
    check_parts(out)
    works(resume(db, out, "--any-registry"))
    check_whole(out)


def test_newly_activated_model_is_a_changed_registry(gated: Any, db: Any, tmp_path: Path) -> None:
    out = tmp_path / "decisions.parquet"
    version = activate_quality(gated, 3)
    with held(db, out) as process:
        process.kill()
        process.wait()
    activate_quality(gated, 4)
    fails(resume(db, out), "the registry has changed", "--any-registry to go on")
    gated.execute("SELECT tinydancer.deactivate_model('quality')")
    fails(resume(db, out), "the registry has changed")
    gated.execute("SELECT tinydancer.activate_model('quality', %s, true)", (version,))
    works(resume(db, out))
    check_whole(out)


def test_registry_that_changes_during_a_run_is_not_seen(
    gated: Any, db: Any, tmp_path: Path
) -> None:
    out, before = tmp_path / "decisions.parquet", tmp_path / "before.parquet"
    works(resume(db, before))
    with db.connect() as keeper:
        keeper.execute("SELECT pg_advisory_lock(7)")
        process = subprocess.Popen(
            [*ETL, "route", "--dsn", db.conninfo, "--query", QUERY, "--out", str(out)],
            stderr=subprocess.PIPE,
            text=True,
        )
        while not keeper.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        ).fetchone()[0]:
            assert process.poll() is None
            time.sleep(0.1)
        gated.execute("DELETE FROM tinydancer.agent")
        gated.execute("INSERT INTO many VALUES (30000, 'new')")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert pq.read_table(out).equals(pq.read_table(before))


def test_restart_forgets_and_another_query_is_refused(gated: Any, db: Any, tmp_path: Path) -> None:
    out = tmp_path / "decisions.parquet"
    with held(db, out) as process:
        process.kill()
        process.wait()
    other = ("--query", "SELECT id, body FROM many", "--out", out)
    fails(etl(db, "route", *other), "the run that was cut was another one", "It differs in source")
    fails(resume(db, out, "--max-cost", "1"), "It differs in options")
    done = etl(db, "route", *other, "--restart", "--json")
    assert json.loads(works(done).stdout)["earlier"] == 0
    check_whole(out)


def test_full_disk_keeps_parts_and_next_run_continues(gated: Any, db: Any, tmp_path: Path) -> None:
    import resource

    out = tmp_path / "decisions.csv"

    def limit() -> None:
        # No file may grow beyond what one part of 16,384 rows takes.
        resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))

    command = [*ETL, "route", "--dsn", db.conninfo, "--query", QUERY, "--out", str(out)]
    command += ["--part-rows", str(PART)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    fails(done, f'could not write "{out}": File too large', "it continues")
    assert not out.exists()
    parts = sorted(out.with_name("decisions.csv.parts").glob("part-*"))
    assert parts
    assert all(pyarrow.csv.read_csv(part).num_rows for part in parts)
    works(resume(db, out))
    assert pyarrow.csv.read_csv(out)["id"].to_pylist() == list(range(1, ROWS + 1))


def test_full_file_system_says_so(gated: Any, db: Any, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not permitted")
    try:
        out = small / "decisions.csv"
        fails(resume(db, out), f'could not write "{out}": No space left on device', "are kept in")
        assert not out.exists()
        remount = ["mount", "-o", "remount,size=20m", str(small)]
        subprocess.run(remount, check=True)
        works(resume(db, out))
        assert pyarrow.csv.read_csv(out)["id"].to_pylist() == list(range(1, ROWS + 1))
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("query", "sentences"),
    [
        ("SELECT body FROM log", ["there must be a key and a request", "SELECT id, body"]),
        ("SELECT id, budget FROM log", ['column "budget" has the wrong type', "budget::text"]),
        ("SELECT now() AS id, body FROM log", ['column "id" has the wrong type', "id::text"]),
        ("SELECT id, body, 1 AS extra FROM log", ['column "extra" is not an input']),
        ("SELECT id, body, 1 AS max_cots FROM log", ['Perhaps you meant "max_cost"']),
        ("SELECT id, body, 'x' AS max_cost FROM log", ['column "max_cost" has the wrong type']),
        ("SELECT id, body, 'x' AS excluded_agents FROM log", ["excluded_agents::text[]"]),
        ("SELECT id, id, body FROM log", ['column "id" is there twice']),
        ("SELECT 1 AS id, body FROM log", ['key "id" is not unique', "1 is there more than once"]),
        ("SELECT NULL::int AS id, body FROM log", ['key "id" is NULL']),
        ("SELECT id, body, -1 AS max_cost FROM log", ["max_cost must not be negative", "id 0"]),
        ("SELECT id, body, 'fast' AS optimize_for FROM log", ["unknown optimization", "id 0"]),
        ("SELECT id, ARRAY[1,2]::real[] AS embedding FROM log", ["id 0 has 2"]),
        ("SELECT id, ARRAY[[1,2]]::real[] AS embedding FROM log", ["must have one dimension"]),
        (
            "SELECT id, array_fill('NaN'::real, '{128}') AS embedding FROM log",
            ["NaN", "the row with id 0"],
        ),
        (
            "SELECT id, array_fill(NULL::real, '{128}') AS embedding FROM log",
            ["vector must not contain NULL"],
        ),
        ("SELECT id, body AS agent_name FROM log", ["NOTHING"]),
        ("SELECT nope FROM log", ['column "nope" does not exist']),
        ("DELETE FROM log", ["syntax error"]),
    ],
)  # fmt: skip
def test_bad_query_is_a_clear_error(
    log: Any, db: Any, tmp_path: Path, query: str, sentences: list[str]
) -> None:
    out = tmp_path / "decisions.parquet"
    done = etl(db, "route", "--query", query, "--out", out)
    if sentences == ["NOTHING"]:
        works(done)
        return
    fails(done, *sentences)
    assert list(tmp_path.iterdir()) == []


def test_query_may_end_in_semicolon_and_comment_and_have_percent(
    log: Any, db: Any, tmp_path: Path
) -> None:
    out = tmp_path / "decisions.csv"
    query = "SELECT id, body FROM log WHERE body LIKE '%code%' ORDER BY body -- {} %s\n ; "
    works(etl(db, "route", "--query", query, "--out", out))
    count = log.execute("SELECT count(*) FROM log WHERE body LIKE '%code%'").fetchone()[0]
    assert pyarrow.csv.read_csv(out).num_rows == count > 0


def test_text_and_uuid_keys_are_continued_in_their_order(
    gated: Any, db: Any, tmp_path: Path
) -> None:
    for kind in ("text", "uuid"):
        out = tmp_path / f"{kind}.parquet"
        query = f"SELECT md5(id::text)::{kind} AS id, body FROM many WHERE gate(id)"
        if kind == "text":
            query = query.replace(
                "md5(id::text)", "(CASE id % 2 WHEN 0 THEN 'a' ELSE 'B' END || id)"
            )
        works(etl(db, "route", "--query", query, "--out", out, "--part-rows", "5000"))
        keys = pq.read_table(out)["id"].to_pylist()
        assert keys == sorted(keys)
        assert len(set(keys)) == ROWS


@pytest.mark.parametrize("name", ["decisions.parquet", "decisions.csv", "table:decisions"])
def test_no_rows_make_an_empty_output(log: Any, db: Any, tmp_path: Path, name: str) -> None:
    out = name if name.startswith("table:") else tmp_path / name
    query = "SELECT id, body FROM log WHERE false"
    works(etl(db, "route", "--query", query, "--out", out))
    columns = ["id", *OUTPUTS.split(", "), "problem"]
    if isinstance(out, str):
        found = log.execute("SELECT * FROM decisions")
        assert [one.name for one in found.description] == columns
        assert found.fetchall() == []
    elif out.suffix == ".csv":
        assert out.read_text() == ",".join(f'"{one}"' for one in columns) + "\n"
    else:
        assert pq.read_table(out).schema.names == columns
        assert pq.read_table(out).num_rows == 0
        fails(etl(db, "route", "--query", query, "--out", out), f'output "{out}" exists already')


def test_database_without_extension_is_named(empty_db: Any, tmp_path: Path) -> None:
    done = etl(empty_db, "route", "--query", "SELECT 1, 'x'", "--out", tmp_path / "x.csv")
    fails(done, "lacks the extension", "CREATE EXTENSION tinydancer")


def test_viewer_may_run_it(sampled: Any, db: Any) -> None:
    with db.connect(autocommit=False) as conn:
        conn.execute("SET SESSION AUTHORIZATION td_viewer")
        assert read_router(conn).agents
        conn.execute("RESET SESSION AUTHORIZATION")
        conn.execute("SET SESSION AUTHORIZATION td_none")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            read_router(conn)
