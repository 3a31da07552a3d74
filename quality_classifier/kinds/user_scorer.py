"""A user-defined classifier, named by the dotted path of a class.

The class is instantiated without arguments. ``score(text)`` takes a string or large_string array of
n documents and returns float32 [n] in [0, 1]; it must be thread-safe. The optional ``input_files``
are paths of files that scores depend on.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.kinds.calibration import log_odds
from quality_classifier.kinds.contract import Scorer
from winnow import own_code
from winnow.filesystem import storage


class UserScorer(Scorer):
    """Adapter of a user-defined classifier; ValueError unless it loads and has a ``score``."""

    def __init__(self, path: str) -> None:
        scorer_class = own_code.load(path, "classifier")
        try:
            self._own: Any = scorer_class()
        except Exception as error:
            raise ValueError(f"classifier {path}: {type(error).__name__}: {error}") from error
        if not callable(getattr(self._own, "score", None)):
            raise ValueError(f"classifier {path}: it has no score(text)")
        self._path = path

    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """The log odds of its scores: [n]; RuntimeError if it fails or returns invalid scores."""
        try:
            score = self._own.score(text)
        except Exception as error:
            raise RuntimeError(
                f"classifier {self._path}: {type(error).__name__}: {error}"
            ) from error
        if isinstance(score, pa.Array):
            score = score.to_numpy(zero_copy_only=False)
        n = len(text)
        if getattr(score, "dtype", None) != np.float32 or score.shape != (n,):
            kind = getattr(score, "dtype", type(score).__name__)
            raise RuntimeError(
                f"classifier {self._path}: for {n} documents it must return float32 [{n}], but"
                f" returned {kind} {list(np.shape(score))}"
            )
        if not ((score >= 0) & (score <= 1)).all():
            raise RuntimeError(
                f"classifier {self._path}: scores go from 0 to 1, but it returned {score.min()} to"
                f" {score.max()}"
            )
        return log_odds(score)

    def checksums(self) -> dict[str, str]:
        """Checksums of the code and files that the scores depend on, by name."""
        files = list(getattr(self._own, "input_files", ()))
        paths = {self._path: own_code.source(self._path)} | {str(path): str(path) for path in files}
        return {name: storage.checksum(path) for name, path in paths.items()}
