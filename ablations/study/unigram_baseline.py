"""A unigram model of the raw pool: the baseline that a trained model must beat."""

from collections.abc import Mapping

import numpy as np

from model.data.corpus import Corpus, IntArray

BATCH_TOKENS = 1 << 22


def bits_per_byte(corpus: Corpus, documents: Mapping[str, IntArray]) -> dict[str, float]:
    """Bits per byte by source under the pool's unigram model, boundaries included.

    Counts have add-one smoothing. Sources without documents are left out.
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
    """Token counts of documents, with one boundary each: int64 [vocabulary]."""
    counts = np.zeros(corpus.vocabulary, np.int64)
    counts[corpus.boundary_id] = len(documents)
    lengths = corpus.lengths[documents]
    batch = np.cumsum(lengths) // BATCH_TOKENS
    for rows in np.split(np.arange(len(documents)), np.flatnonzero(np.diff(batch)) + 1):
        ends = np.cumsum(lengths[rows])
        tokens = np.empty(int(ends[-1]) if len(ends) else 0, np.int64)
        corpus.copy_tokens(documents[rows], ends - lengths[rows], tokens)
        counts += np.bincount(tokens, minlength=corpus.vocabulary)
    return counts
