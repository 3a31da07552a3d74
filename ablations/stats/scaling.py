"""A power law of loss in compute, with or without a floor, and a bootstrap band around it.

    loss(C) = floor + scale · (C / C0)^-exponent,    floor >= 0, scale > 0

For a given exponent this is linear least squares, so the fit searches a fine grid of exponents, for
the data and, in one matrix product, for every bootstrap resample. It always converges. If the best
floor is not above 0, there is none; each resample decides that again, so the band includes it.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ablations.study_files.results import FloatArray

EXPONENTS = np.geomspace(0.005, 2.0, 2000)
RESAMPLES = 1000
DECADE = 10.0
SIZES = 3
PARAMETERS = 3


@dataclass(frozen=True)
class Law:
    """Parameters of one or many laws: float64 [...] each."""

    floor: FloatArray
    scale: FloatArray
    exponent: FloatArray

    def __call__(self, relative: float) -> FloatArray:
        """The loss at a compute relative to C0."""
        return self.floor + self.scale * relative**-self.exponent


@dataclass(frozen=True)
class Forecast:
    """The loss at some compute, with its band of coverage 1 - alpha."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """A fitted law, valid up to a decade of compute beyond the runs."""

    law: Law
    resampled: Law
    reference: float
    smallest: float
    largest: float
    alpha: float

    def forecast(self, compute: float) -> Forecast:
        """The expected loss at ``compute``; a ValueError if over a decade beyond the runs."""
        if not self.smallest / DECADE <= compute <= self.largest * DECADE * (1 + 1e-9):
            raise ValueError(
                f"no point forecast at {compute:.3g} FLOPs: the runs span {self.smallest:.3g} to"
                f" {self.largest:.3g}, and the law is not trusted beyond one decade of that;"
                " train a larger size"
            )
        relative = compute / self.reference
        low, high = np.quantile(self.resampled(relative), [self.alpha / 2, 1 - self.alpha / 2])
        return Forecast(float(self.law(relative)), float(low), float(high))


def fit(compute: FloatArray, loss: FloatArray, alpha: float = 0.05, seed: int = 0) -> Fit:
    """Fit a law to the total compute and loss of runs: [runs] each.

    The band resamples residuals, widened by sqrt(n / (n - 3)) for the fitted parameters, and by
    Student's t over the normal quantile, since there are few of them.

    Raises:
        ValueError: too few sizes or runs, or the loss does not fall with compute.
    """
    sizes, runs = len(np.unique(compute)), len(loss)
    if sizes < SIZES or runs < PARAMETERS + 2:
        raise ValueError(
            f"a scaling fit needs {SIZES} sizes and {PARAMETERS + 2} runs or more, there are"
            f" {sizes} and {runs}"
        )
    reference = float(np.exp(np.log(compute).mean()))
    relative = compute / reference
    powers = relative[None, :] ** -EXPONENTS[:, None]
    law = _solve(powers, loss[None, :])
    if not law.scale[0] > 0:
        raise ValueError("the loss does not fall with compute: there is no scaling law to fit")
    fitted = law.floor[0] + law.scale[0] * relative ** -law.exponent[0]
    left = runs - PARAMETERS
    wide = math.sqrt(runs / left) * stats.t.isf(alpha / 2, left) / stats.norm.isf(alpha / 2)
    draws = np.random.default_rng(seed).integers(runs, size=(RESAMPLES, runs))
    return Fit(
        law=Law(law.floor[0], law.scale[0], law.exponent[0]),
        resampled=_solve(powers, fitted + wide * (loss - fitted)[draws]),
        reference=reference,
        smallest=float(compute.min()),
        largest=float(compute.max()),
        alpha=alpha,
    )


def _solve(powers: FloatArray, loss: FloatArray) -> Law:
    """The best law for each row of losses [rows, runs], from powers [exponents, runs]."""
    mean = powers.mean(axis=1)
    centred = powers - mean[:, None]
    squares = (centred**2).sum(axis=1)
    scale = loss @ centred.T / squares  # [rows, exponents], as is all that follows
    floor = loss.mean(axis=1)[:, None] - scale * mean
    # Where the best floor is below 0, the best allowed one is 0.
    flat = floor < 0
    floor = np.where(flat, 0.0, floor)
    scale = np.where(flat, loss @ powers.T / (powers**2).sum(axis=1), scale)
    centred_loss = loss - loss.mean(axis=1, keepdims=True)
    with_floor = (centred_loss**2).sum(axis=1)[:, None] - scale**2 * squares
    without = (loss**2).sum(axis=1)[:, None] - scale**2 * (powers**2).sum(axis=1)
    residual = np.where(flat, without, with_floor)
    rows, best = np.arange(len(loss)), residual.argmin(axis=1)
    return Law(floor[rows, best], scale[rows, best], EXPONENTS[best])
