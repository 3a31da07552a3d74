"""Two arms at equal tokens, at equal unique tokens, at equal total compute: read off their curves.

A filter's arm and its baseline seldom spend the same on all three axes. Equal *tokens* asks what a
training step gives; equal *unique tokens* what the same amount of distinct text gives, however
often it was repeated; equal *compute* what a budget gives, the scoring of the pool included.

A point inside a run is a model whose learning rate has not come down yet, so such points compare
with each other, not with finished runs of that length. Curves hold no documents: intervals are over
seeds alone.
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
    """One arm at one place of an axis: a value per seed, or why there is none."""

    arm: str
    at: float
    status: Status
    values: Mapping[int, float]


def read_at(curve: Curve, axis: str, at: float, sources: Sequence[str]) -> float | Status:
    """Mean bits per byte over ``sources`` at a place of an axis, linear in the axis' logarithm.

    Where the axis stands still (a corpus that repeats has no new unique tokens), the last
    evaluation counts: what the run made of that text in the end.
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
    # From high to low: np.interp wants them to rise.
    return float(np.interp(-level, -best[ends], np.log(tokens[ends])))


def places(curves: Mapping[str, Mapping[int, Curve]], axis: str) -> list[float]:
    """Where arms are compared: the farthest end of any arm and its halves, and each arm's own end.

    ``curves`` is by arm and seed. An arm ends where the first of its seeds does. Of places that lie
    within 2 % only the first counts: arms that end together, but for what scoring cost, are
    compared there once.
    """
    ends = {
        arm: min(float(getattr(curve, axis)[-1]) for curve in seeds.values())
        for arm, seeds in curves.items()
    }
    far = max(ends.values())
    found: list[float] = []
    for at in sorted({*ends.values(), *(far / 2**k for k in range(HALVINGS + 1))}):
        if not found or at > found[-1] * SAME:
            found.append(at)
    return found


def points(
    curves: Mapping[str, Mapping[int, Curve]], axis: str, sources: Sequence[str]
) -> list[Point]:
    """Every arm at every place of an axis where any is measured: where each of its seeds is."""
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
