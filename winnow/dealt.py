"""Rows distributed to buckets, with a file per bucket for rows that exceed memory."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MOST = 256
"""Limit of open files per instance; systems allow 1024 per process."""


def split(buckets: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """For each bucket that occurs, the indices at which it does, ascending."""
    order = np.argsort(buckets, kind="stable")
    numbers, first = np.unique(buckets[order], return_index=True)
    for number, rows in zip(numbers, np.split(order, first)[1:], strict=True):
        yield int(number), rows


class _Files(contextlib.ExitStack):
    """An unnamed file in ``$TMPDIR`` for each of n buckets; the system removes them on close or
    when the process dies.

    Raises:
        ValueError: there are more than :data:`MOST` buckets.
    """

    def __init__(self, buckets: int) -> None:
        super().__init__()
        if buckets > MOST:
            raise ValueError(f"{buckets} buckets are more than {MOST} open files")
        self.buckets = buckets
        self._files: dict[int, IO[bytes]] = {}

    def _file(self, bucket: int) -> IO[bytes]:
        """The file of a bucket, created on first use."""
        if bucket not in self._files:
            self._files[bucket] = self.enter_context(
                tempfile.TemporaryFile(prefix="winnow-")  # noqa: SIM115 closed with all
            )
        return self._files[bucket]


class Dealt(_Files):
    """Rows of one type in a file for each of n buckets."""

    def __init__(self, buckets: int, row: np.dtype[Any]) -> None:
        super().__init__(buckets)
        self._row = row

    def deal(self, bucket: npt.NDArray[np.integer], *columns: Any) -> None:
        """Add n rows, given as columns [n] or values for all, each to its bucket (integers [n])."""
        rows = np.empty(len(bucket), self._row)
        if self._row.names is None:
            (rows[:],) = columns
        else:
            for name, column in zip(self._row.names, columns, strict=True):
                rows[name] = column
        for number, chosen in split(bucket):
            self._file(number).write(rows[chosen].tobytes())

    def of(self, bucket: int) -> npt.NDArray[Any]:
        """The rows of a bucket, in the order in which they were added."""
        if bucket not in self._files:
            return np.empty(0, self._row)
        file = self._files[bucket]
        file.seek(0)
        return np.frombuffer(file.read(), self._row)


class DealtBatches(_Files):
    """Rows of Arrow record batches, of any schemas, in a file for each of n buckets."""

    def deal(self, bucket: npt.NDArray[np.integer], batch: pa.RecordBatch) -> None:
        """Add the n rows of a batch, each to its bucket (integers [n])."""
        for number, chosen in split(bucket):
            part = batch if len(chosen) == len(batch) else batch.take(pa.array(chosen))
            with pa.ipc.new_stream(self._file(number), batch.schema) as writer:
                writer.write_batch(part)

    def of(self, bucket: int) -> Iterator[pa.RecordBatch]:
        """The batches of a bucket, in the order in which they were added."""
        if bucket not in self._files:
            return
        file = self._files[bucket]
        end = file.tell()
        file.seek(0)
        while file.tell() < end:
            yield from pa.ipc.open_stream(file)
