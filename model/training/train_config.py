"""The settings of ``model/train.py``, validated.

Defaults and their reasons are in ``conf/train.yaml`` and ``conf/optimizer``, those of the model in
:mod:`model.glam.config`.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from model.glam.config import AttentionBackend, GLaMConfig, at_least, require


class OptimizerName(StrEnum):
    adafactor = "adafactor"
    adamw = "adamw"


class Schedule(StrEnum):
    """The learning-rate schedules; see :func:`model.training.optimizers.optim.learning_rate`."""

    inverse_sqrt = "inverse_sqrt"
    constant = "constant"
    cosine = "cosine"
    wsd = "wsd"


class Precision(StrEnum):
    """The dtype of activations and products."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


@dataclass
class DataConfig:
    """The training data; ``mixture`` is that of :class:`model.data.stream.TokenStream`."""

    corpus: str = MISSING
    arm: str = MISSING
    sequence_length: int = MISSING
    mixture: dict[str, float] = MISSING

    def __post_init__(self) -> None:
        at_least(1, "data", self, "sequence_length")


@dataclass
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    name: OptimizerName = MISSING
    learning_rate: float = MISSING
    multiplier: float = MISSING
    schedule: Schedule = MISSING
    warmup_steps: int = MISSING
    final_share: float = MISSING
    decay_share: float = MISSING
    betas: list[float] = MISSING
    weight_decay: float = MISSING
    epsilon: float = MISSING
    clip: float | None = MISSING

    def __post_init__(self) -> None:
        for name in ("learning_rate", "multiplier", "epsilon", "clip"):
            value = getattr(self, name)
            require(value is None or value > 0, f"optimizer.{name} must be above 0")
        at_least(0, "optimizer", self, "warmup_steps", "weight_decay")
        require(0 <= self.final_share <= 1, "optimizer.final_share must lie in [0, 1]")
        require(0 < self.decay_share <= 1, "optimizer.decay_share must lie in (0, 1]")
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "optimizer.betas must be two numbers in [0, 1)",
        )

    def decay_steps(self, updates: int) -> int:
        """The number of updates over which ``wsd`` falls."""
        return round(self.decay_share * updates)


@dataclass
class RunConfig:
    """Length of the run, batch size, hardware and initial weights."""

    tokens: int = MISSING
    start: str | None = MISSING
    start_optimizer: bool = MISSING
    batch_rows: int = MISSING
    micro_rows: int | None = MISSING
    expert_parallel: int | None = MISSING
    tensor_parallel: int = MISSING
    recompute: bool = MISSING
    attention: AttentionBackend = MISSING
    precision: Precision = MISSING
    device: str = MISSING
    skips_in_a_row: int = MISSING
    fallbacks: int = MISSING
    patience: float = MISSING

    def __post_init__(self) -> None:
        at_least(1, "train", self, "tokens", "batch_rows", "micro_rows", "skips_in_a_row")
        at_least(1, "train", self, "expert_parallel", "tensor_parallel")
        at_least(0, "train", self, "fallbacks")
        require(self.patience > 0, "train.patience must be above 0")
        require(
            self.batch_rows % (self.micro_rows or 1) == 0,
            f"train.micro_rows={self.micro_rows} must divide train.batch_rows={self.batch_rows}",
        )


@dataclass
class EvaluateConfig:
    """When to evaluate, and on how much held-out text."""

    every: int = MISSING
    bytes: int | None = MISSING
    final_bytes: int | None = MISSING
    rows: int = MISSING

    def __post_init__(self) -> None:
        at_least(0, "evaluate", self, "every")
        at_least(1, "evaluate", self, "rows")


@dataclass
class CheckpointConfig:
    """How often to write checkpoints, and how many to keep."""

    every: int = MISSING
    keep: int = MISSING
    background: bool = MISSING

    def __post_init__(self) -> None:
        at_least(1, "checkpoint", self, "every")
        require(self.keep >= 2, "checkpoint.keep must be at least 2, in case the newest is damaged")


@dataclass
class LogConfig:
    """What to log, and where."""

    every: int = MISSING
    expert_load_every: int = MISSING
    tensorboard: bool = MISSING
    wandb: str | None = MISSING
    peak_tflops: float | None = MISSING

    def __post_init__(self) -> None:
        at_least(1, "log", self, "every", "expert_load_every")
        require(
            self.wandb is None or importlib.util.find_spec("wandb") is not None,
            f"log.wandb={self.wandb} needs the extra: pip install 'winnow-lm[wandb]'",
        )
        require(self.peak_tflops is None or self.peak_tflops > 0, "log.peak_tflops must be above 0")


@dataclass
class TrainConfig:
    """All settings of a training run; raises ValueError for a value out of range."""

    model: GLaMConfig = MISSING
    data: DataConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    train: RunConfig = MISSING
    evaluate: EvaluateConfig = MISSING
    checkpoint: CheckpointConfig = MISSING
    log: LogConfig = MISSING
    output: str = MISSING
    seed: int = MISSING

    @property
    def step_tokens(self) -> int:
        return self.train.batch_rows * self.data.sequence_length

    @property
    def steps(self) -> int:
        """The number of steps, enough for ``train.tokens``."""
        return -(-self.train.tokens // self.step_tokens)

    def identity(self) -> dict[str, Any]:
        """The settings that the weights depend on; a run resumes only from a matching checkpoint.

        If the learning rate does not depend on the length of the run, the run may be resumed with
        more tokens. The weights of ``train.start`` matter, not the path
        (:class:`model.training.checkpoints.start.Start`); :data:`OF_THE_MACHINE` and the number of
        processes do not. With ``model.group_rows=null`` balance loss and capacity are per micro-
        batch, so weights depend a little on ``train.micro_rows``; else only by rounding.
        """
        whole: Any = OmegaConf.to_container(OmegaConf.structured(self), enum_to_str=True)
        for name in ("output", "evaluate", "checkpoint", "log"):
            del whole[name]
        del whole["data"]["corpus"]
        for name in (*OF_THE_MACHINE, "start"):
            del whole["train"][name]
        if self.train.start is None:
            del whole["train"]["start_optimizer"]
        if self.optimizer.schedule != Schedule.wsd:
            del whole["optimizer"]["decay_share"]
        if self.optimizer.schedule not in (Schedule.cosine, Schedule.wsd):
            del whole["train"]["tokens"]
        return dict(whole)


OF_THE_MACHINE = (
    *("device", "expert_parallel", "tensor_parallel"),
    *("micro_rows", "recompute", "attention", "patience"),
)
"""Settings of ``train`` that fit a run to a machine, and may change on resume."""

FORMER = {"train.flex_attention", "train.micro_rows"}
"""Settings that were part of the identity in earlier versions."""


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings that differ between two flat identities, the old one of any version."""
    return sorted(key for key in {*old, *new} - FORMER if old.get(key) != new.get(key))


def check_same_run(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ValueError unless the identity of the checkpoint at ``path`` is that of this run."""
    if different := differing(old, new):
        changes = ", ".join(f"{k}: {old.get(k)} then, {new.get(k)} now" for k in different)
        raise ValueError(
            f"{path} is from a run with other settings ({changes}): use the same ones to resume, or"
            " choose another output"
        )


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


store = ConfigStore.instance()
store.store(name="train_schema", node=TrainConfig)
store.store(group="optimizer", name="base", node=OptimizerConfig)
