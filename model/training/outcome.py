"""The results of a training run: ``outcome.json``, and the bits of each held-out document."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from winnow.filesystem import storage
from winnow.filesystem.tables import required

OUTCOME = "outcome.json"
HELDOUT = "heldout.arrow"

HELDOUT_SCHEMA = pa.schema(
    required(source=pa.string(), document=pa.string(), bits=pa.float64(), bytes=pa.int64())
)
"""The schema of ``heldout.arrow``: minus log2 of a document's probability, and its UTF-8 bytes."""


@dataclass(frozen=True)
class Outcome:
    """``outcome.json``: the cost and the result of a run.

    ``unique_tokens`` counts each position of the corpus once; ``epochs`` is ``tokens`` over these.
    ``flops`` covers training only (:func:`model.sizes.training_flops`). ``heldout`` is bits per
    byte by source. ``wall_seconds`` excludes work lost in a kill. ``peak_flops`` is the sum over
    all devices, configured or measured. ``start`` is the checkpoint that the run began from
    (:class:`model.training.checkpoints.start.Start`), whose costs are not counted here.
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
    start: dict[str, Any] | None = None


def read(folder: str) -> Outcome | None:
    """The outcome in a run's folder; None if the run has not finished."""
    path = os.path.join(folder, OUTCOME)
    return Outcome(**storage.read_json(path)) if os.path.exists(path) else None


def write(folder: str, outcome: Outcome) -> None:
    value = dataclasses.asdict(outcome)
    if outcome.start is None:
        del value["start"]
    storage.write_json(os.path.join(folder, OUTCOME), value)


def bits_per_byte(heldout: pa.Table) -> dict[str, float]:
    """Sum of bits over sum of bytes by source, from a table with :data:`HELDOUT_SCHEMA`."""
    sums = heldout.group_by("source").aggregate([("bits", "sum"), ("bytes", "sum")])
    return {row["source"]: row["bits_sum"] / row["bytes_sum"] for row in sums.to_pylist()}
