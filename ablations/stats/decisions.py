"""Decision accuracy and signal-to-noise: how well small sizes predict larger ones.

**Scores.** ``x[s, a]`` is an endpoint of arm a with seed s. A seed fixes the order of the documents
for all arms, and what it adds to all of them says nothing about an arm. The noise of one run is the
residual after the means of arms and of seeds (two-way analysis of variance):

    noise² = sum over s, a of (x[s, a] - mean[s] - mean[a] + mean)² / df,   df = (S - 1)(A - 1)

A paired difference of two arms then has the standard error noise · sqrt(2 / S).

**Decision accuracy** (Magnusson et al. 2025, DataDecide, arXiv 2504.11393) is the share of pairs of
arms whose winner at the small size wins at the larger one too:

    sum over pairs a < b of [(small[a] - small[b]) · (large[a] - large[b]) > 0] / pairs

**Its interval.** Pairs share arms, so a binomial interval over them is wrong. Resampling seeds
turns pairs that the runs cannot tell apart into coin tosses, so the share tends to one half,
whatever the truth (docs/log.md has the coverage). Instead, the order of a pair is *clear* at a size
if the difference exceeds Tukey's honestly significant one (Tukey 1949; Hsu 1996, Multiple
Comparisons, section 5.1),

    |mean[a] - mean[b]| > q · noise / sqrt(S),   q: quantile 1 - alpha/K of the studentised range

which holds for all pairs of K sizes at once with probability 1 - alpha. Pairs that are clear at
both sizes are certainly right or wrong; any other may be either:

    low = clear and kept / pairs,   high = 1 - clear and turned / pairs

The interval is about other seeds of these arms on these held-out documents, not about other arms.

**Signal to noise** (Heineman et al. 2025, Signal and Noise, arXiv 2508.13144) is the range of the
arms over the noise of a run:

    signal = max over a, b of |mean[a] - mean[b]| / |mean|,   noise / |mean|,   their ratio

The paper takes the spread over a run's last checkpoints as a proxy for that between seeds, used
here. The ratio of arms with equal text exceeds q / sqrt(S) in a share alpha of cases.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from scipy import stats

from ablations.study_files.results import FloatArray

ROUNDING = 1e-12
"""Noise below this share of the scores is rounding error."""


@dataclass(frozen=True)
class Scores:
    """One endpoint of A arms at one size: ``means`` float64 [A] over ``seeds`` shared seeds.

    ``noise`` is the standard deviation of a run, less seed effects; None with one seed or one arm.
    """

    means: FloatArray
    seeds: int
    noise: float | None

    def least_clear(self, alpha: float) -> float:
        """The difference that a clear one exceeds, for all pairs at once; inf if unknown."""
        if self.noise is None:
            return math.inf
        return self.noise * least_ratio(len(self.means), self.seeds, alpha)


@dataclass(frozen=True)
class Decision:
    """``kept`` of ``pairs`` have one winner at both sizes; ``low``, ``high`` bound the share."""

    kept: int
    pairs: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The share of pairs kept."""
        return self.kept / self.pairs


@dataclass(frozen=True)
class Ratio:
    """``signal`` and ``noise`` as shares of the mean score, and their ``ratio``.

    ``by_chance`` is the ratio that arms with equal text exceed in a share alpha of cases.
    """

    signal: float
    noise: float
    ratio: float
    by_chance: float


def scores(values: FloatArray) -> Scores:
    """The scores of all arms at one size, from ``values`` float64 [S, A]."""
    seeds, arms = values.shape
    means: FloatArray = values.mean(axis=0)
    df = (seeds - 1) * (arms - 1)
    if df == 0:
        return Scores(means, seeds, None)
    rest = values - means - values.mean(axis=1, keepdims=True) + values.mean()
    return Scores(means, seeds, math.sqrt(float((rest**2).sum()) / df))


def decide(sizes: Sequence[Scores], alpha: float = 0.05) -> Decision:
    """Decision accuracy from each of K sizes to the next, over all pairs of the same A arms.

    Raises:
        ValueError: fewer than two sizes or arms, or sizes of different arms.
    """
    arms = {len(size.means) for size in sizes}
    if len(sizes) < 2 or len(arms) > 1 or min(arms) < 2:
        raise ValueError("decisions need at least two sizes of the same two or more arms")
    pairs = list(combinations(range(arms.pop()), 2))
    kept = surely_kept = surely_turned = 0
    for small, large in pairwise([_orders(size, pairs, alpha / len(sizes)) for size in sizes]):
        for (before, sure_before), (after, sure_after) in zip(small, large, strict=True):
            same = before * after > 0
            sure = sure_before and sure_after
            kept += same
            surely_kept += same and sure
            surely_turned += not same and sure
    size = len(pairs) * (len(sizes) - 1)
    return Decision(kept, size, surely_kept / size, 1 - surely_turned / size)


def signal_to_noise(scores: Scores, alpha: float = 0.05) -> Ratio | None:
    """The ratio; None if the noise is unknown or no more than rounding error."""
    mean = abs(float(scores.means.mean()))
    if scores.noise is None or scores.noise <= ROUNDING * mean:
        return None
    signal = float(np.ptp(scores.means))
    by_chance = least_ratio(len(scores.means), scores.seeds, alpha)
    return Ratio(signal / mean, scores.noise / mean, signal / scores.noise, by_chance)


@functools.cache
def least_ratio(arms: int, seeds: int, alpha: float) -> float:
    """The range / noise that equal arms exceed in a share alpha of cases: q / sqrt(S)."""
    df = (seeds - 1) * (arms - 1)
    return float(stats.studentized_range.isf(alpha, arms, df)) / math.sqrt(seeds)


def _orders(
    scores: Scores, pairs: Sequence[tuple[int, int]], alpha: float
) -> list[tuple[float, bool]]:
    """The difference of each pair, and whether it is clear."""
    least = scores.least_clear(alpha)
    gaps = [float(scores.means[a] - scores.means[b]) for a, b in pairs]
    return [(gap, abs(gap) > least) for gap in gaps]
