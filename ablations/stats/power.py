"""Power of a planned study, by the noncentral t distribution.

The noise of a paired contrast has two parts (:mod:`ablations.stats.inference`): ``seed_sd``, the
standard deviation over seeds of the difference between the arms, and ``item_error``, the standard
error due to the choice of held-out documents, which more seeds do not shrink.
"""

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

FloatArray = npt.NDArray[np.float64]

MAX_SEEDS = 1000
DRAWS = 999
"""True differences over which a power is averaged: quantiles, evenly spaced in probability."""


def detectable(error: float, df: float, alpha: float, power: float) -> float:
    """The true difference that a two-sided t test finds, with the right sign, with ``power``.

    ``error`` is the standard error of the estimate, ``df`` its degrees of freedom (may be inf).
    """
    if error == 0:
        return 0.0
    if math.isinf(df):
        return error * float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power))

    def surplus(noncentrality: float) -> float:
        # The tail on the wrong side does not count.
        return float(stats.nct.sf(critical, df, noncentrality)) - power

    critical = high = float(stats.t.isf(alpha / 2, df))
    while surplus(high) < 0:
        high *= 2
    return error * float(optimize.brentq(surplus, 0.0, high))


def minimum_detectable_effect(
    seed_sd: float, seeds: int, item_error: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The true difference that ``seeds`` paired seeds detect with probability ``power``.

    As in the test, it must be significant both by the combined error (Satterthwaite's degrees of
    freedom) and over the seeds alone, so the larger of the two counts.

    Raises:
        ValueError: fewer than two seeds, or a negative deviation.
    """
    if seeds < 2:
        raise ValueError("one seed cannot tell an effect from training noise: plan at least two")
    if seed_sd < 0 or item_error < 0:
        raise ValueError("seed_sd and item_error are standard deviations: not negative")
    return max(detectable(*errors, alpha, power) for errors in _errors(seed_sd, seeds, item_error))


def assurance(
    value: float,
    error: float,
    df: float,
    seed_sd: float,
    seeds: int,
    item_error: float = 0.0,
    alpha: float = 0.05,
) -> tuple[float, float]:
    """The probability that a planned study finds a positive difference, and a negative one.

    Power is averaged over an earlier study's estimate of the true difference, value + error · t(df)
    (O'Hagan, Stevens and Campbell 2005, "Assurance in clinical trial design", equation 2). Noise
    and rule are those of :func:`minimum_detectable_effect`.
    """
    truth = value + error * stats.t.ppf((np.arange(DRAWS) + 0.5) / DRAWS, df)
    combined, of_seeds = _errors(seed_sd, seeds, item_error)
    positive, negative = (
        np.minimum(_power(true, *combined, alpha), _power(true, *of_seeds, alpha))
        for true in (truth, -truth)
    )
    return float(positive.mean()), float(negative.mean())


def _power(truth: FloatArray, error: float, df: float, alpha: float) -> FloatArray:
    """The probability of a significant positive estimate, for each true difference."""
    critical = stats.t.isf(alpha / 2, df)
    if error == 0:
        return np.where(truth > 0, 1.0, 0.0)
    if math.isinf(df):
        return np.asarray(stats.norm.sf(critical - truth / error))
    return np.asarray(stats.nct.sf(critical, df, truth / error))


def _errors(seed_sd: float, seeds: int, item_error: float) -> list[tuple[float, float]]:
    """Standard errors of both tests, combined and over seeds, with their degrees of freedom."""
    of_seeds = seed_sd**2 / seeds
    combined = of_seeds + item_error**2
    df = combined**2 / (of_seeds**2 / (seeds - 1)) if of_seeds else math.inf
    return [(math.sqrt(combined), df), (math.sqrt(of_seeds), seeds - 1)]


class Shortfall(NamedTuple):
    """The ``seeds`` that a difference takes (None: over 1000), and whether more ``items`` too."""

    seeds: int | None
    items: bool


def shortfall(
    difference: float, seed_sd: float, item_error: float, alpha: float, power: float
) -> Shortfall:
    """What a study needs to find a difference; with unlimited items if those fall short."""
    if seeds := seeds_needed(difference, seed_sd, item_error, alpha, power):
        return Shortfall(seeds, False)
    return Shortfall(seeds_needed(difference, seed_sd, alpha=alpha, power=power), True)


def seeds_needed(
    difference: float,
    seed_sd: float,
    item_error: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """The fewest seeds that find ``difference`` with probability ``power``.

    None if 1000 do not suffice: then the held-out set is too small.
    """
    if difference <= 0:
        raise ValueError("the difference to find must be positive")

    def enough(seeds: int) -> bool:
        return minimum_detectable_effect(seed_sd, seeds, item_error, alpha, power) <= difference

    seeds = range(2, MAX_SEEDS + 1)
    found = bisect_left(seeds, True, key=enough)
    return seeds[found] if found < len(seeds) else None
