"""The kinds of classifiers, one module each."""

from quality_classifier.kinds.contract import Model
from quality_classifier.kinds.fasttext_model import FastTextModel
from quality_classifier.kinds.linear import HashedLinear

KINDS: dict[str, type[Model]] = {kind.kind: kind for kind in (HashedLinear, FastTextModel)}
