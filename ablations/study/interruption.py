"""How a study is stopped: what runs saves first, what has not begun does not begin.

Jobs run in other processes, perhaps on other machines, so the wish to stop is a file in the study's
folder. Ctrl-C reaches the process that began the study alone: the others would die of it.
"""

import contextlib
import os
import signal
from multiprocessing import resource_tracker
from typing import Any

from joblib.externals.loky.backend import (  # type: ignore[import-untyped]
    resource_tracker as loky_tracker,
)

STOP = ".stop"

_heard: list[int] = []


class StoppedError(Exception):
    """A job was stopped before its end."""


def listen(folder: str) -> None:
    """Take Ctrl-C, SIGTERM and a closed terminal for the wish to stop; a second one ends at once.

    Call it in the main thread, with another thread there already: that one takes what is blocked
    here, and in every process that is started from here.
    """
    path = os.path.join(folder, STOP)
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)

    def stop(number: int, _: Any) -> None:
        if _heard:
            raise KeyboardInterrupt(number)
        _heard.append(number)
        open(path, "w").close()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup
            signal.signal(number, stop)
    for tracker in (resource_tracker, loky_tracker):
        tracker.ensure_running()  # unblocks signals when it is started, so before they are blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])


def deafen() -> None:
    """In a process of a job: leave signals to the process that began the study."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, lambda *_: None)


def wished(folder: str) -> bool:
    """Whether a study is to stop."""
    return os.path.exists(os.path.join(folder, STOP))


def heard() -> int | None:
    """The signal that this process was told to stop by."""
    return _heard[0] if _heard else None
