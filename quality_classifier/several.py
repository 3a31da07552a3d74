"""Several classifiers over the same text: a score of each, words hashed once where that will do."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.features.hashed_features import FeatureConfig
from quality_classifier.kinds.linear import HashedLinear, LinearGroup
from quality_classifier.scoring import Classifier

Floats = npt.NDArray[np.float32]


class Several:
    """Classifiers by name. Threads may share one."""

    def __init__(self, classifiers: Mapping[str, Classifier]) -> None:
        self._classifiers = dict(classifiers)
        same: dict[FeatureConfig, list[str]] = {}
        for name, classifier in classifiers.items():
            if isinstance(classifier.model, HashedLinear):
                same.setdefault(classifier.model.config, []).append(name)
        self._groups = [
            (names, LinearGroup([self._linear(name) for name in names]))
            for names in same.values()
            if len(names) > 1
        ]

    def scores(self, text: pa.Array) -> dict[str, Floats]:
        """The calibrated scores of n documents, float32 [n], by name, as each gives them alone."""
        return {name: score for name, (score, _) in self.scores_and_grades(text).items()}

    def scores_and_grades(self, text: pa.Array) -> dict[str, tuple[Floats, Floats | None]]:
        """The same, each with the expected grades (float32 [n]) if the classifier has grades."""
        found = {}
        for names, group in self._groups:
            margins = group.margins(text)
            for name, margin in zip(names, margins.T, strict=True):
                found[name] = self._classifiers[name].of_margins(np.ascontiguousarray(margin))
        return {
            name: found[name] if name in found else classifier.score_and_grade(text)
            for name, classifier in self._classifiers.items()
        }

    def trained_on(self, hashes: pa.Array) -> int:
        """How many of n documents, by their content's hashes, some classifier has learned from."""
        learned = np.zeros(len(hashes), np.bool_)
        for classifier in self._classifiers.values():
            learned |= classifier.learned_from(hashes)
        return int(learned.sum())

    def _linear(self, name: str) -> HashedLinear:
        model = self._classifiers[name].model
        assert isinstance(model, HashedLinear)
        return model
