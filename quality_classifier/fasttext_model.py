"""fastText as the second kind of classifier: training and prediction behind the same interface."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class FastTextSettings:
    """fastText's own settings; the defaults are DCLM's (bigrams, dim 100, 2M buckets)."""

    dim: int = 100
    word_ngrams: int = 2
    buckets: int = 2_000_000
    epochs: int = 5
    learning_rate: float = 0.1
    min_count: int = 1


class FastTextModel:
    """A fastText ``.bin`` and the name of the label whose probability is the score."""

    kind: ClassVar[str] = "fasttext"

    def __init__(self, path: Path, label: str | None) -> None:
        raise NotImplementedError("interface only; the wrapper follows")

    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """Logit of the clipped probability of the label, of n documents: float64 [n]."""
        raise NotImplementedError("interface only; the wrapper follows")


def train_fasttext(
    positive: pa.Array,
    negative: pa.Array,
    output: Path,
    settings: FastTextSettings,
    seed: int,
    repeatable: bool,
) -> FastTextModel:
    """Train on two string arrays and write the model file ``output`` (label ``__label__curated``).

    ``repeatable`` trains on one thread, which gives the same bytes for the same seed; otherwise
    all cores are used and the bytes differ from run to run.
    """
    raise NotImplementedError("interface only; the wrapper follows")
