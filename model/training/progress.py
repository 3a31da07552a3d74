"""The counters of a training run."""

from dataclasses import dataclass


@dataclass
class Progress:
    """A run's counters: what a checkpoint holds besides tensors and the stream's position.

    ``step`` counts batches read; ``updates`` counts the updates behind the current weights, which
    are fewer if steps were skipped or rolled back.
    """

    step: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    fallbacks: int = 0
    seconds: float = 0.0
