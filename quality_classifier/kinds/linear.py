"""The hashed-linear kind: one float32 weight per bucket, one pass over Arrow's buffers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors
import safetensors.numpy
from numba import njit

from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.features.ngrams import MOST_WORDS, NO_WORD, bucket, next_words, prefetch
from quality_classifier.kinds.contract import Fitting, Labelled, Model
from winnow.text.buffers import Octets, Offsets, string_buffers
from winnow.text.words import TABLE, Table, suspects_in_nfc

_WAITING = 64


@dataclass(frozen=True)
class HashedLinear(Model):
    """A trained linear model; ``weights`` are float32 [config.buckets].

    ValueError for another shape or type, or a weight or bias that is not finite.
    """

    config: FeatureConfig
    weights: npt.NDArray[np.float32]
    bias: float
    kind: ClassVar[str] = "hashed_linear"
    weights_file: ClassVar[str] = "weights.safetensors"

    def __post_init__(self) -> None:
        buckets = self.config.buckets
        if self.weights.shape != (buckets,) or self.weights.dtype != np.float32:
            raise ValueError(
                f"{buckets} buckets need as many float32 weights,"
                f" not {self.weights.dtype} {list(self.weights.shape)}"
            )
        if not (np.isfinite(self.weights).all() and math.isfinite(self.bias)):
            raise ValueError("the weights or the bias hold NaN or infinity")

    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """``hashed_features(text, config) @ weights + bias`` without the matrix: float64 [n]."""
        return _sums(text, self.weights[:, None], self.config)[:, 0] + self.bias

    def rules(self) -> dict[str, Any]:
        return {"features": asdict(self.config)}

    def save(self, path: Path) -> None:
        """Write ``weights`` float32 [buckets] and ``bias`` float64 [1] as safetensors."""
        tensors = {"weights": self.weights, "bias": np.array([self.bias], np.float64)}
        safetensors.numpy.save_file(tensors, path)

    @classmethod
    def load(cls, path: Path, rules: Mapping[str, Any]) -> "HashedLinear":
        config = FeatureConfig(**rules["features"])
        try:
            tensors = safetensors.numpy.load_file(path)
            return cls(config, tensors["weights"], float(tensors["bias"].item()))
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path.name}: {error}") from error

    @classmethod
    def fit(
        cls, train: Labelled, calibration: Labelled, how: Fitting
    ) -> tuple["HashedLinear", dict[str, Any]]:
        """Logistic regression; the calibration split chooses its penalty from ``settings.c``."""
        # Scoring does without scikit-learn.
        from quality_classifier.kinds.fitting import Examples, fit_linear

        settings = how.settings
        features = FeatureConfig(settings.log2_buckets, settings.max_ngram)
        how.say(f"hashing the words of {len(train.text) + len(calibration.text):,} documents")
        learnt, chosen = (
            Examples(hashed_features(split.text, features), split.positive, split.weight)
            for split in (train, calibration)
        )
        how.say(f"fitting {len(train.text):,} documents, c = {list(settings.c)}")
        weights, bias, trials = fit_linear(learnt, chosen, settings.c, how.method)
        return cls(features, weights, bias), {"trials": trials}


class LinearGroup:
    """k models with one :class:`FeatureConfig`: words are hashed once for all."""

    def __init__(self, models: Sequence[HashedLinear]) -> None:
        (self._config,) = {model.config for model in models}
        # Side by side, so that a bucket's weights share a cache line.
        self._weights = np.ascontiguousarray(np.stack([model.weights for model in models], axis=1))
        self._bias = np.array([model.bias for model in models])

    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """Uncalibrated log odds of n documents: float64 [n, k], bit-for-bit those of each model."""
        return _sums(text, self._weights, self._config) + self._bias


def _sums(
    text: pa.Array, weights: npt.NDArray[np.float32], config: FeatureConfig
) -> npt.NDArray[np.float64]:
    """``hashed_features(text, config) @ weights`` for float32 [buckets, k]: float64 [n, k]."""
    shift, bigrams = np.uint64(64 - config.log2_buckets), config.max_ngram == 2

    def sums(text: pa.Array) -> npt.NDArray[np.float64]:
        return _sum_weights(*string_buffers(text), TABLE, weights, shift, bigrams)

    # Few texts are not NFC: sum these again rather than copy all.
    suspects, normal = suspects_in_nfc(text)
    found = sums(text)
    found[suspects.to_numpy(zero_copy_only=False)] = sums(normal)
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
    base, entries = data.ctypes.data, table.ctypes.data
    first_weight = weights.ctypes.data
    k = weights.shape[1]
    row_bytes = 4 * k
    # Weights are scattered over megabytes: prefetch them now, and add them some words later.
    waiting = np.empty(_WAITING + 2 * MOST_WORDS, np.int64)
    words = np.empty(MOST_WORDS, np.uint64)
    found = words.ctypes.data
    sums = np.zeros((len(offsets) - 1, k), np.float64)
    for i in range(len(sums)):
        position = base + np.int64(offsets[i])
        end = base + np.int64(offsets[i + 1])
        before = NO_WORD
        count = 0
        size = 0
        while position < end:
            n, position = next_words(position, end, entries, found, True)
            for j in range(n):
                word = words[j]
                waiting[size] = bucket(NO_WORD, word, shift)
                prefetch(first_weight + row_bytes * waiting[size])
                size += 1
                if bigrams and before != NO_WORD:
                    waiting[size] = bucket(before, word, shift)
                    prefetch(first_weight + row_bytes * waiting[size])
                    size += 1
                before = word
            if size >= _WAITING:
                _add(sums, i, weights, waiting, size)
                count += size
                size = 0
        _add(sums, i, weights, waiting, size)
        root = math.sqrt(max(count + size, 1))
        for m in range(k):
            sums[i, m] /= root
    return sums


@njit(nogil=True, cache=True, inline="always")
def _add(
    sums: npt.NDArray[np.float64],
    i: int,
    weights: npt.NDArray[np.float32],
    buckets: npt.NDArray[np.int64],
    size: int,
) -> None:
    """Add to row i the weights of the first ``size`` buckets, in order.

    Inlined: a call would slow down a single model by 2 %.
    """
    for m in range(weights.shape[1]):
        total = sums[i, m]
        for j in range(size):
            total += weights[buckets[j], m]
        sums[i, m] = total
