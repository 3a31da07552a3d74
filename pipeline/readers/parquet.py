"""Parquet, by row groups."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.readers.columns import BATCH_BYTES, check_end, check_whole, documents, wanted_columns
from pipeline.readers.contract import FieldMap, InputRange, Quarantine
from pipeline.readers.parquet_footer import Column, Footer, RowGroup, read_footer
from pipeline.readers.parquet_pages import PIECE_BYTES, Leaf, Pages, TooMuchError
from pipeline.readers.source import DAMAGE, Source

_MAX_ROWS = 1 << 13  # the size of a column is not that of its text: a dictionary holds each once
_READ_BYTES = 1 << 20
_FEW_BYTES = 1 << 14  # pyarrow looks for a page header in that many

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


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
        tables = _tables(source, file, index, groups[index], columns, fields)
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
    file = _file(source, _READ_BYTES)
    _ = file.schema_arrow.names  # decodes them
    return footer.groups, file


def _file(
    source: Source, read_bytes: int, metadata: pq.FileMetaData | None = None
) -> pq.ParquetFile:
    return pq.ParquetFile(
        source.arrow(),
        metadata=metadata,
        pre_buffer=False,
        buffer_size=read_bytes,
        page_checksum_verification=True,
    )


def _tables(
    source: Source,
    file: pq.ParquetFile,
    index: int,
    group: RowGroup,
    names: list[str],
    fields: FieldMap,
) -> Iterator[pa.RecordBatch]:
    """A row group in pieces of about :data:`BATCH_BYTES` of text.

    Where that turns out to be too much for one of them (rows may share values, and some may be far
    longer than others), the row group is read again from its start, by fewer rows.
    """
    columns = list(_columns(file, group, names))
    rows = _MAX_ROWS
    if fields.text in group.columns:
        rows = min(rows, group.rows * BATCH_BYTES // max(group.columns[fields.text].size, 1))
    widest = max((leaf.width or 1 for _, leaf in columns), default=1)
    rows = min(max(rows, 1), PIECE_BYTES // widest)
    done = 0
    pages = Pages(columns, rows)
    while True:
        source.watch = pages.see
        end = 0
        try:
            for batch in file.iter_batches(
                batch_size=rows, row_groups=[index], columns=names, use_threads=False
            ):
                pages.next_piece()
                _check_indices(batch)
                end += len(batch)
                if end > done:
                    yield batch.slice(max(len(batch) - (end - done), 0))
                    done = end
            if end < group.rows:  # pyarrow says nothing where a column ends before the others
                raise ValueError(f"only {end} of {group.rows} rows are there")
            return
        except TooMuchError as error:
            rows = error.rows
            pages = Pages(columns, rows, error.careful)
            if error.careful:
                source.watch = None
                file = _file(source, _FEW_BYTES, file.metadata)


def _columns(
    file: pq.ParquetFile, group: RowGroup, names: list[str]
) -> Iterator[tuple[Column, Leaf]]:
    """The stored columns of some columns of the schema, whose values may be structs and lists.

    Raises:
        ValueError: the schema has no such column, or one whose values are all huge.
    """
    leaves = {leaf.path: leaf for leaf in (file.schema.column(i) for i in range(len(file.schema)))}
    for path, column in group.columns.items():
        if any(path == name or path.startswith(f"{name}.") for name in names):
            if path not in leaves:
                raise ValueError(f"a column {path!r} that the schema does not have")
            leaf = leaves[path]
            width = _WIDTHS.get(leaf.physical_type, leaf.length or None)
            if width and width > PIECE_BYTES:
                raise ValueError(f"column {path!r} is of values of {width:,} bytes")
            yield column, Leaf(leaf.max_definition_level, leaf.max_repetition_level, width)


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


def group_sizes(stream: BinaryIO, path: str, fields: FieldMap | None) -> list[int]:
    """The stored bytes of each row group; empty if the file cannot be opened.

    Raises:
        ValueError: the file lacks the text column of ``fields``.
    """
    footer = read_footer(stream)
    source = Source(stream)
    try:
        groups, file = _open(footer, source)
    except DAMAGE:
        source.check()
        return []
    if fields:
        wanted_columns(file.schema_arrow, path, fields)
    return [group.end - group.start for group in groups]


def regions(stream: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """Where the bytes of row groups ``start`` to ``end`` are, and the footer."""
    size = stream.seek(0, 2)
    footer = read_footer(stream)
    if footer is None or len(footer.groups) < end:
        return [(0, size)]
    spans = [(group.start, group.end) for group in footer.groups[start:end]]
    return [*spans, (footer.start, size)]
