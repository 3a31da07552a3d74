"""Beam's worker pool, with workers that are forks of a process that has imported everything.

A worker takes some five seconds of CPU time less to start. All are in the pool's session and end
with it.

    python tests/engines/forking_pool.py --service_port=50000
"""

import importlib
import os
import signal
import socket
import subprocess
import sys
import time

from apache_beam.runners.worker import worker_pool_main


class Fork:
    """Stands in for ``subprocess.Popen`` in the pool."""

    link: socket.socket

    def __init__(self, command: list[str], **_: object) -> None:
        assert command[:2] == ["python", "-c"]
        self.link.send(command[2].encode())
        self.pid = int(self.link.recv(20))

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 60) -> None:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        deadline = time.monotonic() + timeout
        while os.path.exists(f"/proc/{self.pid}"):
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout)
            time.sleep(0.1)


def serve(link: socket.socket) -> None:
    """Fork for each piece of code that arrives, and send back the process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while code := link.recv(1 << 16):
        pid = os.fork()
        if not pid:
            link.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            exec(code, {"__name__": "__main__"})
            os._exit(0)
        link.send(str(pid).encode())


def main() -> None:
    """Fork in this process, and run the pool, which has threads, in another."""
    importlib.import_module("pipeline.runs.scoring_run")
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        there.close()
        serve(here)
    else:
        here.close()
        Fork.link = there
        worker_pool_main.subprocess.Popen = Fork
        worker_pool_main.main(sys.argv[1:])


if __name__ == "__main__":
    main()
