"""Hashed word n-grams of every document, as a sparse matrix for training."""

from dataclasses import dataclass

import pyarrow as pa
import scipy.sparse as sp


@dataclass(frozen=True)
class FeatureConfig:
    """What decides which bucket an n-gram falls in: the same in training and serving.

    ``log2_buckets`` 18 to 22, ``max_ngram`` 1 or 2, ``normaliser`` the version of the word rules.
    """

    log2_buckets: int = 20
    max_ngram: int = 2
    normaliser: int = 1

    @property
    def buckets(self) -> int:
        """Number of buckets: the length of the weight table."""
        return 1 << self.log2_buckets


def hashed_features(text: pa.Array, config: FeatureConfig) -> sp.csr_array:
    """Weighted n-gram counts: float32 [n, buckets], the matrix that ``linear.margins`` scores."""
    raise NotImplementedError("interface only; the kernel follows")
