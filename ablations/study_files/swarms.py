"""What a study of mixtures declares (``experiment=mixture``): weights by arm, and their bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Swarm:
    """Mixtures of components (:mod:`model.data.components`).

    ``mixtures`` has the weights of each arm of the study, ``natural`` those of the pool, ``most``
    the largest that each component may have: with it a run of ``tokens`` reads none of its text
    more than ``repeats`` times. ``buckets`` is into how many parts by quality a filtered source is
    cut, ``seed`` that of the draw. ``seen`` are the runs that a study's proposed arm comes from,
    each its arm, seed, ``weights`` and ``value`` on the primary endpoint; it is empty where the
    study is itself a swarm. ``of`` says what they were runs of.
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
        """Whether the study confirms what another one has proposed."""
        return bool(self.seen)
