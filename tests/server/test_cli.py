"""The command line as a person or a script uses it: real servers, real folders, real signals.

In: the chosen Postgres versions.  Out: clusters below pytest's folder, all stopped afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tinydancer import server as td_server

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-m", "tinydancer"]


def run(*arguments: str | Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line and return what it said."""
    command = [*COMMAND, *map(str, arguments)]
    kwargs.setdefault("timeout", 120)
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a cluster, which is stopped at the end."""
    path = tmp_path / "cluster"
    yield path
    if (path / td_server.STATE_FILE).exists():
        stopping = td_server.open_cluster(path)
        stopping.stop("immediate")
        # Where the server's user cannot enter pytest's folder, the files are elsewhere.
        for leftover in {stopping.home, stopping.socket_dir.parent} - {path}:
            subprocess.run(["rm", "-rf", leftover], check=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "label" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--pg")
        found = [one.label for one in td_server.installations() if one.has_module]
        labels = [one for one in found if not wanted or one in wanted.split(",")]
        metafunc.parametrize("label", labels, ids=[f"pg{label}" for label in labels])


@pytest.fixture
def any_label(request: pytest.FixtureRequest) -> str:
    """The first server there is, for what does not depend on the version."""
    wanted = request.config.getoption("--pg")
    for one in td_server.installations():
        if one.has_module and (not wanted or one.label in wanted.split(",")):
            return one.label
    pytest.skip("no Postgres with the module (make dev)")


def assert_is_error(done: subprocess.CompletedProcess[str], message: str) -> None:
    """The error is one sentence on standard error, without a traceback, and the status is 1."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    first = next(line for line in done.stderr.splitlines() if not line.startswith("NOTICE:"))
    assert first.startswith("ERROR:  ")
    assert message in first
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- up, down, psql


def test_up_with_json_prints_facts_of_a_server_that_answers(label: str, folder: Path) -> None:
    done = run("up", "--pg", label, "--data", folder, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert list(facts) == ["uri", "socket_dir", "port", "pg_version"]
    assert Path(facts["socket_dir"], f".s.PGSQL.{facts['port']}").is_socket()
    with psycopg.connect(facts["uri"]) as conn:
        version = conn.execute("SELECT current_setting('server_version')").fetchone()
        assert version is not None and version[0].split(" ")[0] == facts["pg_version"]
        extension = conn.execute(
            "SELECT extname FROM pg_extension WHERE extname = 'tinydancer'"
        ).fetchone()
        assert extension == ("tinydancer",)


def test_up_after_down_keeps_rows(label: str, folder: Path) -> None:
    first = run("up", "--pg", label, "--data", folder)
    assert first.returncode == 0, first.stderr
    with psycopg.connect(first.stdout.strip()) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    down = run("down", "--data", folder)
    assert (down.returncode, down.stdout, down.stderr) == (0, "", "")
    assert not td_server.open_cluster(folder).running

    # The cluster remembers its version.
    second = run("up", "--data", folder)
    assert second.returncode == 0, second.stderr
    with psycopg.connect(second.stdout.strip()) as conn:
        assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_up_on_running_cluster_leaves_sessions_alone(any_label: str, folder: Path) -> None:
    first = run("up", "--pg", any_label, "--data", folder)
    with psycopg.connect(first.stdout.strip()) as conn:
        second = run("up", "--data", folder)
        assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_up_with_a_setting_keeps_it(any_label: str, folder: Path) -> None:
    run("up", "--pg", any_label, "--data", folder, "--set", "wal_level=logical")
    run("down", "--data", folder)
    done = run("up", "--data", folder)
    with psycopg.connect(done.stdout.strip()) as conn:
        assert conn.execute("SHOW wal_level").fetchone() == ("logical",)


def test_up_listens_only_on_a_socket_nobody_else_reaches(any_label: str, folder: Path) -> None:
    facts = json.loads(run("up", "--pg", any_label, "--data", folder, "--json").stdout)
    with psycopg.connect(facts["uri"]) as conn:
        assert conn.execute("SHOW listen_addresses").fetchone() == ("",)
        hba = conn.execute("SELECT DISTINCT type FROM pg_hba_file_rules").fetchall()
        assert hba == [("local",)]
    assert Path(facts["socket_dir"]).stat().st_mode & 0o077 == 0


def test_up_in_a_deep_folder_shortens_the_socket(any_label: str, tmp_path: Path) -> None:
    # sun_path ends at 107 bytes.
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    facts = json.loads(run("up", "--pg", any_label, "--data", deep, "--json").stdout)
    server = td_server.open_cluster(deep)
    try:
        assert len(facts["socket_dir"]) < 90
        with psycopg.connect(facts["uri"]) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    finally:
        assert run("down", "--data", deep).returncode == 0
        subprocess.run(["rm", "-rf", *({server.home} - {deep})], check=True)


def test_up_in_a_folder_of_something_else_is_an_error(any_label: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    done = run("up", "--pg", any_label, "--data", tmp_path)
    assert_is_error(done, "exists but is not an empty folder")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_up_with_another_version_is_an_error(folder: Path) -> None:
    labels = [one.label for one in td_server.installations() if one.has_module]
    if len(labels) < 2:
        pytest.skip("only one Postgres with the module")
    assert run("up", "--pg", labels[0], "--data", folder).returncode == 0
    done = run("up", "--pg", labels[1], "--data", folder)
    assert_is_error(done, f"belongs to Postgres {labels[0]}")


def test_up_with_an_unknown_version_names_those_there_are(folder: Path) -> None:
    done = run("up", "--pg", "7", "--data", folder)
    assert_is_error(done, 'there is no Postgres "7" here')
    assert "DETAIL:  Servers with the module: " in done.stderr
    assert not folder.exists()


def test_up_with_a_setting_that_is_none_leaves_nothing(any_label: str, folder: Path) -> None:
    done = run("up", "--pg", any_label, "--data", folder, "--set", "no_such_setting=1")
    assert_is_error(done, "could not start Postgres")
    assert "no_such_setting" in done.stderr
    assert not folder.exists()


def test_down_without_a_cluster_is_an_error(tmp_path: Path) -> None:
    assert_is_error(run("down", "--data", tmp_path), "there is no cluster in")


def test_down_on_a_stopped_cluster_says_so(any_label: str, folder: Path) -> None:
    run("up", "--pg", any_label, "--data", folder)
    run("down", "--data", folder)
    done = run("down", "--data", folder)
    assert (done.returncode, done.stderr) == (0, "NOTICE:  the server was not running\n")


def test_psql_passes_arguments_and_status_on(any_label: str, folder: Path) -> None:
    run("up", "--pg", any_label, "--data", folder)
    done = run("psql", "--data", folder, "-X", "-A", "-t", "-c", "SELECT 6 * 7")
    assert (done.returncode, done.stdout) == (0, "42\n")
    # psql's own status for an error in a script.
    failed = run("psql", "--data", folder, "-X", "-v", "ON_ERROR_STOP=1", input="SELECT 1/0;")
    assert failed.returncode == 3


def test_psql_without_a_server_is_an_error(any_label: str, folder: Path) -> None:
    run("up", "--pg", any_label, "--data", folder)
    run("down", "--data", folder)
    assert_is_error(run("psql", "--data", folder), "the server is not running")


# ---------------------------------------------------------------- nothing is left behind

HOLD = """
import sys, time
from tinydancer.server import temporary_cluster
with temporary_cluster(sys.argv[1]) as server:
    print(server.home, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["int", "term", "kill"]
)
def test_temporary_cluster_is_gone_when_its_process_is(
    any_label: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, any_label],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as holder:
        assert holder.stdout is not None
        home = Path(holder.stdout.readline().strip())
        pid = int((home / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(holder.pid, number)
        holder.wait(60)
    td_server.wait_for(lambda: not home.exists(), what=f"removal of {home}")
    # Its lock file goes a moment before the process does.
    td_server.wait_for(lambda: not Path(f"/proc/{pid}").exists(), what=f"end of process {pid}")


def test_interrupted_up_leaves_nothing(any_label: str, folder: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "up", "--pg", any_label, "--data", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as starting:
        # In the middle of initdb, or wherever it has got to.
        deadline = time.monotonic() + 30
        while not folder.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(starting.pid, signal.SIGINT)
        starting.wait(60)
        assert starting.stderr is not None
        said = starting.stderr.read()
    assert starting.returncode == 130, said
    assert "Traceback" not in said
    assert not folder.exists()


# ---------------------------------------------------------------- without a server


def test_route_prints_an_agent_and_a_reason() -> None:
    done = run("route", "Translate this sentence into Spanish")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "translator"
    assert any(line.startswith("reasoning ") for line in lines)


def test_route_with_json_equals_the_python_answer() -> None:
    from dataclasses import asdict

    from tinydancer.route import Router

    request = "What is 17 % of 2,400?"
    done = run("route", request, "--optimize-for", "quality", "--json")
    decision = Router.demo().route(request, optimize_for="quality")
    assert decision is not None
    assert json.loads(done.stdout) == asdict(decision)


def test_route_with_explain_shows_every_agent_and_its_limit() -> None:
    from tinydancer.route import Router

    done = run("route", "Debug this stack trace", "--max-cost", "0.001", "--explain")
    assert done.returncode == 0, done.stderr
    for agent in Router.demo().agents:
        assert agent.name in done.stdout
    assert "max_cost" in done.stdout


def test_route_reads_standard_input() -> None:
    piped = run("route", "-", "--json", input="Translate this sentence into Spanish")
    given = run("route", "Translate this sentence into Spanish", "--json")
    assert piped.stdout == given.stdout != ""


def test_route_with_a_registry_of_ones_own_uses_it(tmp_path: Path) -> None:
    registry = tmp_path / "agents.json"
    registry.write_text(json.dumps([{"name": "only", "agent_type": "llm", "cost_per_call": 0.1}]))
    assert run("route", "hello there", "--agents", registry).stdout.startswith("only\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["   "], "empty"),
        (["hello", "--optimize-for", "cheapness"], 'unknown optimization target "cheapness"'),
        (["hello", "--agents", "/nowhere/agents.json"], "/nowhere/agents.json"),
        (["hello", "--encoder", "/nowhere/x.tdenc"], "cannot use encoder"),
        (["hello", "--max-cost", "0"], "no agent can take this request"),
    ],
    ids=["empty", "target", "registry", "encoder", "limits"],
)
def test_route_with_bad_input_is_an_error(arguments: list[str], message: str) -> None:
    assert_is_error(run("route", *arguments), message)


def test_doctor_lists_what_is_here() -> None:
    done = run("doctor", "--json")
    findings = {one["what"]: one for one in json.loads(done.stdout)}
    for one in td_server.installations():
        assert one.version in findings[f"Postgres {one.label}"]["found"]
    assert findings["kernels"]["state"] == "ok"
    assert "sha256" in findings["encoder static-1"]["found"]
    missing = any(one["state"] == "missing" for one in findings.values())
    assert done.returncode == (1 if missing else 0)


def test_doctor_with_something_essential_missing_exits_with_1(tmp_path: Path) -> None:
    # A build folder with no module in it: the default server cannot work.
    done = run("doctor", env={**os.environ, "TINYDANCER_BUILD": str(tmp_path)})
    assert done.returncode == 1
    assert "type: make dev" in done.stdout


def test_version_is_that_of_the_control_file() -> None:
    control = (Path(__file__).resolve().parents[2] / "tinydancer.control").read_text()
    done = run("--version")
    assert done.returncode == 0
    assert f"default_version = '{done.stdout.split()[1]}'" in control


@pytest.mark.parametrize("arguments", [[], ["fly"], ["up"], ["up", "--data", "x", "--bogus"]])
def test_misuse_exits_with_2_and_a_usage_line(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: tinydancer")
