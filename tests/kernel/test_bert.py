"""The BERT encoder of the kernel: against the NumPy oracle, and against itself on every level.

In: small models with random weights, packed as the converter packs real ones.  The oracle
quantises as the kernel does but adds floats in another order, so the two agree to a cosine; levels,
batches and threads of the kernel agree to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinydancer import _kernels
from tinydancer import encoder_bert as eb
from tinydancer import encoder_file as ef
from tinydancer.errors import EmptyRequestError, FileFormatError, InvalidInputError

LEVELS = _kernels.LEVELS[: _kernels.LEVELS.index(_kernels.BEST_LEVEL) + 1]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]

# dim, layers, heads, inner, word pieces, pooling: head sizes 16, 32, 48 and 64, one vector and two.
SHAPES = [
    eb.BertShape(64, 1, 4, 64, 6, 0, 1e-12),
    eb.BertShape(64, 3, 2, 256, 70, 1, 1e-12),
    eb.BertShape(192, 2, 4, 320, 40, 0, 1e-5),
    eb.BertShape(128, 2, 2, 128, 130, 0, 1e-12),
]


def random_encoder(rng: np.random.Generator, shape: eb.BertShape) -> bytes:
    """The file of a model with random weights of the size that training gives."""
    dim, inner = shape.dim, shape.n_inner

    def norm() -> np.ndarray:
        gain, bias = rng.normal(1, 0.1, dim), rng.normal(0, 0.1, dim)
        return np.stack([gain, bias]).astype(np.float32)

    weights, biases, norms = {}, {}, {}
    for layer in range(shape.n_layers):
        sizes = {"qkv": (3 * dim, dim), "out": (dim, dim), "up": (inner, dim), "down": (dim, inner)}
        for name, size in sizes.items():
            # A few weights stand out, as in real models.
            matrix = rng.normal(0, 0.08, size) * np.where(rng.random(size) < 0.002, 6, 1)
            weights[f"{layer:02}.{name}"] = matrix.astype(np.float32)
            biases[f"{layer:02}.{name}"] = rng.normal(0, 0.05, size[0]).astype(np.float32)
        norms |= {f"{layer:02}.norm1": norm(), f"{layer:02}.norm2": norm()}
    model = eb.BertModel(
        shape,
        rng.normal(0, 0.08, (len(PIECES), dim)).astype(np.float32),
        rng.normal(0, 0.08, (shape.max_tokens + 2, dim)).astype(np.float32),
        norm(),
        weights,
        biases,
        norms,
    )
    header = ef.EncoderHeader(
        dim, shape.max_tokens, len(PIECES), 0, 15, 1, 2, 3, 0, 4, fit_mu=0.3, fit_s=0.05
    )
    vocab = ef.Vocab.from_text("\n".join(PIECES))
    return eb.pack_bert_encoder("random-1", header, vocab, model, "random weights")


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape.dim}x{shape.n_layers}")
def packed(request: pytest.FixtureRequest) -> bytes:
    rng = np.random.default_rng(request.config.getoption("--seed"))
    return random_encoder(rng, request.param)


@pytest.fixture(scope="module")
def small(request: pytest.FixtureRequest) -> bytes:
    rng = np.random.default_rng(request.config.getoption("--seed"))
    return random_encoder(rng, SHAPES[0])


def random_texts(rng: np.random.Generator, most: int) -> list[str]:
    """Texts of 1 to ``most`` letters, each a word piece; every length near a chunk's is likely."""
    lengths = [1, 2, most, *rng.integers(1, most + 1, 30), *rng.integers(1, 9, 30)]
    return [" ".join(rng.choice(list(LETTERS), n)) for n in lengths]


def bits(vectors: np.ndarray) -> np.ndarray:
    return vectors.view(np.uint32)


def test_vectors_equal_those_of_the_oracle(packed: bytes, rng: np.random.Generator) -> None:
    kernel, oracle = _kernels.Encoder(packed), eb.BertEncoder.from_bytes(packed)
    kernel.verify()
    texts = random_texts(rng, kernel.max_tokens + 5)
    ours = kernel.embed(texts)
    theirs = np.stack([oracle.embed_ids(kernel.tokenize(text)) for text in texts])
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < 1e-6
    assert (ours * theirs).sum(axis=1).min() > 0.9999
    # And are not all alike, which would satisfy any cosine.
    assert np.median(ours @ ours.T) < 0.99


@pytest.mark.parametrize("level", LEVELS)
def test_level_gives_the_bits_of_portable_code(
    packed: bytes, rng: np.random.Generator, level: str
) -> None:
    texts = random_texts(rng, 60)
    portable = _kernels.Encoder(packed, level="portable")
    other = _kernels.Encoder(packed, level=level)
    assert (portable.level, other.level) == ("portable", level)
    np.testing.assert_array_equal(bits(portable.embed(texts)), bits(other.embed(texts)))


def test_vector_does_not_depend_on_company_or_threads(
    packed: bytes, rng: np.random.Generator
) -> None:
    encoder = _kernels.Encoder(packed)
    texts = random_texts(rng, 90) * 3
    alone = np.concatenate([encoder.embed(text) for text in texts])
    np.testing.assert_array_equal(bits(alone), bits(encoder.embed(texts)))
    np.testing.assert_array_equal(bits(alone), bits(encoder.embed(texts, threads=3)))
    info = [encoder.embed_info(text) for text in texts]
    np.testing.assert_array_equal(bits(alone), bits(np.stack([vector for vector, *_ in info])))


def test_long_text_is_read_up_to_the_limit(packed: bytes) -> None:
    encoder = _kernels.Encoder(packed)
    most = encoder.max_tokens
    vector, n_tokens, n_used, n_known = encoder.embed_info("a b " * most)
    assert (n_tokens, n_used, n_known) == (2 * most, most, most)
    cut = encoder.embed(" ".join((["a", "b"] * most)[:most]))
    np.testing.assert_array_equal(bits(vector), bits(cut[0]))


def test_unknown_words_have_the_vector_of_unk(packed: bytes) -> None:
    encoder = _kernels.Encoder(packed)
    vector, n_tokens, n_used, n_known = encoder.embed_info("天 地")
    assert (n_tokens, n_used, n_known) == (2, 2, 0)
    assert abs(np.linalg.norm(vector) - 1) < 1e-6


@pytest.mark.parametrize("at", [0, 1, 17, 63])
def test_empty_text_among_others_is_named(packed: bytes, at: int) -> None:
    texts = ["a b c"] * 64
    texts[at] = " \t\n"
    with pytest.raises(EmptyRequestError) as raised:
        _kernels.Encoder(packed).embed(texts)
    assert f"Text {at + 1} of 64" in str(raised.value.detail)


def test_unknown_level_is_refused(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match='unknown kernel level "mmx"'):
        _kernels.Encoder(small, level="mmx")
    monkeypatch.setenv("TINYDANCER_KERNEL_LEVEL", "portable")
    assert _kernels.Encoder(small).level == "portable"
    monkeypatch.setenv("TINYDANCER_KERNEL_LEVEL", "3dnow")
    with pytest.raises(InvalidInputError, match='unknown kernel level "3dnow"'):
        _kernels.Encoder(small)


# ---------------------------------------------------------------- files that lie


def changed(packed: bytes, change: Callable[[dict[str, np.ndarray]], None]) -> bytes:
    """The file with other sections, and a checksum that fits them."""
    file = ef.unpack_file(packed)
    sections = {name: np.array(array) for name, array in file.sections.items()}
    change(sections)
    return ef.pack_file(file.kind, file.id, sections)


def test_pair_of_weights_too_large_for_avx2_fails_verification(small: bytes) -> None:
    def enlarge(sections: dict[str, np.ndarray]) -> None:
        weights = sections["00.up.weight"]
        before = weights[:2].astype(np.int32).sum()
        weights[:2] = 127, 2
        sections["00.up.sum"][0] += 129 - before

    encoder = _kernels.Encoder(changed(small, enlarge))
    with pytest.raises(FileFormatError, match="file is corrupt"):
        encoder.verify()
    assert np.isfinite(encoder.embed(["a b c"])).all()


def test_wrong_sum_fails_verification(small: bytes) -> None:
    def falsify(sections: dict[str, np.ndarray]) -> None:
        sections["00.down.sum"][-1] += 1

    with pytest.raises(FileFormatError, match="file is corrupt"):
        _kernels.Encoder(changed(small, falsify)).verify()


@pytest.mark.parametrize("value", [0, 1, 3, 25, 2**16, 2**31, 2**32 - 1])
@pytest.mark.parametrize("position", range(6))
def test_any_figure_of_the_shape_is_refused_or_safe(
    small: bytes, position: int, value: int
) -> None:
    def falsify(sections: dict[str, np.ndarray]) -> None:
        sections["bert"][position] = value

    try:
        encoder = _kernels.Encoder(changed(small, falsify))
    except FileFormatError as error:
        assert error.message == "file is corrupt"
    else:
        encoder.embed(["a b c", "d"])


@pytest.mark.parametrize(
    "name",
    ["bert", "bert.word", "bert.word.scale", "bert.position", "bert.norm", "00.qkv.weight"]
    + [f"00.{matrix}.{part}" for matrix in ("out", "up", "down") for part in ("scale", "sum")]
    + ["00.norm1", "00.norm2", "00.qkv.bias"],
)
def test_section_missing_or_short_is_refused(small: bytes, name: str) -> None:
    def drop(sections: dict[str, np.ndarray]) -> None:
        del sections[name]

    def cut(sections: dict[str, np.ndarray]) -> None:
        sections[name] = sections[name].reshape(-1)[:-1]

    def retype(sections: dict[str, np.ndarray]) -> None:
        sections[name] = sections[name].reshape(-1).view(np.uint8)

    for change in (drop, cut, retype):
        with pytest.raises(FileFormatError, match="file is corrupt"):
            _kernels.Encoder(changed(small, change))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["bert.norm", "00.qkv.scale", "00.up.bias", "bert.position"])
def test_wild_number_gives_an_error_or_a_finite_vector(
    small: bytes, name: str, value: float
) -> None:
    def falsify(sections: dict[str, np.ndarray]) -> None:
        sections[name][::3] = value

    encoder = _kernels.Encoder(changed(small, falsify))
    try:
        vectors = encoder.embed(["a b c", "d e f g h"])
    except InvalidInputError as error:
        assert error.message == _kernels.status_text(4)
    else:
        assert np.isfinite(vectors).all()
