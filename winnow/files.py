"""Local files that appear whole or not at all, locks, and fingerprints of JSON values."""

import contextlib
import fcntl
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import xxhash

TEMPORARY = ".tmp-"
"""How the name of an unfinished file starts; a killed writer leaves such files behind."""

LOCK = ".lock"
"""A file of this name is in a folder that is being written to."""


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """Write a file (and its folder) under a temporary name, sync it, then give it its name.

    If the block raises, nothing is left.
    """
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
    """Give an OSError that does not say which file it is about this one's name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = path  # a full disk does not say what had no room
        raise


def read_json(path: str) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: it is damaged.
    """
    with open(path, "rb") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: it is no JSON ({error})") from error


def remove_temporary(folder: str) -> None:
    """Delete what killed writers left in a folder and those in it."""
    for path in glob.glob(os.path.join(glob.escape(folder), "**", f"{TEMPORARY}*"), recursive=True):
        os.remove(path)


@contextlib.contextmanager
def lock(folder: str) -> Iterator[None]:
    """Hold an output folder (which is made) for one process; a killed one lets go of it as well.

    Raises:
        ValueError: another process holds it, or a file of the lock's name has something in it.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, LOCK)
    if os.path.exists(path) and os.path.getsize(path):  # ours are empty
        raise ValueError(f"{path} is no lock of a run: choose another output")
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other may have finished, and removed this file, since it was opened.
            held = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise ValueError(
                f"another run is writing to {folder}: wait for it, or choose another output"
            )
        try:
            yield
        finally:
            os.remove(path)


def fingerprint(*parts: Any) -> str:
    """The xxh3-128 of some JSON values, as hex."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return xxhash.xxh3_128_hexdigest(canonical.encode())


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _current_umask()
