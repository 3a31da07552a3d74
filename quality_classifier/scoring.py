"""The pipeline's interface: load a classifier and score Arrow arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier import artifact, fingerprints
from quality_classifier.features.hashed_features import FeatureConfig
from quality_classifier.kinds.linear import HashedLinear, LinearGroup
from winnow import own_code
from winnow.cli import command
from winnow.filesystem import storage
from winnow.sorted_keys import among

Scores = npt.NDArray[np.float32]


class Classifier:
    """Scores text: P(curated) in [0, 1], or P(grade or more) with grades. Thread-safe."""

    def __init__(self, trained: artifact.Artifact) -> None:
        self.fingerprint: str = trained.fingerprint
        self.card: Mapping[str, Any] = trained.card
        self.model = trained.model
        self.grades = trained.grades
        self._calibration = trained.calibration
        self._trained_on = trained.trained_on

    def score(self, text: pa.Array) -> Scores:
        """Calibrated scores of n documents (string or large_string array): float32 [n]."""
        return self._calibration.apply(self.model.margins(text))

    def score_and_grade(self, text: pa.Array) -> tuple[Scores, Scores | None]:
        """The scores of n documents and, with grades, their expected grades: float32 [n]."""
        return self.of_margins(self.model.margins(text))

    def of_margins(self, margin: npt.NDArray[np.float64]) -> tuple[Scores, Scores | None]:
        grade = None if self.grades is None else self.grades.expected(margin)
        return self._calibration.apply(margin), grade

    def learned_from(self, hashes: pa.Array) -> npt.NDArray[np.bool_]:
        """Which of n documents, given by content hash, it was trained on: bool [n]."""
        return among(self._trained_on, fingerprints.of_hashes(hashes))

    def trained_on(self, hashes: pa.Array) -> int:
        """The number of documents, given by content hash, it was trained on."""
        return int(self.learned_from(hashes).sum())


class ClassifierSet:
    """Classifiers by name; words are hashed once for those with the same features. Thread-safe."""

    def __init__(self, classifiers: Mapping[str, Classifier]) -> None:
        self._classifiers = dict(classifiers)
        by_features: dict[FeatureConfig, dict[str, HashedLinear]] = {}
        for name, classifier in classifiers.items():
            if isinstance(model := classifier.model, HashedLinear):
                by_features.setdefault(model.config, {})[name] = model
        self._groups = [
            (list(models), LinearGroup(list(models.values())))
            for models in by_features.values()
            if len(models) > 1
        ]

    def scores(self, text: pa.Array) -> dict[str, Scores]:
        """The scores of n documents by name, float32 [n], equal to each classifier's own."""
        return {name: score for name, (score, _) in self.scores_and_grades(text).items()}

    def scores_and_grades(self, text: pa.Array) -> dict[str, tuple[Scores, Scores | None]]:
        """The scores, each with expected grades (float32 [n]) if the classifier has them."""
        scored = {}
        for names, group in self._groups:
            margins = group.margins(text)
            for name, margin in zip(names, margins.T, strict=True):
                scored[name] = self._classifiers[name].of_margins(np.ascontiguousarray(margin))
        return {
            name: scored[name] if name in scored else classifier.score_and_grade(text)
            for name, classifier in self._classifiers.items()
        }

    def trained_on(self, hashes: pa.Array) -> int:
        """The number of documents, given by content hash, that any classifier was trained on."""
        learned = np.zeros(len(hashes), np.bool_)
        for classifier in self._classifiers.values():
            learned |= classifier.learned_from(hashes)
        return int(learned.sum())


def load_classifier(path: str, label: str | None = None) -> Classifier:
    """Load a folder of ``train.py``, a fastText ``.bin``, or a user-defined class.

    ``label`` is that of good text in a ``.bin`` (DCLM's is ``__label__hq``).

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
    """Whether a path is the dotted path of a class, not a file."""
    named_as_file = path.endswith((".bin", ".ftz"))
    return own_code.is_dotted(path) and not named_as_file and not Path(path).exists()
