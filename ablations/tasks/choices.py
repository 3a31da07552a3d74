"""Scoring rules for multiple choice, computed from log-probabilities.

The model picks the choice with the highest score; the first choice wins a tie:

- ``sum``: log P(choice | context)
- ``per_token``: the same per token of the choice. GPT-3's rule for most sets (Brown et al. 2020,
  section 2.4), and GLaM's, "normalised by option length"
- ``per_byte``: the same per UTF-8 byte, which does not depend on the tokenizer
- ``unconditional``: log P(choice | context) - log P(choice | "Answer:"), GPT-3's for ARC,
  OpenBookQA and RACE
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Choices:
    """The choices of all items of one task; the choices of an item are adjacent.

    ``starts`` int64 [items] is each item's first choice; the other arrays are [choices].
    ``unconditional`` is NaN where it was not measured.
    """

    starts: IntArray
    logprob: FloatArray
    tokens: IntArray
    bytes: IntArray
    unconditional: FloatArray
    correct: BoolArray
    greedy: BoolArray

    @classmethod
    def of(cls, table: pa.Table) -> "Choices":
        """Read :data:`ablations.tasks.responses.LOGPROBS` of one task and number of shots."""
        starts = np.flatnonzero(table["choice"].to_numpy() == 0)
        names = ("logprob", "tokens", "bytes", "unconditional", "correct", "greedy")
        return cls(starts, **{name: table[name].to_numpy() for name in names})

    @property
    def sizes(self) -> IntArray:
        """The number of choices of each item: int64 [items]."""
        return np.diff(np.append(self.starts, len(self.logprob)))

    @property
    def item(self) -> IntArray:
        """The item of each choice: int64 [choices]."""
        return np.repeat(np.arange(len(self.starts)), self.sizes)


RULES: Mapping[str, Callable[[Choices], FloatArray]] = {
    "sum": lambda c: c.logprob,
    "per_token": lambda c: c.logprob / c.tokens,
    "per_byte": lambda c: c.logprob / c.bytes,
    "unconditional": lambda c: c.logprob - c.unconditional,
}
"""The score of each choice, float64 [choices]."""


def chosen(choices: Choices, rule: str) -> IntArray:
    """The row of each item's selected choice: int64 [items]."""
    score = RULES[rule](choices)
    return _first(choices, score == np.maximum.reduceat(score, choices.starts)[choices.item])


def _first(choices: Choices, marked: BoolArray) -> IntArray:
    """The row of each item's first marked choice: int64 [items]."""
    row = np.where(marked, np.arange(len(marked)), len(marked))
    return np.minimum.reduceat(row, choices.starts)


def accuracy(choices: Choices, rule: str) -> FloatArray:
    """Whether the selected choice is correct, 0 or 1: float64 [items]."""
    return choices.correct[chosen(choices, rule)].astype(np.float64)


def accuracy_by_chance(choices: Choices) -> FloatArray:
    """The share of an item's choices that are correct: float64 [items]."""
    return np.add.reduceat(choices.correct.astype(np.float64), choices.starts) / choices.sizes


def gold_probability(choices: Choices) -> FloatArray:
    """The probability of the correct choices among all choices of an item: float64 [items].

    By the ``sum`` rule, which treats choices as events of one distribution. Under partial
    evaluation, it is the posterior of the correct context with equal priors.
    """
    top = np.maximum.reduceat(choices.logprob, choices.starts)[choices.item]
    weight = np.exp(choices.logprob - top)
    right = np.add.reduceat(np.where(choices.correct, weight, 0.0), choices.starts)
    return right / np.add.reduceat(weight, choices.starts)


def gold_bits(choices: Choices) -> tuple[FloatArray, FloatArray]:
    """Bits and UTF-8 bytes of each item's first correct choice: float64 [items] each."""
    row = _first(choices, choices.correct)
    return -choices.logprob[row] / np.log(2), choices.bytes[row].astype(np.float64)


def all_greedy(choices: Choices) -> FloatArray:
    """Whether each token of the only choice is the model's likeliest: float64 [items]."""
    return choices.greedy[choices.starts].astype(np.float64)


def f1a(choices: Choices, rule: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """MultiRC's F1 over all answers, as parts: numerator, denominator, chance, float64 [items].

    Each item is one answer to a question, with the choices "no" and "yes". Its parts are 2 TP and
    2 TP + FP + FN, with "yes" as the positive class. Chance is the F1 of a fair coin, spread over
    the items in proportion to their denominators, so that the ratio of the sums is that F1.
    """
    predicted = (chosen(choices, rule) - choices.starts).astype(np.bool_)
    actual = choices.correct[choices.starts + 1]
    numerator = 2 * (predicted & actual).astype(np.float64)
    denominator = numerator + (predicted != actual).astype(np.float64)
    coin = actual.astype(np.float64), 0.5 + actual
    return numerator, denominator, denominator * float(coin[0].sum() / coin[1].sum())
