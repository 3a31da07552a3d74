"""Local copies of folders in a bucket: shared by processes, verified and limited in size.

::

    CACHE/copies/KEY/      files of one state of a folder; KEY is a fingerprint of their checksums
    CACHE/copies/KEY.size  their bytes
    CACHE/copies/KEY.use   locked by its users; mtime is the last use
    CACHE/copies/KEY.fill  locked by the process that verifies and fetches
    CACHE/copies/.room     locked by the process that makes room

A file appears once it is complete and its checksum verified. Existing files are verified each time
a process needs them, and fetched again if they have changed.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import xxhash
import yaml

from winnow import heartbeat
from winnow.commands import console
from winnow.defaults import CONF
from winnow.filesystem import files, owners, storage

THREADS = 8
"""Files fetched or verified at a time."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in a bucket: its path, size in bytes, and xxh3-128 as hex."""

    path: str
    size: int
    checksum: str


class DamagedError(ValueError):
    """A file in a bucket does not match its manifest."""


def cache() -> str:
    """The folder of all local data of buckets."""
    return os.path.expanduser(os.environ.get("WINNOW_CACHE") or _default("folder"))


def limit() -> int:
    """The limit of bytes of all copies; ValueError if ``WINNOW_CACHE_BYTES`` is not a number."""
    text = os.environ.get("WINNOW_CACHE_BYTES") or _default("bytes")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"WINNOW_CACHE_BYTES={text} is not a number of bytes") from None


def folder(source: str, wanted: Mapping[str, RemoteFile]) -> str:
    """A local folder with the ``wanted`` files (by relative path) of a bucket, kept until we exit.

    ``source`` is the folder in the bucket, for messages.

    Raises:
        DamagedError: a file in the bucket does not match its checksum.
        ValueError: the files exceed the limit, alone or with other copies in use.
        OSError: a file cannot be read or written.
    """
    if any(part in ("", "..") for name in wanted for part in name.split("/")):
        raise DamagedError(f"{source} names files outside it")
    top = os.path.join(cache(), "copies")
    target = os.path.join(top, _key(wanted))
    if target in _in_use:
        return target
    os.makedirs(top, exist_ok=True)
    with contextlib.ExitStack() as held:
        use = held.enter_context(open(f"{target}.use", "a"))
        _lock(use, fcntl.LOCK_SH)
        os.utime(use.name)
        verifying = console.doing(f"verifying the copy of {source}")
        with open(f"{target}.fill", "a") as fill, verifying as tell:
            _lock(fill, fcntl.LOCK_EX)
            _fill(source, target, wanted, tell)
        held.pop_all()
    _in_use[target] = use
    return target


def add(local: str, wanted: Mapping[str, RemoteFile]) -> None:
    """Register local files that will be in a bucket as copies, by hard links.

    ``local`` is a folder below :func:`cache` whose files no longer change; ``wanted`` is as in
    :func:`folder`. ValueError if the limit is reached.
    """
    target = os.path.join(cache(), "copies", _key(wanted))
    os.makedirs(target, exist_ok=True)
    with open(f"{target}.use", "a") as use, open(f"{target}.fill", "a") as fill:
        _lock(use, fcntl.LOCK_SH)
        _lock(fill, fcntl.LOCK_EX)
        _make_room(local, target, sum(file.size for file in wanted.values()))
        for name in wanted:
            place = os.path.join(target, name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(os.path.join(local, name), place)


def _key(wanted: Mapping[str, RemoteFile]) -> str:
    return files.fingerprint({name: file.checksum for name, file in wanted.items()})


_in_use: dict[str, IO[str]] = {}
"""Open ``.use`` files, whose locks keep other processes from evicting this one's copies."""


def fetch(file: RemoteFile, target: str) -> None:
    """Copy a file from a bucket to a path; DamagedError if its checksum is wrong twice."""
    try:
        _copy(file, target)
    except DamagedError:
        _copy(file, target)


def _copy(file: RemoteFile, target: str) -> None:
    digest = xxhash.xxh3_128()
    with storage.open_input(file.path) as source, files.open_output(target) as copy:
        while chunk := source.read(8 << 20):
            digest.update(chunk)
            copy.write(chunk)
            heartbeat.beat()
        if digest.hexdigest() != file.checksum:
            raise DamagedError(
                f"{file.path} does not match its checksum: it was overwritten or damaged in the"
                " store"
            )


def _fill(
    source: str, target: str, wanted: Mapping[str, RemoteFile], tell: Callable[[str], None]
) -> None:
    """Fetch files that are missing or changed; one process per folder at a time."""
    os.makedirs(target, exist_ok=True)
    files.remove_temporary(target)
    with ThreadPoolExecutor(THREADS) as pool:
        places = {name: os.path.join(target, name) for name in wanted}
        right = pool.map(lambda name: _matches(places[name], wanted[name]), wanted)
        absent = [name for name, there in zip(wanted, right, strict=True) if not there]
        if not absent:
            return
        _make_room(source, target, sum(file.size for file in wanted.values()))
        size = sum(wanted[name].size for name in absent)
        tell(f"fetching {size / 1e6:,.1f} MB of {source}")
        # The first error is raised once all are done.
        list(pool.map(lambda name: fetch(wanted[name], places[name]), absent))


def _matches(path: str, wanted: RemoteFile) -> bool:
    return (
        os.path.exists(path)
        and os.path.getsize(path) == wanted.size
        and storage.checksum(path) == wanted.checksum
    )


def _make_room(source: str, target: str, need: int) -> None:
    """Reserve ``need`` bytes, evicting the least recently used copies; ValueError if too few."""
    top, most = os.path.dirname(target), limit()
    with open(os.path.join(top, ".room"), "a") as room:
        _lock(room, fcntl.LOCK_EX)
        used = [entry for entry in os.scandir(top) if entry.name.endswith(".use")]
        used.sort(key=lambda entry: entry.stat().st_mtime_ns)
        sizes = {copy: _size_of(copy) for copy in (e.path.removesuffix(".use") for e in used)}
        sizes.pop(target, None)
        total = need + sum(sizes.values())
        for copy, size in sizes.items():
            if total > most and size and _evict(copy):
                total -= size
        if total > most:
            raise ValueError(
                f"{source} needs {need:,} bytes, but the limit of copies in {top} is {most:,}, of"
                f" which {total - need:,} are in use: raise WINNOW_CACHE_BYTES, or set WINNOW_CACHE"
                " to a folder on a larger disk"
            )
        with files.open_output(f"{target}.size") as file:
            file.write(str(need).encode())


def _size_of(copy: str) -> int:
    with contextlib.suppress(FileNotFoundError), open(f"{copy}.size") as file:
        return int(file.read())
    return 0


def _evict(copy: str) -> bool:
    with open(f"{copy}.use", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(copy, ignore_errors=True)
        os.remove(f"{copy}.size")
    return True


def _lock(file: IO[str], how: int) -> None:
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno in owners.WITHOUT_LOCKS:
            raise ValueError(
                f"{os.path.dirname(file.name)} has no locks, which copies of buckets need: set"
                " WINNOW_CACHE to a folder on a disk of this machine"
            ) from error
        raise


def _default(name: str) -> str:
    with open(os.path.join(CONF, "local_copies.yaml"), encoding="utf-8") as file:
        return str(yaml.safe_load(file)[name])
