"""The best mixture from a swarm of small runs of different mixtures, with its uncertainty.

**The surface.** The endpoint of n runs is fitted by least squares as a quadratic in the weights w
of k components, in the canonical form of Scheffé (1958, "Experiments with Mixtures", JRSS B 20):

    f(w) = sum over i of b[i] w[i]  +  sum over i < j of b[i, j] w[i] w[j]

It has k (k + 1) / 2 coefficients and no intercept, since weights sum to 1. Data Mixing Laws (Ye et
al. 2024, arXiv 2403.16952) and olmix fit the exponential of a linear form, whose best mixture is
always at a bound; a quadratic can have its optimum inside. Every run has its own seed, so errors
are independent and the residuals include the noise of training.

**The proposal** is the mean of the best mixtures of many surfaces drawn from the fit, among
candidates with no higher leverage than a run of the swarm.

**Uncertainty.** A plain t interval at the picked mixture covers too seldom (the winner's curse). So
intervals are simultaneous over all candidates: their critical value is the quantile of the largest
``|t|``, simulated with the residual degrees of freedom (Liu 2010, Simultaneous Inference in
Regression). They assume a quadratic surface and hold for these held-out documents and other seeds.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from ablations.stats.inference import quantile
from ablations.study_files.results import FloatArray

DRAWS = 2000
SPARE = 3
"""Runs required beyond the number of coefficients, to estimate the noise."""


def design(weights: FloatArray) -> FloatArray:
    """The terms of the quadratic: float64 [n, k] to [n, k (k + 1) / 2], products in row order."""
    first, second = np.triu_indices(weights.shape[1], 1)
    return np.concatenate([weights, weights[:, first] * weights[:, second]], axis=1)


@dataclass(frozen=True)
class Surface:
    """A fitted quadratic: ``coefficients`` [p] with covariance ``sd² root rootᵀ``.

    ``sd`` is the residual standard deviation with ``df`` degrees of freedom, ``leverage`` [n] the
    diagonal of the hat matrix, ``left_out`` [n] each run's prediction by all others.
    ``lack_of_fit`` is the p of the F test against the spread between runs of one mixture, if any.
    """

    coefficients: FloatArray
    root: FloatArray
    sd: float
    df: int
    leverage: FloatArray
    left_out: FloatArray
    lack_of_fit: float | None

    def errors(self, contrasts: FloatArray) -> FloatArray:
        """Standard errors of contrasts of the coefficients: [m, p] to [m]."""
        return self.sd * np.linalg.norm(contrasts @ self.root, axis=1)


def check(weights: FloatArray) -> None:
    """A ValueError if the mixtures [n, k] are too few or do not identify the components."""
    terms = design(weights)
    n, p = terms.shape
    if n < p + SPARE:
        raise ValueError(
            f"{n} runs are too few for the {p} coefficients of {weights.shape[1]} components: use"
            f" swarm.runs={2 * p} or more, or fewer sources, or smaller swarm.buckets"
        )
    if np.linalg.matrix_rank(terms) < p:
        raise ValueError(
            "the swarm's mixtures do not identify its components: use more runs (swarm.runs), or"
            " looser bounds (swarm.repeats)"
        )


def fit(weights: FloatArray, values: FloatArray) -> Surface:
    """Fit the surface to runs: weights [n, k], values [n]. Errors are those of :func:`check`."""
    check(weights)
    terms = design(weights)
    n, p = terms.shape
    basis, triangle = np.linalg.qr(terms)
    coefficients = np.linalg.solve(triangle, basis.T @ values)
    rest = values - terms @ coefficients
    leverage = (basis**2).sum(axis=1)
    return Surface(
        coefficients=coefficients,
        root=np.linalg.inv(triangle),
        sd=float(np.sqrt(rest @ rest / (n - p))),
        df=n - p,
        leverage=leverage,
        left_out=values - rest / np.maximum(1 - leverage, 1e-12),
        lack_of_fit=_lack_of_fit(weights, values, rest, n - p),
    )


def _lack_of_fit(
    weights: FloatArray, values: FloatArray, rest: FloatArray, df: int
) -> float | None:
    _, group, counts = np.unique(weights, axis=0, return_inverse=True, return_counts=True)
    means = np.bincount(group, values) / counts
    pure, pure_df = float(((values - means[group]) ** 2).sum()), len(values) - len(counts)
    if pure_df == 0 or pure_df == df or pure == 0:
        return None
    ratio = (float(rest @ rest) - pure) / (df - pure_df) / (pure / pure_df)
    return float(special.fdtrc(df - pure_df, pure_df, max(ratio, 0.0)))


def leverage(surface: Surface, weights: FloatArray) -> FloatArray:
    """Distance of mixtures [m, k] from those of the runs, in units of their spread: [m]."""
    return np.linalg.norm(design(weights) @ surface.root, axis=1) ** 2


@dataclass(frozen=True)
class Proposal:
    """A proposed mixture: ``weights`` [k].

    ``change`` is its predicted endpoint minus that of the natural mixture, with an interval that
    holds whichever candidate is picked; ``p`` is the chance of so clear a gain somewhere if no
    mixture were better than the natural one. ``low`` and ``high`` [k] are the range of the mixtures
    that may be the best; ``open`` is their share of the candidates.
    """

    weights: FloatArray
    change: float
    change_low: float
    change_high: float
    p: float
    low: FloatArray
    high: FloatArray
    open: float


def propose(
    surface: Surface,
    candidates: FloatArray,
    natural: FloatArray,
    gain: int = -1,
    alpha: float = 0.05,
    chosen: FloatArray | None = None,
) -> Proposal:
    """The best of the candidates [m, k], which include the swarm's mixtures, or ``chosen`` [k].

    It is compared with the ``natural`` mixture [k]. ``gain`` is the sign of an improvement.
    """
    terms = design(candidates)
    inside = leverage(surface, candidates) <= surface.leverage.max() * (1 + 1e-9)
    candidates, terms = candidates[inside], terms[inside]
    random = np.random.default_rng(0)
    normal = random.standard_normal((len(surface.coefficients), DRAWS))
    chi = np.sqrt(random.chisquare(surface.df, DRAWS) / surface.df)
    moves = surface.root @ normal / chi  # in units of sd: multivariate t

    losses = -gain * (terms @ surface.coefficients)
    drawn = losses[:, None] - gain * surface.sd * (terms @ moves)
    weights = candidates[drawn.argmin(axis=0)].mean(axis=0) if chosen is None else chosen

    start = design(natural[None])
    contrasts = np.concatenate([terms, design(weights[None])]) - start
    largest = _largest(surface, contrasts, moves)
    ours = contrasts[-1:]
    change, error = float((ours @ surface.coefficients)[0]), float(surface.errors(ours)[0])
    half = float(np.quantile(np.abs(largest).max(axis=0), 1 - alpha)) * error
    reached = gain * change / error if error > 0 else 0.0

    best = int(losses.argmin())
    behind = terms - terms[best]
    critical = float(np.quantile(_largest(surface, behind, moves).max(axis=0), 1 - alpha))
    may_be = losses - losses[best] <= critical * surface.errors(behind)
    possible = candidates[may_be]
    return Proposal(
        weights=weights,
        change=change,
        change_low=change - half,
        change_high=change + half,
        p=float((largest.max(axis=0) >= reached).mean()),
        low=possible.min(axis=0),
        high=possible.max(axis=0),
        open=float(may_be.mean()),
    )


def _largest(surface: Surface, contrasts: FloatArray, moves: FloatArray) -> FloatArray:
    """T of every contrast in every draw: [m, draws]; without contrasts of zero length."""
    scaled = contrasts @ surface.root
    length = np.linalg.norm(scaled, axis=1)
    some = length > 1e-9 * max(length.max(), 1e-300)
    return (contrasts[some] @ moves) / length[some][:, None]


def effects(
    surface: Surface, natural: FloatArray, step: float = 0.1, alpha: float = 0.05
) -> tuple[FloatArray, FloatArray]:
    """The effect of ``step`` more of each component at the natural mixture, and half-widths: [k].

    By the slope there, with the others shrunk in proportion (Cox 1971, "A Note on Polynomial
    Response Functions for Mixtures", Biometrika 58) and an interval by t for each.
    """
    ways = (np.eye(len(natural)) - natural) / (1 - natural)[:, None]
    contrasts = step * (design(natural + ways) - design(natural - ways)) / 2
    return contrasts @ surface.coefficients, quantile(alpha, surface.df) * surface.errors(contrasts)


def coefficients(surface: Surface, alpha: float = 0.05) -> tuple[FloatArray, FloatArray]:
    """The coefficients and the half-widths of their t intervals, [p] each."""
    halves = quantile(alpha, surface.df) * surface.errors(np.eye(len(surface.coefficients)))
    return surface.coefficients, halves


def draw(natural: FloatArray, most: FloatArray, count: int, seed: int) -> FloatArray:
    """Random mixtures around a natural one: float64 [count, k]; a larger count extends a smaller.

    Dirichlet with the concentration of the uniform one and a mean halfway between natural and equal
    weights, so that rare components get weights that matter. Mixtures beyond ``most`` [k], the
    largest weights, are moved to the bound, towards the natural mixture [k], itself within bounds.
    """
    k = len(natural)
    random = np.random.default_rng(seed)
    drawn = random.dirichlet(k * (natural + 1 / k) / 2, count)
    return np.array([within(weights, natural, most) for weights in drawn]).reshape(count, k)


def even(natural: FloatArray, most: FloatArray) -> FloatArray:
    """Equal weights [k], as far as the bounds allow."""
    return within(np.full(len(natural), 1 / len(natural)), natural, most)


def within(weights: FloatArray, natural: FloatArray, most: FloatArray) -> FloatArray:
    """From the natural mixture towards another, as far as the bounds allow: all [k]."""
    direction = weights - natural
    room = (most - natural)[direction > 0] / direction[direction > 0]
    out: FloatArray = natural + min(1.0, *room) * direction
    return np.clip(out, 0.0, most)
