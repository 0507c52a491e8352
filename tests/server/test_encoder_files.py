"""Encoder files that are missing, damaged or replaced: an error in words, never a crash.

In: a folder of encoder files that the server reads, damaged between statements.  What is checked:
SQLSTATE, the file's name and the command in the error, and that the same session goes on.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
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
def folder(encoder_folder: Path) -> Path:
    """A folder with the shipped encoder that the server can read."""
    return encoder_folder


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


def replace(folder: Path, data: bytes, name: str = SHIPPED.name) -> None:
    """As a builder does: written aside, then renamed over the old file."""
    aside = folder / "new"
    aside.write_bytes(data)
    aside.chmod(0o644)
    aside.rename(folder / name)


def copies(cluster: Any) -> set[str]:
    """The server's own copies of encoder files."""
    return {path.name for path in (cluster.data / "base" / "pgsql_tmp").glob("*_tinydancer_*")}


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


# ---------------------------------------------------------------- written in place


def test_file_copied_over_the_old_one_between_statements_goes_on(
    routing: Any, folder: Path, session: Any
) -> None:
    """The same content by ``cp``: cut and written in place, of the same inode."""
    other = session()
    assert other.execute(ROUTE).fetchone() == ("a",)
    path = folder / SHIPPED.name
    inode = path.stat().st_ino
    path.write_bytes(SHIPPED.read_bytes())
    assert path.stat().st_ino == inode
    for one in (routing, other):
        assert one.execute(ROUTE).fetchone() == ("a",)


def test_other_content_copied_over_the_old_one_is_refused_even_with_its_old_time(
    routing: Any, folder: Path
) -> None:
    path = folder / SHIPPED.name
    before = path.stat()
    path.write_bytes(with_checksum(flip_row(SHIPPED.read_bytes())))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(psycopg.errors.DataCorrupted) as caught:
        routing.execute(ROUTE)
    assert "not the one this database was using" in caught.value.diag.message_primary


def test_file_cut_while_a_statement_reads_it_does_no_harm(
    routing: Any, folder: Path, session: Any
) -> None:
    """A mapping of the file itself would end here, and all sessions with it."""
    others = [session() for _ in range(2)]
    pids = [one.info.backend_pid for one in (routing, *others)]
    vectors = (
        "SELECT ruvector_embed(w) FROM unnest(string_to_array(repeat("
        "'seven wild zebras quietly zoomed yonder ', 40), ' ')) w WHERE w <> ''"
    )
    whole = routing.execute(vectors).fetchall()
    with routing.transaction(), routing.cursor(name="c") as cursor:
        cursor.itersize = 1
        cursor.execute(vectors)
        rows = [cursor.fetchone()]
        with (folder / SHIPPED.name).open("r+b") as file:
            file.truncate(4096)
        rows += cursor.fetchall()
    assert rows == whole
    for one in others:
        with pytest.raises(psycopg.errors.DataCorrupted):
            one.execute(ROUTE)
    assert [one.info.backend_pid for one in (routing, *others)] == pids
    assert routing.execute("SELECT 1").fetchone() == (1,)


def test_half_written_file_is_never_used(routing: Any, folder: Path) -> None:
    data = SHIPPED.read_bytes()
    part = len(data) // 6 + 1
    with (folder / SHIPPED.name).open("r+b") as file:
        file.truncate(0)
        for start in range(0, len(data), part):
            with pytest.raises(psycopg.errors.DataCorrupted):
                routing.execute(ROUTE)
            file.write(data[start : start + part])
            file.flush()
    assert routing.execute(ROUTE).fetchone() == ("a",)


def test_file_whose_size_is_there_before_its_content_is_never_used(
    routing: Any, folder: Path
) -> None:
    data = SHIPPED.read_bytes()
    with (folder / SHIPPED.name).open("r+b") as file:
        file.truncate(0)
        file.truncate(len(data))
        for start in (0, len(data) // 2):
            with pytest.raises(psycopg.errors.DataCorrupted):
                routing.execute(ROUTE)
            file.seek(start)
            file.write(data[start : start + len(data) // 2 + 1])
            file.flush()
    assert routing.execute(ROUTE).fetchone() == ("a",)


# ---------------------------------------------------------------- the server's copies


def test_sessions_share_one_copy_and_old_ones_go(
    routing: Any, folder: Path, session: Any, db: Any
) -> None:
    first = copies(db.cluster)
    other = session()
    assert other.execute(ROUTE).fetchone() == ("a",)
    assert copies(db.cluster) == first
    for _ in range(3):
        replace(folder, SHIPPED.read_bytes())
        assert routing.execute(ROUTE).fetchone() == ("a",)
        assert other.execute(ROUTE).fetchone() == ("a",)
        assert len(copies(db.cluster)) == len(first)
    assert copies(db.cluster) != first


def test_damaged_file_leaves_no_copy(routing: Any, folder: Path, db: Any) -> None:
    before = copies(db.cluster)
    replace(folder, flip_row(SHIPPED.read_bytes()))
    with pytest.raises(psycopg.errors.DataCorrupted):
        routing.execute(ROUTE)
    assert copies(db.cluster) <= before


def test_where_no_copy_can_be_made_the_file_itself_is_used(
    routing: Any, folder: Path, db: Any
) -> None:
    temporary = db.cluster.data / "base" / "pgsql_tmp"
    temporary.chmod(0o500)
    try:
        before = copies(db.cluster)
        replace(folder, SHIPPED.read_bytes())
        assert routing.execute(ROUTE).fetchone() == ("a",)
        assert copies(db.cluster) == before
        replace(folder, cut(SHIPPED.read_bytes()))
        with pytest.raises(psycopg.errors.DataCorrupted):
            routing.execute(ROUTE)
    finally:
        temporary.chmod(0o700)


# ---------------------------------------------------------------- after a switch


def test_other_content_under_the_same_id_is_refused_after_a_switch(
    routing: Any, folder: Path, small_encoder: bytes
) -> None:
    routing.execute("CALL tinydancer.use_encoder('small-1')")
    assert routing.execute(ROUTE).fetchone() == ("a",)
    name = "small-1.tdenc"
    replace(folder, with_checksum(flip_row(small_encoder)), name)
    for statement in (ROUTE, "CALL tinydancer.use_encoder('small-1')"):
        with pytest.raises(psycopg.errors.DataCorrupted) as caught:
            routing.execute(statement)
        assert "not the one this database was using" in caught.value.diag.message_primary
        assert str(folder / name) in caught.value.diag.message_detail
    # What another encoder made is of no concern to it.
    routing.execute("CALL tinydancer.use_encoder('static')")
    assert routing.execute(ROUTE).fetchone() == ("a",)
    routing.execute("CALL tinydancer.use_encoder('small-1')")
    assert routing.execute(ROUTE).fetchone() == ("a",)


def test_missing_file_after_a_switch_is_named_and_vectors_still_route(
    routing: Any, folder: Path
) -> None:
    routing.execute("CALL tinydancer.use_encoder('small-1')")
    vector = routing.execute("SELECT ruvector_embed('translate this')").fetchone()[0]
    (folder / "small-1.tdenc").unlink()
    with pytest.raises(psycopg.errors.UndefinedFile) as caught:
        routing.execute(ROUTE)
    assert str(folder / "small-1.tdenc") in caught.value.diag.message_detail
    assert "tinydancer encoder build small-1" in caught.value.diag.message_hint
    by_vector = "SELECT agent_name FROM ruvector_route(%s, embedding := %s::real[])"
    for request in (None, "translate this"):
        assert routing.execute(by_vector, (request, vector)).fetchone() == ("a",)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        routing.execute(by_vector, (None, [*vector, 0.0]))


def test_missing_file_after_a_restore_is_named_and_vectors_still_route(
    routing: Any, folder: Path, db: Any
) -> None:
    routing.execute("CALL tinydancer.use_encoder('small-1')")
    vector = routing.execute("SELECT ruvector_embed('translate this')").fetchone()[0]
    dump = db.cluster.run("pg_dump", dbname=db.name, capture_output=True).stdout
    with db.cluster.connect(autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {db.name}_restored")
    try:
        db.cluster.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dbname=f"{db.name}_restored",
                       input=dump, check=True, capture_output=True)  # fmt: skip
        with db.cluster.connect(f"{db.name}_restored", autocommit=True) as restored:
            with pytest.raises(psycopg.errors.UndefinedFile) as caught:
                restored.execute(ROUTE)
            assert "small-1" in caught.value.diag.message_primary
            assert "tinydancer encoder build small-1" in caught.value.diag.message_hint
            assert restored.execute(
                "SELECT agent_name FROM route_results WHERE embedding = %s::real[]", (vector,)
            ).fetchone() == ("a",)
    finally:
        with db.cluster.connect(autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {db.name}_restored WITH (FORCE)")
