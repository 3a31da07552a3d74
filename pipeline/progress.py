"""How far a local run is: workers leave counts in small files, a line on the terminal adds up.

Files rather than memory, because Beam's workers may be threads or processes.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator

from pipeline import records, storage

INTERVAL = 0.5
"""Seconds between two writes of a worker, and between two lines on the terminal."""

FOLDER = "progress"

_COUNTS = ("documents", "bytes", "kept", "input_bytes")


class _Worker:
    """The counts of one process, shared by its threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[str, dict[str, int]] = {}
        self.written = 0.0


_WORKER = _Worker()


def heartbeat(
    output: str, stage: str, documents: int, size: int, kept: int, input_bytes: int
) -> None:
    """Add to this process's counts of a stage, and leave them for the watcher now and then."""
    if storage.scheme(output) is not None:
        return
    with _WORKER.lock:
        counts = _WORKER.counts.setdefault(stage, dict.fromkeys(_COUNTS, 0))
        for name, more in zip(_COUNTS, (documents, size, kept, input_bytes), strict=True):
            counts[name] += more
        if time.monotonic() - _WORKER.written < INTERVAL:
            return
        _WORKER.written = time.monotonic()
        folder = os.path.join(output, records.WORK, FOLDER)
        path = os.path.join(folder, f"{os.getpid()}.json")
        with contextlib.suppress(FileNotFoundError):  # nobody watches, or the run has just ended
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump(_WORKER.counts, file)
            os.replace(f"{path}.new", path)


@contextlib.contextmanager
def shown(output: str, input_bytes: int) -> Iterator[None]:
    """Show a line of progress on standard error while the block runs; nothing if it is no terminal.

    Args:
        output: the run's output folder; remote ones are not watched.
        input_bytes: raw size of all inputs, from which the time left is estimated.
    """
    if not sys.stderr.isatty() or storage.scheme(output) is not None:
        yield
        return
    folder = os.path.join(output, records.WORK, FOLDER)
    shutil.rmtree(folder, ignore_errors=True)  # the counts of a run that was killed
    os.makedirs(folder)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(output, input_bytes, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        sys.stderr.write("\r\x1b[K")


def _watch(output: str, input_bytes: int, done: threading.Event) -> None:
    start = time.monotonic()
    while not done.wait(INTERVAL):
        for stage, counts in _totals(os.path.join(output, records.WORK, FOLDER)).items():
            seconds = time.monotonic() - start
            sys.stderr.write("\r\x1b[K" + line(stage, counts, seconds, input_bytes))
            sys.stderr.flush()


def _totals(folder: str) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for path in storage.listing(folder):
        if not path.endswith(".json"):
            continue
        for stage, counts in json.loads(storage.read_bytes(path)).items():
            total = totals.setdefault(stage, dict.fromkeys(_COUNTS, 0))
            for name in _COUNTS:
                total[name] += counts[name]
    return totals


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
