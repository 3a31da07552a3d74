"""The trainer: the steps, checkpoints, evaluation and outcome of a run."""

import dataclasses
import math
import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor

from model import sizes
from model.data import corpus as corpora
from model.data.corpus import Corpus
from model.data.held_out import HeldOut
from model.data.stream import TokenStream
from model.glam.parameter import copies, keyed_generator
from model.training import evaluation, hardware, outcome
from model.training.checkpoints import checkpoint
from model.training.checkpoints.background import Writer
from model.training.checkpoints.checkpoint import Checkpoint
from model.training.checkpoints.start import Start, load_start
from model.training.distributed import parallel, processes
from model.training.metrics_log import TENSORBOARD, WANDB
from model.training.optimizers import optim
from model.training.outcome import Outcome
from model.training.train_config import TrainConfig, check_same_run, flatten
from model.training.transfers import Batches, Readback
from winnow.filesystem import files, tables


class TrainingFailedError(RuntimeError):
    """The loss or its gradients stayed infinite or NaN."""


ENDS = "ends"
"""The metric with the share of processes that were asked to end."""


@dataclass
class Progress:
    """A run's counters, as checkpoints store them.

    ``step`` counts batches read, ``updates`` those behind the current weights: fewer if steps were
    skipped or rolled back.
    """

    step: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    fallbacks: int = 0
    seconds: float = 0.0


class Pending(NamedTuple):
    """A step whose metrics are in transfer: its number, from 1, and its learning rate."""

    step: int
    rate: float
    metrics: Readback


class Trainer:
    """A run's model, optimizer and data; raises ValueError if config and corpus do not match."""

    def __init__(self, config: TrainConfig, corpus: Corpus, device: torch.device) -> None:
        if config.model.vocabulary < corpus.vocabulary:
            raise ValueError(
                f"model.vocabulary={config.model.vocabulary} is smaller than the corpus's,"
                f" {corpus.vocabulary}: set model.vocabulary={corpus.vocabulary}"
            )
        self.config = config
        self.corpus = corpus
        self.checkpoints = os.path.join(config.output, checkpoint.FOLDER)
        saving, patience = config.checkpoint, config.train.patience
        self.writer = Writer(self.checkpoints, saving.keep, saving.background, patience)
        self.progress = Progress()
        self.start: Start | None = None  # set once loaded
        self.saved_step = 0
        self.returned_to: Checkpoint | None = None  # until an update succeeds
        data, train = config.data, config.train
        self.device = device
        # On a GPU a step is queued before the metrics of the previous one are read.
        self.defers = device.type == "cuda"
        self.pending: Pending | None = None
        self.begun = 0.0
        self.wants_end = False  # this process was asked to end …
        self.ends = False  # … and any process was, as all learn at the same step
        self.stream = TokenStream(
            corpus, data.arm, config.seed, data.sequence_length, train.batch_rows, data.mixture,
            processes.rank(), processes.count(),
        )  # fmt: skip
        self.batches = Batches(self.stream.batch, device, config.steps)
        self.rows = train.batch_rows // processes.count()
        self.micro_rows = train.micro_rows or self.rows
        if self.rows % self.micro_rows:
            raise ValueError(
                f"train.micro_rows={self.micro_rows} must divide the {self.rows} rows of one of"
                f" {processes.count()} processes"
            )
        hardware.check_attention(train.attention, device)
        self.dtype = hardware.compute_dtype(train.precision, device)
        if config.model.sparse and device.type == "cuda" and self.dtype == torch.bfloat16:
            hardware.check_grouped_products(device)
        self.model = parallel.build(
            config.model, device, compute_dtype=self.dtype, seed=config.seed,
            expert_parallel=train.expert_parallel, tensor_parallel=train.tensor_parallel,
            recompute=train.recompute, attention=train.attention,
        )  # fmt: skip
        self.optimizer = optim.build_optimizer(config.optimizer, self.model)
        self.counts = sizes.count(config.model)
        self.token_flops = sizes.training_flops(config.model, self.counts, data.sequence_length)
        stated = config.log.peak_tflops
        one = stated * 1e12 if stated else hardware.measure_peak(device, self.dtype)
        self.peak_flops = processes.count() * one

    def begin(self) -> None:
        """Load ``train.start``; write the output's constant files."""
        self.start = load_start(self.config, self.corpus, self.model, self.optimizer)
        if not processes.is_first():
            return
        folder = self.config.output
        # Leftovers of a run that ended before its first checkpoint.
        for name in (TENSORBOARD, WANDB):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        shutil.copyfile(self.corpus.tokenizer_path, os.path.join(folder, corpora.TOKENIZER))

    def write_config(self, output: str) -> None:
        """Write the current config, with the final ``output``; ``train.tokens`` may have grown."""
        if processes.is_first():
            asked = OmegaConf.structured(dataclasses.replace(self.config, output=output))
            with files.open_output(os.path.join(self.config.output, "config.yaml")) as file:
                file.write(OmegaConf.to_yaml(asked).encode())

    def resume(self, found: Checkpoint) -> None:
        """Continue from a checkpoint; raise ValueError if it is from another run."""
        self.start = Start.resumed(found.state, self.config)
        check_same_run(found.path, found.state["identity"], self.identity())
        self.stream.check(found.state["stream"])
        self.load(found)
        self.progress = Progress(**found.state["progress"])
        self.saved_step = self.progress.step

    def load(self, found: Checkpoint) -> None:
        if not self.optimizer.state:
            checkpoint.materialise(self.model, self.optimizer)
        checkpoint.load(found, checkpoint.tensors(self.model, self.optimizer))

    def identity(self) -> dict[str, Any]:
        """The flat settings that a run shares with its checkpoints."""
        identity = {**self.config.identity(), "precision": str(self.dtype).removeprefix("torch.")}
        if self.start:
            identity["train"]["start"] = self.start.content
        return dict(flatten(identity))

    def step(self) -> dict[str, Any] | None:
        """Make one step on the next batch, skipped if its gradient is not finite.

        The host reads a step's metrics at once on a CPU, on a GPU when the next step is queued.
        Returns the latest known log row, of this step or the previous one, or None.
        """
        progress, config = self.progress, self.config
        if self.pending is None:
            self.begun = time.perf_counter()
        metrics = self.accumulate_gradients(progress.step)
        fallbacks = progress.fallbacks
        row = self.settle()
        if progress.fallbacks > fallbacks:  # these gradients belong to discarded weights
            self.optimizer.zero_grad(set_to_none=True)
            metrics = self.accumulate_gradients(progress.step)
        before = self.start.updates if self.start else 0
        rate = optim.learning_rate(config.optimizer, progress.updates + 1, config.steps, before)
        norm = metrics["gradient_norm"]
        optim.clip(self.model, norm, config.optimizer.clip)
        optim.set_learning_rate(self.optimizer, rate)
        optim.step(self.optimizer, metrics["loss"].isfinite() & norm.isfinite())
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        self.pending = Pending(progress.step, rate, Readback(metrics))
        return row if self.defers else self.settle()

    def settle(self) -> dict[str, Any] | None:
        """Wait for the pending step's metrics and act on them; return its log row, or None."""
        if self.pending is None:
            return None
        (step, rate, arriving), self.pending = self.pending, None
        progress, config = self.progress, self.config
        metrics = arriving.read()
        self.ends = metrics.pop(ENDS, 0.0) > 0
        if math.isfinite(metrics["loss"]) and math.isfinite(metrics["gradient_norm"]):
            progress.updates += 1
            progress.skipped_in_a_row = 0
            self.returned_to = None
        else:
            optim.uncount(self.optimizer)
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            if progress.skipped_in_a_row == config.train.skips_in_a_row:
                self.roll_back()
        now = time.perf_counter()
        seconds, self.begun = now - self.begun, now
        progress.seconds += seconds
        speed = config.step_tokens / seconds
        return {
            "step": step,
            "tokens": step * config.step_tokens,
            "flops": step * config.step_tokens * self.token_flops,
            **metrics,
            "learning_rate": rate,
            "skipped_steps": progress.skipped,
            "tokens_per_second": round(speed, 1),
            "flops_utilisation": round(speed * self.token_flops / self.peak_flops, 4),
            "seconds": round(progress.seconds, 3),
        }

    def accumulate_gradients(self, step: int) -> dict[str, Tensor]:
        """Forward and backward in micro-batches; return losses, norm and router metrics.

        Only the all-to-all of tokens synchronises with the device.
        """
        parts = self.rows // self.micro_rows
        generator = keyed_generator(self.device, self.config.seed, step, processes.rank())
        sums: dict[str, Tensor] = {}
        pieces = (column.split(self.micro_rows) for column in self.batches(step))
        with copies(self.model):
            for tokens, targets, segments in zip(*pieces, strict=True):
                # Micro-batches have equal sizes: their mean loss is the batch's.
                losses = self.model.loss(tokens, targets, segments, generator=generator)
                (losses.total / parts).backward()
                values = {
                    "loss": losses.cross_entropy,
                    "balance": losses.balance,
                    "router_z": losses.router_z,
                    "output_z": losses.output_z,
                }
                if losses.routers is not None:
                    load_E, entropy, dropped = losses.routers
                    values |= {"expert_load": load_E, "router_entropy": entropy, "dropped": dropped}
                for name, value in values.items():
                    sums[name] = sums[name] + value if name in sums else value
        if processes.count() > 1:
            sums[ENDS] = torch.full((), float(self.wants_end), device=self.device)
        means = processes.mean({name: value / parts for name, value in sums.items()})
        return {**means, "gradient_norm": optim.gradient_norm(self.model)}

    def roll_back(self) -> None:
        """Return to the last healthy checkpoint, and continue with the next data.

        A checkpoint from which no update succeeded is unhealthy, and deleted. Raises
        TrainingFailedError without a healthy one, or after too many fallbacks.
        """
        train, progress = self.config.train, self.progress
        what = f"{progress.skipped_in_a_row} steps in a row, up to step {progress.step}, gave a"
        what += " loss or gradient that is not finite"
        advice = "lower optimizer.learning_rate, in a new output"
        advice += ", or try train.precision=fp32 there" if self.dtype != torch.float32 else ""
        if (returns := progress.fallbacks) == train.fallbacks:
            raise TrainingFailedError(f"{what}, after {returns} returns to a checkpoint: {advice}")
        self.writer.wait()
        if self.returned_to is not None:
            checkpoint.remove(self.returned_to)
        found = checkpoint.newest(self.checkpoints)
        if found is None:
            raise TrainingFailedError(f"{what}, and there is no healthy checkpoint: {advice}")
        print(f"{what}: continuing from the weights of {found.path}", file=sys.stderr)
        self.load(found)
        self.returned_to = found
        progress.updates = found.state["progress"]["updates"]
        progress.skipped_in_a_row = 0
        progress.fallbacks += 1

    @property
    def healthy(self) -> bool:
        """Whether the last settled step made an update."""
        return self.progress.skipped_in_a_row == 0 and self.returned_to is None

    def save(self) -> None:
        """Write a checkpoint if the weights are finite."""
        if not optim.finite(self.model):
            return
        state = {
            "identity": self.identity(),
            "boundary": self.corpus.manifest["tokenizer"]["boundary"],
            "model": OmegaConf.to_container(OmegaConf.structured(self.config.model)),
            "progress": dataclasses.asdict(self.progress),
            "stream": self.stream.fingerprint,
            **({"start": dataclasses.asdict(self.start)} if self.start else {}),
        }
        self.writer.save(self.progress.step, checkpoint.tensors(self.model, self.optimizer), state)
        self.saved_step = self.progress.step

    def held_out_row(self, sets: dict[str, HeldOut]) -> dict[str, Any]:
        """Evaluate; return entries of the step's log row, with expert loads [L, E] by source."""
        begun = time.perf_counter()
        measured = {s: evaluation.evaluate(self.model, held_out) for s, held_out in sets.items()}
        row: dict[str, Any] = {
            **self.stream.totals(self.progress.step),
            "heldout": {source: m.bits_per_byte for source, m in measured.items()},
        }
        if self.config.model.sparse:
            loads = {source: m.expert_load.tolist() for source, m in measured.items()}
            row["heldout_expert_load"] = loads
        parallel.reshard(self.model)
        self.progress.seconds += time.perf_counter() - begun
        return row

    def finish(self, sets: dict[str, HeldOut]) -> Outcome:
        """Evaluate on these held-out documents and write the outcome, unless it exists.

        Raises ValueError if the output holds a longer run, TrainingFailedError if the weights are
        not finite.
        """
        config, progress = self.config, self.progress
        if progress.step > config.steps:
            raise ValueError(
                f"{config.output} was trained for {progress.step:,} steps, more than the"
                f" {config.steps:,} of train.tokens={config.train.tokens}: choose another output"
            )
        written = outcome.read(config.output)
        if written is not None and written.steps == progress.step:
            return written
        if not optim.finite(self.model):
            raise TrainingFailedError("the last updates made the weights infinite or undefined")
        if self.saved_step < progress.step:
            self.save()  # first, so that a failed evaluation loses nothing else
        begun = time.perf_counter()
        table = evaluation.held_out_table(self.model, self.corpus, sets)
        parallel.reshard(self.model)
        progress.seconds += time.perf_counter() - begun
        if processes.is_first():
            tables.write(os.path.join(config.output, outcome.HELDOUT), table)
        self.writer.wait()
        made = self.outcome(outcome.bits_per_byte(table))
        if processes.is_first():
            outcome.write(config.output, made)
        return made

    def outcome(self, heldout: dict[str, float]) -> Outcome:
        config, progress = self.config, self.progress
        consumed = self.stream.totals(progress.step)
        tokens = progress.step * config.step_tokens
        return Outcome(
            steps=progress.step,
            tokens=tokens,
            unique_tokens=int(consumed["unique_tokens"]),
            epochs=consumed["epochs"],
            flops=tokens * self.token_flops,
            learning_rate=config.optimizer.learning_rate * config.optimizer.multiplier,
            wall_seconds=progress.seconds,
            parameters_total=self.counts.total,
            parameters_active=self.counts.active,
            skipped_steps=progress.skipped,
            fallbacks=progress.fallbacks,
            heldout=heldout,
            device=hardware.describe(self.device),
            processes=processes.count(),
            precision=str(self.dtype).removeprefix("torch."),
            peak_flops=self.peak_flops,
            peak_memory_bytes=hardware.peak_memory(self.device),
            corpus=self.corpus.fingerprint,
            stream=self.stream.fingerprint,
            start=dataclasses.asdict(self.start) if self.start else None,
        )
