"""The declaration of a study of mixtures (``experiment=mixture``): weights by arm, and bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Swarm:
    """Mixtures of components (:mod:`model.data.components`).

    ``mixtures`` has the weights of each arm, ``natural`` those of the pool, ``most`` the upper
    bounds, by which a run of ``tokens`` reads no component more than ``repeats`` times. ``buckets``
    is the number of quality parts of a filtered source, ``seed`` the draw's. ``seen`` are the runs
    behind a proposed arm: arm, seed, ``weights`` and ``value`` on the primary endpoint; empty if
    the study is itself a swarm. ``of`` describes these runs.
    """

    mixtures: Mapping[str, Mapping[str, float]]
    natural: Mapping[str, float]
    most: Mapping[str, float]
    repeats: float
    tokens: int
    buckets: int
    seed: int = 0
    seen: Sequence[Mapping[str, Any]] = field(default_factory=list)
    of: str = ""

    @property
    def confirms(self) -> bool:
        """Whether the study confirms another's proposal."""
        return bool(self.seen)
