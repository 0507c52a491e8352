"""Word pieces and folding: td_text.c against Hugging Face's `tokenizers`, id for id.

In: the vocabulary inside the committed encoder, and an "alphabet": pieces for every character that
any text can turn into by lower case or decomposition, so that what a word became shows in its ids
where the ordinary vocabulary would only say [UNK].  Out: no differences.  `tokenizers` gets whole
batches; where it is absent its tests are skipped and the written-out answers remain.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydancer import _kernels, encoder_file
from tinydancer.errors import TextEncodingError

ROOT = Path(__file__).resolve().parents[2]
ENCODER = ROOT / "python" / "tinydancer" / "encoders" / "static-1.tdenc"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALL_FLAGS = 15

# Under a sanitizer every allocation of `tokenizers` is slow too, and its answers are known by then.
SANITIZED = "TINYDANCER_SANITIZED" in os.environ
N_RANDOM = 5_000 if SANITIZED else 110_000

LOWERCASE = encoder_file.FLAG_LOWERCASE
STRIP_ACCENTS = encoder_file.FLAG_STRIP_ACCENTS
SPLIT_CJK = encoder_file.FLAG_SPLIT_CJK
CLEAN = encoder_file.FLAG_CLEAN

SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
EVERY = SCALARS[::16] if SANITIZED else SCALARS
HANGUL = range(0xAC00, 0xD7A4)
MARKS = [c for c in SCALARS if unicodedata.category(chr(c)).startswith("M")]
COMBINING = [c for c in MARKS if unicodedata.combining(chr(c))]
DECOMPOSING = [
    c for c in SCALARS if c not in HANGUL and unicodedata.normalize("NFD", chr(c)) != chr(c)
]
CASED = [c for c in SCALARS if chr(c).lower() != chr(c)]

# White space, controls, formats and other points where libraries disagree.
ODD = [
    *range(0x21),
    *range(0x7F, 0xA1),
    *(0xAD, 0x130, 0x345, 0x34F, 0x61C, 0xF71, 0xF72, 0x180E, 0x1E9E),
    *range(0x2000, 0x2010),
    *range(0x2028, 0x2030),
    *(0x205F, 0x2060, 0x3000, 0x302E, 0x302F, 0xFE0F, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF, 0xE000),
    *(0x1D165, 0x1D16D, 0xE0001, 0xE0100, 0xF0000, 0x10FFFD, 0x10FFFF),
]
# First, last and just outside, of every range of ideographs.
IDEOGRAPHS = [
    point
    for first, last in (
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF),
        (0x20000, 0x2A6DF),
        (0x2A700, 0x2B73F),
        (0x2B740, 0x2B81F),
        (0x2B820, 0x2CEAF),
        (0x2F800, 0x2FA1F),
    )
    for point in (first - 1, first, last, last + 1)
]
# The last code points before, and the first behind, those that only UTF-16 has.
NEAR_SURROGATES = [0xD7A3, 0xD7FB, 0xD7FC, 0xD7FE, 0xD7FF, 0xE000, 0xE001, 0xF8FF]
SURROGATES = range(0xD800, 0xE000)
EMOJI = [0x1F468, 0x1F469, 0x1F467, 0x200D, 0xFE0F, 0x1F3FB, 0x2764, 0x1F1E6, 0x1F1FA, 0x1F3F4]
# Joined, with skin tones and variation selectors, flags of two letters and of tags, key caps.
SEQUENCES = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f469\U0001f3fd\u200d\U0001f4bb",
    "\u2764\ufe0f\u200d\U0001f525",
    "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1eb\U0001f1f7",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "1\ufe0f\u20e3",
    "\U0001f9d1\U0001f3fb\u200d\U0001f91d\u200d\U0001f9d1\U0001f3ff",
]
HAN = [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0x20000, 0x2A6E0)]
JAMO = [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3)]
NEAR_SPECIALS = [*SPECIALS, "[CLS", "MASK]", "[[MASK]]", "[mask]", "[ SEP]", "##", "##a", "[\0CLS]"]


def encoder_with(
    pieces: Sequence[str], flags: int, specials: Sequence[str] = SPECIALS
) -> _kernels.Encoder:
    """An encoder of nothing but a vocabulary; one dimension, no vectors of use."""
    pad, unk, cls, sep, mask = (pieces.index(name) for name in specials)
    header = encoder_file.EncoderHeader(
        dim=1,
        max_tokens=16,
        vocab_size=len(pieces),
        first_row=len(pieces) - 1,
        flags=flags,
        unk_id=unk,
        cls_id=cls,
        sep_id=sep,
        pad_id=pad,
        mask_id=mask,
        fit_mu=0.5,
        fit_s=0.1,
    )
    vocab = encoder_file.Vocab.from_text("\n".join(pieces))
    rows = np.ones((1, 1), np.float32)
    return _kernels.Encoder(encoder_file.pack_static_encoder("test", header, vocab, rows, "test"))


def oracle_with(pieces: Sequence[str], flags: int, specials: Sequence[str] = SPECIALS) -> Any:
    """The same tokenizer made by `tokenizers`, or a skip."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed (make dev)")
    oracle = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {piece: i for i, piece in enumerate(pieces)},
            unk_token=specials[1],
            max_input_chars_per_word=100,
        )
    )
    oracle.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=bool(flags & CLEAN),
        handle_chinese_chars=bool(flags & SPLIT_CJK),
        strip_accents=bool(flags & STRIP_ACCENTS),
        lowercase=bool(flags & LOWERCASE),
    )
    oracle.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    # As tokenizer.json has them: special, and found in the raw text.
    oracle.add_special_tokens(
        [tokenizers.AddedToken(name, normalized=False, special=True) for name in specials]
    )
    return oracle


def assert_equal_ids(encoder: _kernels.Encoder, oracle: Any, texts: Sequence[str]) -> None:
    """No text gives other ids, or another count, than the oracle says."""
    pieces: list[str] = []
    wrong = []
    for start in range(0, len(texts), 10_000):
        batch = texts[start : start + 10_000]
        for text, expected in zip(
            batch, oracle.encode_batch(batch, add_special_tokens=False), strict=True
        ):
            ids = encoder.tokenize(text).tolist()
            if ids != expected.ids or encoder.count_tokens(text) != len(ids):
                pieces = pieces or encoder.pieces()
                wrong.append(
                    f"{text[:200]!a}\n  got      {[pieces[i] for i in ids[:40]]}"
                    f"\n  expected {expected.tokens[:40]}"
                )
    assert not wrong, f"{len(wrong)} of {len(texts)} texts differ:\n" + "\n".join(wrong[:10])


@pytest.fixture(scope="module")
def shipped() -> _kernels.Encoder:
    return _kernels.Encoder(ENCODER)


@pytest.fixture(scope="module")
def alphabet() -> list[str]:
    """Pieces of one character for all that texts turn into, at the start and inside of words."""
    points = {*range(0x21, 0x250), *MARKS, *CASED, *JAMO, *EMOJI, *IDEOGRAPHS}
    points |= {c for c in ODD if chr(c) not in "\n\r"}
    for c in [*DECOMPOSING, *CASED]:
        for form in (chr(c), chr(c).lower()):
            points |= {ord(part) for part in form + unicodedata.normalize("NFD", form)}
            points |= {ord(part) for part in unicodedata.normalize("NFD", form).lower()}
    characters = [chr(c) for c in sorted(points)]
    # Single characters first: where a table ends, a word of 100 of them is not [UNK].
    return [*SPECIALS, *characters, *(f"##{character}" for character in characters)]


class TextMaker:
    """Seeded texts of the kinds that break tokenizers."""

    def __init__(self, seed: int, words: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.words = words
        ascii_points = list(range(0x20, 0x7F))
        self.pools = [
            *(ascii_points, ascii_points, ascii_points, ODD, MARKS, COMBINING, COMBINING),
            *(DECOMPOSING, CASED, [*JAMO, *HANGUL[:80]], IDEOGRAPHS, EMOJI, SCALARS),
            *(HANGUL, HAN, NEAR_SURROGATES),
            *(list(range(0x80, 0x600)), list(range(0x900, 0x1100)), list(range(0x1E00, 0x2100))),
        ]

    def points(self, count: int, kinds: int = 4) -> str:
        pool = self.random.choice(self.pools)
        some = [self.random.choice(pool) for _ in range(min(kinds, count))]
        return "".join(chr(self.random.choice(some)) for _ in range(count))

    def long_word(self) -> str:
        """Next to the limit of 100 characters, counted after decomposition."""
        text = self.points(self.random.randint(97, 103), kinds=3)
        cut = self.random.randrange(len(text))
        return text[:cut] + self.points(1) + text[cut:]

    def sentence(self) -> str:
        glue = [" ", " ", " ", "", "-", "'", "\n", "\u200b", "\u0301", ". "]
        return "".join(
            self.random.choice(self.words) + self.random.choice(glue)
            for _ in range(self.random.randint(1, 10))
        )

    def joined(self) -> str:
        """An emoji of several code points, whole or cut short."""
        text = self.random.choice(SEQUENCES)
        return text[: self.random.randint(1, len(text))] if self.random.random() < 0.3 else text

    def mixture(self) -> str:
        parts = []
        for _ in range(self.random.randint(1, 12)):
            kind = self.random.random()
            if kind < 0.08:
                parts.append(self.random.choice(NEAR_SPECIALS))
            elif kind < 0.12:
                parts.append(self.joined())
            elif kind < 0.2:
                parts.append(self.random.choice(self.words))
            else:
                parts.append(self.points(self.random.randint(1, 4)))
        return "".join(parts)

    def texts(self, count: int) -> list[str]:
        makers = [self.long_word, self.sentence, *[self.mixture] * 8]
        return [self.random.choice(makers)() for _ in range(count)]


@pytest.fixture(scope="module")
def maker(shipped: _kernels.Encoder, request: pytest.FixtureRequest) -> TextMaker:
    words = [piece for piece in shipped.pieces() if piece.isalpha()]
    return TextMaker(request.config.getoption("--seed"), words)


def in_groups(texts: Iterable[str], count: int) -> list[str]:
    """Texts joined by blanks, which end words and runs of marks; fewer and longer calls."""
    every = list(texts)
    return [" ".join(every[start : start + count]) for start in range(0, len(every), count)]


# ------------------------------------------------------------------ against tokenizers


@pytest.mark.parametrize("vocabulary", ["shipped", "alphabet"])
def test_tokenize_every_code_point_alone_equals_tokenizers(
    vocabulary: str, request: pytest.FixtureRequest
) -> None:
    encoder, oracle = both(vocabulary, request)
    assert_equal_ids(encoder, oracle, in_groups((chr(c) for c in EVERY), 64))


@pytest.mark.parametrize("vocabulary", ["shipped", "alphabet"])
def test_tokenize_every_code_point_inside_a_word_equals_tokenizers(
    vocabulary: str, request: pytest.FixtureRequest
) -> None:
    # Between marks of high and low class that are kept, so that reordering shows.
    encoder, oracle = both(vocabulary, request)
    words = (f"a{chr(c)}b\u302e{chr(c)}\u0327\u1d16\u302f{chr(c)}c" for c in EVERY)
    assert_equal_ids(encoder, oracle, in_groups(words, 64))


def both(vocabulary: str, request: pytest.FixtureRequest) -> tuple[_kernels.Encoder, Any]:
    """The encoder and the oracle of a vocabulary by name."""
    if vocabulary == "shipped":
        encoder = request.getfixturevalue("shipped")
        return encoder, oracle_with(encoder.pieces(), ALL_FLAGS)
    pieces = request.getfixturevalue("alphabet")
    return encoder_with(pieces, ALL_FLAGS), oracle_with(pieces, ALL_FLAGS)


@pytest.mark.parametrize("vocabulary", ["shipped", "alphabet"])
def test_tokenize_random_texts_equals_tokenizers(
    vocabulary: str, maker: TextMaker, request: pytest.FixtureRequest
) -> None:
    encoder, oracle = both(vocabulary, request)
    assert_equal_ids(encoder, oracle, maker.texts(N_RANDOM))


def test_random_texts_hold_every_kind_in_numbers(maker: TextMaker) -> None:
    kinds = {
        "combining marks": set(map(chr, COMBINING)),
        "ideographs": set(map(chr, HAN)),
        "Hangul": set(map(chr, [*JAMO, *HANGUL])),
        "joined emoji": {"\u200d"},
        "control characters": {chr(c) for c in SCALARS if unicodedata.category(chr(c)) == "Cc"},
        "neighbours of surrogates": {"\ud7ff", "\ue000"},
        "special tokens": {"["},
    }
    texts = maker.texts(20_000)
    for kind, members in kinds.items():
        assert sum(not members.isdisjoint(text) for text in texts) > 200, kind
    long = [text for text in texts if any(len(word) > 100 for word in text.split())]
    assert len(long) > 200


def test_text_with_surrogates_is_refused_and_the_first_is_named(
    shipped: _kernels.Encoder, maker: TextMaker
) -> None:
    for text in maker.texts(N_RANDOM // 20):
        cut = maker.random.randint(0, len(text))
        # Alone, in the order of UTF-16, or the other way round.
        some = "".join(
            chr(maker.random.choice(SURROGATES)) for _ in range(maker.random.choice((1, 2)))
        )
        broken = text[:cut] + some + text[cut:]
        for call in (shipped.tokenize, shipped.count_tokens, shipped.embed, _kernels.fold):
            with pytest.raises(TextEncodingError) as caught:
                call(broken)
            assert caught.value.detail == f"Character {cut + 1} is a lone surrogate."


def test_malformed_bytes_read_with_surrogateescape_are_refused(
    shipped: _kernels.Encoder, maker: TextMaker
) -> None:
    refused = 0
    for text in maker.texts(N_RANDOM // 20):
        data = bytearray(text.encode())
        for _ in range(maker.random.randint(1, 3)):
            at = maker.random.randrange(len(data))
            data[at] = maker.random.randrange(256)
        try:
            again = data.decode("utf-8")
        except UnicodeDecodeError:
            refused += 1
            with pytest.raises(TextEncodingError):
                shipped.tokenize(data.decode("utf-8", "surrogateescape"))
        else:
            shipped.tokenize(again)
    assert refused > N_RANDOM // 100


@pytest.mark.parametrize("flags", range(ALL_FLAGS))
def test_tokenize_with_other_flags_equals_tokenizers(
    flags: int, alphabet: list[str], maker: TextMaker
) -> None:
    texts = maker.texts(N_RANDOM // 100)
    texts += in_groups((f"a{chr(c)}\u0301b" for c in [*ODD, *DECOMPOSING, *CASED]), 64)
    assert_equal_ids(encoder_with(alphabet, flags), oracle_with(alphabet, flags), texts)


@pytest.mark.parametrize("vocabulary", ["shipped", "alphabet"])
def test_tokenize_words_round_the_limit_equals_tokenizers(
    vocabulary: str, request: pytest.FixtureRequest
) -> None:
    encoder, oracle = both(vocabulary, request)
    # One, two, three and four bytes; one that doubles, one that triples, one that vanishes.
    letters = "aéßИ\u0915中\U0001d400\U0001f600한각\u302e\u0301\u200bİ"
    texts = [
        before + letter * n + after
        for letter in letters
        for n in (*range(31, 36), *range(48, 53), *range(98, 103), 1000)
        for before in ("", "x", "[MASK]", "\u0301")
        for after in ("", "y", "[MASK]", "\u0327", " z", "!")
    ]
    assert_equal_ids(encoder, oracle, texts)


def test_tokenize_special_tokens_in_odd_places_equals_tokenizers(
    shipped: _kernels.Encoder, maker: TextMaker
) -> None:
    texts = [
        before + name + after
        for name in NEAR_SPECIALS
        for before in ("", "a", " ", "[", "[CLS", "中", "a\u0301", "\u302e", *SPECIALS)
        for after in ("", "a", " ", "]", "[", "\u0301", "\u302e", "中", *SPECIALS)
    ]
    # Every way to cut two special tokens short and put them together.
    texts += [
        first[:i] + second[j:]
        for first in SPECIALS
        for second in SPECIALS
        for i in range(len(first) + 1)
        for j in range(len(second) + 1)
    ]
    assert_equal_ids(shipped, oracle_with(shipped.pieces(), ALL_FLAGS), texts)


def test_tokenize_special_tokens_that_overlap_equals_tokenizers(maker: TextMaker) -> None:
    # Letters, several bytes, one the beginning of another, one the end of another.
    specials = ["ab", "abé<", "é<", "<中", "abé<中ab"]
    pieces = [*specials, *"abxé<>中", "##a", "##b", "##x", "e", "##e"]
    texts = [
        "".join(maker.random.choice([*specials, *"abxé<中 ", "e\u0301", "ABÉ"]) for _ in range(9))
        for _ in range(2000)
    ]
    encoder = encoder_with(pieces, ALL_FLAGS, specials)
    assert_equal_ids(encoder, oracle_with(pieces, ALL_FLAGS, specials), texts)


def test_tokenize_megabytes_equals_tokenizers(shipped: _kernels.Encoder, maker: TextMaker) -> None:
    texts = ["a" * 1_000_000, "\u302e" * 400_000, "!" * 200_000, " " * 1_000_000]
    texts.append(" ".join(maker.texts(N_RANDOM // 20)))
    assert_equal_ids(shipped, oracle_with(shipped.pieces(), ALL_FLAGS), texts)


def every_string(value: Any) -> Iterator[str]:
    """The strings in a JSON value, names of its entries included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from every_string(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from every_string(one)


def test_tokenize_real_data_equals_tokenizers(shipped: _kernels.Encoder, shared: Path) -> None:
    found: dict[str, None] = {}
    for path in sorted(shared.glob("**/*.json*")):
        content = path.read_text(encoding="utf-8")
        # splitlines() would also split at U+2028 and U+0085, which stand in some requests.
        rows = [content] if path.suffix == ".json" else content.rstrip("\n").split("\n")
        for row in rows:
            found.update(dict.fromkeys(every_string(json.loads(row))))
    texts = list(found)
    assert len(texts) > 10_000
    if SANITIZED:
        texts = texts[::20]
    assert_equal_ids(shipped, oracle_with(shipped.pieces(), ALL_FLAGS), texts)


# ------------------------------------------------------------------ written-out answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n\u3000\u200b\0", []),
        ("unaffable", ["una", "##ffa", "##ble"]),
        ("It's HIGH-end!", ["it", "'", "s", "high", "-", "end", "!"]),
        ("Café İstanbul", ["cafe", "istanbul"]),
        ("a\u0301\u0327\u200bb", ["ab"]),
        ("我人", ["我", "人"]),
        ("한", ["ᄒ", "##ᅡ", "##ᆫ"]),
        ("x[MASK]y [mask]", ["x", "[MASK]", "y", "[", "mask", "]"]),
        ("[[SEP]]", ["[", "[SEP]", "]"]),
        ("a\x85b\u2028c", ["ab", "c"]),
        ("\U0001fadf ok", ["[UNK]", "ok"]),
        ("a" * 101, ["[UNK]"]),
        ("é" * 101 + " the", ["[UNK]", "the"]),
        ("a##b", ["a", "#", "#", "b"]),
    ],
)
def test_tokenize_written_out_text_gives_written_out_pieces(
    shipped: _kernels.Encoder, text: str, expected: list[str]
) -> None:
    pieces = shipped.pieces()
    assert [pieces[i] for i in shipped.tokenize(text)] == expected
    assert shipped.count_tokens(text) == len(expected)


def test_tokenize_100_characters_is_not_unknown(shipped: _kernels.Encoder) -> None:
    pieces = shipped.pieces()
    for letter in "aé":
        got = [pieces[i] for i in shipped.tokenize(letter * 100)]
        plain = unicodedata.normalize("NFD", letter)[0]
        assert "".join(got).replace("##", "") == plain * 100


# ------------------------------------------------------------------ folding


def test_fold_every_code_point_gives_its_simple_lower_case() -> None:
    # Python's Unicode may be older than the tables; case mappings, once there, never change.
    known = [c for c in SCALARS if chr(c).lower() != chr(c) and c != 0x130]
    assert all(len(chr(c).lower()) == 1 for c in known)
    assert _kernels.fold(" ".join(map(chr, known))) == " ".join(chr(c).lower() for c in known)
    kept = [c for c in SCALARS if chr(c).lower() == chr(c) and unicodedata.category(chr(c)) != "Cn"]
    assert [c for c in kept if _kernels.fold(chr(c)) != chr(c)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("Straße ΑΣ", "straße ασ"),
        ("İI\0", "ii\0"),
        ("ȺȾ" * 1000, "ⱥⱦ" * 1000),
        ("\U00010400Ǆǅ", "\U00010428ǆǆ"),
    ],
)
def test_fold_text_gives_lower_case_without_context(text: str, expected: str) -> None:
    assert _kernels.fold(text) == expected


def test_fold_twice_equals_once(maker: TextMaker) -> None:
    for text in maker.texts(2000):
        once = _kernels.fold(text)
        assert _kernels.fold(once) == once


# ------------------------------------------------------------------ tables


@pytest.mark.skipif(SANITIZED, reason="asks no kernel code")
def test_unicode_tables_generated_again_are_the_committed_ones() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_unicode.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
