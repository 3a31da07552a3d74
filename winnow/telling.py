"""What a command says while it works and when it is done: on standard error, but for results."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from winnow.cli import command

PATIENCE = 2.0
"""Seconds that may pass in silence."""

REFRESH = 0.5
REPEAT = 30.0
"""Seconds between two texts of a status line, on a terminal and elsewhere."""

_STARTED = time.monotonic()


class StatusLine:
    """One line that is written over; where standard error is no terminal, a line every so often.

    Args:
        active: whether this process is the one that speaks.
    """

    def __init__(self, active: bool = True) -> None:
        self._terminal = sys.stderr.isatty()
        self._active = active
        self._next = 0.0 if self._terminal else time.monotonic() + REPEAT

    @property
    def due(self) -> bool:
        """Whether it is time to show something."""
        return self._active and time.monotonic() >= self._next

    def show(self, text: str) -> None:
        """Show a text now."""
        if not self._active:
            return
        self._next = time.monotonic() + (REFRESH if self._terminal else REPEAT)
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Wipe it."""
        if self._active and self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def say(text: str) -> None:
    """Tell something on a line of its own."""
    wipe = "\r\x1b[K" if sys.stderr.isatty() else ""  # there may be a status line
    sys.stderr.write(f"{wipe}{text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def doing(what: str, active: bool = True) -> Iterator[Callable[[str], None]]:
    """Say in a status line what the block does, unless that takes less than :data:`PATIENCE`.

    Yields:
        To be told of what is done by now.
    """
    said = [what]
    done = threading.Event()
    begun = time.monotonic()

    def watch() -> None:
        if done.wait(PATIENCE):
            return
        line = StatusLine()
        while not done.wait(REFRESH):
            if line.due:
                line.show(f"{said[-1]} ({duration(time.monotonic() - begun)})")
        line.close()

    thread = threading.Thread(target=watch, daemon=True, name="telling")
    if active:
        thread.start()
    try:
        yield said.append
    finally:
        done.set()
        if active:
            thread.join()


def duration(seconds: float) -> str:
    """Such as ``1:02:03`` or ``2:03``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def elapsed() -> float:
    """Seconds since the command began."""
    return time.monotonic() - _STARTED


def spent(documents: int, size: int, seconds: float) -> str:
    """The time since the command began, and how fast it dealt with text.

    Args:
        documents: how many.
        size: bytes of them.
        seconds: what that took, without start-up.
    """
    return (
        f"{duration(elapsed())}; {documents:,} documents, {size / 1e6:,.1f} MB of text:"
        f" {documents / seconds:,.0f} documents/s, {size / 1e6 / seconds:.2g} MB/s"
    )


def next_command(name: str, *arguments: str) -> str:
    """The line that names the command which comes next, as this one was started."""
    return f"next: {command(name, *arguments)}"
