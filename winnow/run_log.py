"""The log of a run, ``OUTPUT/run.log``: its terminal output with timestamps.

Each start of the command appends to it; in an object store it is written when the command ends. No
manifest lists it, and it is not pushed.
"""

import sys
import threading
from datetime import datetime
from typing import Any, TextIO, cast

from winnow.cli import program
from winnow.filesystem import storage

NAME = "run.log"


class _RunLog:
    """Captures both streams, except overwritten lines, and buffers until the folder is known."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may write while a line is added
        self._lines: list[str] = []
        self._open: dict[str, str] = {}  # unfinished line, by stream
        self._file: TextIO | None = None
        self._path: str | None = None
        self._streams = sys.stdout, sys.stderr
        sys.stdout = cast(TextIO, _Tee(sys.stdout, "out", self))
        sys.stderr = cast(TextIO, _Tee(sys.stderr, "error", self))

    def add(self, stream: str, text: str) -> None:
        with self._lock:
            *lines, rest = (self._open.get(stream, "") + text).split("\n")
            self._open[stream] = _visible(rest)
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            self._write([f"{now} {line}\n" for line in map(_visible, lines)])

    def write_to(self, folder: str) -> None:
        with self._lock:
            path = storage.join(folder, NAME)
            if storage.scheme(folder) is None:
                self._file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            elif storage.exists(path):
                before = storage.read_bytes(path).decode(errors="replace")
                self._lines = [*before.splitlines(keepends=True), *self._lines]
            self._path = path
            lines, self._lines = self._lines, []
            self._write(lines)

    def close(self) -> None:
        sys.stdout, sys.stderr = self._streams
        with self._lock:
            path, self._path = self._path, None
            if self._file:
                self._file.close()
                self._file = None
            elif path:
                text = "".join(self._lines).encode(errors="backslashreplace")
                try:
                    storage.write_bytes(path, text)
                except OSError as error:
                    self._streams[1].write(f"{NAME} could not be written: {error}\n")

    def _write(self, lines: list[str]) -> None:
        if self._file is None:
            self._lines += lines
            return
        try:
            self._file.writelines(lines)
            self._file.flush()
        except OSError as error:  # such as a full disk, which ends the log but not the run
            self._file = self._path = None
            self._streams[1].write(f"{NAME} ends here: {error}\n")


class _Tee:
    """A stream that also writes to the log."""

    def __init__(self, stream: TextIO, name: str, log: _RunLog) -> None:
        self._stream, self._name, self._log = stream, name, log

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._log.add(self._name, text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_log: _RunLog | None = None


def terminal(stream: TextIO) -> TextIO:
    """The stream without logging, for overwritten output of several lines."""
    tee: object = stream
    return tee._stream if isinstance(tee, _Tee) else stream


def begin() -> None:
    """Start capturing the output of this process."""
    global _log
    _log = _RunLog()
    _log.add("", f"{program()} started\n")  # its flags may hold secrets


def write_to(folder: str) -> None:
    """Write the log to the run's folder; no effect without :func:`begin`."""
    if _log:
        _log.write_to(folder)


def close() -> None:
    """Write the rest, and restore the streams."""
    global _log
    if _log:
        _log.close()
        _log = None


def _visible(line: str) -> str:
    return line.rsplit("\r", 1)[-1].replace("\x1b[K", "")
