"""Where one arm overtakes the other as compute grows or text gets scarce, with an interval.

The difference between two arms is measured at m places x (passes over the text, training tokens),
with the same n seeds and the same documents. It is fitted by least squares as a line in log x,

    d(x) = sum over j of w[j](x) · d[j],   w[j](x) = 1/m + (log x - mean) · (log x[j] - mean) / Sxx

and the crossover is where the line is 0. The line at x is a weighted sum of differences that are
paired by seed and by document, so its interval is that of :mod:`ablations.stats.inference`. The
crossover's interval is every x in the range of the runs at which the line may be 0 (Fieller 1954,
Some Problems in Interval Estimation). The result names the places that depart from the line, by a t
test with Bonferroni's correction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablations.stats.inference import Estimate, estimate, over_seeds
from ablations.study_files.results import FloatArray

STEPS = 100
"""Grid steps between the ends; bounds are interpolated, linear in log x."""


@dataclass(frozen=True)
class Crossover:
    """``at`` is where the line is 0, None if its sign is constant from ``first`` to ``last``.

    ``low`` and ``high`` are the interval; None is out of range on that side. ``possible``: a
    crossover in range can't be excluded. ``start`` and ``end`` are the line at the ends, ``bends``
    the places that depart from it.
    """

    first: float
    last: float
    at: float | None
    low: float | None
    high: float | None
    possible: bool
    start: Estimate
    end: Estimate
    bends: Sequence[float]


def crossing(
    x: FloatArray, values: FloatArray, moves: Sequence[FloatArray], alpha: float = 0.05
) -> Crossover:
    """Where the difference between two arms changes its sign, with coverage 1 - alpha.

    ``x`` float64 [m] is positive and rising, ``values`` float64 [m, n] the difference at each place
    with each seed, ``moves`` the documents' influences, [m, n, clusters] per stratum, if any.

    Raises:
        ValueError: fewer than two places or seeds.
    """
    if len(x) < 2 or values.shape[1] < 2:
        raise ValueError("a crossover needs at least two points and two seeds")
    log = np.log(x)
    places = np.linspace(log[0], log[-1], STEPS + 1)
    line = [_line(log, place, values, moves, alpha) for place in places]
    lows, highs = (np.array([getattr(point, name) for point in line]) for name in ("low", "high"))
    inside = np.flatnonzero((lows <= 0) & (highs >= 0)).tolist()
    start, end = line[0], line[-1]
    at = low = high = None
    if start.value * end.value < 0:
        share = start.value / (start.value - end.value)
        at = float(np.exp(log[0] + share * (log[-1] - log[0])))
    if inside:
        low = _bound(places, lows, highs, inside[0], -1)
        high = _bound(places, lows, highs, inside[-1], 1)
    bends = _bends(x, values, alpha)
    ends = float(x[0]), float(x[-1])
    return Crossover(*ends, at, low, high, bool(inside), start, end, bends)


def _weights(log: FloatArray, place: float) -> FloatArray:
    centred = log - log.mean()
    slope = (place - log.mean()) / float((centred**2).sum())
    return 1 / len(log) + slope * centred


def _line(
    log: FloatArray, place: float, values: FloatArray, moves: Sequence[FloatArray], alpha: float
) -> Estimate:
    weights = _weights(log, place)
    return estimate(weights @ values, [np.tensordot(weights, move, 1) for move in moves], alpha)


def _bound(
    places: FloatArray, lows: FloatArray, highs: FloatArray, last: int, step: int
) -> float | None:
    """Where the interval of the line excludes 0 after ``last``; None if nowhere."""
    after = last + step
    if not 0 <= after < len(places):
        return None
    edge = lows if lows[after] > 0 else highs
    share = edge[last] / (edge[last] - edge[after])
    return float(np.exp(places[last] + share * (places[after] - places[last])))


def _bends(x: FloatArray, values: FloatArray, alpha: float) -> list[float]:
    """The places whose differences depart from the line of their seed."""
    log = np.log(x)
    if len(x) < 3:
        return []
    rest = values - np.stack([_weights(log, place) @ values for place in log])
    tests = [over_seeds(test, alpha) for test in rest]
    scale = float(np.abs(values).max())
    return [
        float(place)
        for place, test in zip(x, tests, strict=True)
        if test.p * len(x) < alpha and not math.isclose(test.value, 0, abs_tol=1e-9 * scale)
    ]
