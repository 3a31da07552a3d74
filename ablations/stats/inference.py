"""Intervals and tests for a difference between two arms that share seeds and held-out items.

**The endpoint** is a weighted mean over strata (sources, tasks) of sum(numerator) /
sum(denominator) over the stratum's clusters (documents, passages), as are bits per byte, accuracy,
F1a and GLaM's averages. Strata are fixed; clusters are a sample of the possible documents.

**The model.** The difference that seed s shows on cluster c is

    d[s, c] = delta + seed[s] + cluster[c] + rest[s, c]

so the mean over n seeds and m clusters has the variance var(seed)/n + var(cluster)/m +
var(rest)/(nm). The sample variance of the n seed differences, over n, includes the first and third
part; the spread over clusters of the differences averaged over seeds the second and third. The
third, estimated from the residuals, is subtracted once from their sum:

    seeds    = s²(seed differences) / n                             n - 1 degrees of freedom
    items    = max(between clusters - rest, 0)                      Cochran's, over strata
    combined = seeds + items                                        Satterthwaite's

This is the estimator for two crossed random factors (Cameron, Gelbach and Miller 2011, "Robust
inference with multiway clustering", equation 2.11). A ratio enters by its influence on each cluster
(Taylor linearisation; Cochran 1977, Sampling Techniques, section 6.3; degrees of freedom 5.4).

**Few seeds.** If two seeds happen to agree, Satterthwaite's degrees of freedom are far too high. So
the interval is never narrower than that of the seeds alone, and p never smaller. With one seed the
noise of training is unknown: ``seed_error`` is None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stratum:
    """A run's sums per cluster, float64 [clusters] each; an endpoint's weights sum to 1."""

    name: str
    weight: float
    numerator: FloatArray
    denominator: FloatArray

    @property
    def ratio(self) -> float:
        return float(self.numerator.sum() / self.denominator.sum())


Sample = Sequence[Stratum]
"""One run under one endpoint."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval of coverage 1 - alpha. Errors are standard errors.

    ``seed_error``, ``seed_low`` and ``seed_high`` are over seeds alone, on these documents; None
    with one seed. ``item_error`` is over documents alone. ``low``, ``high`` and ``p`` (against 0)
    are over both.
    """

    value: float
    seeds: int
    seed_error: float | None
    item_error: float
    error: float
    df: float
    low: float
    high: float
    p: float
    seed_low: float | None
    seed_high: float | None

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation over seeds, for planning more seeds."""
        return None if self.seed_error is None else self.seed_error * math.sqrt(self.seeds)


def endpoint(sample: Sample) -> float:
    """The endpoint's value in one run."""
    return sum(stratum.weight * stratum.ratio for stratum in sample)


def influence(sample: Sample) -> list[FloatArray]:
    """How much each cluster moves the endpoint: one array [clusters] per stratum.

    They sum to 0 in each stratum, and their squares sum to an estimate of the endpoint's sampling
    variance over clusters.

    Raises:
        ValueError: a stratum has a single cluster.
    """
    out = []
    for stratum in sample:
        clusters = len(stratum.numerator)
        if clusters < 2:
            raise ValueError(
                f"{stratum.name} holds a single document or passage: its sampling error cannot be"
                " known; hold out more"
            )
        error = stratum.numerator - stratum.ratio * stratum.denominator
        scale = stratum.weight * math.sqrt(clusters / (clusters - 1)) / stratum.denominator.sum()
        out.append(scale * error)
    return out


def mean(samples: Sequence[Sample], alpha: float = 0.05) -> Estimate:
    """One arm's endpoint, averaged over its seeds (``samples``: one per seed)."""
    values = np.array([endpoint(sample) for sample in samples])
    moves = [np.stack(seeds) for seeds in zip(*map(influence, samples), strict=True)]
    return estimate(values, moves, alpha)


def difference(
    treatment: Sequence[Sample], baseline: Sequence[Sample], alpha: float = 0.05
) -> Estimate:
    """Treatment minus baseline, paired by seed and by cluster (one sample per seed, same order)."""
    return estimate(*paired(treatment, baseline), alpha)


def paired(
    treatment: Sequence[Sample], baseline: Sequence[Sample]
) -> tuple[FloatArray, list[FloatArray]]:
    """Differences of n seeds and of their influences: [n], and [n, clusters] per stratum."""
    if len(treatment) != len(baseline) or not treatment:
        raise ValueError("a paired difference needs the same seeds of both arms, at least one")
    values = np.array([endpoint(t) - endpoint(b) for t, b in zip(treatment, baseline, strict=True)])
    ours, theirs = (zip(*map(influence, arm), strict=True) for arm in (treatment, baseline))
    return values, [np.stack(t) - np.stack(b) for t, b in zip(ours, theirs, strict=True)]


def estimate(values: FloatArray, moves: Sequence[FloatArray], alpha: float = 0.05) -> Estimate:
    """The mean of ``values`` [seeds], with influences ``moves``: [seeds, clusters] per stratum."""
    seeds, value = len(values), float(values.mean())
    between, items_df = _between_clusters([move.mean(axis=0) for move in moves])
    of_seeds, of_items, df = 0.0, between, items_df
    if seeds > 1:
        of_seeds = float(values.var(ddof=1)) / seeds
        rest = sum(float(((move - move.mean(axis=0)) ** 2).sum()) for move in moves)
        of_items = max(between - rest / (seeds * (seeds - 1)), 0.0)
        df = _satterthwaite([(of_seeds, seeds - 1), (of_items, items_df)])
    error = math.sqrt(of_seeds + of_items)
    p, half = _p(value, error, df), error * quantile(alpha, df)
    seed_error = seed_half = None
    if seeds > 1:
        seed_error = math.sqrt(of_seeds)
        seed_half = seed_error * quantile(alpha, seeds - 1)
        p, half = max(p, _p(value, seed_error, seeds - 1)), max(half, seed_half)
    return Estimate(
        value=value,
        seeds=seeds,
        seed_error=seed_error,
        item_error=math.sqrt(of_items),
        error=error,
        df=df,
        low=value - half,
        high=value + half,
        p=p,
        seed_low=None if seed_half is None else value - seed_half,
        seed_high=None if seed_half is None else value + seed_half,
    )


def over_seeds(values: FloatArray, alpha: float = 0.05) -> Estimate:
    """Student's t over seeds alone, for values without items (points of a curve)."""
    if len(values) < 2:
        raise ValueError("a t interval over seeds needs at least two")
    return estimate(values, [], alpha)


@dataclass(frozen=True)
class Adjusted:
    """A member of a family of tests; ``low``, ``high`` hold for the whole family (Bonferroni)."""

    p: float
    rejected: bool
    low: float
    high: float


def holm(family: Sequence[Estimate], alpha: float = 0.05) -> list[Adjusted]:
    """Holm's step-down adjustment (1979): P(any false finding in the family) <= alpha.

    Intervals are Bonferroni's, a little wider than Holm's tests, so one may hold 0 although its p
    is below alpha.
    """
    if not family:
        return []
    p = np.array([member.p for member in family])
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order])  # n times the least, …
    adjusted = np.minimum(stepped, 1.0)[np.argsort(order)].tolist()
    halves = [half_width(member, alpha / len(family)) for member in family]
    return [
        Adjusted(p, p <= alpha, member.value - half, member.value + half)
        for p, member, half in zip(adjusted, family, halves, strict=True)
    ]


def _between_clusters(moves: Sequence[FloatArray]) -> tuple[float, float]:
    """Sampling variance over clusters and its degrees of freedom."""
    parts = [(float((move**2).sum()), len(move) - 1.0) for move in moves]
    return sum(variance for variance, _ in parts), _satterthwaite(parts)


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variance estimates, each with its own."""
    total = sum(variance for variance, _ in parts)
    below = sum(variance**2 / df for variance, df in parts)
    return total**2 / below if below > 0 else math.inf


def half_width(estimate: Estimate, alpha: float) -> float:
    """Half the width of the interval of coverage 1 - alpha."""
    half = estimate.error * quantile(alpha, estimate.df)
    if estimate.seed_error is None:
        return half
    return max(half, estimate.seed_error * quantile(alpha, estimate.seeds - 1))


def _p(value: float, error: float, df: float) -> float:
    """Two-sided p of a t test against 0; arms that are equal to the last bit have p = 1."""
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return 2 * float(special.stdtr(df, -abs(value) / error))


def quantile(alpha: float, df: float) -> float:
    """The two-sided critical value of Student's t."""
    return float(special.stdtrit(df, 1 - alpha / 2))
