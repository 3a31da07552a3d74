"""Run an entry point in a child process that locks its log."""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import BinaryIO

from ablations.study import interruption
from winnow.defaults import CONF
from winnow.filesystem import owners

ROOT = os.path.dirname(CONF)

POLL = 0.5
"""Seconds between checks for a stop request."""

TAIL = 4000
"""Characters of the end of a failed process's log in the failure record."""


class JobFailedError(RuntimeError):
    """A job's process failed; ``log`` is the end of its output."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


def log_of(folder: str, name: str, rank: int) -> str:
    return os.path.join(folder, f"{name}_{rank}.log" if rank else f"{name}.log")


def run_python(
    script: str, arguments: Sequence[str], log: str, threads: int, study: str | None = None
) -> None:
    """Run an entry point and append its output to a log, which it locks even if it outlives us.

    With ``study`` it is detached from the terminal and terminated when that study stops.

    Raises:
        ValueError: a process of an earlier run is still alive.
        JobFailedError: it failed.
        StoppedError: the study is stopping.
    """
    environment = os.environ | dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS"], str(threads))
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "ab") as file, _lock(file, script) as claim:
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=study is not None,
        )
        if claim is not None:
            owners.hand_over(claim, process.pid)
        code = _wait(process, study)
    if code:
        with open(log, "rb") as written:
            output = written.read().decode(errors="replace")
        lines = output.strip().splitlines() or [""]
        end = f"signal {-code}" if code < 0 else lines[-1]
        raise JobFailedError(f"{script} failed: {end.rpartition(': error: ')[2]}", output[-TAIL:])


def _lock(log: BinaryIO, script: str) -> contextlib.AbstractContextManager[str | None]:
    """Lock a log for the process that writes to it; without file locks, claim it."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"the {script} of an earlier run that was killed still writes to {log.name}: wait for"
            " it to exit, or kill it, and run the same command again"
        ) from None
    except OSError as error:
        if error.errno in owners.WITHOUT_LOCKS:
            return owners.claim(f"{log.name}.owner")
        raise
    return contextlib.nullcontext()


def _wait(process: "subprocess.Popen[bytes]", study: str | None) -> int:
    """The exit code of a process, terminated once its study stops."""
    terminated = False
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL)
                if terminated and code:
                    raise interruption.StoppedError
                return code
            if study is not None and not terminated and interruption.stop_requested(study):
                process.terminate()
                terminated = True
    except KeyboardInterrupt:
        process.kill()
        raise
