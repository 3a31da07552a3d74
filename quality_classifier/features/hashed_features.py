"""Hashed word n-grams of every document, as a sparse matrix for training.

Each of a document's N n-grams (words and pairs of neighbouring words, see ``words.py``) adds
``1 / sqrt(N)`` to its bucket. So a score needs only one running sum, and longer documents get more
extreme scores. The held-out ROC-AUC is at least that of L2-normalised counts; a plain mean
(``1 / N``) is far worse.
"""

from __future__ import annotations  # scoring does without scipy

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from quality_classifier.features.ngrams import MOST_WORDS, NO_WORD, bucket, next_words
from winnow.text.buffers import Octets, Offsets, string_buffers
from winnow.text.words import TABLE, VERSION, Table, nfc

if TYPE_CHECKING:
    import scipy.sparse as sp

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class FeatureConfig:
    """The mapping of n-grams to buckets, the same in training and serving.

    ``max_ngram`` is 1 for words, 2 for pairs, too; 2**20 buckets are a table of 4 MB. ValueError
    for a value out of range or an unknown version.
    """

    log2_buckets: int = 20
    max_ngram: int = 2
    normaliser: int = VERSION

    def __post_init__(self) -> None:
        if not 18 <= self.log2_buckets <= 22:
            raise ValueError(f"log2_buckets is 18 to 22, not {self.log2_buckets}")
        if self.max_ngram not in (1, 2):
            raise ValueError(f"max_ngram is 1 or 2, not {self.max_ngram}")
        if self.normaliser != VERSION:
            raise ValueError(
                f"normaliser version {self.normaliser} is not version {VERSION} of this code:"
                " train the classifier again, or use the release that trained it"
            )

    @property
    def buckets(self) -> int:
        """The length of the weight table."""
        return 1 << self.log2_buckets


def hashed_features(text: pa.Array, config: FeatureConfig) -> sp.csr_array:
    """The matrix that ``linear.margins`` multiplies by the weights: float32 [n, config.buckets].

    Rows are sorted by bucket, without duplicates. Memory peaks at about 12 bytes per distinct
    n-gram of a document; 16 MB of text are expanded at a time. ValueError as in ``string_buffers``.
    """
    import scipy.sparse as sp

    data, offsets = string_buffers(nfc(text))
    numbers = (offsets[:-1] - offsets[0]) // _CHUNK_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
    chunks = (offsets[first : last + 1] for first, last in itertools.pairwise(cuts))
    parts = [_chunk(data, chunk, config) for chunk in chunks]
    return sp.csr_array(sp.vstack(parts, format="csr"))


def _chunk(data: Octets, offsets: Offsets, config: FeatureConfig) -> sp.csr_array:
    import scipy.sparse as sp

    bounds = np.zeros(len(offsets), np.int64)
    shift = np.uint64(64 - config.log2_buckets)
    columns = _list_buckets(data, offsets, TABLE, shift, config.max_ngram == 2, bounds)
    counts = np.diff(bounds)
    values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32)
    shape = (len(counts), config.buckets)
    matrix = sp.csr_array((values, columns, bounds), shape=shape)
    matrix.sum_duplicates()
    return matrix


@njit(nogil=True, cache=True)
def _list_buckets(
    data: Octets,
    offsets: Offsets,
    table: Table,
    shift: np.uint64,
    bigrams: bool,
    bounds: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """The buckets of all n-grams in order; those of document i end at ``bounds[i + 1]``."""
    base, entries = data.ctypes.data, table.ctypes.data
    columns = np.empty(2 * np.int64(offsets[-1] - offsets[0]), np.int32)
    words = np.empty(MOST_WORDS, np.uint64)
    size = 0
    for i in range(len(offsets) - 1):
        position = base + np.int64(offsets[i])
        end = base + np.int64(offsets[i + 1])
        before = NO_WORD
        while position < end:
            n, position = next_words(position, end, entries, words.ctypes.data, True)
            for word in words[:n]:
                columns[size] = bucket(NO_WORD, word, shift)
                size += 1
                if bigrams and before != NO_WORD:
                    columns[size] = bucket(before, word, shift)
                    size += 1
                before = word
        bounds[i + 1] = size
    return columns[:size].copy()
