"""What every test can ask for: servers, databases, connections, the seed and the real data.

In: the command line (``--pg 15,16,18`` chooses servers, ``--seed N``).  Out: fixtures, a header
that says what is being tested, and at the end what ran and what was left out.  Read by pytest.

    cluster    a running server, once for each chosen Postgres; a session has one of each
    db         a fresh database with the extension, for one test
    module_db  the same, shared by the tests of one file
    conn       an autocommit connection to ``db``
    sampled    ``conn`` with the registry of tests/server/samples.py, and a role for each level
    rng        a NumPy generator with the session's seed
    shared     the folder with real data, or a skip that says so
    minilm     the path of MiniLM's encoder file, or a skip that says so
    minilm_cluster   a server whose default encoder is MiniLM; that of ``cluster`` is static
    minilm_db        a fresh database of it, with the extension
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinydancer import server as td_server

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
MINILM = ROOT / "build" / "encoders" / "minilm-l6-v2-1.tdenc"
# Tests of the server import its helpers (catalog, samples, roles ...) and those of the kernel by
# their plain names.
sys.path.insert(0, str(ROOT / "tests" / "server"))
sys.path.insert(0, str(ROOT / "tests" / "kernel"))

# Deterministic output, and everything that the tests of several sessions need without a restart.
SETTINGS: dict[str, object] = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "wal_level": "logical",
    "max_connections": 60,
    "max_prepared_transactions": 4,
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "jit": "off",  # where it is built in, disabled paths cost enough to compile every query
}


# ---------------------------------------------------------------- command line, header, summary


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tinydancer")
    group.addoption(
        "--pg", default=None, help="servers to test, e.g. 15,16,18 (default: all found)"
    )
    group.addoption("--seed", type=int, default=20240229, help="seed of random inputs")


def _found() -> list[td_server.Installation]:
    return [one for one in td_server.installations() if one.has_module]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    # A shell's background job starts with SIGINT ignored, and so would what the tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    found = {one.label: one for one in _found()}
    wanted = config.getoption("--pg")
    labels = [label.strip() for label in wanted.split(",")] if wanted else list(found)
    missing = [label for label in labels if label not in found]
    if missing:
        raise pytest.UsageError(
            f"no Postgres {', '.join(missing)} with the module; found: {', '.join(found) or 'none'}"
        )
    config.stash[_CHOSEN] = [found[label] for label in labels]


_CHOSEN = pytest.StashKey[list[td_server.Installation]]()


def _compiler() -> str:
    try:
        out = subprocess.run(
            [os.environ.get("CC", "cc"), "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no C compiler"
    return out.stdout.splitlines()[0]


def _flags(one: td_server.Installation) -> str:
    out = subprocess.run([one.pg_config, "--cflags"], capture_output=True, text=True).stdout
    return " ".join(flag for flag in out.split() if not flag.startswith("-W"))


def pytest_report_header(config: pytest.Config) -> list[str]:
    try:
        import tinydancer._kernels as kernels

        built = str(kernels.__file__)
    except ImportError as error:
        built = f"not built ({error})"
    lines = [
        f"python: {platform.python_version()} {sys.executable}",
        f"compiler: {_compiler()}",
        f"kernels: {built}",
        f"seed: {config.getoption('--seed')}",
        f"minilm: {MINILM if MINILM.exists() else 'not built, its tests are skipped'}",
        f"real data: {SHARED if SHARED.is_dir() else f'absent ({SHARED})'}",
    ]
    for one in config.stash[_CHOSEN]:
        lines.append(f"Postgres {one.label}: {one.version}, {one.bindir}")
        where = one.extension / "lib" / "tinydancer.so" if one.extension else "in the server itself"
        lines.append(f"    module: {where}; flags: {_flags(one)}")
    if not config.stash[_CHOSEN]:
        lines.append("Postgres: none found, server tests are left out (make dev builds the module)")
    return lines


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    chosen = config.stash[_CHOSEN]
    ran: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for one in chosen:
                if f"pg{one.label}" in report.nodeid.partition("[")[2].rstrip("]").split("-"):
                    ran[one.label] += 1
    terminalreporter.section("servers")
    for one in chosen:
        terminalreporter.line(f"Postgres {one.label} ({one.version}): {ran[one.label]} tests ran")
    labels = {one.label for one in chosen}
    for one in td_server.installations():
        if one.label not in labels:
            why = "not chosen by --pg" if one.has_module else "the module is not built for it"
            terminalreporter.line(f"Postgres {one.label} ({one.version}): skipped, {why}")
    majors = {one.major for one in td_server.installations()}
    if 15 not in majors:
        terminalreporter.line(
            "Postgres 15: skipped, not installed "
            "(apt-get install postgresql-15 postgresql-server-dev-15)"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in ("cluster", "minilm_cluster"):
        if name in metafunc.fixturenames:
            chosen = metafunc.config.stash[_CHOSEN]
            metafunc.parametrize(
                name, chosen, ids=[f"pg{one.label}" for one in chosen], indirect=True
            )


# ---------------------------------------------------------------- servers and databases


class Database:
    """One database of a test cluster.

    Attributes:
        cluster: the server it lives in.
        name: its name.
    """

    def __init__(self, cluster: td_server.Server, name: str) -> None:
        self.cluster = cluster
        self.name = name

    @property
    def conninfo(self) -> str:
        """A libpq connection string."""
        return self.cluster.conninfo(self.name)

    def connect(self, autocommit: bool = True, **kwargs: Any) -> Any:
        """A psycopg connection; the caller closes it (``with`` does)."""
        return self.cluster.connect(self.name, autocommit=autocommit, **kwargs)

    def psql(self, sql: str, *args: str, check: bool = True) -> str:
        """What psql prints for ``sql`` (both streams), unaligned and without headers."""
        done = self.cluster.run(
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            *args,
            dbname=self.name,
            input=sql,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"psql exited with {done.returncode}:\n{done.stdout}")
        return done.stdout


TEMPLATE = "td_template"
_numbers = iter(range(1, 1_000_000))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[td_server.Server]:
    """A running server; tests that use it run once for each Postgres chosen."""
    with td_server.temporary_cluster(request.param, SETTINGS) as running:
        with running.connect(autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {TEMPLATE}")
        running.create_extension(TEMPLATE)
        yield running


def _fresh(cluster: td_server.Server, template: str = TEMPLATE) -> Iterator[Database]:
    name = f"td_{next(_numbers)}"
    with cluster.connect(autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield Database(cluster, name)
    # Another session: a test that crashes a backend ends all of them.
    with cluster.connect(autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def db(cluster: td_server.Server) -> Iterator[Database]:
    """A fresh database with the extension."""
    yield from _fresh(cluster)


@pytest.fixture(scope="module")
def module_db(cluster: td_server.Server) -> Iterator[Database]:
    """A database with the extension for all tests of one file."""
    yield from _fresh(cluster)


@pytest.fixture
def empty_db(cluster: td_server.Server) -> Iterator[Database]:
    """A fresh database without the extension."""
    yield from _fresh(cluster, "template1")


@pytest.fixture(scope="session")
def minilm_cluster(request: pytest.FixtureRequest, minilm: Path) -> Iterator[td_server.Server]:
    """A running server that has MiniLM beside static, and so takes it by default."""
    with td_server.temporary_cluster(request.param, SETTINGS, encoders=[minilm]) as running:
        with running.connect(autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {TEMPLATE}")
        running.create_extension(TEMPLATE)
        yield running


@pytest.fixture
def minilm_db(minilm_cluster: td_server.Server) -> Iterator[Database]:
    """A fresh database with the extension on a server with MiniLM."""
    yield from _fresh(minilm_cluster)


@pytest.fixture
def conn(db: Database) -> Iterator[Any]:
    """An autocommit connection to ``db``."""
    with db.connect() as connection:
        yield connection


@pytest.fixture
def sampled(conn: Any) -> Iterator[Any]:
    """``conn`` with the samples' registry, and roles: td_none, and one for each level."""
    import roles
    import samples

    conn.execute("SET client_min_messages = error")
    conn.execute(samples.SETUP)
    made = ["td_none", "td_sample", *(f"td_{level}" for level in roles.LEVELS)]
    for role in made:
        conn.execute(f"CREATE ROLE {role}")
    for level in roles.LEVELS:
        conn.execute("SELECT tinydancer.grant_usage(%s, %s)", (f"td_{level}", level))
    yield conn
    conn.execute("RESET SESSION AUTHORIZATION")
    for role in made:
        conn.execute(f"DROP OWNED BY {role}")
        conn.execute(f"DROP ROLE {role}")


# ---------------------------------------------------------------- other inputs


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Any:
    """A NumPy generator; the same numbers in each run with the same --seed."""
    import numpy as np

    return np.random.default_rng(request.config.getoption("--seed"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is absent: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The encoder file of MiniLM, which ``make dev`` makes where its wheel can be fetched."""
    if not MINILM.exists():
        pytest.skip("minilm is not built (make dev, or tinydancer encoder build minilm)")
    return MINILM
