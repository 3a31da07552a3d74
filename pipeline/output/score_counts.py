"""Score histograms, and what every stop of the page's controls would keep."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rules.decision import FloatArray, critical_alpha

Counts = npt.NDArray[np.int64]

COUNTS = ["documents", "bytes", "words"]
KEPT_COUNTS = [f"kept_{name}" for name in COUNTS]

HISTOGRAM_BINS = 100
PARETO_GRID: FloatArray = np.arange(0, 161) / 10
THRESHOLD_GRID: FloatArray = np.arange(0, 101) / 100
"""Stops of the report's controls. k / 10 and k / 100 equal the parsed decimals, so ``--alpha 2.3``
decides exactly as the stop 2.3 counts."""


class ScoreCounts:
    """A histogram of scores and, for filtered documents, the curves of what a rule keeps."""

    def __init__(self, filtered: bool) -> None:
        self._filtered = filtered
        self._histogram = np.zeros((HISTOGRAM_BINS, 6), np.int64)
        self._pareto = np.zeros((len(PARETO_GRID) + 1, 3), np.int64)
        self._threshold = np.zeros((len(THRESHOLD_GRID) + 1, 3), np.int64)

    def add(
        self,
        score: npt.NDArray[np.float32],
        draw: FloatArray,
        weights: Counts,
        kept: npt.NDArray[np.bool_],
    ) -> None:
        """Count n documents: scores and draws [n], COUNTS int64 [3, n], the decision bool [n]."""
        bins = np.minimum((score.astype(np.float64) * HISTOGRAM_BINS).astype(np.int64), 99)
        self._histogram[:, :3] += _bincount(bins, weights, HISTOGRAM_BINS)
        self._histogram[:, 3:] += _bincount(bins, weights * kept, HISTOGRAM_BINS)
        if self._filtered:
            stops = np.searchsorted(PARETO_GRID, critical_alpha(score, draw), side="left")
            self._pareto += _bincount(stops, weights, len(self._pareto))
            stops = np.searchsorted(THRESHOLD_GRID, score.astype(np.float64), side="right")
            self._threshold += _bincount(stops, weights, len(self._threshold))

    def histogram(self, **keys: str) -> list[dict[str, Any]]:
        """Rows of a score histogram, one for each bin; ``keys`` are their first columns."""
        edges = np.arange(HISTOGRAM_BINS + 1) / HISTOGRAM_BINS
        names = COUNTS + KEPT_COUNTS
        return [
            {**keys, "score_low": low, "score_high": high, **named(names, row)}
            for (low, high), row in zip(pairwise(edges), self._histogram, strict=True)
        ]

    def curves(self, **keys: str) -> list[dict[str, Any]]:
        """Rows of keep curves, one for each stop; none for pass-through sources."""
        rows = []
        for rule, grid, counts in [
            ("pareto", PARETO_GRID, self._pareto),
            ("threshold", THRESHOLD_GRID, self._threshold),
        ]:
            # Row i counts what is kept at exactly the first i stops: sum from the end.
            totals = counts[::-1].cumsum(axis=0)[::-1][1:]
            rows += [
                {**keys, "rule": rule, "parameter": stop, **named(COUNTS, row)}
                for stop, row in zip(grid, totals, strict=True)
            ]
        return rows if self._filtered else []


def named(names: list[str], values: Counts) -> dict[str, int]:
    """Counts by their names, as Python's integers."""
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _bincount(bins: npt.NDArray[np.int64], weights: Counts, length: int) -> Counts:
    # float64 sums of integers are exact below 2^53.
    columns = [np.bincount(bins, row, minlength=length) for row in weights]
    return np.stack(columns, axis=1).astype(np.int64)
