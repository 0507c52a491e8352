"""How well and how fast semantic routes match, on real intents through the SQL functions.

Starts a throw-away server, makes a route of each intent from a few utterances of CLINC150 or
Banking77 (../shared/data), and asks for held-out requests: accuracy before and after
ruvector_tune_routes(), the error of confidence in 15 bins, how well requests of no intent are told
apart (AUROC of confidence), and what precision is reached where 0.95 was wanted.  Then how often
the first and the second route of a near-tie are right, and what negative examples gain: 20 more
requests a route are asked, and each becomes a negative example of the route that it wrongly goes
to.  At last the time of one prepared match, as a multiple of ``SELECT 1`` on the same connection.

    .venv/bin/python bench/routes.py [--pg 18] [--seeds 3] [--scorer ridge]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from tinydancer import _kernels
from tinydancer.server import temporary_cluster

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "intents"
BINS = 15
WANTED = 0.95


@dataclass
class Split:
    """Utterances for each route, more of them, held-out requests, and requests of no route."""

    name: str
    utterances: dict[str, list[str]]
    more: dict[str, list[str]]
    held: list[tuple[str, str]]
    outside: list[str]


def load(name: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["label"]) for row in rows]


def few(rows: list[tuple[str, str]], first: int, last: int) -> dict[str, list[str]]:
    """Texts number first to last - 1 of each label but "oos"."""
    result: dict[str, list[str]] = {}
    for text, label in rows:
        if label != "oos":
            result.setdefault(label, []).append(text)
    return {label: texts[first:last] for label, texts in result.items()}


def splits(seed: int) -> Iterator[Split]:
    rng = np.random.default_rng(seed)
    train, held = load("clinc150_train.jsonl"), load("clinc150_val.jsonl")
    train = [train[i] for i in rng.permutation(len(train))]
    yield Split(
        "CLINC150, 10 utterances",
        few(train, 0, 10),
        few(train, 10, 30),
        [row for row in held if row[1] != "oos"],
        [text for text, label in held if label == "oos"],
    )
    rows = load("banking77_train.jsonl")
    rows = [rows[i] for i in rng.permutation(len(rows))]
    yield Split(
        "Banking77, 10 utterances",
        few(rows[3000:], 0, 10),
        few(rows[3000:], 10, 30),
        rows[:3000],
        [],
    )


# ---------------------------------------------------------------- quality


def ask(conn: psycopg.Connection, texts: list[str]) -> tuple[list[str | None], npt.NDArray[Any]]:
    """The best route of each text (None: none of these), and its confidence (0 then)."""
    rows = conn.execute(
        "SELECT s.route_name, coalesce(s.confidence, 0) FROM unnest(%s::text[]) WITH ORDINALITY "
        "AS u (q, n) LEFT JOIN LATERAL ruvector_semantic_route(u.q, 1) s ON true ORDER BY u.n",
        (texts,),
    ).fetchall()
    return [row[0] for row in rows], np.array([row[1] for row in rows])


def calibration_error(said: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    return sum(
        abs(right[bins == b].mean() - said[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )


def auroc(inside: npt.NDArray[Any], outside: npt.NDArray[Any]) -> float:
    """Chance that a request of some route is more confident than one of none."""
    order = np.sort(outside)
    below = np.searchsorted(order, inside, "left") + np.searchsorted(order, inside, "right")
    return float(below.mean() / 2 / len(outside))


def near_ties(conn: psycopg.Connection, split: Split) -> dict[str, float]:
    """Of requests whose two best routes are near each other: how often either is right."""
    rows = conn.execute(
        "SELECT s.names[1] = u.y, s.names[2] = u.y "
        "FROM unnest(%s::text[], %s::text[]) AS u (q, y), "
        "LATERAL (SELECT array_agg(route_name ORDER BY similarity DESC) AS names, "
        "max(similarity) - min(similarity) AS gap FROM ruvector_semantic_route(u.q, 2)) AS s "
        "WHERE s.gap < %s",
        ([t for t, _ in split.held], [y for _, y in split.held], _kernels.NEAR_TIE),
    ).fetchall()
    first, second = np.array(rows, dtype=float).mean(axis=0)
    return {
        "near-ties": len(rows) / len(split.held),
        "  the first is right": first,
        "  the second is right": second,
    }


def with_negatives(conn: psycopg.Connection, split: Split) -> float:
    """Accuracy when each of some more requests that goes astray has become a negative example."""
    astray: dict[str, list[str]] = {}
    for name, texts in split.more.items():
        for text, got in zip(texts, ask(conn, texts)[0], strict=True):
            if got is not None and got != name and text not in split.utterances[got]:
                astray.setdefault(got, []).append(text)
    for name, texts in astray.items():
        conn.execute(
            "SELECT ruvector_create_route(%s, utterances := %s, negatives := %s)",
            (name, split.utterances[name], texts),
        )
    got, _ = ask(conn, [t for t, _ in split.held])
    return float(np.mean([a == y for a, (_, y) in zip(got, split.held, strict=True)]))


def quality(conn: psycopg.Connection, split: Split, scorer: str | None) -> dict[str, float]:
    conn.execute("DELETE FROM tinydancer.route")
    conn.execute("DELETE FROM tinydancer.route_scorer")
    for name, texts in split.utterances.items():
        conn.execute("SELECT ruvector_create_route(%s, utterances := %s)", (name, texts))
    texts, names = [t for t, _ in split.held], [y for _, y in split.held]

    def state(tag: str) -> dict[str, float]:
        got, said = ask(conn, texts)
        right = np.array([a == b for a, b in zip(got, names, strict=True)])
        result = {f"accuracy {tag}": right.mean(), f"ECE {tag}": calibration_error(said, right)}
        if split.outside:
            result[f"AUROC {tag}"] = auroc(said, ask(conn, split.outside)[1])
        return result

    result = state("untuned")
    start = time.perf_counter()
    row = conn.execute(
        "SELECT scorer, accuracy FROM ruvector_tune_routes(force_scorer := %s) LIMIT 1", (scorer,)
    ).fetchone()
    assert row is not None
    result["tuning, s"] = time.perf_counter() - start
    result["leave-one-out"] = row[1]
    result |= state("tuned") | near_ties(conn, split)
    result["accuracy, negatives"] = with_negatives(conn, split)
    conn.execute("SELECT ruvector_tune_routes(%s, force_scorer := %s)", (WANTED, scorer))
    got, _ = ask(conn, texts)
    answered = [(a, b) for a, b in zip(got, names, strict=True) if a is not None]
    result[f"precision, {WANTED} wanted"] = float(np.mean([a == b for a, b in answered]))
    result["answered"] = len(answered) / len(texts)
    if split.outside:
        result["outsiders answered"] = float(
            np.mean([a is not None for a in ask(conn, split.outside)[0]])
        )
    print(f"{split.name}: {row[0]}", file=sys.stderr)
    return result


# ---------------------------------------------------------------- speed


def speed(conn: psycopg.Connection, rounds: int = 9, calls: int = 300) -> dict[str, float]:
    """Time of a prepared match over that of ``SELECT 1``: median of rounds."""
    statements = {
        "SELECT 1": ("SELECT 1", []),
        "match": ("SELECT route_name FROM ruvector_semantic_route($1, 1)", ["book me a flight"]),
    }
    for name, (sql, _) in statements.items():
        conn.pgconn.prepare(name.encode(), sql.encode())
    times: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(rounds + 1):
        for name, (_, values) in statements.items():
            start = time.perf_counter()
            for _ in range(calls):
                conn.pgconn.exec_prepared(name.encode(), [v.encode() for v in values])
            times[name].append((time.perf_counter() - start) / calls)
    ratios = [m / one for m, one in zip(times["match"][1:], times["SELECT 1"][1:], strict=True)]
    return {"ratio": statistics.median(ratios), "us": statistics.median(times["match"][1:]) * 1e6}


def synthetic(conn: psycopg.Connection, routes: int, utterances: int) -> None:
    """Random routes, by the tables: only their number matters here."""
    conn.execute("DELETE FROM tinydancer.route")
    conn.execute("DELETE FROM tinydancer.route_scorer")
    conn.execute(
        "INSERT INTO tinydancer.route (name) SELECT 'route ' || i FROM generate_series(1, %s) i",
        (routes,),
    )
    conn.execute(
        "INSERT INTO tinydancer.route_utterance "
        "(route_name, position, utterance, embedding, encoder) "
        "SELECT 'route ' || i, j, 'u', ARRAY(SELECT (random() - 0.5 + i * j * 0)::real "
        "FROM generate_series(1, e.dim)), e.id "
        "FROM generate_series(1, %s) i, generate_series(1, %s) j, tinydancer.active_encoder() e",
        (routes, utterances),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scorer", default=None, help="instead of the one that is chosen")
    args = parser.parse_args()
    if not DATA.is_dir():
        print(f"no data in {DATA}: nothing measured")
        return 0

    with (
        temporary_cluster(args.pg, extension=True) as cluster,
        psycopg.connect(cluster.uri(), autocommit=True) as conn,
    ):
        conn.execute("SET client_min_messages = warning")
        results: dict[str, list[dict[str, float]]] = {}
        for seed in range(args.seeds):
            for split in splits(seed):
                results.setdefault(split.name, []).append(quality(conn, split, args.scorer))
        for name, runs in results.items():
            print(f"\n{name}, {len(runs)} seeds")
            for figure in runs[0]:
                values = [run[figure] for run in runs]
                print(
                    f"  {figure:26} {np.mean(values):7.3f}  {min(values):.3f} .. {max(values):.3f}"
                )

        print("\none prepared match on Postgres", conn.info.server_version // 10000)
        for routes, utterances in ((20, 5), (150, 10), (1000, 1), (1000, 10)):
            synthetic(conn, routes, utterances)
            figures = speed(conn)
            print(
                f"  {routes:5} routes of {utterances:2}, nearest {figures['us']:8.1f} us"
                f" {figures['ratio']:6.2f} x SELECT 1"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
