"""Where decisions go: a Parquet or CSV file, in parts until it is whole.

Arrow tables come in, a file comes out whose name appears when it is complete.  Until then its parts
lie in a folder beside it, ``NAME.parts``, each a readable file of its own, with a manifest that
says what has been done.  A part is on disk before the manifest names it, and the manifest is
replaced by renaming; so whatever ends a run, the manifest and the parts that it names are whole,
and the next run continues behind them.  ``tinydancer.etl.table`` is the counterpart for tables of a
database.

Called by ``tinydancer.etl.runner``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tinydancer.errors import InvalidInputError, TinyDancerError
from tinydancer.etl.source import Place

__all__ = ["FileTarget", "JobChangedError", "OutputError", "Target", "check_job"]

MANIFEST = "manifest.json"
FORMATS = (".parquet", ".csv")


class OutputError(TinyDancerError, OSError):
    """An output that cannot be written."""

    # OSError formats its arguments as an errno and a name.
    __str__ = TinyDancerError.__str__


class JobChangedError(InvalidInputError):
    """A cut run that another one cannot continue."""


class Target(Protocol):
    """What decisions are written to."""

    name: str

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The job of the run that was cut, None: there was none."""

    def resume(self, job: Mapping[str, Any], registry: str, any_registry: bool) -> Place | None:
        """Where to begin: behind what a cut run has done, None: at the beginning."""

    def write(self, rows: pa.Table, place: Place) -> None:
        """Keep rows; ``place`` is that of the last request they are of."""

    def finish(self, schema: pa.Schema) -> None:
        """Make the output whole."""

    def close(self) -> None:
        """Give back what is held; what was written stays."""


def check_job(
    name: str,
    before: Mapping[str, Any],
    job: Mapping[str, Any],
    same_registry: bool,
    any_registry: bool,
) -> None:
    """Whether a run may continue a cut one.

    Raises:
        JobChangedError: if source, options or registry are others.
    """
    hint = "Pass --restart to begin anew, or say what was said to the run that was cut."
    changed = [one for one in {**before, **job} if before.get(one) != job.get(one)]
    if changed:
        raise JobChangedError(
            f'cannot continue "{name}": the run that was cut was another one',
            f"It differs in {', '.join(sorted(changed))}.",
            hint,
        )
    if not same_registry and not any_registry:
        raise JobChangedError(
            f'cannot continue "{name}": the registry has changed',
            "What was written was decided by other agents, prices or figures than those of now.",
            "Pass --restart to decide everything anew, or --any-registry to go on with the new "
            "one.",
        )


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileTarget:
    """A Parquet or CSV file.

    Args:
        path: ends in .parquet or .csv.
        restart: forget what a cut run has done.

    Raises:
        InvalidInputError: for another ending.
        OutputError: if the file is there already, another run writes it, or it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, restart: bool = False) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.parts = self.path.with_name(self.path.name + ".parts")
        self._suffix = self.path.suffix.lower()
        self._manifest: dict[str, Any] = {}
        self._lock = -1
        if self._suffix not in FORMATS:
            raise InvalidInputError(
                f'cannot tell what "{path}" is to be',
                f'Its name ends in "{self._suffix}".',
                "Name a file .parquet or .csv, or a table of a database as table:NAME.",
            )
        # A link that leads nowhere would be replaced without a word.
        if os.path.lexists(self.path):
            self._sweep()
            raise OutputError(
                f'output "{path}" exists already',
                "It is whole: no run leaves half a file under this name.",
                "Remove it, or name another file.",
            )
        self._writing(self._open, restart)

    def _sweep(self) -> None:
        """Remove the parts of a run that was ended just after it had made the output whole."""
        whole = self.parts / ("whole" + self._suffix)
        if whole.exists() and whole.samefile(self.path):
            shutil.rmtree(self.parts, ignore_errors=True)

    def _open(self, restart: bool) -> None:
        self.parts.mkdir(exist_ok=True)
        self._lock = os.open(self.parts, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise OutputError(
                f'another run writes "{self.name}"',
                f'It holds the folder "{self.parts}".',
                "Wait for it to end, or name another file.",
            ) from None
        manifest = self.parts / MANIFEST
        if manifest.exists() and not restart:
            self._manifest = json.loads(manifest.read_text(encoding="utf-8"))
        known = {MANIFEST, *(part["file"] for part in self._manifest.get("parts", ()))}
        if not self._manifest:
            known = set()
        for path in self.parts.iterdir():
            if path.name not in known:
                path.unlink()
        for part in self._manifest.get("parts", ()):
            found = self.parts / part["file"]
            if not found.is_file() or found.stat().st_size != part["size"]:
                self.close()
                raise OutputError(
                    f'cannot continue "{self.name}": a part is damaged',
                    f'The manifest says that "{found}" has {part["size"]} bytes.',
                    "Pass --restart to begin anew.",
                )

    def _writing(self, do: Callable[..., None], *args: Any) -> None:
        """Do something on disk; its failures say what stays and what to do."""
        try:
            do(*args)
        except OutputError:
            raise
        except OSError as error:
            n = len(self._manifest.get("parts", ()))
            rows = self._manifest.get("rows", 0)
            reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
            raise OutputError(
                f'could not write "{self.name}": {reason}',
                f"{rows:,} requests are kept in {n} parts.",
                "When there is room, run the same command again: it continues.",
            ) from error

    # ------------------------------------------------------------ continuing

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The job of the run that was cut, None: there was none."""
        job: Mapping[str, Any] | None = self._manifest.get("job")
        return job

    def resume(self, job: Mapping[str, Any], registry: str, any_registry: bool) -> Place | None:
        """Take up a cut run, or begin one.

        Raises:
            JobChangedError: if the cut run was another one.
        """
        if not self._manifest:
            self._manifest = {"job": dict(job), "rows": 0, "last_key": None, "parts": []}
            self._manifest["registry"] = registry
            return None
        same = self._manifest["registry"] == registry
        # What JSON makes of both: lists are tuples no more.
        check_job(self.name, self._manifest["job"], json.loads(json.dumps(job)), same, any_registry)
        self._manifest["registry"] = registry
        return self._manifest["rows"], self._manifest["last_key"]

    # ------------------------------------------------------------ writing

    def write(self, rows: pa.Table, place: Place) -> None:
        """Keep rows as one part.

        Raises:
            OutputError: if the disk is full, for instance; earlier parts stay.
        """
        self._writing(self._write, rows, place)

    def _write(self, rows: pa.Table, place: Place) -> None:
        name = f"part-{len(self._manifest['parts']):06}{self._suffix}"
        path = self.parts / name
        aside = self.parts / (name + ".new")
        with self._opened(aside, rows.schema) as writer:
            writer.write_table(rows)
        os.replace(aside, path)
        _sync(self.parts)
        part = {"file": name, "size": path.stat().st_size, "rows": rows.num_rows}
        part["registry"] = self._manifest["registry"]
        before = dict(self._manifest)
        self._manifest["parts"] = [*before["parts"], part]
        self._manifest["rows"], self._manifest["last_key"] = place
        try:
            self._save()
        except OSError:
            self._manifest = before
            raise

    def _save(self) -> None:
        aside = self.parts / (MANIFEST + ".new")
        aside.write_text(json.dumps(self._manifest, indent=1), encoding="utf-8")
        _sync(aside)
        os.replace(aside, self.parts / MANIFEST)
        _sync(self.parts)

    def _opened(self, path: Path, schema: pa.Schema) -> _Writer:
        return _Writer(path, schema, self._suffix)

    def finish(self, schema: pa.Schema) -> None:
        """Put the parts together under the final name, and remove them.

        Raises:
            OutputError: if the disk is full, for instance; the parts stay.
        """
        self._writing(self._finish, schema)

    def _finish(self, schema: pa.Schema) -> None:
        aside = self.parts / ("whole" + self._suffix)
        if self._suffix == ".csv":
            self._join_csv(aside, schema)
        else:
            with self._opened(aside, schema) as writer:
                for part in self._manifest["parts"]:
                    with pyarrow.parquet.ParquetFile(self.parts / part["file"]) as file:
                        for group in range(file.num_row_groups):
                            writer.write_table(file.read_row_group(group))
        try:
            # Unlike a rename, a link does not replace what somebody has put there meanwhile.
            os.link(aside, self.path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            os.rename(aside, self.path)
        _sync(self.path.parent)
        # The output is whole whether or not this works.
        shutil.rmtree(self.parts, ignore_errors=True)

    def _join_csv(self, aside: Path, schema: pa.Schema) -> None:
        with self._opened(aside, schema):
            pass
        header = aside.stat().st_size
        with aside.open("ab") as whole:
            for part in self._manifest["parts"]:
                with (self.parts / part["file"]).open("rb") as file:
                    file.seek(header)
                    shutil.copyfileobj(file, whole, 1 << 20)
        _sync(aside)

    def close(self) -> None:
        """Let another run write; what a run leaves without a part of its own is removed."""
        if self._lock < 0:
            return
        os.close(self._lock)
        self._lock = -1
        if not self._manifest.get("parts"):
            shutil.rmtree(self.parts, ignore_errors=True)


class _Writer:
    """A file in the making, that is on disk when it is closed and gone when it fails."""

    def __init__(self, path: Path, schema: pa.Schema, suffix: str) -> None:
        self._path = path
        # A file of Python's, since its errors have the reason of the system.
        self._file = path.open("wb")
        self._is_parquet = suffix == ".parquet"
        try:
            if self._is_parquet:
                self._writer = pyarrow.parquet.ParquetWriter(self._file, schema, compression="zstd")
            else:
                self._writer = pyarrow.csv.CSVWriter(self._file, schema)
        except BaseException:
            self._abandon()
            raise

    def write_table(self, rows: pa.Table) -> None:
        """Write rows, as one row group."""
        if self._is_parquet:
            self._writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
        else:
            self._writer.write_table(rows)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._path.unlink(missing_ok=True)
        # What could not be written is of no use any more.
        with contextlib.suppress(OSError):
            self._file.close()
