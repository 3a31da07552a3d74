"""Select the best of several candidates per arm, and compare the bests of two arms.

Each arm has K candidates (learning rates, numbers of passes), run with the same S seeds. Its *best*
has the best expected mean over seeds and documents. Runs are noisy, so the candidate that ran best
may be a lucky one. The choice and the endpoint use different documents
(:mod:`ablations.contrasts.variant_selection`) but share the noise of training, so every candidate
that may be the best counts.

**A candidate may be the best** if the first does not beat it clearly: multiple comparisons with the
best (Hsu 1984; Hsu 1996, Multiple Comparisons, chapter 4), one-sided, by Bonferroni:

    mean[first] - mean[k] <= t(1 - level/(K-1)) · sqrt(v/S + items[k]²)
    v = max(2 · noise², s²[first - k])

``noise`` is pooled over the arm's candidates, with (S-1)(K-1) degrees of freedom; where two differ
by more than it allows, their own spread counts. The true best is excluded with a probability of at
most ``level``.

**The interval.** With P the candidates that may be the best, and arms t and b, since no mean
exceeds the best,

    best t - best b  >=  mean over P[t] - b[j]   for the j that is b's best
    best t - best b  <=  t[k] - mean over P[b]   for the k that is t's best

so the lower bound is the lowest over j in P[b] of the first difference's lower bounds, the upper
one the highest over k in P[t] of the second's (reversed if less is better). On an endpoint that did
not make the choice the order of candidates is unknown, and the bounds are the outermost of all
pairs in P. A share ``SPENT`` of alpha goes to the choice, the rest to the bounds (Bonferroni).
Simulated in ``tests/compare/test_compare_best.py``.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ablations.stats import decisions
from ablations.stats.inference import Estimate, estimate, half_width, quantile
from ablations.study_files.results import FloatArray

SPENT = 0.2
"""The share of alpha spent on the choice."""

Paired = tuple[FloatArray, Sequence[FloatArray]]
"""Differences between two candidates, and influences (:func:`ablations.stats.inference.paired`)."""


def first_and_possible(
    values: FloatArray, level: float, items: Sequence[float] | None = None
) -> list[int]:
    """The candidates that may be the best, the best mean first; ``values`` [S, K], more is better.

    ``level`` is the probability of excluding the true best, ``items`` [K] the standard error over
    documents of each candidate's difference from the first.
    """
    seeds, count = values.shape
    means = values.mean(axis=0)
    first = int(means.argmax())
    others = [k for k in range(count) if k != first]
    noise = decisions.scores(values).noise
    if noise is None:
        return [first, *others]
    limit = quantile(2 * level / (count - 1), (seeds - 1) * (count - 1))
    spread = np.maximum(2 * noise**2, (values[:, [first]] - values).var(axis=0, ddof=1))
    squared = spread / seeds + (0.0 if items is None else np.square(items))
    behind = means[first] - means
    return [first, *(k for k in others if behind[k] <= limit * np.sqrt(squared[k]))]


def difference_of_bests(
    pairs: Sequence[Sequence[Paired]], alpha: float, gain: int | None
) -> Estimate:
    """The difference between two arms' bests; its value is that of their first candidates.

    ``pairs[k][j]`` pairs the candidates of both arms that may be the best. ``gain`` is the sign of
    an improvement; None on an endpoint that did not make the choice. The interval has coverage
    1 - alpha or more. Errors are the first pair's, widened in proportion to the interval, so that a
    plan for more seeds accounts for the choice too. Compare ``p`` with ``alpha`` only.
    """
    level = alpha * (1 - SPENT)
    first = estimate(*pairs[0][0], alpha)
    ours = [estimate(*_mean(row), level) for row in pairs]
    theirs = [estimate(*_mean(column), level) for column in zip(*pairs, strict=True)]
    lows, highs = (theirs, ours) if gain == 1 else (ours, theirs)
    if gain is None:
        lows = highs = [estimate(*pair, level) for row in pairs for pair in row]
    low = min(first.value, *(of.low for of in lows))
    high = max(first.value, *(of.high for of in highs))
    # One-sided p of each sign, the largest over the candidates.
    above = max(of.p / 2 if of.value > 0 else 1 - of.p / 2 for of in lows)
    below = max(of.p / 2 if of.value < 0 else 1 - of.p / 2 for of in highs)
    half = half_width(first, alpha)
    wider = max(high - first.value, first.value - low) / half if half > 0 else 1.0
    return replace(
        first,
        low=low,
        high=high,
        p=min(2 * min(above, below) / (1 - SPENT), 1.0),
        error=first.error * wider,
        item_error=first.item_error * wider,
        seed_error=None if first.seed_error is None else first.seed_error * wider,
        seed_low=min((of.seed_low for of in lows if of.seed_low is not None), default=None),
        seed_high=max((of.seed_high for of in highs if of.seed_high is not None), default=None),
    )


def _mean(pairs: Sequence[Paired]) -> Paired:
    """The mean of several differences, which is linear in values and influences."""
    values = np.mean([values for values, _ in pairs], axis=0)
    moves = zip(*(moves for _, moves in pairs), strict=True)
    return values, [np.mean(stratum, axis=0) for stratum in moves]
