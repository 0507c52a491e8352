"""Words of requests as weighted features: the kernel counts them, training weighs them.

Texts come in, a sparse matrix of unit rows comes out, whose columns are hashed word pieces and
pairs of them.  The counting is ``_kernels.word_features``, the very code that serves; the weights
(inverse document frequencies) are part of the model.  ``WordColumns`` are the directions in which
the words of training rows differ most, as columns beside a vector.  Used by the trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import _kernels
from tinydancer.encoder import Encoder
from tinydancer.model_file import RANK_STEP, Projection, quantise

__all__ = ["WordColumns", "WordWeights", "count_words"]

# Unigrams and bigrams.
FEATURES = 3


def count_words(
    encoder: Encoder, texts: Sequence[str], n_buckets: int, features: int = FEATURES
) -> Any:
    """Square roots of the counts of each hashed feature.

    Args:
        encoder: whose word pieces they are.
        texts: n texts.
        n_buckets: a power of two.
        features: kinds of features, as in ``model_file.Words``.

    Returns:
        ``(n, n_buckets)`` float32 SciPy CSR matrix.
    """
    from scipy.sparse import csr_matrix

    indptr, indices, values = _kernels.word_features(encoder, texts, n_buckets, features)
    return csr_matrix((values, indices, indptr), shape=(len(texts), n_buckets))


@dataclass(frozen=True)
class WordWeights:
    """How much each feature counts, learned from training rows.

    Attributes:
        idf: ``(n_buckets,)`` inverse document frequencies; 0: the feature is not read.
        buckets: ``(n_features,)`` the buckets that are read, ascending.
        features: kinds of features, as in ``model_file.Words``.
    """

    idf: npt.NDArray[np.float32]
    buckets: npt.NDArray[np.int64]
    features: int = FEATURES

    @classmethod
    def learn(cls, counts: Any, least: int = 2, features: int = FEATURES) -> WordWeights:
        """Learn the weights.

        Args:
            counts: of ``count_words``, the training rows.
            least: a feature of fewer rows is not read.
            features: as given to ``count_words``.

        Returns:
            The weights.
        """
        rows = np.bincount(counts.indices, minlength=counts.shape[1])
        idf = np.log((1 + counts.shape[0]) / (1 + rows)) + 1
        idf[rows < least] = 0
        return cls(idf.astype(np.float32), np.flatnonzero(rows >= least), features)

    def apply(self, counts: Any) -> Any:
        """Rows of unit length over the buckets that are read.

        Args:
            counts: ``(n, n_buckets)`` of ``count_words``.

        Returns:
            ``(n, n_features)`` float32 SciPy CSR matrix; a row without known words is zero.
        """
        from scipy.sparse import csr_matrix

        kept = counts[:, self.buckets]
        values = kept.data * self.idf[self.buckets][kept.indices]
        row = np.repeat(np.arange(kept.shape[0]), np.diff(kept.indptr))
        length = np.sqrt(np.bincount(row, values.astype(np.float64) ** 2, kept.shape[0]))
        values = (values / np.where(length > 0, length, 1)[row]).astype(np.float32)
        return csr_matrix((values, kept.indices, kept.indptr), shape=kept.shape)


@dataclass(frozen=True)
class WordColumns:
    """Words as columns beside a vector: latent semantic analysis of the training rows.

    Attributes:
        projection: as the model file holds it.
        buckets: ``(n_features,)`` the buckets that are read.
    """

    projection: Projection
    buckets: npt.NDArray[np.int64]

    @classmethod
    def learn(
        cls, words: Any, weights: WordWeights, rank: int, share: float, seed: int
    ) -> WordColumns | None:
        """The first right singular vectors of the words (Deerwester et al. 1990).

        Args:
            words: ``(n, n_features)`` of ``weights.apply``, the training rows.
            weights: how much each feature counts.
            rank: columns at most; rows and features may be fewer.
            share: length of the columns, where that of the vector is 1.
            seed: of the randomised decomposition.

        Returns:
            The columns; None where no feature is shared by rows.
        """
        from sklearn.utils.extmath import randomized_svd

        rank = min(rank, *words.shape)
        if rank < 1 or words.nnz == 0:
            return None
        _, _, directions = randomized_svd(words, rank, n_iter=3, random_state=seed)
        # A model file has whole blocks of columns.
        table = np.zeros((len(weights.idf), -(-rank // RANK_STEP) * RANK_STEP), np.float32)
        idf = weights.idf[weights.buckets]
        table[weights.buckets, :rank] = directions.T * idf[:, None]
        values, scales = quantise(table)
        written = np.asarray(values * scales[:, None], np.float32)
        return cls(Projection(written, share, weights.features), weights.buckets)

    def apply(self, x: npt.NDArray[Any], counts: Any) -> npt.NDArray[np.float32]:
        """Vectors with the columns beside them, as ``td_project()`` makes them.

        Args:
            x: ``(n, dim)``.
            counts: ``(n, n_buckets)`` of ``count_words``.

        Returns:
            ``(n, dim + rank)``.
        """
        share, table = self.projection.share, self.projection.table
        columns = np.asarray(counts[:, self.buckets] @ table[self.buckets], np.float64)
        length = np.linalg.norm(columns, axis=1, keepdims=True)
        some, whole = length > 0, np.sqrt(1 + share**2)
        columns *= share / np.where(some, length, 1) / whole
        return np.hstack([x * np.where(some, 1 / whole, whole), columns]).astype(np.float32)
