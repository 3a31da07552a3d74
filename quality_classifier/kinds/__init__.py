"""The kinds of classifiers, each in a module: :data:`KINDS` names them all."""

from quality_classifier.kinds.contract import Model
from quality_classifier.kinds.fasttext_model import FastTextModel
from quality_classifier.kinds.linear import HashedLinear

KINDS: dict[str, type[Model]] = {kind.kind: kind for kind in (HashedLinear, FastTextModel)}
