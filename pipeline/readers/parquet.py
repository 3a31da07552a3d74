"""Parquet, by row groups."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.readers.columns import BATCH_BYTES, check_end, documents, wanted_columns
from pipeline.readers.contract import FieldMap, InputRange, Quarantine
from pipeline.readers.source import DAMAGE, Source

_MAX_ROWS = 1 << 13  # the size of a column is not that of its text: a dictionary holds each once


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
    source = Source(stream)
    try:
        file = pq.ParquetFile(
            source.arrow(), pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        )
        _ = file.schema_arrow.names  # decodes them
        rows = [_rows(file.metadata, group) for group in range(file.num_row_groups)]
    except DAMAGE as error:
        source.check()
        quarantine.add(0, "record", "corrupt_parquet", f"cannot be opened: {error}")
        return
    columns = wanted_columns(file.schema_arrow, piece.path, fields)
    end = check_end(piece, len(rows))
    for group in range(piece.start, end):
        row = sum(rows[:group])
        tables = _tables(file, group, rows[group], columns, fields)
        while True:
            try:
                table = next(tables, None)
            except DAMAGE as error:
                source.check()
                last = sum(rows[: group + 1]) - 1
                message = f"rows {row} to {last} (row group {group}): {error}"
                quarantine.add(row, "record", "corrupt_parquet", message)
                break
            if table is None:
                break
            yield from documents(table, row, fields, quarantine, max_bytes)
            row += len(table)


def _tables(
    file: pq.ParquetFile, group: int, rows: int, columns: list[str], fields: FieldMap
) -> Iterator[pa.RecordBatch]:
    """A row group in pieces of about :data:`BATCH_BYTES` of text."""
    size = max(_text_bytes(file.metadata.row_group(group), fields.text), 1)
    batch_size = min(max(rows * BATCH_BYTES // size, 1), _MAX_ROWS)
    yield from file.iter_batches(
        batch_size=batch_size, row_groups=[group], columns=columns, use_threads=False
    )


def group_sizes(stream: BinaryIO) -> list[int]:
    """The stored bytes of each row group; empty if the footer is damaged."""
    metadata = _metadata(stream)
    if metadata is None:
        return []
    spans = [_span(metadata.row_group(i)) for i in range(metadata.num_row_groups)]
    return [end - start for start, end in spans]


def regions(stream: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """Where the bytes of row groups ``start`` to ``end`` are, and the footer."""
    size = stream.seek(0, 2)
    metadata = _metadata(stream)
    if metadata is None or metadata.num_row_groups < end:
        return [(0, size)]
    spans = [_span(metadata.row_group(i)) for i in range(start, end)]
    return [*spans, (max(size - 8 - metadata.serialized_size, 0), size)]


def _metadata(stream: BinaryIO) -> pq.FileMetaData | None:
    source = Source(stream)
    try:
        return pq.read_metadata(source.arrow())
    except DAMAGE:
        source.check()
        return None


def _rows(metadata: pq.FileMetaData, group: int) -> int:
    return metadata.row_group(group).num_rows


def _span(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """From the first to the last byte of a row group's column chunks."""
    starts, ends = [], []
    for i in range(group.num_columns):
        column = group.column(i)
        start = min(
            column.data_page_offset, column.dictionary_page_offset or column.data_page_offset
        )
        starts.append(start)
        ends.append(start + column.total_compressed_size)
    return max(min(starts, default=0), 0), max(ends, default=0)


def _text_bytes(group: pq.RowGroupMetaData, name: str) -> int:
    """The size of the text once decompressed, about: dictionary encoding hides some."""
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == name)
