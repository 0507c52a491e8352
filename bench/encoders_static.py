"""How long the static encoder takes for a text, and how much longer model2vec's ``encode()`` takes.

Both hold the same table and the same vocabulary: model2vec's class gets the rows of the committed
encoder file, so its own code is what is timed.  One thread on one processor; every round embeds the
same texts with both, one text a call and many in one call.  Figures are medians: of the calls of a
round, then of the rounds, so that a call during which something else ran does not count.  The floor
is one read of the rows of a text's pieces and of the text.

    make build/bench-packages/.done
    .venv/bin/python bench/encoders_static.py [--rounds 41] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import random
import re
import site
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures
import numpy as np
from figures import PACKAGES, ROOT, Figure
from machine import aligned, reader

from tinydancer import Encoder, encoder_file

WORD_COUNTS = (12, 200)
N_TEXTS = 256
TEXTS_A_CALL = (1, 32)
FLOOR_READS = 64  # in one call, which costs more than a read


def sample_texts(n_words: int) -> list[str]:
    """Texts of ``n_words`` words each, cut out of the project's own documents."""
    pages = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    words = [w for page in pages for w in re.findall(r"[A-Za-z']+", page.read_text("utf-8"))]
    rng = random.Random(n_words)
    starts = [rng.randrange(len(words) - n_words) for _ in range(N_TEXTS)]
    return [" ".join(words[i : i + n_words]) for i in starts]


def model2vec_of(path: Path) -> Any:
    """model2vec's StaticModel with the table and the vocabulary of an encoder file."""
    from model2vec import StaticModel
    from tokenizers import BertWordPieceTokenizer

    encoder = encoder_file.StaticEncoder.from_path(path)
    vocab = {piece.decode(): i for i, piece in enumerate(encoder.vocab.pieces)}
    tokenizer = BertWordPieceTokenizer(vocab=vocab, lowercase=True)._tokenizer
    return StaticModel(encoder.table(), tokenizer, normalize=True)


def microseconds(embed: Callable[[list[str]], object], calls: list[list[str]]) -> float:
    """Time per text, the median of the calls."""
    times = []
    for texts in calls:
        start = time.perf_counter_ns()
        embed(texts)
        times.append((time.perf_counter_ns() - start) / 1000 / len(texts))
    return statistics.median(times)


def measure(rounds: int) -> list[dict[str, float | int]]:
    """One row for each length of text and each number of texts in a call."""
    encoder = Encoder.load("static")
    assert encoder.path is not None
    encode = functools.partial(model2vec_of(Path(encoder.path)).encode, use_multiprocessing=False)
    result: list[dict[str, float | int]] = []
    for n_words in WORD_COUNTS:
        texts = sample_texts(n_words)
        ours, theirs = encoder.embed(texts), encode(texts)
        # Not a race against something else: both have to arrive at the same vectors.
        assert np.abs(ours - theirs).max() < 1e-4
        pieces = statistics.mean(len(encoder.tokenize(text)) for text in texts)
        for n in TEXTS_A_CALL:
            calls = [texts[i : i + n] for i in range(0, N_TEXTS, n)]
            # A byte for each element, one for the row's scale; what a call reads, for each text.
            size = int(pieces * (encoder.dim + 1) + statistics.mean(map(len, texts)))
            read = reader(aligned(np.ones(n * size + 256, dtype=np.uint8)), FLOOR_READS)
            us: list[float] = []
            ratio: list[float] = []
            floor: list[float] = []
            for _ in range(rounds):
                us.append(microseconds(encoder.embed, calls))
                ratio.append(microseconds(encode, calls) / us[-1])
                floor.append(microseconds(lambda _, read=read: read(), calls) / FLOOR_READS)
            low, middle, high = statistics.quantiles(ratio, n=4)
            by_floor = statistics.quantiles([a / b for a, b in zip(us, floor, strict=True)], n=4)
            result.append(
                {
                    "words": n_words,
                    "pieces": round(pieces, 1),
                    "texts_a_call": n,
                    "microseconds": statistics.median(us),
                    "ratio": middle,
                    "ratio_q1": low,
                    "ratio_q3": high,
                    "floor_ratio": by_floor[1],
                    "floor_spread": by_floor[2] - by_floor[0],
                }
            )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    figures.add_option(parser)
    args = parser.parse_args()

    # Before the library that reads it is loaded.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # Behind what is installed, which must not be shadowed.
    site.addsitedir(str(PACKAGES))
    try:
        rows = measure(args.rounds)
    except ModuleNotFoundError as error:
        print(f"{error}; the head of {Path(__file__).name} says what to install", file=sys.stderr)
        return 1

    print(f"static encoder against model2vec's encode(), one thread, {platform.machine()}")
    print(f"{'words':>5} {'pieces':>6} {'a call':>6} {'us a text':>9} {'model2vec':>10}  quartiles")
    for r in rows:
        print(
            f"{r['words']:5} {r['pieces']:6} {r['texts_a_call']:6} {r['microseconds']:9.2f}"
            f" {r['ratio']:8.1f} x  {r['ratio_q1']:.1f} .. {r['ratio_q3']:.1f}"
            f"; {r['floor_ratio']:.0f} x one read"
        )
    collected = [
        Figure(
            "encoders",
            f"static, {r['words']} words, {r['texts_a_call']} a call",
            r["microseconds"],
            "us",
            "model2vec encode()",
            1 / r["ratio"],
            1 / r["ratio_q1"] - 1 / r["ratio_q3"],
        )
        for r in rows
    ]
    collected += [
        Figure(
            "encoders",
            f"static, {r['words']} words, {r['texts_a_call']} a call",
            r["microseconds"],
            "us",
            "reading its rows",
            r["floor_ratio"],
            r["floor_spread"],
            floor=True,
        )
        for r in rows
    ]
    figures.write(args.json, collected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
