"""The keep decision: which documents of a filtered source stay, and with what probability.

GPT-3 (Brown et al. 2020, appendix A) and GLaM keep a document when
``numpy.random.pareto(alpha) > 1 - score``. That draw is Lomax, so the event is
``u < (2 - score) ** -alpha`` for u uniform in [0, 1). Here u is a hash of the document's id, keyed
by the run's seed. Solved for alpha, the event reads

    alpha < critical_alpha = -ln(u) / ln(2 - score)

Decisions are nested in alpha, the same on every worker and after every retry, and can be repeated
from the two stored columns alone.
"""

import sys
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from winnow.text.hashing import xxh3_64

RuleName = Literal["pareto", "threshold", "random", "all"]

FloatArray = npt.NDArray[np.float64]

PARAMETERS = {"pareto": "alpha", "threshold": "threshold", "random": "rate"}
"""The user's name for each rule's parameter."""


@dataclass(frozen=True)
class Rule:
    """One keep rule and its parameter.

    ============  =======================  =====================================
    name          parameter                a document is kept when
    ============  =======================  =====================================
    pareto        alpha >= 0               draw < (2 - score) ** -alpha
    threshold     score in [0, 1]          score > threshold, or score = threshold
                                           and draw < ties (1 unless it is solved
                                           for a top fraction)
    random        rate in [0, 1]           draw < rate (the control arm)
    all           ignored                  always
    ============  =======================  =====================================
    """

    name: RuleName
    parameter: float = 0.0
    ties: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in get_args(RuleName):
            raise ValueError(f"unknown rule {self.name!r}: choose one of {get_args(RuleName)}")
        pareto = self.name == "pareto"
        if not 0.0 <= self.parameter <= (sys.float_info.max if pareto else 1.0):
            span = "a finite number of 0 or more" if pareto else "from 0 to 1"
            raise ValueError(f"{PARAMETERS[self.name]} must be {span}, not {self.parameter:g}")

    def keep(self, score: npt.NDArray[np.float32], draw: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether to keep n documents: bool [n] from float32 [n] scores and float64 [n] draws."""
        match self.name:
            case "pareto":
                return critical_alpha(score, draw) > self.parameter
            case "threshold":
                exact = score.astype(np.float64)
                tied = exact == self.parameter
                return (exact > self.parameter) | (tied & (draw < self.ties))
            case "random":
                return draw < self.parameter
            case "all":
                return np.ones(len(score), np.bool_)

    def probability(self, score: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The chance of n documents before the draw: float32 [n]."""
        match self.name:
            case "pareto":
                return ((2.0 - score.astype(np.float64)) ** -self.parameter).astype(np.float32)
            case "threshold":
                exact = score.astype(np.float64)
                chance = np.where(exact == self.parameter, self.ties, exact > self.parameter)
                return chance.astype(np.float32)
            case "random":
                return np.full(len(score), self.parameter, np.float32)
            case "all":
                return np.ones(len(score), np.float32)

    def repeats(self, score: npt.NDArray[np.float32], draw: FloatArray) -> npt.NDArray[np.int32]:
        """The number of copies of n documents in training, 0 or 1: int32 [n]."""
        return self.keep(score, draw).astype(np.int32)

    def distance(self, score: npt.NDArray[np.float32], draw: FloatArray) -> FloatArray:
        """The distance of n documents from the opposite decision, if any: float64 [n]."""
        if self.name == "all":
            return np.full(len(score), np.inf)
        if self.name == "threshold":
            return np.abs(score.astype(np.float64) - self.parameter)
        return np.abs(draw - self.probability(score).astype(np.float64))


def keep_draw(ids: pa.Array, seed: int) -> FloatArray:
    """The uniform draws of n documents: float64 [n] in [0, 1), from the top 53 bits of a hash."""
    return (xxh3_64(ids, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def critical_alpha(score: npt.NDArray[np.float32], draw: FloatArray) -> FloatArray:
    """The alphas below which the Pareto rule keeps n documents: float64 [n], inf for always."""
    with np.errstate(divide="ignore"):
        return -np.log(draw) / np.log(2.0 - score.astype(np.float64))
