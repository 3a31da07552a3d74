"""Objects in a bucket as files: code shared by s3:// and gs://.

An object exists once its upload is complete, so a file is first written locally (unnamed, in
``$TMPDIR``) and uploaded when its writer is done; after an error or a kill there is no object.

We use the vendors' clients, with the options and credentials of Beam's filesystems. Those make a
client for every call, and complete the upload of a failed writer on garbage collection.
"""

import contextlib
import fnmatch
import functools
import io
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from winnow import globs, heartbeat
from winnow.object_stores.bucket import Bucket, Stat

FIRST_READ = 64 << 10
LARGEST_READ = 8 << 20
"""Bytes per request: enough to recognise a format, then doubled while reading is sequential."""

_OPTIONS = "WINNOW_BEAM_OPTIONS"

_NO_SECRETS = (
    "s3_endpoint_url",
    "s3_region_name",
    "s3_api_version",
    "s3_verify",
    "s3_disable_ssl",
    "project",
    "no_auth",
    "impersonate_service_account",
    "gcp_oauth_scopes",
)
"""The options sent with a pipeline's steps; keys and tokens are not."""


def configure(options: PipelineOptions) -> None:
    """Use these options (``--s3_endpoint_url``, …) in this process and its children.

    Beam passes them to workers in containers, but not to local processes of its own runner.
    """
    os.environ[_OPTIONS] = json.dumps(options.get_all_options(drop_default=True))
    _bucket.cache_clear()


def shared_options() -> dict[str, Any]:
    """The options without secrets, for :func:`reach` on other machines."""
    if _OPTIONS in os.environ:
        options = json.loads(os.environ[_OPTIONS])
    else:
        options = _options().get_all_options(drop_default=True)
    return {name: options[name] for name in _NO_SECRETS if name in options}


def reach(shared: dict[str, Any]) -> None:
    """Use another process's options, unless this one has its own.

    Manually started workers (``worker_pool_main``) have none, since Beam sends them only the steps
    of the pipeline. Credentials come from their machine.
    """
    global _shared
    if shared != _shared:
        _shared = shared
        _bucket.cache_clear()


_shared: dict[str, Any] = {}


def _options() -> PipelineOptions:
    if _OPTIONS in os.environ:
        return PipelineOptions.from_dictionary(json.loads(os.environ[_OPTIONS]))
    # The only place with a Beam worker's options.
    return FileSystems._pipeline_options or PipelineOptions.from_dictionary(_shared)


def locate(path: str) -> tuple[Bucket, str]:
    """Bucket and key of ``s3://…`` or ``gs://…``; ValueError if invalid or without client."""
    match = re.fullmatch(r"(\w+)://([^/]+)/?(.*)", path, re.DOTALL)
    if not match:
        raise ValueError(f"{path!r} has no bucket: write s3://bucket/name or gs://bucket/name")
    scheme, name, key = match.groups()
    return _bucket(scheme, name), key


@functools.cache
def _bucket(scheme: str, name: str) -> Bucket:
    options = _options()
    try:
        match scheme:
            case "s3":
                from winnow.object_stores.store_s3 import S3Bucket

                return S3Bucket(options, name)
            case "gs":
                from winnow.object_stores.store_gcs import GcsBucket

                return GcsBucket(options, name)
    except ImportError as error:
        extra = {"s3": "aws", "gs": "gcp"}[scheme]
        raise ValueError(
            f"{scheme}:// needs the extra: pip install 'winnow-lm[{extra}]'"
        ) from error
    if scheme == "hf":
        raise ValueError(
            "hf:// can only be read: write the output to a folder, and `winnow push` it when"
            " complete"
        )
    raise ValueError(f"{scheme}:// is not known: use s3://, gs:// or a local path")


def open_input(path: str) -> BinaryIO:
    """An object as a seekable file, read in ranges."""
    bucket, key = locate(path)
    stat = bucket.stat(key)
    if stat is None:
        raise FileNotFoundError(f"{path} is not there")
    return cast(BinaryIO, io.BufferedReader(_Ranges(bucket, key, stat), LARGEST_READ))


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    bucket, key = locate(path)
    with tempfile.TemporaryFile() as file:
        yield cast(BinaryIO, file)
        file.flush()
        bucket.upload(key, cast(BinaryIO, file))


def upload(local: str, path: str) -> None:
    bucket, key = locate(path)
    with open(local, "rb") as file:
        bucket.upload(key, file)


def exists(path: str) -> bool:
    bucket, key = locate(path)
    return bucket.stat(key) is not None


def find(pattern: str) -> list[str]:
    """The objects that match a glob, by the rules of :func:`glob.glob` with ``recursive``."""
    bucket, glob = locate(pattern)
    root = pattern[: len(pattern) - len(glob)]
    literal = re.match(r"[^*?\[]*", glob)
    assert literal is not None
    keys: Iterable[str] = bucket.keys(literal[0])
    existing: set[str] = set()
    if "[" in glob:
        keys = list(keys)
        existing = {key[: slash.start()] for key in keys for slash in re.finditer("/|$", key)}
    parts = glob.split("/")
    return [
        root + key
        for key in keys
        if not key.endswith("/") and matches(key.split("/"), parts, existing)
    ]


def matches(
    names: Sequence[str], patterns: Sequence[str], there: Container[str] = (), above: str = ""
) -> bool:
    """Whether the parts of a path match the parts of a glob; ``**`` matches any folders.

    ``there`` holds existing objects and folders, which literal names may mean; ``above`` is the
    folder of the names, with its slash.
    """
    if not patterns:
        return not names
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        if not rest:
            return bool(names) and not any(name.startswith(".") for name in names)
        visible = next((i for i, name in enumerate(names) if name.startswith(".")), len(names))
        starts = itertools.accumulate((f"{name}/" for name in names[:visible]), initial=above)
        return any(matches(names[i:], rest, there, start) for i, start in enumerate(starts))
    if not names:
        return False
    name = names[0]
    if globs.is_literal(first, above + first in there):
        fits = name == first
    else:
        hidden = name.startswith(".") and not first.startswith(".")
        fits = not hidden and fnmatch.fnmatchcase(name, first)
    return fits and matches(names[1:], rest, there, f"{above}{name}/")


def listing(folder: str) -> list[str]:
    """The objects directly in a folder."""
    bucket, prefix = _folder(folder)
    root = folder.rstrip("/") + "/"
    return [root + key[len(prefix) :] for key in bucket.keys(prefix, direct=True) if key != prefix]


def remove(path: str) -> None:
    """Delete an object, and everything in a folder of this name."""
    bucket, key = locate(path)
    bucket.delete([key, *bucket.keys(_folder(path)[1])])


def tree(folder: str) -> Iterator[str]:
    bucket, prefix = _folder(folder)
    return (key[len(prefix) :] for key in bucket.keys(prefix) if not key.endswith("/"))


def remove_files(paths: Sequence[str]) -> None:
    objects = [locate(path) for path in paths]
    objects[0][0].delete([key for _, key in objects])


def remove_unfinished(folder: str, chosen: Callable[[str], bool]) -> None:
    """Abort unfinished uploads of killed writers, for chosen files; listings don't show them."""
    bucket, prefix = _folder(folder)
    bucket.abort_uploads(prefix, lambda key: chosen(key[len(prefix) :]))


def download(path: str, folder: str) -> str:
    """Copy an object or folder into a local folder; returns its path. ValueError if missing."""
    bucket, key = locate(path)
    top = os.path.join(folder, os.path.basename(path.rstrip("/")))
    if bucket.stat(key):
        wanted = {path: top}
    else:
        _, prefix = _folder(path)
        names = [found[len(prefix) :] for found in bucket.keys(prefix) if not found.endswith("/")]
        if any(part in ("", "..") for name in names for part in name.split("/")):
            raise ValueError(f"{path} holds names that are not valid paths")
        wanted = {f"{path.rstrip('/')}/{name}": os.path.join(top, name) for name in names}
    if not wanted:
        raise ValueError(f"there is nothing at {path}")
    for source, target in wanted.items():
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open_input(source) as file, open(target, "wb") as copy:
            shutil.copyfileobj(file, copy)
    return top


def _folder(path: str) -> tuple[Bucket, str]:
    bucket, key = locate(path)
    return bucket, key.rstrip("/") + "/" if key.rstrip("/") else ""


class _Ranges(io.RawIOBase):
    """One version of an object, read in ranges."""

    def __init__(self, bucket: Bucket, key: str, stat: Stat) -> None:
        self._bucket = bucket
        self._key = key
        self._stat = stat
        self._position = 0
        self._ahead = FIRST_READ

    def readinto(self, buffer: Any) -> int:
        start = self._position
        end = min(start + min(len(buffer), self._ahead), self._stat.size)
        if start >= end:
            return 0
        buffer[: end - start] = self._bucket.read(self._key, start, end, self._stat.version)
        heartbeat.beat()
        self._position = end
        self._ahead = min(2 * self._ahead, LARGEST_READ)
        return end - start

    def readall(self) -> bytes:
        """The rest of the file; Python's default reads 8 KiB at a time."""
        return b"".join(iter(lambda: self.read(LARGEST_READ), b""))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stat.size}[whence]
        position = base + offset
        if position < 0:
            raise ValueError(f"negative position {position}")
        if position != self._position:
            self._ahead = FIRST_READ
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
