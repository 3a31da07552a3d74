"""The interface of classifier kinds: models that score text, are fitted, written and read."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Labelled:
    """n documents to learn from: text (string or large_string [n]), class (bool [n]) and weight
    (float64 [n], mean 1; under it classes and sources are balanced).
    """

    text: pa.Array
    positive: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitting:
    """How a model is fitted: with the settings of its kind and the method of calibration.

    Files may go to ``folder``, which outlives the model; ``say`` reports progress.
    """

    settings: Any
    method: str
    seed: int
    folder: Path
    say: Callable[[str], None]


class Scorer(ABC):
    """Gives margins. Threads may share one."""

    @abstractmethod
    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """Log odds before calibration of n documents, a string or large_string array: [n]."""


class Model(Scorer):
    """A trained model.

    Attributes:
        kind: its name in :data:`quality_classifier.kinds.KINDS`, in settings and in files.
        weights_file: the name of the file that :meth:`save` writes.
    """

    kind: ClassVar[str]
    weights_file: ClassVar[str]

    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """What changes a score besides the weights, as JSON values."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the weights, without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, rules: Mapping[str, Any]) -> Self:
        """The model that :meth:`save` wrote. ``rules`` holds what :meth:`rules` gave, and more.

        Raises:
            ValueError: the file or the rules are damaged.
        """

    @classmethod
    @abstractmethod
    def fit(
        cls, train: Labelled, calibration: Labelled, how: Fitting
    ) -> tuple[Self, dict[str, Any]]:
        """A model of the training split, and what its card says of the fitting (JSON values).

        The ``calibration`` split chooses among settings.
        """
