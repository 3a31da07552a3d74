"""Accuracy on pairs, and the baseline that picks the longer text."""

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from quality_classifier.evaluation.graded import SHOWN, Rows, interval
from quality_classifier.kinds.pair_fitting import pair_loss

FloatArray = npt.NDArray[np.float64]

SETS = 10
"""With at least this many sets of linked pairs, the bootstrap resamples sets instead of pairs."""


def in_order(better: FloatArray, worse: FloatArray) -> FloatArray:
    """1 for each of n pairs whose better text has the higher value, 0.5 for a tie: float64 [n]."""
    return (np.sign(better - worse) + 1) / 2


def evaluate(
    margin: FloatArray,
    size: FloatArray,
    better: Rows,
    worse: Rows,
    linked: Rows,
    source: npt.NDArray[np.str_],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """The card's figures for n held-out pairs of t texts, as JSON values.

    Per text, ``margin`` and ``size`` (bytes) are float64 [t]. Per pair, int64 [n]: ``better`` and
    ``worse`` index the texts, and ``linked`` numbers the sets of pairs that share texts or a group.
    """
    right = in_order(margin[better], margin[worse])
    longer = in_order(size[better], size[worse])
    sets = int(linked.max()) + 1
    group = linked if sets >= SETS else None

    def estimate(value: FloatArray) -> dict[str, float]:
        return asdict(
            interval(lambda rows: float(value[rows].mean()), len(value), replicates, seed, group)
        )

    rows = [("all", "(all)", np.ones(len(right), np.bool_))]
    rows += [("source", name, source == name) for name in np.unique(source).tolist()]
    rows.append(("length", "the better one is longer", longer == 1))
    rows.append(("length", "the better one is not longer", longer < 1))
    return {
        "tested": len(right),
        "sets": sets,
        "drawn": "pairs" if group is None else "sets of linked pairs",
        "accuracy": estimate(right),
        "longer": estimate(longer),
        "gain": estimate(right - longer),
        "log_loss": pair_loss(margin[better] - margin[worse]),
        "noise": noise(better, worse),
        "groups": [
            {
                "column": column,
                "value": value,
                "pairs": int(own.sum()),
                "accuracy": float(right[own].mean()),
            }
            for column, value, own in rows
            if own.sum() >= SHOWN
        ],
    }


def noise(better: Rows, worse: Rows) -> dict[str, Any] | None:
    """Agreement of judgements of the same two texts; None if no pair was judged twice.

    ``agreement`` is the share that follows the majority, an upper bound for any classifier.
    """
    texts = np.sort(np.stack([better, worse], axis=1))
    _, which, count = np.unique(texts, axis=0, return_inverse=True, return_counts=True)
    wins = np.bincount(which.ravel(), better < worse)
    twice = count > 1
    if not twice.any():
        return None
    majority = np.maximum(wins, count - wins)[twice]
    return {
        "pairs": int(twice.sum()),
        "judgements": int(count[twice].sum()),
        "agreement": float(majority.sum() / count[twice].sum()),
    }
