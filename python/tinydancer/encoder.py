"""Encoders by name: text to unit vectors, with the same bits as ruvector_embed() in Postgres.

A name or a path comes in, a checked encoder over a read-only mapping of its file comes out.  Used
by ``tinydancer.route``, training and the command line.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tinydancer import _kernels
from tinydancer.errors import EncoderNotFoundError, FileFormatError, InvalidInputError

__all__ = [
    "ENCODER_DIR_VARIABLE",
    "SHIPPED_IDS",
    "Encoder",
    "built_dir",
    "default_id",
    "encoder_dir",
    "encoder_dirs",
    "encoder_files",
    "encoder_id",
    "encoder_path",
    "install",
    "shipped_id",
]

ENCODER_DIR_VARIABLE = "TINYDANCER_ENCODER_DIR"
SUFFIX = ".tdenc"
_SHIPPED = Path(__file__).resolve().parent / "encoders"

# The names people type, and the ids that pin the content; the default comes first.
_IDS = {"minilm": "minilm-l6-v2-1", "static": "static-1"}
_NAMES = {encoder_id: name for name, encoder_id in _IDS.items()}
SHIPPED_IDS = tuple(_NAMES)


def encoder_id(name: str) -> str:
    """Return the id that a name stands for: "static-1" for "static"; an id stands for itself.

    Raises:
        InvalidInputError: if it can be no id.
    """
    result = _IDS.get(name, name)
    if re.fullmatch(r"[a-z0-9_-][a-z0-9._-]{0,31}", result) is None:
        raise InvalidInputError(
            f'invalid encoder id "{name}"',
            'An id is 1 to 32 of the characters a-z, 0-9, ".", "_" and "-".',
            'The shipped encoder is "static".',
        )
    return result


def shipped_id(name: str) -> str | None:
    """Return the id of an encoder of Tiny Dancer given by name or id, None for anything else."""
    found = _IDS.get(name, name)
    return found if found in SHIPPED_IDS else None


def built_dir() -> Path:
    """Return where built encoders lie: build/encoders in the sources, else below the user's home.

    The package's own folder is under version control, or not the user's to write to.
    """
    from tinydancer.server import build_folder

    build = build_folder()
    if build is not None:
        return build / "encoders"
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "tinydancer" / "encoders"


def encoder_dirs() -> list[Path]:
    """Return the folders that are searched: TINYDANCER_ENCODER_DIR alone where it is set.

    Else the package's own, which has what ships, and that of built encoders.
    """
    chosen = os.environ.get(ENCODER_DIR_VARIABLE)
    return [Path(chosen)] if chosen else [_SHIPPED, built_dir()]


def encoder_dir() -> Path:
    """Return the folder that new encoder files are put into."""
    return encoder_dirs()[-1]


def encoder_files() -> list[Path]:
    """Return the encoder files that are found by name, each id once, by id."""
    found: dict[str, Path] = {}
    for folder in encoder_dirs():
        # What begins with a dot is being written.
        for path in folder.glob(f"[!.]*{SUFFIX}"):
            found.setdefault(path.stem, path)
    return [found[stem] for stem in sorted(found)]


def default_id() -> str:
    """Return the encoder that a server takes which finds the same files: minilm, else static."""
    there = {path.stem for path in encoder_files()}
    return next((one for one in SHIPPED_IDS if one in there), SHIPPED_IDS[-1])


def encoder_path(name: str) -> Path:
    """Return where the file of an encoder lies, or would lie if it is not there.

    Raises:
        InvalidInputError: if the name can be no id.
    """
    file_name = encoder_id(name) + SUFFIX
    places = [folder / file_name for folder in encoder_dirs()]
    return next((place for place in places if place.exists()), places[-1])


class Encoder(_kernels.Encoder):
    """An encoder file: text to word pieces and unit vectors.

    ``Encoder(path_or_bytes)`` takes any file; ``Encoder.load("static")`` finds it by name.
    """

    __slots__ = ()

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str] = "static") -> Encoder:
        """Open an encoder by name ("static", "minilm"), id ("static-1") or path.

        Args:
            name_or_path: what contains a slash or ends in ".tdenc" is a path, everything else a
                name, looked for in ``encoder_dirs()``.

        Raises:
            EncoderNotFoundError: if there is no such file; the hint has the command that builds it.
            FileFormatError: if the file is damaged, of another version, or another encoder.
            InvalidInputError: if the name can be no id.
        """
        given = os.fspath(name_or_path)
        is_path = not isinstance(name_or_path, str) or os.sep in given or given.endswith(SUFFIX)
        path = Path(given) if is_path else encoder_path(given)
        wanted = None if is_path else encoder_id(given)
        shown = path.stem if wanted is None else wanted
        source = _NAMES.get(shown, f"DIR --id {shown}")
        hint = f"Build it with: tinydancer encoder build {source}"
        try:
            encoder = cls(path)
        except FileNotFoundError:
            raise EncoderNotFoundError(
                f'cannot use encoder "{shown}": file does not exist', f'File "{path}".', hint
            ) from None
        except FileFormatError as error:
            raise FileFormatError(
                f'cannot use encoder "{shown}": {error.message}', f'File "{path}".', hint
            ) from None
        if wanted is not None and encoder.id != wanted:
            raise FileFormatError(
                f'cannot use encoder "{wanted}": the file holds another encoder',
                f'File "{path}": it says that it is encoder "{encoder.id}".',
                hint,
            )
        return encoder


def install(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Put the file of an encoder that is part of the package into a folder, by renaming.

    Args:
        name: "static" or "static-1".
        folder: where to; None leaves it in the package, unless TINYDANCER_ENCODER_DIR is set.

    Returns:
        The path of the file.

    Raises:
        InvalidInputError: if the package has no such encoder.
        FileFormatError: if the package's own file is damaged.
        OSError: if the folder cannot be written.
    """
    wanted = encoder_id(name)
    source = _SHIPPED / (wanted + SUFFIX)
    if not source.is_file():
        raise InvalidInputError(
            f'cannot build encoder "{name}"',
            f'"static" and "minilm" can be built by name, and "{name}" is no folder.',
            "Name the folder of a sentence-transformers model to build another.",
        )
    _kernels.Encoder(source)
    target = (Path(folder) if folder is not None else encoder_dirs()[0]) / source.name
    if target.exists() and target.samefile(source):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Backends map the old file: it must never be written in place.
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, aside)
        aside.chmod(0o644)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target
