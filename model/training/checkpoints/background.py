"""Checkpoints written in the background, from a copy in host memory.

One checkpoint is written at a time, by a thread of each process, over a process group of its own.
An error ends the training at its next step, on which the processes agree.

The copy takes as much memory of the host as the checkpoint takes of the disk. Training waits while
it is made.
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
    """Writes the checkpoints of a run into a folder, and deletes all but the newest ``keep``.

    In the ``background``, while training goes on; if not, no copy is made. A process waits
    ``patience`` seconds for the others before it fails.
    """

    def __init__(self, folder: str, keep: int, background: bool, patience: float) -> None:
        self.folder, self.keep, self.background = folder, keep, background
        self.group = (
            dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
            if background and processes.count() > 1
            else None
        )
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None  # that wait() raises

    def save(self, step: int, content: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, or begin to; the tensors may change afterwards.

        Raises:
            OSError: this one can't be written; in the background, the one before couldn't.
        """
        if not self.background:
            self._write(step, content, state)
            return
        self.wait()
        # Of what this process holds.
        copied = {name: value.detach().to("cpu", copy=True) for name, value in content.items()}

        def write() -> None:
            try:
                self._write(step, copied, state)
            except Exception as error:
                self.error = error

        # Not a daemon: a process that ends for another reason lets it finish.
        self.thread = threading.Thread(target=write, name=f"checkpoint of step {step}")
        self.thread.start()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written, if one is.

        Raises:
            OSError: it can't be written. Older ones are intact.
        """
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait while something else ends the training; an error is said but not raised."""
        try:
            self.wait()
        except Exception as error:
            print(error, file=sys.stderr)

    def _write(self, step: int, content: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        checkpoint.save(self.folder, step, content, state, self.group)
        processes.from_first(lambda: checkpoint.prune(self.folder, self.keep), self.group)
