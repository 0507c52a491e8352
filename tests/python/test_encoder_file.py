"""The file format as Python writes and reads it, and the encoder that is shipped.

Every rule of the container is broken once; a reader that looked away would fail here.  That the C
reader agrees is tested in tests/kernel/test_encoder_oracle.py.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer import encoder_file as ef

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "python/tinydancer/encoders/static-1.tdenc"
PIECES = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nplay\n##ing\n##s\nsong\n"


def small_header(**changes: float) -> ef.EncoderHeader:
    values = {
        "dim": 4,
        "max_tokens": 8,
        "vocab_size": 9,
        "first_row": 5,
        "flags": 15,
        "unk_id": 1,
        "cls_id": 2,
        "sep_id": 3,
        "pad_id": 0,
        "mask_id": 4,
        "fit_mu": 0.25,
        "fit_s": 0.0625,
    }
    return ef.EncoderHeader(**{**values, **changes})  # type: ignore[arg-type]


def small_rows() -> np.ndarray:
    return np.array(
        [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0.5, 0.5, -0.5, 4]], dtype=np.float32
    )


def small_file() -> bytes:
    vocab = ef.Vocab.from_text(PIECES)
    return ef.pack_static_encoder("tiny-1", small_header(), vocab, small_rows(), "for tests")


def with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    """``data`` with ``new`` at ``at`` and a checksum that is right again."""
    changed = bytearray(data)
    changed[at : at + len(new)] = new
    changed[24:32] = struct.pack("<Q", ef.hash64(bytes(changed[32:])))
    return bytes(changed)


def entry(name: bytes) -> int:
    """Where the table entry of a section of the small file begins."""
    return small_file().index(name + b"\0", 128)


# ---------------------------------------------------------------- container


def test_pack_file_layout_is_that_of_the_header() -> None:
    data = ef.pack_file(ef.KIND_MODEL, "m-1", {"w": np.array([[1.5, 2]], np.float32)})
    assert data[:8] == b"TDFILE\r\n"
    assert struct.unpack_from("<IIQQ", data, 8) == (1, 3, len(data), ef.hash64(data[32:]))
    assert data[32:64] == b"m-1".ljust(32, b"\0")
    assert struct.unpack_from("<I", data, 64) == (1,)
    assert data[68:128] == bytes(60)
    assert struct.unpack_from("<24sIIQQ", data, 128) == (b"w".ljust(24, b"\0"), 5, 0, 192, 8)
    assert data[192:] == struct.pack("<2f", 1.5, 2)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "u4", "f4"])
def test_unpack_file_of_packed_sections_returns_them(dtype: str) -> None:
    sections = {
        "first": np.arange(7).astype(dtype),
        "empty": np.zeros(0, dtype),
        "last": np.arange(100, 130).astype(dtype),
    }
    file = ef.unpack_file(ef.pack_file(ef.KIND_MODEL, "a.b_c-9", sections))
    assert (file.kind, file.id, list(file.sections)) == (3, "a.b_c-9", list(sections))
    for name, array in sections.items():
        assert file.sections[name].dtype == array.dtype
        np.testing.assert_array_equal(file.sections[name], array)


@pytest.mark.parametrize("file_id", ["", "Static", "a b", "ä", "a/b", ".a", "x" * 33])
def test_pack_file_with_unusable_id_raises(file_id: str) -> None:
    with pytest.raises(ValueError, match="is not made of"):
        ef.pack_file(ef.KIND_MODEL, file_id, {})


def test_pack_file_with_unusable_section_raises() -> None:
    with pytest.raises(ValueError, match="elements of type float64"):
        ef.pack_file(ef.KIND_MODEL, "m", {"w": np.zeros(1)})
    with pytest.raises(ValueError, match="1 to 23 bytes"):
        ef.pack_file(ef.KIND_MODEL, "m", {"w" * 24: np.zeros(1, np.uint8)})
    many = {str(i): np.zeros(0, np.uint8) for i in range(1025)}
    with pytest.raises(ValueError, match="1025 sections are more than 1024"):
        ef.pack_file(ef.KIND_MODEL, "m", many)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a tinydancer file"),
        (b"GIF89a", "not a tinydancer file"),
        (small_file()[:100], "file is truncated"),
        (small_file()[:-1], "file is truncated"),
        (small_file() + b"\0", "file is truncated"),
        (with_bytes(small_file(), 8, b"\2"), "unsupported tinydancer file version"),
        (small_file()[:-1] + b"\x7f", "file is corrupt: checksum does not match"),
        (with_bytes(small_file(), 32, b"T"), "file is corrupt"),
        (with_bytes(small_file(), 64, b"\xff\xff"), "file is corrupt"),
        (with_bytes(small_file(), entry(b"vocab.base") + 24, b"\x09"), "file is corrupt"),
        (with_bytes(small_file(), entry(b"vocab.base") + 32, b"\x01"), "file is corrupt"),
        (with_bytes(small_file(), entry(b"vocab.base") + 40, b"\xff\xff"), "file is corrupt"),
        (with_bytes(small_file(), entry(b"vocab.base") + 40, b"\x05"), "file is corrupt"),
        (with_bytes(small_file(), entry(b"vocab.base"), b"\0"), "file is corrupt"),
        (with_bytes(small_file(), 12, b"\3"), "file is of the wrong kind"),
        (with_bytes(small_file(), entry(b"static.row"), b"X"), "file is corrupt"),
    ],
)
def test_static_encoder_of_damaged_bytes_raises(data: bytes, sentence: str) -> None:
    with pytest.raises(ef.EncoderFileError) as caught:
        ef.StaticEncoder.from_bytes(data)
    assert str(caught.value) == sentence


def test_write_file_over_an_old_one_leaves_its_readers_alone(tmp_path: Path) -> None:
    path = tmp_path / "e.tdenc"
    ef.write_file(path, b"old")
    with path.open("rb") as reader:
        ef.write_file(path, b"new!")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new!"
    assert [p.name for p in tmp_path.iterdir()] == ["e.tdenc"]


# ---------------------------------------------------------------- hash


def test_hash64_of_known_inputs_equals_the_specification() -> None:
    assert ef.hash64(b"") == 0xEF46DB3751D8E999
    assert ef.hash64(b"abc") == 0x44BC2CF5AD770999


def test_fnv1a32_of_known_inputs_equals_the_specification() -> None:
    assert ef.fnv1a32(b"") == 0x811C9DC5
    assert ef.fnv1a32(b"a") == 0xE40C292C
    assert ef.fnv1a32(b"foobar") == 0xBF9CF968


# ---------------------------------------------------------------- vocabulary


def test_vocab_sections_find_every_piece_and_no_other() -> None:
    vocab = ef.Vocab.from_text("".join(f"p{i}\n" for i in range(700)), 1024)
    sections = vocab.sections()
    assert sections["vocab.base"].size == 3
    assert sections["vocab.offset"].size == 701
    index = sections["vocab.index"]
    assert [vocab.find(piece, index) for piece in vocab.pieces] == list(range(700))
    assert vocab.find(b"p700", index) is None
    assert ef.Vocab.from_sections(sections) == vocab


def test_vocab_of_256_pieces_ends_at_a_base_of_its_own() -> None:
    vocab = ef.Vocab.from_text("".join(f"{i}\n" for i in range(256)))
    assert vocab.sections()["vocab.base"].size == 2
    assert ef.Vocab.from_sections(vocab.sections()) == vocab


def test_vocab_that_cannot_be_indexed_raises() -> None:
    with pytest.raises(ValueError, match="empty or repeated"):
        ef.Vocab((b"a", b"a"), 4)
    with pytest.raises(ValueError, match="empty or repeated"):
        ef.Vocab((b"a", b""), 4)
    with pytest.raises(ValueError, match="2 slots cannot hold 2"):
        ef.Vocab((b"a", b"b"), 2)
    with pytest.raises(ValueError, match="1 to 65534 pieces"):
        ef.Vocab((), 1)


# ---------------------------------------------------------------- header and rows


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 0},
        {"dim": 4097},
        {"max_tokens": 0},
        {"max_tokens": 8193},
        {"first_row": 10},
        {"unk_id": 9},
        {"unk_id": ef.NO_ID},
        {"mask_id": 9},
        {"fit_mu": 1.5},
        {"fit_mu": float("nan")},
        {"fit_s": 0.0},
        {"fit_s": float("inf")},
    ],
)
def test_header_with_impossible_value_raises(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"encoder of|first row|special ids|constants"):
        small_header(**changes).pack()


def test_header_unpacked_is_the_header_packed() -> None:
    header = small_header(mask_id=ef.NO_ID)
    assert ef.EncoderHeader.unpack(header.pack()) == header


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32 - 1), st.floats(0, 6))
def test_quantise_rows_is_within_half_a_step_of_a_scale_that_fits(
    n: int, dim: int, seed: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n, dim)) * np.exp(rng.normal(size=(n, 1)) * spread)).astype(np.float32)
    rows[rng.random(n) < 0.1] = 0
    values, codes, scales = ef.quantise_rows(rows)
    assert (values.dtype, codes.dtype, scales.dtype) == (np.int8, np.uint8, np.float32)
    assert np.all(np.diff(scales) > 0)
    step = scales[codes].astype(np.float64)[:, None]
    assert np.all(np.abs(values * step - rows) <= step * 0.50001)
    # The next smaller scale would not have held the row.
    greatest = np.abs(rows).max(axis=1) / np.float32(127)
    coarse = codes > 0
    assert np.all(scales[codes[coarse] - 1] < greatest[coarse])


def test_quantise_rows_with_nan_raises() -> None:
    with pytest.raises(ValueError, match="not finite"):
        ef.quantise_rows(np.array([[np.nan]], np.float32))


def test_pack_static_encoder_with_other_shapes_raises() -> None:
    vocab = ef.Vocab.from_text(PIECES)
    with pytest.raises(ValueError, match="do not fit"):
        ef.pack_static_encoder("t", small_header(), vocab, small_rows()[:3], "")
    with pytest.raises(ValueError, match="header of 8 word pieces, there are 9"):
        ef.pack_static_encoder("t", small_header(vocab_size=8), vocab, small_rows(), "")


# ---------------------------------------------------------------- embedding


def test_embed_ids_is_the_normalised_sum_of_rows() -> None:
    encoder = ef.StaticEncoder.from_bytes(small_file())
    got = encoder.embed_ids([5, 6, 6])  # (1, 0, ..) + 2 * (0, 2, ..)
    np.testing.assert_allclose(got, np.array([1, 4, 0, 0]) / np.sqrt(17), atol=2e-2)
    assert np.linalg.norm(got) == pytest.approx(1, abs=1e-6)


def test_embed_ids_without_a_known_piece_is_zero() -> None:
    encoder = ef.StaticEncoder.from_bytes(small_file())
    for ids in ([], [1], [0, 1, 2, 3, 4], [7]):
        np.testing.assert_array_equal(encoder.embed_ids(ids), np.zeros(4))


def test_embed_ids_beyond_max_tokens_reads_no_further() -> None:
    encoder = ef.StaticEncoder.from_bytes(small_file())
    short = encoder.embed_ids([5] * 8)
    np.testing.assert_array_equal(encoder.embed_ids([5] * 8 + [6] * 8), short)
    assert not np.array_equal(encoder.embed_ids([5] * 7 + [6]), short)


# ---------------------------------------------------------------- the shipped encoder


def test_shipped_encoder_passes_its_check() -> None:
    pytest.importorskip("tokenizers")
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools/build_static_encoder.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "paraphrases found" in run.stdout


def test_check_of_a_damaged_encoder_fails(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    data = bytearray(SHIPPED.read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "static-1.tdenc"
    path.write_bytes(data)
    run = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tools/build_static_encoder.py"),
            "--check",
            f"--output={path}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "checksum does not match" in run.stderr


def test_shipped_constants_are_those_fitted() -> None:
    pytest.importorskip("tokenizers")
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools/fit_constants.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_shipped_encoder_repacked_gives_the_same_bytes() -> None:
    data = SHIPPED.read_bytes()
    encoder = ef.StaticEncoder.from_bytes(data)
    file = encoder.file
    assert ef.pack_file(file.kind, file.id, file.sections) == data
    sections = encoder.vocab.sections()
    for name, array in sections.items():
        np.testing.assert_array_equal(file.sections[name], array)
    assert encoder.vocab.pieces[encoder.header.unk_id] == b"[UNK]"
    assert encoder.vocab.pieces[encoder.header.first_row - 1].startswith(b"[unused")
    assert not encoder.vocab.pieces[encoder.header.first_row].startswith(b"[")
