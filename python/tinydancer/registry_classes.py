"""The task classifier of a database, which answers as ruvector_classify_request() does.

A psycopg connection comes in, a classifier comes out: what ``fdw/td_classifier.c`` uses, from the
same row of tinydancer.model.  Used by ``tinydancer.multicorn``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.errors import DimensionError, ModelUnusableError
from tinydancer.matcher import FloatVector
from tinydancer.registry import apply, read_encoder, read_model, snapshot

__all__ = ["RequestClass", "StoredClassifier", "read_classifier"]

KIND = "classifier"


@dataclass(frozen=True)
class RequestClass:
    """A category of a request.

    Attributes:
        category: its name.
        probability: that the request is of it.
        rank: place by probability, from 1.
        model_version: of the classifier.
    """

    category: str
    probability: float
    rank: int
    model_version: int


class StoredClassifier:
    """The active classifier of a database, or that there is none.

    Args:
        encoder: whose vectors it reads.
        found: its version and the model; None: no classifier is active.
    """

    def __init__(self, encoder: Encoder, found: tuple[int, _kernels.Model] | None) -> None:
        self.encoder = encoder
        self._found = found

    def classify(
        self, request: str | None, embedding: Sequence[float] | FloatVector | None = None
    ) -> list[RequestClass]:
        """Return the categories of a request, most probable first.

        Args:
            request: the text; None: only ``embedding`` counts.
            embedding: (dim,), the request's vector in place of the text's.

        Raises:
            ModelUnusableError: if no classifier is active.
            EmptyRequestError: for a text of nothing but white space and control characters.
            DimensionError: for an embedding of another length.
            NonFiniteError: for a NaN or an infinity in it.
        """
        if self._found is None:
            raise ModelUnusableError(
                "no task classifier is active",
                f'Kind "{KIND}" of tinydancer.model has no active model for encoder '
                f'"{self.encoder.id}".',
                f"Train one with the command tinydancer train {KIND}.",
            )
        if request is None and embedding is None:
            return []
        version, model = self._found
        if embedding is not None:
            vector = self._vector(embedding)
        else:
            assert request is not None
            vector = self.encoder.embed_info(request)[0]
        found = apply(model, self.encoder, request, vector)
        order = sorted(range(model.n_out), key=lambda i: -found[i])
        return [
            RequestClass(model.names[i], float(found[i]), rank, version)
            for rank, i in enumerate(order, start=1)
        ]

    def _vector(self, embedding: Sequence[float] | FloatVector) -> FloatVector:
        """A caller's vector, scaled to unit length."""
        vector = np.array(embedding, dtype=np.float32)
        if vector.shape != (self.encoder.dim,):
            raise DimensionError(
                _kernels.status_text(3),
                f'Vectors of encoder "{self.encoder.id}" have {self.encoder.dim}, '
                f"the argument has {vector.size}.",
                "Embed the text with Encoder.embed(), or use the encoder that made the vector.",
            )
        return _kernels.normalise(vector)


def read_classifier(conn: psycopg.Connection[Any]) -> StoredClassifier:
    """Read the active task classifier.

    Args:
        conn: as for ``read_router``.

    Raises:
        ModelUnusableError: if it is for another encoder.
        psycopg.Error: the server refused.
    """
    with snapshot(conn) as cursor:
        encoder = read_encoder(cursor)
        return StoredClassifier(encoder, read_model(cursor, KIND, encoder))
