"""Files on any storage: local paths, s3:// and gs://, and read-only hf://.

Writes are atomic: local ones by a temporary name, fsync and rename
(:mod:`winnow.filesystem.files`); an object appears when its upload is complete
(:mod:`winnow.object_stores.object_store`).
"""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, BinaryIO, cast

import xxhash

from winnow import globs, heartbeat
from winnow.arguments import is_utf8, printable
from winnow.filesystem import files

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_DESCRIPTOR = re.compile(r"/dev/(stdin|fd/)|/proc/[^/]+/(task/\d+/)?fd/")
_NO_FILES = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_HUB_MAIN = re.compile("@main(?=/)")  # the default revision


def scheme(path: str) -> str | None:
    """The scheme of ``path`` (``gs``, ``s3``, ``hf``, …), or None for a local path."""
    match = _SCHEME.match(path)
    return match[1].lower() if match else None


def join(folder: str, *names: str) -> str:
    """``folder/name/…`` for local and remote folders alike."""
    return "/".join([folder.rstrip("/"), *names])


def find(pattern: str) -> list[str]:
    """The files that match a glob, sorted.

    Raises:
        ValueError: nothing matches, the pattern names a directory or is ambiguous, a match is not a
            regular file, or a name is not UTF-8.
        OSError: a folder that may hold matches cannot be read, or a link is broken.
    """
    match scheme(pattern):
        case None:
            if os.path.isdir(pattern):
                raise ValueError(f"{pattern} is a directory: name its files, as in {pattern}/*")
            paths = [path for path in set(globs.find(pattern)) if _is_input(path)]
        case "hf":
            with _hub_errors(pattern):
                literal = "[" in pattern and _hub().isfile(pattern)
                matches = [pattern.partition("://")[2]] if literal else _hub().glob(pattern)
                paths = [f"hf://{path}" for path in matches]
        case _:
            paths = _objects().find(pattern)
    if not paths:
        bracket = ", and write [[] for a bracket" if "[" in pattern else ""
        raise ValueError(
            f"nothing matches {pattern!r}: check the path and quote the pattern{bracket}"
        )
    if pattern in paths and len(paths) > 1:
        raise ValueError(
            f"{pattern} is a file, and matches {len(paths) - 1} more: write [*] or [?] for the"
            " character in its name, or rename it"
        )
    return sorted(paths)


def _is_input(path: str) -> bool:
    """Whether a local path is a file, not a folder; ValueError if it is neither, or not UTF-8."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return False
    what = None if stat.S_ISREG(mode) else _NO_FILES.get(stat.S_IFMT(mode), "not a file")
    if _DESCRIPTOR.match(os.path.abspath(path)):
        what = what or "a file descriptor of this process"
    if what:
        raise ValueError(
            f"{path} is {what}, but an input is read more than once, by several processes: write it"
            " to a file and name that"
        )
    if not is_utf8(path):
        raise ValueError(f"the file name {printable(path)} is not UTF-8: rename it")
    return True


def identity(path: str) -> tuple[object, ...]:
    """The identity of a file, the same for all spellings, links and hard links."""
    match scheme(path):
        case None:
            about = os.stat(path)
            # Some network file systems have no inode numbers.
            return about.st_dev, about.st_ino or os.path.realpath(path)
        case "hf":
            return "hf", _HUB_MAIN.sub("", path.partition("://")[2], count=1)
        case kind:
            return kind, path.partition("://")[2]


def open_input(path: str) -> BinaryIO:
    """The raw bytes of a file, seekable, never decompressed."""
    match scheme(path):
        case None:
            return open(path, "rb")
        case "hf":
            with _hub_errors(path):
                return cast(BinaryIO, _hub().open(path, "rb"))
        case _:
            return _objects().open_input(path)


def open_output(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a file atomically: it appears when the block ends, and not at all if it raises.

    The folder of a local file is made if needed.
    """
    writer = files if scheme(path) is None else _objects()
    return cast(contextlib.AbstractContextManager[BinaryIO], writer.open_output(path))


def read_bytes(path: str) -> bytes:
    """The content of a small file."""
    with open_input(path) as file:
        return file.read()


def read_json(path: str) -> Any:
    """The value of a JSON file; ValueError if it is damaged."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from error


def write_bytes(path: str, content: bytes) -> None:
    """Write a small file atomically."""
    with open_output(path) as file:
        file.write(content)


def write_json(path: str, value: Any) -> None:
    """Write canonical JSON (sorted, indented, final newline) atomically; no NaN or infinity."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def checksum(path: str) -> str:
    """The xxh3-128 of a file's bytes, as hex."""
    digest = xxhash.xxh3_128()
    with open_input(path) as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            heartbeat.beat()
    return digest.hexdigest()


def exists(path: str) -> bool:
    return os.path.exists(path) if scheme(path) is None else _objects().exists(path)


def listing(folder: str) -> list[str]:
    """The files directly in a folder, sorted; empty if it does not exist."""
    if scheme(folder) is None:
        if not os.path.isdir(folder):
            return []
        return sorted(join(folder, entry.name) for entry in os.scandir(folder) if entry.is_file())
    return sorted(_objects().listing(folder))


def tree(folder: str) -> Iterator[str]:
    """All files below a folder, by relative path; none if it does not exist."""
    if scheme(folder) is not None:
        yield from _objects().tree(folder)
        return
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted([*names, *links]):
            yield os.path.relpath(os.path.join(place, name), folder)


def remove(path: str) -> None:
    """Delete a file, or a folder with everything in it."""
    if scheme(path) is not None:
        _objects().remove(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def remove_files(paths: Sequence[str]) -> None:
    """Delete files of one file system, ignoring those that do not exist."""
    if paths and scheme(paths[0]) is not None:
        _objects().remove_files(paths)
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def remove_if_empty(folder: str) -> bool:
    """Delete a folder if it is empty; returns whether it is gone. Object stores have none."""
    try:
        if scheme(folder) is None:
            os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise
        return error.errno == errno.ENOENT
    return True


def remove_unfinished(folder: str, chosen: Callable[[str], bool]) -> None:
    """Abort unfinished uploads below a folder of an object store, chosen by relative path."""
    if scheme(folder) is not None:
        _objects().remove_unfinished(folder, chosen)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A temporary local copy of a file or folder in an object store; ValueError if missing."""
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        yield _objects().download(path, folder)


def upload(local: str, path: str) -> None:
    """Upload a local file as an object."""
    _objects().upload(local, path)


def size(path: str) -> int:
    """The size of a file in bytes."""
    if scheme(path) is None:
        return os.path.getsize(path)
    with open_input(path) as file:
        return file.seek(0, io.SEEK_END)


@contextlib.contextmanager
def lock(folder: str) -> Iterator[Callable[[], bool]]:
    """Lock the output folder for one run; yields a function that says whether it is still ours.

    The kernel releases a local lock when the process dies. In an object store the lock is a lease
    (:mod:`winnow.object_stores.lease`): it can be lost, and outlives a killed run by a minute.

    Raises:
        ValueError: another run holds it, or the lock file is not ours.
    """
    if scheme(folder) is not None:
        from winnow.object_stores import lease

        bucket, key = _objects().locate(join(folder, files.LOCK))
        with lease.held(bucket, key, folder) as still_held:
            yield still_held
        return
    with files.lock(folder):
        yield lambda: True


def _objects() -> ModuleType:
    from winnow.object_stores import object_store  # imports Beam, not needed for local files

    return object_store


def _hub() -> Any:
    try:
        from huggingface_hub import HfFileSystem
    except ImportError:
        raise ValueError("hf:// inputs need the extra: pip install 'winnow-lm[hf]'") from None
    return HfFileSystem()


@contextlib.contextmanager
def _hub_errors(path: str) -> Iterator[None]:
    """Turn the errors of the hub's client and its HTTP library into OSError."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{path}: {error}") from error
