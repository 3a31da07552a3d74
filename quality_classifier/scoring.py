"""The pipeline's interface: load a classifier by path, score an Arrow array."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier import artifact, fingerprints
from quality_classifier.kinds.contract import Scorer
from winnow import own_code
from winnow.cli import command
from winnow.filesystem import storage
from winnow.sorted_keys import among


class Classifier:
    """Scores text: P(curated) in [0, 1], or P(grade or more) if it has grades. Threads may share
    one.
    """

    def __init__(self, trained: artifact.Artifact) -> None:
        self.fingerprint: str = trained.fingerprint
        self.card: Mapping[str, Any] = trained.card
        self._model = trained.model
        self._calibration = trained.calibration
        self._trained_on = trained.trained_on
        self.grades = trained.grades

    def score(self, text: pa.Array) -> npt.NDArray[np.float32]:
        """Calibrated P(curated) of n documents, a string or large_string array: float32 [n]."""
        return self._calibration.apply(self._model.margins(text))

    def score_and_grade(
        self, text: pa.Array
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """The scores of n documents, and their expected grades if it has grades: float32 [n]."""
        return self.of_margins(self._model.margins(text))

    def of_margins(
        self, margin: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Scores and grades from n margins of :attr:`model`."""
        grade = None if self.grades is None else self.grades.expected(margin)
        return self._calibration.apply(margin), grade

    @property
    def model(self) -> Scorer:
        """The model behind the scores."""
        return self._model

    def learned_from(self, hashes: pa.Array) -> npt.NDArray[np.bool_]:
        """Which of n documents, by the hashes of their content, it has learned from: bool [n]."""
        return among(self._trained_on, fingerprints.of_hashes(hashes))

    def trained_on(self, hashes: pa.Array) -> int:
        """How many of n documents, by the hashes of their content, it has learned from."""
        return int(self.learned_from(hashes).sum())


def load_classifier(path: str, label: str | None = None) -> Classifier:
    """Load a classifier: a folder of ``train.py``, a fastText ``.bin``, or a user-defined class.

    Args:
        path: a folder or a fastText file, on this machine or in an object store (s3://, gs://), or
            a dotted path (:func:`is_own`).
        label: for a ``.bin`` the label of good text (DCLM's is ``__label__hq``); a folder has its
            own label, so leave it out.

    Raises:
        ValueError: it is missing or damaged, or the label is missing, unknown or not allowed.
    """
    if storage.scheme(path) is not None:
        with storage.local_copy(path) as copy:
            return load_classifier(copy, label)
    if is_own(path):
        if label is not None:
            raise ValueError(f"{path} is a class and has no labels: leave out {label}")
        return Classifier(artifact.own(path))
    local = Path(path)
    if not local.exists():
        raise ValueError(
            f"there is no classifier at {path}: train one with"
            f" {command('classifier train', 'positive=GLOB', 'negative=GLOB', f'output={path}')}"
        )
    if not local.is_dir():
        return Classifier(artifact.user_model(local, label))
    loaded = artifact.load(local)
    own_label = getattr(loaded.model, "label", None)
    if label not in (None, own_label):
        raise ValueError(f"{path} is a trained classifier and has its own label: leave out {label}")
    return Classifier(loaded)


def is_own(path: str) -> bool:
    """Whether a classifier's path is the dotted path of a class, not of a file."""
    named_as_file = path.endswith((".bin", ".ftz"))
    return own_code.is_dotted(path) and not named_as_file and not Path(path).exists()
