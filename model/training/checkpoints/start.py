"""A run that begins from the weights of another: ``train.start``.

It has steps, schedule, order of documents and output of its own. The checksums of the checkpoint's
files become part of its identity and are written into its checkpoints, so that it resumes although
the other run has gone on or is gone.
"""

import filecmp
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from model.data import corpus as corpora
from model.data.corpus import Corpus
from model.glam.config import GLaMConfig
from model.training.checkpoints import checkpoint, in_bucket
from model.training.checkpoints.checkpoint import MANIFEST, Checkpoint
from model.training.train_config import TrainConfig
from winnow.filesystem import files, storage

TRAINED_WITH = {
    *("second_expert", "capacity_factor", "group_rows"),
    *("balance_coefficient", "router_z_coefficient", "output_z_coefficient"),
}
"""Settings of a model that say how it is trained, not what its weights mean: these may change."""


@dataclass(frozen=True)
class Start:
    """What a run began from: the path that was given, and the checkpoint there.

    ``content`` names the checkpoint's files by their checksums. ``tokens`` went into its weights;
    ``updates`` are those that the optimizer had made, 0 where its state was not taken.
    """

    given: str
    checkpoint: str
    content: str
    tokens: int
    updates: int

    @classmethod
    def of(cls, found: Checkpoint, config: TrainConfig) -> Self:
        """Of a checkpoint that a run begins from."""
        about, earlier = found.state["identity"], found.state.get("start") or {}
        step_tokens = about["train.batch_rows"] * about["data.sequence_length"]
        progress = found.state["progress"]
        tokens = progress["step"] * step_tokens + earlier.get("tokens", 0)
        updates = progress["updates"] + earlier.get("updates", 0)
        given, taken = str(config.train.start), config.train.start_optimizer
        path = os.path.abspath(found.path)
        return cls(given, path, content(path), tokens, updates if taken else 0)

    @classmethod
    def resumed(cls, state: Mapping[str, Any], config: TrainConfig) -> Self | None:
        """Of a run's own checkpoint, by its state; None if the run drew its weights.

        Raises:
            ValueError: the run began from another checkpoint than ``train.start``, or that one has
                changed since.
        """
        if (value := state.get("start")) is None or config.train.start is None:
            return None  # if only one of them is None, the identities differ
        start = cls(**value)
        now = start.checkpoint
        if config.train.start != start.given:
            now = checkpoint.resolve(in_bucket.model_on_disk(config.train.start)).path
        if os.path.exists(os.path.join(now, MANIFEST)) and content(now) != start.content:
            raise ValueError(
                f"this run began from {start.checkpoint}, and {now} is another checkpoint: give the"
                " same train.start to resume, or choose another output"
            )
        return start


def content(path: str) -> str:
    """A hash of the checksums of a checkpoint's files, which its manifest lists."""
    sums = storage.read_json(os.path.join(path, MANIFEST))["files"]
    return files.fingerprint(sorted(sums.items()))


def load_start(
    config: TrainConfig, corpus: Corpus, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Start | None:
    """Load the weights of ``train.start`` into a model; None where there is none.

    With ``train.start_optimizer`` the optimizer's state is loaded too: without moments the first
    steps at full rate would diverge. Every process calls this, however many wrote the checkpoint.

    Raises:
        ValueError: there is no checkpoint, or a run of these settings can't begin from it.
    """
    if config.train.start is None:
        return None
    found = checkpoint.resolve(in_bucket.model_on_disk(config.train.start))
    check(found, config, corpus)
    if config.train.start_optimizer:
        checkpoint.materialise(model, optimizer)
        checkpoint.load(found, checkpoint.tensors(model, optimizer))
    else:
        checkpoint.load(found, checkpoint.tensors(model))
    return Start.of(found, config)


def check(found: Checkpoint, config: TrainConfig, corpus: Corpus) -> None:
    """Check that a run can begin from a checkpoint.

    Raises:
        ValueError: its model has another shape, its text was cut by another tokenizer, or its
            optimizer is another one.
    """
    old = found.state["model"]
    new = {name: getattr(config.model, name) for name in GLaMConfig.__dataclass_fields__}
    different = sorted(n for n in new if n not in TRAINED_WITH and old.get(n) != new[n])
    if different:
        changes = ", ".join(f"model.{n}: {old.get(n)} there, {new[n]} here" for n in different)
        raise ValueError(
            f"train.start={config.train.start} is of another model ({changes}): choose the model"
            " that it has"
        )
    folder = os.path.dirname(os.path.dirname(os.path.abspath(found.path)))
    tokenizer = os.path.join(folder, corpora.TOKENIZER)
    if not os.path.exists(tokenizer):
        raise ValueError(f"{folder} has no {corpora.TOKENIZER}: copy that of its corpus there")
    boundary = corpus.manifest["tokenizer"]["boundary"]
    same = filecmp.cmp(tokenizer, corpus.tokenizer_path, shallow=False)
    if found.state["boundary"] != boundary or not same:
        raise ValueError(
            f"train.start={config.train.start} was trained with another tokenizer than"
            f" {corpus.folder} has: make the corpus with its own (winnow prepare … tokenizer.file="
            f"{tokenizer})"
        )
    name = found.state["identity"]["optimizer.name"]
    if config.train.start_optimizer and name != config.optimizer.name:
        raise ValueError(
            f"train.start={config.train.start} was trained with optimizer={name}, this run is to be"
            f" with {config.optimizer.name}: give train.start_optimizer=false to take the weights"
            " alone"
        )
