"""The training loop: start or resume, make steps, save, evaluate at the end."""

import contextlib
import dataclasses
import signal
import threading
from typing import Any

from omegaconf import DictConfig, OmegaConf

from model.data.corpus import open_corpus
from model.training import hardware
from model.training.checkpoints import checkpoint, in_bucket
from model.training.distributed import processes
from model.training.evaluation import held_out_sets
from model.training.metrics_log import MetricsLog, ProgressLine, without_table
from model.training.outcome import Outcome
from model.training.train_config import TrainConfig
from model.training.trainer import Trainer, TrainingFailedError
from winnow import run_log
from winnow.commands import command_line, console, exits
from winnow.commands.console import duration
from winnow.filesystem import files


def train(config: TrainConfig) -> Outcome:
    """Start or resume training until ``train.tokens`` are read; evaluate and write the outcome.

    Raises ValueError if config, corpus and output do not match, or another run is writing there;
    TrainingFailedError if losses or gradients stay infinite or NaN; OSError if a checkpoint or a
    bucket can't be written.
    """
    device = processes.join(hardware.find_device(config.train.device), config.train.patience)
    first = processes.is_first()
    with in_bucket.output_on_disk(config.output) as output:
        local = dataclasses.replace(config, output=output)
        with console.doing("building the model", first):
            trainer = Trainer(local, open_corpus(config.data.corpus), device)
        with files.lock(output) if first else contextlib.nullcontext():
            if first:
                run_log.write_to(output)
            try:
                return _train(local, trainer, config.output)
            finally:
                trainer.writer.close()


def _train(config: TrainConfig, trainer: Trainer, destination: str) -> Outcome:
    with console.doing("reading the corpus", processes.is_first()):
        trainer.corpus.verify(processes.rank(), processes.count())
        corpus, wanted = trainer.corpus, config.evaluate
        held_out = held_out_sets(corpus, config, wanted.bytes) if wanted.every else {}
        # Fail now, not after days of training.
        final_held_out = held_out_sets(corpus, config, wanted.final_bytes)
    found = checkpoint.newest(trainer.checkpoints)
    if found is None:
        trainer.begin()
    else:
        trainer.resume(found)
    trainer.write_config(destination)
    settings: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    log = MetricsLog(
        config.output, trainer.progress.step, config.log.tensorboard, config.log.wandb, settings,
        processes.is_first(),
    )  # fmt: skip
    line = ProgressLine(config.steps, trainer.progress.step, processes.is_first())

    def note(row: dict[str, Any] | None) -> None:
        if row is None:
            return
        step, evaluated = row["step"], "heldout" in row
        if evaluated or step % config.log.every == 0:
            whole = evaluated or step == config.steps or step % config.log.expert_load_every == 0
            log.write(row if whole else without_table(row))
        line.update(row)

    try:
        with _interruption() as heard:
            while trainer.progress.step < config.steps:
                trainer.wants_end = heard.number is not None or trainer.writer.error is not None
                with console.doing("the first step: compiling kernels", line.fresh):
                    row = trainer.step()
                step = trainer.progress.step
                evaluates = bool(held_out) and step % config.evaluate.every == 0
                saves = step % config.checkpoint.every == 0
                # Several processes agree on the step at which they end.
                asked = heard.number is not None or trainer.writer.error is not None
                ends = trainer.ends if processes.count() > 1 else asked
                if trainer.pending and (evaluates or saves or ends or step == config.steps):
                    note(row)
                    row = trainer.settle()
                if row is not None and evaluates:
                    with console.doing("evaluating", processes.is_first()):
                        row |= trainer.held_out_row(held_out)
                note(row)
                if (saves or ends) and trainer.healthy and trainer.saved_step < step:
                    trainer.save()
                if ends:
                    trainer.writer.wait()
                    raise KeyboardInterrupt(heard.number or signal.SIGTERM)
    finally:
        line.close()
        log.close()
    return trainer.finish(final_held_out)


def _interruption() -> contextlib.AbstractContextManager[exits.Interruption]:
    """Defers an interrupt; only the main thread can receive one."""
    if threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext(exits.Interruption())
    if processes.count() == 1:
        return exits.deferred("finishing this step, then saving (interrupt again to end at once)")
    said = "finishing this step, then saving" if processes.is_first() else ""
    return exits.deferred(said, second_ends=False)


@command_line.main("train")
def main(config: DictConfig) -> None:
    again = "the same command resumes"
    run_log.begin()
    try:
        command_line.run(_train_and_report, config, TrainingFailedError, again=again)
    finally:
        run_log.close()


def _train_and_report(config: TrainConfig) -> None:
    outcome = train(config)
    first = processes.is_first()
    processes.leave()
    if not first:
        return
    print("held out                 bits per byte")
    for source, bits in outcome.heldout.items():
        print(f"{source:<24} {bits:13.4f}")
    seconds = outcome.wall_seconds
    print(
        f"\ntime:    {duration(seconds)}; {outcome.tokens:,} tokens ({outcome.epochs:.2f} epochs):"
        f" {outcome.tokens / seconds:,.0f} tokens/s, {outcome.skipped_steps} steps skipped"
    )
    print(
        f"model:   {config.output}, {outcome.parameters_active:,} parameters active of"
        f" {outcome.parameters_total:,}"
    )
    print(console.next_command("generate", f"checkpoint={config.output}", "prompt=The"))
