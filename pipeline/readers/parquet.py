"""Parquet, by row groups."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.readers.columns import BATCH_BYTES, check_end, check_whole, documents, wanted_columns
from pipeline.readers.contract import FieldMap, InputRange, Quarantine
from pipeline.readers.parquet_footer import Footer, RowGroup, largest_value, read_footer
from pipeline.readers.source import DAMAGE, Source

_MAX_ROWS = 1 << 13  # the size of a column is not that of its text: a dictionary holds each once
_SHARED_BYTES = 1 << 30
"""What a column of a piece may take, should each row hold the largest value that rows can share."""


def read_parquet(
    stream: BinaryIO, piece: InputRange, fields: FieldMap, quarantine: Quarantine, max_bytes: int
) -> Iterator[pa.RecordBatch]:
    """The documents of some row groups.

    Where a row group is damaged the rest of it is one quarantined record, and the next is read. A
    file whose footer is damaged is quarantined as a whole: without it nothing can be found.

    Raises:
        ValueError: the text column is not there, or is no string.
        OSError: the file cannot be read.
    """
    footer = read_footer(stream)
    source = Source(stream)
    try:
        groups, file = _open(footer, source)
    except DAMAGE as error:
        source.check()
        check_whole(piece)
        quarantine.add(0, "record", "corrupt_parquet", f"cannot be opened: {error}")
        return
    columns = wanted_columns(file.schema_arrow, piece.path, fields)
    for index in range(piece.start, check_end(piece, len(groups))):
        row = sum(group.rows for group in groups[:index])
        last = row + groups[index].rows - 1
        tables = _tables(stream, source, file, index, groups[index], columns, fields)
        while True:
            try:
                table = next(tables, None)
            except DAMAGE as error:
                source.check()
                message = f"rows {row} to {last} (row group {index}): {error}"
                quarantine.add(row, "record", "corrupt_parquet", message)
                break
            if table is None:
                break
            yield from documents(table, row, fields, quarantine, max_bytes)
            row += len(table)


def _open(footer: Footer | None, source: Source) -> tuple[list[RowGroup], pq.ParquetFile]:
    """The row groups of a file, and the file.

    Raises:
        Exception: one of :data:`DAMAGE`; the file cannot be opened.
    """
    if footer is None:
        raise ValueError("the footer is damaged or not there")
    file = pq.ParquetFile(
        source.arrow(), pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
    )
    _ = file.schema_arrow.names  # decodes them
    return footer.groups, file


def _tables(
    stream: BinaryIO,
    source: Source,
    file: pq.ParquetFile,
    index: int,
    group: RowGroup,
    names: list[str],
    fields: FieldMap,
) -> Iterator[pa.RecordBatch]:
    """A row group in pieces of about :data:`BATCH_BYTES` of text."""
    rows = _MAX_ROWS
    if fields.text in group.columns:
        rows = min(rows, group.rows * BATCH_BYTES // max(group.columns[fields.text].size, 1))
    columns = [
        column
        for path, column in group.columns.items()
        if any(path == name or path.startswith(f"{name}.") for name in names)
    ]
    shared = max((largest_value(stream, column) for column in columns), default=0)
    if rows * shared > _SHARED_BYTES:
        if not any(column.delta for column in columns):
            shared = _longest(source, file, index, names)  # dearer to find, and exact
        rows = min(rows, _SHARED_BYTES // max(shared, 1))
    for batch in file.iter_batches(
        batch_size=max(rows, 1), row_groups=[index], columns=names, use_threads=False
    ):
        _check_indices(batch)
        yield batch


def _check_indices(batch: pa.RecordBatch) -> None:
    """Refuse damage that pyarrow does not notice.

    Raises:
        ValueError: an index points beyond its dictionary.
    """
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            ends = pc.min_max(column.indices)
            if (ends["max"].as_py() or 0) >= max(len(column.dictionary), 1):
                raise ValueError("an index beyond the dictionary")


def _longest(source: Source, file: pq.ParquetFile, index: int, names: list[str]) -> int:
    """The bytes of the longest string in the dictionaries of a row group."""
    packed = pq.ParquetFile(
        source.arrow(),
        metadata=file.metadata,
        read_dictionary=names,
        pre_buffer=False,
        buffer_size=1 << 16,  # the dictionary and one page, not the whole column
    )
    first = next(packed.iter_batches(1, row_groups=[index], columns=names, use_threads=False))
    sizes = [
        pc.max(pc.binary_length(column.dictionary)).as_py() or 0
        for column in first.columns
        if pa.types.is_dictionary(column.type)
    ]
    return max(sizes, default=0)


def group_sizes(stream: BinaryIO) -> list[int]:
    """The stored bytes of each row group; empty if the file cannot be opened."""
    footer = read_footer(stream)
    source = Source(stream)
    try:
        groups, _ = _open(footer, source)
    except DAMAGE:
        source.check()
        return []
    return [group.end - group.start for group in groups]


def regions(stream: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """Where the bytes of row groups ``start`` to ``end`` are, and the footer."""
    size = stream.seek(0, 2)
    footer = read_footer(stream)
    if footer is None or len(footer.groups) < end:
        return [(0, size)]
    spans = [(group.start, group.end) for group in footer.groups[start:end]]
    return [*spans, (footer.start, size)]
