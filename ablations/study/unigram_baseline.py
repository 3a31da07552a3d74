"""A unigram model of the raw pool: a trained model must beat it."""

from collections.abc import Mapping

import numpy as np

from ablations.near_duplicates import token_batches
from model.data.corpus import Corpus, IntArray


def bits_per_byte(corpus: Corpus, documents: Mapping[str, IntArray]) -> dict[str, float]:
    """Bits per byte, with boundaries, under the pool's unigram model (add-one smoothing).

    By source, for sources with documents.
    """
    pool = np.flatnonzero(corpus.pool)
    counts = 1.0 + _counts(corpus, pool)
    bits = -np.log2(counts / counts.sum())
    return {
        source: float((_counts(corpus, numbers) * bits).sum() / corpus.bytes[numbers].sum())
        for source, numbers in documents.items()
        if len(numbers)
    }


def _counts(corpus: Corpus, documents: IntArray) -> IntArray:
    """Token counts of documents, each with a boundary: int64 [vocabulary]."""
    counts = np.zeros(corpus.vocabulary, np.int64)
    counts[corpus.boundary_id] = len(documents)
    for _, tokens in token_batches(corpus, documents):
        counts += np.bincount(tokens, minlength=corpus.vocabulary)
    return counts
