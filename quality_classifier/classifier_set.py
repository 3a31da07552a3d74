"""Several classifiers over the same text, hashing words once for those with the same features."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.features.hashed_features import FeatureConfig
from quality_classifier.kinds.linear import HashedLinear, LinearGroup
from quality_classifier.scoring import Classifier

Floats = npt.NDArray[np.float32]


class ClassifierSet:
    """Classifiers by name. Threads may share one."""

    def __init__(self, classifiers: Mapping[str, Classifier]) -> None:
        self._classifiers = dict(classifiers)
        by_features: dict[FeatureConfig, list[str]] = {}
        for name, classifier in classifiers.items():
            if isinstance(classifier.model, HashedLinear):
                by_features.setdefault(classifier.model.config, []).append(name)
        self._groups = [
            (names, LinearGroup([self._linear(name) for name in names]))
            for names in by_features.values()
            if len(names) > 1
        ]

    def scores(self, text: pa.Array) -> dict[str, Floats]:
        """The calibrated scores of n documents, float32 [n], by name, as each gives alone."""
        return {name: score for name, (score, _) in self.scores_and_grades(text).items()}

    def scores_and_grades(self, text: pa.Array) -> dict[str, tuple[Floats, Floats | None]]:
        """The scores, each with expected grades (float32 [n]) if the classifier has grades."""
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
        """How many of n documents, by their content's hashes, some classifier was trained on."""
        learned = np.zeros(len(hashes), np.bool_)
        for classifier in self._classifiers.values():
            learned |= classifier.learned_from(hashes)
        return int(learned.sum())

    def _linear(self, name: str) -> HashedLinear:
        model = self._classifiers[name].model
        assert isinstance(model, HashedLinear)
        return model
