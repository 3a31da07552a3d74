"""Signs of life that a worker leaves in a small file, for whoever watches the run.

Files rather than memory, because Beam's workers may be threads or processes.
"""

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

FOLDER = "progress"
SIGN = re.compile(r"\d+\.json(?:\.new)?|lock")
"""The names of files that workers leave (the lock is that of :mod:`pipeline.beam.worker`)."""

INTERVAL = 0.5
"""Seconds between two signs of a worker, and between two looks at all of them."""

COUNTS = ("documents", "bytes", "kept", "input_bytes")


@dataclass
class _Signs:
    """What this process has to show, shared by its threads."""

    folder: str | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    working_on: list[str] = field(default_factory=list)
    beats: int = 0
    left: float = 0.0


_signs = _Signs()
_lock = threading.Lock()


def leave_in(folder: str | None) -> None:
    """Leave the signs of this process in ``folder`` from now on; None: nobody looks at them."""
    global _signs
    with _lock:
        _signs = _Signs(folder)


def beat() -> None:
    """A sign of life: a batch, a block of a file or the like has been dealt with."""
    with _lock:
        _signs.beats += 1
        _leave(now=False)


def count(stage: str, documents: int, size: int, kept: int, input_bytes: int) -> None:
    """Add to this process's counts of a stage, which is a sign of life too."""
    with _lock:
        counts = _signs.counts.setdefault(stage, dict.fromkeys(COUNTS, 0))
        for name, more in zip(COUNTS, (documents, size, kept, input_bytes), strict=True):
            counts[name] += more
        _leave(now=False)


@contextlib.contextmanager
def working_on(what: str) -> Iterator[None]:
    """Say what this process is at while the block runs: it is named if the run stands still."""
    signs = _signs
    with _lock:
        signs.working_on.append(what)
        _leave(now=True)
    try:
        yield
    finally:
        with _lock:
            signs.working_on.remove(what)
            _leave(now=True)


def _leave(now: bool) -> None:
    if _signs.folder is None or not (now or time.monotonic() - _signs.left >= INTERVAL):
        return
    _signs.left = time.monotonic()
    path = os.path.join(_signs.folder, f"{os.getpid()}.json")
    signs = {"counts": _signs.counts, "working_on": _signs.working_on, "beats": _signs.beats}
    # The folder goes when the run has just ended. Where the disk is full, the task will say so.
    with contextlib.suppress(OSError):
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(signs, file)
        os.replace(f"{path}.new", path)
