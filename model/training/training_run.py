"""A whole run of training: begin or go on, take steps, save, evaluate at the end."""

import contextlib
from typing import Any

from omegaconf import DictConfig, OmegaConf

from model.data.corpus import open_corpus
from model.training import checkpoint, hardware, processes
from model.training.metrics_log import MetricsLog, ProgressLine, duration
from model.training.outcome import Outcome
from model.training.train_config import TrainConfig
from model.training.trainer import Trainer, TrainingFailedError
from winnow import command_line, files


def train(config: TrainConfig) -> Outcome:
    """Train, or go on training, until ``train.tokens`` are read; evaluate and write the outcome.

    Raises:
        ValueError: config, corpus and what is in the output folder do not go together, or another
            run is writing to it.
        TrainingFailedError: losses or gradients stayed infinite or undefined.
        OSError: a checkpoint can't be written; those before it are intact.
    """
    device = processes.join(hardware.find_device(config.train.device))
    trainer = Trainer(config, open_corpus(config.data.corpus), device)
    # One process writes for all.
    with files.lock(config.output) if processes.is_first() else contextlib.nullcontext():
        return _train(config, trainer)


def _train(config: TrainConfig, trainer: Trainer) -> Outcome:
    trainer.corpus.verify(processes.rank(), processes.count())
    held_out = trainer.held_out(config.evaluate.bytes) if config.evaluate.every else {}
    final_held_out = trainer.held_out(config.evaluate.final_bytes)  # not after days of training
    found = checkpoint.newest(trainer.checkpoints)
    if found is None:
        trainer.begin()
    else:
        trainer.resume(found)
    trainer.write_config()
    settings: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    log = MetricsLog(
        config.output,
        trainer.progress.step,
        config.log.tensorboard,
        config.log.wandb,
        settings,
        processes.is_first(),
    )
    line = ProgressLine(config.steps, trainer.progress.step, processes.is_first())
    try:
        while trainer.progress.step < config.steps:
            row = trainer.step()
            step = trainer.progress.step
            evaluated = bool(held_out) and step % config.evaluate.every == 0
            if evaluated:
                row |= trainer.held_out_row(held_out)
            if evaluated or step % config.log.every == 0:
                log.write(row)
            line.update(row)
            if step % config.checkpoint.every == 0 and trainer.healthy:
                trainer.save()
    finally:
        line.close()
        log.close()
    return trainer.finish(final_held_out)


@command_line.main("train")
def main(config: DictConfig) -> None:
    """Train and say how it went."""
    command_line.run(_train_and_tell, config, TrainingFailedError)


def _train_and_tell(config: TrainConfig) -> None:
    outcome = train(config)
    first = processes.is_first()
    processes.leave()
    if not first:
        return
    print(
        f"{outcome.tokens:,} tokens ({outcome.epochs:.2f} epochs) in"
        f" {duration(outcome.wall_seconds)}, {outcome.skipped_steps} steps skipped"
    )
    for source, bits in outcome.heldout.items():
        print(f"{source:<24} {bits:.4f} bits per byte")
