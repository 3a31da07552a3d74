"""Arms at equal tokens, unique tokens and total compute, interpolated from their curves.

Equal *tokens* compares training steps; equal *unique tokens* the same amount of distinct text,
however often repeated; equal *compute* the same budget, including the scoring of the pool.

Inside a run the learning rate has not decayed yet, so such points compare with each other, not with
finished runs of that length. Curves have no documents, so intervals are over seeds only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ablations.study_files.results import Curve, FloatArray

AXES = {
    "tokens": "equal tokens",
    "unique_tokens": "equal unique tokens",
    "flops": "equal total compute",
}

HALVINGS = 3
SAME = 1.02

Status = Literal["measured", "not reached", "before the first evaluation"]


@dataclass(frozen=True)
class Point:
    """One arm at one point of an axis: a value per seed, or why it is missing."""

    arm: str
    at: float
    status: Status
    values: Mapping[int, float]


def read_at(curve: Curve, axis: str, at: float, sources: Sequence[str]) -> float | Status:
    """Mean bits per byte over ``sources`` at a point of an axis, linear in its logarithm.

    Where several points share a place (a repeated corpus adds no unique tokens), the last counts.
    """
    x: FloatArray = getattr(curve, axis)
    y = np.mean([curve.heldout[source] for source in sources], axis=0)
    last = np.append(x[1:] > x[:-1], True)
    x, y = x[last], y[last]
    if at > x[-1] * (1 + 1e-9):
        return "not reached"
    if at < x[0] * (1 - 1e-9):
        return "before the first evaluation"
    return float(np.interp(np.log(at), np.log(x), y))


def log_tokens_to(tokens: FloatArray, best: FloatArray, level: float) -> float:
    """Log of the tokens at which a falling curve first reaches a level; nan if it never does."""
    if not best[-1] <= level <= best[0]:
        return np.nan
    after = int(np.argmax(best <= level))
    if after == 0:
        return float(np.log(tokens[0]))
    ends = slice(after - 1, after + 1)
    # Negated, since np.interp needs increasing values.
    return float(np.interp(-level, -best[ends], np.log(tokens[ends])))


def places(curves: Mapping[str, Mapping[int, Curve]], axis: str) -> list[float]:
    """Points of comparison: the farthest end of any arm, halved repeatedly, and each arm's end.

    An arm ends where its first seed does. Of points within 2 % of each other, the first counts.
    """
    ends = {
        arm: min(float(getattr(curve, axis)[-1]) for curve in seeds.values())
        for arm, seeds in curves.items()
    }
    far = max(ends.values())
    places: list[float] = []
    for at in sorted({*ends.values(), *(far / 2**k for k in range(HALVINGS + 1))}):
        if not places or at > places[-1] * SAME:
            places.append(at)
    return places


def points(
    curves: Mapping[str, Mapping[int, Curve]], axis: str, sources: Sequence[str]
) -> list[Point]:
    """Every arm at every point of an axis where any arm is measured."""
    out = []
    for at in places(curves, axis):
        row = []
        for arm, seeds in curves.items():
            read = {seed: read_at(curve, axis, at, sources) for seed, curve in seeds.items()}
            values = {seed: value for seed, value in read.items() if isinstance(value, float)}
            why = [value for value in read.values() if not isinstance(value, float)]
            row.append(Point(arm, at, why[0], {}) if why else Point(arm, at, "measured", values))
        if any(point.status == "measured" for point in row):
            out += row
    return out
