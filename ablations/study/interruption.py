"""Graceful stop of a study: running jobs save a checkpoint, pending jobs do not start.

Jobs may run on other machines, so a stop request is a file in the study's folder.
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

_received: list[int] = []


class StoppedError(Exception):
    """A job was stopped before it finished."""


def handle_signals(folder: str) -> None:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a stop request; a second one exits at once.

    Call it in the main thread while another thread runs to receive the signals blocked here.
    """
    path = os.path.join(folder, STOP)
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)

    def stop(number: int, _: Any) -> None:
        if _received:
            raise KeyboardInterrupt(number)
        _received.append(number)
        open(path, "w").close()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup
            signal.signal(number, stop)
    for tracker in (resource_tracker, loky_tracker):
        tracker.ensure_running()  # its start unblocks signals, so start it before they are blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])


def ignore_signals() -> None:
    """In a job's process, leave signals to the launching process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, lambda *_: None)


def stop_requested(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, STOP))


def received_signal() -> int | None:
    """The number of the signal that requested a stop; None without one."""
    return _received[0] if _received else None
