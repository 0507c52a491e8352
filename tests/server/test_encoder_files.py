"""Encoder files that are missing, damaged or replaced: an error in words, never a crash.

In: a folder of encoder files that the server reads, damaged between statements.  What is checked:
SQLSTATE, the file's name and the command in the error, and that the same session goes on.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import tinydancer
from tinydancer import _kernels

SHIPPED = Path(tinydancer.__file__).parent / "encoders" / "static-1.tdenc"
ROUTE = "SELECT agent_name FROM route_results WHERE request = 'translate this'"


def with_checksum(data: bytes) -> bytes:
    """The file with the checksum that its bytes have, as a builder would write it."""
    return data[:24] + struct.pack("<Q", _kernels.hash64(data[32:], 0)) + data[32:]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_row(data: bytes) -> bytes:
    return data[:-5000] + bytes([data[-5000] ^ 0x10]) + data[-4999:]


def other_version(data: bytes) -> bytes:
    return data[:8] + struct.pack("<I", 99) + data[12:]


def wild_offset(data: bytes) -> bytes:
    """The first section starts far outside of the file, and the checksum is right."""
    return with_checksum(data[:160] + struct.pack("<Q", 1 << 60) + data[168:])


def other_kind(data: bytes) -> bytes:
    return with_checksum(data[:12] + struct.pack("<I", 3) + data[16:])


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "empty": (lambda data: b"", "XX001", "not a tinydancer file"),
    "text": (lambda data: b"hello", "XX001", "not a tinydancer file"),
    "header only": (lambda data: data[:64], "XX001", "file is truncated"),
    "cut": (cut, "XX001", "file is truncated"),
    "longer": (lambda data: data + b"\0" * 64, "XX001", "file is truncated"),
    "flipped bit": (flip_row, "XX001", "checksum"),
    "other version": (other_version, "0A000", "version"),
    "wild offset": (wild_offset, "XX001", "corrupt"),
    "other kind": (other_kind, "XX001", "kind"),
}


@pytest.fixture
def folder(db: Any) -> Iterator[Path]:
    """A folder with the shipped encoder that the server can read."""
    path = Path(db.cluster.home) / f"encoders_{db.name}"
    path.mkdir()
    path.chmod(0o755)
    shutil.copy(SHIPPED, path)
    (path / SHIPPED.name).chmod(0o644)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def routing(conn: Any, folder: Path) -> Any:
    """A session that routes with the encoder in ``folder``."""
    conn.execute(f"SET tinydancer.encoder_dir = '{folder}'")
    conn.execute(
        "SELECT ruvector_register_agent('a', 'api', description := 'translate texts', "
        "cost_per_call := 0)"
    )
    assert conn.execute(ROUTE).fetchone() == ("a",)
    return conn


def replace(folder: Path, data: bytes) -> None:
    """As a builder does: written aside, then renamed over the old file."""
    aside = folder / "new"
    aside.write_bytes(data)
    aside.chmod(0o644)
    aside.rename(folder / SHIPPED.name)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_gives_error_and_server_stays_up(
    routing: Any, folder: Path, damage: str
) -> None:
    change, sqlstate, sentence = DAMAGES[damage]
    pid = routing.info.backend_pid
    replace(folder, change(SHIPPED.read_bytes()))
    for statement in (
        ROUTE,
        "SELECT ruvector_embed('x')",
        "SELECT ruvector_embed('x', 'static-1')",
    ):
        with pytest.raises(psycopg.Error) as caught:
            routing.execute(statement)
        diag = caught.value.diag
        assert diag.sqlstate == sqlstate
        assert sentence in diag.message_primary
        assert str(folder / SHIPPED.name) in diag.message_detail
        assert "tinydancer encoder build static" in diag.message_hint
    # Mended: the same session routes again.
    replace(folder, SHIPPED.read_bytes())
    assert routing.execute(ROUTE).fetchone() == ("a",)
    assert routing.info.backend_pid == pid


def test_missing_file_gives_error_until_it_is_back(routing: Any, folder: Path) -> None:
    (folder / SHIPPED.name).unlink()
    with pytest.raises(psycopg.errors.UndefinedFile):
        routing.execute(ROUTE)
    with pytest.raises(psycopg.errors.UndefinedFile):
        routing.execute("SELECT ruvector_register_agent('b', 'api', description := 'x')")
    replace(folder, SHIPPED.read_bytes())
    assert routing.execute(ROUTE).fetchone() == ("a",)


def test_folder_in_place_of_the_file_gives_error(routing: Any, folder: Path) -> None:
    (folder / SHIPPED.name).unlink()
    (folder / SHIPPED.name).mkdir()
    with pytest.raises(psycopg.errors.DataCorrupted):
        routing.execute(ROUTE)


def test_file_cut_in_place_under_a_mapping_gives_error(routing: Any, folder: Path) -> None:
    """Nobody should write into a mapped file; a session that looks again must not die of it."""
    with (folder / SHIPPED.name).open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(psycopg.errors.DataCorrupted):
        routing.execute(ROUTE)
    assert routing.execute("SELECT 1").fetchone() == (1,)


def test_other_content_under_the_same_id_is_refused(routing: Any, folder: Path) -> None:
    """An id pins content: the vectors of the registry were made with the old one."""
    replace(folder, with_checksum(flip_row(SHIPPED.read_bytes())))
    with pytest.raises(psycopg.errors.DataCorrupted) as caught:
        routing.execute(ROUTE)
    assert "not the one this database was using" in caught.value.diag.message_primary


def test_renamed_file_with_the_same_content_goes_on(routing: Any, folder: Path) -> None:
    replace(folder, SHIPPED.read_bytes())
    assert routing.execute(ROUTE).fetchone() == ("a",)


def test_cursor_keeps_the_old_mapping_when_the_file_is_replaced(routing: Any, folder: Path) -> None:
    with routing.transaction(), routing.cursor(name="c") as cursor:
        cursor.itersize = 1
        cursor.execute(
            "SELECT r.agent_name FROM generate_series(1, 50) i, "
            "LATERAL ruvector_route('translate ' || i) r"
        )
        rows = [cursor.fetchone()]
        replace(folder, b"no longer an encoder")
        rows += cursor.fetchall()
    assert rows == [("a",)] * 50


def test_without_a_setting_the_encoder_beside_the_module_is_found(conn: Any) -> None:
    conn.execute("SET tinydancer.encoder_dir = ''")
    conn.execute("SELECT ruvector_register_agent('a', 'api', description := 'translate texts')")
    assert conn.execute(ROUTE).fetchone() == ("a",)
