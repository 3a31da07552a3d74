"""The hashed-linear scorer: one float32 weight per bucket, one pass over Arrow's buffers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.features import FeatureConfig


@dataclass(frozen=True)
class HashedLinear:
    """A trained linear model: ``weights`` float32 [config.buckets] and a bias."""

    config: FeatureConfig
    weights: npt.NDArray[np.float32]
    bias: float
    kind: ClassVar[str] = "hashed_linear"

    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """Log-odds before calibration of n documents: float64 [n]."""
        return margins(text, self.weights, self.bias, self.config)


def margins(
    text: pa.Array, weights: npt.NDArray[np.float32], bias: float, config: FeatureConfig
) -> npt.NDArray[np.float64]:
    """``hashed_features(text, config) @ weights + bias`` without the matrix: float64 [n]."""
    raise NotImplementedError("interface only; the kernel follows")
