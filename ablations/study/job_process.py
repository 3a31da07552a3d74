"""Runs a command of ours in a process of a job, with a log that it holds while it lives."""

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
"""Characters at the end of a failed process's log that the failure record keeps."""


class JobFailedError(RuntimeError):
    """A process of a job failed; ``log`` is the end of its output."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


def log_of(folder: str, name: str, rank: int) -> str:
    """The log of a process of a job."""
    return os.path.join(folder, f"{name}_{rank}.log" if rank else f"{name}.log")


def run_python(
    script: str, arguments: Sequence[str], log: str, threads: int, study: str | None = None
) -> None:
    """Run one of our entry points and append its output to a log.

    The process holds a lock on the log for as long as it lives, which may be longer than ours. It
    is detached from the terminal, and terminated when the ``study`` in this folder stops.

    Raises:
        ValueError: an earlier process still runs.
        JobFailedError: it failed.
        StoppedError: the study is stopping.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "ab") as file, _held(file, script) as claim:
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=study is not None,
        )
        if claim is not None:
            claim.hand_over(process.pid)
        code = _wait(process, study)
    if code:
        with open(log, "rb") as written:
            said = written.read().decode(errors="replace")
        lines = said.strip().splitlines() or [""]
        end = f"signal {-code}" if code < 0 else lines[-1]
        raise JobFailedError(f"{script} failed: {end.rpartition(': error: ')[2]}", said[-TAIL:])


def _held(log: BinaryIO, script: str) -> contextlib.AbstractContextManager[owners.Claim | None]:
    """The lock on a log, which every process that writes to it holds, or else a claim to it.

    Raises:
        ValueError: an earlier process holds it.
    """
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"the {script} of an earlier run that was killed still writes to {log.name}: wait until"
            " it has ended, or end it, and run the same command again"
        ) from None
    except OSError as error:
        if error.errno in owners.WITHOUT_LOCKS:
            return owners.claim(f"{log.name}.owner")
        raise
    return contextlib.nullcontext()


def _wait(process: "subprocess.Popen[bytes]", study: str | None) -> int:
    """The exit code of a process, terminated once its study stops."""
    told = False
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL)
                if told and code:
                    raise interruption.StoppedError
                return code
            if study is not None and not told and interruption.wished(study):
                process.terminate()
                told = True
    except KeyboardInterrupt:
        process.kill()
        raise
