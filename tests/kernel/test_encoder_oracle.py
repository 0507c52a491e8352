"""The static encoder of the kernel against a NumPy oracle that reads the same file by itself.

Word pieces come from the kernel (they have an oracle of their own in test_text_tokenizer.py); rows,
scales, sums and lengths are computed here in float64 from the bytes of the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinydancer import _kernels
from tinydancer import encoder_file as ef

SHIPPED = Path(ef.__file__).parent / "encoders/static-1.tdenc"

TEXTS = [
    "Summarise this contract and flag the risks",
    "translate 'good morning' into French, please!",
    "SELECT count(*) FROM orders WHERE total > 100;",
    "Ünïcödé façade — naïve café",
    "天気 tomorrow in Tokyo?",
    "x",
    "unaffable antidisestablishmentarianism",
    "[CLS] [UNK] [MASK] hello",
    "\U0001f600 smile",
    "the " * 511 + "end",
    "the " * 512 + "end",
    "a b c " * 5000,
]


@pytest.fixture(scope="module")
def kernel() -> _kernels.Encoder:
    return _kernels.Encoder(str(SHIPPED))


@pytest.fixture(scope="module")
def oracle() -> ef.StaticEncoder:
    return ef.StaticEncoder.from_path(SHIPPED)


def test_header_read_by_the_kernel_equals_the_oracle(
    kernel: _kernels.Encoder, oracle: ef.StaticEncoder
) -> None:
    assert kernel.id == oracle.file.id
    assert kernel.dim == oracle.header.dim
    assert kernel.max_tokens == oracle.header.max_tokens
    assert kernel.fit_mu == oracle.header.fit_mu
    assert kernel.fit_s == oracle.header.fit_s
    assert kernel.checksum == f"{oracle.file.checksum:016x}"
    assert kernel.about == oracle.file.sections["about"].tobytes().decode()
    assert kernel.pieces() == [piece.decode() for piece in oracle.vocab.pieces]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_embed_of_text_equals_the_oracle(
    kernel: _kernels.Encoder, oracle: ef.StaticEncoder, text: str
) -> None:
    want = oracle.embed_ids(kernel.tokenize(text))
    # 512 float32 sums one after another round more often than a dozen do.
    atol = 1e-5 if len(text) > 1000 else 2e-6
    np.testing.assert_allclose(np.asarray(kernel.embed(text)).ravel(), want, atol=atol)


def test_embed_of_random_words_equals_the_oracle(
    kernel: _kernels.Encoder, oracle: ef.StaticEncoder, rng: np.random.Generator
) -> None:
    pieces = [p.decode() for p in oracle.vocab.pieces[oracle.header.first_row :]]
    for n in rng.integers(1, 60, 200):
        text = " ".join(pieces[i].removeprefix("##") for i in rng.integers(0, len(pieces), n))
        want = oracle.embed_ids(kernel.tokenize(text))
        np.testing.assert_allclose(np.asarray(kernel.embed(text)).ravel(), want, atol=2e-6)


def test_embed_of_a_piece_alone_is_its_row(
    kernel: _kernels.Encoder, oracle: ef.StaticEncoder
) -> None:
    table = oracle.table()
    for text in ("contract", "python", "money", "!"):
        row = table[oracle.vocab.find(text.encode(), oracle.file.sections["vocab.index"])]
        got = np.asarray(kernel.embed(text)).ravel()
        np.testing.assert_allclose(got, row / np.linalg.norm(row), atol=1e-6)


def test_embed_of_a_freshly_packed_encoder_equals_the_oracle(rng: np.random.Generator) -> None:
    pieces = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nplay\n##ing\n##s\nsong\n"
    # A length that is no multiple of a vector register shows what the loops do with the rest.
    header = ef.EncoderHeader(37, 6, 9, 5, 15, 1, 2, 3, 0, ef.NO_ID, -0.5, 2.0)
    rows = (rng.normal(size=(4, 37)) * [[1e-6], [1], [30], [0]]).astype(np.float32)
    data = ef.pack_static_encoder("tiny-1", header, ef.Vocab.from_text(pieces), rows, "é")
    kernel, oracle = _kernels.Encoder(data), ef.StaticEncoder.from_bytes(data)
    assert (kernel.dim, kernel.max_tokens, kernel.about) == (37, 6, "é")
    for text in ("play", "playing songs", "plays plays plays plays", "song", "PLAYING, unknown"):
        want = oracle.embed_ids(kernel.tokenize(text))
        np.testing.assert_allclose(np.asarray(kernel.embed(text)).ravel(), want, atol=2e-6)


@pytest.mark.parametrize("size", [0, 7, 8, 127, 128, 1000, -1])
def test_open_of_a_shortened_file_fails_in_both_readers_alike(size: int) -> None:
    data = SHIPPED.read_bytes()[:size]
    with pytest.raises(ef.EncoderFileError) as expected:
        ef.StaticEncoder.from_bytes(data)
    with pytest.raises(ValueError) as got:
        _kernels.Encoder(data)
    assert str(got.value).splitlines()[0] == str(expected.value)
