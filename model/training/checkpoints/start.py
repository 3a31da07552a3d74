"""Starts a run from the weights of another: ``train.start``.

Steps, schedule, document order and output are new. The run's identity includes the checksums of the
checkpoint's files, so it resumes even if the other run has continued or is gone.
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
"""Model settings that affect only training, and so may change."""


@dataclass(frozen=True)
class Start:
    """The path that ``train.start`` gave, and the checkpoint found there.

    ``content`` is a hash of the checkpoint's checksums. ``tokens`` counts those that its weights
    were trained on, ``updates`` the optimizer's, 0 without its state.
    """

    given: str
    checkpoint: str
    content: str
    tokens: int
    updates: int

    @classmethod
    def of(cls, found: Checkpoint, config: TrainConfig) -> Self:
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
        """Read from the state of a run's checkpoint; None if the run drew its weights.

        Raises ValueError if ``train.start`` is another checkpoint, or has changed.
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
    """A hash of the checksums in a checkpoint's manifest."""
    sums = storage.read_json(os.path.join(path, MANIFEST))["files"]
    return files.fingerprint(sorted(sums.items()))


def load_start(
    config: TrainConfig, corpus: Corpus, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Start | None:
    """Load the weights of ``train.start`` into a model; return None if that is not set.

    ``train.start_optimizer`` loads the optimizer's state too: without moments the first steps at
    full rate would diverge. Every process calls this. Raises ValueError if there is no checkpoint,
    or it does not match the settings.
    """
    if config.train.start is None:
        return None
    found = checkpoint.resolve(in_bucket.model_on_disk(config.train.start))
    check(found, config, corpus)
    if config.train.start_optimizer:
        checkpoint.materialise(model, optimizer)
    loaded = optimizer if config.train.start_optimizer else None
    checkpoint.load(found, checkpoint.tensors(model, loaded))
    return Start.of(found, config)


def check(found: Checkpoint, config: TrainConfig, corpus: Corpus) -> None:
    """Raise ValueError if a checkpoint has another model shape, tokenizer or optimizer."""
    old = found.state["model"]
    new = {name: getattr(config.model, name) for name in GLaMConfig.__dataclass_fields__}
    different = sorted(n for n in new if n not in TRAINED_WITH and old.get(n) != new[n])
    if different:
        changes = ", ".join(f"model.{n}: {old.get(n)} there, {new[n]} here" for n in different)
        raise ValueError(
            f"train.start={config.train.start} is of another model ({changes}): choose that model"
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
            f"train.start={config.train.start} was trained with optimizer={name}, but this run uses"
            f" {config.optimizer.name}: set train.start_optimizer=false to load only the weights"
        )
