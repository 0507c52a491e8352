#!/usr/bin/env python3
"""Fits the two constants that turn a similarity into "fit", and writes them into an encoder file.

An encoder file comes in; the regression and its calibration set are those of the module
tinydancer.encoder_fit.  Called by build_static_encoder.py; by hand after the calibration set or an
encoder has changed.  The constants of minilm stand in tinydancer.encoder_build, which makes its
file.

    fit_constants.py                fit static-1 and rewrite its file
    fit_constants.py --file FILE    another encoder's
    fit_constants.py --check        verify that the file holds what would be fitted
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from build_static_encoder import OUTPUT, ROOT, encoder_file, tokenizer

# From the sources: this runs before the package is built.
sys.path.insert(0, str(ROOT / "python"))
from tinydancer import encoder_fit

TOLERANCE = 1e-3

Tokenize = Callable[[Sequence[str]], list[list[int]]]


def fit(encoder: Any, tokenize: Tokenize) -> tuple[float, float]:
    """mu and s of a static encoder; prints how well they tell matches from mismatches."""

    def embed(texts: Sequence[str]) -> Any:
        return np.stack([encoder.embed_ids(ids) for ids in tokenize(texts)])

    fitted = encoder_fit.fit(embed)
    print(fitted.report())
    return fitted.mu, fitted.s


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="verify the file, change nothing")
    parser.add_argument("--file", type=Path, default=OUTPUT, help="the encoder file")
    options = parser.parse_args()
    data = options.file.read_bytes()
    header = encoder_file.EncoderHeader.unpack(encoder_file.unpack_file(data).sections["encoder"])
    if encoder_file.unpack_file(data).kind == encoder_file.KIND_STATIC_ENCODER:
        encoder = encoder_file.StaticEncoder.from_bytes(data)
        mu, s = fit(encoder, tokenizer(encoder.vocab.pieces))
    else:
        # A transformer in NumPy would take a minute; the kernel is built where such files are.
        from tinydancer import Encoder

        fitted = encoder_fit.fit(Encoder(data).embed)
        print(fitted.report())
        mu, s = fitted.mu, fitted.s
    if options.check:
        if abs(header.fit_mu - mu) > TOLERANCE or abs(header.fit_s - s) > TOLERANCE:
            raise SystemExit(f"{options.file}: holds mu={header.fit_mu:.4f} s={header.fit_s:.4f}")
    else:
        encoder_file.write_file(options.file, encoder_file.with_fit(data, mu, s))


if __name__ == "__main__":
    main()
