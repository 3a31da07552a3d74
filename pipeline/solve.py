"""Finds the rule's parameter for a wanted yield, from what every document scored and drew.

The sketch is a histogram of integers, so it merges exactly and in any order. Its bins are so
narrow that two documents rarely share one, and at every bin edge the yield it states is exact.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.decision import FloatArray, Rule, critical_alpha

Unit = Literal["documents", "bytes", "tokens"]

COLUMN = {"bytes": "bytes", "tokens": "words"}
"""The shard column that weighs a unit. No tokenizer is chosen yet at this point of the lineage, so
white-space words stand for tokens."""

SCORE_BINS = 1 << 16
ALPHA_BINS_PER_UNIT = 1 << 10
ALPHA_MAX = 64
ALPHA_BINS = ALPHA_MAX * ALPHA_BINS_PER_UNIT + 1
"""The last bin holds what is kept beyond alpha = 64: (2 - s)^-64 < 0.002 for s < 0.9."""

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
        raise ValueError("no document reached the keep decision, so no target fraction can be met")
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


def check_unit(unit: str) -> None:
    """Raise ValueError unless ``unit`` can be solved for."""
    if unit not in get_args(Unit):
        raise ValueError(f"unknown target unit {unit!r}: choose one of {get_args(Unit)}")
