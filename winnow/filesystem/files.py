"""Atomic writes of local files, locks, and fingerprints of JSON values."""

import contextlib
import fcntl
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

import xxhash

from winnow.filesystem import owners

TEMPORARY = ".tmp-"
"""Prefix of unfinished files, which a killed writer leaves behind."""

LOCK = ".lock"
"""Name of the lock file in a folder that is being written to."""

OWNER = ".lock-owner"
"""Name of the file that identifies the owner on file systems without locks."""


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """Write a file atomically (temporary name, fsync, rename), making its folder if needed."""
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{name}", dir=folder or ".")
    try:
        with naming(path), open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Add a file name to an OSError that has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = path  # as with a full disk
        raise


def remove_temporary(folder: str) -> None:
    """Delete the temporary files of killed writers in a folder and below."""
    for path in glob.glob(os.path.join(glob.escape(folder), "**", f"{TEMPORARY}*"), recursive=True):
        os.remove(path)


@contextlib.contextmanager
def lock(folder: str) -> Iterator[None]:
    """Lock an output folder, making it if needed; the kernel releases it if the process dies.

    A folder made here is removed again if it stays empty.

    Raises:
        ValueError: another process holds it, or the lock file is not ours.
    """
    made = not os.path.exists(folder)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, LOCK)
    if os.path.exists(path) and os.path.getsize(path):  # ours are empty
        raise ValueError(f"{path} is not the lock of a run: choose another output")
    try:
        with open(path, "a") as file, _held(file, folder):
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError):  # its folder was deleted
                    os.remove(path)
    finally:
        if made:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)


def _held(file: TextIO, folder: str) -> contextlib.AbstractContextManager[object]:
    """Lock an open lock file until it is closed, or claim it on file systems without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have finished and removed the file since it was opened.
        held = os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except (BlockingIOError, FileNotFoundError):
        held = False
    except OSError as error:
        if error.errno in owners.WITHOUT_LOCKS:
            return owners.claim(os.path.join(folder, OWNER))
        raise
    if not held:
        raise ValueError(
            f"another run is writing to {folder}: wait for it, or choose another output"
        )
    return contextlib.nullcontext()


def fingerprint(*parts: Any) -> str:
    """The xxh3-128 of JSON values, as hex."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return xxhash.xxh3_128_hexdigest(canonical.encode())


_UMASK = os.umask(0)  # reading it means setting it
os.umask(_UMASK)
