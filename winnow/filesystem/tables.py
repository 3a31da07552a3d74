"""Arrow IPC and Parquet files on any storage, as tables or batches."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from winnow import heartbeat
from winnow.filesystem import storage


def required(**columns: pa.DataType) -> list[pa.Field]:
    """Non-nullable fields of a schema."""
    return [pa.field(name, kind, nullable=False) for name, kind in columns.items()]


def write(path: str, table: pa.Table) -> None:
    """Write a table atomically."""
    with storage.open_output(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read(path: str) -> pa.Table:
    with storage.open_input(path) as file:
        return pa.ipc.open_file(file).read_all()


def batches(path: str, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a file with those of ``columns`` that it has, memory-mapped if local.

    A row group of a ``.parquet`` file is a batch.

    Raises:
        ValueError: the file has neither format, or is damaged.
    """
    if path.endswith(".parquet"):
        yield from _parquet_batches(path, columns)
        return
    with open_file(path) as source:
        try:
            reader = pa.ipc.open_file(source)
            if columns is not None:
                fields = [i for i, name in enumerate(reader.schema.names) if name in columns]
                options = pa.ipc.IpcReadOptions(included_fields=fields)
                reader = pa.ipc.open_file(source, options=options)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
                heartbeat.beat()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a complete Arrow IPC file: {error}") from error


def _parquet_batches(path: str, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with open_file(path, mapped=False) as source:
        try:
            file = pq.ParquetFile(source, memory_map=False)
            names = file.schema_arrow.names
            wanted = names if columns is None else [name for name in names if name in columns]
            for i in range(file.num_row_groups):
                group = file.read_row_group(i, wanted, use_threads=False)
                yield from group.combine_chunks().to_batches()
                heartbeat.beat()
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a complete Parquet file: {error}") from error


def replaced(batch: pa.RecordBatch, **columns: Any) -> pa.RecordBatch:
    """The batch with other values (arrays [n] of the same types) in some columns."""
    for name, values in columns.items():
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, batch.schema.field(at), values)
    return batch


def along(
    batches: Iterable[pa.RecordBatch], rows: npt.NDArray[np.int64]
) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.int64], slice]]:
    """Each batch with those of ``rows`` (ascending, counted over all batches) that it holds.

    Yields the batch, its rows counted within the batch, and their slice of ``rows``.
    """
    first = 0
    for batch in batches:
        low, high = np.searchsorted(rows, [first, first + len(batch)])
        yield batch, rows[low:high] - first, slice(low, high)
        first += len(batch)


def column_names(path: str) -> list[str]:
    """The columns of a file that :func:`batches` reads."""
    with open_file(path) as source:
        if path.endswith(".parquet"):
            return list(pq.read_schema(source).names)
        return list(pa.ipc.open_file(source).schema.names)


def open_file(path: str, mapped: bool = True) -> pa.NativeFile:
    """A file to read with pyarrow; if local and ``mapped``, its pages count as our memory."""
    if storage.scheme(path) is not None:
        return pa.PythonFile(storage.open_input(path), mode="r")
    return pa.memory_map(path) if mapped else pa.OSFile(path)


def runs_of_equal(table: pa.Table, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pa.Table]]:
    """The (keys, rows) of each run of equal keys in a table sorted by them, in order.

    Arrow's group_by with several keys may give its groups in another order.
    """
    if not len(table):
        return []
    first = np.zeros(len(table), np.bool_)
    first[0] = True
    for key in keys:
        column = table[key].combine_chunks()
        first[1:] |= np.asarray(pc.not_equal(column[1:], column[:-1]))
    starts = np.flatnonzero(first)
    sizes = np.diff(np.append(starts, len(table)))
    rows = table.select(keys).take(starts).to_pylist()
    return [
        (tuple(row.values()), table.slice(start, size))
        for row, start, size in zip(rows, starts.tolist(), sizes.tolist(), strict=True)
    ]
