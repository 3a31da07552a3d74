"""The log of a run: what it says on the terminal, each line with its time, in its output folder.

``OUTPUT/run.log`` grows with each start of the command, so a run that was resumed has all of its
starts. It is no part of the output, whose bytes depend on input, settings and seed alone: no
manifest names it, and it is not pushed. In an object store it is written when the command ends.
"""

import sys
import threading
from datetime import datetime
from typing import Any, TextIO, cast

from winnow.cli import program
from winnow.filesystem import storage

NAME = "run.log"


class RunLog:
    """Takes the lines of both streams: kept until the output folder is known, then written there.

    Lines that are overwritten on a terminal are no lines.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may speak while another line is taken
        self._lines: list[str] = []
        self._open: dict[str, str] = {}  # what has no end of line yet, by stream
        self._file: TextIO | None = None
        self._path: str | None = None
        self._streams = sys.stdout, sys.stderr
        sys.stdout = cast(TextIO, _Tee(sys.stdout, "out", self))
        sys.stderr = cast(TextIO, _Tee(sys.stderr, "error", self))

    def add(self, stream: str, text: str) -> None:
        """Take what was written to a stream."""
        with self._lock:
            *lines, rest = (self._open.get(stream, "") + text).split("\n")
            self._open[stream] = _visible(rest)
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            self._write([f"{now} {line}\n" for line in map(_visible, lines)])

    def write_to(self, folder: str) -> None:
        """Write what there is, and what comes, to the folder's log."""
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
        """Write what is not yet written, and leave the streams alone."""
        sys.stdout, sys.stderr = self._streams
        with self._lock:
            path, self._path = self._path, None
            if self._file:
                self._file.close()
                self._file = None
            elif path:
                try:
                    text = "".join(self._lines).encode(errors="backslashreplace")
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
        except OSError as error:  # such as a full disk, which ends the log and not the run
            self._file = self._path = None
            self._streams[1].write(f"{NAME} ends here: {error}\n")


class _Tee:
    """A stream whose text goes to the log too."""

    def __init__(self, stream: TextIO, name: str, log: RunLog) -> None:
        self._stream, self._name, self._log = stream, name, log

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._log.add(self._name, text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_log: RunLog | None = None


def terminal(stream: TextIO) -> TextIO:
    """A stream for what is to be overwritten, by more than one line, and not to be logged."""
    tee: object = stream
    return tee._stream if isinstance(tee, _Tee) else stream


def begin() -> None:
    """Keep what this process says from now on."""
    global _log
    _log = RunLog()
    _log.add("", f"{program()} started\n")  # its flags may hold secrets


def write_to(folder: str) -> None:
    """Write it to the log of a folder that is this run's; nothing if there was no :func:`begin`."""
    if _log:
        _log.write_to(folder)


def close() -> None:
    """Write what is left of it; the streams are as before."""
    global _log
    if _log:
        _log.close()
        _log = None


def _visible(line: str) -> str:
    """What stays of a line on a terminal."""
    return line.rsplit("\r", 1)[-1].replace("\x1b[K", "")
