"""Compares the speed of loading training batches with that of training the smallest model.

    OMP_NUM_THREADS=1 python benchmarks/token_loading.py --corpus demo/corpus

Each round loads all batches of an epoch (including a new permutation of the documents) on one
thread, and makes one training step on a preloaded batch. The ratio of CPU seconds is the median
over rounds.
"""

import argparse
import os
import statistics
import tempfile
import time

import hydra
import torch

from model.data.corpus import open_corpus
from model.data.stream import Batch, TokenStream
from model.training.trainer import Trainer
from winnow.commands import command_line

SETTINGS = ["train.tokens=1", "log.peak_tflops=1"]  # neither matters here


def main(corpus_folder: str, model: str, rounds: int) -> None:
    corpus = open_corpus(corpus_folder)
    composing = hydra.initialize("../conf", version_base="1.3")
    with tempfile.TemporaryDirectory() as output, composing:
        paths = [f"data.corpus={corpus_folder}", "data.arm=unfiltered", f"output={output}"]
        sizes = [f"model={model}", f"model.vocabulary={corpus.vocabulary}"]
        config = command_line.checked(hydra.compose("train", [*paths, *sizes, *SETTINGS]))
        run = Trainer(config, corpus, torch.device("cpu"))
    stream = run.stream
    steps = -(-stream.epoch_targets // config.step_tokens)
    ready = stream.batch(0)
    ratios, loaded, trained = [], [], []
    for number in range(rounds + 1):
        begun = time.process_time()
        for step in range(number * steps, (number + 1) * steps):
            stream.batch(step)
        loaded.append((time.process_time() - begun) / (steps * config.step_tokens))
        run.stream = _Ready(ready)
        begun = time.process_time()
        run.step()
        trained.append((time.process_time() - begun) / config.step_tokens)
        ratios.append(trained[-1] / loaded[-1])
    # The first round warms up.
    speeds = [1 / statistics.median(seconds[1:]) for seconds in (loaded, trained)]
    low, middle, high = statistics.quantiles(ratios[1:], n=4)
    print(
        f"{len(corpus):,} documents, {stream.epoch_targets:,} tokens of an epoch;"
        f" {os.cpu_count()} cores\n"
        f"loading            {speeds[0] / 1e6:8.2f} million tokens a CPU second\n"
        f"training {model:<10}{speeds[1] / 1e6:8.4f} million tokens a CPU second\n"
        f"ratio              {middle:8.0f} ({low:.0f} to {high:.0f} for half of {rounds} rounds)"
    )


class _Ready(TokenStream):
    """A stream whose batches cost nothing."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def batch(self, step: int) -> Batch:
        return self._batch


if __name__ == "__main__":
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--corpus", required=True, help="a folder of model/prepare.py")
    parser.add_argument("--model", default="glam_1m", help="of conf/model; default: the smallest")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    main(arguments.corpus, arguments.model, arguments.rounds)
