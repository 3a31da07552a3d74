"""Benchmarks this machine with a few steps of ``model/train.py`` in all slots."""

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

import numpy as np

from ablations.study import execute
from model.data.corpus import Corpus
from model.training.metrics_log import METRICS

STEPS = 6
"""Steps to measure; the first is warm-up."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a job's start and first step, of a later step and of evaluating a held-out byte;
    and its peak memory in bytes.
    """

    start: float
    step: float
    evaluated_byte: float
    memory: float

    def seconds(self, steps: int, evaluated_bytes: float) -> float:
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
    with tempfile.TemporaryDirectory() as parent, ThreadPoolExecutor(slots) as pool:
        folders = [os.path.join(parent, str(slot)) for slot in range(slots)]
        measured = list(pool.map(lambda folder: _measure_one(short, folder, threads), folders))
    starts, steps, evaluations, memory = zip(*measured, strict=True)
    evaluated_byte = mean(evaluations) / heldout_bytes(corpus, evaluate["bytes"])
    return Speed(mean(starts), mean(steps), evaluated_byte, max(memory))


def heldout_bytes(corpus: Corpus, limit: int | None) -> float:
    """Bytes of one evaluation, with at most ``limit`` per source."""
    held = corpus.evaluated
    sizes = np.bincount(corpus.source_index[held], corpus.bytes[held])
    return float(sizes.sum() if limit is None else np.minimum(sizes, limit).sum())


def evaluated_bytes(corpus: Corpus, evaluate: Mapping[str, Any], steps: int) -> float:
    """Bytes of all evaluations of a job."""
    between = steps // evaluate["every"] if evaluate["every"] else 0
    once, final = (heldout_bytes(corpus, evaluate[name]) for name in ("bytes", "final_bytes"))
    return between * once + final


def _measure_one(
    training: Mapping[str, Any], folder: str, threads: int
) -> tuple[float, float, float, float]:
    """Seconds of the start, of a step and of the evaluation, and bytes of memory."""
    output = os.path.join(folder, "training")
    execute.write_training_file(folder, {**training, "output": output})
    start = time.perf_counter()
    execute.train(folder, threads)
    seconds = time.perf_counter() - start
    outcome = execute.read_outcome(output)
    with open(os.path.join(output, METRICS), "rb") as file:
        clock = [json.loads(line)["seconds"] for line in file]
    step = median(b - a for a, b in itertools.pairwise(clock))
    evaluation = outcome.wall_seconds - clock[-1]
    return seconds - outcome.wall_seconds, step, evaluation, outcome.peak_memory_bytes
