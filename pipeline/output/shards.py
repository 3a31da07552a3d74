"""Shards, Arrow IPC or Parquet: written atomically, bounded in size, checksummed."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from winnow.filesystem import storage

ROW_GROUP_BYTES = 32_000_000
"""Bytes of text per Parquet row group, the unit of decoding."""


@dataclass(frozen=True)
class Shard:
    """One finished file of ``shards/``: its name, rows, size and the xxh3-128 of its bytes."""

    name: str
    rows: int
    bytes: int
    checksum: str


class _Writer(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None: ...


class ShardWriter:
    """Writes the batches of one task to ``<stem>.arrow`` (or ``.parquet``), ``<stem>.1.arrow``, ….

    A new file starts when the current one passes ``shard_bytes``; a task without rows has none.
    Files appear when complete; an error in the ``with`` block discards the open one.
    """

    def __init__(
        self,
        folder: str,
        stem: str,
        schema: pa.Schema,
        shard_bytes: int,
        compression: str,
        file_format: str = "arrow",
    ) -> None:
        self._folder = folder
        self._stem = stem
        self._schema = schema
        self._shard_bytes = shard_bytes
        self._compression = compression
        self._format = file_format
        self._stack = contextlib.ExitStack()
        self._writer: _Writer | None = None
        self._group: list[pa.RecordBatch] = []  # an incomplete row group
        self._group_bytes = 0
        self._shards: list[Shard] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            with self._stack:  # cleans up after errors here too
                self._finish()
        else:
            self._stack.__exit__(*error)  # type: ignore[arg-type]

    @property
    def shards(self) -> list[Shard]:
        """The files finished so far; all of them after the ``with`` block."""
        return list(self._shards)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch with this writer's schema."""
        for group in [batch] if self._format == "arrow" else self._full_groups(batch):
            self._append(group)

    def _append(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        if self._writer is None:
            self._open()
        assert self._writer is not None
        self._writer.write_batch(batch)
        self._rows += len(batch)
        if self._file.tell() >= self._shard_bytes:
            self._close()

    def _full_groups(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The row groups that a batch completes.

        A group's end depends on the rows alone, not on batches, so deciding again from the shards
        gives the same bytes.
        """
        ends = np.cumsum(batch["bytes"].to_numpy()) + self._group_bytes
        start = taken = 0
        while start < len(batch):
            end = 1 + int(np.searchsorted(ends, taken + ROW_GROUP_BYTES))
            self._group.append(batch.slice(start, end - start))
            start = end
            if end <= len(batch):
                taken = int(ends[end - 1])
                yield self._take_group()
        self._group_bytes = int(ends[-1]) - taken if len(batch) else self._group_bytes

    def _take_group(self) -> pa.RecordBatch:
        group = pa.concat_batches(self._group)
        self._group, self._group_bytes = [], 0
        return group

    def _open(self) -> None:
        part = f".{len(self._shards)}" if self._shards else ""
        self._name = f"{self._stem}{part}.{self._format}"
        raw = self._stack.enter_context(storage.open_output(storage.join(self._folder, self._name)))
        self._file = _ChecksumFile(raw)
        new = _new_parquet if self._format == "parquet" else _new_arrow
        self._writer = new(self._file, self._schema, self._compression)
        self._rows = 0

    def _finish(self) -> None:
        if self._group:
            self._append(self._take_group())
        if self._writer is not None:
            self._close()

    def _close(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        self._stack.close()
        self._shards.append(Shard(self._name, self._rows, self._file.tell(), self._file.checksum()))


def _new_arrow(file: "_ChecksumFile", schema: pa.Schema, compression: str) -> _Writer:
    options = pa.ipc.IpcWriteOptions(
        compression=None if compression == "none" else compression,
        use_threads=False,  # other tasks use the other cores
    )
    return pa.ipc.new_file(file, schema, options=options)


def _new_parquet(file: "_ChecksumFile", schema: pa.Schema, compression: str) -> _Writer:
    """Parquet with a page index, and content-defined pages for stores that deduplicate chunks."""
    unique = ("id", "url", "text", "content_hash")  # dictionaries do not pay
    return pq.ParquetWriter(
        file,
        schema,
        compression=compression,
        use_dictionary=[name for name in schema.names if name not in unique],
        write_page_index=True,
        use_content_defined_chunking=True,
    )


class _ChecksumFile(io.RawIOBase):
    """Counts and hashes what is written to ``raw``, which its owner closes."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._digest = xxhash.xxh3_128()
        self._size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._raw.write(view)
        self._digest.update(view)
        self._size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self._size

    def checksum(self) -> str:
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True
