"""Progress and summaries of commands, on standard error."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from winnow.cli import command

PATIENCE = 2.0
"""Seconds of work before a status line appears."""

REFRESH = 0.5
REPEAT = 30.0
"""Seconds between updates of a status line, on a terminal and elsewhere."""

_STARTED = time.monotonic()


class StatusLine:
    """A line that is overwritten on a terminal; elsewhere, a new line now and then."""

    def __init__(self, active: bool = True) -> None:
        self._terminal = sys.stderr.isatty()
        self._active = active
        self._next = 0.0 if self._terminal else time.monotonic() + REPEAT

    @property
    def due(self) -> bool:
        return self._active and time.monotonic() >= self._next

    def show(self, text: str) -> None:
        if not self._active:
            return
        self._next = time.monotonic() + (REFRESH if self._terminal else REPEAT)
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._active and self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def say(text: str) -> None:
    """Print a line to standard error."""
    wipe = "\r\x1b[K" if sys.stderr.isatty() else ""  # there may be a status line
    sys.stderr.write(f"{wipe}{text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def doing(what: str, active: bool = True) -> Iterator[Callable[[str], None]]:
    """Show what the block does in a status line, once it takes longer than :data:`PATIENCE`.

    Yields a function to update the text.
    """
    messages = [what]
    done = threading.Event()
    start = time.monotonic()

    def watch() -> None:
        if done.wait(PATIENCE):
            return
        line = StatusLine()
        while not done.wait(REFRESH):
            if line.due:
                line.show(f"{messages[-1]} ({duration(time.monotonic() - start)})")
        line.close()

    thread = threading.Thread(target=watch, daemon=True, name="status")
    if active:
        thread.start()
    try:
        yield messages.append
    finally:
        done.set()
        if active:
            thread.join()


def duration(seconds: float) -> str:
    """A duration such as ``1:02:03`` or ``2:03``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def elapsed() -> float:
    """Seconds since the command started."""
    return time.monotonic() - _STARTED


def spent(documents: int, size: int, seconds: float) -> str:
    """The time since the start, and the throughput of ``size`` bytes in ``seconds`` of work."""
    rate = size / 1e6 / seconds
    megabytes = f"{rate:.2g}" if rate < 100 else f"{rate:,.0f}"
    return (
        f"{duration(elapsed())}; {documents:,} documents, {size / 1e6:,.1f} MB of text:"
        f" {documents / seconds:,.0f} documents/s, {megabytes} MB/s"
    )


def next_command(name: str, *arguments: str) -> str:
    """The line that suggests the next command."""
    return f"next: {command(name, *arguments)}"
