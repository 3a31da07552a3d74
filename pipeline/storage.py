"""Files, wherever they are: local paths, s3:// and gs://, and, to read from, hf://.

Local writes appear atomically (temporary name, fsync, rename). Object stores need no rename: an
object appears when its upload is complete (:mod:`pipeline.object_store`). Temporary names start
with ``.tmp-``, so what a killed run left behind can be recognised and removed.
"""

import contextlib
import errno
import fcntl
import glob
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO, cast

TEMPORARY = ".tmp-"

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")


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
        ValueError: nothing matches, or the pattern names a directory.
        PermissionError: there may be more in a folder that cannot be read.
    """
    match scheme(pattern):
        case None:
            if os.path.isdir(pattern):
                raise ValueError(f"{pattern} is a directory: name its files, as in {pattern}/*")
            _check_readable(pattern)
            paths = [p for p in glob.glob(pattern, recursive=True) if not os.path.isdir(p)]
        case "hf":
            with _hub_errors(pattern):
                paths = [f"hf://{path}" for path in _hub().glob(pattern)]
        case _:
            paths = _objects().find(pattern)
    if not paths:
        raise ValueError(f"nothing matches {pattern!r}: check the path and quote the pattern")
    return sorted(paths)


def _check_readable(pattern: str) -> None:
    """Look for folders that a glob would pass over, since it may not read them."""
    parts = pattern.split("/")
    for i in range(1, len(parts)):
        needed = os.R_OK | os.X_OK if glob.has_magic(parts[i]) else os.X_OK
        for folder in glob.iglob("/".join([*parts[:i], ""]), recursive=True):
            if not os.access(folder, needed):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)


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
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{name}", dir=folder or ".")
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path  # a full disk does not say which file had no room
        raise


def read_bytes(path: str) -> bytes:
    """The whole content of a small file."""
    with open_input(path) as file:
        return file.read()


def write_bytes(path: str, content: bytes) -> None:
    """Write a small file atomically."""
    with open_output(path) as file:
        file.write(content)


def write_json(path: str, value: Any) -> None:
    """Write canonical JSON (sorted keys, indented, newline at the end) atomically."""
    write_bytes(
        path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    )


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


def remove(path: str) -> None:
    """Delete one file or, with everything in it, one folder."""
    if scheme(path) is not None:
        _objects().remove(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def remove_temporary(folder: str) -> None:
    """Delete what killed writers left in a folder: unfinished files or uploads."""
    if scheme(folder) is not None:
        _objects().remove_unfinished(folder)
        return
    for path in glob.glob(os.path.join(glob.escape(folder), "**", f"{TEMPORARY}*"), recursive=True):
        os.remove(path)


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
    renewed (:mod:`pipeline.lease`), and whoever comes after a killed run waits for a minute.

    Raises:
        ValueError: another run holds it.
    """
    path = join(folder, ".lock")
    if scheme(folder) is not None:
        from pipeline import lease

        bucket, key = _objects().locate(path)
        with lease.held(bucket, key, folder):
            yield
        return
    os.makedirs(folder, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another run may have finished, and removed this file, since it was opened.
            held = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise ValueError(
                f"another run is writing to {folder}: wait for it, or choose another --output"
            )
        try:
            yield
        finally:
            os.remove(path)


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _current_umask()


def _objects() -> ModuleType:
    from pipeline import object_store  # imports Beam, which local files do without

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
