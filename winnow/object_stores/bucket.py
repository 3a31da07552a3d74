"""The interface to an object store, and shared parts of its clients."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from winnow import heartbeat


@dataclass(frozen=True)
class Stat:
    """The size of an object in bytes, and its version (ETag or generation)."""

    size: int
    version: str


class Bucket(Protocol):
    """A bucket of a store. Transient faults are retried; others raise OSError."""

    def stat(self, key: str) -> Stat | None:
        """Size and version of an object; None if there is none."""

    def read(self, key: str, start: int, end: int, version: str) -> bytes:
        """Bytes ``[start, end)`` of one version of an object; an OSError if it has changed."""

    def upload(self, key: str, file: BinaryIO) -> None:
        """Upload a local file as an object, in parts if it is large."""

    def replace(self, key: str, content: bytes, version: str | None) -> str | None:
        """Write an object if its version is still this one (None: if it does not exist).

        Returns the new version, or None if another writer was first.
        """

    def keys(self, prefix: str, direct: bool = False) -> Iterator[str]:
        """All keys with a prefix, in any order; if ``direct``, only those without further ``/``."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; missing ones are not an error."""

    def abort_uploads(self, prefix: str, chosen: Callable[[str], bool]) -> None:
        """Abort incomplete uploads of chosen keys."""


class Upload(io.BufferedReader):
    """A local file from its start, for a client that may close it; ``file`` stays open.

    Each read is a heartbeat. One client at a time.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(io.FileIO(os.dup(file.fileno())))
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        heartbeat.beat()
        return super().read(size)
