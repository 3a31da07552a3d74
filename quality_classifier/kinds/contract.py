"""The interface of a kind of classifier: fit, save, load and score."""

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
    """n training documents: text (string or large_string [n]), class (bool [n]) and a weight that
    balances classes and sources (float64 [n], mean 1).
    """

    text: pa.Array
    positive: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitting:
    """How to fit a model: ``settings`` are those of its kind, ``method`` that of the calibration.

    ``folder`` is for files and outlives the model; ``say`` reports progress.
    """

    settings: Any
    method: str
    seed: int
    folder: Path
    say: Callable[[str], None]


class Scorer(ABC):
    """Computes margins; thread-safe."""

    @abstractmethod
    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """Uncalibrated log odds of n documents (string or large_string array): [n]."""


class Model(Scorer):
    """A trained model. ``kind`` names its class in settings and files."""

    kind: ClassVar[str]
    weights_file: ClassVar[str]

    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """Everything but the weights that affects a score, as JSON values."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the weights, without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, rules: Mapping[str, Any]) -> Self:
        """The model that :meth:`save` wrote, under :meth:`rules`; ValueError if one is damaged."""

    @classmethod
    @abstractmethod
    def fit(
        cls, train: Labelled, calibration: Labelled, how: Fitting
    ) -> tuple[Self, dict[str, Any]]:
        """Fit the training split, choosing settings by the ``calibration`` split.

        Returns the model and the card's figures of the fit, as JSON values.
        """
