"""Several hashed-linear models of the same features: words are hashed once for all."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from quality_classifier.features.hashed_features import FeatureConfig
from quality_classifier.features.ngrams import NO_WORD, bucket, next_word, prefetch
from quality_classifier.kinds.linear import HashedLinear
from winnow.text.buffers import Octets, Offsets, string_buffers
from winnow.text.words import TABLE, Table, nfc

_WAITING = 64


class LinearGroup:
    """k models of one :class:`FeatureConfig`. Their weights lie side by side, bucket by bucket."""

    def __init__(self, models: Sequence[HashedLinear]) -> None:
        (self._config,) = {model.config for model in models}
        self._weights = np.ascontiguousarray(np.stack([model.weights for model in models], axis=1))
        self._bias = np.array([model.bias for model in models])

    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """Log odds before calibration of n documents: float64 [n, k].

        To the bit those that each model gives alone: the same numbers are added in the same order.
        """
        config: FeatureConfig = self._config
        data, offsets = string_buffers(nfc(text))
        shift = np.uint64(64 - config.log2_buckets)
        sums = _sum_weights(data, offsets, TABLE, self._weights, shift, config.max_ngram == 2)
        found: npt.NDArray[np.float64] = sums + self._bias
        return found


@njit(nogil=True, cache=True)
def _sum_weights(
    data: Octets,
    offsets: Offsets,
    table: Table,
    weights: npt.NDArray[np.float32],
    shift: np.uint64,
    bigrams: bool,
) -> npt.NDArray[np.float64]:
    base = data.ctypes.data
    first_weight = weights.ctypes.data
    k = weights.shape[1]
    # As in linear.py: weights are asked for early and added later.
    waiting = np.empty(_WAITING + 1, np.int64)
    sums = np.empty((len(offsets) - 1, k), np.float64)
    total = np.empty(k, np.float64)
    for i in range(len(sums)):
        position = base + np.int64(offsets[i])
        end = base + np.int64(offsets[i + 1])
        before = NO_WORD
        total[:] = 0.0
        count = 0
        size = 0
        while True:
            word, position = next_word(position, end, table)
            ended = word == NO_WORD
            if not ended:
                waiting[size] = bucket(NO_WORD, word, shift)
                prefetch(first_weight + 4 * k * waiting[size])
                size += 1
                if bigrams and before != NO_WORD:
                    waiting[size] = bucket(before, word, shift)
                    prefetch(first_weight + 4 * k * waiting[size])
                    size += 1
                before = word
            if ended or size >= _WAITING:
                for j in range(size):
                    for m in range(k):
                        total[m] += weights[waiting[j], m]
                count += size
                size = 0
            if ended:
                break
        for m in range(k):
            sums[i, m] = total[m] / math.sqrt(max(count, 1))
    return sums
