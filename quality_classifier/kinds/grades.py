"""From a margin to grades: the part of an artefact that classifiers of labels alone have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quality_classifier.kinds.calibration import Calibration

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grades:
    """K grades, and how likely each but the lowest is reached.

    Attributes:
        names: of the grades, from the lowest.
        values: their numbers, which rise.
        at_least: the grade whose probability is the score, 1 … K - 1.
        curves: K - 1 calibrations: from the margin to P(grade 1 or more), P(grade 2 or more), …

    Raises:
        ValueError: the numbers of names, values and curves don't fit, or values don't rise.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    at_least: int
    curves: tuple[Calibration, ...]

    def __post_init__(self) -> None:
        fits = len(self.names) == len(self.values) == len(self.curves) + 1 > self.at_least > 0
        if not fits or not (np.diff(self.values) > 0).all():
            raise ValueError("names, values and curves of the grades don't fit each other")

    @property
    def score(self) -> Calibration:
        """From the margin to the score, P(``at_least`` or more)."""
        return self.curves[self.at_least - 1]

    def reached(self, margin: FloatArray) -> FloatArray:
        """P(grade k or more) for k = 1 … K - 1: float64 [n, K - 1] from float64 [n]."""
        return np.stack([c.apply(margin).astype(np.float64) for c in self.curves], axis=1)

    def expected(self, margin: FloatArray) -> npt.NDArray[np.float32]:
        """The expected grade of n documents: float32 [n] from float64 [n].

        The sum over k of (value k - value k - 1) P(grade k or more), above the lowest value.
        """
        grade = self.values[0] + self.reached(margin) @ np.diff(self.values)
        return grade.astype(np.float32)

    def scale(self) -> dict[str, Any]:
        """The meaning of score and expected grade, as plain JSON values."""
        return {
            "names": list(self.names),
            "values": list(self.values),
            "at_least": self.names[self.at_least],
        }

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; :meth:`from_json` is the inverse."""
        return {
            **self.scale(),
            "curves": [curve.to_json() for curve in self.curves],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Grades":
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: the value is damaged.
        """
        try:
            names = tuple(map(str, value["names"]))
            return cls(
                names,
                tuple(map(float, value["values"])),
                names.index(value["at_least"]),
                tuple(map(Calibration.from_json, value["curves"])),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"damaged grades {dict(value)!r:.200}: {error}") from error


def likelihoods(reached: FloatArray) -> FloatArray:
    """The probability of each of K grades: float64 [n, K] from P(grade k or more), [n, K - 1]."""
    ends = np.ones((len(reached), 1))
    return -np.diff(np.concatenate([ends, reached, 0 * ends], axis=1), axis=1)
