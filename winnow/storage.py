"""Files, wherever they are: local paths, s3:// and gs://, and, to read from, hf://.

Local writes appear atomically (temporary name, fsync, rename). Object stores need no rename: an
object appears when its upload is complete (:mod:`winnow.object_stores.object_store`). Temporary
names start with ``.tmp-``, so what a killed run left behind can be recognised and removed.
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

from winnow import files, globs, heartbeat
from winnow.arguments import is_utf8, printable

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_GIVEN = re.compile(r"/dev/(stdin|fd/)|/proc/[^/]+/(task/\d+/)?fd/")
_NO_FILES = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}
_HUB_MAIN = re.compile("@main(?=/)")  # the revision that is meant where none is given


def configure(options: Any) -> None:
    """Reach object stores with these Beam options from here on (``--s3_endpoint_url``, …)."""
    _objects().configure(options)


def shared_options() -> dict[str, Any]:
    """How this process reaches object stores, but for secrets."""
    return cast(dict[str, Any], _objects().shared_options())


def reach(shared: dict[str, Any]) -> None:
    """Reach object stores as the process that these options are from, unless told otherwise."""
    _objects().reach(shared)


def scheme(path: str) -> str | None:
    """The scheme of ``path`` (``gs``, ``s3``, ``hf``, …), or None for a local path."""
    match = _SCHEME.match(path)
    return match.group(1).lower() if match else None


def join(folder: str, *names: str) -> str:
    """``folder/name/…`` for local and remote folders alike."""
    return "/".join([folder.rstrip("/"), *names])


def find(pattern: str) -> list[str]:
    """The files that match a glob, sorted.

    Raises:
        ValueError: nothing matches, the pattern names a directory, or a file and more of them,
            something is no file but a pipe or the like, or a name is not UTF-8.
        OSError: there may be more in a folder that cannot be read, or a link leads nowhere.
    """
    match scheme(pattern):
        case None:
            if os.path.isdir(pattern):
                raise ValueError(f"{pattern} is a directory: name its files, as in {pattern}/*")
            paths = [path for path in set(globs.find(pattern)) if _is_input(path)]
        case "hf":
            with _hub_errors(pattern):
                written = "[" in pattern and _hub().isfile(pattern)
                found = [pattern.partition("://")[2]] if written else _hub().glob(pattern)
                paths = [f"hf://{path}" for path in found]
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
    """Whether a local path leads to a file; to a folder it may, by a glob.

    Raises:
        ValueError: its name is not UTF-8, as all that is written of it must be, or it is no file.
        OSError: it cannot be looked at.
    """
    if os.path.isdir(path):
        return False
    check_is_file(path)
    if not is_utf8(path):
        raise ValueError(f"the file name {printable(path)} is not UTF-8: rename it")
    return True


def check_is_file(path: str) -> None:
    """Refuse what is there, but cannot be read again, or by another process.

    Raises:
        ValueError: it is a pipe, a device, or what this process alone was given.
        OSError: it cannot be looked at.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        what = _NO_FILES.get(stat.S_IFMT(mode), "no file")
    elif _GIVEN.match(os.path.abspath(path)):
        what = "what this process alone was given"
    else:
        return
    raise ValueError(
        f"{path} is {what}, but an input is read more than once, by several processes: write it to"
        " a file and name that"
    )


def identity(path: str) -> tuple[object, ...]:
    """What an input's path leads to, the same for all its spellings, links and hard links."""
    match scheme(path):
        case None:
            about = os.stat(path)
            # Some network file systems have no inodes.
            return about.st_dev, about.st_ino or os.path.realpath(path)
        case "hf":
            return "hf", _HUB_MAIN.sub("", path.partition("://")[2], count=1)
        case kind:
            return kind, path.partition("://")[2]


def open_input(path: str) -> BinaryIO:
    """The raw bytes of a file, seekable; nothing is decompressed by its name."""
    match scheme(path):
        case None:
            return open(path, "rb")
        case "hf":
            with _hub_errors(path):
                return cast(BinaryIO, _hub().open(path, "rb"))
        case _:
            return _objects().open_input(path)


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """Write a file that appears whole when the block ends, or not at all if it raises.

    A local file is written under a temporary name in the same folder (which is made), synced, and
    renamed. If the block raises, the temporary file is removed.
    """
    if scheme(path) is not None:
        with _objects().open_output(path) as stream:
            yield stream
        return
    with files.open_output(path) as file:
        yield file


def read_bytes(path: str) -> bytes:
    """The whole content of a small file."""
    with open_input(path) as file:
        return file.read()


def write_bytes(path: str, content: bytes) -> None:
    """Write a small file atomically."""
    with open_output(path) as file:
        file.write(content)


def write_json(path: str, value: Any) -> None:
    """Write canonical JSON (sorted keys, indented, newline at the end) atomically.

    Raises:
        ValueError: there is a number in it that JSON does not have.
    """
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
    """Whether a file is there."""
    return os.path.exists(path) if scheme(path) is None else _objects().exists(path)


def listing(folder: str) -> list[str]:
    """Every file directly in a folder, sorted; empty if there is no such folder."""
    if scheme(folder) is None:
        if not os.path.isdir(folder):
            return []
        return sorted(join(folder, entry.name) for entry in os.scandir(folder) if entry.is_file())
    return sorted(_objects().listing(folder))


def tree(folder: str) -> Iterator[str]:
    """Every file below a folder, by its path within it; none if there is no such folder."""
    if scheme(folder) is not None:
        yield from _objects().tree(folder)
        return
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted([*names, *links]):
            yield os.path.relpath(os.path.join(place, name), folder)


def remove(path: str) -> None:
    """Delete one file or, with everything in it, one folder."""
    if scheme(path) is not None:
        _objects().remove(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def remove_files(paths: Sequence[str]) -> None:
    """Delete files of one file system; those that are not there are no error."""
    if paths and scheme(paths[0]) is not None:
        _objects().remove_files(paths)
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def remove_if_empty(folder: str) -> bool:
    """Delete a folder unless something is in it; whether it is gone. Object stores have none."""
    try:
        if scheme(folder) is None:
            os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise
        return error.errno == errno.ENOENT
    return True


def remove_unfinished(folder: str, chosen: Callable[[str], bool]) -> None:
    """Drop unfinished uploads below a folder of an object store, by their paths within it.

    What killed writers left of local files is there to be seen, and to be removed as any file.
    """
    if scheme(folder) is not None:
        _objects().remove_unfinished(folder, chosen)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local path to a file or folder of an object store, while the block runs.

    Raises:
        ValueError: nothing is there.
    """
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        yield _objects().download(path, folder)


def size(path: str) -> int:
    """Bytes of a file."""
    if scheme(path) is None:
        return os.path.getsize(path)
    with open_input(path) as file:
        return file.seek(0, io.SEEK_END)


@contextlib.contextmanager
def lock(folder: str) -> Iterator[None]:
    """Hold the output folder for one run.

    The kernel lets go of a local one when the process dies; in an object store the lock has to be
    renewed (:mod:`winnow.object_stores.lease`), and whoever comes after a killed run waits for a
    minute.

    Raises:
        ValueError: another run holds it, or it has a file of the lock's name with something in it.
    """
    path = join(folder, ".lock")
    if scheme(folder) is not None:
        from winnow.object_stores import lease

        bucket, key = _objects().locate(path)
        with lease.held(bucket, key, folder):
            yield
        return
    with files.lock(folder):
        yield


def _objects() -> ModuleType:
    from winnow.object_stores import object_store  # imports Beam, which local files do without

    return object_store


def _hub() -> Any:
    try:
        from huggingface_hub import HfFileSystem
    except ImportError:
        raise ValueError("hf:// inputs need the extra: pip install 'winnow-lm[hf]'") from None
    return HfFileSystem()


@contextlib.contextmanager
def _hub_errors(path: str) -> Iterator[None]:
    """What the hub's client and its HTTP library raise, which depends on their versions."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{path}: {error}") from error
