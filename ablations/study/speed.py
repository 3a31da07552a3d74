"""Benchmark this machine with a few training steps of ``model/train.py`` in all slots."""

import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from ablations.study import execute
from model.data.corpus import Corpus
from model.training.metrics_log import METRICS

STEPS = 6
"""Steps to measure; the first is warm-up and does not count."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a job's parts, and its peak memory in bytes.

    ``start`` includes the first step; ``evaluated_byte`` is the time per held-out byte.
    """

    start: float
    step: float
    evaluated_byte: float
    memory: float

    def seconds(self, steps: int, evaluated_bytes: float) -> float:
        """Seconds of a job."""
        return self.start + steps * self.step + evaluated_bytes * self.evaluated_byte


def measure(training: Mapping[str, Any], corpus: Corpus, slots: int, threads: int) -> Speed:
    """Train a few steps of a job in all slots at once, and average."""
    evaluate = training["evaluate"]
    tokens = STEPS * training["train"]["batch_rows"] * training["data"]["sequence_length"]
    short = {
        **training,
        "train": {**training["train"], "tokens": tokens, "start": None},
        "evaluate": {**evaluate, "every": 0, "final_bytes": evaluate["bytes"]},
        "log": {**training["log"], "every": 1, "tensorboard": False},
    }
    with tempfile.TemporaryDirectory() as parent:
        folders = [os.path.join(parent, str(slot)) for slot in range(slots)]
        with ThreadPoolExecutor(slots) as pool:
            measured = list(pool.map(lambda folder: _measure_one(short, folder, threads), folders))
    final = heldout_bytes(corpus, evaluate["bytes"])
    return Speed(
        start=mean(each["start"] for each in measured),
        step=mean(each["step"] for each in measured),
        evaluated_byte=mean(each["evaluation"] for each in measured) / final,
        memory=max(each["memory"] for each in measured),
    )


def heldout_bytes(corpus: Corpus, limit: int | None) -> float:
    """Bytes of one evaluation, with at most ``limit`` per source."""
    held = corpus.evaluated
    total = 0.0
    for index in range(len(corpus.sources)):
        of_source = float(corpus.bytes[held & (corpus.source_index == index)].sum())
        total += of_source if limit is None else min(of_source, limit)
    return total


def evaluated_bytes(corpus: Corpus, evaluate: Mapping[str, Any], steps: int) -> float:
    """Bytes of all evaluations of a job."""
    between = steps // evaluate["every"] if evaluate["every"] else 0
    once = heldout_bytes(corpus, evaluate["bytes"])
    return between * once + heldout_bytes(corpus, evaluate["final_bytes"])


def _measure_one(training: Mapping[str, Any], folder: str, threads: int) -> dict[str, float]:
    output = os.path.join(folder, "training")
    execute.write_training_file(folder, {**training, "output": output})
    start = time.perf_counter()
    execute.train(folder, threads)
    seconds = time.perf_counter() - start
    outcome = execute.read_outcome(output)
    with open(os.path.join(output, METRICS), "rb") as file:
        clock = [json.loads(line)["seconds"] for line in file]
    return {
        "start": seconds - outcome.wall_seconds,
        "step": median(b - a for a, b in itertools.pairwise(clock)),
        "evaluation": outcome.wall_seconds - clock[-1],
        "memory": outcome.peak_memory_bytes,
    }
