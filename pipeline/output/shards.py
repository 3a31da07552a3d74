"""Arrow IPC shards: written atomically, bounded in size, checksummed."""

import contextlib
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import xxhash

from winnow import storage


@dataclass(frozen=True)
class Shard:
    """One finished file of ``shards/``: its name, rows, size and the xxh3-128 of its bytes."""

    name: str
    rows: int
    bytes: int
    checksum: str


class ShardWriter:
    """Writes the batches of one task to ``<stem>.arrow``, ``<stem>.1.arrow``, … in a folder.

    A new file starts when the text written to the current one passes ``shard_bytes``. Nothing is
    written for a task without rows. Files appear when they are complete; after an error in the
    ``with`` block the open one is discarded.
    """

    def __init__(
        self, folder: str, stem: str, schema: pa.Schema, shard_bytes: int, compression: str
    ) -> None:
        self._folder = folder
        self._stem = stem
        self._schema = schema
        self._shard_bytes = shard_bytes
        self._options = pa.ipc.IpcWriteOptions(
            compression=None if compression == "none" else compression,
            use_threads=False,  # other tasks use the other cores
        )
        self._stack = contextlib.ExitStack()
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._shards: list[Shard] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._finish()
        else:
            self._stack.__exit__(*error)  # type: ignore[arg-type]

    @property
    def shards(self) -> list[Shard]:
        """The finished files so far; all of them once the ``with`` block is left."""
        return list(self._shards)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch with this writer's schema."""
        if not len(batch):
            return
        if self._writer is None:
            self._open()
        assert self._writer is not None
        self._writer.write_batch(batch)
        self._rows += len(batch)
        if self._file.tell() >= self._shard_bytes:
            self._finish()

    def _open(self) -> None:
        part = f".{len(self._shards)}" if self._shards else ""
        self._name = f"{self._stem}{part}.arrow"
        raw = self._stack.enter_context(storage.open_output(storage.join(self._folder, self._name)))
        self._file = _ChecksumFile(raw)
        self._writer = pa.ipc.new_file(self._file, self._schema, options=self._options)
        self._rows = 0

    def _finish(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        self._stack.close()
        self._shards.append(Shard(self._name, self._rows, self._file.tell(), self._file.checksum()))


class _ChecksumFile:
    """A file that counts and hashes what is written to it."""

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._digest = xxhash.xxh3_128()
        self._size = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        self._raw.write(view)
        self._digest.update(view)
        self._size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self._size

    def checksum(self) -> str:
        return self._digest.hexdigest()

    def flush(self) -> None:
        self._raw.flush()

    def close(self) -> None:
        """The owner closes the file beneath."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
