"""The trunk of ``experiment=anneal``: what arms have in common until the learning rate falls.

One schedule of warm-up, plateau and decay (``optimizer.schedule=wsd``) is cut in two. The trunk
(``data=trunk``) is its part up to the plateau's end, trained once; each arm is the decay, begun
from the trunk's weights and optimizer, on text of its own. So each further arm costs
``optimizer.decay_share`` of a whole run. Olmo 3 and Marin choose the text of the last part of their
training so.

::

    STUDY/trunk/seed_N/     a job as any other, which is no arm
"""

import dataclasses
import json
import os
from typing import Any

from ablations.study.design.config import AblationConfig
from ablations.study_files.results import RESULT, TRUNK, JobKey, config_hash
from model.training.train_config import Schedule
from winnow.filesystem import storage

IDENTITY = "identity.json"
"""In a job's folder: what its result depends on (:func:`ablations.study.design.jobs.identity`)."""

SEED_OFFSET = 1_000_000
"""Added to a trunk's seed, so that the arms do not read again, in one order, what it began with."""


def is_trunk(config: AblationConfig) -> bool:
    """Whether this job trains a trunk."""
    return config.trunk and config.arm == TRUNK


def begins_from_trunk(config: AblationConfig) -> bool:
    """Whether this job is an arm that begins from one."""
    return config.trunk and config.arm != TRUNK


def is_spare(config: AblationConfig) -> bool:
    """Whether this job has nothing to do: a trunk of which all arms take another seed's."""
    return is_trunk(config) and config.trunk_seed not in (None, config.seed)


def divided(config: AblationConfig) -> AblationConfig:
    """The config of a job whose ``train.tokens`` and schedule are those of trunk and arm together.

    Raises:
        ValueError: the schedule has no plateau or no decay of a step, or the run begins elsewhere.
    """
    if not config.trunk:
        return config
    if config.optimizer.schedule != Schedule.wsd:
        raise ValueError(
            f"trunk=true cuts the schedule where its plateau ends, and optimizer.schedule="
            f"{config.optimizer.schedule.value} has none: take optimizer.schedule=wsd"
        )
    if config.train.start is not None:
        raise ValueError("trunk=true trains its own start: leave train.start out")
    whole, decay = config.steps, config.optimizer.decay_steps(config.steps)
    if not config.optimizer.warmup_steps < whole - decay < whole:
        raise ValueError(
            f"of the {whole:,} steps of train.tokens={config.train.tokens} the last {decay:,} are"
            " the arms' and the others the trunk's, warm-up and all: change"
            " optimizer.decay_share, or train on more tokens"
        )
    if is_trunk(config):
        steps = whole - decay
        optimizer = dataclasses.replace(config.optimizer, schedule=Schedule.constant)
    else:
        steps = decay
        optimizer = dataclasses.replace(config.optimizer, decay_share=1.0, warmup_steps=0)
    train = dataclasses.replace(config.train, tokens=steps * config.step_tokens)
    return dataclasses.replace(config, train=train, optimizer=optimizer)


def folder(config: AblationConfig) -> str:
    """The folder of the trunk that this arm begins from."""
    seed = config.seed if config.trunk_seed is None else config.trunk_seed
    return JobKey(TRUNK, config.variant, seed).folder(config.output)


def placed(config: AblationConfig, training: dict[str, Any]) -> dict[str, Any]:
    """The settings of ``model/train.py`` with the seed of a trunk, or the start of an arm."""
    if is_trunk(config):
        return {**training, "seed": config.seed + SEED_OFFSET}
    if begins_from_trunk(config):
        start = os.path.join(folder(config), "training")
        return {**training, "train": {**training["train"], "start": start}}
    return training


def finished_hash(config: AblationConfig) -> str | None:
    """What names the settings of the trunk that an arm begins from; None for other jobs.

    Raises:
        ValueError: the trunk is not finished.
    """
    if not begins_from_trunk(config):
        return None
    path = folder(config)
    if not storage.exists(storage.join(path, RESULT)):
        raise ValueError(
            f"the trunk in {path} is not finished, so no arm can begin from it: see"
            " failure.json and training.log there, and run the same command again"
        )
    return config_hash(json.loads(storage.read_bytes(storage.join(path, IDENTITY))))


def flops(config: AblationConfig) -> float:
    """FLOPs of the trunk that an arm begins from; 0 for other jobs."""
    if not begins_from_trunk(config):
        return 0.0
    result = json.loads(storage.read_bytes(storage.join(folder(config), RESULT)))
    return float(result["flops"])


def note(arms: AblationConfig, trunk: AblationConfig) -> str:
    """What a reader must know of where the arms begin.

    Args:
        arms: of any arm.
        trunk: of any trunk.
    """
    before = trunk.steps * trunk.step_tokens
    after = arms.steps * arms.step_tokens
    said = (
        f"Arms differ in the last {after:,} of {before + after:,} tokens, while the learning rate"
        f" falls. Until then they are one trunk, trained on {trunk.data.arm} text."
    )
    if arms.trunk_seed is None:
        return said + (
            " Each seed has a trunk of its own, so that the spread over seeds holds the luck of its"
            " initial weights and of both orders of text."
        )
    return said + (
        f" All seeds begin from one trunk (trunk_seed={arms.trunk_seed}), so that only the order of"
        " the last text differs between them: the verdict is about this trunk, and another one may"
        " give another."
    )


def reading_note(shares: dict[str, float]) -> str:
    """How much of what each arm reads its trunk has read, of shares of tokens by arm."""
    parts = " and ".join(f"{share:.0%} of {arm}" for arm, share in shares.items())
    return f"The trunk has read some of the arms' text before: {parts}, by tokens."
