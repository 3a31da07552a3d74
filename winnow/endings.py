"""How commands end: one form of message, one exit code for each kind of end.

====  ==================================================================
0     done
1     it could not be done: the message says what is wrong, and what to do
2     wrong usage: a flag, a setting or the value of one
130   interrupted (143: by SIGTERM)
====  ==================================================================
"""

import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from winnow.cli import program

FAILED = 1
WRONG_USAGE = 2

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UsageError(ValueError):
    """A command was given a flag, a setting or a value that it cannot take."""


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """What is wrong in this block (a ValueError) is wrong with the command line."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def clear(*expected: type[Exception], again: str = "run the same command again") -> Iterator[None]:
    """End the process with one line when the block raises what a user can mend, or is interrupted.

    Args:
        expected: what a user can mend, beside ValueError and OSError.
        again: how to go on after an interruption.
    """
    mendable: tuple[type[Exception], ...] = (ValueError, OSError, *expected)
    try:
        with interruptible(again):
            yield
    except mendable as error:
        fail(error)


@contextlib.contextmanager
def interruptible(again: str) -> Iterator[None]:
    """End the process with one line, and the exit code that shells give, after an interruption."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(interruption(again), file=sys.stderr)
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))


@contextlib.contextmanager
def deferred(said: str) -> Iterator[Callable[[], None]]:
    """Go on after an interruption until the block finds the time to end well.

    Args:
        said: what to tell whoever interrupts. A second interruption is not deferred.

    Yields:
        To be called where it is a good time: raises KeyboardInterrupt if there was an interruption.
    """
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        if heard:
            raise KeyboardInterrupt(number)
        heard.append(number)
        os.write(sys.stderr.fileno(), f"\n{said}\n".encode())  # the block may be just printing

    def check() -> None:
        if heard:
            raise KeyboardInterrupt(heard[0])

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fail(error: Exception) -> NoReturn:
    """End with an error, which ``torchrun`` shows again at the end of what it has to say."""
    message = line(error)
    print(message, file=sys.stderr)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with open(path, "w") as file:
            json.dump({"message": message, "timestamp": int(time.time())}, file)
    sys.exit(code(error))


def line(error: Exception) -> str:
    """An error as it is told: ``COMMAND: error: what is wrong``."""
    advice = ""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        advice = ": make room and run the same command again"
    return f"{program()}: error: {error}{advice}"


def code(error: Exception) -> int:
    """The exit code of an error."""
    return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def interruption(again: str) -> str:
    """An interruption as it is told, on a line of its own."""
    after_key = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C
    return f"{after_key}{program()}: interrupted: {again}"
