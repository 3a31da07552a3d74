"""What a training run reports at its end, in the file ``outcome.json`` of its folder."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """``outcome.json``: what was spent and what came out.

    ``tokens`` were trained on, ``unique_tokens`` counts each place of the corpus once and
    ``epochs`` is their ratio. ``flops`` is of training alone (:func:`model.sizes.training_flops`).
    ``heldout`` is bits per byte by source. ``wall_seconds`` counts what was resumed from, not what
    a kill lost. ``peak_flops`` is of all devices, configured or measured.
    """

    steps: int
    tokens: int
    unique_tokens: int
    epochs: float
    flops: float
    learning_rate: float
    wall_seconds: float
    parameters_total: int
    parameters_active: int
    skipped_steps: int
    fallbacks: int
    heldout: dict[str, float]
    device: str
    processes: int
    precision: str
    peak_flops: float
    peak_memory_bytes: int
    corpus: str
    stream: str
