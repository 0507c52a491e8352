#!/usr/bin/env python3
"""Measures encoders on the real data in ../shared/data: how good their vectors are for routing.

Encoder files come in, by name, and the wheel of MiniLM, whose float32 original is a contender too;
out comes a table for docs/encoders.md.  Few-shot figures are means over five draws of ten
utterances a route; Banking77 has no validation part, so each draw holds out another fifth of its
training part.

    evaluate_encoders.py            all of it; float32 vectors are kept in build/, a first run takes
                                    some minutes
    evaluate_encoders.py --check    MiniLM's int8 alone, on samples, against floors: half a minute
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinydancer import Encoder
from tinydancer.encoder_bert import BertModel
from tinydancer.encoder_build import WHEEL_NAME, read_wheel

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared/data"
WHEEL = ROOT / "build/wheels" / WHEEL_NAME
KEPT = ROOT / "build/encoder-evaluation"

SEEDS = range(5)
SHOTS = 10
HELD_OUT = 0.2
# Of --check, a little below what is measured: a defect costs far more.
FLOORS = {"cosine, mean": 0.998, "cosine, least": 0.98, "CLINC150, 10 a route: centroid": 0.875}

Vectors = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]


# ---------------------------------------------------------------- data


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a file of intents."""
    text = (DATA / "intents" / name).read_text("utf-8")
    # Not splitlines(): it would also split at what stands within a request.
    return [json.loads(line) for line in text.rstrip("\n").split("\n")]


def every_text() -> list[str]:
    """Each request and utterance of the real data once."""
    found: dict[str, None] = {}
    for path in sorted(DATA.glob("**/*.jsonl")):
        for line in path.read_text("utf-8").rstrip("\n").split("\n"):
            row = json.loads(line)
            found[row["text"] if "text" in row else row["request"]] = None
    return list(found)


class Vectorised:
    """Vectors of texts, each made once."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._known: dict[str, npt.NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """``(n, dim)``, in the order of ``texts``."""
        missing = list(dict.fromkeys(text for text in texts if text not in self._known))
        if missing:
            self._known.update(zip(missing, self._embed(missing), strict=True))
        return np.stack([self._known[text] for text in texts]).astype(np.float64)

    def labelled(self, name: str) -> tuple[Vectors, Labels]:
        """Vectors and labels of a file of intents."""
        found = rows(name)
        return self([row["text"] for row in found]), np.array([row["label"] for row in found])


def original(model: BertModel, tokenizer: Encoder) -> Embed:
    """The float32 original as a function from texts to vectors, kept in build/ for another time."""

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        kept = KEPT / f"float32-{digest}.npy"
        if kept.exists():
            return np.load(kept)
        limit = model.shape.max_tokens
        ids = [[101, *tokenizer.tokenize(text)[:limit], 102] for text in texts]
        by_length: dict[int, list[int]] = {}
        for i, each in enumerate(ids):
            by_length.setdefault(len(each), []).append(i)
        out = np.zeros((len(texts), model.shape.dim), np.float32)
        for length, members in by_length.items():
            step = max(1, 512 // length)  # in the processor's cache
            for start in range(0, len(members), step):
                some = members[start : start + step]
                out[some] = model.embed_tokens(np.array([ids[i] for i in some]))
        KEPT.mkdir(parents=True, exist_ok=True)
        np.save(kept, out)
        return out

    return embed


# ---------------------------------------------------------------- scorers


def by_centroid(x: Vectors, y: Labels, query: Vectors) -> Vectors:
    """Cosine to the mean of a route's utterances."""
    means = np.stack([x[y == name].mean(axis=0) for name in np.unique(y)])
    return query @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T


def by_nearest(x: Vectors, y: Labels, query: Vectors, k: int = 1) -> Vectors:
    """Mean cosine to a route's k nearest utterances."""
    every = query @ x.T
    return np.stack(
        [np.sort(every[:, y == name], axis=1)[:, -k:].mean(axis=1) for name in np.unique(y)], axis=1
    )


def by_top3(x: Vectors, y: Labels, query: Vectors) -> Vectors:
    """Mean cosine to a route's three nearest utterances."""
    return by_nearest(x, y, query, 3)


def by_logistic(x: Vectors, y: Labels, query: Vectors, c: float = 30.0) -> Vectors:
    """Logistic regression on the utterances, ridge penalty 1 / c, by accelerated gradients."""
    wanted = (y[:, None] == np.unique(y)).astype(np.float64)
    weight = ahead = np.zeros((x.shape[1], wanted.shape[1]))
    rate = 1 / (0.5 * c * np.linalg.norm(x, 2) ** 2 + 1)
    for step in range(300):
        score = x @ ahead
        p = np.exp(score - score.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        new = ahead - rate * (c * x.T @ (p - wanted) + ahead)
        ahead = new + step / (step + 3) * (new - weight)
        weight = new
    return query @ weight


SCORERS = {
    "centroid": by_centroid,
    "nearest": by_nearest,
    "mean of the three nearest": by_top3,
    "logistic regression": by_logistic,
}


def accuracy(score: Vectors, names: Labels, truth: Labels) -> float:
    """Share of queries whose best route is theirs."""
    return float((names[score.argmax(axis=1)] == truth).mean())


def auroc(inside: Vectors, outside: Vectors) -> float:
    """Chance that a query of a route scores above one of none."""
    above = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
    return float(above)


def drawn(y: Labels, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Ten utterances of each route."""
    return np.concatenate(
        [rng.permutation(np.flatnonzero(y == name))[:SHOTS] for name in np.unique(y)]
    )


# ---------------------------------------------------------------- figures


def clinc(
    vectors: Vectorised, seeds: Sequence[int], names: Sequence[str]
) -> dict[str, list[float]]:
    """Few-shot accuracy on the validation part, for each scorer and seed."""
    x, y = vectors.labelled("clinc150_train.jsonl")
    query, truth = vectors.labelled("clinc150_val.jsonl")
    x, y = x[y != "oos"], y[y != "oos"]
    query, truth = query[truth != "oos"], truth[truth != "oos"]
    found: dict[str, list[float]] = {}
    for seed in seeds:
        some = drawn(y, np.random.default_rng(seed))
        for name in names:
            score = SCORERS[name](x[some], y[some], query)
            key = f"CLINC150, {SHOTS} a route: {name}"
            found.setdefault(key, []).append(accuracy(score, np.unique(y), truth))
    return found


def out_of_scope(vectors: Vectorised) -> dict[str, list[float]]:
    """With all utterances: accuracy, and how well the best score tells requests of no route."""
    x, y = vectors.labelled("clinc150_train.jsonl")
    query, truth = vectors.labelled("clinc150_val.jsonl")
    x, y = x[y != "oos"], y[y != "oos"]
    found = {}
    for name in ("centroid", "mean of the three nearest"):
        score = SCORERS[name](x, y, query)
        inside = truth != "oos"
        best = score.max(axis=1)
        right = accuracy(score[inside], np.unique(y), truth[inside])
        found[f"CLINC150, all utterances: {name}"] = [right]
        found[f"out-of-scope AUROC: {name}"] = [auroc(best[inside], best[~inside])]
    return found


def banking(vectors: Vectorised, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Few-shot accuracy on the fifth that each seed holds out, for each scorer."""
    x, y = vectors.labelled("banking77_train.jsonl")
    found: dict[str, list[float]] = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        held, rest = np.split(order, [int(HELD_OUT * len(y))])
        some = rest[drawn(y[rest], rng)]
        for name, scorer in SCORERS.items():
            score = scorer(x[some], y[some], x[held])
            key = f"Banking77, {SHOTS} a route: {name}"
            found.setdefault(key, []).append(accuracy(score, np.unique(y), y[held]))
    return found


def cosines(mine: Vectorised, theirs: Vectorised, texts: Sequence[str]) -> dict[str, list[float]]:
    """How near the vectors of two encoders are to each other."""
    near = (mine(texts) * theirs(texts)).sum(axis=1)
    return {
        "cosine, mean": [float(near.mean())],
        "cosine, first percentile": [float(np.quantile(near, 0.01))],
        "cosine, least": [float(near.min())],
    }


def shown(name: str, values: Sequence[float]) -> str:
    """A figure as it stands in the table."""
    mean, spread = np.mean(values), np.std(values)
    if "AUROC" in name or "cosine" in name:
        return f"{mean:.4f}" if "cosine" in name else f"{mean:.3f}"
    return f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if len(values) > 1 else "")


# ---------------------------------------------------------------- the command


def check() -> int:
    """Samples against floors; 1 if one is missed."""
    minilm = Encoder.load("minilm")
    texts = every_text()
    some = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:200]]
    ours = Vectorised(minilm.embed)
    found = cosines(ours, Vectorised(original(read_wheel(WHEEL).model, minilm)), some)
    found |= clinc(ours, [0], ["centroid"])
    missed = 0
    for name, floor in FLOORS.items():
        value = float(np.mean(found[name]))
        print(f"{name}: {value:.4f}, floor {floor}")
        missed += value < floor
    return 1 if missed else 0


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="samples of MiniLM against floors")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: there is no {DATA}")
        return 0
    if not WHEEL.exists():
        print(f"skipped: there is no {WHEEL} (make dev)")
        return 0
    if options.check:
        return check()
    minilm = Encoder.load("minilm")
    contenders = {
        "static": Vectorised(Encoder.load("static").embed),
        "minilm": Vectorised(minilm.embed),
        "float32": Vectorised(original(read_wheel(WHEEL).model, minilm)),
    }
    texts = every_text()
    table: dict[str, dict[str, list[float]]] = {}
    for name, vectors in contenders.items():
        vectors(texts)
        every = list(SCORERS)
        figures = clinc(vectors, SEEDS, every) | out_of_scope(vectors) | banking(vectors, SEEDS)
        if name == "minilm":
            figures |= cosines(vectors, contenders["float32"], texts)
        for figure, values in figures.items():
            table.setdefault(figure, {})[name] = values
    print(f"{len(texts):,} texts\n")
    print("| | " + " | ".join(contenders) + " |\n|---|" + "---|" * len(contenders))
    for figure, by_name in table.items():
        cells = (shown(figure, by_name[name]) if name in by_name else "–" for name in contenders)
        print(f"| {figure} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
