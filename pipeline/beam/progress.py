"""Progress and stalls of a local run, from heartbeats: Beam waits forever for a hanging worker."""

import contextlib
import faulthandler
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from winnow import heartbeat
from winnow.commands import console
from winnow.filesystem import storage


def folder(work: str) -> str | None:
    """The folder for heartbeats: in the work folder, or None if that is in an object store."""
    return storage.join(work, heartbeat.FOLDER) if storage.scheme(work) is None else None


class Watch:
    """Watches the heartbeats of a run's workers in :func:`folder`, or in a temporary folder.

    ``input_bytes``, the size of all inputs, serves to estimate the time left.
    """

    def __init__(self, folder: str | None, input_bytes: int, stall_minutes: float) -> None:
        self._folder = folder
        self._input_bytes = input_bytes
        self._stall_minutes = stall_minutes
        self._seen: dict[str, Any] = {}
        self._still = 0
        self._start = time.monotonic()
        self._line = console.StatusLine()

    @contextlib.contextmanager
    def opened(self) -> Iterator[str]:
        """The folder for heartbeats, where this process reports too while the block runs."""
        with contextlib.ExitStack() as stack:
            stack.callback(faulthandler.cancel_dump_traceback_later)
            self._set_alarm()
            if self._folder is None:
                temporary = tempfile.TemporaryDirectory(prefix="winnow-")
                self._folder = stack.enter_context(temporary)
            else:
                os.makedirs(self._folder, exist_ok=True)
                for name in os.listdir(self._folder):  # left by a killed run
                    if heartbeat.FILE.fullmatch(name):
                        os.remove(os.path.join(self._folder, name))
            heartbeat.report_to(self._folder)
            stack.callback(heartbeat.report_to, None)
            stack.callback(self._line.close)
            yield self._folder

    def look(self) -> None:
        """Check all heartbeats, every :data:`winnow.heartbeat.INTERVAL` seconds.

        Raises TimeoutError after ``stall_minutes`` without progress. It counts checks, not seconds,
        so a suspended run or a sleeping computer is not a stall.
        """
        seen = self._read()
        self._still = self._still + 1 if seen == self._seen else 0
        self._seen = seen
        if self._line.due:
            self._show()
        self._set_alarm()
        if self._still * heartbeat.INTERVAL >= 60 * self._stall_minutes:
            raise TimeoutError(
                f"nothing has moved for {self._stall_minutes:g} minutes"
                f" {self._where()}: start the run again with --resume (and a longer"
                " --stall-minutes if it was only slow)"
            )

    def _set_alarm(self) -> None:
        """End the process with all tracebacks unless called again in time.

        This is for when :meth:`look` cannot run: C code holds the GIL, or the disk hangs.
        """
        faulthandler.dump_traceback_later(2 * 60 * self._stall_minutes, exit=True, file=2)

    def _read(self) -> dict[str, Any]:
        assert self._folder is not None
        found = {}
        for path in storage.listing(self._folder):
            process, _, ending = os.path.basename(path).partition(".")
            if process.isdecimal() and ending == "json":
                with contextlib.suppress(FileNotFoundError):  # the run has just ended
                    found[process] = json.loads(storage.read_bytes(path))
        return found

    def _where(self) -> str:
        if not self._seen:
            return "(no worker has started)"
        beats = self._seen.items()
        found = [f"{what} (process {pid})" for pid, beat in beats for what in beat["working_on"]]
        if not found:
            return "(between two tasks)"
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return f"while working on {', '.join(found[:3])}{more}"

    def _show(self) -> None:
        totals: dict[str, Counter[str]] = {}
        for beat in self._seen.values():
            for stage, counts in beat["counts"].items():
                totals.setdefault(stage, Counter()).update(counts)
        seconds = time.monotonic() - self._start
        if totals:
            stage, total = list(totals.items())[-1]
            self._line.show(line(stage, total, seconds, self._input_bytes))
        else:
            self._line.show(f"starting workers, compiling kernels ({console.duration(seconds)})")


def suspend(*_: object) -> None:
    """Stop this process, as Ctrl-Z does, with the alarm off."""
    faulthandler.cancel_dump_traceback_later()
    os.kill(os.getpid(), signal.SIGSTOP)


def line(stage: str, counts: Mapping[str, int], seconds: float, input_bytes: int) -> str:
    """``score  12,345 documents  24.7 MB  9,876 documents/s  18.2 % kept  0:12 left``."""
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
        parts.append(f"{console.duration(left)} left")
    return "  ".join(parts)
