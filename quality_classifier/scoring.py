"""What the pipeline calls: a classifier by path, and the calibrated score of an Arrow array."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.artifact import Artifact


class Classifier:
    """Scores text: P(curated) in [0, 1]. Threads may share one."""

    def __init__(self, artifact: Artifact) -> None:
        self.fingerprint: str = artifact.fingerprint
        self.card: Mapping[str, Any] = artifact.card
        self._artifact = artifact

    def score(self, text: pa.Array) -> npt.NDArray[np.float32]:
        """Calibrated P(curated) of n documents, a string or large_string array: float32 [n]."""
        return self._artifact.calibration.apply(self._artifact.model.margins(text))


def load_classifier(path: str, label: str | None = None) -> Classifier:
    """The classifier in a folder, or a fastText ``.bin`` with the name of its good label."""
    raise NotImplementedError("interface only")
