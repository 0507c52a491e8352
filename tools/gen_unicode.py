"""Write kernels/src/td_unicode_tables.c: what the tokenizer must know of every code point.

In:  the `tokenizers` package, asked code point by code point through its own normalisers.  Its
     Rust crates mix several Unicode versions, so no Unicode data file would give the same answers.
Out: compact two-stage tables, read through kernels/src/td_unicode.h by kernels/src/td_text.c.
Run by a developer when `tokenizers` changes its answers; `--check` is run by the tests:

    python tools/gen_unicode.py            rewrite the tables
    python tools/gen_unicode.py --check    exit 1 if the committed tables differ, else 0; also 0,
                                           and "skipped", where `tokenizers` is absent
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

OUTPUT = Path(__file__).resolve().parent.parent / "kernels" / "src" / "td_unicode_tables.c"

N_CODE_POINTS = 0x110000
HANGUL = range(0xAC00, 0xD7A4)
DOTTED_CAPITAL_I = 0x130  # the one code point whose lower case is two code points

# Separates code points in one long probe string: it has no case, no decomposition, no mark, and
# nothing else becomes it.  Hiragana letter A.
SEPARATOR = "\u3042"

# Bits of td_unicode_record.flags; td_unicode.h names the same ones.
DROP, SPACE, PUNCT, MARK, CJK, DECOMPOSES = 1, 2, 4, 8, 16, 32

# A block is 1 << this many code points; td_unicode.h says the same.  Chosen for small tables.
RECORD_SHIFT = 7
DECOMPOSITION_SHIFT = 6

VERSION_LINE = " * Answers of tokenizers "


def scalars() -> list[int]:
    """Every Unicode scalar value: all code points but the surrogates."""
    return [c for c in range(N_CODE_POINTS) if not 0xD800 <= c < 0xE000]


def ask(normalise: Callable[[str], str], code_points: Sequence[int]) -> dict[int, str]:
    """What a normaliser makes of each code point alone.

    Args:
        normalise: a function of text that treats the parts between separators independently.
        code_points: scalar values.

    Returns:
        The code points whose result differs from themselves, with their results.

    Raises:
        ValueError: a code point turned into the separator.
    """
    found: dict[int, str] = {}
    for start in range(0, len(code_points), 4096):
        some = [c for c in code_points[start : start + 4096] if chr(c) != SEPARATOR]
        parts = normalise(SEPARATOR + SEPARATOR.join(map(chr, some)) + SEPARATOR).split(SEPARATOR)
        if len(parts) != len(some) + 2 or parts[0] or parts[-1]:
            raise ValueError("a code point turned into the separator")
        found.update((c, p) for c, p in zip(some, parts[1:-1], strict=True) if p != chr(c))
    return found


def combining_classes(nfd: Callable[[str], str], code_points: Sequence[int]) -> dict[int, int]:
    """Canonical combining classes, seen from how a normaliser reorders pairs.

    Args:
        nfd: canonical decomposition.
        code_points: scalar values without a decomposition.

    Returns:
        The class of every code point where it is not 0.

    Raises:
        ValueError: a class for which no early reference character is known.
    """
    # The lowest and the highest class, and one known character for each class between them.
    low, high = "\u0334", "\u0345"
    reference = {unicodedata.combining(low): low, unicodedata.combining(high): high}
    for c in code_points:
        value = unicodedata.combining(chr(c))
        if value and value not in reference and nfd(chr(c) + low) != chr(c) + low:
            reference[value] = chr(c)
    values = sorted(reference)

    def reordered(pairs: list[str]) -> list[bool]:
        parts = nfd(SEPARATOR + SEPARATOR.join(pairs)).split(SEPARATOR)[1:]
        return [part != pair for part, pair in zip(parts, pairs, strict=True)]

    marks: list[int] = []
    for start in range(0, len(code_points), 4096):
        some = [c for c in code_points[start : start + 4096] if chr(c) != SEPARATOR]
        down = reordered([chr(c) + low for c in some])
        up = reordered([high + chr(c) for c in some])
        marks += [c for c, d, u in zip(some, down, up, strict=True) if d or u]

    classes: dict[int, int] = {}
    for c in marks:
        above = reordered([chr(c) + reference[v] for v in values])  # class of c > v
        below = reordered([reference[v] + chr(c) for v in values])  # class of c < v
        equal = [v for v, a, b in zip(values, above, below, strict=True) if not a and not b]
        if len(equal) != 1:
            raise ValueError(f"U+{c:04X} has a combining class without a reference character")
        classes[c] = equal[0]
    return classes


def compact(values: Sequence[int], shift: int) -> tuple[list[int], list[int]]:
    """Share equal blocks of 1 << shift values.

    Returns:
        Block number of each block in order, and the distinct blocks one after the other.
    """
    size = 1 << shift
    known: dict[tuple[int, ...], int] = {}
    first: list[int] = []
    for start in range(0, len(values), size):
        block = tuple(values[start : start + size])
        first.append(known.setdefault(block, len(known)))
    return first, [value for block in known for value in block]


def c_array(declaration: str, values: Sequence[int | str]) -> list[str]:
    """A C array definition, lines of at most 100 columns."""
    lines = [f"const {declaration} = {{"]
    line = "\t"
    for value in values:
        word = f"{value},"
        # The tab counts for four columns.
        if len(line) + 3 + len(word) > 100:
            lines.append(line.rstrip())
            line = "\t"
        line += word + " "
    lines.append(line.rstrip())
    lines.append("};")
    return lines


def generate() -> str:
    """The text of the tables.

    Raises:
        ModuleNotFoundError: `tokenizers` is not installed.
        ValueError: `tokenizers` answers in a way that td_text.c does not provide for.
    """
    import tokenizers
    from tokenizers.normalizers import NFD, BertNormalizer, Lowercase
    from tokenizers.pre_tokenizers import BertPreTokenizer

    def bert(**on: bool) -> Callable[[str], str]:
        off = {
            "clean_text": False,
            "handle_chinese_chars": False,
            "strip_accents": False,
            "lowercase": False,
        }
        return BertNormalizer(**{**off, **on}).normalize_str

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ValueError(f"tokenizers does what td_text.c does not provide for: {what}")

    every = scalars()
    nfd = NFD().normalize_str

    cleaned = ask(bert(clean_text=True), every)
    dropped = {c for c, s in cleaned.items() if s == ""}
    blanked = {c for c, s in cleaned.items() if s == " "} | {0x20}
    require(dropped | blanked == set(cleaned) | {0x20}, "a third outcome of cleaning")

    spaced = ask(bert(handle_chinese_chars=True), every)
    require(all(s == f" {chr(c)} " for c, s in spaced.items()), "other spacing of ideographs")

    lower = ask(Lowercase().normalize_str, every)
    require(lower == ask(bert(lowercase=True), every), "two kinds of lower case")
    require(lower.pop(DOTTED_CAPITAL_I) == "i\u0307", "the lower case of U+0130")
    require(all(len(s) == 1 for s in lower.values()), "a lower case of several code points")

    decomposed = ask(nfd, every)
    for c in HANGUL:
        lead, rest = divmod(c - HANGUL.start, 21 * 28)
        vowel, tail = divmod(rest, 28)
        jamo = chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")
        require(decomposed.pop(c, "") == jamo, "Hangul decomposition")

    # Marks are dropped after decomposition, so only code points that stay themselves can be marks.
    whole = [c for c in every if c not in decomposed and c not in HANGUL]
    unmarked = ask(bert(strip_accents=True), whole)
    require(not any(unmarked.values()), "a mark that is not dropped whole")
    marks = set(unmarked)
    classes = combining_classes(nfd, whole)
    for c, s in decomposed.items():
        stripped = "".join(x for x in s if ord(x) not in marks)
        require(bert(strip_accents=True)(chr(c)) == stripped, "decomposition without its marks")

    spaces: set[int] = set()
    punctuation: set[int] = set()
    pre_tokenize = BertPreTokenizer().pre_tokenize_str
    for start in range(0, len(every), 4096):
        some = every[start : start + 4096]
        text = "a" + "".join(chr(c) + "a" for c in some)
        # Odd positions hold the code points; whatever is missing from the pieces was white space.
        kept = [False] * len(text)
        for piece, (begin, end) in pre_tokenize(text):
            kept[begin:end] = [True] * (end - begin)
            if len(piece) == 1 and begin % 2 == 1:
                punctuation.add(some[begin // 2])
        spaces |= {c for i, c in enumerate(some) if not kept[2 * i + 1]}

    require(blanked <= spaces, "a blank that does not separate words")
    special = spaces | punctuation | set(spaced)
    require(not special & set(classes), "a separator that takes part in reordering")
    require(not set(lower) & set(classes), "lower case of a combining character")
    # So the class of a code point may be looked up before lowering it.
    require(not special & set(lower), "lower case of a separator")
    require(not special & {ord(s) for s in lower.values()}, "a separator as lower case")

    flags = [0] * N_CODE_POINTS
    for bit, members in (
        (DROP, dropped),
        (SPACE, spaces),
        (PUNCT, punctuation),
        (MARK, marks),
        (CJK, set(spaced)),
        (DECOMPOSES, set(decomposed)),
    ):
        for c in members:
            flags[c] |= bit

    # The commonest record, a letter that stays as it is, becomes number 0.
    records: dict[tuple[int, int, int], int] = {(0, 0, 0): 0}
    record_of = [0] * N_CODE_POINTS
    for c in range(N_CODE_POINTS):
        # U+0130 has the simple lower case i; td_text.c appends the dot of the full mapping.
        small = ord(lower[c]) if c in lower else ord("i") if c == DOTTED_CAPITAL_I else c
        record = (small - c, flags[c], classes.get(c, 0))
        record_of[c] = records.setdefault(record, len(records))
    require(len(records) <= 256, "more than 256 kinds of code points")

    pool: list[int] = []
    pool_at: dict[tuple[int, ...], int] = {}
    decomposition_of = [0] * (max(decomposed) + 1)
    for c in sorted(decomposed):
        raw = decomposed[c].encode("utf-16-le")
        units = tuple(int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2))
        if units not in pool_at:
            pool_at[units] = len(pool)
            pool += units
        require(len(units) < 8 and pool_at[units] < 8192, "a longer decomposition")
        decomposition_of[c] = len(units) << 13 | pool_at[units]
    decomposition_of += [0] * (-len(decomposition_of) % (1 << DECOMPOSITION_SHIFT))

    stage1, stage2 = compact(record_of, RECORD_SHIFT)
    require(max(stage1) < 256, "more than 256 blocks of records")
    d_stage1, d_stage2 = compact(decomposition_of, DECOMPOSITION_SHIFT)
    require(max(d_stage1) < 256, "more than 256 blocks of decompositions")

    size = (
        len(stage1)
        + len(stage2)
        + 8 * len(records)
        + len(d_stage1)
        + 2 * len(d_stage2)
        + 2 * len(pool)
    )
    lines = [
        "/*",
        " * td_unicode_tables.c - what the tokenizer must know of every code point.",
        " *",
        " * Generated by tools/gen_unicode.py; edit that, not this.  Two-stage tables, "
        f"{size} bytes,",
        " * read through td_unicode.h by td_text.c.",
        f"{VERSION_LINE}{tokenizers.__version__}.",
        " */",
        '#include "td_unicode.h"',
        "",
        "/* clang-format off */",
    ]
    rows = [f"{{{delta}, {bits}, {order}}}" for delta, bits, order in records]
    lines += c_array("td_unicode_record td_unicode_records[]", rows)
    lines.append("")
    lines += c_array("uint8_t td_unicode_stage1[]", stage1)
    lines.append("")
    lines += c_array("uint8_t td_unicode_stage2[]", stage2)
    lines.append("")
    limit = len(decomposition_of)
    lines.append(f"const uint32_t td_unicode_decomposition_limit = 0x{limit:X};")
    lines.append("")
    lines += c_array("uint8_t td_unicode_decomposition_stage1[]", d_stage1)
    lines.append("")
    lines += c_array("uint16_t td_unicode_decomposition_stage2[]", d_stage2)
    lines.append("")
    lines += c_array("uint16_t td_unicode_decomposition_pool[]", pool)
    lines.append("/* clang-format on */")
    return "\n".join(lines) + "\n"


def without_version(text: str) -> list[str]:
    """The lines of a table file but the one that names the version asked."""
    return [line for line in text.splitlines() if not line.startswith(VERSION_LINE)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description="generate the kernel's Unicode tables")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args(arguments)
    try:
        text = generate()
    except ModuleNotFoundError as error:
        if not options.check:
            raise
        print(f"skipped: {error.name} is not installed")
        return 0
    if not options.check:
        OUTPUT.write_text(text, encoding="ascii")
        print(f"{OUTPUT.name}: {len(text)} characters")
        return 0
    committed = OUTPUT.read_text(encoding="ascii")
    if without_version(committed) != without_version(text):
        print(f"{OUTPUT.name} differs from what tools/gen_unicode.py writes", file=sys.stderr)
        return 1
    print(f"{OUTPUT.name} is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
