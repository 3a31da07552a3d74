"""From a model's margin to a calibrated probability. The fitting is in ``fitting.py``.

The calibrated score is P(positive | text) for classes of equal weight. That prior is a choice, and
an important one: the Pareto rule keeps a document with probability (2 - score) ** -alpha, so the
absolute score is the keep rate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


def log_odds(score: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """``ln(s / (1 - s))`` of n scores, infinite at 0 and 1: float64 [n]."""
    exact = score.astype(np.float64)
    with np.errstate(divide="ignore"):
        odds: npt.NDArray[np.float64] = np.log(exact) - np.log1p(-exact)
    return odds


@dataclass(frozen=True)
class Calibration:
    """A rising function from margins (log odds, any real number) to scores in [0, 1].

    Without ``knots`` it is Platt's sigmoid, ``1 / (1 + exp(-(slope * margin + intercept)))``. With
    knots, ``(margin, score)`` pairs from isotonic regression, it is linear between them and flat
    outside.

    Raises:
        ValueError: the parameters are no such function.
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
        """The margin is taken at its word, as log odds: the plain logistic function."""
        return cls()

    @property
    def method(self) -> str:
        """``identity``, ``sigmoid`` or ``isotonic``."""
        if self.knots:
            return "isotonic"
        return "identity" if self == Calibration.identity() else "sigmoid"

    def apply(self, margin: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """The scores of n margins: float32 [n] in [0, 1] from float64 [n], infinities allowed."""
        if self.knots:
            margins, scores = np.array(self.knots, np.float64).T
            return np.interp(margin, margins, scores).astype(np.float32)
        with np.errstate(over="ignore"):  # exp(710) is infinite, and 1 / infinity the right 0
            scores = 1 / (1 + np.exp(-(self.slope * margin + self.intercept)))
        return scores.astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; :meth:`from_json` is the inverse, to the last bit."""
        if self.knots:
            return {"method": self.method, "knots": [list(knot) for knot in self.knots]}
        return {"method": self.method, "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """The calibration that :meth:`to_json` wrote.

        Raises:
            ValueError: the value is damaged or of another format.
        """
        try:
            match value["method"]:
                case "identity" | "sigmoid":
                    return cls(float(value["slope"]), float(value["intercept"]))
                case "isotonic" if value["knots"]:
                    return cls(knots=tuple(_knot(knot) for knot in value["knots"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"damaged calibration {dict(value)!r:.200}: {error}") from error
        raise ValueError(f"unknown calibration {dict(value)!r:.200}")


def _knot(pair: Sequence[float]) -> tuple[float, float]:
    margin, score = pair
    return float(margin), float(score)
