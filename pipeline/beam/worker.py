"""A worker process of a local run: Beam's worker, but it ends with its driver.

python -m pipeline.beam.worker DRIVER FOLDER [local]

Otherwise the workers of a killed driver would finish their bundles, and their files could collide
with the next run's. Linux kills them with their parent; elsewhere they poll for it every half
second. Each also holds a lock that the next run waits for.
"""

import contextlib
import ctypes
import fcntl
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

from pipeline.beam import cloud_clients
from winnow import heartbeat
from winnow.commands import startup
from winnow.filesystem import owners

LOCK = "lock"
LOCAL = "local"
"""The argument of a worker that needs no cloud clients."""

PATIENCE = 30.0
"""Seconds to wait for the workers of a killed run."""

_PR_SET_PDEATHSIG = 1


def command(folder: str) -> str:
    """The shell command for a worker of this process, with heartbeat and lock in ``folder``."""
    words = [sys.executable, "-m", "pipeline.beam.worker", str(os.getpid()), folder]
    words += [LOCAL] if cloud_clients.are_left_out() else []
    # exec replaces the shell, which makes us the parent. We handle Ctrl-C and end the worker.
    return f"trap '' INT; exec {shlex.join(words)}"


def main(driver: int, folder: str, local: bool) -> None:
    """Work for the process ``driver`` until it has no more work or is gone; see :func:`command`."""
    # Lock first, then check the driver: a worker that finds it alive already holds the lock.
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in owners.WITHOUT_LOCKS:  # there the heartbeat shows that it runs
            raise
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    heartbeat.report_to(folder)
    heartbeat.beat()
    with startup.importing(), cloud_clients.left_out() if local else contextlib.nullcontext():
        from apache_beam.runners.worker import sdk_worker_main
    sdk_worker_main.main([])


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)


def wait_for_others(folder: str) -> None:
    """Wait until the workers of a killed run have exited; ValueError after half a minute."""
    try:
        lock = os.open(os.path.join(folder, LOCK), os.O_RDWR)
    except FileNotFoundError:
        return
    end = time.monotonic() + PATIENCE
    try:
        while _is_held(lock, folder):
            if time.monotonic() > end:
                raise ValueError(
                    f"workers of a run that was killed still hold {folder}: end them"
                    " (ps -ef | grep beam.worker), then start the run again with --resume"
                )
            time.sleep(0.1)
    finally:
        os.close(lock)


def _is_held(lock: int, folder: str) -> bool:
    """Whether a worker on this machine still uses the folder."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in owners.WITHOUT_LOCKS:
            raise
        pids = [name.partition(".")[0] for name in os.listdir(folder)]
        return any(_works_in(pid, folder) for pid in pids if pid.isdecimal())
    return False


def _works_in(pid: str, folder: str) -> bool:
    """Whether this process is a worker of that folder: its number may have been reused."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b"pipeline.beam.worker" in words and folder.encode() in words
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], LOCAL in sys.argv[3:])
