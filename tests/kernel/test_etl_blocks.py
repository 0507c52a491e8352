"""Blocks of requests: what the kernel says of each of them alone.

In: random registries, routes, texts and limits, and blocks of them as Arrow's buffers.  What is
compared: route_block() with Registry.score(), match_block() with Routes.score() and
Routes.select(), embed_block() with Encoder.embed(), to the bit.  Shapes that contradict each other
are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinydancer import Encoder, Router, _kernels
from tinydancer.errors import InvalidInputError, ShapeError

DIM = 24
WORDS = ["translate", "code", "bug", "poem", "tax", "weather", "refund", "chart", "東京", "naïve"]


def buffers(texts: list[str | None]) -> tuple[Any, Any, Any]:
    """Texts as Arrow keeps them, behind bytes that are of no text."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    offsets = np.cumsum([3, *map(len, encoded)]).astype(np.int64)
    data = np.frombuffer(b"xyz" + b"".join(encoded), dtype=np.uint8)
    return data, offsets, np.uint8([text is not None for text in texts])


@pytest.fixture
def texts(rng: Any) -> list[str | None]:
    found: list[str | None] = [
        " ".join(rng.choice(WORDS, size=rng.integers(1, 30))) for _ in range(300)
    ]
    for i in rng.integers(300, size=20):
        found[i] = None
    found[7], found[8] = "", " \n"
    return found


def test_block_has_the_decision_of_each_request_alone(texts: list[str | None], rng: Any) -> None:
    router = Router.demo()
    registry, encoder = router._registry, router.encoder
    n = len(texts)
    mu, s = encoder.fit_mu, encoder.fit_s
    limits = np.stack(
        [
            rng.choice([np.inf, 0.01, 0.0005], n),
            rng.choice([np.inf, 0.02, -1.0], n, p=[0.5, 0.4, 0.1]),
            rng.choice([np.inf, 3000.0], n),
            rng.choice([-np.inf, 0.8], n),
            rng.choice([-np.inf, 0.3], n),
        ],
        axis=1,
    )
    weights = np.array([[0.3, 0.3, 0.4, 0, 0], [0, 0, 1, 0.5, 0], [0, 0, 1, 0, 1]], dtype=float)
    objective = rng.integers(3, size=n).astype(np.uint32)
    pool = rng.choice([-1, -1, -1, _kernels.NONE], n).astype(np.int64)
    counts = rng.integers(3, size=n)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    required = rng.integers(4, size=offsets[-1]).astype(np.uint32)
    excluded = rng.integers(registry.n_agents, size=offsets[-1]).astype(np.uint32)
    given = rng.random(n) < 0.2
    vectors = rng.standard_normal((n, encoder.dim)).astype(np.float32)
    found = _kernels.route_block(
        registry,
        encoder,
        texts=buffers(texts),
        vectors=(vectors, given.astype(np.uint8)),
        mu=mu,
        s=s,
        limits=limits,
        objective=objective,
        objectives=["a", "b", "c"],
        weights=weights,
        pool=pool,
        required=(offsets, required),
        excluded=(offsets, excluded),
        reasoning=True,
    )
    ends, sentences = found["reasoning"]
    for i, text in enumerate(texts):
        sentence = bytes(sentences[ends[i] : ends[i + 1]]).decode()
        info = None
        if given[i]:
            vector = _kernels.normalise(vectors[i])
            tokens = 0 if text is None else encoder.count_tokens(text)
        elif text is None or not text.strip():
            assert found["status"][i] == (_kernels.NO_REQUEST if text is None else 5)
            assert found["agent"][i] == _kernels.NONE
            assert sentence == ""
            continue
        else:
            vector, *info = encoder.embed_info(text)
            tokens = info[0]
        row = weights[objective[i]]
        scores = registry.score(
            vector,
            mu=mu,
            s=s,
            **dict(zip(_kernels.BLOCK_WEIGHTS[:4], row[:4].tolist(), strict=True)),
            per_dollar=bool(row[4]),
            input_tokens=tokens,
            required=required[offsets[i] : offsets[i + 1]],
            excluded=excluded[offsets[i] : offsets[i + 1]],
            pool=None if pool[i] < 0 else int(pool[i]),
            **dict(zip(_kernels.BLOCK_LIMITS, limits[i].tolist(), strict=True)),
        )
        assert found["status"][i] == 0
        if scores.best is None:
            assert found["agent"][i] == _kernels.NONE
            assert sentence == ""
            continue
        best = scores.candidates[scores.best]
        assert found["agent"][i] == scores.best
        for name in ("similarity", "expected_quality", "cost", "latency"):
            assert found[name][i].tobytes() == best[name].tobytes()
        assert sentence == scores.reason(scores.best, "abc"[objective[i]], 1, info)
    assert 0.2 < np.mean(found["agent"] != _kernels.NONE) < 0.95


def test_block_of_texts_has_the_vectors_of_the_encoder(texts: list[str | None]) -> None:
    encoder = Encoder.load("static")
    vectors, status, rounded = _kernels.embed_block(
        encoder, encoder.dim, texts=buffers(texts), quantised=True
    )
    assert rounded is not None
    for i, text in enumerate(texts):
        if text is None or not text.strip():
            assert status[i] != 0
            assert not vectors[i].any()
            continue
        assert vectors[i].tobytes() == encoder.embed(text)[0].tobytes()
        q, scale = _kernels.quantise(vectors[i])
        assert (rounded[i] == q * np.float32(scale)).all()


def routes_of(rng: Any, n: int, each: int, scorer: str) -> _kernels.Routes:
    packed = np.zeros(n, dtype=_kernels.ROUTE_DTYPE)
    packed["n_rows"] = each
    packed["first_row"] = np.arange(n) * each
    packed["n_negatives"][: n // 2] = 1
    packed["first_negative"] = np.cumsum(packed["n_negatives"]) - packed["n_negatives"]
    packed["priority"] = rng.integers(3, size=n)
    packed["threshold"] = rng.choice([-np.inf, 0.5], n)

    def quantised(count: int) -> tuple[Any, Any]:
        vectors = rng.standard_normal((count, DIM)).astype(np.float32)
        pairs = [_kernels.quantise(_kernels.normalise(vector)) for vector in vectors]
        return np.array([q for q, _ in pairs]), np.float32([scale for _, scale in pairs])

    return _kernels.Routes(packed, *quantised(n * each), *quantised(n // 2), scorer=scorer)


@pytest.mark.parametrize("scorer", _kernels.SCORER_NAMES)
@pytest.mark.parametrize("k", [1, 4, 100])
def test_block_has_the_matches_of_each_request_alone(scorer: str, k: int, rng: Any) -> None:
    routes = routes_of(rng, 40, 5, scorer)
    vectors = rng.standard_normal((130, DIM)).astype(np.float32)
    vectors = np.stack([_kernels.normalise(one) for one in vectors])
    wanted = (rng.random(130) < 0.9).astype(np.uint8)
    is_open = rng.random(40) < 0.8
    found = _kernels.match_block(routes, vectors, wanted, k=k, open=is_open)
    for i in range(130):
        part = slice(found["offsets"][i], found["offsets"][i + 1])
        scores = routes.score(vectors[i])
        index = routes.select(scores, min(k, 40), is_open) if wanted[i] else []
        assert found["route"][part].tolist() == list(index)
        assert found["score"][part].tobytes() == scores[index].tobytes() or not wanted[i]
        assert found["confidence"][part].tolist() == [
            routes.confidence(float(scores[j])) for j in index
        ]


@pytest.mark.parametrize("scorer", ["nearest", "top3"])
def test_block_with_lists_of_any_quality_has_the_same_matches(scorer: str, rng: Any) -> None:
    # So many routes that the kernel wants more scratch for a few of them than for all.
    routes = routes_of(rng, 3000, 2, scorer)
    n = 100
    vectors = rng.standard_normal((n, DIM)).astype(np.float32)
    vectors = np.stack([_kernels.normalise(one) for one in vectors])
    wanted = np.ones(n, dtype=np.uint8)
    whole = _kernels.match_block(routes, vectors, wanted, k=3)
    nearest = routes_nearest(routes, vectors)
    chosen, cuts = [], []
    for i in range(n):
        size = int(rng.integers(0, 200))
        order = np.argsort(-nearest[i], kind="stable")
        # Some lists leave out the best ones.
        listed = np.sort(order[(i % 3 == 0) * 2 :][:size])
        rest = np.setdiff1d(np.arange(3000), listed)
        chosen.append(listed)
        cuts.append(nearest[i][rest].max() + 1e-4)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in chosen])]).astype(np.int64)
    lists = (offsets, np.concatenate(chosen).astype(np.uint32), np.float32(cuts))
    found = _kernels.match_block(routes, vectors, wanted, k=3, shortlist=lists)
    assert 0 < found["n_whole"] < n
    for name in ("offsets", "route", "score", "confidence"):
        assert found[name].tobytes() == whole[name].tobytes()


def routes_nearest(routes: _kernels.Routes, vectors: Any) -> Any:
    """The greatest cosine with an utterance, (n, routes), by NumPy."""
    rows, scales = routes.arrays[:2]
    queries = []
    for vector in vectors:
        q, scale = _kernels.quantise(vector)
        queries.append(q * np.float64(scale))
    cosine = np.array(queries) @ (rows * scales[:, np.newaxis].astype(np.float64)).T
    return np.maximum.reduceat(cosine, routes.routes["first_row"].astype(np.int64), axis=1)


def arguments() -> dict[str, Any]:
    return {
        "vectors": (np.zeros((1, 128), np.float32), np.uint8([1])),
        "mu": 0.3,
        "s": 0.1,
        "limits": np.array([[np.inf, np.inf, np.inf, -np.inf, -np.inf]]),
        "objective": np.zeros(1, dtype=np.uint32),
        "objectives": ["balanced"],
        "weights": np.array([[0.3, 0.3, 0.4, 0.0, 0.0]]),
        "pool": np.int64([-1]),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"limits": np.zeros((1, 4))},
        {"objective": np.uint32([1])},
        {"weights": np.zeros((1, 4))},
        {"pool": np.int64([-1, -1])},
        {"required": (np.int64([0, 2]), np.uint32([1]))},
        {"required": (np.int64([1, 0]), np.uint32([1]))},
        {"excluded": (np.int64([0]), np.uint32([]))},
        {"s": 0.0},
        {"cost_scale": 0.0},
        {"objectives": []},
        {"vectors": (np.zeros((2, 128), np.float32), np.uint8([1]))},
        {"vectors": (np.zeros((1, 127), np.float32), np.uint8([1]))},
        {"texts": (np.uint8([65]), np.int64([0, 2]), np.uint8([1])), "vectors": None},
        {"texts": (np.uint8([65]), np.int64([1, 0]), np.uint8([1])), "vectors": None},
        {"texts": (np.uint8([65]), np.int64([0]), np.uint8([1])), "vectors": None},
    ],
)
def test_block_with_contradicting_shapes_is_refused(change: dict[str, Any]) -> None:
    router = Router.demo()
    with pytest.raises(InvalidInputError):
        _kernels.route_block(router._registry, router.encoder, **(arguments() | change))


@pytest.mark.parametrize(
    "change",
    [
        {"k": 0},
        {"open": np.uint8([1])},
        {"shortlist": (np.int64([0, 2]), np.uint32([0]), np.float32([0]))},
        {"shortlist": (np.int64([0, 1]), np.uint32([2]), np.float32([0]))},
        {"shortlist": (np.int64([0]), np.uint32([]), np.float32([0]))},
    ],
)
def test_matches_of_contradicting_shapes_are_refused(change: dict[str, Any], rng: Any) -> None:
    routes = routes_of(rng, 2, 1, "nearest")
    vectors, wanted = np.zeros((1, DIM), np.float32), np.uint8([1])
    with pytest.raises(ShapeError):
        _kernels.match_block(routes, vectors, wanted, **({"k": 1} | change))
    with pytest.raises(ShapeError):
        _kernels.match_block(routes, vectors[:, :3].copy(), wanted, k=1)
