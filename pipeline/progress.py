"""How far a local run is, and whether it goes on: workers leave signs of life in small files.

Files rather than memory, because Beam's workers may be threads or processes. What is seen of them
is a line on the terminal, and the end of a run that stands still: Beam itself would wait for ever
for a worker that hangs.
"""

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage

INTERVAL = 0.5
"""Seconds between two signs of a worker, and between two looks at all of them."""

_COUNTS = ("documents", "bytes", "kept", "input_bytes")


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
        counts = _signs.counts.setdefault(stage, dict.fromkeys(_COUNTS, 0))
        for name, more in zip(_COUNTS, (documents, size, kept, input_bytes), strict=True):
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


def folder(work: str) -> str | None:
    """Where the workers of a run leave their signs; None: in a temporary folder.

    Args:
        work: the run's work folder, which may be in an object store.
    """
    return storage.join(work, "progress") if storage.scheme(work) is None else None


class Watch:
    """Looks at the signs of a run's workers.

    Args:
        folder: from :func:`folder`.
        input_bytes: raw size of all inputs, from which the time left is estimated.
        stall_minutes: how long nothing may move.
    """

    def __init__(self, folder: str | None, input_bytes: int, stall_minutes: float) -> None:
        self._folder = folder
        self._input_bytes = input_bytes
        self._stall_minutes = stall_minutes
        self._seen: dict[str, Any] = {}
        self._still = 0
        self._start = time.monotonic()

    @contextlib.contextmanager
    def opened(self) -> Iterator[str]:
        """A folder for the signs of workers, while the block runs. Threads of this process use it.

        It is part of the work folder, and gone with that, or a temporary one.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(faulthandler.cancel_dump_traceback_later)
            self._set_alarm()
            if self._folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="winnow-")
                self._folder = stack.enter_context(temporary)
            else:
                shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
                os.makedirs(self._folder)
            leave_in(self._folder)
            stack.callback(leave_in, None)
            if sys.stderr.isatty():
                stack.callback(sys.stderr.write, "\r\x1b[K")
            yield self._folder

    def look(self) -> None:
        """Look at all signs, which is to be done every :data:`INTERVAL` seconds.

        Looks are counted, not seconds, so that a computer that sleeps or a run that is suspended
        is not taken for one that stands still.

        Raises:
            TimeoutError: nothing has moved for ``stall_minutes``.
        """
        seen = self._read()
        self._still = self._still + 1 if seen == self._seen else 0
        self._seen = seen
        if sys.stderr.isatty():
            self._show()
        self._set_alarm()
        if self._still * INTERVAL >= 60 * self._stall_minutes:
            raise TimeoutError(
                f"nothing has moved for {self._stall_minutes:g} minutes"
                f" {self._where()}: start the run again with --resume (and a longer"
                " --stall-minutes if it was only slow)"
            )

    def _set_alarm(self) -> None:
        """End the process, and show where each thread is, unless this is called again in time.

        For there is no further look when something in C holds Python's lock for good, or the disk
        that is looked at does not answer.
        """
        faulthandler.dump_traceback_later(2 * 60 * self._stall_minutes, exit=True, file=2)

    def _read(self) -> dict[str, Any]:
        """The signs of each process."""
        assert self._folder is not None
        found = {}
        for path in storage.listing(self._folder):
            if path.endswith(".json"):
                with contextlib.suppress(FileNotFoundError):  # the run has just ended
                    process = os.path.basename(path).removesuffix(".json")
                    found[process] = json.loads(storage.read_bytes(path))
        return found

    def _where(self) -> str:
        if not self._seen:
            return "(no worker has begun)"
        found = [
            f"{what} (process {process})"
            for process, signs in self._seen.items()
            for what in signs["working_on"]
        ]
        if not found:
            return "(between two tasks)"
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return f"while working on {', '.join(found[:3])}{more}"

    def _show(self) -> None:
        totals: dict[str, dict[str, int]] = {}
        for signs in self._seen.values():
            for stage, counts in signs["counts"].items():
                total = totals.setdefault(stage, dict.fromkeys(_COUNTS, 0))
                for name in _COUNTS:
                    total[name] += counts[name]
        for stage, total in totals.items():
            seconds = time.monotonic() - self._start
            sys.stderr.write("\r\x1b[K" + line(stage, total, seconds, self._input_bytes))
            sys.stderr.flush()


def suspend(*_: object) -> None:
    """Stop this process, as Ctrl-Z asks for, without the alarm of a watch going on meanwhile."""
    faulthandler.cancel_dump_traceback_later()
    os.kill(os.getpid(), signal.SIGSTOP)


def line(stage: str, counts: dict[str, int], seconds: float, input_bytes: int) -> str:
    """One line of progress.

    For example:

    ``score  12,345 documents  24.7 MB  9,876 documents/s  18.2 % kept  0:12 left``
    """
    documents = counts["documents"]
    parts = [
        stage,
        f"{documents:,} documents",
        f"{counts['bytes'] / 1e6:,.1f} MB",
        f"{documents / max(seconds, 1e-9):,.0f} documents/s",
        f"{100 * counts['kept'] / max(documents, 1):.1f} % kept",
    ]
    if counts["input_bytes"] and stage == "score":
        left = seconds * max(input_bytes / counts["input_bytes"] - 1, 0)
        parts.append(f"{int(left) // 60}:{int(left) % 60:02d} left")
    return "  ".join(parts)
