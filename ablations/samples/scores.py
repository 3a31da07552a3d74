"""Infer how lm-evaluation-harness aggregates a metric, from its items and reported figure.

A task may aggregate items by any function, whatever the metric's name. A metric is compared if one
of these reproduces the reported figure (``lm_eval/api/metrics.py`` there); all are means or ratios
of sums, whose standard error follows from the items:

=======================  =====================================  ===========================
the harness's figure     an item logs                           compared in
=======================  =====================================  ===========================
mean                     a number                               its unit; points of 100
perplexity               a log-probability (natural)            bits per item
bits_per_byte            [log-probability, bytes]               bits per byte
weighted_perplexity      [log-probability, words or bytes]      bits per word or byte
=======================  =====================================  ===========================

Others (corpus BLEU, F1 over all answers, Matthews correlation) have no such form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TOLERANCE = 1e-6
"""Relative; for other summation orders and float32 figures."""


@dataclass(frozen=True)
class Score:
    """A metric of one run: the sum of ``numerator`` over that of ``denominator``, both [items].

    ``unit`` is empty for a plain mean, in the metric's unit.
    """

    numerator: FloatArray
    denominator: FloatArray
    unit: str = ""


def score(metric: str, values: Sequence[Any], reported: Any) -> Score | str:
    """The score of a metric from its logged ``values`` by item, or why it cannot be compared."""
    figure = _number(reported)
    if figure is None or not math.isfinite(figure):
        return "lm-eval reports no figure for it"
    if any(value is None for value in values):
        return "some of its items have no value"
    plain = [_number(value) for value in values]
    if all(value is not None for value in plain):
        return _of_numbers(np.array(plain, np.float64), figure)
    if all(_is_pair(value) for value in values):
        pairs = np.array([[_number(part) for part in value] for value in values], np.float64)
        return _of_pairs(metric, pairs, figure)
    return "its items are not numbers: it is computed over all of them at once"


def mean_of(score: Score) -> float:
    """The metric's value, in the unit compared."""
    return float(score.numerator.sum() / score.denominator.sum())


def _of_numbers(values: FloatArray, figure: float) -> Score | str:
    if not np.isfinite(values).all():
        return f"{(~np.isfinite(values)).sum()} of its items have no finite value"
    ones = np.ones(len(values))
    mean = float(values.mean())
    if _same(mean, figure):
        return Score(values, ones)
    if _same(_exp(-mean), figure):
        return Score(-values / math.log(2), ones, "bits per item")
    return f"it is not the mean of its items ({mean:.6g}; lm-eval reports {figure:.6g})"


def _of_pairs(metric: str, pairs: FloatArray, figure: float) -> Score | str:
    logprob, weight = pairs[:, 0], pairs[:, 1]
    if not np.isfinite(pairs).all() or weight.sum() <= 0:
        return "its items are pairs, but not of a log-probability and a length"
    ratio = -float(logprob.sum() / weight.sum())
    unit = f"bits per {'byte' if 'byte' in metric else 'word' if 'word' in metric else 'unit'}"
    if _same(ratio / math.log(2), figure) or _same(_exp(ratio), figure):
        return Score(-logprob / math.log(2), weight, unit)
    return "it is not a ratio of sums over its items: it is computed over all of them at once"


def _is_pair(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2
    return pair and all(_number(part) is not None for part in value)


def _number(value: Any) -> float | None:
    """A number, or one that NumPy turned into a string."""
    if value in ("True", "False"):
        return float(value == "True")
    try:
        return float(value) if isinstance(value, bool | int | float | str) else None
    except ValueError:
        return None


def _same(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=1e-12)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
