"""Would a smaller model have ordered the arms as the target size does? DataDecide's questions.

Decision accuracy (Magnusson et al. 2025) is the share of pairs of arms whose winner at the small
size is the winner at the target size. Rank accuracy is the share of arms that have the same place
in both orders. Pairs share arms, so they are not independent trials, and a binomial interval on
them is a rough guide, somewhat too narrow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from scipy import stats


@dataclass(frozen=True)
class Share:
    """``right`` of ``trials`` with Clopper and Pearson's interval."""

    right: int
    trials: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """How the order at one size foretells that at the target size; ``tau`` is Kendall's."""

    decision: Share
    rank: Share
    tau: float
    best_found: bool


def share(right: int, trials: int, alpha: float = 0.05) -> Share:
    """A share with its exact binomial interval."""
    interval = stats.binomtest(right, trials).proportion_ci(1 - alpha, method="exact")
    return Share(right, trials, right / trials, float(interval.low), float(interval.high))


def compare_orders(
    small: Mapping[str, float], target: Mapping[str, float], gain: int, alpha: float = 0.05
) -> Ranking:
    """Compare the orders of the same arms at two sizes, each with one value per arm.

    ``gain`` is -1 where less is better.

    Raises:
        ValueError: other arms at the two sizes, or fewer than two.
    """
    if small.keys() != target.keys() or len(small) < 2:
        raise ValueError("orders can be compared for the same arms only, at least two of them")
    arms = sorted(small)
    pairs = list(combinations(arms, 2))
    agree = sum((small[a] - small[b]) * (target[a] - target[b]) > 0 for a, b in pairs)
    orders = [sorted(arms, key=of.__getitem__, reverse=gain > 0) for of in (small, target)]
    same = sum(a == b for a, b in zip(*orders, strict=True))
    return Ranking(
        decision=share(agree, len(pairs), alpha),
        rank=share(same, len(arms), alpha),
        tau=float(stats.kendalltau([small[a] for a in arms], [target[a] for a in arms]).statistic),
        best_found=orders[0][0] == orders[1][0],
    )
