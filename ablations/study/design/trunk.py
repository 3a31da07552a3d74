"""The trunk of ``experiment=anneal``: the training that arms share until the learning rate decays.

A warmup-stable-decay schedule (``optimizer.schedule=wsd``) is split in two. The trunk
(``data=trunk``, in ``STUDY/trunk/seed_N/``) is warm-up and plateau, trained once; each arm is a
decay on its own text from the trunk's weights and optimizer state, so it costs only
``optimizer.decay_share`` of a full run. Olmo 3 and Marin choose the text of their last training
stage this way.
"""

import dataclasses
import os
from typing import Any

from ablations.study.design.config import AblationConfig
from ablations.study_files.results import RESULT, TRUNK, JobKey, config_hash
from model.training.train_config import Schedule
from winnow.filesystem import storage

IDENTITY = "identity.json"
"""In a job's folder: what its result depends on (:func:`ablations.study.design.jobs.identity`)."""

SEED_OFFSET = 1_000_000
"""Added to a trunk's seed, so that arms do not reread its first text in the same order."""


def is_trunk(config: AblationConfig) -> bool:
    return config.trunk and config.arm == TRUNK


def starts_from_trunk(config: AblationConfig) -> bool:
    return config.trunk and config.arm != TRUNK


def is_spare(config: AblationConfig) -> bool:
    """Whether this job is a trunk that no arm uses, since all use another seed's."""
    return is_trunk(config) and config.trunk_seed not in (None, config.seed)


def split_schedule(config: AblationConfig) -> AblationConfig:
    """A job's config with its part of the tokens and schedule of trunk and arm.

    Raises:
        ValueError: the schedule lacks a plateau or a decay step, or ``train.start`` is set.
    """
    if not config.trunk:
        return config
    if config.optimizer.schedule != Schedule.wsd:
        raise ValueError(
            f"trunk=true splits the schedule at the end of its plateau, and optimizer.schedule="
            f"{config.optimizer.schedule.value} has none: use optimizer.schedule=wsd"
        )
    if config.train.start is not None:
        raise ValueError("trunk=true trains its own start: leave train.start out")
    total, decay = config.steps, config.optimizer.decay_steps(config.steps)
    if not config.optimizer.warmup_steps < total - decay < total:
        raise ValueError(
            f"of the {total:,} steps of train.tokens={config.train.tokens} the arms train the last"
            f" {decay:,}, the trunk the others, which must exceed the warm-up: change"
            " optimizer.decay_share, or train on more tokens"
        )
    if is_trunk(config):
        steps = total - decay
        optimizer = dataclasses.replace(config.optimizer, schedule=Schedule.constant)
    else:
        steps = decay
        optimizer = dataclasses.replace(config.optimizer, decay_share=1.0, warmup_steps=0)
    train = dataclasses.replace(config.train, tokens=steps * config.step_tokens)
    return dataclasses.replace(config, train=train, optimizer=optimizer)


def folder(config: AblationConfig) -> str:
    seed = config.seed if config.trunk_seed is None else config.trunk_seed
    return JobKey(TRUNK, config.variant, seed).folder(config.output)


def with_start(config: AblationConfig, training: dict[str, Any]) -> dict[str, Any]:
    """The settings of ``model/train.py`` with a trunk's seed or an arm's starting checkpoint."""
    if is_trunk(config):
        return {**training, "seed": config.seed + SEED_OFFSET}
    if starts_from_trunk(config):
        start = os.path.join(folder(config), "training")
        return {**training, "train": {**training["train"], "start": start}}
    return training


def finished_hash(config: AblationConfig) -> str | None:
    """A hash of the settings of this arm's trunk, else None; a ValueError if it is not finished."""
    if not starts_from_trunk(config):
        return None
    path = folder(config)
    if not storage.exists(storage.join(path, RESULT)):
        raise ValueError(
            f"the trunk in {path} is not finished, so no arm can start from it: see"
            " failure.json and training.log there, and run the same command again"
        )
    return config_hash(storage.read_json(storage.join(path, IDENTITY)))


def flops(config: AblationConfig) -> float:
    """FLOPs of this arm's trunk; 0 for other jobs."""
    if not starts_from_trunk(config):
        return 0.0
    return float(storage.read_json(storage.join(folder(config), RESULT))["flops"])


def note(arms: AblationConfig, trunk: AblationConfig) -> str:
    """A note for readers on where the arms start, from any arm's and trunk's config."""
    before, after = (config.steps * config.step_tokens for config in (trunk, arms))
    note = (
        f"Arms differ in the last {after:,} of {before + after:,} tokens, while the learning rate"
        f" decays. Until then they are one trunk, trained on {trunk.data.arm} text."
    )
    if arms.trunk_seed is None:
        return note + (
            " Each seed has its own trunk, so that the spread over seeds includes the luck of"
            " initial weights and of both text orders."
        )
    return note + (
        f" All seeds start from one trunk (trunk_seed={arms.trunk_seed}), so that only the order of"
        " the last text differs between them: the verdict is about this trunk; another one may"
        " give another."
    )
