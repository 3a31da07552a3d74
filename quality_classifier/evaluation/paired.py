"""How often the better text of a pair scores higher, and the baseline of picking the longer one."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from quality_classifier.evaluation import metrics
from quality_classifier.evaluation.graded import SHOWN, Rows, interval
from quality_classifier.kinds.pair_fitting import pair_loss

FloatArray = npt.NDArray[np.float64]

SETS = 10
"""With this many sets of linked pairs or more, the bootstrap resamples sets instead of pairs."""


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
    """The card's figures for n held-out pairs, as JSON values.

    Args:
        margin: float64 [t], of the texts.
        size: their bytes, float64 [t].
        better: int64 [n], which of the texts is the better one.
        worse: int64 [n].
        linked: int64 [n], 0, 1, …: the set of pairs that share texts or a group.
        source: n names.
        replicates: samples of the bootstrap.
        seed: of the bootstrap.
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
    rows += [
        ("length", "the better one is longer", longer == 1),
        ("length", "the better one is not longer", longer < 1),
    ]
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
    """How often judgements of the same two texts agree; None if no two texts were judged twice.

    ``agreement`` is the share of judgements that agree with the majority, an upper bound for any
    classifier on these pairs.
    """
    low, high = np.minimum(better, worse), np.maximum(better, worse)
    _, which, count = np.unique(
        np.stack([low, high], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    wins = np.bincount(which.ravel(), better == low)
    twice = count > 1
    if not twice.any():
        return None
    majority = np.maximum(wins, count - wins)[twice]
    return {
        "pairs": int(twice.sum()),
        "judgements": int(count[twice].sum()),
        "agreement": float(majority.sum() / count[twice].sum()),
    }


def reliability(
    score: npt.NDArray[np.float32], rows: Rows, won: npt.NDArray[np.bool_]
) -> Sequence[dict[str, float]]:
    """How often texts win by their score; ``rows`` and ``won`` as in ``Pairs.won``."""
    return metrics.reliability(score[rows], won, np.ones(len(rows)))
