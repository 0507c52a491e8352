"""Encoders as Python objects: finding files, refusing damaged ones, and the vectors they make."""

from __future__ import annotations

import concurrent.futures
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from tinydancer import Encoder, _kernels
from tinydancer.encoder import encoder_dir, encoder_id, encoder_path, install
from tinydancer.errors import (
    EmptyRequestError,
    EncoderNotFoundError,
    FileFormatError,
    InvalidInputError,
    TextEncodingError,
    TinyDancerError,
)

TEXTS = [
    "Summarise this contract and flag the risks",
    "write a python function that removes duplicate lines",
    "Übersetze diesen Satz ins Französische: 今日は天気がいい",
    "a",
    "refund " * 2000,
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("static")


def test_load_by_name_id_and_path_gives_the_same_encoder(encoder: Encoder) -> None:
    path = encoder_path("static")
    for source in ("static", "static-1", str(path), path):
        assert Encoder.load(source).checksum == encoder.checksum
    assert Encoder.load().id == encoder.id == "static-1"


def test_attributes_of_the_shipped_encoder_describe_it(encoder: Encoder) -> None:
    assert encoder.kind == "static"
    assert encoder.dim == encoder.embed("x").shape[1]
    assert encoder.max_tokens > 0
    assert -1 < encoder.fit_mu < 1 and encoder.fit_s > 0
    assert len(encoder.checksum) == 16 and int(encoder.checksum, 16) >= 0
    assert "MiniLM" in encoder.about
    assert str(encoder_path("static")) == encoder.path
    assert repr(encoder) == f"<Encoder static-1 (static, {encoder.dim} dimensions)>"


def test_checksum_is_the_hash_of_all_but_the_header(encoder: Encoder) -> None:
    content = Path(str(encoder.path)).read_bytes()
    assert encoder.checksum == f"{_kernels.hash64(content[32:]):016x}"


def test_bytes_and_mapped_file_give_the_same_bits(encoder: Encoder) -> None:
    content = Path(str(encoder.path)).read_bytes()
    # An odd start: the copy must be aligned whatever the bytes were.
    copied = Encoder(memoryview(b"x" + content)[1:])
    assert copied.path is None
    assert copied.embed(TEXTS).tobytes() == encoder.embed(TEXTS).tobytes()


def test_pieces_and_ids_put_a_text_together_again(encoder: Encoder) -> None:
    pieces = encoder.pieces()
    ids = encoder.tokenize("Summarise this contract!")
    assert ids.dtype == np.uint32
    joined = " ".join(pieces[i] for i in ids).replace(" ##", "")
    assert joined == "summarise this contract !"
    assert encoder.count_tokens("Summarise this contract!") == len(ids)
    assert encoder.tokenize("").shape == (0,)
    assert encoder.count_tokens(" \t\n") == 0


def test_embed_of_texts_gives_unit_vectors(encoder: Encoder) -> None:
    vectors = encoder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dim) and vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    assert np.abs(lengths - 1).max() < 1e-6
    assert encoder.embed([]).shape == (0, encoder.dim)


def test_embed_of_a_batch_equals_single_calls(encoder: Encoder) -> None:
    batch = encoder.embed(TEXTS)
    for text, vector in zip(TEXTS, batch, strict=True):
        assert encoder.embed(text)[0].tobytes() == vector.tobytes()
        assert encoder.embed_info(text)[0].tobytes() == vector.tobytes()


def test_embed_of_similar_requests_is_nearer_than_of_different_ones(encoder: Encoder) -> None:
    a, b, c = encoder.embed(
        [
            "translate this sentence into French",
            "how do you say good morning in Spanish",
            "the SQL query is slow, which index is missing",
        ]
    )
    assert _kernels.cosine(a, b) > _kernels.cosine(a, c)


def test_embed_info_of_a_long_text_says_what_was_read(encoder: Encoder) -> None:
    _, n_tokens, n_used, n_known = encoder.embed_info("code " * 2000)
    assert (n_tokens, n_used, n_known) == (2000, encoder.max_tokens, encoder.max_tokens)
    vector, n_tokens, n_used, n_known = encoder.embed_info("\u0e01\u0e02 \U0001f9ff\U0001f9ff")
    assert n_known == 0 and n_used == n_tokens > 0
    assert not vector.any()


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\x00\x07", "\u00a0\u2003"])
def test_embed_of_an_empty_text_is_refused(encoder: Encoder, text: str) -> None:
    with pytest.raises(EmptyRequestError) as caught:
        encoder.embed(text)
    assert str(caught.value) == (
        "request is empty\n"
        "DETAIL:  The text holds nothing but white space and control characters.\n"
        "HINT:  Pass a text with at least one visible character, or None for no decision."
    )
    with pytest.raises(EmptyRequestError, match="Text 2 of 3"):
        encoder.embed(["a", text, "b"])


def test_text_with_a_lone_surrogate_is_refused(encoder: Encoder) -> None:
    for call in (encoder.embed, encoder.embed_info, encoder.tokenize, encoder.count_tokens):
        with pytest.raises(TextEncodingError, match="text is not valid UTF-8") as caught:
            call("ab\ud800")
        assert caught.value.detail == "Character 3 is a lone surrogate."


@pytest.mark.parametrize("value", [b"bytes", 3, None, ["a", 3]])
def test_what_is_no_text_is_refused(encoder: Encoder, value: object) -> None:
    with pytest.raises(TypeError):
        encoder.embed(value)  # type: ignore[arg-type]


def test_threads_that_share_an_encoder_get_the_same_bits(encoder: Encoder) -> None:
    want = encoder.embed(TEXTS).tobytes()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encoder.embed(TEXTS).tobytes(), range(40)))
    assert set(results) == {want}


def test_pickled_encoder_opens_its_file_again(encoder: Encoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    assert type(again) is Encoder and again.checksum == encoder.checksum
    with pytest.raises(TypeError, match="made from bytes"):
        pickle.dumps(Encoder(Path(str(encoder.path)).read_bytes()))


def test_replaced_file_does_not_change_an_open_encoder(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "copy.tdenc"
    shutil.copyfile(str(encoder.path), path)
    opened = Encoder(path)
    (tmp_path / "new").write_bytes(b"something else")
    (tmp_path / "new").rename(path)
    assert opened.embed(TEXTS).tobytes() == encoder.embed(TEXTS).tobytes()


def test_file_view_of_an_encoder_has_its_sections(encoder: Encoder) -> None:
    file = _kernels.File(str(encoder.path))
    assert (file.id, file.kind, file.checksum) == (encoder.id, "static", encoder.checksum)
    rows = file.section("static.row", np.int8)
    codes = file.section("static.code", np.uint8)
    assert rows is not None and codes is not None
    assert rows.size == codes.size * encoder.dim
    assert file.section("about", np.uint8).tobytes().decode() == encoder.about  # type: ignore[union-attr]
    assert file.section("nothing", np.uint8) is None
    with pytest.raises(FileFormatError, match="file is corrupt") as caught:
        file.section("static.row", np.float32)
    assert caught.value.detail == 'Section "static.row" has another element type than float32.'
    with pytest.raises(TypeError, match="no section has elements of float64"):
        file.section("static.row", np.float64)


# ---------------------------------------------------------------- files that cannot be used


def test_missing_encoder_names_its_file_and_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TINYDANCER_ENCODER_DIR", str(tmp_path))
    assert encoder_dir() == tmp_path
    with pytest.raises(EncoderNotFoundError) as caught:
        Encoder.load("minilm")
    assert str(caught.value) == (
        'cannot use encoder "minilm-l6-v2-1": file does not exist\n'
        f'DETAIL:  File "{tmp_path}/minilm-l6-v2-1.tdenc".\n'
        "HINT:  Build it with: tinydancer encoder build minilm"
    )
    assert isinstance(caught.value, (FileNotFoundError, TinyDancerError))


def test_encoder_folder_of_the_environment_is_used(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copyfile(str(encoder.path), tmp_path / "static-1.tdenc")
    monkeypatch.setenv("TINYDANCER_ENCODER_DIR", str(tmp_path))
    assert Encoder.load("static").path == str(tmp_path / "static-1.tdenc")


def test_file_of_another_encoder_is_refused(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copyfile(str(encoder.path), tmp_path / "other-1.tdenc")
    monkeypatch.setenv("TINYDANCER_ENCODER_DIR", str(tmp_path))
    with pytest.raises(FileFormatError, match="the file holds another encoder") as caught:
        Encoder.load("other-1")
    assert '"static-1"' in str(caught.value.detail)


@pytest.mark.parametrize("name", ["", "..", "Static", "a b", "x" * 33, "é"])
def test_name_that_can_be_no_id_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="invalid encoder id"):
        Encoder.load(name)
    assert encoder_id("static") == "static-1"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda content: b"", "not a tinydancer file"),
        (lambda content: b"PK" + content[2:], "not a tinydancer file"),
        (lambda content: content[:8] + b"\x63" + content[9:], "unsupported tinydancer file"),
        (lambda content: content[:-64], "file is truncated"),
        (lambda content: content + bytes(64), "file is truncated"),
        (lambda content: content[:100], "file is truncated"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "checksum does not match"),
    ],
    ids=["empty", "magic", "version", "cut", "longer", "header only", "bit"],
)
def test_damaged_file_is_refused_with_its_fault(
    encoder: Encoder, tmp_path: Path, damage: object, message: str
) -> None:
    content = damage(Path(str(encoder.path)).read_bytes())  # type: ignore[operator]
    path = tmp_path / "damaged.tdenc"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        Encoder(content)
    with pytest.raises(FileFormatError, match=message):
        _kernels.File(path)
    with pytest.raises(FileFormatError, match=message) as caught:
        Encoder.load(path)
    assert f'File "{path}".' == caught.value.detail
    assert "tinydancer encoder build" in str(caught.value.hint)


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Encoder.load(tmp_path)


def test_install_puts_a_checked_copy_into_the_folder(tmp_path: Path) -> None:
    target = install("static", tmp_path / "new")
    assert target == tmp_path / "new" / "static-1.tdenc"
    assert Encoder(target).checksum == Encoder.load("static").checksum
    # Again over a damaged one, by rename: whoever maps the old file keeps it.
    target.write_bytes(b"damaged")
    inode = target.stat().st_ino
    install("static", tmp_path / "new")
    assert target.stat().st_ino != inode
    assert Encoder(target).id == "static-1"
    assert [path.name for path in target.parent.iterdir()] == ["static-1.tdenc"]


def test_install_of_an_encoder_that_is_not_shipped_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot build encoder"):
        install("no-such", tmp_path)


# ---------------------------------------------------------------- many texts


@pytest.fixture(params=["static", "minilm"])
def either(request: pytest.FixtureRequest) -> Encoder:
    """Each encoder; MiniLM's is skipped where it is not built."""
    if request.param == "minilm":
        request.getfixturevalue("minilm")
    return Encoder.load(request.param)


def some_texts(rng: np.random.Generator, count: int) -> list[str]:
    """Texts of one to many words, in no order of length."""
    words = ["please", "book", "a", "table", "for", "two", "people", "near", "river", "今日"]
    lengths = np.minimum(rng.geometric(0.1, count), 300)
    return [" ".join(rng.choice(words, length)) for length in lengths]


def test_embed_of_many_texts_equals_single_calls(either: Encoder, rng: np.random.Generator) -> None:
    texts = [*some_texts(rng, 150), "word " * 400, "a"]
    vectors = either.embed(texts)
    assert vectors.shape == (152, either.dim) and vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)
    for i in [*rng.integers(0, 150, 40), 150, 151]:
        assert either.embed(texts[i])[0].tobytes() == vectors[i].tobytes()


@pytest.mark.parametrize("threads", [2, 3, 8, 100])
def test_embed_with_threads_gives_the_same_bits(
    either: Encoder, rng: np.random.Generator, threads: int
) -> None:
    texts = some_texts(rng, 200)
    assert either.embed(texts, threads=threads).tobytes() == either.embed(texts).tobytes()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_embed_names_the_first_text_that_is_empty(either: Encoder, threads: int) -> None:
    texts = ["hello"] * 150
    texts[97] = texts[140] = " \t"
    with pytest.raises(EmptyRequestError, match="Text 98 of 150 cannot be embedded"):
        either.embed(texts, threads=threads)


@pytest.mark.parametrize("threads", [0, -1])
def test_embed_with_fewer_than_one_thread_is_refused(encoder: Encoder, threads: int) -> None:
    with pytest.raises(InvalidInputError, match="threads must be at least 1"):
        encoder.embed(["a"], threads=threads)
    with pytest.raises(TypeError):
        encoder.embed(["a"], threads=1.5)  # type: ignore[arg-type]


def test_embed_lets_other_threads_work(minilm: Path) -> None:
    heavy = Encoder.load("minilm")
    texts = ["word " * 300] * 16  # one call into the kernel
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        heavy.embed(texts)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    turns = 0
    while not ended.is_set():
        turns += 1
    thread.join()
    # With the GIL held there would be a handful of turns at most.
    assert turns > 1000


def test_minilm_tells_meanings_that_words_do_not(minilm: Path) -> None:
    a, b, c = Encoder.load("minilm").embed(
        ["The plane took off", "The aircraft departed", "Take the plain coat off"]
    )
    assert _kernels.cosine(a, b) > _kernels.cosine(a, c)


def test_minilm_of_a_text_beyond_its_limit_reads_the_first_pieces(minilm: Path) -> None:
    encoder = Encoder.load("minilm")
    vector, n_tokens, n_used, n_known = encoder.embed_info("code " * 2000)
    assert (n_tokens, n_used, n_known) == (2000, 254, 254)
    assert vector.tobytes() == encoder.embed("code " * 254)[0].tobytes()
