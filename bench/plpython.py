"""A decision in the server through PL/Python, against the same decision through this extension.

Starts a throw-away server with the demo's agents and times prepared statements on one processor, in
turns: SELECT 1; a PL/Python function that returns its argument, the least that one can cost; one
that asks this package's Router, kept in GD from call to call, so that the arithmetic on both sides
is the same kernel; and ruvector_route and route_results.

PL/Python comes from the server when it offers plpython3u.  For a server of Debian's packages that
lacks it, its package is fetched (apt-get download, nothing is installed) and its library loaded
from the throw-away folder.  Without either the benchmark says "not installed".

    .venv/bin/python bench/plpython.py [--pg 15] [--rounds 15] [--calls 2000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import psycopg
from decision import AGENTS, REQUEST, prepared, timed
from figures import ROOT, add_option, compared, processor, write
from machine import BUILD

from tinydancer.server import Server, temporary_cluster

LANGUAGE = (
    "CREATE FUNCTION plpython3_call_handler() RETURNS language_handler LANGUAGE c AS '{library}'",
    "CREATE FUNCTION plpython3_inline_handler(internal) RETURNS void LANGUAGE c AS '{library}'",
    "CREATE LANGUAGE plpython3u HANDLER plpython3_call_handler INLINE plpython3_inline_handler",
)
ECHO = "CREATE FUNCTION echo(request text) RETURNS text LANGUAGE plpython3u AS 'return request'"
# The registry is the demo's: Router.demo() and ruvector_register_agent_full() read one file.
DECIDE = """
CREATE FUNCTION decide(request text) RETURNS text LANGUAGE plpython3u AS $$
if "router" not in GD:
    import sys
    sys.path += {path}
    from tinydancer import Router
    GD["router"] = Router.demo()
return GD["router"].route(request).agent_name
$$
"""
ONE, PYTHON = "prepared SELECT 1", "PL/Python, the same kernel"
STATEMENTS = {
    ONE: ("SELECT 1", []),
    "PL/Python, its argument": ("SELECT echo($1)", [REQUEST]),
    PYTHON: ("SELECT decide($1)", [REQUEST]),
    "ruvector_route": ("SELECT agent_name FROM ruvector_route($1)", [REQUEST]),
    "route_results": ("SELECT agent_name FROM route_results WHERE request = $1", [REQUEST]),
}


def fetched(cluster: Server) -> Path | None:
    """PL/Python's library out of Debian's package, where the server can read it; else None."""
    major = cluster.installation.major
    name = f"postgresql-plpython3-{major}"
    folder = BUILD / name
    if not list(folder.glob("*.deb")):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                ["apt-get", "download", name], cwd=folder, check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    library = folder / cluster.installation.pkglibdir.relative_to("/") / "plpython3.so"
    into = Path(cluster.home) / "plpython3.so"
    shutil.copy(library, into)
    into.chmod(0o755)
    return into.with_suffix("")


def make_language(cluster: Server, conn: psycopg.Connection[Any]) -> str:
    """Make plpython3u; why not, where it cannot be."""
    try:
        conn.execute("CREATE EXTENSION plpython3u")
        return ""
    except psycopg.Error:
        pass
    if not str(cluster.installation.pkglibdir).startswith("/usr/lib/postgresql/"):
        return "the server has no plpython3u, and no package has it"
    library = fetched(cluster)
    if library is None:
        return "the server has no plpython3u, and its package cannot be fetched"
    try:
        for command in LANGUAGE:
            conn.execute(command.format(library=library))
        conn.execute(ECHO)
        conn.execute("SELECT echo('')")
    except psycopg.Error as error:
        return str(error)
    conn.execute("DROP FUNCTION echo")
    return ""


def measure(conn: psycopg.Connection[Any], rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds of each statement in each round."""
    conn.execute(ECHO)
    packages = Path(numpy.__file__).parents[1]
    conn.execute(DECIDE.format(path=[str(ROOT / "python"), str(packages)]))
    runs = {
        f"run {i}": (name, prepared(conn, f"run {i}", *STATEMENTS[name]))
        for i, name in enumerate(STATEMENTS)
    }
    answers = {
        conn.execute(sql.replace("$1", "%s"), values).fetchone()  # type: ignore[arg-type]
        for sql, values in list(STATEMENTS.values())[2:]
    }
    if len(answers) != 1:
        raise RuntimeError(f"the decisions differ: {answers}")
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(rounds + 1):
        for name, call in runs.values():
            value = timed(call, calls) * 1e6
            if number > 0:  # the first round warms up
                taken[name].append(value)
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="15", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=1000)
    add_option(parser)
    args = parser.parse_args()

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with (
        temporary_cluster(args.pg, extension=True) as cluster,
        cluster.connect(autocommit=True) as conn,
    ):
        missing = make_language(cluster, conn)
        if missing:
            print(f"PL/Python: not installed ({missing})")
            return 0
        for agent in json.loads(AGENTS.read_text()):
            conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
        try:
            taken = measure(conn, args.rounds, args.calls)
        except psycopg.errors.ExternalRoutineException as error:
            print(f"PL/Python: the package cannot be read by the server's Python: {error}")
            return 0

    print(f"Postgres {args.pg}, one processor, {processor()}")
    base = statistics.median(taken[ONE])
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"{name:28} {middle:8.1f} us {middle / base:7.2f} x SELECT 1")
    baseline = (PYTHON, taken[PYTHON])
    write(
        args.json,
        [
            compared("plpython", name, taken[name], "us", baseline)
            for name in ("ruvector_route", "route_results")
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
