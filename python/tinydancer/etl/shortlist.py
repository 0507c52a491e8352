"""Large sets of semantic routes: faiss finds which routes are worth while to score.

Vectors of requests come in, lists of routes come out, each with a similarity that no utterance of a
route off the list exceeds.  The kernel scores the listed routes and answers; where a list is too
short to be sure of the answer, it scores all routes.  So the answers are those without faiss, to
the bit.

This holds for the scorers "nearest" and "top3", whose score is never above a route's nearest
utterance: negative examples only lower it.  "centroid" and "ridge" do not look at every utterance,
so there is nothing to save.  Called by ``tinydancer.etl.matches``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.matcher import RouteMatcher

__all__ = ["MANY_UTTERANCES", "Shortlister", "is_worthwhile"]

# Below, scoring all routes takes less time than a product of matrices saves.
MANY_UTTERANCES = 50_000

SCORERS = ("nearest", "top3")

# Nearest utterances that are looked up for a request: as many as so many routes have, within
# bounds.  More cost faiss more than they save: with 60 utterances a route, 7 % of the requests of
# bench/etl.py need all routes at 128 of them and none at 256, and 128 take least time.
N_ROUTES = 2
LEAST_NEAREST, MOST_NEAREST = 128, 256

# What faiss's float32 sums of at most 4,096 products of unit vectors may be off the kernel's exact
# integers: 4,096 times 2**-24, and again for the rounding of what is multiplied.
MARGIN = np.float32(5e-4)


def is_worthwhile(matcher: RouteMatcher, least: int = MANY_UTTERANCES) -> bool:
    """Whether a matcher has a scorer and a number of utterances that a shortlist is for."""
    return matcher.scorer in SCORERS and len(matcher._positive[2]) > least


class Shortlister:
    """An index of all utterances.

    Args:
        matcher: the routes; ``is_worthwhile`` says for which.

    Raises:
        ModuleNotFoundError: if faiss is not installed.
    """

    def __init__(self, matcher: RouteMatcher) -> None:
        import faiss

        counts, rows, scales = matcher._positive
        # The numbers that the kernel multiplies, as floats.
        vectors = rows.astype(np.float32) * scales[:, np.newaxis]
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors))
        self._route = np.repeat(np.arange(len(counts)), counts)
        wanted = N_ROUTES * len(vectors) // max(len(counts), 1)
        self._n = min(max(wanted, LEAST_NEAREST), MOST_NEAREST, len(vectors))

    def lists(
        self, vectors: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
        """Make the lists of many requests.

        Args:
            vectors: (n, dim) float32, as int8 times a scale: ``_kernels.embed_block``.

        Returns:
            What ``_kernels.match_block`` takes: offsets, routes, and the cut of each list.
        """
        similarity, rows = self._index.search(vectors, self._n)
        routes = np.sort(self._route[rows], axis=1)
        first = np.ones(routes.shape, dtype=bool)
        first[:, 1:] = routes[:, 1:] != routes[:, :-1]
        offsets = np.zeros(len(vectors) + 1, dtype=np.int64)
        np.cumsum(first.sum(axis=1), out=offsets[1:])
        cut = similarity.min(axis=1).astype(np.float32) + MARGIN
        return offsets, routes[first].astype(np.uint32), cut


def shortlist(shortlister: Shortlister | None, rounded: npt.NDArray[np.float32] | None) -> Any:
    """The argument of ``_kernels.match_block``; None: all routes are scored."""
    if shortlister is None or rounded is None or not len(rounded):
        return None
    return shortlister.lists(rounded)
