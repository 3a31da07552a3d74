"""Files, wherever they are: local paths, what Beam's filesystems reach (gs://, s3://, …), hf://.

Local writes appear atomically (temporary name, fsync, rename). Object stores need no rename: an
object appears when its upload is complete. Temporary names start with ``.tmp-``, so what a killed
run left behind can be recognised and removed.
"""

import contextlib
import fcntl
import glob
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

TEMPORARY = ".tmp-"

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")


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
    """
    match scheme(pattern):
        case None:
            if os.path.isdir(pattern):
                raise ValueError(f"{pattern} is a directory: name its files, as in {pattern}/*")
            paths = [p for p in glob.glob(pattern, recursive=True) if not os.path.isdir(p)]
        case "hf":
            paths = [f"hf://{path}" for path in _hub().glob(pattern)]
        case _:
            paths = [file.path for file in _beam().match([pattern])[0].metadata_list]
    if not paths:
        raise ValueError(f"nothing matches {pattern!r}: check the path and quote the pattern")
    return sorted(paths)


def open_input(path: str) -> BinaryIO:
    """The raw bytes of a file, seekable; nothing is decompressed by its name."""
    match scheme(path):
        case None:
            return open(path, "rb")
        case "hf":
            return cast(BinaryIO, _hub().open(path, "rb"))
        case _:
            from apache_beam.io.filesystem import CompressionTypes

            return cast(
                BinaryIO, _beam().open(path, compression_type=CompressionTypes.UNCOMPRESSED)
            )


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """Write a file that appears whole or not at all.

    A local file is written under a temporary name in the same folder (which is made), synced, and
    renamed. If the block raises, the temporary file is removed.
    """
    if scheme(path) is not None:
        from apache_beam.io.filesystem import CompressionTypes

        # An aborted upload must not become an object, so a failed block never reaches close().
        stream = _beam().create(path, compression_type=CompressionTypes.UNCOMPRESSED)
        yield cast(BinaryIO, stream)
        stream.close()
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
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
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
    return os.path.exists(path) if scheme(path) is None else bool(_beam().exists(path))


def listing(folder: str) -> list[str]:
    """Every file directly in a folder, sorted; empty if there is no such folder."""
    if scheme(folder) is None:
        if not os.path.isdir(folder):
            return []
        return sorted(join(folder, entry.name) for entry in os.scandir(folder) if entry.is_file())
    return sorted(file.path for file in _beam().match([join(folder, "*")])[0].metadata_list)


def remove(path: str) -> None:
    """Delete one file or, with everything in it, one folder."""
    if scheme(path) is not None:
        _beam().delete([path])
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def remove_temporary(folder: str) -> None:
    """Delete what killed writers left in a local folder; object stores show no unfinished files."""
    if scheme(folder) is None:
        for path in glob.glob(os.path.join(folder, "**", f"{TEMPORARY}*"), recursive=True):
            os.remove(path)


def size(path: str) -> int:
    """Bytes of a file."""
    if scheme(path) is None:
        return os.path.getsize(path)
    with open_input(path) as file:
        return file.seek(0, io.SEEK_END)


@contextlib.contextmanager
def lock(folder: str) -> Iterator[None]:
    """Hold the output folder for one run; the kernel lets go of it when the process dies.

    Object stores have no locks: there, two runs into one output write the same bytes if they have
    the same config, and the manifest of the last one wins.

    Raises:
        ValueError: another run holds it.
    """
    if scheme(folder) is not None:
        yield
        return
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, ".lock")
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


def _beam() -> Any:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _hub() -> Any:
    try:
        from huggingface_hub import HfFileSystem
    except ImportError:
        raise ValueError("hf:// inputs need the extra: pip install 'winnow-lm[hf]'") from None
    return HfFileSystem()
