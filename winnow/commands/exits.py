"""How commands end: with a one-line message and an exit code.

0 is done, 1 failed, 2 wrong usage, 130 interrupted (143 by SIGTERM).
"""

import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from winnow.cli import program

FAILED, WRONG_USAGE = 1, 2

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UsageError(ValueError):
    """An invalid flag, setting or value on the command line."""


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Turn a ValueError in the block into a :class:`UsageError`."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def clear(*expected: type[Exception], again: str = "run the same command again") -> Iterator[None]:
    """Exit with a one-line message on an error that the user can fix: ValueError, OSError or
    ``expected``. After an interrupt the message says how to continue: ``again``.
    """
    fixable: tuple[type[Exception], ...] = (ValueError, OSError, *expected)
    try:
        with interruptible(again):
            yield
    except fixable as error:
        fail(error)


@contextlib.contextmanager
def interruptible(again: str) -> Iterator[None]:
    """Exit with a one-line message and a shell's exit code if the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(interruption(again), file=sys.stderr)
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))


@dataclass
class Interruption:
    """The deferred signal, if any."""

    number: int | None = None


@contextlib.contextmanager
def deferred(message: str, second_ends: bool = True) -> Iterator[Interruption]:
    """Defer an interrupt, and print ``message``, until the block can stop cleanly.

    Yields the deferred signal; where stopping is safe, check it and raise KeyboardInterrupt.
    A second interrupt stops at once if ``second_ends``; not under a launcher, which may repeat the
    one from the user or the scheduler.
    """
    received = Interruption()

    def handle(number: int, _: object) -> None:
        if received.number is not None:
            if second_ends:
                raise KeyboardInterrupt(number)
            return
        received.number = number
        if message:
            os.write(sys.stderr.fileno(), f"\n{message}\n".encode())  # print is not reentrant

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fail(error: Exception) -> NoReturn:
    """Exit with an error message; ``torchrun`` repeats it at the end of its report."""
    message = line(error)
    print(message, file=sys.stderr)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with open(path, "w") as file:
            json.dump({"message": message, "timestamp": int(time.time())}, file)
    sys.exit(code(error))


def line(error: Exception) -> str:
    """The message for an error: ``COMMAND: error: what is wrong``."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.strerror}: {error.filename}"  # without its number
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        text += ": make room and run the same command again"
    return f"{program()}: error: {text}"


def code(error: Exception) -> int:
    return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def interruption(again: str) -> str:
    after_key = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C
    return f"{after_key}{program()}: interrupted: {again}"
