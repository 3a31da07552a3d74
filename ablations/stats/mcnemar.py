"""McNemar's test of two models that answer the same items right or wrong."""

from scipy import stats


def mid_p(only_one: int, only_other: int) -> float:
    """The two-sided mid-p value: the exact conditional test, with half of the observed outcome.

    The exact test is conservative, the asymptotic one errs where few items differ (Fagerland,
    Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data").

    Args:
        only_one: items that one model alone has right.
        only_other: items that the other alone has right.
    """
    differing = only_one + only_other
    if differing == 0:
        return 1.0
    less = min(only_one, only_other)
    below, at = stats.binom.cdf(less, differing, 0.5), stats.binom.pmf(less, differing, 0.5)
    return float(1 - at / 2 if only_one == only_other else 2 * below - at)
