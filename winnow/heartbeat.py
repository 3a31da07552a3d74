"""Worker heartbeats: each process updates a small file that the driver watches.

Files rather than shared memory, because Beam runs workers as threads or as processes.
"""

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

FOLDER = "progress"
FILE = re.compile(r"\d+\.json(?:\.new)?|lock")
"""Names of the files in that folder; the lock belongs to :mod:`pipeline.beam.worker`."""

INTERVAL = 0.5
"""Seconds between writes of a worker, and between checks by the driver."""

COUNTS = ("documents", "bytes", "kept", "input_bytes")


@dataclass
class _State:
    """What this process reports, shared by its threads."""

    folder: str | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    working_on: list[str] = field(default_factory=list)
    beats: int = 0
    written: float = 0.0


_state = _State()
_lock = threading.Lock()
_listener: Callable[[], None] | None = None


def report_to(folder: str | None) -> None:
    """Write the heartbeat of this process to ``folder`` from now on; None turns it off."""
    global _state
    with _lock:
        _state = _State(folder)


def listen(listener: Callable[[], None]) -> None:
    """Call ``listener`` at every heartbeat of this process, in the thread that beats."""
    global _listener
    _listener = listener


def beat() -> None:
    """Report one unit of progress: a batch, a block of a file, a part of an upload."""
    with _lock:
        _state.beats += 1
        _write(now=False)
    if _listener is not None:
        _listener()


def count(stage: str, documents: int, size: int, kept: int, input_bytes: int) -> None:
    """Add to this process's counts of a stage; a heartbeat too."""
    with _lock:
        counts = _state.counts.setdefault(stage, dict.fromkeys(COUNTS, 0))
        for name, more in zip(COUNTS, (documents, size, kept, input_bytes), strict=True):
            counts[name] += more
        _write(now=False)
    if _listener is not None:
        _listener()


@contextlib.contextmanager
def working_on(what: str) -> Iterator[None]:
    """Report what this process is working on while the block runs; a stalled run names it."""
    state = _state
    with _lock:
        state.working_on.append(what)
        _write(now=True)
    try:
        yield
    finally:
        with _lock:
            state.working_on.remove(what)
            _write(now=True)


def _write(now: bool) -> None:
    if _state.folder is None or not (now or time.monotonic() - _state.written >= INTERVAL):
        return
    _state.written = time.monotonic()
    path = os.path.join(_state.folder, f"{os.getpid()}.json")
    value = {"counts": _state.counts, "working_on": _state.working_on, "beats": _state.beats}
    # The folder is removed when the run ends. On a full disk the task itself reports the error.
    with contextlib.suppress(OSError):
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(f"{path}.new", path)
