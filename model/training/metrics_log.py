"""A run's metrics: ``metrics.jsonl``, TensorBoard, Weights & Biases, and a progress line.

On resume the files are truncated to the checkpoint's step, so every step occurs once.
"""

import json
import math
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from winnow.commands.console import StatusLine, duration
from winnow.filesystem import files

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
WANDB = "wandb"

WANDB_PATIENCE = 300.0
"""Seconds that a finished run waits for Weights & Biases to upload the rest."""


class MetricsLog:
    """Writes the metrics of each logged step if ``active``, as in the first process.

    ``step`` is the last one to keep, 0 to start over; ``wandb`` is a project of Weights & Biases,
    which shows the run's ``settings``.
    """

    def __init__(
        self,
        folder: str,
        step: int,
        tensorboard: bool,
        wandb: str | None = None,
        settings: Mapping[str, Any] | None = None,
        active: bool = True,
    ) -> None:
        self._active = active
        if not active:
            return
        self._boards: list[WandbRun | EventFile] = []
        if wandb is not None:  # first, because it may fail
            self._boards.append(WandbRun(folder, wandb, settings or {}))
        if tensorboard:
            self._boards.append(EventFile(os.path.join(folder, TENSORBOARD), step))
        path = os.path.join(folder, METRICS)
        cut_back(path, step)
        self._file: BinaryIO = open(path, "ab")  # noqa: SIM115 - close() does

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row with a ``step`` and nested values; NaN and infinity become null."""
        if not self._active:
            return
        row = _finite(row)
        with files.naming(self._file.name):
            self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            self._file.flush()
        if self._boards:
            scalars = dict(_flatten(row))
            for board in self._boards:
                board.write(row["step"], scalars)

    def close(self) -> None:
        if not self._active:
            return
        with files.naming(self._file.name), self._file:
            os.fsync(self._file.fileno())
        for board in self._boards:
            board.close()


def without_table(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with each layer's minimum and maximum expert load [L] instead of all, [L, E]."""
    out = dict(row)
    if (load := out.pop("expert_load", None)) is not None:
        out["expert_load_min"] = [min(layer) for layer in load]
        out["expert_load_max"] = [max(layer) for layer in load]
    return out


class EventFile:
    """A file of scalars for TensorBoard, written synchronously so that errors can be handled.

    torch's ``SummaryWriter`` writes from a thread. ``folder`` gets one file per start; TensorBoard
    discards steps of earlier starts after ``step``.
    """

    def __init__(self, folder: str, step: int) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        os.makedirs(folder, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file: BinaryIO = open(os.path.join(folder, name), "wb")  # noqa: SIM115 - close() does
        self._records = RecordWriter(self._file)
        self._append(file_version="brain.Event:2")
        if step:
            self._append(step=step + 1, session_log={"status": "START"})

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [{"tag": name, "simple_value": value} for name, value in scalars.items()]
        self._append(step=step, summary={"value": values})

    def close(self) -> None:
        with files.naming(self._file.name):
            self._file.close()

    def _append(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with files.naming(self._file.name):
            self._records.write(Event(wall_time=time.time(), **event).SerializeToString())
            self._records.flush()


class WandbRun:
    """A run in Weights & Biases that resumes with ours; its id is in the output folder.

    wandb writes to that folder and uploads from a separate process; ``wandb sync`` uploads the
    rest. With ``WANDB_MODE=offline`` it only writes. Raises ValueError if it can't start.
    """

    def __init__(self, folder: str, project: str, settings: Mapping[str, Any]) -> None:
        import wandb  # optional

        try:
            self._run = wandb.init(
                project=project,
                dir=folder,
                id=_kept_id(os.path.join(folder, WANDB, "id")),
                name=folder,
                resume="allow",
                config=dict(settings),
                settings=wandb.Settings(console="off", quiet=True, finish_timeout=WANDB_PATIENCE),
            )
        except wandb.Error as error:
            raise ValueError(
                f"Weights & Biases: {error}\nSet WANDB_MODE=offline to write to {folder} alone, for"
                " `wandb sync` later, or log.wandb=null to do without"
            ) from error

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the scalars of a step, unless an earlier start has."""
        if step >= self._run.starting_step:
            self._run.log(dict(scalars), step=step, commit=True)

    def close(self) -> None:
        self._run.finish(exit_code=0 if sys.exception() is None else 1)


def _kept_id(path: str) -> str:
    if not os.path.exists(path):
        with files.open_output(path) as file:
            file.write(uuid.uuid4().hex.encode())
    with open(path) as file:
        return file.read()


def cut_back(path: str, step: int) -> None:
    """Truncate a log after ``step``, and before any incomplete row."""
    if not os.path.exists(path):
        return
    with open(path, "rb+") as file:
        end = 0
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            end += len(line)
        file.truncate(end)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested lists and mappings, with names such as ``heldout/web``."""
    if value is None:
        return
    if not isinstance(value, Mapping | list):
        yield name, float(value)
        return
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _flatten(item, f"{name}/{key}" if name else str(key))


class ProgressLine:
    """The status line of the first process; there ``fresh`` until the first step is done."""

    def __init__(self, steps: int, step: int, active: bool = True) -> None:
        self._steps, self._first = steps, step
        self._begun = time.monotonic()
        self._line = StatusLine(active)
        self.fresh = active

    def update(self, row: Mapping[str, Any]) -> None:
        """Show a step's row, if an update is due."""
        self.fresh = False
        if not self._line.due:
            return
        step = row["step"]
        passed = time.monotonic() - self._begun
        left = passed / (step - self._first) * (self._steps - step)
        self._line.show(
            f"step {step:,} of {self._steps:,}  loss {row['loss']:.3f}"
            f"  {row['tokens_per_second']:,.0f} tokens/s  {duration(left)} left"
        )

    def close(self) -> None:
        self._line.close()
