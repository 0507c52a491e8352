"""Learning for semantic routes: labelled requests become utterances, if that makes routing better.

Requests with the names of their routes come in; held-out accuracy before and after comes out.
Everything happens in one transaction, which is rolled back unless the routes become better.  Called
by ``tinydancer train routes``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinydancer.errors import TrainingDataError, WeakModelError
from tinydancer.train import learner, measure
from tinydancer.train.data import Labelled, normalised
from tinydancer.train.progress import Progress

if TYPE_CHECKING:
    import psycopg

__all__ = ["train_routes"]

TEST_SHARE = 5


def _matched(
    conn: psycopg.Connection[Any], requests: Sequence[str], progress: Progress, stage: str
) -> list[str | None]:
    """The route of each request; None: none matches."""
    found: list[str | None] = []
    progress.start(stage, len(requests))
    for at in range(0, len(requests), 64):
        part = list(requests[at : at + 64])
        rows = conn.execute(
            "SELECT (SELECT m.route_name FROM ruvector_semantic_route(r.request, 1) AS m LIMIT 1)"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS r (request, number) ORDER BY r.number",
            (part,),
        ).fetchall()
        found += [row[0] for row in rows]
        for _ in part:
            progress.step()
    return found


def _add(conn: psycopg.Connection[Any], added: dict[str, list[str]], progress: Progress) -> int:
    """Add utterances to routes; says how many were new."""
    count = 0
    progress.start("utterances", len(added))
    for name, texts in sorted(added.items()):
        row = conn.execute(
            "SELECT coalesce(array_agg(u.utterance ORDER BY u.position)"
            "           FILTER (WHERE NOT u.negative AND u.utterance <> ''), '{}'),"
            "       coalesce(array_agg(u.utterance ORDER BY u.position)"
            "           FILTER (WHERE u.negative), '{}'),"
            "       (SELECT v.embedding FROM tinydancer.route_utterance v"
            "        WHERE v.route_name = %(name)s AND v.utterance = '' LIMIT 1)"
            " FROM tinydancer.route_utterance u WHERE u.route_name = %(name)s",
            {"name": name},
        ).fetchone()
        assert row is not None
        there, negatives, vector = row
        known = {normalised(text) for text in [*there, *negatives]}
        new = [text for text in texts if normalised(text) not in known]
        count += len(new)
        if new:
            conn.execute(
                "SELECT tinydancer.store_utterances(%s::text, %s::text[], %s::text[], %s::real[])",
                (name, [*there, *new], negatives, vector),
            )
        progress.step()
    return count


def _grouped(requests: Sequence[str], labels: Sequence[str], chosen: Any) -> dict[str, list[str]]:
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for i in chosen:
        groups[labels[i]].setdefault(normalised(requests[i]), requests[i])
    return {name: list(texts.values()) for name, texts in groups.items()}


def train_routes(
    conn: psycopg.Connection[Any],
    rows: Labelled,
    *,
    seed: int = 0,
    keep: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Add labelled requests to the routes they belong to, and tune how routes are scored.

    Four fifths are added first; the last fifth judges, and is added as well when the routes have
    become better.

    Args:
        conn: outside of a transaction.
        rows: requests and names of existing routes.
        seed: of the split.
        keep: False: everything is rolled back, only the figures remain.
        force: keep it though the routes have not become better.
        progress: listener.

    Returns:
        Figures: ``accuracy_before``, ``accuracy_after``, ``gain_ci``, ``n_train``, ``n_test``,
        ``n_repeated``, ``n_added``, ``scorer``, ``kept``.

    Raises:
        TrainingDataError: a route that does not exist; too few rows.
        WeakModelError: the routes have not become better; nothing is changed.
    """
    progress = progress or Progress()
    with conn.transaction(force_rollback=not keep):
        there = {row[0] for row in conn.execute("SELECT name FROM tinydancer.route").fetchall()}
        for i, label in enumerate(rows.labels, 1):
            if label not in there:
                raise TrainingDataError(
                    f'route "{label}" does not exist',
                    f"Row {i} names it; there are {len(there)} routes.",
                    "Create it with ruvector_create_route(), or correct the label.",
                )
        if len(rows.requests) < learner.MIN_ROWS:
            raise TrainingDataError(
                "there are too few labelled requests",
                f"There are {len(rows.requests)}, and at least {learner.MIN_ROWS} are needed.",
                "Label more requests, several of each route.",
            )
        said = {
            normalised(row[0])
            for row in conn.execute(
                "SELECT utterance FROM tinydancer.route_utterance WHERE NOT negative"
            ).fetchall()
        }
        learn, test, repeated = _split(rows, said, seed)
        asked = [rows.requests[i] for i in test]
        truth = [rows.labels[i] for i in test]
        before = _matched(conn, asked, progress, "before")
        added = _add(conn, _grouped(rows.requests, rows.labels, learn), progress)
        tuned = conn.execute("SELECT scorer FROM ruvector_tune_routes() LIMIT 1").fetchone()
        after = _matched(conn, asked, progress, "after")
        was = np.array([a == b for a, b in zip(before, truth, strict=True)], np.float64)
        now = np.array([a == b for a, b in zip(after, truth, strict=True)], np.float64)
        gain = measure.interval(lambda i: float((now[i] - was[i]).mean()), len(test), seed)
        better = bool(now.mean() > was.mean())
        if keep and not better and not force:
            raise WeakModelError(
                "routes do not become better",
                f"On {len(test)} held-out requests accuracy is {now.mean():.4f} with {added} more "
                f"utterances, and {was.mean():.4f} without (95 % interval of the gain "
                f"{gain[0]:.4f} to {gain[1]:.4f}).",
                "Nothing was changed.  Label more requests, or keep them with --force.",
            )
        if keep:
            added += _add(conn, _grouped(rows.requests, rows.labels, test), progress)
            tuned = conn.execute("SELECT scorer FROM ruvector_tune_routes() LIMIT 1").fetchone()
        return {
            "metric": "accuracy",
            "accuracy_before": float(was.mean()),
            "accuracy_after": float(now.mean()),
            "gain_ci": gain,
            "n_train": len(learn),
            "n_test": len(test),
            "n_repeated": repeated,
            "n_added": added if keep else 0,
            "scorer": None if tuned is None else tuned[0],
            "seed": seed,
            "kept": keep,
        }


def _split(rows: Labelled, said: set[str], seed: int) -> tuple[list[int], list[int], int]:
    """Numbers of the rows to learn from and to judge by, and how many of these were left out."""
    groups = learner.same_request(rows.requests)
    order = np.random.default_rng([seed, 5]).permutation(len(groups))
    by_route: dict[str, list[int]] = defaultdict(list)
    for i in order:
        by_route[rows.labels[i]].append(int(i))
    test = [i for own in by_route.values() for i in own[: len(own) // TEST_SHARE]]
    chosen = set(test)
    learn = [i for i in range(len(groups)) if i not in chosen]
    taken = set(groups[learn].tolist())
    fresh = [i for i in test if groups[i] not in taken and normalised(rows.requests[i]) not in said]
    if not fresh:
        raise TrainingDataError(
            "no request is left to judge the routes by",
            f"Of {len(groups)} rows, {len(test)} were held out, and all of them repeat others.",
            f"Label at least {TEST_SHARE} different requests of a route.",
        )
    return learn, sorted(fresh), len(test) - len(fresh)
