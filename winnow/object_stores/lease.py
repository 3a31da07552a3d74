"""A lease on an output folder, held in an object: stores have no locks, but conditional writes.

The holder renews it by rewriting the object every few seconds, if nobody else has. A second run
watches the object for longer: if it changes, the holder is alive; if not, the second run takes the
lease by a rewrite under the same condition. No clocks are compared.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from winnow.object_stores.bucket import Bucket, Stat

BEAT = 10.0
"""Seconds between renewals."""

PATIENCE = 60.0
"""Seconds without a renewal after which the holder counts as dead."""

_STOP = signal.SIGUSR1
"""Stops a run that has lost its lease; processes started with ``&`` in a script ignore SIGINT."""


class LostError(RuntimeError):
    """Another run has taken the lease."""


@contextlib.contextmanager
def held(bucket: Bucket, key: str, path: str) -> Iterator[Callable[[], bool]]:
    """Hold the lease at ``key`` on ``path`` while the block runs.

    Yields a function that says whether it is still held, as far as this process knows.

    Raises:
        ValueError: another run holds it, or the object is not a lease.
        LostError: another run has taken it, because this process did not renew it in time.
    """
    lease = _Lease(bucket, key)
    if not lease.take(path):
        raise ValueError(f"another run is writing to {path}: wait for it, or choose another output")
    done = threading.Event()
    renewal = threading.Thread(target=lease.renew, args=(done,), daemon=True)
    before = _handle_stop()
    renewal.start()
    try:
        yield lambda: not lease.lost
    except (KeyboardInterrupt, SystemExit):
        if not lease.lost:
            raise
    finally:
        done.set()
        renewal.join()
        if before is not None:
            signal.signal(_STOP, before)
        if not lease.lost:
            lease.release()
    if lease.lost:
        raise LostError(
            f"another run has taken over {path}, since this one could not reach it for"
            f" {PATIENCE:.0f} seconds"
        )


def _handle_stop() -> Any:
    """Let :data:`_STOP` interrupt the main thread; returns the old handler, None elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(_STOP, signal.default_int_handler)


class _Lease:
    """The object that holds the lease."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.lost = False
        self._bucket = bucket
        self._key = key
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._beats = 0
        self._version: str | None = None

    def take(self, path: str) -> bool:
        """Take the lease unless another run keeps renewing it."""
        if self._rewrite(None):
            return True
        seen = self._bucket.stat(self._key)
        if seen is not None and not self._is_lock(seen):
            raise ValueError(f"{path}/.lock is not the lock of a run: choose another output")
        if seen is not None:
            print(
                f"{path} is locked: waiting up to {PATIENCE:.0f} seconds to see if the run that"
                " holds it is alive",
                file=sys.stderr,
            )
        end = time.monotonic() + PATIENCE
        while seen is not None and time.monotonic() < end:
            time.sleep(min(1.0, PATIENCE / 10))
            now = self._bucket.stat(self._key)
            if now is not None and now.version != seen.version:
                return False
            seen = now
        return self._rewrite(None if seen is None else seen.version)

    def _is_lock(self, seen: Stat) -> bool:
        """Whether an object is a lease; also True if it is gone or rewritten by now."""
        try:
            content = json.loads(self._bucket.read(self._key, 0, seen.size, seen.version))
        except OSError:
            return True
        except ValueError:
            return False
        return isinstance(content, dict) and content.keys() == {"holder", "beat"}

    def renew(self, done: threading.Event) -> None:
        """Renew the lease until ``done``; interrupt the main thread if it is lost."""
        while not done.wait(BEAT):
            try:
                self.lost = not self._rewrite(self._version)
            except OSError as error:
                print(f"the lock could not be renewed, trying again: {error}", file=sys.stderr)
            if self.lost:
                main = threading.main_thread().ident
                assert main is not None
                handled = signal.getsignal(_STOP) is signal.default_int_handler
                signal.pthread_kill(main, _STOP if handled else signal.SIGINT)
                return

    def release(self) -> None:
        """Release the lease; if that fails, the next run has to wait until it expires."""
        try:
            self._bucket.delete([self._key])
        except OSError as error:
            print(f"the lock could not be removed: {error}", file=sys.stderr)

    def _rewrite(self, version: str | None) -> bool:
        """Write the object if it still has ``version``, or one that we wrote."""
        self._beats += 1
        content = json.dumps({"holder": self._name, "beat": self._beats}).encode()
        while (new := self._bucket.replace(self._key, content, version)) is None:
            # An earlier write of ours may have succeeded although its response was lost.
            try:
                current = self._bucket.stat(self._key)
                if current is None:
                    return False
                content_there = self._bucket.read(self._key, 0, current.size, current.version)
            except (FileExistsError, FileNotFoundError):  # its holder has just rewritten it
                return False
            if self._name.encode() not in content_there:
                return False
            version = current.version
        self._version = new
        return True
