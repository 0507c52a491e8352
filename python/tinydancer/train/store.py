"""Models as rows of a database, and as files: add, activate, list, export, import, drop.

A connection string comes in; each change is one transaction, which an interrupt or a lost
connection undoes as a whole.  The rules (which encoder, which baseline) are those of the SQL
functions.  Called by tinydancer.train.command.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydancer import _kernels, model_file
from tinydancer.errors import FileFormatError, InvalidInputError, WeakModelError
from tinydancer.train.result import TrainedModel

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "activate",
    "active_encoder",
    "connected",
    "deactivate",
    "drop",
    "export_model",
    "import_model",
    "listed",
    "refuse_weak",
    "store",
]

TENSORS = ".safetensors"
METRICS = ".metrics.json"


@contextlib.contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database with the extension, closed at the end.

    Raises:
        InvalidInputError: the database lacks the extension.
    """
    from tinydancer import db

    try:
        conn = db.connect(dsn)
    except LookupError as error:
        raise InvalidInputError(
            str(error.args[0]), None, "Run: CREATE EXTENSION tinydancer CASCADE."
        ) from None
    with contextlib.closing(conn):
        yield conn


def active_encoder(conn: psycopg.Connection[Any]) -> tuple[str, str]:
    """Id and checksum of the encoder of a database."""
    row = conn.execute("SELECT id, checksum FROM tinydancer.active_encoder()").fetchone()
    conn.rollback()
    assert row is not None
    return str(row[0]), str(row[1])


def refuse_weak(trained: TrainedModel) -> None:
    """Raise when a model does not beat its baseline.

    Raises:
        WeakModelError: with both figures.
    """
    m = trained.metrics
    if m.get("beats_baseline") is True:
        return
    ends = m.get("ours_ci")
    interval = "" if ends is None else f" (95 % interval {ends[0]:.4f} to {ends[1]:.4f})"
    raise WeakModelError(
        "model does not beat its baseline",
        f"On {m['n_test']} held-out rows {m['metric']} is {m['ours']:.4f}{interval}; "
        f"{m['baseline']} has {m['baseline_value']:.4f}.",
        "Train on more rows, keep it with --no-activate, or make it active with --force.",
    )


def store(
    dsn: str, trained: TrainedModel, source: str, *, activated: bool = True, force: bool = False
) -> int:
    """Add a model, and make it active, in one transaction.

    Args:
        dsn: of the database.
        trained: the model.
        source: the query or file that it was trained on.
        activated: whether to make it active.
        force: though it does not beat its baseline.

    Returns:
        Its version.

    Raises:
        WeakModelError: it would be made active and does not beat its baseline.
        psycopg.Error: the database refuses.
    """
    if activated and not force:
        refuse_weak(trained)
    task = trained.spec.task
    with connected(dsn) as conn, conn.transaction():
        version = _added(conn, task, trained.bytes, trained.metrics, source)
        if activated:
            _activated(conn, task, version, force)
    return version


def _added(conn: psycopg.Connection[Any], kind: str, data: bytes, metrics: Any, source: str) -> int:
    from psycopg.types.json import Jsonb

    row = conn.execute(
        "SELECT tinydancer.add_model(%s::text, %s::bytea, %s::jsonb, %s::text)",
        (kind, data, Jsonb(metrics), source),
    ).fetchone()
    assert row is not None
    return int(row[0])


def _activated(conn: psycopg.Connection[Any], kind: str, version: int, force: bool) -> None:
    conn.execute(
        "SELECT tinydancer.activate_model(%s::text, %s::integer, %s::boolean)",
        (kind, version, force),
    )


def activate(dsn: str, kind: str, version: int, *, force: bool = False) -> None:
    """Make a version active; an earlier one rolls back."""
    with connected(dsn) as conn, conn.transaction():
        _activated(conn, kind, version, force)


def deactivate(dsn: str, kind: str) -> bool:
    """Go back to the built-in model, or to none; False when none was active."""
    with connected(dsn) as conn, conn.transaction():
        row = conn.execute("SELECT tinydancer.deactivate_model(%s::text)", (kind,)).fetchone()
    assert row is not None
    return bool(row[0])


def drop(dsn: str, kind: str, version: int) -> None:
    """Delete a version that is not active."""
    with connected(dsn) as conn, conn.transaction():
        conn.execute("SELECT tinydancer.drop_model(%s::text, %s::integer)", (kind, version))


def listed(dsn: str) -> list[dict[str, Any]]:
    """The models of a database, by kind and version."""
    from psycopg.rows import dict_row

    with connected(dsn) as conn:
        return conn.cursor(row_factory=dict_row).execute(
            "SELECT m.kind, m.version, m.encoder, m.active, m.builtin,"
            " octet_length(m.bytes) AS size, m.checksum, m.metrics, m.training_query, m.created_at"
            " FROM tinydancer.model m ORDER BY m.kind, m.builtin DESC, m.version, m.encoder"
        ).fetchall()  # fmt: skip


def export_model(dsn: str, kind: str, version: int, path: Path) -> list[Path]:
    """Write a model and its figures to files.

    Args:
        dsn: of the database.
        kind: classifier, capabilities or quality.
        version: of that kind.
        path: a name that ends in ".safetensors" gets tensors, any other a model file.

    Returns:
        The model's file, and beside it one with the figures, which ``import_model`` reads.
    """
    with connected(dsn) as conn:
        row = conn.execute(
            "SELECT (m).bytes, (m).metrics FROM"
            " tinydancer.require_model(%s::text, %s::integer, 'tinydancer model export') AS m",
            (kind, version),
        ).fetchone()
    assert row is not None
    data = bytes(row[0])
    path.write_bytes(model_file.to_safetensors(data) if path.suffix == TENSORS else data)
    figures = path.with_name(path.name + METRICS)
    figures.write_text(json.dumps(row[1], indent=2, ensure_ascii=False) + "\n", "utf-8")
    return [path, figures]


def import_model(
    dsn: str, path: Path, *, activated: bool = False, force: bool = False
) -> tuple[str, int]:
    """Add a model of a file.

    Args:
        dsn: of the database.
        path: a model file, or tensors that ``export_model`` wrote.
        activated: whether to make it active too, in the same transaction.
        force: though its figures do not say that it beats its baseline.

    Returns:
        Its kind and version.

    Raises:
        FileFormatError: not a model of ours, or damaged.
        InvalidInputError: it is for another encoder than the database's.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    if path.suffix == TENSORS:
        data = model_file.from_safetensors(data)
    model = _kernels.Model(data)
    figures = path.with_name(path.name + METRICS)
    metrics: Any = {}
    if figures.exists():
        try:
            metrics = json.loads(figures.read_text("utf-8"))
        except ValueError as error:
            raise FileFormatError(
                f'file "{figures}" is no JSON', f"It says: {error}.", "Export the model again."
            ) from None
    with connected(dsn) as conn:
        encoder, checksum = active_encoder(conn)
        if (model.encoder_id, model.encoder_checksum) != (encoder, checksum):
            raise InvalidInputError(
                f'model is for another encoder than "{encoder}"',
                f'It was trained on vectors of "{model.encoder_id}" with checksum '
                f'{model.encoder_checksum}; those of "{encoder}" have {checksum}.',
                "Train it again with this encoder, or switch with CALL tinydancer.use_encoder().",
            )
        with conn.transaction():
            version = _added(conn, model.task, data, metrics, f'file "{path.name}"')
            if activated:
                _activated(conn, model.task, version, force)
    return model.task, version
