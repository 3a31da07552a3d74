"""Metrics of held-out scores: ranking, calibration, and expected keep rates.

All metrics are weighted. Intervals are percentiles of a bootstrap within each source, so they cover
the choice of documents but not of sources.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

TITLES = {
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece": "Calibration error (ECE)",
}
METRICS = tuple(TITLES)
GRADED = {"spearman": "Spearman, expected grade and label", "mae": "Mean absolute error", **TITLES}
PAIRED = {
    "accuracy": "Pairs in the right order",
    "longer": "If the longer text were the better one",
    "gain": "The difference",
}
"""The titles of the metrics of classes, grades and pairs, by name."""

BINS = 10
"""Equal bins of the score over [0, 1], for the calibration error and the reliability diagram."""

CONFIDENCE = 0.95
Z = 1.959963984540054
"""The normal quantile of 97.5 %."""

_CLIP = 2.0**-24
"""The log loss clips scores by this much, since float32 scores may be exactly 0 or 1."""

_CHUNK = 1 << 22
"""Bootstrap weights (float64) held at a time: bounds memory."""


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, drawn: Sequence[float] | FloatArray) -> "Estimate":
        """A value with the interval from its values on bootstrap samples."""
        tails = (1 - CONFIDENCE) / 2
        low, high = np.quantile(drawn, [tails, 1 - tails])
        return cls(float(value), float(low), float(high))


def evaluate(
    score: npt.NDArray[np.float32],
    positive: Flags,
    weight: FloatArray,
    source: npt.NDArray[np.str_],
    replicates: int,
    seed: int,
) -> dict[str, Estimate]:
    """METRICS of n scored documents of both classes.

    Scores are float32 [n] in [0, 1], ``positive`` bool [n], weights float64 [n] above 0. The
    bootstrap draws ``replicates`` samples within each source and class.
    """
    order = np.argsort(-score, kind="stable")
    exact = score[order].astype(np.float64)
    positive, weight = positive[order], weight[order]
    names = np.unique(source, return_inverse=True)[1]
    strata = 2 * names[order] + positive
    point = weighted_metrics(exact, positive, weight[None, :])
    draws = [
        weighted_metrics(exact, positive, counts * weight)
        for counts in _resample(strata, replicates, np.random.default_rng(seed))
    ]
    return {
        name: Estimate.of(point[name][0], np.concatenate([draw[name] for draw in draws]))
        for name in METRICS
    }


def weighted_metrics(
    score: FloatArray, positive: Flags, weights: FloatArray
) -> dict[str, FloatArray]:
    """METRICS, each float64 [r], under r sets of nonnegative weights (float64 [r, n]).

    ``score`` is float64 [n], descending; ``positive`` is bool [n].
    """
    mass = weights.sum(axis=1)
    clipped = np.clip(score, _CLIP, 1 - _CLIP)
    surprise = -np.log(np.where(positive, clipped, 1 - clipped))
    gap = np.zeros(len(weights))
    bins = bin_of(score)
    for i in range(BINS):
        inside = bins == i
        gap += np.abs(weights[:, inside] @ (score[inside] - positive[inside]))
    roc_auc, average_precision = _ranking(score, positive, weights)
    return {
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "brier": weights @ (score - positive) ** 2 / mass,
        "log_loss": weights @ surprise / mass,
        "ece": gap / mass,
    }


def roc_auc(score: FloatArray, positive: Flags, weight: FloatArray) -> float:
    """The ROC-AUC of n scores (float64 [n]) in any order; ties count half."""
    order = np.argsort(-score, kind="stable")
    return float(_ranking(score[order], positive[order], weight[None, order])[0][0])


def bin_of(score: FloatArray) -> npt.NDArray[np.int64]:
    """The bin of each of n scores: int64 [n] in 0 … BINS - 1; a score of 1 is in the last bin."""
    return np.minimum((score * BINS).astype(np.int64), BINS - 1)


def reliability(
    score: npt.NDArray[np.float32], positive: Flags, weight: FloatArray
) -> list[dict[str, float]]:
    """The points of a reliability diagram: one row per nonempty bin.

    ``score`` is the bin's mean score, ``positive`` its share of positives, with its interval, and
    ``weight`` the bin's share of the weight. Calibrated scores agree with ``positive``.
    """
    exact = score.astype(np.float64)
    bins = bin_of(exact)
    rows = []
    for i in np.unique(bins):
        inside = bins == i
        share = weight[inside] / weight[inside].sum()
        rate = share @ positive[inside]
        # Kish's effective sample size.
        low, high = wilson(rate, 1 / (share @ share))
        rows.append(
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "documents": int(inside.sum()),
                "weight": float(weight[inside].sum() / weight.sum()),
                "score": float(share @ exact[inside]),
                "positive": float(rate),
                "positive_low": float(low),
                "positive_high": float(high),
            }
        )
    return rows


def curves(
    score: npt.NDArray[np.float32], positive: Flags, weight: FloatArray
) -> dict[str, FloatArray]:
    """The points of the ROC and precision-recall curves, from the highest threshold down.

    ``false_positive_rate``, ``recall`` and ``precision``: float64 [distinct scores].
    """
    order = np.argsort(-score, kind="stable")
    true, false = _cumulative(score[order].astype(np.float64), positive[order], weight[None, order])
    return {
        "false_positive_rate": false[0] / false[0, -1],
        "recall": true[0] / true[0, -1],
        "precision": true[0] / (true[0] + false[0]),
    }


def spearman(
    a: npt.NDArray[Any], b: npt.NDArray[Any], weight: FloatArray | None = None
) -> float | None:
    """Spearman's rank correlation of n pairs, ties at their mean rank; None if one is constant."""
    ranks = [_mean_ranks(values) for values in (a, b)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    if weight is None:
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    covariance = np.cov(ranks[0], ranks[1], aweights=weight)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def _mean_ranks(values: npt.NDArray[Any]) -> FloatArray:
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[at]


def wilson(rate: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Wilson's 95 % score interval of each rate among ``n`` observations."""
    spread = Z**2 / n
    center = (rate + spread / 2) / (1 + spread)
    half = Z * np.sqrt(rate * (1 - rate) / n + spread / (4 * n)) / (1 + spread)
    # Rounding would miss the exact bounds 0 and 1.
    low = np.where(rate == 0, 0.0, np.maximum(center - half, 0))
    return low, np.where(rate == 1, 1.0, np.minimum(center + half, 1))


def expected_keep_rate(score: npt.NDArray[np.float32], alpha: float) -> FloatArray:
    """The probability that the Pareto rule keeps each of n documents: ``(2 - score) ** -alpha``."""
    return (2.0 - score.astype(np.float64)) ** -alpha


def yields(
    score: npt.NDArray[np.float32], size: npt.NDArray[np.int64], alphas: Sequence[float]
) -> list[dict[str, float]]:
    """Expected shares of documents and bytes (``size``) that the Pareto rule keeps, per alpha."""
    rows = []
    for alpha in alphas:
        kept = expected_keep_rate(score, alpha)
        shares = {"documents": float(kept.mean()), "bytes": float(kept @ size / size.sum())}
        rows.append({"alpha": float(alpha), **shares})
    return rows


def _ranking(
    score: FloatArray, positive: Flags, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """ROC-AUC (ties count half) and average precision under each set of weights."""
    true, false = _cumulative(score, positive, weights)
    more_true, more_false = (np.diff(a, axis=1, prepend=0.0) for a in (true, false))
    pairs = (more_false * (true - more_true / 2)).sum(axis=1)
    # A bootstrap sample may have no document above a threshold.
    precision = true / np.maximum(true + false, np.finfo(np.float64).tiny)
    total_true, total_false = true[:, -1], false[:, -1]
    return pairs / (total_true * total_false), (more_true * precision).sum(axis=1) / total_true


def _cumulative(
    score: FloatArray, positive: Flags, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weight of positives and of negatives at or above each distinct score: [r, distinct]."""
    last_of_tie = np.flatnonzero(np.append(np.diff(score) != 0, True))
    true = np.cumsum(weights * positive, axis=1)[:, last_of_tie]
    false = np.cumsum(weights * ~positive, axis=1)[:, last_of_tie]
    return true, false


def _resample(
    strata: npt.NDArray[np.int64], replicates: int, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Bootstrap counts of n documents, resampled within each stratum, in chunks [some, n]."""
    rows = max(1, _CHUNK // len(strata))
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for start in range(0, replicates, rows):
        counts = np.empty((min(rows, replicates - start), len(strata)))
        for group in members:
            even = np.full(len(group), 1 / len(group))
            counts[:, group] = rng.multinomial(len(group), even, size=len(counts))
        yield counts
