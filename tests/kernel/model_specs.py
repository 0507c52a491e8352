"""Random models of every shape for the tests of td_model.c and of what loads models."""

from typing import Any

import numpy as np

from tinydancer.model_file import (
    WORDS_BIGRAMS,
    WORDS_LENGTH,
    WORDS_UNIGRAMS,
    FastGrnn,
    Knn,
    Linear,
    Member,
    ModelSpec,
    Projection,
    Rbf,
    Words,
)

MEMBERS = ("linear", "linear8", "cell", "cell8", "tied", "rank", "knn", "rbf", "rbf8", "words")


def unit_rows(rng: np.random.Generator, n: int, dim: int) -> Any:
    x = rng.normal(size=(n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def cell(rng: np.random.Generator, weight: Any, dim: int, n_out: int, **kind: Any) -> FastGrnn:
    hidden = 12
    rank = kind.pop("rank", 0)
    tied = kind.pop("tied", False)

    def matrix(n: int, m: int) -> Any:
        if rank:
            return rng.normal(size=(n, rank)) * 0.5, rng.normal(size=(rank, m)) * 0.5
        return rng.normal(size=(n, m)) * 0.5

    return FastGrnn(
        weight,
        matrix(hidden, dim),
        rng.normal(size=hidden),
        rng.normal(size=hidden),
        0.9,
        0.05,
        rng.normal(size=(n_out, hidden)),
        rng.normal(size=n_out) * 0.1,
        matrix(hidden, hidden),
        None if tied else matrix(hidden, dim),
        None if tied else matrix(hidden, hidden),
        **kind,
    )


def member(rng: np.random.Generator, kind: str, spec: dict[str, Any]) -> Member:
    n_out, n_rows, width = len(spec["names"]), *spec["rows"].shape
    weight = rng.uniform(0.2, 1.0, n_out)
    bias = rng.normal(size=n_out) * 0.1
    if kind.startswith("linear"):
        return Linear(weight, rng.normal(size=(n_out, width)), bias, kind == "linear8")
    if kind in ("cell", "cell8", "tied", "rank", "sequence"):
        n_in = spec["dim"] if kind == "sequence" else width
        return cell(
            rng, weight, n_in, n_out, int8=kind == "cell8", tied=kind == "tied",
            rank=3 if kind == "rank" else 0, steps=9 if kind == "sequence" else 0,
            token_scale=1.5 if kind == "sequence" else 1.0,
        )  # fmt: skip
    if kind == "knn":
        values = rng.uniform(size=(n_rows, n_out))
        values[rng.uniform(size=values.shape) < 0.4] = np.nan
        return Knn(weight, values, min(7, n_rows), 0.2, 1.5)
    if kind.startswith("rbf"):
        return Rbf(weight, rng.normal(size=(n_rows, n_out)), bias, 1.7, kind == "rbf8")
    features = WORDS_UNIGRAMS | WORDS_BIGRAMS | WORDS_LENGTH
    return Words(weight, rng.normal(size=(256, n_out)), bias, rng.uniform(0.1, 2.0, 256), features)


def random_model(
    seed: int,
    kinds: tuple[str, ...] = MEMBERS[:6],
    *,
    task: str = "quality",
    link: str = "identity",
    n_out: int = 5,
    dim: int = 128,
    n_rows: int = 40,
    n_curves: int = 0,
    rank: int = 0,
    encoder: tuple[str, int] = ("static-1", 0),
) -> ModelSpec:
    rng = np.random.default_rng(seed)
    spec: dict[str, Any] = {
        "task": task,
        "names": [f"output {i}" for i in range(n_out)],
        "encoder_id": encoder[0],
        "encoder_checksum": encoder[1],
        "dim": dim,
        "link": link,
        "prior": rng.uniform(size=n_out),
        "support": rng.integers(1, 100, n_out),
        "rows": unit_rows(rng, n_rows, dim + rank),
    }
    if rank:
        # Some buckets are not read.
        table = rng.normal(size=(256, rank)) * rng.integers(0, 3, (256, 1))
        spec["projection"] = Projection(table, 1.25, WORDS_UNIGRAMS | WORDS_LENGTH)
    if n_curves:
        spec["curve_x"] = np.sort(rng.uniform(size=(n_curves, 6)), axis=1)
        spec["curve_y"] = np.sort(rng.uniform(size=(n_curves, 6)), axis=1)
    members = [member(rng, kind, spec) for kind in kinds]
    return ModelSpec(**spec, members=members)
