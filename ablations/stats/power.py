"""What a study of a given size can find, before it runs: noncentral t.

The noise of a paired contrast has two parts (:mod:`ablations.stats.inference`). ``seed_sd`` is the
standard deviation over seeds of the difference between the arms; it shrinks with more seeds.
``item_error`` is the standard error that comes from having these held-out documents and no others;
more seeds do not shrink it.
"""

import math

from scipy import optimize, stats

MAX_SEEDS = 1000


def detectable(error: float, df: float, alpha: float, power: float) -> float:
    """The true difference that a two-sided t test finds, in its direction, with ``power``.

    ``error`` is the standard error of the estimate, ``df`` its degrees of freedom (may be inf).
    """
    if error == 0:
        return 0.0
    if math.isinf(df):
        return error * float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power))

    def surplus(noncentrality: float) -> float:
        # The tail on the wrong side is no finding.
        return float(stats.nct.sf(critical, df, noncentrality)) - power

    critical = high = float(stats.t.isf(alpha / 2, df))
    while surplus(high) < 0:
        high *= 2
    return error * float(optimize.brentq(surplus, 0.0, high))


def minimum_detectable_effect(
    seed_sd: float, seeds: int, item_error: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The true difference that so many paired seeds find with probability ``power``.

    It follows the test's own rule: the difference must stand out both from the combined error
    (Satterthwaite's degrees of freedom) and from the seeds alone, so the larger of the two counts.

    Raises:
        ValueError: fewer than two seeds, which say nothing about the noise of training.
    """
    if seeds < 2:
        raise ValueError("one seed cannot tell an arm from the luck of its seed: plan at least two")
    if seed_sd < 0 or item_error < 0:
        raise ValueError("seed_sd and item_error are standard deviations: not negative")
    of_seeds = seed_sd**2 / seeds
    combined = of_seeds + item_error**2
    df = combined**2 / (of_seeds**2 / (seeds - 1)) if of_seeds else math.inf
    return max(
        detectable(math.sqrt(combined), df, alpha, power),
        detectable(math.sqrt(of_seeds), seeds - 1, alpha, power),
    )


def seeds_needed(
    difference: float,
    seed_sd: float,
    item_error: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """The fewest seeds that find ``difference`` with probability ``power``.

    None where no number up to 1000 does: then the held-out set is too small, not the seeds too few.
    """
    if difference <= 0:
        raise ValueError("the difference to find must be positive")

    def enough(seeds: int) -> bool:
        found = minimum_detectable_effect(seed_sd, seeds, item_error, alpha, power)
        return found <= difference

    if not enough(MAX_SEEDS):
        return None
    low, high = 1, MAX_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
