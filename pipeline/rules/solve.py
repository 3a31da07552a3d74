"""Solves for the rule's parameter that gives a target yield, from all scores and draws.

A sketch is a histogram of integers, so it merges exactly and in any order. Its bins are narrow, and
the yield at each bin edge is exact.

A top fraction is the head of all documents, sorted by score (descending) and then by draw, so it
is met even if many tie. It takes two sketches: of bands of scores, and then of the places within
the band in which the fraction ends.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.rules.decision import FloatArray, Rule, critical_alpha

Unit = Literal["documents", "bytes", "tokens"]

COLUMN = {"bytes": "bytes", "tokens": "words"}
"""The shard column that weighs a unit; without a tokenizer, words stand for tokens."""

SCORE_BINS = 1 << 16
ALPHA_BINS_PER_UNIT = 1 << 10
ALPHA_MAX = 64
ALPHA_BINS = ALPHA_MAX * ALPHA_BINS_PER_UNIT + 1
"""The last bin holds what is kept beyond alpha = 64: (2 - s)^-64 < 0.002 for s < 0.9."""

NOTHING = "no document reached the keep decision, so no target fraction can be met"

Sketch = npt.NDArray[np.int64]


def sketch(
    rule_name: str, score: npt.NDArray[np.float32], draw: FloatArray, weight: npt.NDArray[np.int64]
) -> Sketch:
    """Weight of n documents by the last bin edge at which the rule keeps them: int64 [bins]."""
    if rule_name == "threshold":
        # Kept at every edge j / SCORE_BINS <= score. The product is exact: a power of two.
        last = np.floor(score.astype(np.float64) * SCORE_BINS).astype(np.int64)
        bins = SCORE_BINS + 1
    elif rule_name == "pareto":
        # Kept at every edge j / 1024 < critical alpha.
        critical = np.minimum(critical_alpha(score, draw), ALPHA_MAX + 1.0)
        last = np.ceil(critical * ALPHA_BINS_PER_UNIT).astype(np.int64) - 1
        last = np.minimum(last, ALPHA_BINS - 1)
        bins = ALPHA_BINS
    else:
        raise ValueError(f"a target fraction has nothing to solve for under rule {rule_name!r}")
    out = np.zeros(bins, np.int64)
    np.add.at(out, last, weight)
    return out


def solve(rule_name: str, total: Sketch, fraction: float) -> Rule:
    """The rule whose yield is nearest to ``fraction`` of the sketched weight.

    Raises ValueError if nothing was sketched, or if no alpha up to 64 keeps so little.
    """
    if not total.any():
        raise ValueError(NOTHING)
    kept = total[::-1].cumsum()[::-1]  # kept[j] = weight kept at edge j, falling in j
    goal = fraction * kept[0]
    edge = int(np.argmin(np.abs(kept - goal)))
    if rule_name == "threshold":
        return Rule("threshold", edge / SCORE_BINS)
    if kept[-1] > 1.05 * goal:
        raise ValueError(
            f"even alpha = {ALPHA_MAX} keeps {kept[-1] / kept[0]:.4f} of the filtered sources,"
            f" more than the wanted {fraction}: use --rule threshold or top_fraction"
        )
    return Rule("pareto", edge / ALPHA_BINS_PER_UNIT)


BANDS = (0x3F800000 >> 16) + 1
"""Number of bands: float32 scores in [0, 1] with the same upper 16 bits form one."""

MOST_PLACES = 1 << 16
_DRAW_BITS = 48


@dataclass(frozen=True)
class Band:
    """The band in which the target fraction ends, by the ``upper`` bits of its scores, the weight
    ``above`` it, and the ``goal`` weight.
    """

    upper: int
    above: int
    goal: float


@dataclass(frozen=True)
class Places:
    """Weight of a band's documents by their place in it, in units of ``2**shift``.

    A place is 16 bits of score (the highest is 0) and 48 of draw. The shift is the smallest with at
    most MOST_PLACES places, whatever the order of merging.
    """

    place: npt.NDArray[np.uint64]
    weight: Sketch
    shift: int = 0


def bands(score: npt.NDArray[np.float32], weight: Sketch) -> Sketch:
    """Weight of n documents by band: int64 [BANDS]."""
    out = np.zeros(BANDS, np.int64)
    np.add.at(out, _bits(score) >> 16, weight)
    return out


def find_band(total: Sketch, fraction: float) -> Band:
    """The band in which ``fraction`` of the weight ends; ValueError if the sketch is empty."""
    if not total.any():
        raise ValueError(NOTHING)
    kept = total[::-1].cumsum()
    goal = fraction * kept[-1]
    at = min(int(np.searchsorted(kept, goal)), BANDS - 1)
    return Band(BANDS - 1 - at, int(kept[at] - total[::-1][at]), goal)


def places(band: Band, score: npt.NDArray[np.float32], draw: FloatArray, weight: Sketch) -> Places:
    """The places of n documents that are in the band."""
    bits = _bits(score)
    within = bits >> 16 == band.upper
    low = (0xFFFF - (bits[within] & 0xFFFF)).astype(np.uint64)
    drawn = (draw[within] * 2.0**_DRAW_BITS).astype(np.uint64)
    return _fitted(low << np.uint64(_DRAW_BITS) | drawn, weight[within], 0)


def merge_places(parts: Iterable[Places]) -> Places:
    """Merge the places of all parts."""
    return functools.reduce(_merged, parts, Places(np.empty(0, np.uint64), np.empty(0, np.int64)))


def cut(band: Band, found: Places) -> Rule:
    """The threshold, with a draw for ties, whose yield is nearest to the goal."""
    kept = band.above + np.concatenate([[0], found.weight.cumsum()])
    last = int(np.argmin(np.abs(kept - band.goal)))
    end = 0 if last == 0 else (int(found.place[last - 1]) + 1) << found.shift
    low, drawn = divmod(end, 1 << _DRAW_BITS)
    bits = (band.upper << 16) + 0xFFFF - low + (drawn == 0)
    if bits > 0x3F800000:
        return Rule("threshold", 1.0, 0.0)  # no score is as high
    following = int(found.place[last]) << found.shift if last < len(found.place) else 1 << 64
    tied = drawn > 0 and following >> _DRAW_BITS == low
    score = float(np.array(bits, np.uint32).view(np.float32))
    return Rule("threshold", score, drawn / 2**_DRAW_BITS if tied else 1.0)


def _bits(score: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return (score + np.float32(0)).view(np.uint32).astype(np.int64)  # no -0.0


def _merged(a: Places, b: Places) -> Places:
    shift = max(a.shift, b.shift)
    place = [part.place >> np.uint64(shift - part.shift) for part in (a, b)]
    return _fitted(np.concatenate(place), np.concatenate([a.weight, b.weight]), shift)


def _fitted(place: npt.NDArray[np.uint64], weight: Sketch, shift: int) -> Places:
    while True:
        place, at = np.unique(place, return_inverse=True)
        total = np.zeros(len(place), np.int64)
        np.add.at(total, at, weight)
        if len(place) <= MOST_PLACES:
            return Places(place, total, shift)
        place, weight, shift = place >> np.uint64(1), total, shift + 1


def check_unit(unit: str) -> None:
    """Raise ValueError unless ``unit`` can be solved for."""
    if unit not in get_args(Unit):
        raise ValueError(f"unknown target unit {unit!r}: choose one of {get_args(Unit)}")
