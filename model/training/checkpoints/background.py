"""Checkpoints written in the background, from a copy in host memory.

A thread of each process writes one checkpoint at a time, over a separate process group. An error
ends training at the next step, on which the processes agree. Training waits for the copy, which
takes as much host memory as the checkpoint takes disk space.
"""

import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor

from model.training.checkpoints import checkpoint
from model.training.distributed import processes


class Writer:
    """Writes the checkpoints of a run, and deletes all but the newest ``keep``.

    Without ``background`` it makes no copy. A process waits ``patience`` seconds for the others.
    """

    def __init__(self, folder: str, keep: int, background: bool, patience: float) -> None:
        self.folder, self.keep, self.background = folder, keep, background
        self.group = (
            dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
            if background and processes.count() > 1
            else None
        )
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None  # wait() raises it

    def save(self, step: int, content: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, or start to; the tensors may change afterwards.

        Raises OSError if this one, or in the background the previous one, can't be written.
        """
        if not self.background:
            self._write(step, content, state)
            return
        self.wait()
        copied = {name: value.detach().to("cpu", copy=True) for name, value in content.items()}

        def write() -> None:
            try:
                self._write(step, copied, state)
            except Exception as error:
                self.error = error

        # Not a daemon: a process that ends for another reason waits for it.
        self.thread = threading.Thread(target=write, name=f"checkpoint of step {step}")
        self.thread.start()

    def wait(self) -> None:
        """Wait for the pending checkpoint; raise OSError if it can't be written."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait for the pending checkpoint; print an error instead of raising it."""
        try:
            self.wait()
        except Exception as error:
            print(error, file=sys.stderr)

    def _write(self, step: int, content: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        checkpoint.save(self.folder, step, content, state, self.group)
        processes.from_first(lambda: checkpoint.prune(self.folder, self.keep), self.group)
