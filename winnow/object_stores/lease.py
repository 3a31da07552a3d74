"""A lock for one run, held in an object: stores have no locks, but they write under conditions.

The holder rewrites the object every few seconds, if it is still as he left it. Somebody else who
finds it watches for longer than that: if it changes, its holder is alive; if it does not, he takes
it over by a rewrite under the same condition. No clock is compared with another's.
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
from collections.abc import Iterator
from typing import Any

from winnow.object_stores.bucket import Bucket, Stat

BEAT = 10.0
"""Seconds between two signs of life."""

PATIENCE = 60.0
"""Seconds without one after which a holder counts as dead."""


_STOP = signal.SIGUSR1
"""Stops a run that has lost its lock. Not SIGINT, which is ignored by what a script starts with
``&``."""


@contextlib.contextmanager
def held(bucket: Bucket, key: str, path: str) -> Iterator[None]:
    """Hold the lock at ``key`` while the block runs. ``path`` is what it locks, for messages.

    Raises:
        ValueError: somebody else holds it, or the object is no lock.
        RuntimeError: somebody else has taken it over, as this process gave no sign of life.
    """
    lease = _Lease(bucket, key)
    if not lease.taken(path):
        raise ValueError(f"another run is writing to {path}: wait for it, or choose another output")
    done = threading.Event()
    beating = threading.Thread(target=lease.keep, args=(done,), daemon=True)
    before = _listen()
    beating.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lease.lost:
            raise
    finally:
        done.set()
        beating.join()
        if before is not None:
            signal.signal(_STOP, before)
        if not lease.lost:
            lease.release()
    if lease.lost:
        raise RuntimeError(
            f"another run has taken over {path}, as this one was cut off from it for"
            f" {PATIENCE:.0f} seconds"
        )


def _listen() -> Any:
    """Let :data:`_STOP` interrupt the main thread; what it did before, None if it can't be set."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(_STOP, signal.default_int_handler)


def _listens() -> bool:
    return signal.getsignal(_STOP) is signal.default_int_handler


class _Lease:
    """The object as its holder left it."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.lost = False
        self._bucket = bucket
        self._key = key
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._beats = 0
        self._version: str | None = None

    def taken(self, path: str) -> bool:
        """Take it, if nobody else shows a sign of life."""
        if self._rewrite(None):
            return True
        seen = self._bucket.stat(self._key)
        if seen is not None and not self._is_lock(seen):
            raise ValueError(f"{path}/.lock is no lock of a run: choose another output")
        if seen is not None:
            print(
                f"{path} is locked: waiting up to {PATIENCE:.0f} seconds for a sign of life of the"
                " run that has locked it",
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
        """Whether an object is one that :meth:`_rewrite` writes, or is gone or rewritten by now."""
        try:
            content = json.loads(self._bucket.read(self._key, 0, seen.size, seen.version))
        except OSError:
            return True
        except ValueError:
            return False
        return isinstance(content, dict) and content.keys() == {"holder", "beat"}

    def keep(self, done: threading.Event) -> None:
        """Give signs of life until ``done``; stop the process's main thread if the lock is lost."""
        while not done.wait(BEAT):
            try:
                self.lost = not self._rewrite(self._version)
            except OSError as error:
                print(f"the lock could not be renewed, trying again: {error}", file=sys.stderr)
            if self.lost:
                main = threading.main_thread().ident
                assert main is not None
                signal.pthread_kill(main, _STOP if _listens() else signal.SIGINT)
                return

    def release(self) -> None:
        """Let go. If that fails, whoever comes next has to be patient; it is no reason to fail."""
        try:
            self._bucket.delete([self._key])
        except OSError as error:
            print(f"the lock could not be removed: {error}", file=sys.stderr)

    def _rewrite(self, version: str | None) -> bool:
        """Write the object if it still is this version of it, or one that we wrote ourselves."""
        self._beats += 1
        content = json.dumps({"holder": self._name, "beat": self._beats}).encode()
        while (new := self._bucket.replace(self._key, content, version)) is None:
            # An earlier write of ours may have got through although its answer did not.
            try:
                found = self._bucket.stat(self._key)
                if found is None:
                    return False
                there = self._bucket.read(self._key, 0, found.size, found.version)
            except (FileExistsError, FileNotFoundError):  # its holder has just been at it
                return False
            if self._name.encode() not in there:
                return False
            version = found.version
        self._version = new
        return True
