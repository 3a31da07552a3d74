"""Buckets: quantiles of the score, each dropped (0 copies), kept (1) or upsampled (2 and more).

CCNet (Wenzek et al. 2020) cuts each language's documents into a head, a middle and a tail.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.rules.decision import FloatArray, Rule


@dataclass(frozen=True)
class Buckets:
    """k buckets, the lowest scores first.

    Attributes:
        cuts: k - 1 threshold rules, rising: cut j keeps what is above bucket j.
        copies: k repeat counts.
    """

    cuts: tuple[Rule, ...]
    copies: tuple[int, ...]

    def bucket(self, score: npt.NDArray[np.float32], draw: FloatArray) -> npt.NDArray[np.int64]:
        """The bucket of each of n documents, 0 for the lowest scores: int64 [n]."""
        above = np.zeros(len(score), np.int64)
        for cut in self.cuts:
            above += cut.keep(score, draw)
        return above

    def repeats(self, score: npt.NDArray[np.float32], draw: FloatArray) -> npt.NDArray[np.int32]:
        """The number of copies of n documents in training: int32 [n]."""
        return np.array(self.copies, np.int32)[self.bucket(score, draw)]

    def probability(self, score: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The chance of n documents before the draw: float32 [n], 0 or 1 except at a cut."""
        # The chances to be in or above each bucket; their differences are those to be in it.
        at_cuts = [cut.probability(score).astype(np.float64) for cut in self.cuts]
        above = [np.ones(len(score)), *at_cuts, np.zeros(len(score))]
        chance = np.zeros(len(score))
        for copies, here, next_one in zip(self.copies, above[:-1], above[1:], strict=True):
            if copies:
                chance += here - next_one
        return chance.astype(np.float32)

    def distance(self, score: npt.NDArray[np.float32], draw: FloatArray) -> FloatArray:
        """The distance of n documents from the next bucket: float64 [n]."""
        far = np.full(len(score), np.inf)
        for cut in self.cuts:
            far = np.minimum(far, cut.distance(score, draw))
        return far
