#!/usr/bin/env python3
"""Fits the two constants that turn a similarity into "fit", and writes them into an encoder file.

An encoder file and the calibration set tools/data/fit_*.jsonl come in: what agents say they are
good at, and which requests are theirs.  A logistic regression of "this request is for this agent"
on the greatest cosine to the agent's phrases gives mu (where fit is 0.5) and s.  Called by
build_static_encoder.py; by hand after the calibration set has changed.

    fit_constants.py           fit and rewrite the file
    fit_constants.py --check   verify that the file holds what would be fitted
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from build_static_encoder import OUTPUT, ROOT, encoder_file, tokenizer

DATA = ROOT / "tools/data"
TOLERANCE = 1e-3
# All mismatches together weigh this many times as much as all matches: a registry holds several
# agents for each that is right, and a cheap wrong one must not win by its price alone.
MISMATCH_WEIGHT = 3.0

Tokenize = Callable[[Sequence[str]], list[list[int]]]
FloatArray = npt.NDArray[np.float64]


def similarities(encoder: Any, tokenize: Tokenize) -> tuple[FloatArray, npt.NDArray[np.int8]]:
    """How near every request is to every agent, and whether it should be.

    Args:
        encoder: a StaticEncoder.
        tokenize: texts to word-piece ids.

    Returns:
        similarity ``(n_requests, n_agents)`` in [-1, 1]; and of the same shape 1 for the agent that
        a request is for, 0 for one that it is not for, -1 for one that may be argued about.
    """

    def embed(texts: Sequence[str]) -> FloatArray:
        return np.stack([encoder.embed_ids(ids) for ids in tokenize(texts)]).astype(np.float64)

    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]

    agents, requests = read("fit_agents.jsonl"), read("fit_requests.jsonl")
    names = [agent["agent"] for agent in agents]
    x = embed([row["request"] for row in requests])
    nearness = np.stack([(x @ embed(agent["phrases"]).T).max(axis=1) for agent in agents], axis=1)
    wanted = np.zeros(nearness.shape, np.int8)
    for i, row in enumerate(requests):
        wanted[i, names.index(row["match"])] = 1
        for other in row["also"]:
            wanted[i, names.index(other)] = -1
    return nearness, wanted


def logistic(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))  # type: ignore[no-any-return]


def regress(similarity: FloatArray, match: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """mu and s of the weighted logistic regression, by Newton's method.

    Args:
        similarity: ``(n,)``.
        match: ``(n,)``.

    Raises:
        ValueError: similarity does not rise with match, so that s would not be positive.
    """
    weight = np.where(match, 1 / match.sum(), MISMATCH_WEIGHT / (~match).sum())
    design = np.stack([similarity, np.ones_like(similarity)], axis=1)
    beta = np.zeros(2)
    for _ in range(50):
        p = logistic(design @ beta)
        gradient = design.T @ (weight * (match - p))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature, gradient)
        beta += step
        if np.abs(step).max() < 1e-10:
            break
    if beta[0] <= 0:
        raise ValueError("similarity does not tell matches from mismatches")
    return float(-beta[1] / beta[0]), float(1 / beta[0])


def fit(encoder: Any, tokenize: Tokenize) -> tuple[float, float]:
    """mu and s of an encoder; prints how well they tell matches from mismatches."""
    similarity, wanted = similarities(encoder, tokenize)
    mu, s = regress(similarity[wanted >= 0], wanted[wanted >= 0] == 1)
    probability = logistic((similarity - mu) / s)
    match, other = probability[wanted == 1], probability[wanted == 0]
    best = np.where(wanted == -1, -2, similarity).argmax(axis=1)
    right = float(np.take_along_axis(wanted, best[:, None], axis=1).mean())
    print(
        f"fit mu={mu:.4f} s={s:.4f}: matches median {np.median(match):.3f} (similarity "
        f"{np.median(similarity[wanted == 1]):.2f}), "
        f"{100 * (match > 0.5).mean():.0f} % above 0.5; mismatches median {np.median(other):.4f} "
        f"({np.median(similarity[wanted == 0]):.2f}), "
        f"{100 * (other < 0.5).mean():.0f} % below 0.5; nearest agent right {100 * right:.0f} % "
        f"of {len(best)} requests"
    )
    return mu, s


def with_constants(data: bytes, mu: float, s: float) -> bytes:
    """The encoder file ``data`` with other constants, all else as it was."""
    file = encoder_file.unpack_file(data)
    header = encoder_file.EncoderHeader.unpack(file.sections["encoder"])
    changed = dataclasses.replace(header, fit_mu=mu, fit_s=s).pack()
    return encoder_file.pack_file(file.kind, file.id, {**file.sections, "encoder": changed})  # type: ignore[no-any-return]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="verify the file, change nothing")
    parser.add_argument("--file", type=Path, default=OUTPUT, help="the encoder file")
    options = parser.parse_args()
    data = options.file.read_bytes()
    encoder = encoder_file.StaticEncoder.from_bytes(data)
    mu, s = fit(encoder, tokenizer(encoder.vocab.pieces))
    if options.check:
        header = encoder.header
        if abs(header.fit_mu - mu) > TOLERANCE or abs(header.fit_s - s) > TOLERANCE:
            raise SystemExit(f"{options.file}: holds mu={header.fit_mu:.4f} s={header.fit_s:.4f}")
    else:
        encoder_file.write_file(options.file, with_constants(data, mu, s))


if __name__ == "__main__":
    main()
