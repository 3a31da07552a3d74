"""From a model's margin to a calibrated score and to grades.

The calibrated score is P(positive | text) for classes of equal weight. That prior matters: the
Pareto rule keeps a document with probability (2 - score) ** -alpha.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def log_odds(score: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """``ln(s / (1 - s))`` of n scores, infinite at 0 and 1: float64 [n]."""
    exact = score.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.log(exact) - np.log1p(-exact)


@dataclass(frozen=True)
class Calibration:
    """A monotone function from margins (log odds, any real number) to scores in [0, 1].

    Without ``knots`` it is Platt's sigmoid, ``1 / (1 + exp(-(slope * margin + intercept)))``. With
    knots, ``(margin, score)`` from isotonic regression, it is linear between them and flat outside.

    Raises:
        ValueError: the parameters do not define one.
    """

    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not (0 < self.slope < math.inf and math.isfinite(self.intercept)):
            raise ValueError(
                f"a calibration needs a positive slope and a finite intercept, not {self.slope}"
                f" and {self.intercept}: higher margins must mean higher scores"
            )
        if self.knots:
            margins, scores = np.array(self.knots, np.float64).T
            rising = (np.diff(margins) > 0).all() and (np.diff(scores) >= 0).all()
            within = np.isfinite(margins).all() and scores[0] >= 0 and scores[-1] <= 1
            if not (rising and within):
                raise ValueError("the knots of a calibration must rise, with scores from 0 to 1")

    @classmethod
    def identity(cls) -> "Calibration":
        return cls()

    @property
    def method(self) -> str:
        if self.knots:
            return "isotonic"
        return "identity" if self == Calibration.identity() else "sigmoid"

    def apply(self, margin: FloatArray) -> npt.NDArray[np.float32]:
        """The scores of n margins (float64 [n], perhaps infinite): float32 [n] in [0, 1]."""
        if self.knots:
            margins, scores = np.array(self.knots, np.float64).T
            return np.interp(margin, margins, scores).astype(np.float32)
        with np.errstate(over="ignore"):  # exp(710) is infinite, and 1 / infinity the right 0
            scores = 1 / (1 + np.exp(-(self.slope * margin + self.intercept)))
        return scores.astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """JSON values that :meth:`from_json` inverts exactly."""
        if self.knots:
            return {"method": self.method, "knots": [list(knot) for knot in self.knots]}
        return {"method": self.method, "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """The calibration that :meth:`to_json` wrote; ValueError if it is damaged."""
        try:
            match value["method"]:
                case "identity" | "sigmoid":
                    return cls(float(value["slope"]), float(value["intercept"]))
                case "isotonic" if value["knots"]:
                    return cls(knots=tuple((float(m), float(score)) for m, score in value["knots"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"damaged calibration {dict(value)!r:.200}: {error}") from error
        raise ValueError(f"unknown calibration {dict(value)!r:.200}")


@dataclass(frozen=True)
class Grades:
    """K grades, lowest first, and the probability of reaching each but the lowest.

    Attributes:
        at_least: the grade whose probability is the score, 1 … K - 1.
        curves: K - 1 calibrations, from the margin to P(grade k or more) for k = 1 … K - 1.

    Raises:
        ValueError: names, values and curves don't match in number, or values don't rise.
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
        """The meaning of score and expected grade, as JSON values."""
        return {
            "names": list(self.names),
            "values": list(self.values),
            "at_least": self.names[self.at_least],
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values that :meth:`from_json` inverts."""
        return {**self.scale(), "curves": [curve.to_json() for curve in self.curves]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Grades":
        """The grades that :meth:`to_json` wrote; ValueError if they are damaged."""
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
    return -np.diff(reached, axis=1, prepend=1.0, append=0.0)
